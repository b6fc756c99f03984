"""One step of training: gradients of a batch, cut into shards, on one or several devices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import owl
from owl import _owl
from owl._owl import Error, NArray
from owl._types import kind_of
from owl.nn.module import Module, Slot, Trained, values
from owl.optim.optimizer import Optimizer
from owl.train.metrics import Function
from owl.train.own_parts import OwnParts
from owl.train.ranks import Ranks, nothing

Batch = tuple[NArray, ...]
Gradients = dict[str, NArray]
Shard = tuple[dict[str, Any], Gradients, Gradients]  # sums of the loss and metrics, gradients, buffers


class Steps:
    """Gradients of a model's loss, and its evaluation.

    A batch of N samples is cut into S shards; shard p has samples p * N // S to (p + 1) * N // S. Shards are spread over
    the ranks, and those of a rank over its devices; their gradients are added along a binary tree over the shards'
    numbers. The bits depend on the number of shards, not on the ranks and devices.
    """

    def __init__(
        self,
        model: Any,
        loss: Function,
        metrics: dict[str, Function],
        devices: Sequence[int],
        shards: int,
        ranks: Ranks,
    ) -> None:
        self.model, self.loss, self.metrics, self.devices, self.shards = model, loss, metrics, devices, shards
        #: Called with output and labels before the loss, while fit runs.
        self.check: Callable[[Any, NArray], None] | None = None
        self.ranks, self.own = ranks, OwnParts(ranks)
        self._trained = Trained(model) if isinstance(model, Module) else None
        self._slots: dict[str, Slot] = {}  # of the latest gradients' parameters

    def gradients(self, batch: Batch, optimizer: Any) -> tuple[dict[str, Any], Gradients]:
        """The loss and metrics of a batch, and the gradients of its mean loss, as ``update`` of this optimizer takes them."""
        if self.shards == 1:
            with _on(self.devices, 0, 1):
                return self._one(batch)
        samples = samples_of(batch)
        cuts = [p * samples // self.shards for p in range(self.shards + 1)]
        before, random = self.model.buffers(), owl.random_state()
        shards = [self._shard(batch, p, cuts[p], cuts[p + 1], before, random) for p in self._own()]
        if all(shard is None for shard in shards):  # the shapes of what this rank adds; nothing of it is computed
            some = self._shard(batch, self._own()[0], 0, samples, before, random)
            assert some is not None
            shards, last = [nothing(*some)], some
        else:
            last = next(shard for shard in shards if shard is not None)
        values = {name: _joined([shard and shard[0][name] for shard in shards]) for name in last[0]}
        moving = [name for name, each in last[2].items() if kind_of(each.dtype) == "f"]
        gradients = added([shard and shard[1] for shard in shards])
        self.own.choose(optimizer if self._trained else None, gradients)
        found, total, running = self.ranks.added(
            values,
            gradients,
            added([shard and {name: shard[2][name] for name in moving} for shard in shards]),
            self.own,
        )
        if before:  # running statistics are averaged over the shards; counters are the same in all of them
            count = sum(start < stop for start, stop in zip(cuts, cuts[1:]))
            self.model.update(last[2] | {name: each * (1 / count) for name, each in running.items()})
        return found, {name: g * (1 / samples) for name, g in total.items()}

    def _own(self) -> range:
        """The shards of this rank."""
        each = self.shards // self.ranks.size
        return range(self.ranks.rank * each, (self.ranks.rank + 1) * each)

    def _shard(
        self, batch: Batch, p: int, start: int, stop: int, before: Gradients, random: tuple[int, int]
    ) -> Shard | None:
        """The sums of a shard, and the model's buffers after it; None without samples."""
        if start == stop:
            return None
        if before:
            self.model.update(before)
        own, count = self._own(), stop - start
        owl.set_random_state(random)
        with _on(self.devices, p - own.start, len(own)), _drawing(start, count):
            measured, gradients = self._one(tuple(owl.slice(part, -1, start, count) for part in batch), count)
            values = {name: _as_sum(value, count) for name, value in measured.items()}
        return values, gradients, self.model.buffers()

    def _one(self, batch: Batch, weight: int = 1) -> tuple[dict[str, Any], Gradients]:
        """The loss and metrics, and the gradients of the loss times ``weight``: of a shard's sum, without a pass over them."""
        with owl.Tape() as tape:
            output = self.model(*batch[:-1])
            if self.check is not None:
                self.check(output, batch[-1])
            loss = self.loss(output, batch[-1])
        if self._trained:
            self._slots = self._trained.slots()
        trained = values(self._slots) if self._trained else self.model.trainable_parameters()
        if not trained:
            raise Error("fit: the model has no parameters to train; model.unfreeze() returns frozen ones")
        gradients: Gradients = tape.gradient(loss, trained, owl.full_like(loss, weight))
        return {"loss": loss, **self._measured(output, batch[-1])}, gradients

    def update(self, optimizer: Any, gradients: Gradients) -> None:
        """Makes the step."""
        if self._trained and isinstance(optimizer, Optimizer) and type(optimizer).update is Optimizer.update:
            self.own.update(optimizer, self._slots, gradients)
        else:
            optimizer.update(self.model, gradients)

    def measure(self, batch: Batch) -> dict[str, Any]:
        """The loss and metrics of a batch, without gradients."""
        output = self.model(*batch[:-1])
        return {"loss": self.loss(output, batch[-1]), **self._measured(output, batch[-1])}

    def _measured(self, output: Any, labels: NArray) -> dict[str, Any]:
        return {name: metric(output, labels) for name, metric in self.metrics.items()}


def samples_of(batch: Batch) -> int:
    """The length of the last axis."""
    return batch[-1].shape[-1]


def added(parts: list[Gradients | None]) -> Gradients:
    """The sum along a binary tree over the parts' numbers: neighbours first. A part that is None adds nothing."""
    while len(parts) > 1:
        pairs = [_pair(a, b) for a, b in zip(parts[::2], parts[1::2])]
        parts = pairs + ([parts[-1]] if len(parts) % 2 else [])
    assert parts[0] is not None
    return parts[0]


def _pair(a: Gradients | None, b: Gradients | None) -> Gradients | None:
    if a is None or b is None:
        return b if a is None else a
    return {name: a[name] + b[name] for name in a}


class Sums:
    """The gradients of several batches: sums by samples, divided once."""

    def __init__(self) -> None:
        self._total: Gradients = {}
        self._samples: list[int] = []

    def add(self, gradients: Gradients, samples: int) -> None:
        """Adds the gradients of the mean loss of a batch."""
        if len(self._samples) == 1:
            self._total = {name: g * float(self._samples[0]) for name, g in self._total.items()}
        if self._samples:
            self._total = {name: self._total[name] + g * float(samples) for name, g in gradients.items()}
        else:
            self._total = gradients
        self._samples.append(samples)

    def mean(self) -> Gradients:
        """The gradients of the mean loss of all of them."""
        if len(self._samples) == 1:
            return self._total
        return {name: g * (1 / sum(self._samples)) for name, g in self._total.items()}


def _on(devices: Sequence[int], shard: int, shards: int) -> contextlib.AbstractContextManager[Any]:
    return owl.device(devices[shard * len(devices) // shards]) if devices else _HERE


_HERE = contextlib.nullcontext()


def _as_sum(value: Any, samples: int) -> tuple[Any, Any]:
    return value if isinstance(value, tuple) else (value * float(samples), samples)


def _joined(values: list[tuple[Any, Any] | None]) -> tuple[Any, Any]:
    total = added([value and {"sum": value[0], "count": value[1]} for value in values])
    return total["sum"], total["count"]


@contextlib.contextmanager
def _drawing(start: int, count: int) -> Iterator[None]:
    """Random arrays with a sample along the last axis, such as dropout's masks, are parts of those of the whole batch."""
    _owl.draw_samples(start, count)
    try:
        yield
    finally:
        _owl.draw_samples(0, 0)
