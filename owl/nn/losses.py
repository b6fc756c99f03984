"""Losses and accuracy: functions of what a network computes and what it should."""

from __future__ import annotations

from typing import Any, Literal

from owl import conv, elewise as ele
from owl._owl import DTypeError, NArray, ShapeError, one_hot
from owl._types import kind_of


def softmax_cross_entropy(logits: NArray, labels: NArray, reduce: Literal["mean", "sum", "none"] = "mean") -> NArray:
    """``-log(softmax(logits))`` at the labels: of logits ``[classes, N]``, or ``[classes, T, N]`` for sequences.

    ``labels`` are classes, integers of shape ``[N]`` or ``[1, N]`` (of sequences ``[T, N]``), or probabilities of the
    logits' shape, one-hot for instance. ``reduce``: the ``"mean"`` over the samples, their ``"sum"``, or ``"none"``, a
    loss for each, of shape ``[N]``. PyTorch's ``cross_entropy``. A label out of range is an IndexError where the loss is
    waited for. ShapeError: other shapes. DTypeError: classes that are no integers.
    """
    _check("softmax_cross_entropy", reduce, logits, labels)
    return _at_labels("softmax_cross_entropy", conv.log_softmax(logits, axis=0), labels, reduce)


def nll(log_probabilities: NArray, labels: NArray, reduce: Literal["mean", "sum", "none"] = "mean") -> NArray:
    """``-log_probabilities`` at the labels, as :class:`LogSoftmax` gives them; shapes as of softmax_cross_entropy.

    PyTorch's ``nll_loss``.
    """
    _check("nll", reduce, log_probabilities, labels)
    return _at_labels("nll", log_probabilities, labels, reduce)


def binary_cross_entropy(logits: NArray, t: NArray, reduce: Literal["mean", "sum", "none"] = "mean") -> NArray:
    """``-t * log(sigmoid(logits)) - (1 - t) * log(1 - sigmoid(logits))`` of equal shapes, in a form that is stable.

    ``t`` is 0 or 1, or between. PyTorch's ``binary_cross_entropy_with_logits``. ``reduce``: the ``"mean"`` over all
    elements, the ``"sum"`` or ``"none"``. ShapeError: other shapes.
    """
    _check_equal("binary_cross_entropy", reduce, logits, t)
    return _reduced(ele.softplus(logits) - ele.mult(logits, t), reduce)


def mse(x: NArray, t: NArray, reduce: Literal["mean", "sum", "none"] = "mean") -> NArray:
    """``(x - t)^2`` of equal shapes; ``reduce`` as in :func:`binary_cross_entropy`. PyTorch's ``mse_loss``.

    ShapeError: other shapes; nothing is broadcast.
    """
    _check_equal("mse", reduce, x, t)
    return _reduced(ele.square(x - t), reduce)


def l1(x: NArray, t: NArray, reduce: Literal["mean", "sum", "none"] = "mean") -> NArray:
    """``|x - t|`` of equal shapes; ``reduce`` as in :func:`binary_cross_entropy`. PyTorch's ``l1_loss``.

    ShapeError: other shapes; nothing is broadcast.
    """
    _check_equal("l1", reduce, x, t)
    return _reduced(ele.abs(x - t), reduce)


def huber(x: NArray, t: NArray, delta: float = 1.0, reduce: Literal["mean", "sum", "none"] = "mean") -> NArray:
    """``(x - t)^2 / 2`` where ``|x - t|`` is below ``delta``, else ``delta * (|x - t| - delta / 2)`` (Huber 1964).

    Of equal shapes; ``reduce`` as in :func:`binary_cross_entropy`. PyTorch's ``huber_loss``. ShapeError: other shapes;
    nothing is broadcast. ValueError: ``delta`` is not above 0.
    """
    _check_equal("huber", reduce, x, t)
    if not delta > 0:
        raise ValueError(f"huber: delta must be above 0, got {delta}")
    far = ele.abs(x - t)
    near = ele.minimum(far, delta)  # without a branch: near^2 / 2 + delta * (far - near)
    return _reduced(ele.mult(near, near) * 0.5 + (far - near) * float(delta), reduce)


def accuracy(logits: NArray, labels: NArray) -> NArray:
    """The share of samples whose largest logit is the label's, of shape ``[1]``; shapes as of softmax_cross_entropy.

    With one logit a sample, ``[1, N]``, its sign decides: above 0 the label is 1.
    """
    return right(logits, labels).astype("float32").mean()


def right(logits: NArray, labels: NArray) -> NArray:
    """Which samples :func:`accuracy` counts: bools, ``[1, N]``."""
    _check("accuracy", "mean", logits, labels)
    are_classes = _are_classes("accuracy", logits, labels)
    if are_classes:
        labels = labels if len(labels.shape) == len(logits.shape) else labels.reshape([1, *labels.shape])
    if logits.shape[0] == 1:
        return (logits > 0.0) == (labels > 0.5)
    return logits.argmax(0) == (labels if are_classes else labels.argmax(0))


def _check(name: str, reduce: str, x: Any, t: Any) -> None:
    for array in (x, t):
        if not isinstance(array, NArray):
            raise DTypeError(f"{name} takes two NArrays, not {type(array).__name__}; owl.from_numpy makes them")
    if reduce not in ("mean", "sum", "none"):
        raise ValueError(f'{name}: reduce must be "mean", "sum" or "none", not {reduce!r}')


def _check_equal(name: str, reduce: str, x: Any, t: Any) -> None:
    _check(name, reduce, x, t)
    if x.shape != t.shape:
        fits = f": write t.reshape({x.shape})" if x.size == t.size else ""
        fits += ", or of NumPy's y[:, None]" if x.shape == [1, *t.shape] else ""
        raise ShapeError(f"{name}: {x.shape} and {t.shape} differ; the shapes must be equal, nothing is broadcast{fits}")


def _at_labels(name: str, log_probabilities: NArray, labels: NArray, reduce: Literal["mean", "sum", "none"]) -> NArray:
    if _are_classes(name, log_probabilities, labels):
        shape, dtype = log_probabilities.shape, log_probabilities.dtype
        labels = one_hot(labels if len(shape) == 2 else labels.reshape([labels.size]), shape[0], dtype)
        labels = labels if len(shape) == 2 else labels.reshape(shape)
    losses = -ele.mult(log_probabilities, labels).sum(0)
    return _reduced(losses.reshape(losses.shape[1:]) if reduce == "none" else losses, reduce)


def _are_classes(name: str, logits: NArray, labels: NArray) -> bool:
    """Whether the labels are classes, [N] or [1, N], or else probabilities of the logits' shape."""
    shape, rest = labels.shape, logits.shape[1:]
    if not rest:
        raise ShapeError(f"{name}: logits have the shape [classes, N], got {logits.shape}")
    if shape in (rest, [1, *rest]) and kind_of(labels.dtype) in "iu":
        return True
    if shape == logits.shape:
        return False
    if shape in (rest, [1, *rest]):
        raise DTypeError(f'{name}: labels are of type {labels.dtype}; classes are integers, labels.astype("int32")')
    raise ShapeError(
        f"{name}: labels have shape {shape}; for logits {logits.shape} they have {rest} or {[1, *rest]}, classes, or "
        f"{logits.shape}, probabilities"
    )


def _reduced(losses: NArray, reduce: Literal["mean", "sum", "none"]) -> NArray:
    return losses.mean() if reduce == "mean" else losses.sum() if reduce == "sum" else losses
