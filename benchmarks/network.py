"""The walkthrough's MLP, 784-H-10 with hand-written gradients and plain SGD, and its minibatches of MNIST."""
import numpy as np

import owl

BATCH = 256


class Mlp:
    def __init__(self, hidden, rate=0.1 / BATCH):
        rs = np.random.RandomState(1)
        self.rate = rate
        self.w1 = owl.from_numpy((rs.randn(784, hidden) * np.sqrt(4 / (784 + hidden))).astype("f4"))  # [hidden, 784]
        self.w2 = owl.from_numpy((rs.randn(hidden, 10) * np.sqrt(4 / (hidden + 10))).astype("f4"))  # [10, hidden]
        self.b1, self.b2 = owl.zeros([hidden, 1]), owl.zeros([10, 1])

    def step(self, x, label):
        a1 = owl.elewise.relu(self.w1 * x + self.b1)
        s2 = owl.conv.softmax(self.w2 * a1 + self.b2) - label
        s1 = owl.elewise.relu_back(self.w2.trans() * s2, a1)
        self.w1 -= self.rate * (s1 * x.trans())
        self.b1 -= self.rate * s1.sum(1)
        self.w2 -= self.rate * (s2 * a1.trans())
        self.b2 -= self.rate * s2.sum(1)

    def epoch(self, batches):
        """`batches`: pairs of NumPy arrays, images and labels (one of ten)."""
        for x, label in batches:
            self.step(owl.from_numpy(x), owl.from_numpy(label))
        owl.wait_for_all()

    def accuracy(self, x, y):
        scores = self.w2 * owl.elewise.relu(self.w1 * owl.from_numpy(x) + self.b1) + self.b2
        return float((scores.to_numpy().argmax(1) == y).mean())


def minibatches(x, y):
    """The full minibatches."""
    labels = np.eye(10, dtype="f4")[y]
    return [(x[i:i + BATCH], labels[i:i + BATCH]) for i in range(0, len(x) // BATCH * BATCH, BATCH)]
