"""What fit and evaluate take as data, made a Loader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from owl._owl import Error
from owl.data.datasets import ArrayDataset, Part
from owl.data.loader import Loader

TRAINING_BATCH = 32
EVALUATION_BATCH = 256  # no gradients: memory is no question, and larger batches are faster


def loaders(model: Any, data: Any, validation: Any, batch_size: int | None, seed: int) -> tuple[Loader, Loader | None]:
    """Loaders of the training and the validation data, of which the latter may be a fraction of the former."""
    if isinstance(validation, (int, float)) and not isinstance(validation, bool):
        data, validation = _split(as_dataset(model, data), float(validation), seed)
    training = _loader(model, data, batch_size, TRAINING_BATCH, shuffle=True, seed=seed)
    return training, None if validation is None else evaluation_loader(model, validation, batch_size)


def evaluation_loader(model: Any, data: Any, batch_size: int | None) -> Loader:
    """A loader of the data in its own order, or the one that is given."""
    return _loader(model, data, batch_size, EVALUATION_BATCH, shuffle=False, seed=0)


def in_order(loader: Loader) -> Loader:
    """A loader of the same data that does not shuffle."""
    return Loader(loader.dataset, loader.batch_size, seed=loader.seed, transform=loader.transforms or None,
                  prefetch=loader.prefetch, device=loader.device)  # fmt: skip


def as_dataset(model: Any, data: Any) -> Any:
    """A data set of a tuple of arrays; or the data set itself."""
    if isinstance(data, Loader):
        raise ValueError("fit: a fraction for validation is drawn from arrays or a data set, not from a Loader; "
                         "give fit the Loader's data set and batch_size, or two Loaders")  # fmt: skip
    if not isinstance(data, (tuple, list)):
        return data
    if len(data) < 2:
        raise ValueError(f"data is a tuple of NumPy arrays (x, labels), samples first, not {len(data)} array")
    return as_arrays(model, data)


def as_arrays(model: Any, parts: Sequence[Any]) -> ArrayDataset:
    """A data set of these arrays; float64 becomes float32 unless the model has float64."""
    wide = _has_float64(model)
    arrays = [np.asarray(part) if isinstance(part, list) else part for part in parts]
    return ArrayDataset(*(part.astype(np.float32) if not wide and getattr(part, "dtype", None) == np.float64 else part
                          for part in arrays))  # fmt: skip


def _loader(model: Any, data: Any, batch_size: int | None, default: int, shuffle: bool, seed: int) -> Loader:
    if isinstance(data, Loader):
        if batch_size is not None and batch_size != data.batch_size:
            raise ValueError(f"batch_size {batch_size}, but the Loader has {data.batch_size}")
        return data
    dataset = as_dataset(model, data)
    if isinstance(dataset, (np.ndarray, Mapping)) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise TypeError("data is a Loader, a data set or a tuple of NumPy arrays (x, labels), samples first, "
                        f"not {type(data).__name__}")  # fmt: skip
    return Loader(dataset, default if batch_size is None else batch_size, shuffle=shuffle, seed=seed)


def _split(dataset: Any, fraction: float, seed: int) -> tuple[Part, Part]:
    if not 0 < fraction < 1:
        raise ValueError(f"validation: a fraction is between 0 and 1, not {fraction!r}")
    count = round(fraction * len(dataset))
    if not 0 < count < len(dataset):
        raise ValueError(f"validation: {fraction!r} of {len(dataset)} samples leaves one of the two without any")
    order = np.random.default_rng([seed, len(dataset)]).permutation(len(dataset))
    return Part(dataset, np.sort(order[count:])), Part(dataset, np.sort(order[:count]))


def _has_float64(model: Any) -> bool:
    try:
        return any(parameter.dtype == np.float64 for parameter in model.parameters().values())
    except Error:  # a size that the first call will tell
        return False
