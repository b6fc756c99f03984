"""Elementwise functions.

Operands are arrays or numbers, at least one array. Axes of length 1 broadcast, aligned at the first axis. integers give
float32, unless the function's text says otherwise. The backward functions take the error at the result and the
result: ``relu_back(err, y)``, ``sigm_back(err, y)``, ``tanh_back(err, y)``. ``log``, ``sigmoid`` and ``multiply`` are
other names of ``ln``, ``sigm`` and ``mult``. Each function is in ``owl`` too: ``owl.exp``.

The functions come from the engine's registry of operations, so an operation added there appears here too.
"""

from owl import _owl

__all__ = [name for name in vars(_owl.elewise) if not name.startswith("_")]

globals().update({name: getattr(_owl.elewise, name) for name in __all__})


def __getattr__(name):
    from owl import _hints

    raise _hints.of_module("owl.elewise", name)
