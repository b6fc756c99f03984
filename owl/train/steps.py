"""One step of training: gradients of a batch, cut into shards, on one or several devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import owl
from owl._owl import Error, NArray
from owl.train.metrics import Function

Batch = tuple[NArray, ...]
Gradients = dict[str, NArray]


class Steps:
    """Gradients of a model's loss, and its evaluation.

    A batch of N samples is cut into S shards; shard p has samples p * N // S to (p + 1) * N // S. Shards are spread over
    the devices, and their gradients are added along a binary tree over the shards' numbers. The bits depend on the number
    of shards, not on the devices.
    """

    def __init__(
        self, model: Any, loss: Function, metrics: dict[str, Function], devices: Sequence[int], shards: int
    ) -> None:
        self.model, self.loss, self.metrics, self.devices, self.shards = model, loss, metrics, devices, shards
        #: Called with output and labels before the loss, while fit runs.
        self.check: Callable[[Any, NArray], None] | None = None

    def gradients(self, batch: Batch) -> tuple[dict[str, Any], Gradients]:
        """The loss and metrics of a batch, and the gradients of its mean loss."""
        if self.shards == 1:
            with _on(self.devices, 0, 1):
                return self._one(batch)
        samples = samples_of(batch)
        cuts = [p * samples // self.shards for p in range(self.shards + 1)]
        before = self.model.buffers()
        values, gradients, buffers = [], [], []
        for p, (start, stop) in enumerate(zip(cuts, cuts[1:])):
            if start == stop:
                continue
            if before:
                self.model.update(before)
            with _on(self.devices, p, self.shards):
                measured, shard = self._one(tuple(owl.slice(part, -1, start, stop - start) for part in batch))
                values.append({name: _as_sum(value, stop - start) for name, value in measured.items()})
                gradients.append({name: g * float(stop - start) for name, g in shard.items()})
            buffers.append(self.model.buffers())
        if before:
            self.model.update(_averaged(buffers))
        total = {name: g * (1 / samples) for name, g in added(gradients).items()}
        return {name: _joined([each[name] for each in values]) for name in values[0]}, total

    def _one(self, batch: Batch) -> tuple[dict[str, Any], Gradients]:
        with owl.Tape() as tape:
            output = self.model(*batch[:-1])
            if self.check is not None:
                self.check(output, batch[-1])
            loss = self.loss(output, batch[-1])
        # By name here, because gradient(loss, model) would walk through the modules twice.
        trained = self.model.trainable_parameters()
        if not trained:
            raise Error("fit: the model has no parameters to train; model.unfreeze() returns frozen ones")
        gradients: Gradients = tape.gradient(loss, trained)
        return {"loss": loss, **self._measured(output, batch[-1])}, gradients

    def measure(self, batch: Batch) -> dict[str, Any]:
        """The loss and metrics of a batch, without gradients."""
        output = self.model(*batch[:-1])
        return {"loss": self.loss(output, batch[-1]), **self._measured(output, batch[-1])}

    def _measured(self, output: Any, labels: NArray) -> dict[str, Any]:
        return {name: metric(output, labels) for name, metric in self.metrics.items()}


def samples_of(batch: Batch) -> int:
    """The length of the last axis."""
    return batch[-1].shape[-1]


def added(parts: list[Gradients]) -> Gradients:
    """The sum along a binary tree over the parts' numbers: neighbours first."""
    while len(parts) > 1:
        pairs = [{name: a[name] + b[name] for name in a} for a, b in zip(parts[::2], parts[1::2])]
        parts = pairs + ([parts[-1]] if len(parts) % 2 else [])
    return parts[0]


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


def _on(devices: Sequence[int], shard: int, shards: int) -> owl.device:
    return owl.device(devices[shard * len(devices) // shards] if devices else owl.current_device())


def _as_sum(value: Any, samples: int) -> tuple[Any, Any]:
    return value if isinstance(value, tuple) else (value * float(samples), samples)


def _joined(values: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    sums, counts = zip(*values)
    return added([{"": each} for each in sums])[""], sum(counts[1:], counts[0])


def _averaged(buffers: list[dict[str, NArray]]) -> dict[str, NArray]:
    """Running statistics are averaged over the shards; counters are the same in all of them."""
    total = added(buffers)
    return {name: total[name] * (1 / len(buffers)) if first.dtype.kind == "f" else first
            for name, first in buffers[0].items()}  # fmt: skip
