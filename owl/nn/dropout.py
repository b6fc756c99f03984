"""Dropout."""

from __future__ import annotations

from owl import elewise as ele
from owl._arguments import hinted
from owl._owl import NArray, randb, stop_gradient
from owl.nn.module import Module


class Dropout(Module):
    """In training zeros elements with probability ``p`` and multiplies the others by ``1 / (1 - p)`` (Hinton et al. 2012).

    In evaluation mode it passes everything. A tape keeps no mask: the backward pass draws the same numbers again.
    ValueError: ``p`` is not from 0 to 1.
    """

    @hinted
    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p is the probability to drop an element, from 0 to 1, got {p}")
        self.p = p

    def forward(self, x: NArray) -> NArray:
        if not self.training or self.p == 0:
            return x
        kept = ele.mult(x, stop_gradient(randb(x.shape, 1 - self.p, dtype=x.dtype)))
        return kept if self.p == 1 else kept * (1 / (1 - self.p))

    def _arguments(self) -> str:
        return str(self.p)
