"""Chainer's train_mnist: 784-U-U-10, Adam, minibatches of 100 drawn from NumPy arrays: images a second."""
import math

import numpy as np
from owl_side import use
from shared import images, options, report, timed

import owl

A = options(__doc__, units=1000, images=60000, epochs=3)
BATCH, RATE, BETA1, BETA2, EPSILON = 100, 1e-3, 0.9, 0.999, 1e-8
use(A.device)
x, labels, targets = images(A.images)
owl.seed(0)
sizes = [784, A.units, A.units, 10]
weights = [owl.randn([m, n], 0.0, math.sqrt(1 / n)) for n, m in zip(sizes, sizes[1:])]
biases = [owl.zeros([m, 1]) for m in sizes[1:]]
params = [p for pair in zip(weights, biases) for p in pair]
first, second = ([owl.zeros(p.shape) for p in params] for _ in range(2))  # the moments
steps = 0


def forward(x):
    """The network's input, then each layer's output, the logits last."""
    layers = [x]
    for i in range(0, len(params), 2):
        z = params[i] * layers[-1] + params[i + 1]
        layers.append(owl.elewise.relu(z) if i < len(params) - 2 else z)
    return layers


def step(x, target):
    """Trains on one minibatch; returns its summed loss, an array on the device."""
    global steps
    steps += 1
    rate = RATE * math.sqrt(1 - BETA2**steps) / (1 - BETA1**steps)
    *layers, logits = forward(x)
    error = (owl.conv.softmax(logits) - target) / BATCH
    for i in reversed(range(0, len(params), 2)):
        gradients = [error * layers[i // 2].trans(), error.sum(1)]
        if i:
            error = owl.elewise.relu_back(params[i].trans() * error, layers[i // 2])
        for k, g in enumerate(gradients, i):
            first[k] = BETA1 * first[k] + (1 - BETA1) * g
            second[k] = BETA2 * second[k] + (1 - BETA2) * owl.elewise.square(g)
            params[k] -= rate * first[k] / (owl.elewise.sqrt(second[k]) + EPSILON)
    return -owl.elewise.mult(target, owl.conv.log_softmax(logits)).sum()


def epoch(count):
    """Trains on `count` images; returns their mean loss."""
    total = owl.zeros([1])
    order = rng.permutation(len(x))[:count]
    for i in range(0, count, BATCH):
        chosen = order[i:i + BATCH]
        total += step(owl.from_numpy(x[chosen]), owl.from_numpy(targets[chosen]))
    mean = float(total) / count
    owl.wait_for_all()
    return mean


rng = np.random.default_rng(0)
epoch(20 * BATCH)
rates = [A.images / timed(lambda: epoch(A.images)) for _ in range(A.epochs)]
right = forward(owl.from_numpy(x[:10000]))[-1].to_numpy().argmax(1) == labels[:10000]
report(f"train-u{A.units}", "owl", rates, better=max, accuracy=float(right.mean()))
