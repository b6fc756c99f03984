"""The walkthrough's MLP, 784-H-10 with hand-written gradients, minibatch 256: seconds for one epoch of MNIST."""
import numpy as np

import owl
from common import arguments, mnist, report, timed

A = arguments(__doc__, hidden=256, epochs=4)
B, H = 256, A.hidden
LR = 0.1 / B
X, y, Xt, yt = mnist()
Y = np.eye(10, dtype="f4")[y]
batches = [(X[i:i + B], Y[i:i + B]) for i in range(0, len(X) // B * B, B)]
rs = np.random.RandomState(1)
w1 = owl.from_numpy((rs.randn(784, H) * np.sqrt(4 / (784 + H))).astype("f4"))  # [H, 784]
w2 = owl.from_numpy((rs.randn(H, 10) * np.sqrt(4 / (H + 10))).astype("f4"))  # [10, H]
b1, b2 = owl.zeros([H, 1]), owl.zeros([10, 1])


def step(x, label):
    global w1, b1, w2, b2
    a1 = owl.elewise.relu(w1 * x + b1)
    s2 = owl.conv.softmax(w2 * a1 + b2) - label
    s1 = owl.elewise.relu_back(w2.trans() * s2, a1)
    w1 -= LR * (s1 * x.trans())
    b1 -= LR * s1.sum(1)
    w2 -= LR * (s2 * a1.trans())
    b2 -= LR * s2.sum(1)


def epoch():
    for x, label in batches:
        step(owl.from_numpy(x), owl.from_numpy(label))
    owl.wait_for_all()


step(*map(owl.from_numpy, batches[0]))
owl.wait_for_all()
seconds = [timed(epoch) for _ in range(A.epochs)]
scores = w2 * owl.elewise.relu(w1 * owl.from_numpy(Xt) + b1) + b2
accuracy = float((scores.to_numpy().argmax(1) == yt).mean())
report(f"mlp-epoch-h{H}", seconds, accuracy=accuracy)
