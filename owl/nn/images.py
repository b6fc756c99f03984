"""Layers over images [W, H, C, N]: convolution, pooling, local response normalisation. Pairs of sizes are (h, w)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from owl import conv
from owl._arguments import hinted
from owl._owl import NArray, ShapeError, zeros
from owl.nn.init import he_normal
from owl.nn.module import Module, misfit, parameter

Pair: TypeAlias = int | Sequence[int]


class Conv2d(Module):
    """Cross-correlation of images ``[W, H, c_in, N]`` with ``c_out`` kernels: :class:`owl.conv.Convolver`.

    ``weight`` is ``[kw, kh, c_in / groups, c_out]``, He normal unless ``init`` gives it, a function of the shape; ``bias``
    ``[c_out]``, zeros. ``kernel``, ``stride``, ``padding`` and ``dilation`` are a number or a pair ``(h, w)``. With
    ``c_in=None`` the first call tells it. ShapeError: images of another number of channels, or smaller than the kernel.
    ValueError: ``groups`` does not divide the channels.
    """

    weight: NArray
    bias: NArray | None

    @hinted
    def __init__(self, c_in: int | None, c_out: int, kernel: Pair, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1,
                 groups: int = 1, bias: bool = True, init: Callable[[list[int]], NArray] = he_normal) -> None:  # fmt: skip
        self.c_in, self.c_out, self.groups = c_in, c_out, groups
        self.kernel, self.stride = pair("Conv2d: kernel", kernel, 1), pair("Conv2d: stride", stride, 1)
        self.padding, self.dilation = pair("Conv2d: padding", padding, 0), pair("Conv2d: dilation", dilation, 1)
        if groups < 1 or c_out % groups or (c_in or 0) % groups:
            raise ValueError(f"Conv2d: {groups} groups do not divide {c_in} and {c_out} channels")
        self.convolver = conv.Convolver(*self.padding, *self.stride, dilation=self.dilation, groups=groups)
        kh, kw = self.kernel
        self.weight = parameter([kw, kh, None if c_in is None else c_in // groups, c_out], init)
        self.bias = zeros([c_out]) if bias else None

    def forward(self, x: NArray) -> NArray:
        require_images(self, x)
        if not isinstance(self.weight, NArray):
            self._size(x.shape[2] // self.groups)
        if x.shape[2] != self.weight.shape[2] * self.groups:
            raise ShapeError(f"{self!r} takes images [W, H, {self.weight.shape[2] * self.groups}, N], got {x.shape}")
        bias = zeros([self.c_out], dtype=self.weight.dtype) if self.bias is None else self.bias
        return self.convolver.ff(x, self.weight, bias)

    def _arguments(self) -> str:
        known = self.c_in if not isinstance(self.weight, NArray) else self.weight.shape[2] * self.groups
        settings = {"stride": (self.stride, (1, 1)), "padding": (self.padding, (0, 0)), "dilation": (self.dilation, (1, 1)),
                    "groups": (self.groups, 1), "bias": (self.bias is not None, True)}  # fmt: skip
        changed = [f"{name}={value}" for name, (value, default) in settings.items() if value != default]
        return ", ".join([f"{known}, {self.c_out}, {self.kernel}", *changed])


class _Pool2d(Module):
    op: conv.pool_op

    @hinted
    def __init__(self, kernel: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        name = type(self).__name__
        self.kernel, self.padding = pair(f"{name}: kernel", kernel, 1), pair(f"{name}: padding", padding, 0)
        self.stride = self.kernel if stride is None else pair(f"{name}: stride", stride, 1)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel)):
            raise ValueError(f"{name}: the padding {self.padding} is more than half of the kernel {self.kernel}")
        self.pooler = conv.Pooler(*self.kernel, *self.stride, *self.padding, op=self.op, ceil_mode=False)

    def forward(self, x: NArray) -> NArray:
        require_images(self, x)
        return self.pooler.ff(x)

    def _arguments(self) -> str:
        return f"{self.kernel}, stride={self.stride}" + (f", padding={self.padding}" if any(self.padding) else "")


class MaxPool2d(_Pool2d):
    """The largest element of each window of images ``[W, H, C, N]``; of equals the first takes the gradient.

    ``kernel``, ``stride`` (the kernel's size if None) and ``padding`` are a number or a pair ``(h, w)``. A last window that
    is not whole is dropped, as by PyTorch. ValueError: the padding is more than half of the kernel.
    """

    op = conv.pool_op.max


class AvgPool2d(_Pool2d):
    """The mean of each window of images ``[W, H, C, N]``; zeros of the padding count, as in PyTorch.

    Arguments as of :class:`MaxPool2d`.
    """

    op = conv.pool_op.avg


class GlobalAvgPool2d(Module):
    """The mean of each channel: images ``[W, H, C, N]`` to ``[1, 1, C, N]``. PyTorch's ``AdaptiveAvgPool2d(1)``."""

    def forward(self, x: NArray) -> NArray:
        require_images(self, x)
        return x.mean([0, 1])


class LocalResponseNorm(Module):
    """``x / (k + alpha / size * s) ** beta``, ``s`` the sum of squares over ``size`` neighbouring channels.

    Of images ``[W, H, C, N]`` (Krizhevsky et al. 2012), with PyTorch's defaults. ValueError: ``size`` is not odd, or ``k``
    not above 0.
    """

    @hinted
    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        if size < 1 or size % 2 == 0 or not k > 0:
            raise ValueError(f"LocalResponseNorm: size must be odd and k above 0, got size={size}, k={k}")
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k
        self.lrner = conv.Lrner(size, alpha / k, beta)  # of k taken out of the bracket

    def forward(self, x: NArray) -> NArray:
        require_images(self, x)
        y = self.lrner.ff(x, x)
        return y if self.k == 1 else y * self.k**-self.beta

    def _arguments(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


def require_images(layer: Module, x: NArray) -> None:
    if not isinstance(x, NArray) or x.ndim != 4:
        raise misfit(layer, "images [W, H, C, N]", x)


def pair(name: str, value: Pair, least: int) -> tuple[int, int]:
    """Two integers, of one or two."""
    numbers = [value, value] if isinstance(value, int) else list(value)
    if len(numbers) != 2 or not all(isinstance(each, int) and not isinstance(each, bool) for each in numbers):
        raise TypeError(f"{name} must be an integer or a pair (h, w), not {value!r}")
    if min(numbers) < least:
        raise ValueError(f"{name} must be {least} or more, got {value}")
    return numbers[0], numbers[1]
