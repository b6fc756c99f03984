"""The MLP of the MNIST tutorial, 784-U-U-10 with Adam: images a second by owl.nn and owl.optim, or by plain array code.

`--plain 1` writes the same step out: gradients and Adam by hand, over the same operations. The script reads no value.
"""
import owl
from common import arguments, mnist, report, timed
from tutorial import Net, Plain

A = arguments(__doc__, units=50, batch=100, images=20000, rounds=5, plain=0)
x, y, x_test, y_test = mnist()
batches = [(x[i:i + A.batch], y[i:i + A.batch].astype("i4")) for i in range(0, A.images, A.batch)]
net = Plain(A.units) if A.plain else Net(A.units)


def epoch():
    losses = [net.step(owl.from_numpy(images), owl.from_numpy(labels))[1] for images, labels in batches]
    owl.wait_for_all()
    return losses


epoch()
seconds = [timed(epoch) for _ in range(A.rounds)]
loss = sum(each.item() for each in epoch()) / len(batches)
report("layers", [s / len(batches) * 1e3 for s in seconds], images_per_s=A.images / min(seconds), loss=loss)
