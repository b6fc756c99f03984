"""Functions that layers and losses share."""

from __future__ import annotations

from owl import conv, elewise as ele
from owl._owl import NArray, arange, stop_gradient


def softmax(x: NArray, axis: int) -> NArray:
    if x.ndim == 2 and axis % 2 == 0:
        return conv.softmax(x)
    e = ele.exp(x - stop_gradient(x.max(axis)))
    return e / e.sum(axis)


def log_softmax(x: NArray, axis: int) -> NArray:
    if x.ndim == 2 and axis % 2 == 0:
        return conv.log_softmax(x)
    z = x - stop_gradient(x.max(axis))
    return z - ele.ln(ele.exp(z).sum(axis))


def one_hot(labels: NArray, n: int) -> NArray:
    """[n, ...] of labels [...]."""
    return (arange(n).reshape([n] + [1] * labels.ndim) == labels.reshape([1, *labels.shape])).astype("float32")
