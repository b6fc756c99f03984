"""Callbacks: objects with any of on_start, on_step, on_loss, on_validation, on_epoch and on_end.

``on_start(trainer)``; ``on_step(trainer, step)`` after each step; ``on_loss(trainer, step, loss)`` when a step's loss was
read, some steps later, because nothing waits for it; ``on_validation(trainer, row)`` and ``on_epoch(trainer, row)`` with the
history's new row; ``on_end(trainer)``, also after an error. ``state()`` and ``load_state(state)`` make what a callback knows
part of a checkpoint. ``trainer.stop()`` ends the training.
"""

from __future__ import annotations

import importlib
import math
import os
from typing import TYPE_CHECKING, Any, Literal

from owl._owl import NaNError
from owl.train.history import PathLike, Row

if TYPE_CHECKING:
    from owl.train.trainer import Trainer


class _Best:
    """The best value of a column so far."""

    def __init__(self, monitor: str, min_delta: float = 0.0) -> None:
        self.monitor, self.min_delta = monitor, min_delta
        self.best: float | None = None
        self.sign = (
            -1.0 if monitor.removeprefix("val_").removeprefix("train_") == "accuracy" else 1.0
        )  # 1: less is better

    def improves(self, row: Row) -> bool:
        """Whether the row is better than all before; NaN never is."""
        if self.monitor not in row:
            known = [name for name in row if name not in ("epoch", "images_per_s")]
            why = "; fit has no validation" if self.monitor.startswith("val_") else ""
            raise ValueError(f"monitor {self.monitor!r}: the history has {', '.join(known)}{why}")
        value = row[self.monitor]
        if math.isnan(value) or (self.best is not None and self.sign * (self.best - value) <= self.min_delta):
            return False
        self.best = value
        return True


class EarlyStopping:
    """Ends the training when a column of the history has not improved for ``patience`` epochs in a row.

    By more than ``min_delta``: a loss improves by falling, an accuracy by rising. ValueError: there is no such column.
    """

    def __init__(self, monitor: str = "val_loss", patience: int = 3, min_delta: float = 0.0) -> None:
        if patience < 1:
            raise ValueError(f"EarlyStopping: patience must be at least 1, not {patience}")
        self.patience = patience
        self._best, self._waited = _Best(monitor, min_delta), 0

    def on_epoch(self, trainer: Trainer, row: Row) -> None:
        """Counts the epochs without improvement."""
        self._waited = 0 if self._best.improves(row) else self._waited + 1
        if self._waited >= self.patience:
            trainer.stop()

    def state(self) -> dict[str, Any]:
        """The best value and the epochs since."""
        return {"best": self._best.best, "waited": self._waited}

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self._best.best, self._waited = state["best"], state["waited"]


class Checkpoint:
    """Saves the whole training state behind the script, after each ``every`` epochs, or steps with ``unit="step"``.

    ``path`` may have ``{epoch}`` and ``{step}`` in it, to keep the files of all times; else the newest replaces the one
    before. Training waits for nothing; where a file cannot be written it goes on, and the old file stays.
    """

    saves = True  # called after the callbacks that only watch, so that the file has what they know

    def __init__(self, path: PathLike, every: int = 1, unit: Literal["epoch", "step"] = "epoch") -> None:
        if unit not in ("epoch", "step"):
            raise ValueError(f'Checkpoint: unit is "epoch" or "step", not {unit!r}')
        if every < 1:
            raise ValueError(f"Checkpoint: every must be at least 1, not {every}")
        self.path, self.every, self.unit = _checked(path), every, unit

    def on_step(self, trainer: Trainer, step: int) -> None:
        """Saves after every n-th step."""
        if self.unit == "step" and step % self.every == 0:
            self._save(trainer)

    def on_epoch(self, trainer: Trainer, row: Row) -> None:
        """Saves after every n-th epoch."""
        if self.unit == "epoch" and row["epoch"] % self.every == 0:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        path = self.path.replace("{epoch}", str(len(trainer.history))).replace("{step}", str(trainer.steps))
        trainer.save_behind(path)


class BestCheckpoint:
    """Saves the whole training state after each epoch in which a column of the history is better than ever before."""

    saves = True

    def __init__(self, path: PathLike, monitor: str = "val_loss") -> None:
        self.path, self._best = _checked(path), _Best(monitor)

    def on_epoch(self, trainer: Trainer, row: Row) -> None:
        """Saves if the row is the best."""
        if self._best.improves(row):
            trainer.save_behind(self.path)

    def state(self) -> dict[str, Any]:
        """The best value."""
        return {"best": self._best.best}

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self._best.best = state["best"]


class CSVLog:
    """Writes the history to a file of comma-separated values, anew after each epoch: a reader finds a whole file."""

    def __init__(self, path: PathLike) -> None:
        self.path = path

    def on_epoch(self, trainer: Trainer, row: Row) -> None:
        """Writes the file."""
        if trainer.writes:
            trainer.history.to_csv(self.path)


class TensorBoard:
    """Writes the loss of each step and the rows of the history to a folder that TensorBoard shows.

    Needs tensorboardX: ``pip install tensorboardX``; ``tensorboard --logdir FOLDER`` shows it.
    """

    def __init__(self, folder: PathLike) -> None:
        try:
            package = importlib.import_module("tensorboardX")
        except ImportError:
            raise ImportError("TensorBoard needs tensorboardX: pip install tensorboardX") from None
        self.folder, self._package = os.fspath(folder), package
        self._writer: Any = None

    def on_start(self, trainer: Trainer) -> None:
        """Opens the files."""
        if trainer.writes:
            self._writer = self._package.SummaryWriter(self.folder)

    def on_loss(self, trainer: Trainer, step: int, loss: float) -> None:
        """Writes the loss of a step."""
        if self._writer is not None:
            self._writer.add_scalar("step/loss", loss, step)

    def on_epoch(self, trainer: Trainer, row: Row) -> None:
        """Writes the row."""
        for name, value in row.items():
            if name != "epoch" and value is not None and self._writer is not None:
                self._writer.add_scalar(f"epoch/{name}", value, row["epoch"])

    def on_end(self, trainer: Trainer) -> None:
        """Closes the files."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class StopOnNaN:
    """Ends the training by an ``owl.NaNError`` that names the first step whose loss was NaN or infinite.

    The error comes a few steps later, because no step waits for its loss. The history stays as it was.
    """

    def on_loss(self, trainer: Trainer, step: int, loss: float) -> None:
        """Looks at the loss of a step."""
        if not math.isfinite(loss):
            raise NaNError(f"StopOnNaN: the loss of step {step} (epoch {len(trainer.history) + 1}) is {loss}; a smaller "
                           "learning rate or owl.optim.clip_norm may help, owl.trace_nan finds the operation")  # fmt: skip


def _checked(path: PathLike) -> str:
    """The path as text. ValueError: its suffix. ImportError: its format's package is missing; not hours later."""
    from owl.files import _name, _safetensors

    name, suffix = _name(path)
    if suffix == ".safetensors":
        _safetensors()
    return name
