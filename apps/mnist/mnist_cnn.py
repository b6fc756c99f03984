#!/usr/bin/env python3
"""Train a convolutional network (two convolutions with max pooling, a full connection to 10) on MNIST with owl."""

import math
import sys

import owl
import owl.conv as conv
import owl.elewise as ele
import training
from options import parse_options

conv1 = conv.Convolver(0, 0, 1, 1)
conv2 = conv.Convolver(2, 2, 1, 1)
pool1 = conv.Pooler(2, 2, 2, 2, op=conv.pool_op.max)
pool2 = conv.Pooler(3, 3, 3, 3, op=conv.pool_op.max)


def initial_parameters():
    """`[w1, b1, w2, b2, w3, b3]`; the deviations keep the layers' outputs near 1 at the start (He et al.)."""
    return [
        owl.randn([5, 5, 1, 16], 0.0, math.sqrt(2 / (5 * 5 * 1))),
        owl.zeros([16]),
        owl.randn([5, 5, 16, 32], 0.0, math.sqrt(2 / (5 * 5 * 16))),
        owl.zeros([32]),
        owl.randn([10, 512], 0.0, math.sqrt(1 / 512)),
        owl.zeros([10, 1]),
    ]


def forward(params, x):
    """`x` is `[28, 28, 1, n]`. Returns the output of each layer, the logits `[10, n]` last."""
    w1, b1, w2, b2, w3, b3 = params
    a1 = ele.relu(conv1.ff(x, w1, b1))  # [24, 24, 16, n]
    p1 = pool1.ff(a1)  # [12, 12, 16, n]
    a2 = ele.relu(conv2.ff(p1, w2, b2))  # [12, 12, 32, n]
    p2 = pool2.ff(a2)  # [4, 4, 32, n]
    logits = w3 * p2.reshape([512, -1]) + b3
    return a1, p1, a2, p2, logits


def backward(params, x, target, a1, p1, a2, p2, logits):
    """Gradients of the cross entropy, summed over the minibatch, in the order of `params`."""
    w1, _, w2, _, w3, _ = params
    err3 = conv.softmax(logits) - target
    err_p2 = (w3.trans() * err3).reshape(p2.shape)
    err2 = ele.relu_back(pool2.bp(err_p2, p2, a2), a2)
    err_p1 = conv2.bp(err2, p1, w2)
    err1 = ele.relu_back(pool1.bp(err_p1, p1, a1), a1)
    return [
        conv1.weight_grad(err1, x, w1), conv1.bias_grad(err1),
        conv2.weight_grad(err2, p1, w2), conv2.bias_grad(err2),
        err3 * p2.reshape([512, -1]).trans(), err3.sum(1),
    ]  # fmt: skip


def loss_and_gradients(params, x, target):
    a1, p1, a2, p2, logits = forward(params, x)
    return [training.cross_entropy(logits, target), *backward(params, x, target, a1, p1, a2, p2, logits)]


def predict(params, x):
    return forward(params, x)[-1]


def main(argv=None):
    options = parse_options(argv, __doc__, epochs=3, batch_size=128, lr=0.05, momentum=0.9, weight_decay=1e-4)
    network = training.Network(initial_parameters, loss_and_gradients, predict, image_shape=(28, 28, 1))
    return training.run(options, network)


if __name__ == "__main__":
    sys.exit(main())
