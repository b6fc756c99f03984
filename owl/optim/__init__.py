"""owl.optim: optimizers, schedules of learning rates, and the clipping of gradients.

Learning rates and numbers of steps are plain numbers: they change from step to step, and what is planned stays.

>>> w = {"w": owl.ones([2])}
>>> optimizer = owl.optim.SGD(lr=owl.optim.cosine(0.5, steps=100))
>>> w = optimizer.update(w, {"w": owl.ones([2])})
>>> w["w"].tolist(), optimizer.steps, round(optimizer.lr, 4)
([0.5, 0.5], 1, 0.4999)
"""

from typing import TYPE_CHECKING

from owl import _hints
from owl.optim.clipping import clip_norm
from owl.optim.optimizer import Optimizer
from owl.optim.rules import SGD, AdaGrad, Adam, AdamW, Lion, RMSprop
from owl.optim.schedules import cosine, exponential, one_cycle, step, warmup

__all__ = [
    "AdaGrad",
    "Adam",
    "AdamW",
    "Lion",
    "Optimizer",
    "RMSprop",
    "SGD",
    "clip_norm",
    "cosine",
    "exponential",
    "one_cycle",
    "step",
    "warmup",
]


if not TYPE_CHECKING:

    def __getattr__(name):
        raise _hints.of_module("owl.optim", name)
