"""A thread that writes checkpoints while training goes on. Arrays are immutable: nothing is copied for it."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from owl.train import checkpoints

_ROOM = 2  # files that may wait while one is written; each holds a set of parameters


class Writer:
    """Writes trees in the order in which they came. Of those that wait, a newer one takes the place of an older one's path.

    A file that cannot be written is one warning for each reason, from the script's thread; other errors are raised by drain.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Callable[[], dict[str, Any]]] = {}
        self._busy = False
        self._changed = threading.Condition()
        self._failures: dict[str, str] = {}  # not yet reported: path by reason
        self._reported: set[str] = set()
        self._error: BaseException | None = None

    def put(self, path: str, tree: Callable[[], dict[str, Any]]) -> None:
        """Has ``tree()`` written to the path, by the thread; waits only if too many files wait already."""
        with self._changed:
            while path not in self._waiting and len(self._waiting) >= _ROOM:
                self._changed.wait()
            self._waiting[path] = tree
            if not self._busy:
                self._busy = True
                threading.Thread(target=self._work, name="owl.train.Writer").start()
        self._report()

    def drain(self) -> None:
        """Waits until everything is written."""
        with self._changed:
            while self._busy:
                self._changed.wait()
            error, self._error = self._error, None
        self._report()
        if error is not None:
            raise error

    def _report(self) -> None:
        with self._changed:
            failures = {reason: path for reason, path in self._failures.items() if reason not in self._reported}
            self._failures.clear()
            self._reported.update(failures)
        for reason, path in failures.items():
            warnings.warn(f"the checkpoint {path} was not written: {reason}; training goes on, an older file stays",
                          RuntimeWarning, stacklevel=_outside())  # fmt: skip

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._busy = False
                    self._changed.notify_all()
                    return
                path = next(iter(self._waiting))
                tree = self._waiting.pop(path)
                self._changed.notify_all()
            try:
                checkpoints.write(path, tree())
            except OSError as error:
                with self._changed:
                    self._failures[error.strerror or str(error)] = path
            except BaseException as error:
                with self._changed:
                    self._error = error
            del tree  # it holds the arrays


def _outside() -> int:
    """The level of the script's frame, as ``stacklevel`` of a warning of the caller."""
    package, level, frame = os.path.dirname(os.path.dirname(__file__)) + os.sep, 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        level, frame = level + 1, frame.f_back
    return level
