"""The walkthrough's CNN with momentum and weight decay: seconds for a minibatch of 256.

With `--memory 1` the megabytes at the peak, beyond the weights and their velocities, beside those of the layers' outputs for
all images."""
import numpy as np

import owl
from common import arguments, mnist, report, timed

A = arguments(__doc__, batches=40, rounds=4, memory=0)
B, LR, MOMENTUM, DECAY = 256, 0.05, 0.75, 5e-4
X, y, _, _ = mnist()
X = X.reshape(-1, 1, 28, 28)
Y = np.eye(10, dtype="f4")[y]
batches = [(X[i * B:(i + 1) * B], Y[i * B:(i + 1) * B]) for i in range(A.batches)]
conv1, conv2 = owl.conv.Convolver(0, 0, 1, 1), owl.conv.Convolver(2, 2, 1, 1)
pool1, pool2 = owl.conv.Pooler(2, 2, 2, 2), owl.conv.Pooler(3, 3, 3, 3)
relu, relu_back = owl.elewise.relu, owl.elewise.relu_back
owl.seed(0)
P = [owl.randn([5, 5, 1, 16], 0, .1), owl.zeros([16]), owl.randn([5, 5, 16, 32], 0, .05), owl.zeros([32]),
     owl.randn([10, 512], 0, .05), owl.zeros([10, 1])]
V = [owl.zeros(p.shape) for p in P]


def step(x, label):
    w1, b1, w2, b2, w3, b3 = P
    n = x.shape[3]
    a1 = relu(conv1.ff(x, w1, b1))
    p1 = pool1.ff(a1)
    a2 = relu(conv2.ff(p1, w2, b2))
    p2 = pool2.ff(a2)
    flat = p2.reshape([512, n])
    probability = owl.conv.softmax(w3 * flat + b3)
    s3 = (probability - label) / n
    sp2 = (w3.trans() * s3).reshape(p2.shape)
    s2 = relu_back(pool2.bp(sp2, p2, a2), a2)
    s1 = relu_back(pool1.bp(conv2.bp(s2, p1, w2), p1, a1), a1)
    gradients = [conv1.weight_grad(s1, x, w1), conv1.bias_grad(s1), conv2.weight_grad(s2, p1, w2), conv2.bias_grad(s2),
                 s3 * flat.trans(), s3.sum(1)]
    for i, gradient in enumerate(gradients):
        V[i] = MOMENTUM * V[i] - LR * (gradient + DECAY * P[i])
        P[i] += V[i]
    return probability, label


def one_round():
    for x, label in batches:
        last = step(owl.from_numpy(x), owl.from_numpy(label))
    owl.wait_for_all()
    return last


one_round()
if A.memory:
    weights = 2 * sum(p.size for p in P)
    outputs = B * (24 * 24 * 16 + 12 * 12 * 16 + 12 * 12 * 32 + 4 * 4 * 32)
    report("cnn-memory-mb", [(owl.memory_stats()["peak"] - 4 * weights) / 1e6], outputs=4 * outputs / 1e6)
    raise SystemExit
seconds = [timed(one_round) / len(batches) for _ in range(A.rounds)]
probability, label = one_round()
loss = -float(np.log((probability.to_numpy() * label.to_numpy()).sum(1)).mean())
report("cnn-minibatch", seconds, loss=loss)
