"""Threads that compute the items of a sequence ahead of its reader, in bounded number."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

_open: weakref.WeakSet[Ahead] = weakref.WeakSet()


class Ahead:
    """``make(i)`` for ``i`` from ``start`` to ``stop - 1``, at most ``depth`` items ahead of the reader.

    The reader takes the items in order. An exception of ``make`` is raised where its item is taken. In a forked child,
    which has none of the threads, and with ``depth`` 0, the reader makes its items itself.
    """

    def __init__(self, make: Callable[[int], Any], start: int, stop: int, depth: int) -> None:
        self._make, self._next, self._stop, self._depth = make, start, stop, depth
        self._wanted = start  # the next item that the reader takes
        self._items: dict[int, tuple[Any, BaseException | None]] = {}
        self._changed = threading.Condition()  # with a reentrant lock: a collection may close a reader in any thread
        self._closed = False
        self._process = os.getpid()
        self._threads = [
            threading.Thread(target=self._work, name="owl.data.Loader", daemon=True)
            for _ in range(min(depth, stop - start))
        ]
        _open.add(self)
        for thread in self._threads:
            thread.start()

    def take(self, i: int) -> Any:
        """Item ``i``; waits for it."""
        if not self._threads or os.getpid() != self._process:
            return self._make(i)
        with self._changed:
            while i not in self._items:
                self._changed.wait()
            item, error = self._items.pop(i)
            self._wanted = i + 1
            self._changed.notify_all()
        if error is not None:
            try:
                raise error
            finally:
                del error  # the traceback refers to this frame
        return item

    def close(self, patience_s: float = 1.0) -> None:
        """Ends the threads. One that runs the user's code for longer than ``patience_s`` ends by itself when that returns."""
        if os.getpid() != self._process:
            return
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()
        deadline = time.monotonic() + patience_s
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        _open.discard(self)

    def _work(self) -> None:
        """A thread: makes the next item that is within reach, until there is none."""
        while (i := self._claim()) is not None:
            item, error = None, None
            try:
                item = self._make(i)
            except BaseException as raised:
                error = raised
            with self._changed:
                if not self._closed:
                    self._items[i] = item, error
                    self._changed.notify_all()
            del item, error  # else this thread would hold the batch while it waits for the next

    def _claim(self) -> int | None:
        with self._changed:
            while not self._closed and self._next < self._stop and self._next - self._wanted >= self._depth:
                self._changed.wait()
            if self._closed or self._next >= self._stop:
                return None
            self._next += 1
            return self._next - 1


@atexit.register
def _close_all() -> None:
    """At the interpreter's end, while the engine still works."""
    for ahead in list(_open):
        ahead.close()
