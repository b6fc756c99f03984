"""The loop of Trainer.fit: epochs, steps, validation, callbacks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import owl
from owl._owl import NArray
from owl.data.loader import Loader
from owl.nn.module import Module
from owl.optim.optimizer import Optimizer
from owl.train.history import SPEED, Row
from owl.train.inputs import in_order
from owl.train.labels import Labels
from owl.train.metrics import Totals
from owl.train.progress import Interrupts, Progress
from owl.train.steps import Batch, Sums, samples_of

if TYPE_CHECKING:
    from owl.train.trainer import Trainer


class Fit:
    """One call of fit. What must outlive it, or a process, is the trainer's."""

    def __init__(
        self,
        trainer: Trainer,
        loader: Loader,
        validation: Loader | None,
        callbacks: Sequence[Any],
        progress: Progress,
        accumulate: int,
        train_eval: bool,
    ) -> None:
        self.trainer, self.loader, self.validation = trainer, loader, validation
        self.callbacks = sorted(callbacks, key=lambda each: bool(getattr(each, "saves", False)))
        self._on_loss = [each.on_loss for each in self.callbacks if hasattr(each, "on_loss")]
        self._on_step = [each.on_step for each in self.callbacks if hasattr(each, "on_step")]
        self.progress, self.accumulate, self.train_eval = progress, accumulate, train_eval
        self.interrupts = Interrupts()
        self.labels = Labels(trainer.parts.loss, loader)
        self.undo = Undo(trainer.model)

    def run(self, epochs: int) -> None:
        """Trains until the history has so many epochs, or until Ctrl-C or a callback ends it."""
        self._resume()
        self.trainer.parts.check = self.labels.check
        try:
            with self.interrupts.watching():
                self._call("on_start")
                while len(self.trainer.history) < epochs and not self.trainer.stopping:
                    self._epoch()
                if isinstance(self.trainer.optimizer, Optimizer):
                    self.trainer.optimizer._join()
        except KeyboardInterrupt:
            if self.trainer.ranks.size > 1:  # the other ranks have been interrupted elsewhere
                raise
            self.progress.interrupted()
        finally:
            self.trainer.parts.check = None
            self.progress.close()
            try:
                self._call("on_end")
            finally:
                self.trainer.writer.drain()

    def _resume(self) -> None:
        """Goes on where the trainer stands, if its data is this data."""
        place = self.trainer.place
        for name, loader in (("data", self.loader), ("validation", self.validation)):
            state = place.loaders.get(name)
            if state is None or loader is None:
                continue
            try:
                loader.load_state(state)
            except ValueError as error:
                if place.totals is not None and name == "data":
                    raise ValueError(f"fit: the trainer stands within an epoch of other data: {error}") from None
        place.watch(self.loader, self.validation, self.callbacks)

    def _epoch(self) -> None:
        trainer, place = self.trainer, self.trainer.place
        if place.totals is None:
            place.totals, place.trained, place.samples = Totals(), False, 0
        number, begun, before = len(trainer.history) + 1, time.perf_counter(), place.samples
        self.progress.begin(number, self.loader.samples, before)
        if not place.trained:
            self._train(place.totals)
            if not place.trained:
                return  # a callback ended it
        self._read(place.totals, wait=True)
        seconds = time.perf_counter() - begun
        means = place.totals.means()  # whose order a checkpoint has not kept
        row: Row = {"epoch": number, **{name: means.pop(name) for name in ("loss", *trainer.parts.metrics) if name in means}, **means}
        if self.train_eval:
            self._measure(row, "train_", in_order(self.loader))
        if self.validation is not None:
            self._measure(row, "val_", self.validation)
            self._call("on_validation", row)
        if place.samples > before:
            row[SPEED] = (place.samples - before) / max(seconds, 1e-9)
        trainer.history.rows.append(row)
        place.totals = None
        self.progress.end(row)
        self._call("on_epoch", row)

    def _train(self, totals: Totals) -> None:
        """The steps of an epoch, from where it stands."""
        trainer, place = self.trainer, self.trainer.place
        trainer.model.train()
        for batches in _windows(self.loader, self.accumulate):
            with self.interrupts:
                samples = self._step(batches, totals)
                place.step(samples)
            self._read(totals)
            self.progress.step(samples, totals.means)
            for on_step in self._on_step:
                on_step(trainer, trainer.steps)
            if trainer.stopping:
                return

    def _step(self, batches: list[Batch], totals: Totals) -> int:
        """One update, from the gradients of one or several batches; gives the number of samples."""
        trainer, count, sums = self.trainer, 0, Sums()
        measured = []
        with self.undo:
            for batch in batches:
                samples = samples_of(batch)
                values, gradients = trainer.parts.gradients(batch, trainer.optimizer)
                sums.add(gradients, samples)
                measured.append((values, samples))
                count += samples
        trainer.parts.update(trainer.optimizer, sums.mean())
        trainer.steps += 1
        for values, samples in measured:
            totals.add(trainer.steps, values, samples)
        return count

    def _read(self, totals: Totals, wait: bool = False) -> None:
        for step, loss in totals.read(wait):
            for on_loss in self._on_loss:
                on_loss(self.trainer, step, loss)

    def _measure(self, row: Row, prefix: str, loader: Loader) -> None:
        row.update({prefix + name: value for name, value in self.trainer.measured(loader).items()})

    def _call(self, method: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            if hasattr(callback, method):
                getattr(callback, method)(self.trainer, *arguments)


class Undo:
    """A block that, if an exception ends it, leaves buffers and random numbers as they were."""

    def __init__(self, model: Any) -> None:
        slots = model._slots().values() if isinstance(model, Module) else ()
        self._places = [(container, key) for owner, local, container, key in slots if local in owner._buffers]

    def __enter__(self) -> None:
        self._random, self._buffers = owl.random_state(), [container[key] for container, key in self._places]

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            owl.set_random_state(self._random)
            for (container, key), before in zip(self._places, self._buffers):
                if isinstance(before, NArray):  # else this call has found out its size
                    container[key] = before
        self._buffers = []


def _windows(loader: Loader, count: int) -> Iterator[list[Batch]]:
    """Batches in groups of ``count``; the last may be smaller."""
    window: list[Batch] = []
    for batch in loader:
        window.append(batch)
        if len(window) == count:
            yield window
            window = []
    if window:
        yield window
