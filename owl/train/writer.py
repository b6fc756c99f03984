"""A thread that writes checkpoints while training goes on. Arrays are immutable: nothing is copied for it."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from owl._interrupts import delayed
from owl.train import checkpoints

_ROOM = 2  # files that may wait while one is written; each holds a set of parameters


class Writer:
    """Writes trees in the order in which they came. Of those that wait, a newer one takes the place of an older one's path.

    A file that cannot be written is one warning for each reason, from the script's thread; other errors are raised by drain.
    """

    def __init__(self) -> None:
        self._empty()
        self._reported: set[str] = set()

    def _empty(self) -> None:
        self._process = os.getpid()
        # Locks alone, which a thread holds or waits for in C code. KeyboardInterrupt within the Python code of a Condition
        # may leave it locked, and within Thread.join have the thread taken for ended.
        self._lock = threading.Lock()
        self._waiting: dict[str, Callable[[], dict[str, Any]]] = {}
        self._running: threading.Lock | None = None  # held while there is a thread
        self._failures: dict[str, str] = {}  # not yet reported: path by reason
        self._error: BaseException | None = None

    def put(self, path: str, tree: Callable[[], dict[str, Any]]) -> None:
        """Has ``tree()`` written to the path, by the thread; waits only if too many files wait already."""
        if os.getpid() != self._process:  # a forked one: its parent has the thread, and writes what waits
            self._empty()
        if path not in self._waiting and len(self._waiting) >= _ROOM:
            self._wait()
        with delayed():
            with self._lock:
                self._waiting[path] = tree
            self._begin()
        self._report()

    def drain(self) -> None:
        """Waits until everything is written."""
        if os.getpid() != self._process:
            self._empty()
        self._wait()
        with self._lock:
            error, self._error = self._error, None
        self._report()
        if error is not None:
            raise error

    def _begin(self) -> threading.Lock | None:
        """Has a thread if something waits."""
        with self._lock:
            if self._running is not None or not self._waiting:
                return self._running
            self._running = running = threading.Lock()
            running.acquire()
        try:
            threading.Thread(target=self._work, args=[running], name="owl.train.Writer").start()
        except BaseException:  # RuntimeError: there are too many threads
            with self._lock:
                if self._running is running:
                    self._end(running)
            raise
        return running

    def _wait(self) -> None:
        while True:
            with delayed():
                running = self._begin()
            if running is None:
                return
            with running:
                pass

    def _end(self, running: threading.Lock) -> None:
        self._running = None
        running.release()

    def _report(self) -> None:
        with self._lock:
            failures = {reason: path for reason, path in self._failures.items() if reason not in self._reported}
            self._failures.clear()
            self._reported.update(failures)
        for reason, path in failures.items():
            warnings.warn(f"the checkpoint {path} was not written: {reason}; training goes on, an older file stays",
                          RuntimeWarning, stacklevel=_outside())  # fmt: skip

    def _work(self, running: threading.Lock) -> None:
        while True:
            with self._lock:
                if self._running is not running:  # an exception came while it was started
                    return
                if not self._waiting:
                    self._end(running)
                    return
                path = next(iter(self._waiting))
                tree = self._waiting.pop(path)
            try:
                checkpoints.write(path, tree())
            except OSError as error:
                with self._lock:
                    self._failures[error.strerror or str(error)] = path
            except BaseException as error:
                with self._lock:
                    self._error = error
            del tree  # it holds the arrays


def _outside() -> int:
    """The level of the script's frame, as ``stacklevel`` of a warning of the caller."""
    package, level, frame = os.path.dirname(os.path.dirname(__file__)) + os.sep, 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        level, frame = level + 1, frame.f_back
    return level
