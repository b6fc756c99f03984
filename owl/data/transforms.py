"""Transforms for a Loader: functions of a batch's first array and a random generator.

The array is NumPy's, samples first; images are ``(n, ..., h, w)``. The generator depends on seed, epoch and batch alone, so
that a resumed loop draws the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Transform = Callable[[Array, np.random.Generator], Array]


def standardize(mean: Any, std: Any) -> Transform:
    """``(x - mean) / std``. Both are numbers, arrays of a sample's shape, or one number a channel of images ``(n, c, h, w)``.

    Integers become float32, other types stay. ValueError: a deviation that is 0 or no number.

    >>> import numpy as np
    >>> images = np.random.rand(1000, 1, 28, 28).astype(np.float32)
    >>> loader = owl.data.Loader((images,), 100, transform=owl.data.standardize(images.mean(), images.std()))
    """
    mean, std = np.asarray(mean), np.asarray(std)
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise ValueError(f"standardize: mean must be finite and std positive, not {mean} and {std}")

    def apply(x: Array, rng: np.random.Generator) -> Array:
        dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.float32)
        shift, scale = (_by_channel(value, x).astype(dtype, copy=False) for value in (mean, std))
        result: Array = x.astype(dtype)  # a copy: the batch may be memory of the data set
        result -= shift
        result /= scale
        return result

    return apply


def random_shift(pixels: int) -> Transform:
    """Moves each image by up to ``pixels`` in both directions; what comes in is 0."""
    _require_pixels("random_shift", "pixels", pixels, 0)

    def apply(x: Array, rng: np.random.Generator) -> Array:
        return _windows("random_shift", x, x.shape[-2:], pixels, rng)

    return apply


def random_crop(size: int | tuple[int, int], padding: int = 0) -> Transform:
    """A window of ``size`` (one number, or height and width) at a place of each image that was padded with zeros."""
    window = (size, size) if isinstance(size, (int, np.integer)) else tuple(size)
    if len(window) != 2:
        raise ValueError(f"random_crop: size is a number or (height, width), not {size!r}")
    for each in window:
        _require_pixels("random_crop", "size", each, 1)
    _require_pixels("random_crop", "padding", padding, 0)

    def apply(x: Array, rng: np.random.Generator) -> Array:
        return _windows("random_crop", x, window, padding, rng)

    return apply


def random_flip(p: float = 0.5) -> Transform:
    """Mirrors each image left to right with probability ``p``."""
    if not 0 <= p <= 1:
        raise ValueError(f"random_flip: p is a probability, not {p!r}")

    def apply(x: Array, rng: np.random.Generator) -> Array:
        _require_images("random_flip", x)
        flipped = rng.random(len(x)) < p
        result = x.copy()
        result[flipped] = x[flipped, ..., ::-1]
        return result

    return apply


def _windows(who: str, x: Array, size: tuple[int, ...], padding: int, rng: np.random.Generator) -> Array:
    """A window of this height and width at a random place of each padded image."""
    _require_images(who, x)
    if padding:
        x = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(padding, padding)] * 2)
    room = [x.shape[axis] - size[axis] for axis in (-2, -1)]
    if min(room) < 0:
        raise ValueError(f"{who}: a window of {size[0]} x {size[1]} in images of {x.shape[-2]} x {x.shape[-1]}, padded")
    top, left = (rng.integers(0, most + 1, len(x)) for most in room)
    views = np.lib.stride_tricks.sliding_window_view(x, size, axis=(-2, -1))  # (n, ..., tops, lefts, height, width)
    views = np.moveaxis(views, (-4, -3), (1, 2))
    return views[np.arange(len(x)), top, left]


def _by_channel(value: Array, x: Array) -> Array:
    return value.reshape(-1, 1, 1) if value.ndim == 1 and x.ndim == 4 else value


def _require_images(who: str, x: Array) -> None:
    if x.ndim < 3:
        raise ValueError(f"{who} takes images (n, ..., h, w), not an array {x.shape}")


def _require_pixels(who: str, name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{who}: {name} must be an integer, not {value!r}")
    if value < least:
        raise ValueError(f"{who}: {name} must be at least {least}, not {value}")
