"""clip_norm: the norm of all gradients together, limited."""

from __future__ import annotations

from typing import Any

from owl import elewise as ele
from owl._gradients import _arrays_of, _rebuilt
from owl._owl import NArray


def clip_norm(grads: Any, most: float) -> tuple[Any, NArray]:
    """``(grads, norm)``: gradients scaled so that the norm of all of them together is at most ``most``; nothing waits.

    ``grads`` is an array, or a list, tuple or dict of them, nested too. ``norm``, of shape ``[1]``, is their norm before:
    the root of the sum of all squares. They are multiplied by ``most / (norm + 1e-6)`` if that is below 1, as by PyTorch's
    ``clip_grad_norm_``. ValueError: no gradients, or ``most`` is not above 0.
    """
    if not most > 0:
        raise ValueError(f"clip_norm: most must be above 0, got {most}")
    arrays = [array for _, array in _arrays_of(grads)]
    if not arrays:
        raise ValueError("clip_norm: there are no gradients")
    squares = ele.square(arrays[0]).sum()
    for array in arrays[1:]:
        squares = squares + ele.square(array).sum()
    norm = ele.sqrt(squares)
    scale = ele.minimum(float(most) / (norm + 1e-6), 1.0)
    return _rebuilt(grads, (ele.mult(array, scale.astype(array.dtype)) for array in arrays)), norm
