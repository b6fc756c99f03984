"""Module: parameters, state and children by name, as PyTorch names them."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any, TypeAlias, TypeVar

import numpy as np

from owl import files
from owl._owl import DataError, DTypeError, Error, NArray, ShapeError, zeros
from owl._types import kind_of
from owl.nn._summary import Summary, summarised

_Self = TypeVar("_Self", bound="Module")


class Unsized:
    """A parameter whose first call tells its shape: one axis of it is None until then."""

    def __init__(self, shape: Sequence[int | None], init: Callable[[list[int]], NArray]) -> None:
        self.shape, self.init = list(shape), init
        self.device: int | None = None
        self.dtype: Any = None

    def made(self, length: int) -> NArray:
        """The parameter, now that the length of the axis is known."""
        array: NArray = _moved(initial([length if each is None else each for each in self.shape], self.init), self.device, self.dtype)
        return array

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether the parameter may have this shape."""
        return len(shape) == len(self.shape) and all(a is None or a == b for a, b in zip(self.shape, shape))


def _moved(x: Any, device: int | None, dtype: Any) -> Any:
    """An array on another device and, if it is of floats, of another type; a parameter without a size notes both."""
    if isinstance(x, Unsized):
        x.device = x.device if device is None else device
        x.dtype = x.dtype if dtype is None else dtype
        return x
    if dtype is not None and _is_float(x.dtype) and x.dtype != dtype:
        x = x.astype(dtype)
    return x if device is None else x.copy_to(device)


def _is_float(dtype: Any) -> bool:
    return kind_of(dtype) == "f"


def initial(shape: list[int], init: Callable[[list[int]], NArray]) -> NArray:
    """What ``init`` gives for a shape. ShapeError: it has another."""
    if not callable(init):
        raise TypeError(f"init must be a function of a shape, such as owl.nn.init.he_normal, not {init!r}")
    array = init(shape)
    if not isinstance(array, NArray):
        raise TypeError(f"init must give an NArray; {getattr(init, '__name__', init)} gave {type(array).__name__}")
    if array.shape != shape:
        raise ShapeError(f"init gave an array of shape {array.shape} for a parameter of shape {shape}")
    return array


def parameter(shape: Sequence[int | None], init: Callable[[list[int]], NArray]) -> Any:
    """The first value of a parameter: an NArray, or Unsized where an axis is None."""
    if None in shape:
        return Unsized(shape, init)
    return initial([int(each) for each in shape if each is not None], init)


# Where an array of a module is kept: its owner and its name there; the owner's attributes, or a list or dict among
# them, and its key there. A plain tuple: a step of training makes one for each parameter.
Slot: TypeAlias = tuple["Module", str, Any, Any]


class Module:
    """A network, or a part of one, whose arrays have names.

    A class derived from it makes its arrays and parts in ``__init__`` and computes in ``forward``; calling the module
    runs ``forward``. Attributes that are NArrays are parameters, in lists and dicts too; :meth:`buffer` declares an array
    that is saved and not trained. Attributes that are modules are parts, in lists, tuples and dicts too. (Arrays in a
    tuple are the module's own business: neither trained nor saved.) Names are PyTorch's: attributes, numbers in lists and
    keys of dicts, with dots between them.

    >>> class Net(owl.nn.Module):
    ...     def __init__(self, units):
    ...         self.layers = [owl.nn.Linear(784, units), owl.nn.Linear(units, 10)]
    ...     def forward(self, x):
    ...         return self.layers[1](owl.relu(self.layers[0](x)))
    >>> net = Net(50)
    >>> list(net.parameters())
    ['layers.0.weight', 'layers.0.bias', 'layers.1.weight', 'layers.1.bias']
    >>> net(owl.randn([784, 3])).shape
    [10, 3]
    """

    # Of the class, until they change: a class derived from it need not call super().__init__().
    training = True  #: whether dropout drops, and batch normalisation takes the statistics of its minibatch
    _buffers: frozenset[str] = frozenset()  # local names of what is saved and not trained
    _frozen: frozenset[str] = frozenset()  # local names of parameters that are not trained
    _counters: frozenset[str] = frozenset()  # buffers that files hold as PyTorch's: int64, without axes
    _changes = 0  # of Module: how often any module has got an attribute of another kind (Trained)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes, recorded: nothing waits. Calling the module runs it."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward(self, ...)")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    # ---- arrays by name

    def parameters(self) -> dict[str, NArray]:
        """What is trained, unless it is frozen: arrays by dotted name.

        A part that stands in several places has the name of the first. Error: a size is not known before the first call.
        """
        return {name: _value(name, slot) for name, slot in self._slots(once=True).items() if slot[1] not in slot[0]._buffers}

    def trainable_parameters(self) -> dict[str, NArray]:
        """The parameters that are not frozen: what ``tape.gradient(loss, module)`` is about."""
        return values(_trained(self._slots(once=True)))

    def buffers(self) -> dict[str, NArray]:
        """What is saved and not trained, such as running statistics: arrays by dotted name."""
        return {name: _value(name, slot) for name, slot in self._slots().items() if slot[1] in slot[0]._buffers}

    def state(self) -> dict[str, NArray]:
        """Parameters and buffers: all that a file of the module holds, by dotted name."""
        return {name: _value(name, slot) for name, slot in self._slots().items()}

    def buffer(self, name: str, x: NArray) -> None:
        """Makes ``x`` the attribute ``name``, to be saved and not trained; bind the attribute to change it."""
        if not isinstance(x, (NArray, Unsized)):
            raise TypeError(f"buffer {name!r} must be an NArray, not {type(x).__name__}")
        self._buffers = self._buffers | {name}
        setattr(self, name, x)

    def update(self, arrays: Mapping[str, NArray]) -> None:
        """Binds parameters and buffers to new arrays: some or all, by name.

        DataError: a name that the module lacks, or another shape; nothing is bound then.
        """
        slots = self._slots()
        self._refuse("update", [], [name for name in arrays if name not in slots], _misshaped(slots, arrays))
        for name, array in arrays.items():
            _, _, container, key = slots[name]
            container[key] = array

    def load_state(self, arrays: Mapping[str, NArray]) -> None:
        """Binds all parameters and buffers to these, on their devices and with their types.

        DataError: names are missing or left over, or shapes or kinds of types differ; the message lists all of them, and
        nothing is bound.
        """
        slots = self._slots()
        missing = [name for name in slots if name not in arrays]
        left_over = [name for name in arrays if name not in slots]
        self._refuse("load_state", missing, left_over, _misshaped(slots, arrays) + _of_other_kinds(slots, arrays))
        for name, array in arrays.items():
            _, _, container, key = slots[name]
            before = container[key]
            if isinstance(before, NArray):
                array = array if array.dtype == before.dtype else array.astype(before.dtype)
            device = array.device if before.device is None else before.device
            container[key] = array if array.device == device else array.copy_to(device)

    def _refuse(self, what: str, missing: list[str], left_over: list[str], wrong: list[str]) -> None:
        parts = []
        if missing:
            parts.append(f"missing: {', '.join(missing)}")
        if left_over:
            parts.append(f"left over: {', '.join(map(str, left_over))}")
        if missing or left_over or wrong:
            raise DataError(f"{what} of {type(self).__name__}: {'; '.join(parts + wrong)}")

    # ---- files

    def save(self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> None:
        """Writes the state to a ``.npz`` or ``.safetensors`` file, as :func:`owl.save` does; waits.

        PyTorch's module of the same layers loads the file.
        """
        slots = self._slots()
        arrays = {name: _value(name, slot) for name, slot in slots.items()}
        for array in arrays.values():
            array.start_eval()
        values = {name: files.value_for(path, array) for name, array in arrays.items()}
        for name, (owner, local, _, _) in slots.items():
            if local in owner._counters:
                values[name] = values[name].astype("int64").reshape(())
        files.write(path, values)

    def load(self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> None:
        """Reads the state from a file of :meth:`save`, or of PyTorch's ``state_dict()`` in safetensors.

        DataError: the file is missing or damaged, or its names and shapes are others (:meth:`load_state`).
        """
        state = files.load(path)
        try:
            self.load_state(state)
        except DataError as error:
            hint = "; it is a checkpoint of a Trainer, whose load(path) reads it"
            known = any(f"model.{name}" in state for name in self._slots())
            raise DataError(f"{os.fsdecode(path)}: {error}{hint * known}") from None

    # ---- modes

    def train(self: _Self, mode: bool = True) -> _Self:
        """Sets ``training``, here and in all parts; returns the module."""
        for module in self.modules().values():
            module.training = bool(mode)
        return self

    def eval(self: _Self) -> _Self:
        """Ends training: dropout passes everything, batch normalisation uses its running statistics."""
        return self.train(False)

    def freeze(self: _Self, *patterns: str) -> _Self:
        """Excludes parameters from training: those whose names match, or all.

        A pattern is a name, the name of a part, or has ``*`` and ``?``: ``"layers.0"``, ``"*.bias"``. ValueError: one
        matches no parameter.
        """
        for owner, local, _, _ in self._matching("freeze", patterns):
            owner._frozen = owner._frozen | {local}
        return self

    def unfreeze(self: _Self, *patterns: str) -> _Self:
        """Returns parameters to training: those whose names match, or all."""
        for owner, local, _, _ in self._matching("unfreeze", patterns):
            owner._frozen = owner._frozen - {local}
        return self

    def _matching(self, what: str, patterns: Sequence[str]) -> Iterator[Slot]:
        slots = {name: slot for name, slot in self._slots().items() if slot[1] not in slot[0]._buffers}
        for pattern in patterns or ("*",):
            names = [name for name in slots if fnmatch.fnmatchcase(name, pattern) or name.startswith(pattern + ".")]
            if not names:
                raise ValueError(f"{what}: no parameter's name matches {pattern!r}; there are {', '.join(slots) or 'none'}")
            yield from (slots[name] for name in names)

    def to(self: _Self, device: int | None = None, dtype: Any = None) -> _Self:
        """Copies all arrays to a device, by its id, and converts those of floats to a type; returns the module.

        DeviceError: there is no such device. DTypeError: ``dtype`` is no type of floats.

        >>> owl.nn.Linear(3, 2).to(dtype="bfloat16").weight.dtype.name
        'bfloat16'
        """
        if device is not None and (isinstance(device, bool) or not isinstance(device, (int, np.integer))):
            raise TypeError(f"to: device is the id of a device, as owl.devices() lists them, not {device!r}; a type is dtype=")
        kind = None if dtype is None else zeros([1], dtype=dtype).dtype
        if kind is not None and not _is_float(kind):
            raise DTypeError(f"to: the parameters of a module are of floats, not {kind}")
        for _, _, container, key in self._slots().values():
            container[key] = _moved(container[key], device, kind)
        return self

    # ---- what it looks like

    def modules(self) -> dict[str, Module]:
        """The module, named ``""``, and all its parts by dotted name; one that stands in several places comes once."""
        found: dict[int, tuple[str, Module]] = {}
        _collect_modules("", self, found)
        return dict(found.values())

    def summary(self, shape: Sequence[int], dtype: Any = "float32") -> Summary:
        """A table of the layers with the shapes of their results, and how many parameters they have.

        ``shape`` is that of an input, its minibatch included; the module is called with zeros, in evaluation mode.

        >>> print(owl.nn.Sequential(owl.nn.Linear(784, 50), owl.nn.ReLU(), owl.nn.Linear(50, 10)).summary([784, 1]))
        layer        result   parameters
        Sequential   [10, 1]      39,760
          0: Linear  [50, 1]      39,250
          1: ReLU    [50, 1]           0
          2: Linear  [10, 1]         510
        39,760 parameters, all trained
        """
        return summarised(self, shape, dtype)

    def __repr__(self) -> str:
        parts = [f"({name}): {part!r}".replace("\n", "\n  ") for name, part in _parts(vars(self))]
        inside = "\n  ".join(["", *parts]) + "\n" if parts else self._arguments()
        return f"{type(self).__name__}({inside})"

    def _arguments(self) -> str:
        """What a layer shows of itself in its repr."""
        return ""

    def __setattr__(self, name: str, value: Any) -> None:
        before, kind = type(self.__dict__.get(name)), type(value)
        object.__setattr__(self, name, value)
        if not (kind is before is NArray or (kind in _PLAIN and before in _PLAIN)):
            Module._changes += 1

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        Module._changes += 1

    def __getattr__(self, name: str) -> Any:  # called for names that are not there
        hint = _HINTS.get(name)
        told = f": {hint}" if hint and " is " in hint else f": write {hint}" if hint else ""
        # Python adds "Did you mean" with a name of similar spelling, if there is an object.
        raise AttributeError(f"{type(self).__name__} has no {name}{told}", name=name, obj=None if hint else self)

    # ---- walking

    def _slots(self, once: bool = False) -> dict[str, Slot]:
        """Every array by its name, in the order of attributes; of a part in several places, all names or the first."""
        return _Walk(self, once).found

    def _size(self, length: int) -> None:
        """Makes this layer's parameters whose first call has told their shape."""
        for name, value in list(vars(self).items()):
            if isinstance(value, Unsized):
                setattr(self, name, value.made(length))


_HINTS = {
    "state_dict": "module.state()",
    "load_state_dict": "module.load_state(arrays)",
    "named_parameters": "module.parameters().items()",
    "named_buffers": "module.buffers().items()",
    "named_modules": "module.modules().items()",
    "children": "module.modules()",
    "register_buffer": "self.buffer(name, x)",
    "register_parameter": "self.name = x, an NArray",
    "named_children": "module.modules().items()",
    "cuda": "module.to(device)",
    "to_gpu": "module.to(device)",
    "to_device": "module.to(device)",
    "cpu": "module.to(0)",
    "to_cpu": "module.to(0)",
    "device": "module.parameters(): each array has its device",
    "half": 'module.to(dtype="float16")',
    "bfloat16": 'module.to(dtype="bfloat16")',
    "float": 'module.to(dtype="float32")',
    "double": 'module.to(dtype="float64")',
    "params": "module.parameters().values()",
    "namedparams": "module.parameters().items()",
    "trainable_variables": "module.trainable_parameters()",
    "links": "module.modules().values()",
    "get_weights": "module.state()",
    "set_weights": "module.load_state(arrays)",
    "load_weights": "module.load(path)",
    "save_weights": "module.save(path)",
    "cleargrads": "nothing: gradients are what tape.gradient(loss, module) returns",
    "add": "module.append(layer), or give Sequential all its layers",
    "add_module": "self.name = layer",
    "add_link": "self.name = layer",
    "compile": "owl.train.Trainer(module, loss, optimizer)",
    "fit": "owl.train.Trainer(module, loss, optimizer).fit((x, labels), epochs)",
    "evaluate": "owl.train.Trainer(module, loss, optimizer).evaluate((x, labels))",
    "predict": "owl.train.Trainer(module, loss, optimizer).predict(x)",
    "zero_grad": "nothing: gradients are what tape.gradient(loss, module) returns",
    "requires_grad_": "module.freeze() or module.unfreeze()",
    "apply": "a loop over module.modules().values()",
}


_LEAVES = frozenset({bool, int, float, str, set, frozenset, type(None), FunctionType})
_PLAIN = _LEAVES - {frozenset}  # names of buffers and of frozen parameters are frozensets


class _Walk:
    """The arrays of a module and its parts; a part that contains itself is left out there."""

    def __init__(self, module: Module, once: bool) -> None:
        self.found: dict[str, Slot] = {}
        self.containers: list[Any] = []  # the lists and dicts that may hold arrays or modules
        self._once, self._seen = once, set[int]()
        self._add(module, "")

    def _add(self, module: Module, prefix: str) -> None:
        if id(module) in self._seen:
            return
        self._seen.add(id(module))
        attributes = vars(module)
        for key, value in attributes.items():
            kind = type(value)
            if kind is NArray or kind is Unsized:
                self.found[prefix + key] = (module, key, attributes, key)
            elif kind not in _LEAVES:
                self._add_attribute(value, prefix + key, module, key)
        if not self._once:
            self._seen.discard(id(module))

    def _add_attribute(self, value: Any, name: str, owner: Module, local: str) -> None:
        """An attribute, or a part of one: a module, or a container of modules and arrays."""
        if isinstance(value, Module):
            self._add(value, name + ".")
        elif isinstance(value, (list, tuple, dict)):
            fixed = isinstance(value, tuple)
            if not fixed:
                self.containers.append(value)
            for key, part in value.items() if isinstance(value, dict) else enumerate(value):
                kind = type(part)
                if kind is NArray or kind is Unsized:
                    if not fixed:
                        self.found[f"{name}.{key}"] = (owner, f"{local}.{key}", value, key)
                elif kind not in _LEAVES:
                    self._add_attribute(part, f"{name}.{key}", owner, f"{local}.{key}")


class Trained:
    """Where a module's trained parameters are kept, for a loop: walks through the module anew only if it has changed.

    An attribute that is bound to another kind of thing is a change, of any module; so is another element in a list or a dict
    that the walk has met. An array in the place of an array is none.
    """

    def __init__(self, module: Module) -> None:
        self._module, self._changes = module, -1
        self._containers: list[tuple[Any, list[Any]]] = []
        self._slots: dict[str, Slot] = {}

    def slots(self) -> dict[str, Slot]:
        """Slots by the parameters' first names, those that are frozen left out."""
        if self._changes != Module._changes or any(not _same(_outline(each), before) for each, before in self._containers):
            self._changes = Module._changes
            walk = _Walk(self._module, once=True)
            self._containers = [(each, _outline(each)) for each in walk.containers]
            self._slots = _trained(walk.found)
        return self._slots


def _outline(container: Any) -> list[Any]:
    """What tells a container from itself at another time: its keys, and its elements with their kind in the place of arrays."""
    elements = container.values() if isinstance(container, dict) else container
    kinds = [type(each) if type(each) is NArray or type(each) in _LEAVES else each for each in elements]
    return [*container, *kinds] if isinstance(container, dict) else kinds


def _same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other))


def _trained(slots: Mapping[str, Slot]) -> dict[str, Slot]:
    return {name: slot for name, slot in slots.items() if slot[1] not in slot[0]._buffers and slot[1] not in slot[0]._frozen}


def _parts(attributes: Any, prefix: str = "") -> Iterator[tuple[str, Module]]:
    """The modules among a module's attributes, with their names there."""
    for key, value in attributes.items() if isinstance(attributes, dict) else enumerate(attributes):
        if isinstance(value, Module):
            yield f"{prefix}{key}", value
        elif isinstance(value, (list, tuple, dict)):
            yield from _parts(value, f"{prefix}{key}.")


def _collect_modules(name: str, module: Module, found: dict[int, tuple[str, Module]]) -> None:
    if id(module) not in found:
        found[id(module)] = (name, module)
        for part_name, part in _parts(vars(module)):
            _collect_modules(f"{name}.{part_name}" if name else part_name, part, found)


def misfit(layer: Module, takes: str, x: Any) -> Exception:
    """The error for an argument of a layer that is no array, or has another shape."""
    if not isinstance(x, NArray):
        made = "; owl.from_numpy makes one, with the axes reversed" if isinstance(x, np.ndarray) else ""
        return DTypeError(f"{layer!r} takes an NArray, not {type(x).__name__}{made}")
    return ShapeError(f"{layer!r} takes {takes}, got {x.shape}")


def values(slots: Mapping[str, Slot]) -> dict[str, NArray]:
    """The arrays that are kept there. Error: a shape is not known yet."""
    found = {}
    for name, slot in slots.items():
        array = slot[2][slot[3]]
        found[name] = array if type(array) is NArray else _value(name, slot)
    return found


def _value(name: str, slot: Slot) -> NArray:
    owner, _, container, key = slot
    value: NArray = container[key]
    if isinstance(value, Unsized):
        raise Error(f"the shape of {name}, {value.shape}, is known after the first call of {type(owner).__name__}")
    return value


def _misshaped(slots: Mapping[str, Slot], arrays: Mapping[str, NArray]) -> list[str]:
    wrong = []
    for name, array in arrays.items():
        if not isinstance(array, NArray):
            raise TypeError(f"{name} must be an NArray, not {type(array).__name__}")
        if name in slots:
            _, _, container, key = slots[name]
            now = container[key]
            if not (now.fits(array.shape) if isinstance(now, Unsized) else now.shape == array.shape):
                wrong.append(f"{name} has shape {now.shape}, not {array.shape}")
    return wrong


def _of_other_kinds(slots: Mapping[str, Slot], arrays: Mapping[str, NArray]) -> list[str]:
    wrong = []
    for name, array in arrays.items():
        _, _, container, key = slots.get(name, (None, None, {}, None))
        now = container.get(key) if isinstance(container, dict) else container[key]
        if isinstance(now, NArray) and _is_float(now.dtype) != _is_float(array.dtype):
            wrong.append(f"{name} is of type {now.dtype}, not {array.dtype}")
    return wrong
