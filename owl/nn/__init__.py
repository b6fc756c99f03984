"""owl.nn: layers, losses and first values, over recorded operations.

>>> net = owl.nn.Sequential(owl.nn.Linear(784, 50), owl.nn.ReLU(), owl.nn.Linear(50, 10))
>>> optimizer = owl.optim.Adam()
>>> x, labels = owl.randn([784, 100]), owl.zeros([100], "int32")
>>> with owl.Tape() as tape:
...     loss = owl.nn.softmax_cross_entropy(net(x), labels)
>>> optimizer.update(net, tape.gradient(loss, net))
"""

from typing import TYPE_CHECKING

from owl import _hints
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
from owl.nn.attention import MultiHeadAttention
from owl.nn.dropout import Dropout
from owl.nn.embedding import Embedding
from owl.nn.images import AvgPool2d, Conv2d, GlobalAvgPool2d, LocalResponseNorm, MaxPool2d
from owl.nn.linear import Flatten, Linear, Sequential
from owl.nn.losses import accuracy, binary_cross_entropy, huber, l1, mse, nll, softmax_cross_entropy
from owl.nn.module import Module
from owl.nn.norms import BatchNorm, GroupNorm, LayerNorm
from owl.nn.recurrent import GRU, LSTM, RNN

__all__ = [
    "AvgPool2d",
    "BatchNorm",
    "Conv2d",
    "Dropout",
    "ELU",
    "Embedding",
    "Flatten",
    "GELU",
    "GRU",
    "GlobalAvgPool2d",
    "GroupNorm",
    "Hardsigmoid",
    "Hardswish",
    "LSTM",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LocalResponseNorm",
    "LogSoftmax",
    "MaxPool2d",
    "Mish",
    "Module",
    "MultiHeadAttention",
    "RNN",
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


if not TYPE_CHECKING:

    def __getattr__(name):
        raise _hints.of_module("owl.nn", name)
