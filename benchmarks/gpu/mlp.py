"""The walkthrough's MLP, 784-H-10 with hand-written gradients, minibatch 256: seconds for an epoch, data on the card."""
from owl_side import on_card, use
from shared import images, minibatches, options, report, timed

import owl
from network import BATCH, Mlp

A = options(__doc__, hidden=256, images=60000, epochs=8, from_numpy=0)
use(A.device)
x, labels, targets = images(A.images)
batches = minibatches(BATCH, x, targets)
network = Mlp(A.hidden)
if not A.from_numpy:
    batches = on_card(batches)


def epoch():
    if A.from_numpy:
        network.epoch(batches)
        return
    for batch in batches:
        network.step(*batch)
    owl.wait_for_all()


epoch()
seconds = [timed(epoch) for _ in range(A.epochs)]
report("mlp-epoch" + "-from-numpy" * A.from_numpy, "owl", seconds, accuracy=network.accuracy(x[:10000], labels[:10000]))
