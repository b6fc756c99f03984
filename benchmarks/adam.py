"""784-U-U-10 with Adam, minibatches of 100 gathered in a new order each epoch (Chainer's MNIST example): seconds an epoch
of `images` images."""
import numpy as np

import owl
from common import arguments, mnist, report, timed
from owl import nn, optim

A = arguments(__doc__, units=1000, images=6000, epochs=3)
BATCH = 100
x, y, _, _ = mnist(255.0)
y = y.astype("i4")
order = np.random.RandomState(0)
model = nn.Sequential(nn.Linear(784, A.units), nn.ReLU(), nn.Linear(A.units, A.units), nn.ReLU(), nn.Linear(A.units, 10))
optimizer = optim.Adam()
step = owl.value_and_grad(lambda net, images, labels: nn.softmax_cross_entropy(net(images), labels))


def epoch():
    places = order.permutation(len(x))[:A.images]
    for start in range(0, A.images, BATCH):
        chosen = places[start:start + BATCH]
        loss, gradients = step(model, owl.from_numpy(x[chosen]), owl.from_numpy(y[chosen]))
        optimizer.update(model, gradients)
    owl.wait_for_all()
    return float(loss.item())


epoch()
seconds = [timed(epoch) for _ in range(A.epochs)]
report(f"adam-u{A.units}", seconds, images_per_second=A.images / min(seconds), loss=epoch())
