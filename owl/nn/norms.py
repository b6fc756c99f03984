"""Normalisation: BatchNorm, LayerNorm, GroupNorm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from owl import elewise as ele
from owl._arguments import hinted
from owl._owl import NArray, ShapeError, batch_norm, layer_norm, moments, ones, stop_gradient, zeros, zeros_like
from owl._types import kind_of
from owl.nn.module import Module, misfit, parameter


class BatchNorm(Module):
    """``(x - mean) / sqrt(var + eps) * weight + bias``, over all axes but the channels' (Ioffe and Szegedy 2015).

    The channels are the axis before the last: of images ``[W, H, n, N]``, of vectors ``[n, N]``. In training, mean and
    variance are the minibatch's, and the buffers move: ``running_mean += momentum * (mean - running_mean)``, ``running_var``
    likewise with the unbiased variance, ``num_batches_tracked`` by 1; ``momentum=None`` takes ``1 / num_batches_tracked``, so
    that they are the means of all minibatches. Else they are the buffers. Without ``affine`` there are no ``weight`` and
    ``bias``. Formulas, names and defaults are those of PyTorch's BatchNorm1d and BatchNorm2d. With ``n=None`` the first call
    tells it. ShapeError: another number of channels, or in training fewer than two elements a channel.
    """

    weight: NArray | None
    bias: NArray | None
    running_mean: NArray
    running_var: NArray
    num_batches_tracked: NArray
    _counters = frozenset({"num_batches_tracked"})

    @hinted
    def __init__(self, n: int | None, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True) -> None:
        self.eps, self.momentum = eps, momentum
        self.weight = parameter([n], ones) if affine else None
        self.bias = parameter([n], zeros) if affine else None
        self.buffer("running_mean", parameter([n], zeros))
        self.buffer("running_var", parameter([n], ones))
        self.buffer("num_batches_tracked", zeros([1], dtype="int64"))

    def forward(self, x: NArray) -> NArray:
        channels = channels_of(self, x)
        if not isinstance(self.running_mean, NArray):
            self._size(channels)
        if channels != self.running_mean.shape[0]:
            raise ShapeError(f"{self!r} takes arrays of shape [..., {self.running_mean.shape[0]}, N], got {x.shape}")
        weight, bias = _affine(self.weight, self.bias, [channels], self.running_mean.dtype)
        if not self.training:
            return batch_norm(x, weight, bias, self.running_mean, self.running_var, self.eps)
        count = x.size // channels if channels else 0
        if count < 2:
            raise ShapeError(f"{self!r}: in training each channel needs two elements or more, got {x.shape}; a Loader with "
                             "drop_last or another batch_size gives no batch of one sample")  # fmt: skip
        axes = [axis for axis in range(x.ndim) if axis != x.ndim - 2]
        mean, var = (each.reshape([channels]) for each in moments(x, axes))
        self._move(stop_gradient(mean), stop_gradient(var) * (count / (count - 1)))
        return batch_norm(x, weight, bias, mean, var, self.eps)

    def _move(self, mean: NArray, var: NArray) -> None:
        dtype = self.running_mean.dtype
        mean, var = (each if each.dtype == dtype else each.astype(dtype) for each in (mean, var))
        self.num_batches_tracked = self.num_batches_tracked + 1
        if self.momentum is None:
            share = 1 / self.num_batches_tracked.astype(dtype)
            self.running_mean = self.running_mean + ele.mult(mean - self.running_mean, share)
            self.running_var = self.running_var + ele.mult(var - self.running_var, share)
        else:
            self.running_mean = self.running_mean * (1 - self.momentum) + mean * self.momentum
            self.running_var = self.running_var * (1 - self.momentum) + var * self.momentum

    def _arguments(self) -> str:
        plain = ", affine=False" * (self.weight is None)
        return f"{self.running_mean.shape[0]}, eps={self.eps}, momentum={self.momentum}{plain}"


class LayerNorm(Module):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` of each sample over the first axis (Ba et al. 2016).

    ``n`` is the length of that axis, or a list for several leading axes; ``weight`` and ``bias`` have this shape; without
    ``affine`` there are none. PyTorch's LayerNorm. ShapeError: ``x`` has other leading axes.
    """

    weight: NArray | None
    bias: NArray | None

    @hinted
    def __init__(self, n: int | Sequence[int], eps: float = 1e-5, bias: bool = True, affine: bool = True) -> None:
        self._shape = [n] if isinstance(n, int) else list(n)
        self.eps = eps
        self.weight = ones(self._shape) if affine else None
        self.bias = zeros(self._shape) if bias and affine else None

    def forward(self, x: NArray) -> NArray:
        shape = self._shape
        if not isinstance(x, NArray) or x.shape[: len(shape)] != shape:
            raise misfit(self, f"arrays of shape [{', '.join(map(str, shape))}, ...]", x)
        weight, bias = _affine(self.weight, self.bias, shape, x.dtype)
        if len(shape) == 1:
            return layer_norm(x, weight, bias, self.eps)
        flat = x.reshape([weight.size, *x.shape[len(shape) :]])
        return layer_norm(flat, weight.reshape([-1]), bias.reshape([-1]), self.eps).reshape(x.shape)

    def _arguments(self) -> str:
        shape = self._shape
        plain = ", affine=False" if self.weight is None else ", bias=False" * (self.bias is None)
        return f"{shape[0] if len(shape) == 1 else shape}, eps={self.eps}{plain}"


class GroupNorm(Module):
    """As LayerNorm, over each of ``groups`` groups of the ``n`` channels of a sample (Wu and He 2018).

    The channels are the axis before the last: of images ``[W, H, n, N]``, of vectors ``[n, N]``; ``weight`` and ``bias``
    are ``[n]``; without ``affine`` there are none. PyTorch's GroupNorm. ShapeError: another number of channels. ValueError:
    ``groups`` does not divide them.
    """

    weight: NArray | None
    bias: NArray | None

    @hinted
    def __init__(self, groups: int, n: int, eps: float = 1e-5, affine: bool = True) -> None:
        if groups < 1 or n % groups:
            raise ValueError(f"GroupNorm: {groups} groups do not divide {n} channels")
        self.groups, self._n, self.eps = groups, n, eps
        self.weight, self.bias = (ones([n]), zeros([n])) if affine else (None, None)

    def forward(self, x: NArray) -> NArray:
        shape = x.shape
        channels = channels_of(self, x)
        if channels != self._n:
            raise ShapeError(f"{self!r} takes arrays of shape [..., {self._n}, N], got {shape}")
        parts = x.reshape([*shape[:-2], channels // self.groups, self.groups, shape[-1]])
        axes = list(range(parts.ndim - 2))
        far = parts - parts.mean(axes)
        y = far / ele.sqrt(ele.square(far).mean(axes) + self.eps)
        y = y.reshape(shape)
        if self.weight is None or self.bias is None:
            return y
        return ele.mult(y, _along_channels(self.weight, x)) + _along_channels(self.bias, x)

    def _arguments(self) -> str:
        return f"{self.groups}, {self._n}, eps={self.eps}" + ", affine=False" * (self.weight is None)


def _affine(weight: NArray | None, bias: NArray | None, shape: list[int], dtype: Any) -> tuple[NArray, NArray]:
    """Both, or ones and zeros in the place of what a layer lacks."""
    weight = ones(shape, dtype=dtype if kind_of(dtype) == "f" else "float32") if weight is None else weight
    return weight, zeros_like(weight) if bias is None else bias


def _along_channels(a: NArray, x: NArray) -> NArray:
    """[channels], to broadcast against x [..., channels, N]."""
    return a.reshape([*[1] * (x.ndim - 2), a.size, 1])


def channels_of(layer: Module, x: NArray) -> int:
    if not isinstance(x, NArray) or x.ndim < 2:
        raise misfit(layer, "arrays of shape [..., channels, N]", x)
    return x.shape[-2]
