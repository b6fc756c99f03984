"""Training: a loop with progress, metrics, callbacks and checkpoints around a module, a loss and an optimizer.

>>> import numpy as np
>>> x, labels = np.random.rand(200, 4).astype(np.float32), np.random.randint(0, 3, 200)
>>> trainer = owl.train.Trainer(owl.nn.Linear(4, 3), "softmax_cross_entropy", "adam")
>>> history = trainer.fit((x, labels), epochs=2, progress=False)
>>> len(history["loss"])
2
"""

from typing import TYPE_CHECKING

from owl import _hints
from owl.train.callbacks import BestCheckpoint, Checkpoint, CSVLog, EarlyStopping, StopOnNaN, TensorBoard
from owl.train.history import History
from owl.train.trainer import Trainer

__all__ = [
    "BestCheckpoint",
    "CSVLog",
    "Checkpoint",
    "EarlyStopping",
    "History",
    "StopOnNaN",
    "TensorBoard",
    "Trainer",
]


if not TYPE_CHECKING:

    def __getattr__(name):
        raise _hints.of_module("owl.train", name)
