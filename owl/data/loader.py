"""Loader: minibatches of a data set as arrays, gathered by threads behind the script."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from owl import _owl
from owl._arguments import hinted
from owl._owl import NArray
from owl.data.ahead import Ahead
from owl.data.datasets import Array, ArrayDataset, Shared, gives_new_arrays, range_of, samples, shared_arrays

Transform = Callable[[Any, np.random.Generator], Any]

# Types whose NumPy memory an array can share; others are converted, which copies.
_SHARED = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int32))


class Loader:
    """Minibatches of a data set: tuples of arrays, samples along the last axis. A loop over it is one epoch.

    ``dataset`` is an :class:`ArrayDataset`, a tuple of NumPy arrays, or an object with ``len`` whose ``dataset[i]`` is a sample.
    With ``shuffle``, each epoch has an order of its own, a function of ``(seed, epoch)`` alone. The last batch is the rest,
    or with ``drop_last`` left out. ``transform(x, rng)`` gets a batch's first array, a NumPy array with samples first, and a
    random generator that depends on seed, epoch and batch alone, and returns the new first array; or a list of them.
    Batches are gathered while the script works, ``prefetch`` of them ahead by threads; 0 gathers in the script's thread.
    Of an ArrayDataset in contiguous memory, without transforms, a batch is :func:`owl.take` of the whole array, recorded and
    run like any operation; the loop's end waits until its batches are gathered, so that the NumPy arrays may change then.
    Arrays are on ``device``, by default the one that is current where the loop begins.

    Each loop, finished or not, is the next epoch. :meth:`state` says where the loop stands, between two batches too;
    :meth:`load_state` goes on there with the same bits, in another process too. An exception of the data set or a transform
    is raised by the loop, with its own traceback. ValueError: no samples, or a batch size below 1.

    >>> import numpy as np
    >>> loader = owl.data.Loader((np.zeros((10, 784), np.float32), np.zeros(10, np.int32)), 4, shuffle=True)
    >>> [(x.shape, labels.shape) for x, labels in loader]
    [([784, 4], [4]), ([784, 4], [4]), ([784, 2], [2])]
    """

    @hinted
    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        transform: Transform | list[Transform] | tuple[Transform, ...] | None = None,
        prefetch: int = 2,
        device: int | None = None,
    ) -> None:
        self.dataset = _as_dataset(dataset)
        self.batch_size = _integer("batch_size", batch_size, 1)
        self.shuffle = bool(shuffle)
        self.seed = _integer("seed", seed, 0)
        self.drop_last = bool(drop_last)
        self.transforms: tuple[Transform, ...] = _as_transforms(transform)
        self.prefetch = _integer("prefetch", prefetch, 0)
        self.device = device
        self._begun = 0  # the number of the next loop's epoch
        self._epoch, self._position = 0, 0  # of the latest loop: batches that it has given
        self._resumes = False  # whether the next loop goes on there
        self.notes_labels = False  # for owl.train: whether label_range is kept
        self.label_range: tuple[int, int] | None = None  # the least and the largest label that the latest loop has given
        if len(self) == 0:
            raise ValueError(
                f"Loader: drop_last leaves no batch: {len(self.dataset)} samples, batch_size {self.batch_size}"
            )

    def __len__(self) -> int:
        """Batches of an epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    @property
    def samples(self) -> int:
        """Samples of an epoch."""
        return len(self) * self.batch_size if self.drop_last else len(self.dataset)

    def __iter__(self) -> Iterator[tuple[NArray, ...]]:
        if not self._resumes:
            self._epoch, self._position = self._begun, 0
        self._resumes = False
        self._begun = self._epoch + 1
        self.label_range = None
        device = _owl.current_device() if self.device is None else self.device
        return self._batches(self._epoch, self._position, device)

    def _batches(self, epoch: int, start: int, device: int) -> Iterator[tuple[NArray, ...]]:
        order = self._order(epoch)
        whole = None if self.transforms or not self.prefetch else shared_arrays(self.dataset)
        if whole is not None:
            yield from self._taken(epoch, start, order, device, whole)
            return

        def gather(batch: int) -> tuple[tuple[NArray, ...], tuple[int, int] | None]:
            return self._gather(epoch, batch, order, device)

        ahead, patience_s = Ahead(gather, start, len(self), self.prefetch), 1.0
        try:
            for batch in range(start, len(self)):
                arrays, labels = ahead.take(batch)
                if self._epoch == epoch:  # else another loop has begun since
                    self._position = batch + 1
                    self._note(labels)
                yield arrays
        except KeyboardInterrupt:
            patience_s = 0.1
            raise
        finally:
            ahead.close(patience_s)

    def _taken(
        self, epoch: int, start: int, order: Array, device: int, whole: Shared
    ) -> Iterator[tuple[NArray, ...]]:
        """Batches that the engine gathers: their recording takes a few microseconds, so that it needs no thread."""
        latest: deque[tuple[NArray, ...]] = deque(maxlen=self.prefetch)
        for batch in range(start, len(self)):
            chosen = whole.places(order[batch * self.batch_size : (batch + 1) * self.batch_size])
            indices = _owl.from_numpy(chosen)
            taken = tuple([_owl.take(array, indices, -1) for array in whole.arrays])
            latest.append(taken)
            if self._epoch == epoch:
                self._position = batch + 1
                if self.notes_labels and len(whole.arrays) > 1:
                    self._note(range_of(whole.labels[chosen]))
            try:
                yield tuple(array if array.device == device else array.copy_to(device) for array in taken)
            except GeneratorExit:  # the loop ends early
                break
        # Takes run in the order of recording: where these have, the earlier ones have read the user's arrays too.
        for taken in latest:
            for array in taken:
                array.wait_for_eval()

    def _order(self, epoch: int) -> Array:
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))

    def _note(self, labels: tuple[int, int] | None) -> None:
        if labels is not None:
            low, high = self.label_range or labels
            self.label_range = min(low, labels[0]), max(high, labels[1])

    def _gather(
        self, epoch: int, batch: int, order: Array, device: int
    ) -> tuple[tuple[NArray, ...], tuple[int, int] | None]:
        """A batch, and the range of its labels if it is wanted."""
        chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
        x, *others = samples(self.dataset, chosen)
        if self.transforms:
            rng = np.random.default_rng([self.seed, epoch, batch])
            for transform in self.transforms:
                x = transform(x, rng)
        shared = gives_new_arrays(self.dataset)  # which no one else knows, unless a transform saw them
        arrays = (_to_array(x, shared and not self.transforms), *(_to_array(other, shared) for other in others))
        labels = range_of(np.asarray(others[-1])) if self.notes_labels and others else None
        return tuple(array if array.device == device else array.copy_to(device) for array in arrays), labels

    def state(self) -> dict[str, Any]:
        """Where the latest loop stands: its epoch and its position, the number of batches that it has given.

        The state also has what the order depends on, which :meth:`load_state` compares.
        """
        return self._state_at(*self._place())

    def _place(self) -> tuple[int, int]:
        """The state's epoch and position: after an epoch's last batch, the beginning of the next one."""
        return (self._epoch + 1, 0) if self._position == len(self) else (self._epoch, self._position)

    def _state_at(self, epoch: int, position: int) -> dict[str, Any]:
        """The state of a loader that stands there."""
        return {"epoch": epoch, "position": position, **self._fixed()}

    def load_state(self, state: dict[str, Any]) -> None:
        """The next loop goes on where ``state`` was taken. ValueError: it is of a loader of other data, or otherwise made."""
        try:
            epoch, position = state["epoch"], state["position"]
        except (TypeError, KeyError):
            raise ValueError(f"load_state takes what Loader.state gave, not {state!r}") from None
        other = [f"{name} {state[name]!r}, here {value!r}" for name, value in self._fixed().items()
                 if state.get(name, value) != value]  # fmt: skip
        if other:
            raise ValueError(f"load_state: the state is of another loader: {', '.join(other)}")
        self._epoch, self._position = _integer("epoch", epoch, 0), _integer("position", position, 0)
        if self._position > len(self):
            raise ValueError(f"load_state: position {position} of an epoch of {len(self)} batches")
        if self._position == len(self):
            self._epoch, self._position = self._epoch + 1, 0
        self._begun, self._resumes = self._epoch, True

    def _fixed(self) -> dict[str, Any]:
        return {
            "samples": len(self.dataset),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "drop_last": self.drop_last,
        }

    def __repr__(self) -> str:
        return f"Loader({self.dataset!r}, {len(self)} batches of {self.batch_size})"


def _as_dataset(dataset: Any) -> Any:
    if isinstance(dataset, (tuple, list)):
        return ArrayDataset(*dataset)
    if (isinstance(dataset, Mapping) and dataset) or not hasattr(dataset, "__len__") or not (hasattr(dataset, "take") or hasattr(dataset, "__getitem__")):
        raise TypeError(f"Loader: dataset is an ArrayDataset, a tuple of NumPy arrays or an object with len and samples "
                        f"dataset[i], not {type(dataset).__name__}")  # fmt: skip
    if isinstance(dataset, (np.ndarray, NArray)):
        return ArrayDataset(dataset)
    if len(dataset) == 0:
        raise ValueError("Loader: the data set has no samples")
    return dataset


def _as_transforms(transform: Any) -> tuple[Transform, ...]:
    transforms = () if transform is None else tuple(transform) if isinstance(transform, (list, tuple)) else (transform,)
    for each in transforms:
        if not callable(each):
            raise TypeError(f"Loader: transform is a function of (x, rng) or a list of them, not {each!r}")
    return transforms


def _integer(name: str, value: Any, least: int) -> int:
    if name == "batch_size" and hasattr(value, "__len__"):
        raise TypeError("Loader: the data is one tuple: Loader((x, labels), batch_size)")
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"Loader: {name} must be an integer, not {value!r}")
    if value < least:
        raise ValueError(f"Loader: {name} must be at least {least}, not {value}")
    return int(value)


def _to_array(x: Any, shared: bool) -> NArray:
    if shared and x.dtype in _SHARED:
        return _owl.from_dlpack(x)
    return _owl.from_numpy(np.asarray(x))
