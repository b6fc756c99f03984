"""Large parameters of an MPI job: each rank updates its own part of them, so that their update is not made by every rank.

A rank gets its part of a gradient's sum (reduce_scatter), updates this part of the parameter, and gets the parts of the others
(all_gather): the bytes of an all_reduce. The optimizer's arrays for these parameters are of the rank's part alone.
Rajbhandari et al. 2020, "ZeRO", stage 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import owl
from owl._owl import NArray
from owl._types import kind_of
from owl.nn.module import Slot
from owl.optim.optimizer import Optimizer, is_elementwise
from owl.train.ranks import Ranks, bytes_of

FROM_BYTES = 256 << 10  # smaller parameters are updated by every rank, without a second operation


class OwnParts:
    """The names of the parameters that the latest step shares out."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._names: set[str] = set()

    def choose(self, optimizer: Any, gradients: Mapping[str, NArray]) -> None:
        """From the shapes and the optimizer alone, so that all ranks choose the same ones."""
        may_share = self.ranks.size > 1 and is_elementwise(optimizer)
        self._names = {name for name, g in gradients.items() if may_share and self._is_shared(g)}

    def _is_shared(self, array: NArray) -> bool:
        return array.size % self.ranks.size == 0 and bytes_of(array) >= FROM_BYTES and kind_of(array.dtype) == "f"

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def update(self, optimizer: Optimizer, slots: Mapping[str, Slot], gradients: Mapping[str, NArray]) -> None:
        """A step of the optimizer; the gradients of these parameters are of this rank's part, flat."""
        optimizer._join(besides=self._names)
        if not self._names:
            optimizer._update(slots, gradients)
            return
        parts, shapes, places = {}, {}, dict(slots)
        for name in (name for name in gradients if name in self._names):
            owner, local, container, key = slots[name]
            parts[name], shapes[name] = self._own(container[key]), container[key].shape
            places[name] = owner, local, parts, name
            self._divide(optimizer, name, container[key])
        optimizer._update(places, gradients)
        for name, whole in self.ranks.gathered_parts(parts).items():
            _, _, container, key = slots[name]
            container[key] = whole.reshape(shapes[name])

    def _divide(self, optimizer: Optimizer, name: str, x: NArray) -> None:
        """Has the optimizer keep this rank's part of the parameter's arrays."""
        known = optimizer._wholes.get(name) or optimizer._shapes.get(name)
        if known is not None and known != x.shape:
            optimizer._refuse_shape(name, known, x)
        if name not in optimizer._wholes and name in optimizer._slots:
            optimizer._slots[name] = {each: self._own(array) for each, array in optimizer._slots[name].items()}
            optimizer._shapes[name] = [x.size // self.ranks.size]
        optimizer._wholes[name] = x.shape

    def _own(self, whole: NArray) -> NArray:
        count = whole.size // self.ranks.size
        return owl.slice(whole.reshape([whole.size]), 0, self.ranks.rank * count, count)
