"""Threads that compute the items of a sequence ahead of its reader, in bounded number."""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from owl._interrupts import delayed

_open: weakref.WeakSet[Ahead] = weakref.WeakSet()


class Ahead:
    """``make(i)`` for ``i`` from ``start`` to ``stop - 1``, at most ``depth`` items ahead of the reader.

    The reader takes the items in order. An exception of ``make`` is raised where its item is taken. In a forked child,
    which has none of the threads, and with ``depth`` 0, the reader makes its items itself.
    """

    def __init__(self, make: Callable[[int], Any], start: int, stop: int, depth: int) -> None:
        self._make, self._next, self._stop = make, start, stop
        # SimpleQueue has no lock that a fork, a signal or a collection at a bad moment could leave held.
        self._jobs: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()  # an item and the queue for it
        self._results: deque[queue.SimpleQueue[tuple[Any, BaseException | None]]] = deque()  # of the items in order
        self._closed = False
        self._process = os.getpid()
        self._threads = [
            threading.Thread(target=self._work, name="owl.data.Loader", daemon=True)
            for _ in range(min(depth, stop - start))
        ]
        _open.add(self)
        for _ in self._threads:
            self._ask_for_one()
        try:
            with delayed():
                for thread in self._threads:
                    thread.start()
        except BaseException:  # Ctrl-C, for one
            self.close(0.1)
            raise

    def take(self, i: int) -> Any:
        """Item ``i``; waits for it."""
        if not self._threads or os.getpid() != self._process:
            return self._make(i)
        item, error = self._results[0].get()
        self._results.popleft()
        self._ask_for_one()
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
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + patience_s
        for thread in self._threads:
            # One that is not alive has ended, or was not begun, or ends at the None as soon as it begins.
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        self._results.clear()
        _open.discard(self)

    def _ask_for_one(self) -> None:
        if self._next < self._stop:
            result: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
            self._results.append(result)
            self._jobs.put((self._next, result))
            self._next += 1

    def _work(self) -> None:
        """A thread: makes the items that are asked for, in their order."""
        while (job := self._jobs.get()) is not None and not self._closed:
            i, result = job
            try:
                result.put((self._make(i), None))
            except BaseException as error:
                result.put((None, error))
            del job, result  # else this thread would hold the item while it waits for the next


@atexit.register
def _close_all() -> None:
    """At the interpreter's end, while the engine still works."""
    for ahead in list(_open):
        ahead.close()
