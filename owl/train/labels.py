"""Labels: finds classes that a model does not have before a step uses them."""

from __future__ import annotations

from typing import Any

import numpy as np

from owl._owl import IndexError, NArray
from owl.data.datasets import labels_of, range_of
from owl.data.loader import Loader
from owl.train.metrics import Function


class Labels:
    """Compares the labels of a loader with the number of classes, which the model's output tells.

    A step that is recorded with a wrong label fails when it runs, and all parameters after it fail with it. The labels of
    NumPy arrays are compared once, as a whole; those of other data sets as their batches come.
    """

    def __init__(self, loss: Function, loader: Loader) -> None:
        from owl import nn

        are_classes = loss in (nn.softmax_cross_entropy, nn.nll)
        self._loader = loader
        self._whole = labels_of(loader.dataset) if are_classes else None
        self._range = None if self._whole is None else range_of(self._whole)
        loader.notes_labels = are_classes and self._whole is None

    def check(self, output: Any, labels: NArray) -> None:
        """IndexError: a label of the data, or of its batches so far, is no class of the output's."""
        found = self._range or (self._loader.label_range if self._loader.notes_labels else None)
        if found is None or not isinstance(output, NArray):
            return
        classes, *rest = output.shape
        if labels.shape not in (rest, [1, *rest]):  # else they are probabilities, or the loss refuses them
            return
        wrong = found[0] if found[0] < 0 else found[1]
        if not 0 <= wrong < classes:
            one = "; a model of one output learns by binary_cross_entropy" * (classes == 1)
            raise IndexError(f"fit: label {wrong} is out of range for {classes} classes, 0 to {classes - 1}{self._place(wrong)}{one}")

    def _place(self, label: int) -> str:
        if self._whole is None:
            return ""
        return f"; sample {np.argwhere(self._whole == label)[0][0]} of the training data has it"
