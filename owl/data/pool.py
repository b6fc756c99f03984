"""Pool: memory for minibatches that is used again, because fresh memory costs a page fault each 4 KB."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

ALIGNMENT = 64  # vector loads do not straddle cache lines


MOST = 8  # blocks of a pool; further arrays are NumPy's own


class Pool:
    """Arrays whose memory is used again when nothing refers to them any more."""

    def __init__(self) -> None:
        self._free: dict[int, list[Any]] = {}  # blocks by their size
        self._lent: dict[int, tuple[weakref.ref[Array], int, Any]] = {}  # by the id of the reference: also size and block
        # An array may die at any place, in a pending call of the interpreter too, where Python 3.11 hangs in Python code that a
        # profiler traces: the callback is a function in C.
        self._dead: deque[weakref.ref[Array]] = deque()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array of this shape whose elements are not set."""
        size = int(np.prod(shape)) * dtype.itemsize
        self._collect()
        if size == 0 or len(self._lent) >= MOST:
            return np.empty(shape, dtype)
        try:
            block = self._free[size].pop()
        except (KeyError, IndexError):
            block = _block(size)
        # Views of an array refer to the array that owns its memory, or to one whose memory is no array's, as this one's is:
        # while any of them lives, `flat` lives.
        flat = np.frombuffer(block, dtype)
        reference = weakref.ref(flat, self._dead.append)
        self._lent[id(reference)] = reference, size, block
        return flat.reshape(shape)

    def _collect(self) -> None:
        """Takes back the blocks of arrays that are gone."""
        while self._dead:
            try:
                reference = self._dead.popleft()
            except IndexError:  # another thread took it
                return
            _, size, block = self._lent.pop(id(reference))
            free = self._free.setdefault(size, [])
            if len(free) < MOST:
                free.append(block)


def _block(size: int) -> Any:
    """Aligned memory of this size, as an object that is no array."""
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].data
