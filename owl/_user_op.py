"""User-defined operations: owl.op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from owl import _owl
from owl._owl import DTypeError, NArray, ShapeError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


_TYPES = ("bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64")
_FLOATS = _TYPES[4:]


def _larger(dtypes: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
    """The last of _TYPES among these; of the two halves float32."""
    names = {str(dtype) for dtype in dtypes}
    if {"float16", "bfloat16"} <= names and not names & {"float32", "float64"}:
        return np.dtype("float32")
    return max(dtypes, key=lambda dtype: _TYPES.index(str(dtype)))


def _broadcast(shapes: Sequence[list[int]]) -> list[int] | None:
    """The broadcast shape of the operands, aligned at the first axis; None if they do not broadcast."""
    result = [1] * max(len(shape) for shape in shapes)
    for shape in shapes:
        for axis, length in enumerate(shape):
            if length != 1 and result[axis] not in (1, length):
                return None
            result[axis] = length if length != 1 else result[axis]
    return result


class _Hinting(type):
    """Makes the error for ``owl.op.relu`` name the function's module."""

    def __getattr__(cls, name: str) -> Any:
        from owl import elewise

        where = f"; the function is owl.{name}" if name in elewise.__all__ else ""
        raise AttributeError(f"owl.op makes an operation of your own, it has no attribute {name!r}{where}")


class op(metaclass=_Hinting):
    """An operation of your own, from a function over NumPy arrays.

    ``f = owl.op(forward)`` makes it; ``y = f(x1, x2)`` records it, like any other operation: without waiting and
    without calling ``forward``. When the operands are computed, a worker thread of the device calls
    ``forward(*operands)``. The operands are NumPy arrays with the axes of ``to_numpy()`` (owl's reversed), read-only
    and not copied; ``forward`` returns the result as a NumPy array, which owl copies.

    ``shape`` is the result's shape in owl's order of axes: a function of the operands' shapes (lists), or one list. If
    it is left out, the operands broadcast. ``dtype`` is the result's type: a function of the operands' dtypes, or one
    dtype; if it is left out, the type to which owl's operations promote the operands'. Errors and profiles show
    ``name``, by default that of the function.

    An exception in ``forward`` is raised as owl.Error where the script waits for the value, or for one computed from
    it; it names the line that recorded the operation and has the exception as its cause. A result whose shape or type
    differs from the announced one raises a ShapeError or DTypeError there.

    ``backward(err, y, *operands)``, if given, gets the error at the result, the result and the operands, as NumPy
    arrays. It returns the error at the operand or, if there are several operands, a tuple with one for each; None
    stands for zeros. ``f.back(err, y, *operands)`` records it as an operation.

    >>> softsign = owl.op(lambda x: x / (1 + abs(x)), lambda err, y, x: err / (1 + abs(x)) ** 2, name="softsign")
    >>> x = owl.randn([3, 4])
    >>> y = softsign(x)
    >>> x_err = softsign.back(owl.ones([3, 4]), y, x)
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        backward: Callable[..., Any] | None = None,
        *,
        shape: Callable[..., Sequence[int]] | Sequence[int] | None = None,
        dtype: Callable[..., DTypeLike] | DTypeLike | None = None,
        name: str | None = None,
    ) -> None:
        for argument, function in (("forward", forward), ("backward", backward)):
            if not callable(function) and (argument == "forward" or function is not None):
                raise TypeError(f"owl.op: {argument} must be a function, not {type(function).__name__}")
        self.forward = forward
        self.backward = backward
        self.name = name if name is not None else getattr(forward, "__name__", type(forward).__name__)
        self._shape = shape
        rule: Any = dtype
        self._dtype = rule
        self._is_rule = callable(dtype) and not isinstance(dtype, type)  # classes such as np.float32 are types
        if not self._is_rule and self._dtype is not None:
            try:
                _owl.zeros([1], self._dtype)
            except DTypeError as error:
                raise DTypeError(f"{self.name}: {error}") from None

    def __call__(self, *operands: NArray) -> NArray:
        """Records forward(*operands) and returns an NArray of the announced shape and type. Never waits."""
        self._check(operands)
        backward = None
        if self.backward is not None and operands:
            backward = _checked(self.name + ".back", self.backward, _error_types(operands))
        return _owl.record_function(self.name, self.forward, operands, self._result_shape(operands),
                                    self._result_dtype(operands), backward)

    def back(self, err: NArray, y: NArray, *operands: NArray) -> NArray | tuple[NArray, ...]:
        """Records backward(err, y, *operands): the errors at the operands, from the error at the result y.

        Returns one NArray if there is one operand, else a tuple with one for each. Each has its operand's shape; its
        type is the operand's, or float32 if that is not a float type. ShapeError: err and y have different shapes.
        """
        if self.backward is None:
            raise TypeError(f"{self.name}: the operation was made without a backward function")
        self._check((err, y, *operands))
        if not operands:
            raise TypeError(f"{self.name}: back() needs the operands that the result was computed from")
        if err.shape != y.shape:
            raise ShapeError(f"{self.name}.back: the error has shape {err.shape}, the result {y.shape}; "
                             "they must be the same")
        types = _error_types(operands)
        name = self.name + ".back"
        errors = _owl.record_functions(name, _checked(name, self.backward, types), (err, y, *operands),
                                       [(x.shape, dtype) for x, dtype in zip(operands, types)])
        return errors[0] if len(errors) == 1 else tuple(errors)

    def __repr__(self) -> str:
        return f"owl.op({self.name})"

    def _check(self, operands: Sequence[NArray]) -> None:
        for operand in operands:
            if not isinstance(operand, NArray):
                raise TypeError(f"{self.name}: an operand must be an owl.NArray, not {type(operand).__name__}; convert "
                                "NumPy arrays with owl.from_numpy, and bind other arguments in the function")

    def _result_shape(self, operands: Sequence[NArray]) -> Sequence[int]:
        shapes = [x.shape for x in operands]
        if callable(self._shape):
            return self._shape(*shapes)
        if self._shape is not None:
            return self._shape
        if not operands:
            raise ShapeError(f"{self.name}: an operation without operands needs shape=")
        shape = _broadcast(shapes)
        if shape is None:
            raise ShapeError(f"{self.name} of {' and '.join(map(str, shapes))}: the shapes do not broadcast (axes are "
                             "aligned at the first); pass shape= to owl.op")
        return shape

    def _result_dtype(self, operands: Sequence[NArray]) -> Any:
        if self._is_rule:
            return self._dtype(*(x.dtype for x in operands))
        if self._dtype is not None:
            return self._dtype
        if not operands:
            raise DTypeError(f"{self.name}: an operation without operands needs dtype=")
        return _larger([x.dtype for x in operands])


def _error_types(operands: Sequence[NArray]) -> list[np.dtype[Any]]:
    return [x.dtype if str(x.dtype) in _FLOATS else np.dtype("float32") for x in operands]


def _checked(name: str, backward: Callable[..., Any], types: Sequence[np.dtype[Any]]) -> Callable[..., Any]:
    """Wraps backward: the result is one array for each operand, of its shape and of these types."""

    def run(err: Any, y: Any, *operands: Any) -> Any:
        given = backward(err, y, *operands)
        errors = given if isinstance(given, (tuple, list)) else (given,)
        if len(errors) != len(operands):
            raise ShapeError(f"{name}: backward returned {len(errors)} errors for {len(operands)} operands")
        whole = []
        for i, (error, x, dtype) in enumerate(zip(errors, operands, types)):
            if error is not None and np.shape(error) != x.shape:
                raise ShapeError(f"{name}: backward returned an error of shape {np.shape(error)} for operand {i}, "
                                 f"expected {x.shape}")
            whole.append(np.zeros(x.shape, dtype) if error is None else np.asarray(error).astype(dtype, copy=False))
        return whole if len(whole) > 1 else whole[0]

    return run
