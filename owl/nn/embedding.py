"""Embedding."""

from __future__ import annotations

from collections.abc import Callable

from owl._arguments import hinted
from owl._owl import DTypeError, NArray, take
from owl._types import kind_of
from owl.nn.init import normal
from owl.nn.module import Module, misfit, parameter


class Embedding(Module):
    """A column of ``weight`` ``[dim, n]`` for each index: indices ``[N]`` to ``[dim, N]``, ``[T, N]`` to ``[dim, T, N]``.

    ``weight`` is standard normal, as PyTorch's, unless ``init`` gives it, a function of the shape. Negative indices count
    from the end. An index out of range is an IndexError where the result is waited for. DTypeError: indices that are no
    integers.
    """

    weight: NArray

    @hinted
    def __init__(self, n: int, dim: int, init: Callable[[list[int]], NArray] = normal) -> None:
        self.weight = parameter([dim, n], init)

    def forward(self, indices: NArray) -> NArray:
        if not isinstance(indices, NArray):
            raise misfit(self, "", indices)
        if kind_of(indices.dtype) not in "iu":
            raise DTypeError(f"{self!r} takes integers, got {indices.dtype}")
        return take(self.weight, indices, 1)

    def _arguments(self) -> str:
        dim, n = self.weight.shape
        return f"{n}, {dim}"
