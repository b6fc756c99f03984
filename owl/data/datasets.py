"""Data sets in NumPy arrays whose first axis counts samples: ArrayDataset, and MNIST as two of them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from owl import _owl
from owl._owl import NArray
from owl.data.pool import Pool

Array = np.ndarray[Any, Any]


class ArrayDataset:
    """Samples in NumPy arrays or memmaps of one length: sample ``i`` is ``(arrays[0][i], arrays[1][i], ...)``.

    The **first** axis counts samples, as everywhere in NumPy. The arrays are neither copied nor read before they are
    used. ``dataset[i]`` with an integer, a slice or an array of integers is a tuple of NumPy arrays. ValueError: no arrays,
    no samples, or arrays of other lengths.

    >>> import numpy as np
    >>> dataset = owl.data.ArrayDataset(np.zeros((100, 784), np.float32), np.zeros(100, np.int32))
    >>> len(dataset), [part.shape for part in dataset[:3]]
    (100, [(3, 784), (3,)])
    """

    def __init__(self, *arrays: Any) -> None:
        if not arrays:
            raise ValueError("ArrayDataset: no arrays; ArrayDataset(x, y) takes NumPy arrays, samples first")
        self.arrays: tuple[Array, ...] = tuple(_as_array(array, i) for i, array in enumerate(arrays))
        self._pool = Pool()
        lengths = [len(array) for array in self.arrays]
        if len(set(lengths)) > 1:
            shapes = ", ".join(str(array.shape) for array in self.arrays)
            raise ValueError(f"ArrayDataset: arrays of other lengths, {shapes}: the first axis counts samples")
        if lengths[0] == 0:
            raise ValueError("ArrayDataset: no samples: the first axis, which counts them, has length 0")

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return tuple(array[index] for array in self.arrays)

    def take(self, indices: Array) -> tuple[Array, ...]:
        """The samples at these indices (integers from 0 to ``len(dataset) - 1``), as new arrays that no other name shares."""
        return tuple(_rows(array, indices, self._pool) for array in self.arrays)

    def __repr__(self) -> str:
        parts = ", ".join(f"{array.dtype} {array.shape}" for array in self.arrays)
        return f"ArrayDataset({parts})"


class Part:
    """Some samples of a data set, in the order of ``indices``; nothing is copied."""

    def __init__(self, dataset: Any, indices: Array) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return self.dataset[self.indices[index]]

    def take(self, indices: Array) -> tuple[Array, ...]:
        """As :meth:`ArrayDataset.take`."""
        return samples(self.dataset, self.indices[indices])


def mnist(path: str | os.PathLike[str] | None = None, flat: bool = False) -> tuple[ArrayDataset, ArrayDataset]:
    """MNIST as ``(train, test)``: float32 images from 0 to 1 and int32 labels.

    Images are ``(n, 1, 28, 28)``, which a :class:`Loader` gives as ``[28, 28, 1, n]``, or with ``flat`` ``(n, 784)``, which it
    gives as ``[784, n]``. ``path`` is a folder or a file that has MNIST (``OWL_DATA`` names one too). Without either,
    the working folder and the user's cache are searched, then the data is downloaded; where that fails, a message on
    stderr says so and synthetic digits take its place. DataError: a named place lacks the data, or a file is faulty.
    """
    from owl.data import mnist_files

    shape = (-1, mnist_files.SIDE**2) if flat else (-1, 1, mnist_files.SIDE, mnist_files.SIDE)
    train, test = (
        ArrayDataset(np.multiply(images.reshape(shape), np.float32(1 / 255), dtype=np.float32), labels.astype(np.int32))
        for images, labels in mnist_files.load(path)
    )
    return train, test


def samples(dataset: Any, indices: Array) -> tuple[Array, ...]:
    """The samples of any data set at these indices, stacked along a new first axis.

    A data set has ``take(indices)``, as ArrayDataset has, or gives one sample, a tuple or an array, for ``dataset[i]``.
    """
    if hasattr(dataset, "take"):
        return tuple(dataset.take(indices))
    rows = [dataset[int(i)] for i in indices]
    rows = [row if isinstance(row, (tuple, list)) else (row,) for row in rows]
    return tuple(np.stack([np.asarray(part) for part in column]) for column in zip(*rows))


def labels_of(dataset: Any) -> Array | None:
    """The last parts of all samples, if the data set is of NumPy arrays: an ArrayDataset, or some samples of one."""
    if isinstance(dataset, Part):
        labels = labels_of(dataset.dataset)
        return None if labels is None else labels[dataset.indices]
    return dataset.arrays[-1] if type(dataset) is ArrayDataset else None  # a class derived from it may give others


def range_of(labels: Array) -> tuple[int, int] | None:
    """The least and the largest label; None if they are not integers, or there are none."""
    return (int(labels.min()), int(labels.max())) if labels.dtype.kind in "iu" and labels.size else None


def gives_new_arrays(dataset: Any) -> bool:
    """Whether no one else has the arrays that samples() gives."""
    return isinstance(dataset, ArrayDataset) or (isinstance(dataset, Part) and gives_new_arrays(dataset.dataset))


class Shared:
    """The arrays of a data set as owl's, in the same memory, and which of their samples it has."""

    def __init__(self, arrays: tuple[Array, ...], chosen: Array | None) -> None:
        self.arrays = [_owl.from_dlpack(array) for array in arrays]
        self.labels = arrays[-1]
        self._chosen = chosen

    def places(self, indices: Array) -> Array:
        """Where these samples of the data set are in the arrays."""
        return indices if self._chosen is None else self._chosen[indices]


_OWN_TYPES = frozenset(map(np.dtype, ("bool", "uint8", "int32", "int64", "float16", "float32", "float64")))


def shared_arrays(dataset: Any) -> Shared | None:
    """Of an ArrayDataset, or some samples of one, if owl can read its arrays where they are."""
    chosen = None
    while type(dataset) is Part:
        chosen = dataset.indices if chosen is None else dataset.indices[chosen]
        dataset = dataset.dataset
    if type(dataset) is not ArrayDataset:  # a class derived from it may give others
        return None

    def is_readable(array: Array) -> bool:
        flags = array.flags
        return type(array) is np.ndarray and array.dtype in _OWN_TYPES and flags.c_contiguous and flags.aligned and flags.writeable

    return Shared(dataset.arrays, chosen) if all(map(is_readable, dataset.arrays)) else None


def _as_array(array: Any, place: int) -> Array:
    if isinstance(array, NArray):
        raise TypeError(f"ArrayDataset: array {place} is an NArray, whose last axis would count samples; "
                        "pass x.to_numpy(), which has the axes reversed")  # fmt: skip
    found: Array = np.asarray(array)
    if found.ndim == 0:
        raise ValueError(f"ArrayDataset: array {place} has no axes; the first axis counts samples")
    if found.dtype.kind not in "biuf":
        raise TypeError(f"ArrayDataset: array {place} is of {found.dtype}; owl has numbers and bools")
    return found


def _rows(array: Array, indices: Array, pool: Pool) -> Array:
    """``array[indices]``.

    The indices are known to be in range: ``mode="clip"`` keeps NumPy from gathering into a buffer first to check them.
    """
    if not (array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative):
        return np.ascontiguousarray(array[indices])  # take would copy the whole array first
    out = pool.empty((len(indices), *array.shape[1:]), array.dtype)
    array.take(indices, axis=0, out=out, mode="clip")
    return out
