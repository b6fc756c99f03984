"""What owl.train's tests share: a small network, data and a trainer of it."""

import numpy as np

import owl
from owl import data, nn, optim, train

RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 6)).astype(np.float32)
LABELS = (X @ RNG.standard_normal((6, 3)).astype(np.float32)).argmax(1).astype(np.int32)
SUFFIXES = [".npz", ".safetensors"]


class Dropout(nn.Module):
    """With numbers of its own from owl's generator."""

    def forward(self, x):
        return owl.elewise.mult(x, owl.randb(x.shape, 0.8) * 1.25) if self.training else x


class Centred(nn.Module):
    """Subtracts a running mean, as batch normalisation does."""

    def __init__(self, n):
        self.buffer("mean", owl.zeros([n, 1]))

    def forward(self, x):
        if not self.training:
            return x - self.mean
        mean = x.mean(1)
        self.mean = owl.stop_gradient(self.mean * 0.9 + mean * 0.1)
        return x - mean


def network(*more, seed=1):
    owl.seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), *more, nn.Linear(16, 3))


def trainer(*more, optimizer=None, model=None, **options):
    model = network(*more) if model is None else model
    optimizer = optim.Adam(optim.cosine(0.01, 200)) if optimizer is None else optimizer
    return train.Trainer(model, "softmax_cross_entropy", optimizer, **options)


def loader(**options):
    return data.Loader((X, LABELS), **{"batch_size": 32, "shuffle": True, **options})


def fit(own, epochs, given=None, **options):
    return own.fit(loader() if given is None else given, epochs, **{"progress": False, **options})


def weights(own):
    return {name: array.to_numpy().tobytes() for name, array in own.model.state().items()}


def predicted(own):
    return own.predict(X).to_numpy()


class StopAt:
    """Ends the training after a step."""

    def __init__(self, step):
        self.step = step

    def on_step(self, own, step):
        if step == self.step:
            own.stop()
