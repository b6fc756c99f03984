"""The optimizers: PyTorch's formulas and defaults."""

from __future__ import annotations

import math

from owl import elewise as ele
from owl._owl import NArray
from owl.optim.optimizer import Optimizer, Rate, hinted


class SGD(Optimizer):
    """Gradient descent: ``x - lr * g``; with momentum ``m = momentum * m + g`` and ``x - lr * m``.

    ``nesterov`` takes ``g + momentum * m`` in the place of ``m`` (Sutskever et al. 2013); ``weight_decay * x`` is added
    to the gradient. PyTorch's SGD. ValueError: a negative number, or ``nesterov`` without momentum.
    """

    @hinted
    def __init__(self, lr: Rate, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0) -> None:
        super().__init__(lr)
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay
        _require_at_least_0(self, "momentum", "weight_decay")
        if nesterov and not momentum:
            raise ValueError("SGD: nesterov needs a momentum above 0")
        self.SLOTS = ("momentum_buffer",) if momentum else ()

    def step(self, x: NArray, g: NArray, slots: dict[str, NArray], t: int, lr: float) -> NArray:
        g = _decayed(g, x, self.weight_decay)
        if self.momentum:
            m = slots["momentum_buffer"] = slots["momentum_buffer"] * self.momentum + g
            g = g + m * self.momentum if self.nesterov else m
        return x - g * lr


class RMSprop(Optimizer):
    """``v = alpha * v + (1 - alpha) * g^2`` and ``x - lr * g / (sqrt(v) + eps)`` (Tieleman and Hinton 2012).

    With momentum ``m = momentum * m + g / (sqrt(v) + eps)`` and ``x - lr * m``; ``weight_decay * x`` is added to the
    gradient. ``centered`` subtracts the square of the gradients' mean, ``a = alpha * a + (1 - alpha) * g``, from ``v`` under
    the root. PyTorch's RMSprop. ValueError: a negative number.
    """

    @hinted
    def __init__(self, lr: Rate = 0.01, alpha: float = 0.99, eps: float = 1e-8, momentum: float = 0.0,
                 weight_decay: float = 0.0, centered: bool = False) -> None:  # fmt: skip
        super().__init__(lr)
        self.alpha, self.eps, self.momentum, self.weight_decay, self.centered = alpha, eps, momentum, weight_decay, bool(centered)
        _require_at_least_0(self, "alpha", "eps", "momentum", "weight_decay")
        self.SLOTS = ("square_avg", *["momentum_buffer"] * bool(momentum), *["grad_avg"] * self.centered)

    def step(self, x: NArray, g: NArray, slots: dict[str, NArray], t: int, lr: float) -> NArray:
        g = _decayed(g, x, self.weight_decay)
        v = slots["square_avg"] = slots["square_avg"] * self.alpha + ele.mult(g, g) * (1 - self.alpha)
        if self.centered:
            a = slots["grad_avg"] = slots["grad_avg"] * self.alpha + g * (1 - self.alpha)
            v = ele.relu(v - ele.mult(a, a))  # rounding may leave less than nothing
        g = g / (ele.sqrt(v) + self.eps)
        if self.momentum:
            g = slots["momentum_buffer"] = slots["momentum_buffer"] * self.momentum + g
        return x - g * lr


class AdaGrad(Optimizer):
    """``v = v + g^2`` and ``x - lr * g / (sqrt(v) + eps)`` (Duchi et al. 2011).

    ``weight_decay * x`` is added to the gradient. PyTorch's Adagrad. ValueError: a negative number.
    """

    SLOTS = ("sum",)

    @hinted
    def __init__(self, lr: Rate = 0.01, eps: float = 1e-10, weight_decay: float = 0.0) -> None:
        super().__init__(lr)
        self.eps, self.weight_decay = eps, weight_decay
        _require_at_least_0(self, "eps", "weight_decay")

    def step(self, x: NArray, g: NArray, slots: dict[str, NArray], t: int, lr: float) -> NArray:
        g = _decayed(g, x, self.weight_decay)
        v = slots["sum"] = slots["sum"] + ele.mult(g, g)
        return x - g * lr / (ele.sqrt(v) + self.eps)


class Adam(Optimizer):
    """``m = b1 * m + (1 - b1) * g``, ``v = b2 * v + (1 - b2) * g^2``, and a step by their quotient (Kingma and Ba 2014).

    With ``c1 = 1 - b1^t`` and ``c2 = 1 - b2^t``, which correct that both begin at zero, the parameter is
    ``x - lr * (m / c1) / (sqrt(v / c2) + eps)``. ``weight_decay * x`` is added to the gradient. With ``amsgrad``, the largest
    ``v`` so far takes the place of ``v`` in the quotient (Reddi et al. 2018). PyTorch's Adam. ValueError: a negative number,
    or ``b1`` or ``b2`` not below 1.
    """

    SLOTS: tuple[str, ...] = ("exp_avg", "exp_avg_sq")

    @hinted
    def __init__(self, lr: Rate = 1e-3, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8,
                 weight_decay: float = 0.0, amsgrad: bool = False) -> None:  # fmt: skip
        super().__init__(lr)
        self.b1, self.b2, self.eps, self.weight_decay, self.amsgrad = b1, b2, eps, weight_decay, bool(amsgrad)
        if amsgrad:
            self.SLOTS = (*Adam.SLOTS, "max_exp_avg_sq")
        _require_at_least_0(self, "b1", "b2", "eps", "weight_decay")
        _require_below_1(self, "b1", "b2")

    def step(self, x: NArray, g: NArray, slots: dict[str, NArray], t: int, lr: float) -> NArray:
        return self._moved(x, _decayed(g, x, self.weight_decay), slots, t, lr)

    def _moved(self, x: NArray, g: NArray, slots: dict[str, NArray], t: int, lr: float) -> NArray:
        b1, b2 = self.b1, self.b2
        m = slots["exp_avg"] = slots["exp_avg"] * b1 + g * (1 - b1)
        v = slots["exp_avg_sq"] = slots["exp_avg_sq"] * b2 + ele.mult(g, g) * (1 - b2)
        if self.amsgrad:
            v = slots["max_exp_avg_sq"] = ele.maximum(slots["max_exp_avg_sq"], v)
        root = math.sqrt(1 - b2**t)  # sqrt(v / c2) + eps is (sqrt(v) + eps * root) / root
        return x - m * (lr * root / (1 - b1**t)) / (ele.sqrt(v) + self.eps * root)


class AdamW(Adam):
    """Adam whose weight decay does not go through the averages: ``x * (1 - lr * weight_decay)`` and Adam's step.

    Loshchilov and Hutter 2017; PyTorch's AdamW.
    """

    @hinted
    def __init__(self, lr: Rate = 1e-3, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8,
                 weight_decay: float = 0.01, amsgrad: bool = False) -> None:  # fmt: skip
        super().__init__(lr, b1, b2, eps, weight_decay, amsgrad)

    def step(self, x: NArray, g: NArray, slots: dict[str, NArray], t: int, lr: float) -> NArray:
        return self._moved(x * (1 - lr * self.weight_decay), g, slots, t, lr)


class Lion(Optimizer):
    """``x * (1 - lr * weight_decay) - lr * sign(b1 * m + (1 - b1) * g)``, then ``m = b2 * m + (1 - b2) * g``.

    Chen et al. 2023. ValueError: a negative number, or ``b1`` or ``b2`` not below 1.
    """

    SLOTS = ("exp_avg",)

    @hinted
    def __init__(self, lr: Rate = 1e-4, b1: float = 0.9, b2: float = 0.99, weight_decay: float = 0.0) -> None:
        super().__init__(lr)
        self.b1, self.b2, self.weight_decay = b1, b2, weight_decay
        _require_at_least_0(self, "b1", "b2", "weight_decay")
        _require_below_1(self, "b1", "b2")

    def step(self, x: NArray, g: NArray, slots: dict[str, NArray], t: int, lr: float) -> NArray:
        m = slots["exp_avg"]
        way = g - m  # both averages are m and a share of it, so that one pass makes both
        slots["exp_avg"] = m + way * (1 - self.b2)
        x = x * (1 - lr * self.weight_decay) if self.weight_decay else x
        return x - ele.sign(m + way * (1 - self.b1)) * lr


def _decayed(g: NArray, x: NArray, weight_decay: float) -> NArray:
    return g + x * weight_decay if weight_decay else g


def _require_at_least_0(optimizer: Optimizer, *names: str) -> None:
    for name in names:
        if not getattr(optimizer, name) >= 0:
            raise ValueError(f"{type(optimizer).__name__}: {name} must be 0 or above, got {getattr(optimizer, name)}")


def _require_below_1(optimizer: Optimizer, *names: str) -> None:
    for name in names:
        if not getattr(optimizer, name) < 1:
            raise ValueError(f"{type(optimizer).__name__}: {name} must be below 1, got {getattr(optimizer, name)}")
