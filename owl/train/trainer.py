"""Trainer: trains a module, measures it, saves all of its state and goes on from there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType
from typing import Any

import numpy as np

import owl
from owl._arguments import hinted, with_hints
from owl._owl import DataError, NArray
from owl.data.loader import Loader
from owl.train import checkpoints
from owl.train.fitting import Fit
from owl.train.history import SPEED, History, PathLike
from owl.train.inputs import EVALUATION_BATCH, as_arrays, evaluation_loader, loaders
from owl.train.metrics import READ_LAG, Totals, loss_of, metrics_of, optimizer_of
from owl.train.place import Place
from owl.train.progress import Progress
from owl.train.ranks import Ranks
from owl.train.steps import Steps, samples_of
from owl.train.writer import Writer


class Trainer:
    """Trains a model by a loss and an optimizer.

    ``model`` is an ``owl.nn.Module``. ``loss(model(*batch[:-1]), batch[-1])`` is a mean over the batch; a function, or a name:
    ``"softmax_cross_entropy"``, ``"mse"`` and others of ``owl.nn``. ``optimizer`` is one of ``owl.optim``, or ``"sgd"`` (rate 0.01),
    ``"adam"``, ``"rmsprop"`` and others with their defaults. ``metrics`` are ``"accuracy"`` or functions of (output, labels) that
    give a mean over the batch, or a tuple of a sum and a count.

    ``devices`` spreads each batch over several devices of this process. A batch is cut into ``shards`` parts (default: one a
    device), whose gradients are added in a fixed order: the bits depend on the number of shards alone. With ``distributed``
    the shards are also spread over the processes that ``mpirun`` started (``owl.distributed``): every rank has the same data
    and makes the same calls, starts from rank 0's parameters and random numbers, and rank 0 writes files. ValueError: an
    unknown name; ``shards`` is not the number of devices, of all ranks, times a power of two.

    >>> trainer = owl.train.Trainer(owl.nn.Linear(4, 3), "softmax_cross_entropy", owl.optim.SGD(0.1))
    """

    @hinted
    def __init__(
        self,
        model: Any,
        loss: Any,
        optimizer: Any,
        metrics: Any = ("accuracy",),
        devices: Sequence[int] | None = None,
        distributed: Any = None,
        shards: int | None = None,
    ) -> None:
        if isinstance(model, type) or not callable(model) or not hasattr(model, "parameters"):
            kind = f"the class {model.__name__}: call it" if isinstance(model, type) else type(model).__name__
            raise TypeError(f"Trainer: model is an owl.nn.Module, not {kind}")
        self.model, self.optimizer = model, optimizer_of(optimizer)
        places = _devices(devices)
        self.ranks = Ranks(bool(distributed))
        cut = _shards(shards, max(1, len(places)), self.ranks.size)
        self.parts = Steps(model, loss_of(loss), metrics_of(metrics), places, cut, self.ranks)
        #: Rows by epoch.
        self.history = History()
        #: Updates made.
        self.steps = 0
        self.place, self.writer, self.stopping, self._started = Place(), Writer(), False, False

    @with_hints
    def fit(
        self,
        data: Any,
        epochs: int,
        validation: Any = None,
        batch_size: int | None = None,
        callbacks: Sequence[Any] = (),
        progress: bool = True,
        accumulate: int = 1,
        train_eval: bool = False,
        seed: int = 0,
    ) -> History:
        """Trains until the history has ``epochs`` epochs: a trainer that has made 7 goes on with the eighth.

        ``data`` and ``validation`` are a ``Loader``, a data set, or a tuple of NumPy arrays ``(x, labels)``, samples first; the
        latter two get a loader with ``batch_size`` (32), the training data shuffled by ``seed``. A number as ``validation`` is the
        fraction of the data that is set aside, drawn by ``seed``. ``accumulate`` batches are one step. ``train_eval`` also
        measures the training data after each epoch.

        Shows a bar on a terminal, and a line an epoch elsewhere. Ctrl-C ends the training between two steps; the history so
        far is returned, and another ``fit`` goes on there. What a callback, a metric or the data raises comes out; the
        trainer stands behind its latest step. Returns when all checkpoints are written. ValueError: no samples, or a
        batch size below 1.
        """
        for name, value in (("epochs", epochs), ("accumulate", accumulate)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"fit: {name} must be a positive integer, not {value!r}")
        callbacks = _callbacks(callbacks)
        self._start()
        training, held_out = loaders(self.model, data, validation, batch_size, self.ranks.number(seed))
        self.ranks.require_same("fit", {
            "samples": training.samples, "batch_size": training.batch_size, "the loader's seed": training.seed,
            "shuffle": int(training.shuffle), "samples for validation": held_out.samples if held_out else 0,
            "epochs": epochs, "accumulate": accumulate, "train_eval": int(train_eval), "shards": self.parts.shards,
            "steps made": self.steps})  # fmt: skip
        self.stopping = False
        shown = Progress(progress and self.writes, epochs)
        mode = self.model.training
        try:
            Fit(self, training, held_out, callbacks, shown, accumulate, train_eval).run(epochs)
        finally:
            self.model.train(mode)
        return self.history

    @property
    def writes(self) -> bool:
        """Whether this process writes files: rank 0 of an MPI job, and a process alone."""
        return self.ranks.writes

    def stop(self) -> None:
        """Ends ``fit`` after the step, or epoch, whose callback calls this."""
        self.stopping = True

    @with_hints
    def evaluate(self, data: Any, batch_size: int | None = None) -> dict[str, float]:
        """The loss and the metrics of data as ``fit`` takes it, in evaluation mode; waits."""
        return self.measured(evaluation_loader(self.model, data, batch_size))

    def measured(self, loader: Loader) -> dict[str, float]:
        """The loss and the metrics of a loader's next epoch, in evaluation mode; waits."""
        if self.ranks.size > 1:
            return self._measured_by_ranks(loader)
        totals = Totals()

        def measure() -> None:
            for step, batch in enumerate(loader):
                totals.add(step, self.parts.measure(batch), samples_of(batch))
                totals.read()

        self._in_evaluation(measure)
        totals.read(wait=True)
        return totals.means()

    def _measured_by_ranks(self, loader: Loader) -> dict[str, float]:
        """Batch b is measured by rank b modulo their number. The sums are added in the order of batches, as one process does."""
        if not self._started:
            self._start()
        own: list[Totals] = []

        def measure() -> None:
            for step, batch in enumerate(loader):
                if step % self.ranks.size == self.ranks.rank:
                    own.append(Totals())
                    own[-1].add(step, self.parts.measure(batch), samples_of(batch))
                    if len(own) > READ_LAG:
                        own[-READ_LAG].read(wait=True)

        self._in_evaluation(measure)
        names = ["loss", *self.parts.metrics]
        for each in own:
            each.read(wait=True)
        totals = Totals()
        rows = [{name: (each.sums[name], each.counts[name]) for name in names} for each in own]
        for row in self.ranks.gathered(rows, names, len(loader)):
            totals.add_numbers(row)
        return totals.means()

    def predict(self, x: Any, batch_size: int | None = None) -> NArray:
        """What the model gives for ``x``, in evaluation mode: an array, samples last; nothing waits.

        ``x`` is a NumPy array, samples first, an NArray, samples last, a tuple of NumPy arrays for a model of several inputs,
        or a Loader, whose last arrays are labels if there are several. ``batch_size`` (256) bounds the memory.
        """
        if isinstance(x, NArray):
            count = EVALUATION_BATCH if batch_size is None else batch_size
            cuts = range(0, x.shape[-1], count)
            batches: Any = ((owl.slice(x, -1, start, min(count, x.shape[-1] - start)),) for start in cuts)
        else:
            data = x if isinstance(x, Loader) else as_arrays(self.model, x if isinstance(x, tuple) else (x,))
            loader = evaluation_loader(self.model, data, batch_size)
            batches = (batch[:-1] or batch for batch in loader) if isinstance(x, Loader) else loader
        found: list[NArray] = []
        self._in_evaluation(lambda: found.extend(self.model(*batch) for batch in batches))
        if not found:
            raise ValueError("predict: no samples")
        return found[0] if len(found) == 1 else owl.concat(found, -1)

    def save(self, path: PathLike) -> None:
        """Writes the whole training state to one ``.npz`` or ``.safetensors`` file, which then has its name; waits.

        Parameters, buffers, optimizer, random numbers, the place in the data and the history: a run that is cut between any
        two steps and goes on in a new process by :meth:`load` ends with the bits of the run that was not cut. Two runs
        with the same bits have equal files. OSError: the file cannot be written; an older one stays.
        """
        self.writer.drain()
        tree, error = self._snapshot()(), None
        try:
            if self.writes:
                checkpoints.write(path, tree)
        except OSError as failed:
            error = failed
        self.ranks.agree(error)

    def save_behind(self, path: PathLike) -> None:
        """As :meth:`save`, on a thread while training goes on; ``fit`` returns when the file is there.

        A file that cannot be written is a warning.
        """
        tree = self._snapshot()
        if self.writes:
            self.writer.put(os.fspath(path), tree)

    def load(self, path: PathLike) -> None:
        """Goes on from a file that ``save`` or a callback wrote. The next ``fit`` has the same data and arguments.

        DataError: the file is missing or damaged, or of another model or optimizer; nothing has changed then.
        """
        tree = checkpoints.read(path)
        before = owl.random_state(), self.optimizer.state()
        try:
            history, steps, place, random = _checked(tree)
            owl.set_random_state(random)
            self.optimizer.load_state(tree["optimizer"])
            self.model.load_state(tree["model"])  # last, because it binds everything or nothing
        except Exception as error:
            owl.set_random_state(before[0])
            self.optimizer.load_state(before[1])
            if isinstance(error, MemoryError):
                raise
            raise DataError(f"{os.fspath(path)}: not a checkpoint of this trainer: {error}") from error
        self.history, self.steps, self.place = history, steps, place

    def _snapshot(self) -> Callable[[], dict[str, Any]]:
        """The state as it is now; the function waits for its values and gives it as a checkpoint has it."""
        place = self.place.state()
        tree = {
            "model": dict(self.model.state()),
            "optimizer": self.optimizer.state(),
            "random": list(owl.random_state()),
            "place": place,
            "steps": self.steps,
            "columns": [name for name in self.history.columns if name != SPEED],  # in their order, which rows lose
            "history": [{name: value for name, value in row.items() if name != SPEED} for row in self.history],
        }

        def finished() -> dict[str, Any]:
            if isinstance(place["totals"], Totals):
                place["totals"] = place["totals"].state()
            return tree

        return finished

    def _start(self) -> None:
        """Every rank has rank 0's state from here."""
        self.ranks.start(self.model)
        self._started = True

    def _in_evaluation(self, run: Callable[[], None]) -> None:
        mode = self.model.training
        self.model.eval()
        try:
            run()
        finally:
            self.model.train(mode)

    def __getattr__(self, name: str) -> Any:  # called for names that are not there
        hint = _HINTS.get(name)
        raise AttributeError(f"Trainer has no {name}" + (f": {hint}" if hint else ""), name=name, obj=None if hint else self)

    def __repr__(self) -> str:
        return (
            f"Trainer({type(self.model).__name__}, {self.optimizer!r}, {len(self.history)} epochs, {self.steps} steps)"
        )


_HINTS = {
    "run": "write trainer.fit((x, labels), epochs)",
    "train": "write trainer.fit((x, labels), epochs)",
    "test": "write trainer.evaluate((x, labels))",
    "validate": "write trainer.evaluate((x, labels))",
    "extend": "give fit callbacks=[...]",
    "compile": "the constructor is given loss, optimizer and metrics",
    "summary": "write trainer.model.summary(shape)",
    "save_weights": "write trainer.model.save(path)",
    "load_weights": "write trainer.model.load(path)",
    "state_dict": "write trainer.save(path), which has everything, or trainer.model.state()",
    "lr": "write trainer.optimizer.lr",
}

_METHODS = ("on_start", "on_step", "on_loss", "on_validation", "on_epoch", "on_end")


def _callbacks(callbacks: Any) -> Sequence[Any]:
    """The callbacks of fit. TypeError: not a list of objects, or one whose methods have names of another library."""
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"fit: callbacks are a list of objects, not {type(callbacks).__name__}")
    found = list(callbacks)
    for each in found:
        if isinstance(each, (type, FunctionType)):
            kind = f"the class {each.__name__}: call it" if isinstance(each, type) else f"the function {each.__name__}"
            raise TypeError(f"fit: a callback is an object with any of {', '.join(_METHODS)}, not {kind}")
        others = [name for name in dir(each) if name.startswith("on_")]
        if others and not set(others) & set(_METHODS):
            raise TypeError(f"fit: {type(each).__name__} has {', '.join(others)}, which fit does not call; a callback has any of "
                            f"{', '.join(_METHODS)}")  # fmt: skip
    return found


def _checked(tree: dict[str, Any]) -> tuple[History, int, Place, list[int]]:
    """What a checkpoint has beside the model and the optimizer."""
    missing = [name for name in ("model", "optimizer", "random", "place", "steps", "history") if name not in tree]
    if missing:
        raise DataError(f"missing: {', '.join(missing)}")
    place = Place()
    place.load_state(tree["place"])
    columns = {name: i for i, name in enumerate(tree.get("columns", []))}
    rows = [{str(name): row[name] for name in sorted(row, key=lambda name: columns.get(name, len(columns)))} for row in tree["history"]]
    return History(rows), int(tree["steps"]), place, [int(each) for each in tree["random"]]


def _devices(devices: Sequence[int] | None) -> tuple[int, ...]:
    if devices is None:
        return ()
    found = tuple(devices)
    if not found:
        raise ValueError("Trainer: devices is empty")
    if len(set(found)) < len(found):
        raise ValueError(f"Trainer: devices {list(found)} names one twice")
    for device in found:
        with owl.device(device):  # DeviceError: there is none
            pass
    return found


def _shards(shards: int | None, devices: int, ranks: int) -> int:
    if shards is None:
        return devices * ranks
    if isinstance(shards, bool) or not isinstance(shards, (int, np.integer)):
        raise TypeError(f"Trainer: shards must be an integer, not {shards!r}")
    each = shards // (devices * ranks)
    if shards < 1 or shards % (devices * ranks) or each & (each - 1):
        what = f"the number of devices, {devices}," if ranks == 1 else f"the number of ranks, {ranks}, and devices, {devices},"
        raise ValueError(f"Trainer: shards must be {what} times a power of two, not {shards}")
    return int(shards)
