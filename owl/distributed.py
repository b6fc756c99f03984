"""MPI jobs: the same script in several processes, its ranks, started by ``mpirun -n N``.

>>> import owl
>>> from owl import distributed
>>> distributed.init()
>>> total = distributed.all_reduce(owl.full([3], 1.0 + distributed.rank()))   # recorded like any operation: nothing waits
>>> total.tolist()          # of one process
[1.0, 1.0, 1.0]

Every rank records the same collective operations, of the same shapes and types, in the same order. One thread of each
process carries them out in that order, beside the computing, whether or not their results are used. MPI moves the data, owl
adds it, along a binary tree over the ranks: the bits do not depend on MPI's library. Without ``mpirun`` the job is a group of
one, in which every operation gives its operands.

Before each operation the ranks compare what they are at. If they do not match, or one has failed, every rank raises an
error that says so, and the job ends.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
import traceback
from typing import Any

from owl import _mpi, _owl
from owl._gradients import _arrays_of, _rebuilt
from owl._owl import NArray

__all__ = ["all_gather", "all_reduce", "barrier", "broadcast", "fail", "init", "is_initialized", "rank", "reduce_scatter",
           "size"]  # fmt: skip

_PATIENCE = 3.0  # seconds in which the other ranks may come to where they learn of a failure, before the job is ended
_FAREWELL = 1.0  # seconds for the others to print the error that they got too
_PACKAGE = os.path.dirname(__file__) + os.sep  # where it records for a script, the script's line may differ between ranks
_group: tuple[int, int] | None = None  # rank and size, after init
_failure = ""  # why this rank's script ended


def init(warn_after: float = 10.0) -> None:
    """Joins the job that ``mpirun`` started; without a launcher, a group of one. A second call does nothing.

    MPI's library is that of the launcher, or one from PyPI (``pip install owl-engine[mpi]``); ``OWL_MPI`` names another, by its
    file or folder. A rank that waits for others longer than ``warn_after`` seconds prints a line that names them: a slow
    rank is legal. Call it on the main thread, before the first collective operation, which else does it.

    DeviceError: a launcher started several processes, but there is no MPI library, or not the one that belongs to it. Error:
    the ranks have different versions of owl.
    """
    global _group
    if _group is not None:
        return
    launcher = _mpi.launcher()
    if launcher is None:
        _group = 0, 1
        return
    _group = _mpi.start(launcher, float(warn_after))
    if _group[1] > 1:
        _watch_exceptions()
    atexit.register(_leave if _group[1] > 1 else _owl._distributed.finalize)


def is_initialized() -> bool:
    """Whether ``init`` was called."""
    return _group is not None


def rank() -> int:
    """The number of this process in the job: 0 to ``size() - 1``."""
    return _joined()[0]


def size() -> int:
    """The number of processes in the job: 1 without ``mpirun``."""
    return _joined()[1]


def all_reduce(arrays: Any, op: str = "sum") -> Any:
    """The sum of an array over all ranks, on every rank; or the largest (``"max"``) or smallest (``"min"``) elements.

    ``arrays`` is an NArray, or a list, tuple or dict of them, nested too; the result has the same structure. All arrays of
    one call are sent together. Sums are added along a binary tree over the ranks, so that the bits depend on their number
    alone. ``"sum"`` has a gradient: that of the sum of all ranks' losses.

    ValueError: another ``op``. DTypeError: a sum of bools.
    """
    if op not in ("sum", "max", "min"):
        raise ValueError(f'all_reduce: op must be "sum", "max" or "min", not {op!r}')
    return _mapped(arrays, _owl._distributed.all_reduce, op)


def reduce_scatter(arrays: Any) -> Any:
    """The sum of an array over all ranks, of which each rank has its part along the last axis: rank 0 the first.

    With :func:`all_gather`, which joins the parts, it moves the bytes of one :func:`all_reduce`, and has its bits. Structures
    as there; it has a gradient. ShapeError: the length of the last axis is no multiple of the number of ranks. DTypeError: a sum
    of bools.
    """
    return _mapped(arrays, _owl._distributed.reduce_scatter)


def all_gather(arrays: Any) -> Any:
    """The arrays of all ranks, joined along the last axis in the order of ranks. Structures and gradient as for
    :func:`all_reduce`."""
    return _mapped(arrays, _owl._distributed.all_gather)


def broadcast(arrays: Any, root: int = 0) -> Any:
    """The arrays of rank ``root``, on every rank. The others give arrays of the same shapes and types.

    The gradient of the sum of all ranks' losses is rank ``root``'s, and zero on the others.
    """
    return _mapped(arrays, _owl._distributed.broadcast, root)


def barrier() -> None:
    """Waits until every rank has come here and has computed all that it recorded before.

    An error of what this rank recorded is raised here, as by :func:`owl.wait_for_all`.
    """
    if _joined()[1] > 1:
        _owl.wait_for_all()
        _owl._distributed.barrier()[0].wait_for_eval()


def fail(error: BaseException | str) -> None:
    """Has this rank end as failed when its script ends: for scripts that catch and report their own errors.

    The other ranks then raise an error with this one's text. An exception that ends the script needs no call.
    """
    global _failure
    _failure = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else error


def _joined() -> tuple[int, int]:
    if _group is None:
        init()
    assert _group is not None
    return _group


def _mapped(arrays: Any, operation: Any, *arguments: Any) -> Any:
    _joined()
    found = _arrays_of(arrays)
    anywhere = sys._getframe(2).f_code.co_filename.startswith(_PACKAGE)
    for path, array in found:
        if not isinstance(array, NArray):
            raise TypeError(f"{path or 'arrays'} must be an owl.NArray, not {type(array).__name__}")
    operands = [array for _, array in found]
    names = ", ".join(path for path, _ in found)
    results = operation(operands, names, anywhere, *arguments) if operands else []
    return _rebuilt(arrays, iter(results if size() > 1 else operands))


# ---- the end of a rank ----------------------------------------------------------------------------------------------


def _watch_exceptions() -> None:
    """An exception that ends the script is told to the other ranks."""
    shown = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        global _failure
        frames = traceback.extract_tb(trace)
        own = [frame for frame in frames if not frame.filename.startswith(_PACKAGE)]
        place = f" ({os.path.basename(own[-1].filename)}:{own[-1].lineno})" if own else ""
        _failure = f"{kind.__name__}: {error}{place}"
        shown(kind, error, trace)

    sys.excepthook = hook


def _leave() -> None:
    """The last meeting of the ranks; a job that has failed is ended instead."""
    link = _owl._distributed
    sys.stdout.flush()
    done = False
    if not link.is_broken():
        try:
            done = link.end(_failure)[0].wait_for_eval(timeout=_PATIENCE if _failure else None) is not False
        except (_owl.Error, KeyboardInterrupt) as error:
            if not _failure:
                print(f"owl: {error}", file=sys.stderr)
    if done and not _failure:
        link.finalize()
        return
    if not (done or link.is_broken()):
        print(f"owl: rank {rank()} failed, and the others are busy: ending the job: {_failure}", file=sys.stderr)
    sys.stderr.flush()
    link.give_up()
    time.sleep(_FAREWELL)
    link.abort()

