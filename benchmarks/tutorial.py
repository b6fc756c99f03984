"""The MLP of the MNIST tutorial, 784-U-U-10 with Adam: by owl.nn and owl.optim, or with gradients and Adam by hand."""
import math

import numpy as np

import owl
from owl import elewise as ele


def first_values(shape):
    return owl.from_numpy((np.random.RandomState(sum(shape)).randn(*shape[::-1]) * math.sqrt(2 / shape[0])).astype("f4"))


class Net(owl.nn.Module):
    def __init__(self, units):
        sizes = [784, units, units, 10]
        self.layers = [owl.nn.Linear(a, b, init=first_values) for a, b in zip(sizes, sizes[1:])]
        self.optimizer = owl.optim.Adam()

    def forward(self, x):
        return self.layers[2](ele.relu(self.layers[1](ele.relu(self.layers[0](x)))))

    def step(self, x, labels):
        with owl.Tape() as tape:
            logits = self(x)
            loss = owl.nn.softmax_cross_entropy(logits, labels)
        self.optimizer.update(self, tape.gradient(loss, self))
        return logits, loss


class Plain:
    def __init__(self, units):
        sizes = [784, units, units, 10]
        self.w = [first_values([a, b]) for a, b in zip(sizes, sizes[1:])]
        self.b = [owl.zeros([b]) for b in sizes[1:]]
        self.averages = {(kind, i): (owl.zeros_like(x), owl.zeros_like(x))
                         for kind, arrays in (("w", self.w), ("b", self.b)) for i, x in enumerate(arrays)}
        self.t = 0

    def adam(self, name, x, g, lr=1e-3, b1=0.9, b2=0.999, eps=1e-8):
        m, v = self.averages[name]
        m = m * b1 + g * (1 - b1)
        v = v * b2 + ele.mult(g, g) * (1 - b2)
        self.averages[name] = m, v
        root = math.sqrt(1 - b2**self.t)
        return x - m * (lr * root / (1 - b1**self.t)) / (ele.sqrt(v) + eps * root)

    def step(self, x, labels):
        a1 = ele.relu(self.w[0].T * x + self.b[0])
        a2 = ele.relu(self.w[1].T * a1 + self.b[1])
        logits = self.w[2].T * a2 + self.b[2]
        hot = (owl.arange(10).reshape([10, 1]) == labels.reshape([1, -1])).astype("float32")
        loss = -ele.mult(owl.conv.log_softmax(logits), hot).sum(0).mean()
        s3 = (owl.conv.softmax(logits) - hot) * (1 / labels.size)
        s2 = ele.relu_back(self.w[2] * s3, a2)
        s1 = ele.relu_back(self.w[1] * s2, a1)
        self.t += 1
        for i, (s, a) in enumerate(((s1, x), (s2, a1), (s3, a2))):
            self.w[i] = self.adam(("w", i), self.w[i], a * s.T)
            self.b[i] = self.adam(("b", i), self.b[i], s.sum(1).reshape([-1]))
        return logits, loss
