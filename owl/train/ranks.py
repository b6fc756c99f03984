"""The ranks of an MPI job in a Trainer: rank 0's state at the start, sums of gradients, and the numbers of evaluations."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import numpy as np

import owl
from owl._owl import Error, NArray
from owl._types import kind_of

# Bytes of gradients that are sent together. The first are few, to begin early; so are the last, because nothing is left to
# compute beside them: they go with the loss, and fit into the message that the ranks exchange before any data.
FIRST_BUCKET, BUCKET, LAST_BUCKET = 1 << 20, 16 << 20, 4096

Numbers = dict[str, tuple[float, float]]


class Ranks:
    """This process among the ranks of a job; alone unless ``distributed`` is true and mpirun started several."""

    def __init__(self, distributed: bool) -> None:
        self.rank, self.size = 0, 1
        if distributed:
            from owl import distributed as job

            job.init()
            self.rank, self.size = job.rank(), job.size()

    @property
    def writes(self) -> bool:
        """Whether this process writes files and shows progress: rank 0."""
        return self.rank == 0

    def start(self, model: Any) -> None:
        """Rank 0's parameters, buffers and random numbers, on every rank."""
        if self.size == 1:
            return
        from owl import distributed as job

        seed, drawn = owl.random_state()
        state = job.broadcast(owl.from_numpy(np.array([seed, drawn], np.uint64).view(np.int64)))
        owl.set_random_state([int(each) for each in state.to_numpy().view(np.uint64)])
        try:
            arrays = dict(model.state())
        except Error:  # a size that the first call will tell: it draws the same numbers on every rank
            return
        first: dict[int, str] = {}  # an array may begin under several names
        for name, array in arrays.items():
            first.setdefault(id(array), name)
        sent = job.broadcast({name: arrays[name] for name in first.values()})
        model.load_state({name: sent[first[id(array)]] for name, array in arrays.items()})

    def number(self, value: int) -> int:
        """Rank 0's."""
        if self.size == 1:
            return value
        from owl import distributed as job

        return int(job.broadcast(owl.from_numpy(np.array([value], np.int64))))

    def require_same(self, what: str, values: dict[str, int]) -> None:
        """ValueError, on every rank, if the ranks have other numbers."""
        if self.size == 1:
            return
        from owl import distributed as job

        table = job.all_gather(owl.from_numpy(np.array([list(values.values())], np.int64))).to_numpy()
        for column, name in enumerate(values):
            by_rank = table[:, column].tolist()
            if len(set(by_rank)) > 1:
                each = ", ".join(f"{value} on rank {rank}" for rank, value in enumerate(by_rank))
                raise ValueError(f"{what}: the ranks differ in {name}: {each}")

    def added(self, values: dict[str, tuple[Any, Any]], gradients: dict[str, NArray], buffers: dict[str, NArray], shared: Container[str]) -> tuple[dict[str, tuple[Any, Any]], dict[str, NArray], dict[str, NArray]]:  # fmt: skip
        """The sums over the ranks, along the tree over the shards. Gradients go in buckets, the last parameters' first.

        Of the gradients in ``shared``, each rank gets its own part, flat.
        """
        if self.size == 1:
            return values, gradients, buffers
        from owl import distributed as job

        parts = {f"{name} {i}": _as_array(part) for name, pair in values.items() for i, part in enumerate(pair)}
        parts |= {f"buffer {name}": each for name, each in buffers.items()}
        sums: dict[str, NArray] = {}
        buckets, last = _buckets([*gradients.items()][::-1], shared)
        for bucket in buckets:
            if next(iter(bucket)) in shared:
                sums |= job.reduce_scatter({name: g.reshape([g.size]) for name, g in bucket.items()})
            else:
                sums |= job.all_reduce(bucket)
        rest = job.all_reduce(parts | {f"gradient {name}": g for name, g in last.items()})
        sums |= {name: rest[f"gradient {name}"] for name in last}
        found = {name: (rest[f"{name} 0"], rest[f"{name} 1"]) for name in values}
        return found, {name: sums[name] for name in gradients}, {name: rest[f"buffer {name}"] for name in buffers}

    def gathered_parts(self, parts: dict[str, NArray]) -> dict[str, NArray]:
        """The flat arrays of which each rank has a part. In buckets, in this order: the next forward pass begins with the first."""
        from owl import distributed as job

        wholes: dict[str, NArray] = {}
        for bucket in _buckets([*parts.items()], parts)[0]:
            wholes |= job.all_gather(bucket)
        return wholes

    def gathered(self, rows: Sequence[Numbers], names: Sequence[str], count: int) -> list[Numbers]:
        """All rows, of which rank r has those with the numbers r, r + size, and so on."""
        if self.size == 1:
            return list(rows)
        from owl import distributed as job

        most, width = -(-count // self.size), 2 * len(names)
        table = np.zeros((most, width))
        for i, row in enumerate(rows):
            table[i] = [part for name in names for part in row[name]]
        everything = job.all_gather(owl.from_numpy(table)).to_numpy().reshape(self.size, most, width)
        return [{name: (float(row[2 * i]), float(row[2 * i + 1])) for i, name in enumerate(names)}
                for row in (everything[b % self.size, b // self.size] for b in range(count))]  # fmt: skip

    def agree(self, error: OSError | None) -> None:
        """Raises rank 0's error on every rank; returns when all have come here."""
        if self.size == 1:
            if error is not None:
                raise error
            return
        failed = self.number(0 if error is None else (error.errno or -1))
        if error is not None:
            raise error
        if failed:
            raise OSError(failed, "rank 0 could not write the file")


def nothing(values: dict[str, Any], *arrays: dict[str, NArray]) -> Any:
    """What a rank without samples adds: -0.0, which changes no sum's bits."""
    zeros = {name: tuple(map(_zero, pair)) for name, pair in values.items()}
    return zeros, *({name: _zero(each) for name, each in part.items()} for part in arrays)


def _zero(part: Any) -> Any:
    if isinstance(part, NArray):
        return owl.full_like(part, -0.0 if kind_of(part.dtype) not in "iub" else 0)
    return -0.0 if isinstance(part, float) else 0


def _as_array(part: Any) -> NArray:
    if isinstance(part, NArray):
        return part
    return owl.from_numpy(np.array([part], np.int64 if isinstance(part, (int, np.integer)) else np.float64))


def bytes_of(array: NArray) -> int:
    return array.size * getattr(array.dtype, "itemsize", 2)  # a text: bfloat16 without ml_dtypes


def _buckets(items: list[tuple[str, NArray]], shared: Container[str]) -> tuple[list[dict[str, NArray]], dict[str, NArray]]:
    """Buckets, and the last few. Those in ``shared`` and the others are in different buckets."""
    end, left = len(items), LAST_BUCKET
    while end > 0 and items[end - 1][0] not in shared and (left := left - bytes_of(items[end - 1][1])) >= 0:
        end -= 1
    buckets: list[dict[str, NArray]] = []
    limit = FIRST_BUCKET
    current: dict[bool, dict[str, NArray]] = {True: {}, False: {}}
    filled = {True: 0, False: 0}
    for name, array in items[:end]:
        kind = name in shared
        current[kind][name] = array
        filled[kind] += bytes_of(array)
        if filled[kind] >= limit:
            buckets.append(current[kind])
            current[kind], filled[kind], limit = {}, 0, BUCKET
    return [each for each in (*buckets, *current.values()) if each], dict(items[end:])
