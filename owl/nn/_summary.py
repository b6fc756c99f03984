"""The table that Module.summary gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from owl._owl import NArray, zeros

if TYPE_CHECKING:
    from owl.nn.module import Module


class Summary(str):
    """A text that an interactive session shows as it is printed."""

    def __repr__(self) -> str:
        return str(self)


def summarised(module: Module, shape: Sequence[int], dtype: Any) -> Summary:
    """The table of a module's layers, called with zeros of a shape."""
    parts = module.modules()
    shapes = _shapes(module, parts, zeros(shape, dtype=dtype))
    rows = [("layer", "result", "parameters")]
    for name, part in parts.items():
        label = "  " * (name.count(".") + 1) + f"{name}: {type(part).__name__}" if name else type(part).__name__
        rows.append((label, shapes.get(name, ""), f"{_count(part.parameters()):,}"))
    wide = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [f"{a:{wide[0]}}  {b:{wide[1]}}  {c:>{wide[2]}}" for a, b, c in rows]
    return Summary("\n".join([*lines, _total(module)]))


def _total(module: Module) -> str:
    every, trained = _count(module.parameters()), _count(module.trainable_parameters())
    return f"{every:,} parameters, " + ("all trained" if trained == every else f"{trained:,} trained, {every - trained:,} frozen")


def _count(arrays: dict[str, NArray]) -> int:
    return sum(array.size for array in arrays.values())


def _shapes(module: Module, parts: dict[str, Module], x: NArray) -> dict[str, str]:
    """The shapes of the parts' results, noted while the module is called in evaluation mode."""
    shapes: dict[str, str] = {}

    def watched(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            result = forward(*args, **kwargs)
            shapes[name] = _shape_of(result)
            return result

        return run

    before = {name: (part.training, vars(part).get("forward")) for name, part in parts.items()}
    try:
        for name, part in parts.items():
            part.training = False
            vars(part)["forward"] = watched(name, part.forward)
        result = module(x)
    finally:
        for name, part in parts.items():
            part.training, own = before[name]
            del vars(part)["forward"]
            vars(part).update({"forward": own} if own else {})
    return {"": _shape_of(result), **shapes}


def _shape_of(result: Any) -> str:
    if isinstance(result, NArray):
        return str(result.shape)
    return ", ".join(_shape_of(each) for each in result) if isinstance(result, (tuple, list)) else type(result).__name__
