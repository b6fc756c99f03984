"""The walkthrough's MLP, 784-H-10 with hand-written gradients, minibatch 256: seconds for one epoch of MNIST."""
from common import arguments, mnist, report, timed
from network import Mlp, minibatches

A = arguments(__doc__, hidden=256, epochs=4, images=60000)
x, y, x_test, y_test = mnist()
batches = minibatches(x[:A.images], y[:A.images])
network = Mlp(A.hidden)
network.epoch(batches[:1])
seconds = [timed(lambda: network.epoch(batches)) for _ in range(A.epochs)]
report(f"mlp-epoch-h{A.hidden}", seconds, accuracy=network.accuracy(x_test, y_test))
