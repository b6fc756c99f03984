"""MultiHeadAttention."""

from __future__ import annotations

import math
from collections.abc import Callable

from owl import conv, elewise as ele
from owl._arguments import hinted
from owl._owl import NArray, ShapeError, arange, matmul, zeros
from owl._types import kind_of
from owl.nn.init import glorot_uniform
from owl.nn.linear import Linear
from owl.nn.module import Module, misfit, parameter


class MultiHeadAttention(Module):
    """Attention of queries to keys, by which values are averaged, in several heads (Vaswani et al. 2017).

    ``attention(q, k=None, v=None, mask=None, causal=False)``: sequences ``[dim, T, N]``; ``k`` is ``q`` and ``v`` is ``k``
    unless they are given. The result is ``[dim, T_q, N]``. ``mask``, ``[T_k, T_q]``, also with axes ``[..., heads, N]``, is
    true where attention may go, or is of floats and is added to the scores. ``causal`` lets a query attend to its own and
    earlier places. Names and formula are those of PyTorch's MultiheadAttention: ``in_proj_weight`` ``[dim, 3 * dim]`` (for
    q, k, v, Glorot uniform), ``in_proj_bias``, ``out_proj.weight``, ``out_proj.bias``; ``init`` gives both weights, a function of the shape. A query that may attend to nothing
    gives NaN. ShapeError: other shapes. ValueError: ``heads`` does not divide ``dim``.
    """

    in_proj_weight: NArray
    in_proj_bias: NArray | None

    @hinted
    def __init__(
        self, dim: int, heads: int, bias: bool = True, init: Callable[[list[int]], NArray] = glorot_uniform
    ) -> None:
        if heads < 1 or dim % heads:
            raise ValueError(f"MultiHeadAttention: {heads} heads do not divide {dim} features")
        self.heads = heads
        self.in_proj_weight = parameter([dim, 3 * dim], init)
        self.in_proj_bias = zeros([3 * dim]) if bias else None
        self.out_proj = Linear(dim, dim, bias) if init is glorot_uniform else Linear(dim, dim, bias, init)

    def forward(self, q: NArray, k: NArray | None = None, v: NArray | None = None, mask: NArray | None = None,
                causal: bool = False) -> NArray:  # fmt: skip
        k = q if k is None else k
        v = k if v is None else v
        self._check(q, k, v)
        dim, t_q, n = q.shape
        head, t_k = dim // self.heads, k.shape[1]
        # [head, heads, T, N], with axes moved so that products are over the leading two
        queries = self._projected(q, 0).transpose([0, 2, 1, 3])
        keys = self._projected(k, 1).transpose([2, 0, 1, 3])
        values = self._projected(v, 2).transpose([0, 2, 1, 3])
        scores = matmul(keys, queries) * (1 / math.sqrt(head))  # [T_k, T_q, heads, N]
        if causal:
            scores = ele.where(arange(t_k).reshape([t_k, 1]) <= arange(t_q).reshape([1, t_q]), scores, -math.inf)
        if mask is not None:
            scores = ele.where(mask, scores, -math.inf) if kind_of(mask.dtype) == "b" else scores + mask
        together = matmul(values, conv.softmax(scores, axis=0))  # [head, T_q, heads, N]
        y: NArray = self.out_proj(together.transpose([0, 2, 1, 3]).reshape([dim, t_q, n]))
        return y

    def _projected(self, x: NArray, part: int) -> NArray:
        """The queries, keys or values of all heads, [dim / heads, heads, T, N]."""
        dim, steps, n = x.shape
        y = self.in_proj_weight[:, part * dim : (part + 1) * dim].T * x.reshape([dim, steps * n])
        if self.in_proj_bias is not None:
            y = y + self.in_proj_bias[part * dim : (part + 1) * dim]
        return y.reshape([dim // self.heads, self.heads, steps, n])

    def _check(self, q: NArray, k: NArray, v: NArray) -> None:
        dim = self.in_proj_weight.shape[0]
        for x in (q, k, v):
            if not isinstance(x, NArray):
                raise misfit(self, "", x)
        fit = all(x.ndim == 3 and x.shape[0] == dim and x.shape[2] == q.shape[2] for x in (q, k, v))
        if not fit or k.shape != v.shape:
            raise ShapeError(f"{self!r} takes queries [{dim}, T_q, N], keys and values [{dim}, T_k, N], "
                             f"got {q.shape}, {k.shape}, {v.shape}")  # fmt: skip

    def _arguments(self) -> str:
        return f"{self.in_proj_weight.shape[0]}, {self.heads}" + ("" if self.in_proj_bias is not None else ", bias=False")
