"""Normalisation: BatchNorm, LayerNorm, GroupNorm."""

from __future__ import annotations

from collections.abc import Sequence

from owl import elewise as ele
from owl._owl import NArray, ShapeError, batch_norm, layer_norm, moments, ones, stop_gradient, zeros, zeros_like
from owl.nn.module import Module, parameter


class BatchNorm(Module):
    """``(x - mean) / sqrt(var + eps) * weight + bias``, over all axes but the channels' (Ioffe and Szegedy 2015).

    The channels are the axis before the last: of images ``[W, H, n, N]``, of vectors ``[n, N]``. In training, mean and
    variance are the minibatch's, and the buffers move: ``running_mean += momentum * (mean - running_mean)``, ``running_var``
    likewise with the unbiased variance, ``num_batches_tracked`` by 1. Else they are the buffers. Formulas, names and
    defaults are those of PyTorch's BatchNorm1d and BatchNorm2d. With ``n=None`` the first call tells it. ShapeError:
    another number of channels, or in training fewer than two elements a channel.
    """

    weight: NArray
    bias: NArray
    running_mean: NArray
    running_var: NArray
    num_batches_tracked: NArray
    _counters = frozenset({"num_batches_tracked"})

    def __init__(self, n: int | None, eps: float = 1e-5, momentum: float = 0.1) -> None:
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = parameter([n], ones), parameter([n], zeros)
        self.buffer("running_mean", parameter([n], zeros))
        self.buffer("running_var", parameter([n], ones))
        self.buffer("num_batches_tracked", zeros([1], dtype="int64"))

    def forward(self, x: NArray) -> NArray:
        channels = channels_of(self, x)
        if not isinstance(self.weight, NArray):
            self._size(channels)
        if channels != self.weight.shape[0]:
            raise ShapeError(f"{self!r} takes arrays of shape [..., {self.weight.shape[0]}, N], got {x.shape}")
        if not self.training:
            return batch_norm(x, self.weight, self.bias, self.running_mean, self.running_var, self.eps)
        count = x.size // channels if channels else 0
        if count < 2:
            raise ShapeError(f"{self!r}: in training each channel needs two elements or more, got {x.shape}")
        axes = [axis for axis in range(x.ndim) if axis != x.ndim - 2]
        mean, var = (each.reshape([channels]) for each in moments(x, axes))
        self._move(stop_gradient(mean), stop_gradient(var) * (count / (count - 1)))
        return batch_norm(x, self.weight, self.bias, mean, var, self.eps)

    def _move(self, mean: NArray, var: NArray) -> None:
        self.running_mean = self.running_mean * (1 - self.momentum) + mean * self.momentum
        self.running_var = self.running_var * (1 - self.momentum) + var * self.momentum
        self.num_batches_tracked = self.num_batches_tracked + 1

    def _arguments(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}, momentum={self.momentum}"


class LayerNorm(Module):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` of each sample over the first axis (Ba et al. 2016).

    ``n`` is the length of that axis, or a list for several leading axes; ``weight`` and ``bias`` have this shape.
    PyTorch's LayerNorm. ShapeError: ``x`` has other leading axes.
    """

    def __init__(self, n: int | Sequence[int], eps: float = 1e-5, bias: bool = True) -> None:
        shape = [n] if isinstance(n, int) else list(n)
        self.eps = eps
        self.weight = ones(shape)
        self.bias = zeros(shape) if bias else None

    def forward(self, x: NArray) -> NArray:
        shape = self.weight.shape
        if x.shape[: len(shape)] != shape:
            raise ShapeError(f"{self!r} takes arrays of shape [{', '.join(map(str, shape))}, ...], got {x.shape}")
        weight, bias = self.weight, zeros_like(self.weight) if self.bias is None else self.bias
        if len(shape) == 1:
            return layer_norm(x, weight, bias, self.eps)
        flat = x.reshape([weight.size, *x.shape[len(shape) :]])
        return layer_norm(flat, weight.reshape([-1]), bias.reshape([-1]), self.eps).reshape(x.shape)

    def _arguments(self) -> str:
        shape = self.weight.shape
        return f"{shape[0] if len(shape) == 1 else shape}, eps={self.eps}" + ("" if self.bias is not None else ", bias=False")


class GroupNorm(Module):
    """As LayerNorm, over each of ``groups`` groups of the ``n`` channels of a sample (Wu and He 2018).

    The channels are the axis before the last: of images ``[W, H, n, N]``, of vectors ``[n, N]``; ``weight`` and ``bias``
    are ``[n]``. PyTorch's GroupNorm. ShapeError: another number of channels. ValueError: ``groups`` does not divide them.
    """

    def __init__(self, groups: int, n: int, eps: float = 1e-5) -> None:
        if groups < 1 or n % groups:
            raise ValueError(f"GroupNorm: {groups} groups do not divide {n} channels")
        self.groups, self.eps = groups, eps
        self.weight, self.bias = ones([n]), zeros([n])

    def forward(self, x: NArray) -> NArray:
        shape = x.shape
        channels = channels_of(self, x)
        if channels != self.weight.shape[0]:
            raise ShapeError(f"{self!r} takes arrays of shape [..., {self.weight.shape[0]}, N], got {shape}")
        parts = x.reshape([*shape[:-2], channels // self.groups, self.groups, shape[-1]])
        axes = list(range(parts.ndim - 2))
        far = parts - parts.mean(axes)
        y = far / ele.sqrt(ele.square(far).mean(axes) + self.eps)
        weight, bias = (_along_channels(each, x) for each in (self.weight, self.bias))
        return ele.mult(y.reshape(shape), weight) + bias

    def _arguments(self) -> str:
        return f"{self.groups}, {self.weight.shape[0]}, eps={self.eps}"


def _along_channels(a: NArray, x: NArray) -> NArray:
    """[channels], to broadcast against x [..., channels, N]."""
    return a.reshape([*[1] * (x.ndim - 2), a.size, 1])


def channels_of(layer: Module, x: NArray) -> int:
    if x.ndim < 2:
        raise ShapeError(f"{type(layer).__name__} takes arrays of shape [..., channels, N], got {x.shape}")
    return x.shape[-2]
