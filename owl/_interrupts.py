"""Ctrl-C at a moment at which it does no harm."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def delayed() -> Iterator[None]:
    """In the main thread: a SIGINT of the block is handled behind it. For short blocks that must not be cut in two, such as
    the start of a thread: KeyboardInterrupt within ``Thread.start`` may leave a thread that never begins, or never ends."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda *signal_and_frame: came.append(signal_and_frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            handler(*came[-1])
