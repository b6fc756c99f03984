"""An epoch of the MNIST tutorial's MLP, 784-U-U-10 with Adam, by owl.train.Trainer: milliseconds a step.

`--plain 1` is the same epoch in array code, with gradients and Adam by hand: shuffled minibatches that the engine gathers,
the mean loss and the accuracy read at its end.
"""
import numpy as np

import owl
from common import arguments, mnist, report, timed
from owl.data import ArrayDataset, Loader
from owl.train import Trainer
from tutorial import Net, Plain

A = arguments(__doc__, units=50, batch=100, images=20000, rounds=5, plain=0)
x, y, _, _ = mnist()
x, y = x[:A.images], y[:A.images].astype("i4")


class ByTrainer:
    def __init__(self):
        self.trainer = Trainer(Net(A.units), "softmax_cross_entropy", "adam")
        self.loader = Loader(ArrayDataset(x, y), A.batch, shuffle=True)

    def epoch(self):
        row = self.trainer.fit(self.loader, len(self.trainer.history) + 1, progress=False)[-1]
        return row["loss"], row["accuracy"]


class ByHand:
    def __init__(self):
        self.net, self.random = Plain(A.units), np.random.default_rng(0)
        self.images, self.labels = owl.from_numpy(x), owl.from_numpy(y)

    def epoch(self):
        order, losses, hits = self.random.permutation(A.images).astype("i4"), [], []
        for start in range(0, A.images, A.batch):
            places = owl.from_numpy(order[start:start + A.batch])
            labels = owl.take(self.labels, places, -1)
            logits, loss = self.net.step(owl.take(self.images, places, -1), labels)
            losses.append(loss * float(labels.size))
            hits.append((logits.argmax(0).reshape([-1]) == labels).sum())
        return sum(map(float, losses)) / A.images, sum(map(int, hits)) / A.images


work = ByHand() if A.plain else ByTrainer()
work.epoch()
seconds = [timed(work.epoch) for _ in range(A.rounds)]
loss, accuracy = work.epoch()
report("trainer", [s / (A.images / A.batch) * 1e3 for s in seconds], loss=loss, accuracy=accuracy)
