"""What a training run shows: a bar on a terminal, else a line an epoch; and Ctrl-C between two steps."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from owl.train.history import Row, described

UPDATE_S = 0.25  # between two updates of the bar's numbers


class Progress:
    """A bar by tqdm if stderr is a terminal; a line an epoch on stdout if there is no bar, or stdout goes elsewhere."""

    def __init__(self, shown: bool, epochs: int) -> None:
        self._epochs, self._bar = epochs, None
        self._next = 0.0  # when the bar's numbers are due
        on_terminal = shown and sys.stderr.isatty()
        self._has_bar = on_terminal and importlib.util.find_spec("tqdm") is not None
        self._has_lines = shown and not (self._has_bar and sys.stdout.isatty())
        if on_terminal and not self._has_bar:
            print("a progress bar needs tqdm: pip install tqdm", file=sys.stderr)

    def begin(self, epoch: int, samples: int, done: int) -> None:
        """A new epoch of so many samples, of which some are done."""
        if self._has_bar:
            import tqdm

            columns, lines = shutil.get_terminal_size()  # tqdm shows nothing on a terminal of unknown size
            self._bar = tqdm.tqdm(total=samples, initial=done, unit=" images", desc=f"epoch {epoch}/{self._epochs}",
                                  file=sys.stderr, ncols=columns, nrows=lines, mininterval=UPDATE_S)  # fmt: skip

    def step(self, samples: int, means: Any) -> None:
        """Samples that were trained on; ``means()`` gives what to show."""
        if self._bar is not None:
            self._bar.update(samples)
            now = time.monotonic()
            if now >= self._next:
                self._next = now + UPDATE_S
                self._bar.set_postfix_str(", ".join(f"{name} {value:.4g}" for name, value in means().items()))

    def end(self, row: Row) -> None:
        """The epoch's results."""
        if self._bar is not None:
            self._bar.set_postfix_str(described({name: value for name, value in row.items() if name != "images_per_s"}))
        self.close()
        if self._has_lines:
            print(f"epoch {row['epoch']}/{self._epochs}: {described(row)}", flush=True)

    def interrupted(self) -> None:
        """Says that Ctrl-C ended the training."""
        self.close()
        if self._has_bar or self._has_lines:
            print("interrupted: another fit goes on here", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the bar where it stands."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Interrupts:
    """Ctrl-C never cuts a step in two: in a block of ``with`` it waits for the block's end, unless it comes twice.

    Python drops the KeyboardInterrupt of a finalizer or a weak reference's callback; the next block raises it again.
    """

    def __init__(self) -> None:
        self._held = self._came = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Where SIGINT has Python's handler and this is the main thread; elsewhere everything stays as it is."""
        usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if not usual or threading.current_thread() is not threading.main_thread():
            yield
            return
        signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        waits = self._held and not self._came
        self._came = True
        if not waits:
            raise KeyboardInterrupt

    def __enter__(self) -> None:
        if self._came:
            raise KeyboardInterrupt
        self._held = True

    def __exit__(self, *error: object) -> None:
        self._held = False
        if self._came:
            raise KeyboardInterrupt
