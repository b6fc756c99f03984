"""Schedules: learning rates as functions of the step, which is 0 at the first."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def step(lr: float, every: int, factor: float = 0.1) -> Schedule:
    """``lr``, times ``factor`` after each ``every`` steps. PyTorch's StepLR. ValueError: ``every`` is below 1."""
    _require_steps("step: every", every)

    def rate(t: int) -> float:
        return float(lr * factor ** (t // every))

    return rate


def exponential(lr: float, factor: float) -> Schedule:
    """``lr * factor^t``. PyTorch's ExponentialLR."""

    def rate(t: int) -> float:
        return float(lr * factor**t)

    return rate


def cosine(lr: float, steps: int, low: float = 0.0) -> Schedule:
    """From ``lr`` along half a cosine to ``low`` at ``steps``, where it stays (Loshchilov and Hutter 2016).

    PyTorch's CosineAnnealingLR. ValueError: ``steps`` is below 1.
    """
    _require_steps("cosine: steps", steps)

    def rate(t: int) -> float:
        return low + (lr - low) * (1 + math.cos(math.pi * min(t, steps) / steps)) / 2

    return rate


def one_cycle(high: float, steps: int) -> Schedule:
    """Up from ``high / 25`` to ``high`` in 30 % of the steps, then down to ``high / 250000``, along half cosines.

    Smith and Topin 2017; PyTorch's OneCycleLR. The last of the steps has the lowest rate, which stays.
    ValueError: ``steps`` is below 1.
    """
    _require_steps("one_cycle: steps", steps)
    first, last = high / 25, high / 25 / 1e4
    top, end = max(0.3 * steps - 1, 0.0), steps - 1

    def rate(t: int) -> float:
        if t < top:
            return _along_a_cosine(first, high, t / top)
        return _along_a_cosine(high, last, min((t - top) / (end - top), 1.0) if end > top else 1.0)

    return rate


def warmup(steps: int, then: float | Schedule) -> Schedule:
    """In ``steps`` steps from 0 straight up to where ``then`` begins, a number or a schedule, which goes on from its step 0.

    ValueError: ``steps`` is below 1.
    """
    _require_steps("warmup: steps", steps)

    def rate(t: int) -> float:
        after = then(max(t - steps, 0)) if callable(then) else then
        return float(after * min(t / steps, 1.0))

    return rate


def _along_a_cosine(start: float, stop: float, share: float) -> float:
    return stop + (start - stop) * (1 + math.cos(math.pi * share)) / 2


def _require_steps(name: str, count: int) -> None:
    if not count >= 1:
        raise ValueError(f"{name} must be 1 or more, got {count}")
