"""owl.nn: layers, losses and first values, over recorded operations.

>>> net = owl.nn.Sequential(owl.nn.Linear(784, 50), owl.nn.ReLU(), owl.nn.Linear(50, 10))
>>> optimizer = owl.optim.Adam()
>>> x, labels = owl.randn([784, 100]), owl.zeros([100], "int32")
>>> with owl.Tape() as tape:
...     loss = owl.nn.softmax_cross_entropy(net(x), labels)
>>> optimizer.update(net, tape.gradient(loss, net))
"""

from owl.nn import init
from owl.nn.activations import (
    ELU,
    GELU,
    Hardsigmoid,
    Hardswish,
    LeakyReLU,
    LogSoftmax,
    Mish,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from owl.nn.linear import Flatten, Linear, Sequential
from owl.nn.losses import accuracy, binary_cross_entropy, huber, l1, mse, nll, softmax_cross_entropy
from owl.nn.module import Module

__all__ = [
    "ELU",
    "Flatten",
    "GELU",
    "Hardsigmoid",
    "Hardswish",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "Mish",
    "Module",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "accuracy",
    "binary_cross_entropy",
    "huber",
    "init",
    "l1",
    "mse",
    "nll",
    "softmax_cross_entropy",
]
