"""Activations as modules; the functions are in owl.elewise and owl.conv."""

from __future__ import annotations

from owl import conv, elewise as ele
from owl._arguments import hinted
from owl._owl import NArray
from owl.nn.module import Module


class _Plain(Module):
    """An activation without settings."""

    @hinted
    def __init__(self) -> None:
        pass


class ReLU(_Plain):
    """``max(x, 0)``: :func:`owl.relu`."""

    def forward(self, x: NArray) -> NArray:
        return ele.relu(x)


class LeakyReLU(Module):
    """``x`` above 0, ``slope * x`` below: :func:`owl.leaky_relu`."""

    @hinted
    def __init__(self, slope: float = 0.01) -> None:
        self.slope = slope

    def forward(self, x: NArray) -> NArray:
        return ele.leaky_relu(x, self.slope)

    def _arguments(self) -> str:
        return str(self.slope)


class ELU(Module):
    """``x`` above 0, ``alpha * (exp(x) - 1)`` below (Clevert et al. 2015): :func:`owl.elu`."""

    @hinted
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

    @hinted
    def __init__(self, approximate: bool = False) -> None:
        self.approximate = approximate

    def forward(self, x: NArray) -> NArray:
        return ele.gelu(x, self.approximate)

    def _arguments(self) -> str:
        return "approximate=True" if self.approximate else ""


class SiLU(_Plain):
    """``x * sigmoid(x)``, also called swish: :func:`owl.silu`."""

    def forward(self, x: NArray) -> NArray:
        return ele.silu(x)


class Sigmoid(_Plain):
    """``1 / (1 + exp(-x))``: :func:`owl.sigm`."""

    def forward(self, x: NArray) -> NArray:
        return ele.sigm(x)


class Tanh(_Plain):
    """The hyperbolic tangent: :func:`owl.tanh`."""

    def forward(self, x: NArray) -> NArray:
        return ele.tanh(x)


class Softplus(_Plain):
    """``log(1 + exp(x))``: :func:`owl.softplus`."""

    def forward(self, x: NArray) -> NArray:
        return ele.softplus(x)


class Hardsigmoid(_Plain):
    """``clip(x / 6 + 0.5, 0, 1)``, PyTorch's: :func:`owl.hard_sigmoid`."""

    def forward(self, x: NArray) -> NArray:
        return ele.hard_sigmoid(x)


class Hardswish(_Plain):
    """``x * clip(x / 6 + 0.5, 0, 1)`` (Howard et al. 2019): :func:`owl.hard_swish`."""

    def forward(self, x: NArray) -> NArray:
        return ele.hard_swish(x)


class Mish(_Plain):
    """``x * tanh(softplus(x))`` (Misra 2019): :func:`owl.mish`."""

    def forward(self, x: NArray) -> NArray:
        return ele.mish(x)


class Softmax(Module):
    """``exp(x) / sum(exp(x))`` along an axis: :func:`owl.conv.softmax`."""

    @hinted
    def __init__(self, axis: int = 0) -> None:
        self.axis = axis

    def forward(self, x: NArray) -> NArray:
        return conv.softmax(x, axis=self.axis)

    def _arguments(self) -> str:
        return str(self.axis)


class LogSoftmax(Module):
    """The logarithm of :class:`Softmax`, without forming it."""

    @hinted
    def __init__(self, axis: int = 0) -> None:
        self.axis = axis

    def forward(self, x: NArray) -> NArray:
        return conv.log_softmax(x, axis=self.axis)

    def _arguments(self) -> str:
        return str(self.axis)
