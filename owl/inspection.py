"""Inspection of the engine: what would run, where time goes, which operation made the first NaN."""

from __future__ import annotations

import os as _os
import signal as _signal
import sys as _sys
import warnings as _warnings
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType
from typing import NamedTuple, TextIO, TypeAlias, TypeVar

from owl import _owl
from owl._owl import Error, NArray, wait_for_all

Explained: TypeAlias = "NArray | Iterable[NArray] | Callable[[], NArray | Iterable[NArray]] | None"
_Shown = TypeVar("_Shown")


class PlannedTask(NamedTuple):
    """One unit of work that a device would run."""

    #: ``"fused"`` (elementwise operations in one pass over memory), ``"kernel"`` (anything else, with the elementwise
    #: operations that run on its operand or result while that is in the cache), ``"copy"``, or ``"strips"`` (several of
    #: these over images, which run one after another for some images at a time)
    kind: str
    device: int  #: id of the device that computes it
    shape: list[int]  #: of its result
    channels_last: bool  #: its results are images with the channels of a pixel adjacent in memory, between convolutions
    operations: list[str]  #: in the order in which they run
    places: list[str]  #: ``file:line`` of each, empty where unknown
    bytes_read: int  #: of its operands
    bytes_written: int  #: of its results
    outputs: int  #: how many values it writes to memory
    alike: int  #: how many equal programs, over arrays of their own, run as this task
    after: list[int]  #: the tasks of the plan whose results it reads
    reuses: int | None  #: the task of the plan whose memory its result takes over
    cost_us: float  #: estimated microseconds on one thread


class Plan:
    """The tasks that would run, in a possible order; ``print`` shows them as a table."""

    def __init__(self, tasks: list[PlannedTask], table: str) -> None:
        self.tasks = tasks  #: in a possible order
        self._table = table

    def __str__(self) -> str:
        return self._table

    def __repr__(self) -> str:
        return f"<owl.Plan of {len(self.tasks)} tasks>\n{self._table}"

    def __len__(self) -> int:
        return len(self.tasks)


def _recorded(function: str, x: Explained) -> list[NArray] | None:
    if callable(x):
        x = x()
    if x is None or isinstance(x, NArray):
        return None if x is None else [x]
    wanted = f"{function}: x must be an NArray, a list of NArrays, or a function that returns one of these, not "
    if hasattr(x, "__array__") or isinstance(x, (str, bytes)) or not isinstance(x, Iterable):
        hint = "; convert it with owl.from_numpy, which reverses the axes" if hasattr(x, "__array__") else ""
        raise TypeError(wanted + type(x).__name__ + hint)
    values = list(x)
    for value in values:
        if not isinstance(value, NArray):
            raise TypeError(f"{wanted}{type(x).__name__} with {type(value).__name__}")
    return values


def _shown(function: str, show: Callable[[list[NArray] | None], _Shown], x: Explained) -> _Shown:
    if not callable(x):
        return show(_recorded(function, x))
    hold = _owl.HoldWindow()
    try:
        return show(_recorded(function, x))  # unnamed values: they must be dropped before the window opens
    finally:
        hold.release()


def explain(x: Explained = None) -> Plan:
    """The tasks that would compute ``x``: the operations fused in each, buffers taken over, copies. Runs nothing.

    ``x`` is an NArray, several, or None for everything recorded so far. A value that is computed, or being computed,
    needs no task; owl starts tasks without being asked, so this soon holds for every array. To see how a value is
    computed, pass a function without arguments: it is called while no task may start, and its result is explained.

    >>> a = owl.randn([100, 50])
    >>> owl.wait_for_all()
    >>> plan = owl.explain(lambda: owl.elewise.relu(a * 2.0 + 1.0).sum(0))
    >>> [task.operations for task in plan.tasks]
    [['mult', 'add', 'relu', 'sum']]
    """
    tasks, table = _shown("explain", _owl.explain, x)
    return Plan([PlannedTask(**task) for task in tasks], table)


def draw(x: Explained) -> str:
    """The recorded, not yet planned graph of ``x`` in Graphviz's language (``dot -Tsvg``).

    A node shows its operation, type, shape and parameters. Operations that would run as one task share a frame, values in
    memory are dashed, values with a handle have a thick border. ``x`` as in :func:`explain`, a function included.
    """
    return _shown("draw", lambda values: _owl.draw(values or []), x)


def dot(x: Explained, *others: object) -> str:
    """The old name of :func:`draw`; the next release removes it. TypeError: several arguments, as of a product."""
    if others:
        raise TypeError("owl.dot draws a graph, and is called owl.draw now; for a matrix product use W * A or W @ A")
    _warnings.warn("owl.dot is called owl.draw now", DeprecationWarning, stacklevel=2)
    return draw(x)


class profile:
    """``with owl.profile("trace.json"):`` records what every thread does and writes it when the block ends.

    The file opens in https://ui.perfetto.dev and in chrome://tracing: a lane for each worker and each recording thread,
    a bar for each task (or chunk of one) with its shape and the script's line. The end of the block waits for the
    operations recorded in it. ``OWL_PROFILE=trace.json`` does the same for a whole run. owl.Error: the file cannot be
    written, or another profile is being recorded.
    """

    def __init__(self, path: str | bytes | _os.PathLike[str] | _os.PathLike[bytes]) -> None:
        self.path = _os.fsdecode(path)

    def __enter__(self) -> profile:
        _owl.start_profile(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                wait_for_all()
        except Error:
            pass  # a failed value, perhaps an older one: raised where the script waits for it
        finally:
            _owl.stop_profile()


class _Switch:
    """A setting that a call changes permanently, and a ``with`` block until its end."""

    _read: Callable[[], bool]
    _write: Callable[[bool], None]

    def __init__(self, on: bool = True) -> None:
        self._before = type(self)._read()
        type(self)._write(bool(on))

    def __enter__(self) -> _Switch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        type(self)._write(self._before)


class trace_nan(_Switch):
    """Watches every operation recorded from now on: the first that makes a NaN or infinity from finite operands
    becomes an ``owl.NaNError`` where its value, or one computed from it, is first waited for.

    ``owl.trace_nan()`` switches it on, ``owl.trace_nan(False)`` off, for all threads; ``with owl.trace_nan():``
    switches it on for a block. The error names the operation, the element, its operands and the script's line. Values
    do not change.
    """

    _read, _write = staticmethod(_owl.tracing_nan), staticmethod(_owl.trace_nan)


class eager(_Switch):
    """From now on every operation runs alone, before the next is recorded: an error is raised at its own line, and a
    debugger sees every value. Values are the same as in lazy mode.

    ``owl.eager()`` switches it on, ``owl.eager(False)`` off, for all threads; ``with owl.eager():`` switches it on for
    a block; ``OWL_EAGER=1`` for a whole run.
    """

    _read, _write = staticmethod(_owl.is_eager), staticmethod(_owl.eager)


def dump(file: TextIO | None = None) -> None:
    """Prints the engine's state: recorded operations, tasks that run, tasks that wait and for what, memory in use.

    ``file`` is standard error by default. For scripts that seem to hang; see also :func:`dump_on_signal`.
    """
    print(_owl.describe_engine(), end="", file=file or _sys.stderr, flush=True)


def dump_on_signal(number: int = _signal.SIGUSR1) -> None:
    """Makes this signal print :func:`dump`, even while the script waits in owl (``kill -USR1 PID``)."""

    def handler(number: int, frame: FrameType | None) -> None:
        dump()

    _signal.signal(number, handler)
