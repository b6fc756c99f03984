"""First values of parameters: functions of a shape, given to a layer by ``init=``.

The last axis of a weight counts its outputs. The fan-in is how many inputs an output has, the product of the other
axes; the fan-out, how many outputs an input has (the last axis times the places of a convolution's kernel).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from owl._owl import NArray, ShapeError, full, rand, randn
from owl._user_op import op

__all__ = ["constant", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "lecun_normal", "normal",
           "orthogonal", "uniform"]  # fmt: skip


def glorot_uniform(shape: Sequence[int]) -> NArray:
    """Uniform within +-sqrt(6 / (fan-in + fan-out)) (Glorot and Bengio 2010). ShapeError: fewer than two axes."""
    return _within(shape, math.sqrt(6 / sum(_fans("glorot_uniform", shape))))


def glorot_normal(shape: Sequence[int]) -> NArray:
    """Normal, of variance 2 / (fan-in + fan-out) (Glorot and Bengio 2010). ShapeError: fewer than two axes."""
    return randn(list(shape), 0.0, math.sqrt(2 / sum(_fans("glorot_normal", shape))))


def he_uniform(shape: Sequence[int]) -> NArray:
    """Uniform within +-sqrt(6 / fan-in) (He et al. 2015). ShapeError: fewer than two axes."""
    return _within(shape, math.sqrt(6 / _fans("he_uniform", shape)[0]))


def he_normal(shape: Sequence[int]) -> NArray:
    """Normal, of variance 2 / fan-in (He et al. 2015). ShapeError: fewer than two axes."""
    return randn(list(shape), 0.0, math.sqrt(2 / _fans("he_normal", shape)[0]))


def lecun_normal(shape: Sequence[int]) -> NArray:
    """Normal, of variance 1 / fan-in (LeCun et al. 1998). ShapeError: fewer than two axes."""
    return randn(list(shape), 0.0, math.sqrt(1 / _fans("lecun_normal", shape)[0]))


def orthogonal(shape: Sequence[int], gain: float = 1.0) -> NArray:
    """``gain`` times a matrix with orthonormal rows or columns, the fewer of the two (Saxe et al. 2013).

    The matrix has the last axis of the shape as one of its sides and the other axes as the other. It is computed by NumPy
    as an operation like others: nothing waits. ShapeError: fewer than two axes.
    """
    _fans("orthogonal", shape)
    return _orthonormal(randn(list(shape))) * float(gain)


def normal(shape: Sequence[int], mu: float = 0.0, sigma: float = 1.0) -> NArray:
    """Normal, with this mean and standard deviation."""
    return randn(list(shape), mu, sigma)


def uniform(shape: Sequence[int], low: float = 0.0, high: float = 1.0) -> NArray:
    """Uniform from ``low`` to ``high``."""
    return rand(list(shape), low, high)


def constant(shape: Sequence[int], value: float = 0.0) -> NArray:
    """The same number everywhere."""
    return full(list(shape), value)


def _within(shape: Sequence[int], bound: float) -> NArray:
    return rand(list(shape), -bound, bound)


def _fans(name: str, shape: Sequence[int]) -> tuple[int, int]:
    """(fan-in, fan-out) of a weight, at least 1."""
    if len(shape) < 2:
        raise ShapeError(f"{name}: the fans of a weight need two axes or more, [inputs, outputs], got {list(shape)}")
    places = math.prod(shape[:-2])
    return max(1, places * shape[-2]), max(1, places * shape[-1])


def _of_orthonormal_rows(a: Any) -> Any:
    """Of normal numbers with axes reversed, so that the first counts outputs; the signs make it uniform over rotations."""
    matrix = a.reshape(a.shape[0], -1).astype(np.float64)
    q, r = np.linalg.qr(matrix.T if matrix.shape[0] < matrix.shape[1] else matrix)
    q *= np.where(np.diag(r) < 0, -1.0, 1.0)
    return np.ascontiguousarray(q.T if matrix.shape[0] < matrix.shape[1] else q).reshape(a.shape).astype(a.dtype)


_orthonormal = op(_of_orthonormal_rows, name="orthonormal")
