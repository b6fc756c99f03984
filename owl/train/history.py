"""History: what a training run measured, a row an epoch."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
from collections.abc import Iterator
from typing import Any

from owl._replace import replacing

Row = dict[str, Any]
PathLike = str | os.PathLike[str]

SPEED = "images_per_s"  # the column that two runs with the same bits do not share


class History:
    """Rows by epoch, ``{"epoch": 1, "loss": 0.31, "accuracy": 0.91, "val_loss": 0.28, ...}``, and columns by name.

    ``loss`` and the metrics are means over the epoch, while the parameters moved; those that begin with ``val_`` are of the
    validation data after it, those with ``train_`` (``fit(train_eval=True)``) of the training data after it;
    ``images_per_s`` is the speed of training.

    >>> history = owl.train.History([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    >>> history["loss"], len(history), history[-1]["epoch"]
    ([0.5, 0.25], 2, 2)
    """

    def __init__(self, rows: list[Row] | None = None) -> None:
        self.rows: list[Row] = list(rows or [])

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in the order of their first row."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def __getitem__(self, key: str | int) -> Any:
        """A column by name, with None where a row lacks it; a row by number. KeyError: there is no such column."""
        if not isinstance(key, str):
            return self.rows[key]
        if key not in self.columns:
            raise KeyError(f"{key}: the history has {', '.join(self.columns) or 'no rows yet'}")
        return [row.get(key) for row in self.rows]

    def __contains__(self, key: object) -> bool:
        return key in self.columns

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self.rows == other.rows

    def to_csv(self, path: PathLike) -> None:
        """Writes the rows as comma-separated values, columns named in the first line."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        _write(path, text.getvalue())

    def to_json(self, path: PathLike) -> None:
        """Writes the rows as a JSON list of objects."""
        _write(path, json.dumps(self.rows, indent=1) + "\n")

    def plot(self, path: PathLike) -> None:
        """Draws the loss and each metric over the epochs, training and validation, to a ``.png``, ``.pdf`` or ``.svg``.

        Needs matplotlib: ``pip install matplotlib``. ValueError: no rows.
        """
        if not self.rows:
            raise ValueError("plot: the history has no rows yet")
        try:
            figures = importlib.import_module("matplotlib.figure")
        except ImportError:
            raise ImportError("History.plot needs matplotlib: pip install matplotlib") from None
        names = [name for name in self.columns if name not in ("epoch", SPEED)]
        kinds = list(dict.fromkeys(name.removeprefix("val_").removeprefix("train_") for name in names))
        figure = figures.Figure(figsize=(5 * len(kinds), 4), layout="constrained")
        for place, kind in enumerate(kinds, 1):
            axes = figure.add_subplot(1, len(kinds), place)
            for name, label in ((kind, "training (mean over the epoch)"), (f"train_{kind}", "training (after the epoch)"),
                                (f"val_{kind}", "validation")):  # fmt: skip
                points = [(row["epoch"], row[name]) for row in self.rows if row.get(name) is not None]
                if points:
                    axes.plot(*zip(*points), marker="." if len(points) < 30 else "", label=label)
            axes.set_xlabel("epoch")
            axes.set_title(kind)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend()
        figure.savefig(path)

    def __getattr__(self, name: str) -> Any:  # called for names that are not there
        hint = ": write history[\"loss\"], history.columns has the names" if name == "history" or name in _columns(self) else ""
        raise AttributeError(f"History has no {name}{hint}", name=name, obj=None if hint else self)

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {_short(value)}" for name, value in self.rows[-1].items()) if self.rows else "no rows"
        return f"History({len(self)} epochs; {last})"


def _columns(history: History) -> list[str]:
    return history.columns if "rows" in vars(history) else []


def described(row: Row) -> str:
    """A row as a line of text, without its epoch."""
    parts = [f"{name} {_short(value)}" for name, value in row.items() if name not in ("epoch", SPEED)]
    return ", ".join([*parts, f"{row[SPEED]:,.0f} images/s"] if row.get(SPEED) else parts)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _write(path: PathLike, text: str) -> None:
    with replacing(os.fspath(path)) as file:
        file.write(text.encode())
