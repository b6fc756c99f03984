"""Functions that layers and losses share."""

from __future__ import annotations

from owl import conv, elewise as ele
from owl._owl import NArray, stop_gradient


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


COUNTER = "int32"


def along_channels(a: NArray, x: NArray) -> NArray:
    """[channels], to broadcast against x [..., channels, N]."""
    return a.reshape([*[1] * (x.ndim - 2), a.size, 1])


def batch_norm(x: NArray, weight: NArray, bias: NArray, mean: NArray, var: NArray, eps: float) -> NArray:
    scale = ele.mult(weight, (var + eps) ** -0.5)
    return ele.mult(x - along_channels(mean, x), along_channels(scale, x)) + along_channels(bias, x)


def layer_norm(x: NArray, weight: NArray, bias: NArray | None, eps: float) -> NArray:
    axes = list(range(weight.ndim))
    far = x - x.mean(axes)
    y = ele.mult(far / ele.sqrt(ele.square(far).mean(axes) + eps), weight)
    return y if bias is None else y + bias
