"""Optimizer: the part that all optimizers share, from names and checks to state; the formulas are in rules.py."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Container, Mapping
from typing import Any, NoReturn, TypeAlias, TypeVar

from owl import _arguments
from owl._gradients import _arrays_of, _rebuilt
from owl._owl import DataError, DTypeError, HeldSource, NArray, ShapeError, zeros_like
from owl.nn.module import Module, Slot

Rate: TypeAlias = float | Callable[[int], float]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def hinted(init: _Function) -> _Function:
    """A constructor as :func:`owl._arguments.hinted` makes it, which also refuses the parameters that PyTorch's takes."""
    with_keywords = _arguments.hinted(init)

    @functools.wraps(init)
    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
        if arguments and isinstance(arguments[0], (Module, Mapping, list, tuple)):
            raise TypeError(f"{type(self).__name__} takes no parameters: update(model, grads) is given them; the first "
                            "argument is lr")  # fmt: skip
        return with_keywords(self, *arguments, **keywords)

    return call  # type: ignore[return-value]


class Optimizer:
    """The base class of optimizers: one derived from it names its arrays a parameter and gives the formula of a step.

    ``SLOTS`` are the names of these arrays, zeros at first. ``step(x, g, slots, t, lr)`` gives the new value of the
    parameter ``x`` from its gradient ``g``, and puts new arrays into ``slots``; ``t`` counts the parameter's updates from
    1, ``lr`` is this update's rate.
    """

    SLOTS: tuple[str, ...] = ()

    def __init__(self, lr: Rate) -> None:
        self.lr = lr
        self.steps = 0  #: how many updates were made
        self._slots: dict[str, dict[str, NArray]] = {}
        self._shapes: dict[str, list[int]] = {}
        self._counts: dict[str, int] = {}
        #: The whole shape of those parameters of an MPI job whose arrays are this rank's part, flat (train/own_parts.py).
        self._wholes: dict[str, list[int]] = {}

    @property
    def lr(self) -> float:
        """The rate of the next update. Set it to a number, or to a schedule: a function of how many updates were made."""
        return _rate(self._rate(self.steps) if callable(self._rate) else self._rate)

    @lr.setter
    def lr(self, rate: Rate) -> None:
        self._rate = rate if callable(rate) else _rate(rate)

    def step(self, x: NArray, g: NArray, slots: dict[str, NArray], t: int, lr: float) -> NArray:
        """The new value of a parameter."""
        raise NotImplementedError(f"{type(self).__name__} defines no step(self, x, g, slots, t, lr)")

    def update(self, target: Any, grads: Any) -> Any:
        """Makes a step: from parameters and their gradients to new parameters. Nothing waits.

        ``target`` is a module, whose parameters are bound to the new ones, and ``grads`` is what
        ``tape.gradient(loss, module)`` gave; or a dict of arrays (or an array, a list, tuple or dict, nested too) and
        gradients of the same structure, for which new ones are returned. Parameters without a gradient stay.

        DataError: a gradient without a parameter, or the state is of other parameters. ShapeError, DTypeError: a gradient
        is not of its parameter's shape and type. Nothing is changed then.
        """
        self._join()
        if isinstance(target, Module):
            if not isinstance(grads, Mapping):
                raise TypeError(f"update of a module takes a dict of gradients by name, not {type(grads).__name__}")
            self._update(target._slots(once=True), grads)
            return None
        arrays, gradients = _named(target), _named(grads)
        self._update({name: (_NO_MODULE, name, arrays, name) for name in arrays}, gradients)
        return _rebuilt(target, iter(arrays.values()))

    def _update(self, places: Mapping[str, Slot], grads: Mapping[str, NArray]) -> None:
        for name, g in grads.items():
            _, _, container, key = places.get(name) or self._refuse_name(name, places)
            x = container[key]
            shape = x.shape if type(x) is NArray and type(g) is NArray else None
            if shape is None or g.shape != shape or g.dtype is not x.dtype or self._shapes.get(name, shape) != shape:
                self._refuse(name, x, g)
        lr, all_slots, counts, step = self.lr, self._slots, self._counts, self.step
        with HeldSource() if _is_a_rule(step) else _NO_BLOCK:
            for name, g in grads.items():
                _, _, container, key = places[name]
                x = container[key]
                slots = all_slots.get(name)
                if slots is None:
                    slots = all_slots[name] = {each: zeros_like(x) for each in self.SLOTS}
                    self._shapes[name] = x.shape
                t = counts[name] = counts.get(name, 0) + 1
                container[key] = step(x, g, slots, t, lr)
        self.steps += 1

    def _whole(self, name: str) -> dict[str, NArray]:
        """The arrays of a parameter, of all of it: if they are parts, an operation of all ranks."""
        slots, shape = self._slots[name], self._wholes.get(name)
        if shape is None or not slots:
            return slots
        from owl import distributed

        return {each: whole.reshape(shape) for each, whole in distributed.all_gather(slots).items()}

    def _join(self, besides: Container[str] = ()) -> None:
        """Ends that a rank has parts alone, but for these parameters: an operation of all ranks."""
        for name in [name for name in self._wholes if name not in besides]:
            if name in self._slots:
                self._slots[name], self._shapes[name] = self._whole(name), self._wholes[name]
            del self._wholes[name]

    def _refuse_name(self, name: str, places: Mapping[str, Slot]) -> NoReturn:
        raise DataError(f"update: there is no parameter {name!r} for this gradient; there are {', '.join(places) or 'none'}")

    def _refuse(self, name: str, x: Any, g: Any) -> None:
        if not isinstance(g, NArray) or not isinstance(x, NArray):
            raise DTypeError(f"update: {name!r} and its gradient must be NArrays, not {type(x).__name__} and {type(g).__name__}")
        if g.shape != x.shape:
            raise ShapeError(f"update: the gradient of {name!r} has shape {g.shape}, the parameter {x.shape}")
        if g.dtype != x.dtype:
            raise DTypeError(f"update: the gradient of {name!r} is of type {g.dtype}, the parameter of {x.dtype}")
        if self._shapes.get(name, x.shape) != x.shape:
            self._refuse_shape(name, self._shapes[name], x)

    def _refuse_shape(self, name: str, shape: list[int], x: NArray) -> NoReturn:
        raise DataError(f"update: the optimizer's state of {name!r} has shape {shape}, the parameter {x.shape}: it is that "
                        "of another model")  # fmt: skip

    # ---- state

    def state(self) -> dict[str, Any]:
        """All that the next update depends on besides parameters and gradients, but a schedule, which is a function.

        ``"optimizer"`` is the class's name, ``"steps"`` the number of updates, ``"lr"`` the rate if it is a number. Each
        parameter has its arrays, under PyTorch's names, and its own number of updates: ``"0.weight.exp_avg"``,
        ``"0.weight.step"``. While ``fit`` runs on several ranks, a call of all of them, because each has a part of the arrays.
        """
        state: dict[str, Any] = {"optimizer": type(self).__name__, "steps": self.steps}
        if not callable(self._rate):
            state["lr"] = self._rate
        for name in self._slots:
            state |= {f"{name}.{each}": array for each, array in self._whole(name).items()}
            state[f"{name}.step"] = self._counts[name]
        return state

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state that :meth:`state` gave; a schedule of this optimizer stays.

        DataError: the state is of another optimizer, or entries are missing, left over, or no arrays; the message lists
        all of them, and nothing is changed.
        """
        if state.get("optimizer") != type(self).__name__:
            raise DataError(f"load_state: this is the state of {state.get('optimizer', 'no optimizer')}, "
                            f"not of {type(self).__name__}")  # fmt: skip
        entries = {name: value for name, value in state.items() if name not in ("optimizer", "steps", "lr")}
        slots, counts = self._sorted(entries)
        wrong = [f"missing: {name}.{each}" for name in sorted({*slots, *counts})
                 for each in (*self.SLOTS, "step") if f"{name}.{each}" not in state]  # fmt: skip
        wrong += [f"{name} is {value!r}" for name, value in [("steps", state.get("steps")), *counts.items()]
                  if not isinstance(value, int) or value < 0]  # fmt: skip
        known = {f"{name}.{each}" for name in {*slots, *counts} for each in (*self.SLOTS, "step")}
        wrong += [f"left over: {name}" for name in entries if name not in known]
        wrong += [f"{name}.{each} is {type(array).__name__}, not an NArray" for name, arrays in slots.items()
                  for each, array in arrays.items() if not isinstance(array, NArray)]  # fmt: skip
        wrong += [f"{name}: its arrays have shapes {', '.join(str(array.shape) for array in arrays.values())}"
                  for name, arrays in slots.items()
                  if len({str(getattr(array, "shape", None)) for array in arrays.values()}) > 1 and not wrong]  # fmt: skip
        if wrong:
            raise DataError(f"load_state of {type(self).__name__}: {'; '.join(wrong)}")
        if "lr" in state and not callable(self._rate):
            self.lr = state["lr"]
        self.steps, self._slots, self._counts, self._wholes = state["steps"], slots, counts, {}
        self._shapes = {name: array.shape for name, arrays in slots.items() for array in arrays.values()}

    def _sorted(self, entries: Mapping[str, Any]) -> tuple[dict[str, dict[str, NArray]], dict[str, int]]:
        """The arrays and the counts of each parameter."""
        slots: dict[str, dict[str, NArray]] = {}
        counts: dict[str, int] = {}
        for entry, value in entries.items():
            name, _, last = entry.rpartition(".")
            if last == "step":
                counts[name] = value
                slots.setdefault(name, {})
            elif last in self.SLOTS:
                slots.setdefault(name, {})[last] = value
        return slots, counts

    def __getattr__(self, name: str) -> Any:  # called for names that are not there
        hint = _HINTS.get(name)
        raise AttributeError(f"{type(self).__name__} has no {name}" + (f": {hint}" if hint else ""), name=name,
                             obj=None if hint else self)  # fmt: skip

    def __repr__(self) -> str:
        settings = {name: value for name, value in vars(self).items() if name.islower() and name[0] != "_" and name != "steps"}
        rate = getattr(self._rate, "__name__", repr(self._rate))
        return f"{type(self).__name__}({', '.join([f'lr={rate}', *(f'{name}={value}' for name, value in settings.items())])})"


_HINTS = {
    "zero_grad": "gradients are what tape.gradient(loss, model) returns; there is nothing to set to zero",
    "state_dict": "write optimizer.state()",
    "load_state_dict": "write optimizer.load_state(state)",
    "param_groups": "optimizer.lr is the rate; model.freeze(names) excludes parameters",
    "add_param_group": "update(model, grads) is given the parameters",
    "setup": "update(model, grads) is given the parameters",
    "target": "update(model, grads) is given the parameters",
    "minimize": "write optimizer.update(model, grads), with grads = tape.gradient(loss, model)",
    "apply_gradients": "write optimizer.update(model, grads), with grads = tape.gradient(loss, model)",
    "learning_rate": "write optimizer.lr",
    "add_hook": "write owl.optim.clip_norm(grads, most), or weight_decay=",
}

_NO_MODULE: Any = None
_NO_BLOCK = contextlib.nullcontext()


def is_elementwise(optimizer: Any) -> bool:
    """Whether an element's step depends on this element and its gradient alone, and ``update`` makes nothing but steps."""
    return isinstance(optimizer, Optimizer) and type(optimizer).update is Optimizer.update and _is_a_rule(optimizer.step)


def _is_a_rule(step: Any) -> bool:
    """Whether it is of owl.optim, and so calls no code of the user's. A wrapper may have a rule's ``__module__``."""
    return getattr(getattr(step, "__func__", step), "__globals__", {}).get("__name__") == "owl.optim.rules"


def _named(structure: Any) -> dict[str, NArray]:
    """The arrays of a structure by name: of a dict by its keys, of anything else by their places."""
    if isinstance(structure, dict) and all(isinstance(each, NArray) for each in structure.values()):
        return {str(name): array for name, array in structure.items()}
    return dict(_arrays_of(structure))


def _rate(value: Any) -> float:
    try:
        rate = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"lr must be a number, or a function of the step that gives one, not {value!r}") from None
    if not rate >= 0 or math.isinf(rate):
        raise ValueError(f"lr must be a finite number, 0 or above, got {rate}")
    return rate
