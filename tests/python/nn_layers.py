"""The layers that owl.nn's tests share, each with PyTorch's and with NumPy's formula.

Arrays are in NumPy's and PyTorch's order of axes, owl's reversed.
"""

import math

import numpy as np

import owl
import reference
from owl import nn


def numbers(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def normalised(x, axes, eps=1e-5):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def channels(a, x):
    return a.reshape([1, -1] + [1] * (x.ndim - 2))


def conv2d(x, w, b, **options):
    return reference.Conv(**options).ff(x, w, np.zeros(len(w)) if b is None else b)


def recurrent(step, states, x, state, layers=1, bidirectional=False):
    """[N, T, features]: what each layer's step gives along the sequence, and the last states."""
    ways = ["", "_reverse"] if bidirectional else [""]
    n, steps = x.shape[:2]
    lasts = []
    for layer in range(layers):
        results = []
        for way in ways:
            w = {kind: state[f"{kind}_l{layer}{way}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
            last = [np.zeros((n, w["weight_hh"].shape[1]))] * states
            ys = [None] * steps
            for t in range(steps)[:: -1 if way else 1]:
                last = step(x[:, t] @ w["weight_ih"].T + w["bias_ih"], last[0] @ w["weight_hh"].T + w["bias_hh"], last)
                ys[t] = last[0]
            results.append(np.stack(ys, 1))
            lasts.append(last)
        x = np.concatenate(results, 2)
    return x, [np.stack([last[i] for last in lasts], 1) for i in range(states)]


def lstm_step(a, b, last):
    i, f, g, o = np.split(a + b, 4, axis=1)
    c = sigmoid(f) * last[1] + sigmoid(i) * np.tanh(g)
    return [sigmoid(o) * np.tanh(c), c]


def gru_step(a, b, last):
    (r, z, n), (r2, z2, n2) = np.split(a, 3, axis=1), np.split(b, 3, axis=1)
    z = sigmoid(z + z2)
    return [(1 - z) * np.tanh(n + sigmoid(r + r2) * n2) + z * last[0]]


def attention(q, k, v, s, heads, mask=None):
    dim = q.shape[2]
    parts = [x @ w.T + b for x, w, b in zip((q, k, v), np.split(s["in_proj_weight"], 3), np.split(s["in_proj_bias"], 3))]
    q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3) for x in parts)  # [N, heads, T, dim / heads]
    scores = q @ k.swapaxes(2, 3) / math.sqrt(dim / heads)
    scores = scores if mask is None else np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    y = (softmax(scores, 3) @ v).transpose(0, 2, 1, 3).reshape(q.shape[0], q.shape[2], dim)
    return y @ s["out_proj.weight"].T + s["out_proj.bias"]


IMAGES = numbers((2, 4, 7, 6))
SEQUENCES = numbers((3, 5, 4))
CAUSAL = np.tril(np.ones((5, 5), bool))
# name: (owl's module, PyTorch's as text, input, what NumPy makes of (state, input))
LAYERS = {
    "linear": (lambda: nn.Linear(5, 3), "Linear(5, 3)", numbers((4, 5)), lambda s, x: x @ s["weight"].T + s["bias"]),
    "linear, no bias": (lambda: nn.Linear(5, 3, bias=False), "Linear(5, 3, bias=False)", numbers((4, 5)), lambda s, x: x @ s["weight"].T),
    "linear of sequences": (lambda: nn.Linear(5, 3), "Linear(5, 3)", numbers((4, 2, 5)), lambda s, x: x @ s["weight"].T + s["bias"]),
    "conv": (lambda: nn.Conv2d(4, 3, 3), "Conv2d(4, 3, 3)", IMAGES, lambda s, x: conv2d(x, s["weight"], s["bias"])),
    "conv, pairs": (lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), bias=False),
                    "Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), bias=False)", IMAGES,
                    lambda s, x: conv2d(x, s["weight"], None, pad_h=1, pad_w=2, stride_v=2, stride_h=1)),
    "conv, groups": (lambda: nn.Conv2d(4, 6, 2, dilation=2, groups=2), "Conv2d(4, 6, 2, dilation=2, groups=2)", IMAGES,
                     lambda s, x: conv2d(x, s["weight"], s["bias"], dilation=2, groups=2)),
    "conv, unequal dilation": (lambda: nn.Conv2d(4, 2, 2, dilation=(3, 1)), "Conv2d(4, 2, 2, dilation=(3, 1))", IMAGES, None),
    "max pool": (lambda: nn.MaxPool2d(2), "MaxPool2d(2)", IMAGES, lambda s, x: reference.Pool(2, 2, 2, 2, ceil_mode=False).ff(x)),
    "max pool, pairs": (lambda: nn.MaxPool2d((3, 2), (2, 3), (1, 0)), "MaxPool2d((3, 2), (2, 3), (1, 0))", IMAGES,
                        lambda s, x: reference.Pool(3, 2, 2, 3, 1, 0, ceil_mode=False).ff(x)),
    "average pool": (lambda: nn.AvgPool2d(3, 2, 1), "AvgPool2d(3, 2, 1)", IMAGES,
                     lambda s, x: reference.Pool(3, 3, 2, 2, 1, 1, average=True, ceil_mode=False).ff(x)),
    "global average pool": (nn.GlobalAvgPool2d, "AdaptiveAvgPool2d(1)", IMAGES, lambda s, x: x.mean((2, 3), keepdims=True)),
    "local response": (lambda: nn.LocalResponseNorm(3, 0.2, 0.6, 2.0), "LocalResponseNorm(3, 0.2, 0.6, 2.0)", IMAGES,
                       lambda s, x: 2.0**-0.6 * reference.lrn(x, 3, 0.1, 0.6)),
    "batch norm of images": (lambda: nn.BatchNorm(4), "BatchNorm2d(4)", IMAGES,
                             lambda s, x: normalised(x, (0, 2, 3)) * channels(s["weight"], x) + channels(s["bias"], x)),
    "batch norm of vectors": (lambda: nn.BatchNorm(5, eps=0.1, momentum=0.3), "BatchNorm1d(5, eps=0.1, momentum=0.3)", numbers((4, 5)),
                              lambda s, x: normalised(x, 0, 0.1) * s["weight"] + s["bias"]),
    "batch norm, plain": (lambda: nn.BatchNorm(4, affine=False), "BatchNorm2d(4, affine=False)", IMAGES, lambda s, x: normalised(x, (0, 2, 3))),
    "batch norm, cumulative": (lambda: nn.BatchNorm(5, momentum=None), "BatchNorm1d(5, momentum=None)", numbers((4, 5)),
                               lambda s, x: normalised(x, 0) * s["weight"] + s["bias"]),
    "layer norm, plain": (lambda: nn.LayerNorm([6, 7], affine=False), "LayerNorm((7, 6), elementwise_affine=False)", IMAGES,
                          lambda s, x: normalised(x, (2, 3))),
    "group norm, plain": (lambda: nn.GroupNorm(2, 6, affine=False), "GroupNorm(2, 6, affine=False)", numbers((4, 6)),
                          lambda s, x: normalised(x.reshape(4, 2, 3), 2).reshape(4, 6)),
    "layer norm": (lambda: nn.LayerNorm(5), "LayerNorm(5)", numbers((4, 3, 5)), lambda s, x: normalised(x, -1) * s["weight"] + s["bias"]),
    "layer norm of images": (lambda: nn.LayerNorm([6, 7, 4], eps=0.01), "LayerNorm((4, 7, 6), eps=0.01)", IMAGES,
                             lambda s, x: normalised(x, (1, 2, 3), 0.01) * s["weight"] + s["bias"]),
    "layer norm, no bias": (lambda: nn.LayerNorm(5, bias=False), "LayerNorm(5, bias=False)", numbers((4, 5)),
                            lambda s, x: normalised(x, -1) * s["weight"]),
    "group norm": (lambda: nn.GroupNorm(2, 4), "GroupNorm(2, 4)", IMAGES,
                   lambda s, x: normalised(x.reshape(2, 2, 2, 7, 6), (2, 3, 4)).reshape(x.shape) * channels(s["weight"], x) + channels(s["bias"], x)),
    "group norm of vectors": (lambda: nn.GroupNorm(3, 6), "GroupNorm(3, 6)", numbers((4, 6)),
                              lambda s, x: normalised(x.reshape(4, 3, 2), 2).reshape(4, 6) * s["weight"] + s["bias"]),
    "flatten": (nn.Flatten, "Flatten()", IMAGES, lambda s, x: x.reshape(2, -1)),
    "sequential": (lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)), "Sequential(t.Linear(5, 4), t.Tanh(), t.Linear(4, 2))",
                   numbers((3, 5)), lambda s, x: np.tanh(x @ s["0.weight"].T + s["0.bias"]) @ s["2.weight"].T + s["2.bias"]),
    "rnn": (lambda: nn.RNN(4, 3), "RNN(4, 3, batch_first=True)", SEQUENCES, lambda s, x: recurrent(lambda a, b, last: [np.tanh(a + b)], 1, x, s)[0]),
    "lstm": (lambda: nn.LSTM(4, 3), "LSTM(4, 3, batch_first=True)", SEQUENCES, lambda s, x: recurrent(lstm_step, 2, x, s)[0]),
    "gru": (lambda: nn.GRU(4, 3), "GRU(4, 3, batch_first=True)", SEQUENCES, lambda s, x: recurrent(gru_step, 1, x, s)[0]),
    "rnn, deep": (lambda: nn.RNN(4, 3, layers=2, bidirectional=True), "RNN(4, 3, 2, bidirectional=True, batch_first=True)", SEQUENCES,
                  lambda s, x: recurrent(lambda a, b, last: [np.tanh(a + b)], 1, x, s, 2, True)[0]),
    "lstm, deep": (lambda: nn.LSTM(4, 3, layers=2, bidirectional=True), "LSTM(4, 3, 2, bidirectional=True, batch_first=True)", SEQUENCES,
                   lambda s, x: recurrent(lstm_step, 2, x, s, 2, True)[0]),
    "gru, deep": (lambda: nn.GRU(4, 3, layers=2, bidirectional=True), "GRU(4, 3, 2, bidirectional=True, batch_first=True)", SEQUENCES,
                  lambda s, x: recurrent(gru_step, 1, x, s, 2, True)[0]),
    "lstm, no bias": (lambda: nn.LSTM(4, 3, bias=False), "LSTM(4, 3, bias=False, batch_first=True)", SEQUENCES, None),
    "attention": (lambda: nn.MultiHeadAttention(4, 2), "MultiheadAttention(4, 2, batch_first=True)", SEQUENCES,
                  lambda s, x: attention(x, x, x, s, 2)),
    "attention, no bias": (lambda: nn.MultiHeadAttention(4, 2, bias=False), "MultiheadAttention(4, 2, bias=False, batch_first=True)", SEQUENCES, None),
    **{name: (getattr(nn, name), f"{name}()", numbers((4, 6)), formula) for name, formula in {
        "ReLU": lambda s, x: np.maximum(x, 0), "LeakyReLU": lambda s, x: np.where(x > 0, x, 0.01 * x), "Sigmoid": lambda s, x: sigmoid(x),
        "ELU": lambda s, x: np.where(x > 0, x, np.expm1(x)), "GELU": lambda s, x: x * (1 + reference.erf(x / math.sqrt(2))) / 2,
        "SiLU": lambda s, x: x * sigmoid(x), "Tanh": lambda s, x: np.tanh(x), "Softplus": lambda s, x: np.log1p(np.exp(x)),
        "Hardsigmoid": lambda s, x: np.clip(x / 6 + 0.5, 0, 1), "Hardswish": lambda s, x: x * np.clip(x / 6 + 0.5, 0, 1),
        "Mish": lambda s, x: x * np.tanh(np.log1p(np.exp(x)))}.items()},
    "softmax": (nn.Softmax, "Softmax(-1)", numbers((4, 6)), lambda s, x: softmax(x, 1)),
    "softmax of another axis": (lambda: nn.Softmax(1), "Softmax(1)", numbers((4, 3, 5)), lambda s, x: softmax(x, 1)),
    "log softmax": (lambda: nn.LogSoftmax(-2), "LogSoftmax(1)", numbers((4, 3, 5)), lambda s, x: np.log(softmax(x, 1))),
    "leaky, slope": (lambda: nn.LeakyReLU(0.3), "LeakyReLU(0.3)", numbers((4, 6)), lambda s, x: np.where(x > 0, x, 0.3 * x)),
    "elu, alpha": (lambda: nn.ELU(0.5), "ELU(0.5)", numbers((4, 6)), lambda s, x: np.where(x > 0, x, 0.5 * np.expm1(x))),
    "gelu, approximate": (lambda: nn.GELU(True), 'GELU("tanh")', numbers((4, 6)),
                          lambda s, x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2),
}  # fmt: skip


def drawn(module, seed=1):
    """Other values for all that is float, so that ones and zeros hide nothing."""
    module.update({name: owl.from_numpy(numbers(x.shape[::-1], seed + i) * 0.5 + (name == "running_var") * 2)
                   for i, (name, x) in enumerate(module.state().items()) if x.dtype.kind == "f"})  # fmt: skip
    return module


def first(result):
    return result[0] if isinstance(result, tuple) else result
