"""Activations as modules; the functions are in owl.elewise and owl.conv."""

from __future__ import annotations

from owl import conv, elewise as ele
from owl._owl import NArray
from owl.nn.module import Module


class ReLU(Module):
    """``max(x, 0)``: :func:`owl.relu`."""

    def forward(self, x: NArray) -> NArray:
        return ele.relu(x)


class LeakyReLU(Module):
    """``x`` above 0, ``slope * x`` below: :func:`owl.leaky_relu`."""

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = slope

    def forward(self, x: NArray) -> NArray:
        return ele.leaky_relu(x, self.slope)

    def _arguments(self) -> str:
        return str(self.slope)


class ELU(Module):
    """``x`` above 0, ``alpha * (exp(x) - 1)`` below (Clevert et al. 2015): :func:`owl.elu`."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def forward(self, x: NArray) -> NArray:
        return ele.elu(x, self.alpha)

    def _arguments(self) -> str:
        return str(self.alpha)


class GELU(Module):
    """``x`` times the normal distribution's function at ``x`` (Hendrycks and Gimpel 2016): :func:`owl.gelu`.

    ``approximate=True`` takes the formula with ``tanh`` instead of ``erf``.
    """

    def __init__(self, approximate: bool = False) -> None:
        self.approximate = approximate

    def forward(self, x: NArray) -> NArray:
        return ele.gelu(x, self.approximate)

    def _arguments(self) -> str:
        return "approximate=True" if self.approximate else ""


class SiLU(Module):
    """``x * sigmoid(x)``, also called swish: :func:`owl.silu`."""

    def forward(self, x: NArray) -> NArray:
        return ele.silu(x)


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``: :func:`owl.sigm`."""

    def forward(self, x: NArray) -> NArray:
        return ele.sigm(x)


class Tanh(Module):
    """The hyperbolic tangent: :func:`owl.tanh`."""

    def forward(self, x: NArray) -> NArray:
        return ele.tanh(x)


class Softplus(Module):
    """``log(1 + exp(x))``: :func:`owl.softplus`."""

    def forward(self, x: NArray) -> NArray:
        return ele.softplus(x)


class Hardsigmoid(Module):
    """``clip(x / 6 + 0.5, 0, 1)``, PyTorch's: :func:`owl.hard_sigmoid`."""

    def forward(self, x: NArray) -> NArray:
        return ele.hard_sigmoid(x)


class Hardswish(Module):
    """``x * clip(x / 6 + 0.5, 0, 1)`` (Howard et al. 2019): :func:`owl.hard_swish`."""

    def forward(self, x: NArray) -> NArray:
        return ele.hard_swish(x)


class Mish(Module):
    """``x * tanh(softplus(x))`` (Misra 2019): :func:`owl.mish`."""

    def forward(self, x: NArray) -> NArray:
        return ele.mish(x)


class Softmax(Module):
    """``exp(x) / sum(exp(x))`` along an axis: :func:`owl.conv.softmax`."""

    def __init__(self, axis: int = 0) -> None:
        self.axis = axis

    def forward(self, x: NArray) -> NArray:
        return conv.softmax(x, axis=self.axis)

    def _arguments(self) -> str:
        return str(self.axis)


class LogSoftmax(Module):
    """The logarithm of :class:`Softmax`, without forming it."""

    def __init__(self, axis: int = 0) -> None:
        self.axis = axis

    def forward(self, x: NArray) -> NArray:
        return conv.log_softmax(x, axis=self.axis)

    def _arguments(self) -> str:
        return str(self.axis)
