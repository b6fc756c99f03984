"""The network of apps/mnist/mnist_cnn.py, with momentum and weight decay: seconds for a minibatch, data on the card."""
from owl_side import on_card, use
from shared import images, minibatches, options, report, timed

import mnist_cnn
import owl
import training

A = options(__doc__, batch=256, batches=100, rounds=6)
use(A.device)
x, _, targets = images(A.batch * A.batches)
batches = on_card(minibatches(A.batch, x.reshape(-1, 1, 28, 28), targets))
owl.seed(0)
params = mnist_cnn.initial_parameters()
velocity = [owl.zeros(p.shape) for p in params]


def one_round():
    for x, target in batches:
        gradients = mnist_cnn.backward(params, x, target, *mnist_cnn.forward(params, x))
        gradients = [g / A.batch for g in gradients]
        training.update(params, velocity, gradients, lr=0.05, momentum=0.9, weight_decay=1e-4)
    owl.wait_for_all()


one_round()
seconds = [timed(one_round) / A.batches for _ in range(A.rounds)]
loss, *_ = mnist_cnn.loss_and_gradients(params, *batches[-1])
report("cnn-minibatch", "owl", seconds, loss=float(loss) / A.batch)
