#!/usr/bin/env python3
"""Train a multi-layer perceptron (784 inputs, one hidden layer of ReLU, 10 classes) on MNIST with owl."""

import math
import sys

import owl
import owl.conv as conv
import owl.elewise as ele
import training
from options import parse_options


def initial_parameters(hidden):
    """`[w1, b1, w2, b2]`; the deviations keep the layers' outputs near 1 at the start (He et al.)."""
    return [
        owl.randn([hidden, 784], 0.0, math.sqrt(2 / 784)),
        owl.zeros([hidden, 1]),
        owl.randn([10, hidden], 0.0, math.sqrt(1 / hidden)),
        owl.zeros([10, 1]),
    ]


def forward(params, x):
    """`x` is `[784, n]`. Returns the hidden layer `[hidden, n]` and the logits `[10, n]`."""
    w1, b1, w2, b2 = params
    h = ele.relu(w1 * x + b1)
    return h, w2 * h + b2


def backward(params, x, target, h, logits):
    """Gradients of the cross entropy, summed over the minibatch, in the order of `params`."""
    _, _, w2, _ = params
    err2 = conv.softmax(logits) - target
    err1 = ele.relu_back(w2.trans() * err2, h)
    return [err1 * x.trans(), err1.sum(1), err2 * h.trans(), err2.sum(1)]


def loss_and_gradients(params, x, target):
    h, logits = forward(params, x)
    return [training.cross_entropy(logits, target), *backward(params, x, target, h, logits)]


def predict(params, x):
    _, logits = forward(params, x)
    return logits


def main(argv=None):
    options = parse_options(argv, __doc__, epochs=10, batch_size=256, lr=0.1, momentum=0.9, weight_decay=1e-4, hidden=256)
    network = training.Network(lambda: initial_parameters(options.hidden), loss_and_gradients, predict, (784,))
    return training.run(options, network)


if __name__ == "__main__":
    sys.exit(main())
