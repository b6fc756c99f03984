"""A step of Adam, as plain array code, over many arrays or over one with as many elements: milliseconds a step."""
import numpy as np

import owl
from common import arguments, report, timed

A = arguments(__doc__, arrays=100, side=64, together=0, steps=30, rounds=20)
shape, count = ([A.side, A.side * A.arrays], 1) if A.together else ([A.side, A.side], A.arrays)
random = np.random.RandomState(0)


class Parameter:
    def __init__(self):
        self.value, self.gradient = (owl.from_numpy(random.randn(*shape[::-1]).astype("f4")) for _ in range(2))
        self.mean, self.square = owl.zeros(shape), owl.zeros(shape)

    def step(self, rate, b1=0.9, b2=0.999, eps=1e-8):
        g = self.gradient
        self.mean = self.mean * b1 + g * (1 - b1)
        self.square = self.square * b2 + owl.elewise.mult(g, g) * (1 - b2)
        self.value = self.value - rate * self.mean / (owl.elewise.sqrt(self.square) + eps)


parameters = [Parameter() for _ in range(count)]


def steps():
    for _ in range(A.steps):
        for parameter in parameters:
            parameter.step(0.001)
    owl.wait_for_all()


steps()
before = owl.stats()["kernels"]
steps()
tasks = (owl.stats()["kernels"] - before) / A.steps
report("updates", [timed(steps) * 1e3 / A.steps for _ in range(A.rounds)], tasks=tasks)
