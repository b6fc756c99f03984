"""Pool: memory for minibatches that is used again, because fresh memory costs a page fault each 4 KB."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

ALIGNMENT = 64  # vector loads do not straddle cache lines


MOST = 8  # free blocks that are kept, of each size


class Pool:
    """Arrays whose memory comes back when nothing refers to them any more."""

    def __init__(self) -> None:
        self._free: dict[int, list[Any]] = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array of this shape whose elements are not set."""
        size = int(np.prod(shape)) * dtype.itemsize
        if size == 0:
            return np.empty(shape, dtype)
        free = self._free.setdefault(size, [])
        try:
            block = free.pop()
        except IndexError:
            block = _block(size)
        # Views of an array refer to the array that owns its memory, or to one whose memory is no array's, as this one's is:
        # while any of them lives, `flat` lives.
        flat = np.frombuffer(block, dtype)
        weakref.finalize(flat, _give_back, free, block).atexit = False
        return flat.reshape(shape)


def _give_back(free: list[Any], block: Any) -> None:
    if len(free) < MOST:
        free.append(block)


def _block(size: int) -> Any:
    """Aligned memory of this size, as an object that is no array."""
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].data
