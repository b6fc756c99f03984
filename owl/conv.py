"""Convolution, pooling, local response normalisation and softmax. Images are ``[W, H, C, N]``."""

from owl import _owl

soft_op = _owl.conv.soft_op
pool_op = _owl.conv.pool_op
softmax = _owl.conv.softmax
log_softmax = _owl.conv.log_softmax
softmax_back = _owl.conv.softmax_back
Convolver = _owl.conv.Convolver
Pooler = _owl.conv.Pooler
Lrner = _owl.conv.Lrner

__all__ = ["Convolver", "Lrner", "Pooler", "log_softmax", "pool_op", "soft_op", "softmax", "softmax_back"]


def __getattr__(name):
    from owl import _hints

    raise _hints.of_module("owl.conv", name)
