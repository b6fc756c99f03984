"""Losses, optimizers and metrics by name, and their means over an epoch: sums and counts, divided once."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from owl._owl import NArray
from owl.nn.losses import right

Function = Callable[..., Any]

READ_LAG = 64  # steps that may be recorded ahead of the oldest loss that was not read
READ_S = 0.01  # between two readings: several quick steps are read together

LOSSES = ("softmax_cross_entropy", "binary_cross_entropy", "mse", "l1", "huber", "nll")
OPTIMIZERS = {
    "sgd": "SGD",
    "rmsprop": "RMSprop",
    "adagrad": "AdaGrad",
    "adam": "Adam",
    "adamw": "AdamW",
    "lion": "Lion",
}
SGD_RATE = 0.01  # of "sgd"; the others have rates of their own by default


def loss_of(loss: Any) -> Function:
    """The loss as a function; a name stands for one of ``owl.nn``."""
    if isinstance(loss, str):
        from owl import nn

        _require_known("loss", loss, LOSSES)
        found: Function = getattr(nn, loss)
        return found
    if not callable(loss):
        raise TypeError(f"Trainer: loss is a function of (output, labels) or a name, not {loss!r}")
    return loss  # type: ignore[no-any-return]


def optimizer_of(optimizer: Any) -> Any:
    """The optimizer; a name stands for one of ``owl.optim`` with its default settings."""
    if isinstance(optimizer, str):
        from owl import optim

        _require_known("optimizer", optimizer, OPTIMIZERS)
        kind = getattr(optim, OPTIMIZERS[optimizer])
        return kind(SGD_RATE) if optimizer == "sgd" else kind()
    if isinstance(optimizer, type) or not callable(getattr(optimizer, "update", None)):
        call = ": call it" if isinstance(optimizer, type) else ""
        raise TypeError(f"Trainer: optimizer is an object of owl.optim or a name, not {optimizer!r}{call}")
    return optimizer


def metrics_of(metrics: Any) -> dict[str, Function]:
    """Metrics by their names. Each is a function of (output, labels), or "accuracy".

    It gives a mean over the batch, or a sum and a count: a tuple.
    """
    if metrics is None:
        metrics = ()
    if isinstance(metrics, str) or callable(metrics):
        metrics = (metrics,)
    found: dict[str, Function] = {}
    for metric in metrics:
        if isinstance(metric, str):
            _require_known("metric", metric, ("accuracy",))
            found[metric] = _hits
        elif callable(metric):
            found[getattr(metric, "__name__", type(metric).__name__)] = metric
        else:
            raise TypeError(f'Trainer: a metric is "accuracy" or a function of (output, labels), not {metric!r}')
    if "loss" in found:
        raise ValueError('Trainer: a metric is called "loss", as the loss itself is')
    return found


def _require_known(what: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise ValueError(f"Trainer: there is no {what} {name!r}; there are {', '.join(map(repr, known))}")


def _hits(output: NArray, labels: NArray) -> tuple[NArray, int]:
    """How many samples are right: a whole number, so that the accuracy does not depend on how the data is cut."""
    found = right(output, labels)
    return found.sum(), found.size


class Totals:
    """The sums and counts of the loss and the metrics.

    ``add`` takes arrays as they are recorded; ``read`` adds up those that are computed, in order, every READ_S seconds.
    Reading never waits for a step that is less than READ_LAG steps back.
    """

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, float] = {}
        self._pending: deque[tuple[int, dict[str, Any], int]] = deque()
        self._due = 0.0  # when the next reading is

    def add(self, step: int, values: dict[str, Any], samples: int) -> None:
        """The loss and metrics of a batch: each a mean over its samples, or a sum and a count."""
        self._pending.append((step, values, samples))

    def read(self, wait: bool = False) -> list[tuple[int, float]]:
        """Adds up what is computed, or with ``wait`` everything; gives the steps and their losses."""
        found: list[tuple[int, float]] = []
        pending, now = self._pending, time.monotonic()
        if not wait and now < self._due and len(pending) <= READ_LAG:
            return found
        self._due = now + READ_S
        while pending and (wait or len(pending) > READ_LAG or _ready(pending[0][1])):
            step, values, samples = pending[0]
            parts = {name: _sum_and_count(name, value, samples) for name, value in values.items()}
            pending.popleft()
            self.add_numbers(parts)
            if "loss" in parts:
                found.append((step, parts["loss"][0] / samples))
        return found

    def add_numbers(self, parts: dict[str, tuple[float, float]]) -> None:
        """Adds sums and counts that were read."""
        for name, (total, count) in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + total
            self.counts[name] = self.counts.get(name, 0.0) + count

    def means(self) -> dict[str, float]:
        """Of what was read: sums by counts, NaN where nothing was counted."""
        return {name: total / self.counts[name] if self.counts[name] else math.nan for name, total in self.sums.items()}

    def copy(self) -> Totals:
        """Another one that goes on by itself."""
        other = Totals()
        other.sums, other.counts, other._pending = dict(self.sums), dict(self.counts), self._pending.copy()
        return other

    def state(self) -> dict[str, Any]:
        """All of it as numbers; waits."""
        self.read(wait=True)
        return {"sums": self.sums, "counts": self.counts}

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self.sums = {str(name): float(value) for name, value in state["sums"].items()}
        self.counts = {str(name): float(value) for name, value in state["counts"].items()}


def _ready(values: dict[str, Any]) -> bool:
    for value in values.values():
        for part in value if type(value) is tuple else (value,):
            if type(part) is NArray and not part.ready():
                return False
    return True


def _sum_and_count(name: str, value: Any, samples: int) -> tuple[float, float]:
    try:
        if isinstance(value, tuple):
            total, count = value
            return float(total), float(count)
        return float(value) * samples, float(samples)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} must give one number, or a sum and a count: {error}") from error
