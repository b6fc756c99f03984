"""Linear, Flatten, Sequential."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from owl._arguments import hinted
from owl._owl import NArray, zeros
from owl.nn.init import he_normal
from owl.nn.module import Module, misfit, parameter


class Linear(Module):
    """``weight.T * x + bias``: from ``[n_in, ...]`` to ``[n_out, ...]``, usually a minibatch ``[n_in, N]``.

    ``weight`` is ``[n_in, n_out]``, He normal unless ``init`` gives it, a function of the shape; ``bias`` ``[n_out]``,
    zeros. With ``n_in=None`` the first call tells it. ShapeError: the first axis of ``x`` is not ``n_in``.
    """

    weight: NArray
    bias: NArray | None

    @hinted
    def __init__(
        self, n_in: int | None, n_out: int, bias: bool = True, init: Callable[[list[int]], NArray] = he_normal
    ) -> None:
        self.n_out = n_out
        self.weight = parameter([n_in, n_out], init)
        self.bias = zeros([n_out]) if bias else None

    def forward(self, x: NArray) -> NArray:
        if type(x) is not NArray:
            raise misfit(self, "", x)
        shape, weight, bias = x.shape, self.weight, self.bias
        if type(weight) is not NArray:
            self._size(shape[0])
            weight = self.weight
        if shape[0] != weight.shape[0]:
            raise misfit(self, f"arrays of shape [{weight.shape[0]}, ...]", x)
        if len(shape) != 2:
            return self.forward(x.reshape([shape[0], -1])).reshape([self.n_out, *shape[1:]])
        return weight.T * x if bias is None else weight.T * x + bias

    def _arguments(self) -> str:
        return f"{self.weight.shape[0]}, {self.n_out}" + ("" if self.bias is not None else ", bias=False")


class Flatten(Module):
    """All axes but the last as one: ``[W, H, C, N]`` to ``[W * H * C, N]``."""

    def forward(self, x: NArray) -> NArray:
        if not isinstance(x, NArray):
            raise misfit(self, "", x)
        *lengths, count = x.shape
        n = 1
        for length in lengths:
            n *= length
        return x.reshape([n, count])


class Sequential(Module):
    """Modules, or functions of one array, one after the other. Its parts are named ``"0"``, ``"1"`` and so on.

    >>> net = owl.nn.Sequential(owl.nn.Linear(4, 3), owl.nn.ReLU(), owl.nn.Linear(3, 2))
    >>> list(net.parameters())
    ['0.weight', '0.bias', '2.weight', '2.bias']
    >>> len(net), net[0]
    (3, Linear(4, 3))
    """

    def __init__(self, *modules: Callable[..., Any]) -> None:
        self._length = 0
        for module in modules:
            self.append(module)

    def append(self, module: Callable[..., Any]) -> Sequential:
        """Adds a module to the end; returns the whole. TypeError: it cannot be called."""
        self._set(self._length, module)
        self._length += 1
        return self

    def _set(self, i: int, module: Any) -> None:
        if not callable(module) or isinstance(module, type):
            listed = isinstance(module, (list, tuple, dict))
            hint = ", without a list: Sequential(*layers)" if listed and not self._length else ""
            raise TypeError(f"Sequential takes modules or functions{hint}; number {i} is {module!r}")
        setattr(self, str(i), module)

    def forward(self, x: Any) -> Any:
        parts = vars(self)
        for i in range(self._length):
            x = parts[str(i)](x)
        return x

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        return (vars(self)[str(i)] for i in range(self._length))

    def __getitem__(self, i: int | slice) -> Any:
        """A part by its number; of a slice, a Sequential of these parts, which both then have."""
        return Sequential(*[*self][i]) if isinstance(i, slice) else vars(self)[str(self._place(i))]

    def __setitem__(self, i: int, module: Callable[..., Any]) -> None:
        self._set(self._place(i), module)

    def _place(self, i: int) -> int:
        if not -self._length <= i < self._length:
            raise IndexError(f"Sequential has {self._length} parts, no number {i}")
        return i % self._length
