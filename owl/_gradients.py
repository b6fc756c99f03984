"""Gradients: owl.Tape, owl.grad, owl.value_and_grad, owl.checkpoint."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal

from owl import _owl
from owl._owl import DTypeError, NArray


class Tape:
    """Notes what this thread records in a ``with`` block, so that :meth:`gradient` can walk back over it.

    >>> x, w, b = owl.randn([784, 256]), owl.randn([10, 784], 0.0, 0.01), owl.zeros([10, 1])
    >>> with owl.Tape() as tape:
    ...     loss = owl.square(owl.tanh(w * x + b)).mean()
    >>> gw, gb = tape.gradient(loss, [w, b])
    >>> w -= 0.1 * gw     # outside the block: leaves no history

    Python's ``if``, ``for`` and calls are the control flow. Only what a gradient will read is kept, and each piece until it
    has been read. Tapes nest: an operation is noted on every open tape of its thread, so that a gradient taken inside
    an outer tape has gradients itself. A tape is entered once, by one thread.

    ``persistent=True`` lets ``gradient`` be called several times; all that may be read is kept as long as the tape is.
    """

    def __init__(self, persistent: bool = False) -> None:
        self._state = _owl.TapeState(bool(persistent))

    def __enter__(self) -> Tape:
        self._state.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state.close()

    def gradient(
        self, y: NArray, sources: Any, seed: NArray | None = None, unused: Literal["error", "zeros"] = "error"
    ) -> Any:
        """The gradients of ``y``, as arrays that are recorded like any others: nothing waits.

        ``sources`` is an NArray, or a list, tuple or dict of them, nested too, or an ``owl.nn.Module``: its parameters that
        are not frozen, by name; any object with ``parameters()``, a dict, will do.
        The result has the same structure, with a gradient of each array's shape and type. ``y`` has one element; or
        ``seed``, of the shape of ``y``, is what flows into it. ``unused="zeros"`` gives zeros for a source that ``y`` does
        not depend on, which otherwise is an error. Inside or after the block, on any thread; uses the tape up, unless it
        is persistent.

        Error: the tape is used up, or nothing was noted on it; ``y`` does not depend on a source; an operation of your own
        has no backward function. DTypeError: ``y`` or a source is no array, or of integers or bools. ShapeError: ``y`` has
        several elements and no seed, or the seed another shape. A mistaken call does not use the tape up.
        """
        if unused not in ("error", "zeros"):
            raise ValueError(f'gradient: unused must be "error" or "zeros", not {unused!r}')
        _require_array(y, "gradient: y")
        if seed is not None:
            _require_array(seed, "gradient: the seed")
        if type(sources) is not dict or any(type(each) is not NArray for each in sources.values()):
            sources = _without_modules(sources)
            named = _arrays_of(sources)
            names = [f"source {path}" if path else "the source" for path, _ in named]
            return _rebuilt(sources, iter(self._state.gradient(y, [array for _, array in named], names, seed, unused == "zeros")))
        names = [f"source {key!r}" for key in sources]
        return dict(zip(sources, self._state.gradient(y, [*sources.values()], names, seed, unused == "zeros")))


def value_and_grad(fn: Callable[..., Any], wrt: int | Sequence[int] = 0) -> Callable[..., Any]:
    """A function that calls ``fn`` and gives what it returned and the gradients: ``(value, gradients)``.

    ``fn`` returns the loss, an array of one element, or a tuple whose first element is the loss. ``wrt`` says which
    positional arguments the gradients are of: one, or a tuple, which gives a tuple. Each is an NArray, or a list, tuple or
    dict of them, nested too, or a module with ``parameters()``; its gradients have the same structure. Keyword arguments
    go to ``fn``.

    >>> def loss(parameters, x):
    ...     return owl.square(parameters["w"] * x).mean(), x
    >>> step = owl.value_and_grad(loss)
    >>> (value, _), gradients = step({"w": owl.randn([10, 784])}, owl.randn([784, 256]))
    """
    if not callable(fn):
        raise TypeError(f"value_and_grad: fn must be a function, not {type(fn).__name__}")
    several = not isinstance(wrt, int)
    places = [wrt] if isinstance(wrt, int) else list(wrt) if isinstance(wrt, (tuple, list)) else []
    if isinstance(wrt, bool) or not places or not all(isinstance(place, int) for place in places):
        raise TypeError(f"value_and_grad: wrt must be the number of an argument, or a tuple of them, not {wrt!r}")

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        own = list(args)
        for place in places:
            if not -len(args) <= place < len(args):
                raise ValueError(f"value_and_grad: wrt names argument {place}, but {len(args)} were given by position")
            own[place] = _copied(args[place])  # the same array in two places, or in a closure, is another one to the tape
        with Tape() as tape:
            result = fn(*own, **kwargs)
        loss = result[0] if isinstance(result, tuple) and result else result
        _require_array(loss, "value_and_grad: the loss, what the function returns (or its first element),")
        gradients = tape.gradient(loss, {place: own[place] for place in places})
        return result, tuple(gradients.values()) if several else gradients[places[0]]

    return run


def grad(fn: Callable[..., Any], wrt: int | Sequence[int] = 0) -> Callable[..., Any]:
    """A function that calls ``fn`` and gives the gradients alone: :func:`value_and_grad` without the value.

    Nested, it gives higher derivatives.

    >>> slope = owl.grad(lambda x: owl.sin(x).sum())
    >>> slope(owl.zeros([3])).tolist()
    [1.0, 1.0, 1.0]
    >>> owl.grad(lambda x: slope(x).sum())(owl.zeros([3])).tolist()
    [-0.0, -0.0, -0.0]
    """
    both = value_and_grad(fn, wrt)

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    return run


def checkpoint(fn: Callable[..., Any]) -> Callable[..., Any]:
    """``fn``, whose inner values are not kept for the backward pass: less memory for more computing.

    The backward pass records the operations of ``fn`` again when it comes to them. Python is not called again, random
    numbers are the same ones, and so are all bits, of higher derivatives too. Kept are the arrays that ``fn`` read from
    outside, and the results of what is not to happen twice: copies between devices and ``all_reduce``. Without an open
    tape it is ``fn``. A checkpoint inside another is part of that.

    >>> block = owl.checkpoint(lambda x, w: owl.relu(w * owl.tanh(w * x)))
    >>> w, x = owl.randn([64, 64]), owl.randn([64, 256])
    >>> with owl.Tape() as tape:
    ...     loss = block(block(x, w), w).mean()
    >>> tape.gradient(loss, w).shape
    [64, 64]

    TypeError: ``fn`` is no function.
    """
    if not callable(fn):
        raise TypeError(f"checkpoint: fn must be a function, not {type(fn).__name__}")

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        with _owl.CheckpointScope():
            return fn(*args, **kwargs)

    return run


def _require_array(x: Any, what: str) -> None:
    if not isinstance(x, NArray):
        raise DTypeError(f"{what} must be an NArray, not {type(x).__name__}")


def _parameters(x: Any) -> dict[str, Any] | None:
    """Of a module, those that are trained; None for anything else."""
    if isinstance(x, type):
        return None
    method = getattr(x, "trainable_parameters", None) or getattr(x, "parameters", None)
    return method() if callable(method) else None


def _without_modules(x: Any) -> Any:
    """The structure with a dict in the place of each module."""

    def leaf(part: Any) -> Any:
        parameters = None if type(part) is NArray else _parameters(part)
        return part if parameters is None else parameters

    return _mapped(x, leaf)


def _arrays_of(x: Any, path: str = "") -> list[tuple[str, NArray]]:
    """The arrays of a structure without modules in its order, each with where it is: "0['w']"."""
    found: list[tuple[str, NArray]] = []
    _add_arrays(x, path, found)
    return found


def _add_arrays(x: Any, path: str, found: list[tuple[str, NArray]]) -> None:
    if isinstance(x, NArray):
        found.append((path, x))
    elif isinstance(x, dict):
        for key, part in x.items():
            _add_arrays(part, f"{path}[{key!r}]" if path else repr(key), found)
    elif isinstance(x, (list, tuple)):
        for i, part in enumerate(x):
            _add_arrays(part, f"{path}[{i}]" if path else str(i), found)
    else:
        _require_array(x, f"gradient: source {path or 'sources'}")


def _rebuilt(x: Any, arrays: Iterator[NArray]) -> Any:
    """The structure of x with these arrays."""
    return _mapped(x, lambda _: next(arrays))


def _copied(x: Any) -> Any:
    """The structure with aliases of its arrays; a module as it is, because what it computes with are its own."""
    return _mapped(x, lambda part: _owl.alias(part) if isinstance(part, NArray) else part)


def _mapped(x: Any, leaf: Callable[[Any], Any]) -> Any:
    """The structure of x with what ``leaf`` makes of each part that is no list, tuple or dict."""
    if isinstance(x, dict):
        return {key: _mapped(part, leaf) for key, part in x.items()}
    if isinstance(x, (list, tuple)):
        parts = [_mapped(part, leaf) for part in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    return leaf(x)
