"""Functions that layers and losses share."""

from __future__ import annotations

from owl import conv, elewise as ele
from owl._owl import NArray, arange, concat, stop_gradient


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


def matmul(a: NArray, b: NArray) -> NArray:
    """Products of the leading two axes of [m, k, heads, N] and [k, n, heads, N]."""
    m, n, rest = a.shape[0], b.shape[1], a.shape[2:]
    a, b = a.reshape([*a.shape[:2], -1]), b.reshape([*b.shape[:2], -1])
    products = [(a[:, :, i] * b[:, :, i]).reshape([m, n, 1]) for i in range(a.shape[2])]
    return concat(products, 2).reshape([m, n, *rest])


def take_columns(weight: NArray, indices: NArray) -> NArray:
    picked = weight * one_hot(indices.reshape([indices.size]), weight.shape[1])
    return picked.reshape([weight.shape[0], *indices.shape])
