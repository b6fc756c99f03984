"""Large parameters of an MPI job: each rank updates its own part of them, so that their update is not made by every rank.

A rank gets its part of a gradient's sum (reduce_scatter), updates this part of the parameter, and gets the parts of the others
(all_gather): the bytes of an all_reduce. The optimizer's arrays for these parameters are of the rank's part alone.
Rajbhandari et al. 2020, "ZeRO", stage 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
        self._shapes: dict[str, list[int]] = {}  # of all that were shared out once: whole

    def choose(self, optimizer: Any, gradients: Mapping[str, NArray]) -> None:
        """From the shapes and the optimizer alone, so that all ranks choose the same ones."""
        may_share = self.ranks.size > 1 and is_elementwise(optimizer)
        self._names = {name for name, g in gradients.items() if may_share and self._is_shared(g)}
        self._shapes |= {name: gradients[name].shape for name in gradients if name in self._names}

    def _is_shared(self, array: NArray) -> bool:
        return array.size % self.ranks.size == 0 and bytes_of(array) >= FROM_BYTES and kind_of(array.dtype) == "f"

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def update(self, optimizer: Optimizer, slots: Mapping[str, Slot], gradients: Mapping[str, NArray]) -> None:
        """A step of the optimizer; the gradients of large parameters are of this rank's part."""
        if not self._names:
            optimizer._update(slots, gradients)
            return
        parts, places = {}, dict(slots)
        for name in (name for name in gradients if name in self._names):
            owner, local, container, key = slots[name]
            parts[name] = self._own(container[key])
            places[name] = owner, local, parts, name
            if optimizer._shapes.get(name) == self._shapes[name]:
                arrays = {each: self._own(array) for each, array in optimizer._slots[name].items()}
                optimizer._replace(name, parts[name].shape, arrays)
        optimizer._update(places, gradients)
        for name, whole in self.ranks.gathered_parts(parts).items():
            _, _, container, key = slots[name]
            container[key] = whole.reshape(self._shapes[name])

    def _own(self, whole: NArray) -> NArray:
        count = whole.size // self.ranks.size
        return owl.slice(whole.reshape([whole.size]), 0, self.ranks.rank * count, count)

    def state(self, optimizer: Any) -> dict[str, Any]:
        """The optimizer's state, with whole arrays: an operation of all ranks."""
        state: dict[str, Any] = optimizer.state()
        for name, arrays in self._whole_arrays(optimizer):
            state |= {f"{name}.{each}": array for each, array in arrays.items()}
        return state

    def join(self, optimizer: Any) -> None:
        """Gives the optimizer whole arrays: an operation of all ranks."""
        for name, arrays in self._whole_arrays(optimizer):
            optimizer._replace(name, self._shapes[name], arrays)

    def _whole_arrays(self, optimizer: Any) -> Iterator[tuple[str, dict[str, NArray]]]:
        for name, shape in self._shapes.items():
            if getattr(optimizer, "_shapes", {}).get(name, shape) != shape:
                wholes = self.ranks.gathered_parts(optimizer._slots[name])
                yield name, {each: whole.reshape(shape) for each, whole in wholes.items()}
