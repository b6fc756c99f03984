"""Recurrent layers over sequences [features, T, N]: RNN, LSTM, GRU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

from owl import elewise as ele
from owl._arguments import hinted
from owl._owl import NArray, ShapeError, concat, rand, stack, zeros
from owl.nn.module import Module, misfit, parameter

State: TypeAlias = tuple[NArray, ...]  # of one layer in one direction: (h,), or (h, c)


class _Recurrent(Module):
    """What the three share. A step takes the input's share of all gates, [gates * n_hidden, N], and the state."""

    gates = 1
    states = 1

    @hinted
    def __init__(self, n_in: int | None, n_hidden: int, layers: int = 1, bidirectional: bool = False, bias: bool = True,
                 init: Callable[[list[int]], NArray] | None = None) -> None:  # fmt: skip
        name = type(self).__name__
        if n_hidden < 1 or layers < 1:
            raise ValueError(f"{name}: n_hidden and layers must be 1 or more, got {n_hidden} and {layers}")
        self.n_hidden, self.layers, self.bidirectional, self.has_bias = n_hidden, layers, bidirectional, bias
        rows, bound = self.gates * n_hidden, n_hidden**-0.5
        uniform = functools.partial(rand, low=-bound, high=bound)
        for suffix, below in self._suffixes(n_in):
            setattr(self, "weight_ih_" + suffix, parameter([below, rows], init or uniform))
            setattr(self, "weight_hh_" + suffix, parameter([n_hidden, rows], init or uniform))
            if bias:
                setattr(self, "bias_ih_" + suffix, parameter([rows], uniform))
                setattr(self, "bias_hh_" + suffix, parameter([rows], uniform))

    def _suffixes(self, n_in: int | None) -> list[tuple[str, int | None]]:
        """Of each layer and direction in PyTorch's order: how its parameters' names end, and how many inputs it has."""
        ways = ["", "_reverse"] if self.bidirectional else [""]
        above = self.n_hidden * len(ways)
        return [(f"l{i}{way}", above if i else n_in) for i in range(self.layers) for way in ways]

    def forward(self, x: NArray, state: Any = None) -> tuple[NArray, Any]:
        n_in = self.weight_ih_l0.shape[0]
        if not isinstance(x, NArray) or x.ndim != 3 or n_in not in (None, x.shape[0]) or x.shape[1] < 1:
            raise misfit(self, f"sequences [{n_in or 'features'}, T, N] of one step or more", x)
        if not isinstance(self.weight_ih_l0, NArray):
            self._size(x.shape[0])
        suffixes = self._suffixes(n_in)
        before = self._first(state, len(suffixes), x)
        after: list[State] = []
        ways = len(suffixes) // self.layers
        for layer in range(self.layers):
            results = []
            for place in range(layer * ways, (layer + 1) * ways):
                y, last = self._along(x, suffixes[place][0], before[place])
                results.append(y)
                after.append(last)
            x = results[0] if ways == 1 else concat(results, 0)
        joined = [stack([each[i] for each in after], 1) for i in range(self.states)]
        return x, joined[0] if self.states == 1 else tuple(joined)

    def _first(self, state: Any, count: int, x: NArray) -> list[State]:
        """The state of each layer and direction before the first step."""
        given = [state] if isinstance(state, NArray) else state
        shape = [self.n_hidden, count, x.shape[2]]
        if given is None:
            return [(zeros([self.n_hidden, x.shape[2]], dtype=x.dtype),) * self.states] * count
        if len(given) != self.states or any(each.shape != shape for each in given):
            raise ShapeError(f"{type(self).__name__}: the state is {['h', '(h, c)'][self.states - 1]}, each {shape}, "
                             f"got {[each.shape for each in given]}")  # fmt: skip
        return [tuple(each[:, i] for each in given) for i in range(count)]

    def _along(self, x: NArray, suffix: str, state: State) -> tuple[NArray, State]:
        """One layer in one direction over the whole sequence: its results, and the state after the last step."""
        w_ih, w_hh = (getattr(self, f"weight_{kind}_{suffix}") for kind in ("ih", "hh"))
        b_ih, b_hh = (getattr(self, f"bias_{kind}_{suffix}") if self.has_bias else None for kind in ("ih", "hh"))
        features, steps, n = x.shape
        shares = w_ih.T * x.reshape([features, steps * n])  # of all steps at once
        shares = (shares if b_ih is None else shares + b_ih).reshape([w_ih.shape[1], steps, n])
        order = range(steps - 1, -1, -1) if suffix.endswith("_reverse") else range(steps)
        results: list[Any] = [None] * steps
        for t in order:
            own = w_hh.T * state[0]
            state = self._step(shares[:, t], own if b_hh is None else own + b_hh, state)
            results[t] = state[0]
        return stack(results, 1), state

    def _step(self, share: NArray, own: NArray, state: State) -> State:
        """The next state, from the input's and the last result's share of the gates, [gates * n_hidden, N]."""
        raise NotImplementedError(f"{type(self).__name__} defines no _step(self, share, own, state)")

    def _parts(self, gates: NArray) -> list[NArray]:
        n = self.n_hidden
        return [gates[i * n : (i + 1) * n] for i in range(self.gates)]

    def _arguments(self) -> str:
        settings = {"layers": (self.layers, 1), "bidirectional": (self.bidirectional, False), "bias": (self.has_bias, True)}
        changed = [f"{name}={value}" for name, (value, default) in settings.items() if value != default]
        return ", ".join([f"{self.weight_ih_l0.shape[0]}, {self.n_hidden}", *changed])


class RNN(_Recurrent):
    """``h = tanh(weight_ih.T * x + bias_ih + weight_hh.T * h + bias_hh)`` for each step of sequences ``[n_in, T, N]``.

    ``rnn(x, h=None)`` gives ``(y, h)``: ``y`` is ``[n_hidden * directions, T, N]``, ``h``
    ``[n_hidden, layers * directions, N]``, zeros if it is not given. Parameters have PyTorch's names, ``weight_ih_l0``
    ``[n_in, n_hidden]`` and so on, and its first values, uniform within 1 / sqrt(n_hidden); ``init`` gives those of the weights,
    a function of the shape. With ``n_in=None`` the first call tells it. ShapeError: other shapes.
    """

    def _step(self, share: NArray, own: NArray, state: State) -> State:
        return (ele.tanh(share + own),)


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), as PyTorch's: shapes as of :class:`RNN`.

    ``lstm(x, (h, c)=None)`` gives ``(y, (h, c))``. The gates ``i, f, g, o`` stand one after the other in
    ``weight_ih_l0`` ``[n_in, 4 * n_hidden]``: ``c = sigmoid(f) * c + sigmoid(i) * tanh(g)``, ``h = sigmoid(o) * tanh(c)``.
    """

    gates = 4
    states = 2

    def _step(self, share: NArray, own: NArray, state: State) -> State:
        i, f, g, o = self._parts(share + own)
        c = ele.mult(ele.sigm(f), state[1]) + ele.mult(ele.sigm(i), ele.tanh(g))
        return ele.mult(ele.sigm(o), ele.tanh(c)), c


class GRU(_Recurrent):
    """Gated recurrent unit (Cho et al. 2014), as PyTorch's: shapes as of :class:`RNN`.

    The gates ``r, z, n`` stand one after the other in ``weight_ih_l0`` ``[n_in, 3 * n_hidden]``; ``r`` multiplies what
    ``n`` has from ``h``, bias included: ``h = (1 - z) * tanh(n_x + r * n_h) + z * h``.
    """

    gates = 3

    def _step(self, share: NArray, own: NArray, state: State) -> State:
        n_hidden = self.n_hidden
        gates = ele.sigm(share[: 2 * n_hidden] + own[: 2 * n_hidden])
        r, z = gates[:n_hidden], gates[n_hidden:]
        new = ele.tanh(share[2 * n_hidden :] + ele.mult(r, own[2 * n_hidden :]))
        return (new + ele.mult(z, state[0] - new),)
