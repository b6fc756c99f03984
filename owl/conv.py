"""Convolution, pooling, local response normalisation and softmax. Images are ``[W, H, C, N]``."""

from functools import partial as _partial, wraps as _wraps
from inspect import Parameter as _Parameter, Signature as _Signature

from owl import _owl

soft_op = _owl.conv.soft_op
pool_op = _owl.conv.pool_op
Convolver = _owl.conv.Convolver
Pooler = _owl.conv.Pooler
Lrner = _owl.conv.Lrner

__all__ = ["Convolver", "Lrner", "Pooler", "log_softmax", "pool_op", "soft_op", "softmax", "softmax_back"]


# inspect.signature cannot read defaults such as soft_op.instance from a compiled function.
def _signature(by_position, by_name=()):
    def parameters(described, kind):
        return [_Parameter(name, kind, default=default) for name, default in described]

    return _Signature(parameters(by_position, _Parameter.POSITIONAL_OR_KEYWORD)
                      + parameters(by_name, _Parameter.KEYWORD_ONLY))


def _function(compiled, *parameters, by_name=()):
    @_wraps(compiled)
    def function(*args, **kwargs):
        return compiled(*args, **kwargs)

    function.__signature__ = _signature(parameters, by_name)
    return function


_needed = _Parameter.empty
_over = [("axis", None)]
softmax = _function(_owl.conv.softmax, ("x", _needed), ("op", soft_op.instance), by_name=_over)
log_softmax = _function(_owl.conv.log_softmax, ("x", _needed), ("op", soft_op.instance), by_name=_over)
softmax_back = _function(_owl.conv.softmax_back, ("err", _needed), ("y", _needed), ("op", soft_op.instance), by_name=_over)
Convolver.__signature__ = _signature([("pad_h", 0), ("pad_w", 0), ("stride_v", 1), ("stride_h", 1)],
                                     [("dilation", 1), ("groups", 1)])  # fmt: skip
Pooler.__signature__ = _signature([("h", _needed), ("w", _needed), ("stride_v", _needed), ("stride_h", _needed),
                                   ("pad_h", 0), ("pad_w", 0), ("op", pool_op.max)], [("ceil_mode", True)])  # fmt: skip
Lrner.__signature__ = _signature([("local_size", _needed), ("alpha", _needed), ("beta", _needed)])


# For pickle and copy: the class and its constructor's arguments.
def _reduce(self):
    given = {name: getattr(self, name) for name in type(self).__signature__.parameters}
    return _partial(type(self), **given), ()


for _layer in (Convolver, Pooler, Lrner):
    _layer.__reduce__ = _reduce


def __getattr__(name):
    from owl import _hints

    raise _hints.of_module("owl.conv", name)
