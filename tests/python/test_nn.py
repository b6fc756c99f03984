"""owl.nn: layers, losses and first values against NumPy's formulas, and against PyTorch where it is installed."""

import copy
import math
import pickle
import re
import threading

import numpy as np
import pytest

import children
import interchange
import owl
import reference
from conftest import same_bits, settle
from owl import nn

# ---- layers: arrays here are in NumPy's and PyTorch's order of axes, owl's reversed


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


@pytest.mark.parametrize("name", [name for name, row in LAYERS.items() if row[3]])
def test_values(name):
    make, _, x, formula = LAYERS[name]
    module = drawn(make())
    state = {key: a.to_numpy().astype("float64") for key, a in module.state().items()}
    y = first(module(owl.from_numpy(x)))
    np.testing.assert_allclose(y.to_numpy(), formula(state, x.astype("float64")), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_by_differences(name):
    make, _, x, _ = LAYERS[name]
    module = drawn(make())
    module.update({key: a.astype("float64") for key, a in module.state().items() if a.dtype.kind == "f"})
    x = owl.from_numpy(x.astype("float64"))
    seed = owl.from_numpy(numbers(first(module(x)).shape[::-1], 7).astype("float64"))
    sources = {"x": x, **module.parameters()}
    ways = {key: owl.from_numpy(numbers(a.shape[::-1], 8 + i).astype("float64")) for i, (key, a) in enumerate(sources.items())}

    def value(at):
        module.update({key: a for key, a in at.items() if key != "x"})
        return owl.multiply(first(module(at["x"])), seed).sum()

    with owl.Tape() as tape:
        y = value(sources)
    grads = tape.gradient(y, sources)
    slope = sum(owl.multiply(grads[key], ways[key]).sum().item() for key in sources)
    near = [value({key: a + ways[key] * h for key, a in sources.items()}).item() for h in (1e-6, -1e-6)]
    assert slope == pytest.approx((near[0] - near[1]) / 2e-6, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", LAYERS)
def test_pytorch(name, tmp_path):
    """PyTorch's state in safetensors loads as it is; outputs, gradients and buffers agree; and the reverse."""
    torch = pytest.importorskip("torch")
    files = pytest.importorskip("safetensors.numpy")
    make, text, x, _ = LAYERS[name]
    torch.manual_seed(0)
    theirs = eval("t." + text, {"t": torch.nn})
    with torch.no_grad():
        for i, (_key, a) in enumerate(theirs.named_parameters()):
            a += 0.3 * torch.from_numpy(numbers(tuple(a.shape), i))
    files.save_file({key: a.numpy() for key, a in theirs.state_dict().items()}, tmp_path / "theirs.safetensors")
    ours = make()
    ours.load(tmp_path / "theirs.safetensors")

    x_theirs = torch.from_numpy(x).requires_grad_()
    y_theirs = first(theirs(*[x_theirs] * (3 if "attention" in name else 1)))
    seed = numbers(tuple(y_theirs.shape), 3)
    (y_theirs * torch.from_numpy(seed)).sum().backward()
    x_ours = owl.from_numpy(x)
    with owl.Tape() as tape:
        y = first(ours(x_ours * 1.0))
    g_x, grads = tape.gradient(y, [x_ours, ours], seed=owl.from_numpy(seed))

    def close(a, b):
        np.testing.assert_allclose(a.to_numpy(), b.detach().numpy(), rtol=1e-5, atol=1e-5)

    close(y, y_theirs)
    close(g_x, x_theirs.grad)
    assert list(grads) == [key for key, _ in theirs.named_parameters()] or sorted(grads) == sorted(dict(theirs.named_parameters()))
    for key, a in theirs.named_parameters():
        close(grads[key], a.grad)
    for key, a in theirs.named_buffers():
        close(ours.buffers()[key].reshape([a.numel()]), a.reshape(-1))

    drawn(ours, 20).save(tmp_path / "ours.safetensors")
    theirs.load_state_dict({key: torch.from_numpy(a) for key, a in files.load_file(tmp_path / "ours.safetensors").items()}, strict=True)
    close(first(ours.eval()(x_ours)), first(theirs.eval()(*[x_theirs] * (3 if "attention" in name else 1))))


def test_the_table_of_interchange_has_every_layer_with_parameters(tmp_path):
    shown = {type(part).__name__ for _, make, _ in interchange.LAYERS for part in make().modules().values()}
    layers = {name for name in nn.__all__ if isinstance(getattr(nn, name), type)} - {"Module"}
    made = {name: LAYERS[row][0]() for row in LAYERS for name in [type(LAYERS[row][0]()).__name__]}
    assert {name for name in layers if name in made and made[name].state()} | {"Embedding"} <= shown
    pytest.importorskip("torch")
    pytest.importorskip("safetensors.torch")
    for text, make, shape in interchange.LAYERS:
        assert max(interchange.compare(text, make, shape, tmp_path)) < 1e-5, text


@pytest.mark.parametrize("make, shapes", [
    (lambda: nn.Linear(5, 3), {"weight": [5, 3], "bias": [3]}),
    (lambda: nn.Conv2d(4, 6, (3, 2), groups=2), {"weight": [2, 3, 2, 6], "bias": [6]}),
    (lambda: nn.BatchNorm(3), {"weight": [3], "bias": [3], "running_mean": [3], "running_var": [3], "num_batches_tracked": [1]}),
    (lambda: nn.LayerNorm([5, 4]), {"weight": [5, 4], "bias": [5, 4]}),
    (lambda: nn.Embedding(7, 3), {"weight": [3, 7]}),
    (lambda: nn.LSTM(4, 3, layers=2, bidirectional=True), {
        f"{kind}_l{i}{way}": shape for i, below in ((0, 4), (1, 6)) for way in ("", "_reverse")
        for kind, shape in (("weight_ih", [below, 12]), ("weight_hh", [3, 12]), ("bias_ih", [12]), ("bias_hh", [12]))}),
    (lambda: nn.MultiHeadAttention(4, 2), {"in_proj_weight": [4, 12], "in_proj_bias": [12], "out_proj.weight": [4, 4],
                                           "out_proj.bias": [4]}),
], ids=lambda x: "" if callable(x) else next(iter(x)))  # fmt: skip
def test_names_and_shapes_are_pytorchs_reversed(make, shapes):
    assert {name: a.shape for name, a in make().state().items()} == shapes


def test_every_layer_is_compared():
    layers = {name for name in nn.__all__ if isinstance(getattr(nn, name), type)} - {"Module", "Dropout", "Embedding"}
    assert layers - {type(row[0]()).__name__ for row in LAYERS.values()} == set()


# ---- embedding, dropout, states of recurrent layers, masks


def test_embedding():
    layer = nn.Embedding(7, 3)
    weight = layer.weight.to_numpy()
    assert layer.weight.shape == [3, 7] and abs(float(owl.seed(0) or nn.Embedding(1000, 50).weight.mean())) < 0.02
    for ids in ([0, 6, 2, 2], [[1, 2], [3, 4], [5, 6]]):
        y = layer(owl.from_numpy(np.array(ids, "int32")))
        assert (y.to_numpy() == weight[np.array(ids)]).all()
    ids = owl.from_numpy(np.array([2, 0, 2], "int32"))
    with owl.Tape() as tape:
        y = layer(ids)
    g = tape.gradient(y, layer, seed=owl.ones([3, 3]))["weight"].to_numpy()
    assert g[:, 0].tolist() == [1, 0, 2, 0, 0, 0, 0]
    assert (layer(owl.from_numpy(np.array([-1], "int32"))).to_numpy() == weight[-1]).all()
    with pytest.raises(owl.IndexError, match="7"):
        layer(owl.from_numpy(np.array([1, 7], "int32"))).to_numpy()
    with pytest.raises(owl.DTypeError, match="takes integers, got float32"):
        layer(owl.ones([3]))


def test_embedding_of_pytorch():
    torch = pytest.importorskip("torch")
    theirs, ours = torch.nn.Embedding(7, 3), nn.Embedding(7, 3)
    ours.load_state({"weight": owl.from_numpy(theirs.weight.detach().numpy())})
    ids = np.array([[1, 2], [1, 6]], "int64")
    theirs(torch.from_numpy(ids)).square().sum().backward()
    with owl.Tape() as tape:
        y = owl.square(ours(owl.from_numpy(ids.astype("int32")))).sum()
    np.testing.assert_allclose(tape.gradient(y, ours)["weight"].to_numpy(), theirs.weight.grad.numpy(), rtol=1e-5)


def test_dropout():
    owl.seed(3)
    layer = nn.Dropout(0.2)
    x = owl.ones([100, 1000])
    with owl.Tape() as tape:
        y = layer(x)
    g = tape.gradient(y, x, seed=owl.ones([100, 1000])).to_numpy()
    assert sorted(np.unique(y.to_numpy())) == [0.0, 1.25]
    assert (g == y.to_numpy()).all()
    assert np.mean(y.to_numpy() == 0) == pytest.approx(0.2, abs=0.01)
    assert not (layer(x).to_numpy() == y.to_numpy()).all()  # another mask each time
    owl.seed(3)
    assert (layer(x).to_numpy() == y.to_numpy()).all()
    assert layer.eval()(x) is x and nn.Dropout(0.0)(x) is x
    assert nn.Dropout(1.0)(owl.ones([3])).tolist() == [0, 0, 0]
    assert layer.train()(owl.ones([4], "float64")).dtype == np.float64
    for bad in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="from 0 to 1"):
            nn.Dropout(bad)


def test_dropout_keeps_no_mask():
    x = owl.ones([512, 1024])
    owl.wait_for_all()
    before = settle() and owl.memory_stats()["allocated"]
    with owl.Tape() as tape:
        y = nn.Dropout(0.5)(x)
        y.wait_for_eval()
        settle()
        assert owl.memory_stats()["allocated"] - before == y.size * 4
    assert (tape.gradient(y, x, seed=owl.ones([512, 1024])).to_numpy() == y.to_numpy()).all()


@pytest.mark.parametrize("cls, step, states", [(nn.RNN, lambda a, b, last: [np.tanh(a + b)], 1), (nn.LSTM, lstm_step, 2), (nn.GRU, gru_step, 1)])
def test_states_of_recurrent_layers(cls, step, states):
    layer = cls(4, 3, layers=2, bidirectional=True)
    x = owl.from_numpy(SEQUENCES)
    y, last = layer(x)
    assert y.shape == [6, 5, 3] and [each.shape for each in (last if states == 2 else [last])] == [[3, 4, 3]] * states
    want = recurrent(step, states, SEQUENCES, {k: a.to_numpy() for k, a in layer.state().items()}, 2, True)[1]
    for a, b in zip(last if states == 2 else [last], want):
        np.testing.assert_allclose(a.to_numpy(), b.transpose(0, 1, 2), rtol=1e-5, atol=1e-5)
    one = cls(4, 3)  # a sequence in two halves
    whole, end = one(x)
    before, middle = one(x[:, :2])
    after, end_too = one(x[:, 2:], middle)
    np.testing.assert_allclose(owl.concat([before, after], 1).to_numpy(), whole.to_numpy(), rtol=1e-5, atol=1e-6)
    for a, b in zip(end if states == 2 else [end], end_too if states == 2 else [end_too]):
        np.testing.assert_allclose(a.to_numpy(), b.to_numpy(), rtol=1e-5, atol=1e-6)
    for bad in (owl.zeros([3, 1, 2]), (owl.zeros([3, 1, 3]),) * 3):
        with pytest.raises(owl.ShapeError, match=r"the state is .*each \[3, 1, 3\]"):
            one(x, bad)
    for bad in (owl.ones([4, 5]), owl.ones([3, 5, 3]), owl.ones([4, 0, 3])):
        with pytest.raises(owl.ShapeError, match=r"takes sequences \[4, T, N\]"):
            one(bad)
    with pytest.raises(ValueError, match="1 or more, got 3 and 0"):
        cls(4, 3, layers=0)


def test_masks_of_attention():
    layer = drawn(nn.MultiHeadAttention(4, 2))
    state = {key: a.to_numpy() for key, a in layer.state().items()}
    x, other = numbers((3, 5, 4)), numbers((3, 6, 4), 1)
    q, k = owl.from_numpy(x), owl.from_numpy(other)

    def close(y, want):
        np.testing.assert_allclose(y.to_numpy(), want, rtol=1e-5, atol=1e-5)

    close(layer(q, causal=True), attention(x, x, x, state, 2, CAUSAL))
    mask = np.random.default_rng(0).random((5, 6)) < 0.7
    mask[:, 0] = True
    close(layer(q, k, mask=owl.from_numpy(mask)), attention(x, other, other, state, 2, mask))
    added = numbers((5, 6), 5)
    close(layer(q, k, k * 2.0, mask=owl.from_numpy(added)), attention(x, other, 2 * other, state, 2, added))
    per_sample = np.random.default_rng(1).random((3, 1, 5, 5)) < 0.7
    per_sample[..., 0] = True
    close(layer(q, mask=owl.from_numpy(per_sample), causal=True), attention(x, x, x, state, 2, per_sample & CAUSAL))
    for bad in ((owl.ones([3, 5, 3]),), (q, owl.ones([4, 6, 2])), (q, k, q), (owl.ones([4, 5]),)):
        with pytest.raises(owl.ShapeError, match=r"takes queries \[4, T_q, N\]"):
            layer(*bad)
    with pytest.raises(ValueError, match="3 heads do not divide 4"):
        nn.MultiHeadAttention(4, 3)


def test_statistics_of_batch_norm():
    layer = drawn(nn.BatchNorm(4, momentum=0.3))
    before = {name: a.to_numpy() for name, a in layer.buffers().items()}
    with owl.Tape() as tape:
        y = layer(owl.from_numpy(IMAGES)).sum()
    tape.gradient(y, layer)
    n = IMAGES.size // 4
    mean, var = IMAGES.mean((0, 2, 3)), IMAGES.var((0, 2, 3)) * n / (n - 1)
    np.testing.assert_allclose(layer.running_mean.to_numpy(), 0.7 * before["running_mean"] + 0.3 * mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.running_var.to_numpy(), 0.7 * before["running_var"] + 0.3 * var, rtol=1e-5)
    assert layer.num_batches_tracked.tolist() == [1]
    after = {name: a.to_numpy() for name, a in layer.eval().buffers().items()}
    y = layer(owl.from_numpy(IMAGES)).to_numpy()
    x, s = IMAGES, {name: channels(a.to_numpy(), IMAGES) for name, a in layer.state().items() if a.shape == [4]}
    want = (x - s["running_mean"]) / np.sqrt(s["running_var"] + 1e-5) * s["weight"] + s["bias"]
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    assert all((a.to_numpy() == after[name]).all() for name, a in layer.buffers().items())  # evaluation moves nothing


def test_the_cumulative_mean_of_batch_norm():
    layer = nn.BatchNorm(5, momentum=None)
    batches = [numbers((4, 5), seed) for seed in range(3)]
    for x in batches:
        layer(owl.from_numpy(x))
    np.testing.assert_allclose(layer.running_mean.to_numpy(), np.mean([x.mean(0) for x in batches], 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.running_var.to_numpy(), np.mean([x.var(0, ddof=1) for x in batches], 0), rtol=1e-5)


def test_batch_norm_of_pytorch_over_several_batches():
    torch = pytest.importorskip("torch")
    for momentum in (0.1, None):
        theirs, ours = torch.nn.BatchNorm1d(5, momentum=momentum), nn.BatchNorm(5, momentum=momentum)
        for seed in range(4):
            theirs(torch.from_numpy(numbers((4, 5), seed)))
            ours(owl.from_numpy(numbers((4, 5), seed)))
        for name, a in theirs.named_buffers():
            np.testing.assert_allclose(ours.buffers()[name].to_numpy().reshape(a.shape), a.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_buffers_keep_their_type(dtype):
    layer = nn.BatchNorm(5).to(dtype=dtype)
    for x in (owl.from_numpy(numbers((4, 5))), owl.from_numpy(numbers((4, 5))).astype(dtype)):
        layer(x)
        assert layer.running_mean.dtype.name == layer.running_var.dtype.name == dtype
    assert layer.num_batches_tracked.dtype == np.int64


def test_no_gradient_flows_through_running_statistics():
    layer, x = nn.BatchNorm(3), owl.randn([3, 8])
    with owl.Tape() as tape:
        layer.train()(x)
        y = layer.eval()(owl.ones([3, 2])).sum()
    with pytest.raises(owl.Error, match="does not depend on"):
        tape.gradient(y, x)


# ---- losses

LOGITS = numbers((6, 4))  # [N, classes]
CLASSES = np.array([0, 3, 1, 2, 3, 3], "int32")


def log_probabilities(x):
    return np.log(softmax(x.astype("float64"), -1))


@pytest.mark.parametrize("reduce", ["mean", "sum", "none"])
@pytest.mark.parametrize("form", ["[N]", "[1, N]", "one-hot", "probabilities", "bool", "one-hot of integers"])
def test_softmax_cross_entropy(reduce, form):
    p = np.eye(4)[CLASSES] if form != "probabilities" else softmax(numbers((6, 4), 3).astype("float64"), 1)
    labels = {"[N]": CLASSES, "[1, N]": CLASSES[:, None], "bool": p > 0, "one-hot of integers": p.astype("int32")}.get(form, p.astype("float32"))
    each = -(p * log_probabilities(LOGITS)).sum(1)
    want = {"mean": each.mean(keepdims=True), "sum": each.sum(keepdims=True), "none": each}[reduce]
    logits = owl.from_numpy(LOGITS)
    for got in (nn.softmax_cross_entropy(logits, owl.from_numpy(labels), reduce),
                nn.nll(owl.conv.log_softmax(logits), owl.from_numpy(labels), reduce=reduce)):  # fmt: skip
        assert got.dtype == np.float32 and got.to_numpy().shape == want.shape
        np.testing.assert_allclose(got.to_numpy(), want, rtol=1e-5)


def test_labels_of_sequences():
    logits = numbers((5, 3, 4))
    labels = np.random.default_rng(0).integers(0, 4, (5, 3)).astype("int32")
    want = -np.take_along_axis(log_probabilities(logits), labels[..., None], 2)[..., 0]
    for shaped in (labels, labels[..., None], np.eye(4, dtype="f4")[labels]):
        got = nn.softmax_cross_entropy(owl.from_numpy(logits), owl.from_numpy(shaped), "none")
        np.testing.assert_allclose(got.to_numpy(), want, rtol=1e-5)
        assert nn.accuracy(owl.from_numpy(logits), owl.from_numpy(shaped)).item() == pytest.approx((logits.argmax(2) == labels).mean())


ELEMENTWISE = {
    "mse": lambda x, t: (x - t) ** 2,
    "l1": lambda x, t: np.abs(x - t),
    "huber": lambda x, t: np.where(np.abs(x - t) < 1, (x - t) ** 2 / 2, np.abs(x - t) - 0.5),
    "binary_cross_entropy": lambda x, t: -t * np.log(sigmoid(x)) - (1 - t) * np.log(1 - sigmoid(x)),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("reduce", ["mean", "sum", "none"])
def test_losses_of_equal_shapes(name, reduce):
    x, t = numbers((5, 3)) * 2, np.random.default_rng(1).random((5, 3)).astype("float32")
    each = ELEMENTWISE[name](x.astype("float64"), t.astype("float64"))
    want = {"mean": each.mean(keepdims=True), "sum": each.sum(keepdims=True), "none": each}[reduce].reshape(-1 if reduce != "none" else (5, 3))
    loss = getattr(nn, name)
    got = loss(owl.from_numpy(x), owl.from_numpy(t), reduce=reduce).to_numpy()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    for shape in ([3, 1], [3], [5, 3], [3, 5, 1]):
        with pytest.raises(owl.ShapeError, match="nothing is broadcast"):
            loss(owl.from_numpy(x), owl.ones(shape))


TORCH_LOSSES = {
    "mse": "mse_loss", "l1": "l1_loss", "huber": "huber_loss", "binary_cross_entropy": "binary_cross_entropy_with_logits",
    "softmax_cross_entropy": "cross_entropy",
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH_LOSSES)
@pytest.mark.parametrize("reduce", ["mean", "sum", "none"])
def test_losses_of_pytorch(name, reduce):
    torch = pytest.importorskip("torch")
    x = numbers((6, 4)) * 3
    t = CLASSES if name == "softmax_cross_entropy" else np.random.default_rng(1).random((6, 4)).astype("float32")
    x_theirs = torch.from_numpy(x).requires_grad_()
    t_theirs = torch.from_numpy(t.astype("int64") if t.dtype == np.int32 else t)
    theirs = getattr(torch.nn.functional, TORCH_LOSSES[name])(x_theirs, t_theirs, reduction=reduce)
    theirs.sum().backward()
    x_ours = owl.from_numpy(x)
    with owl.Tape() as tape:
        ours = getattr(nn, name)(x_ours, owl.from_numpy(t), reduce=reduce)
        total = ours.sum()
    np.testing.assert_allclose(ours.to_numpy(), theirs.detach().numpy().reshape(ours.to_numpy().shape), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(total, x_ours).to_numpy(), x_theirs.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_huber_of_another_delta():
    x, t = owl.from_numpy(np.array([0.5, 3.0], "f4")), owl.zeros([2])
    assert nn.huber(x, t, delta=2.0, reduce="none").tolist() == pytest.approx([0.125, 4.0])
    with pytest.raises(ValueError, match="delta must be above 0"):
        nn.huber(x, t, delta=0.0)


def test_accuracy():
    logits = owl.from_numpy(LOGITS)
    want = (LOGITS.argmax(1) == CLASSES).mean()
    for labels in (CLASSES, CLASSES[:, None], np.eye(4, dtype="f4")[CLASSES]):
        assert nn.accuracy(logits, owl.from_numpy(labels)).item() == pytest.approx(want)
    one = owl.from_numpy(np.array([[0.5], [-2.0], [3.0]], "f4"))
    for labels in ([[1], [1], [1]], [1, 1, 1]):
        assert nn.accuracy(one, owl.from_numpy(np.array(labels, "int32"))).item() == pytest.approx(2 / 3)
    assert nn.accuracy(one, owl.from_numpy(np.array([[1.0], [0], [0]], "f4"))).item() == pytest.approx(2 / 3)


def test_float64_stays():
    x, labels = owl.from_numpy(LOGITS.astype("float64")), owl.from_numpy(CLASSES)
    assert nn.softmax_cross_entropy(x, labels).dtype == np.float64 and nn.nll(x, labels).dtype == np.float64
    assert nn.mse(x, x).dtype == np.float64 and nn.accuracy(x, labels).dtype == np.float32


def test_large_logits_stay_finite():
    x = owl.from_numpy(np.array([[1e4, -1e4, 0.0]], "f4"))
    assert nn.softmax_cross_entropy(x, owl.from_numpy(np.array([1], "int32"))).item() == pytest.approx(2e4)
    assert nn.binary_cross_entropy(x, owl.from_numpy(np.array([[0.0, 1.0, 0.5]], "f4"))).item() == pytest.approx(2e4 / 3, rel=1e-3)


@pytest.mark.parametrize("call, error, text", [
    (lambda x, y: nn.softmax_cross_entropy(x, owl.ones([6])), owl.DTypeError, "of type float32; classes are integers"),
    (lambda x, y: nn.softmax_cross_entropy(x, owl.ones([5], "int32")), owl.ShapeError, r"labels have shape \[5\]; for logits \[4, 6\] they have \[6\]"),
    (lambda x, y: nn.nll(x, owl.ones([6, 4])), owl.ShapeError, r"or \[4, 6\], probabilities"),
    (lambda x, y: nn.accuracy(x, owl.ones([6])), owl.DTypeError, "accuracy: labels are of type float32"),
    (lambda x, y: nn.accuracy(owl.ones([4]), y), owl.ShapeError, r"\[classes, N\], got \[4\]"),
    (lambda x, y: nn.softmax_cross_entropy(x, y, reduce="average"), ValueError, "\"mean\", \"sum\" or \"none\", not 'average'"),
    (lambda x, y: nn.mse(x, x, "Mean"), ValueError, "not 'Mean'"),
    (lambda x, y: nn.mse(x, 3.0), owl.DTypeError, "two NArrays, not float"),
    (lambda x, y: nn.softmax_cross_entropy(LOGITS, y), owl.DTypeError, "not ndarray; owl.from_numpy"),
])  # fmt: skip
def test_mistakes_of_losses(call, error, text):
    with pytest.raises(error, match=text):
        call(owl.from_numpy(LOGITS), owl.from_numpy(CLASSES))


@pytest.mark.parametrize("label", [4, -1, 100])
def test_a_label_out_of_range(label):
    labels = CLASSES.copy()
    labels[2] = label
    loss = nn.softmax_cross_entropy(owl.from_numpy(LOGITS), owl.from_numpy(labels))
    with pytest.raises(owl.IndexError, match=str(label)):
        loss.item()


# ---- first values


@pytest.mark.parametrize("init, variance", [
    (nn.init.he_normal, 2 / 200), (nn.init.he_uniform, 2 / 200), (nn.init.glorot_normal, 2 / 500), (nn.init.glorot_uniform, 2 / 500),
    (nn.init.lecun_normal, 1 / 200), (nn.init.normal, 1.0), (nn.init.uniform, 1 / 12),
])  # fmt: skip
def test_variances(init, variance):
    owl.seed(1)
    a = init([200, 300]).to_numpy()
    assert a.var() == pytest.approx(variance, rel=0.03)
    assert a.mean() == pytest.approx(0.5 if init is nn.init.uniform else 0.0, abs=0.01)
    if init in (nn.init.he_uniform, nn.init.glorot_uniform):
        assert np.abs(a).max() <= math.sqrt(3 * variance)
    if init not in (nn.init.normal, nn.init.uniform):
        kernel = init([3, 3, 20, 30]).to_numpy()  # fan-in 180, fan-out 270
        fans = {nn.init.glorot_normal: 2 / 450, nn.init.glorot_uniform: 2 / 450, nn.init.lecun_normal: 1 / 180}
        assert kernel.var() == pytest.approx(fans.get(init, 2 / 180), rel=0.1)
        with pytest.raises(owl.ShapeError, match="two axes or more"):
            init([10])


def test_constant_and_settings():
    assert nn.init.constant([2], 0.5).tolist() == [0.5, 0.5] and nn.init.constant([1]).item() == 0
    assert nn.init.normal([10000], 3.0, 0.1).to_numpy().mean() == pytest.approx(3.0, abs=0.01)
    assert nn.init.uniform([1000], -2.0, -1.0).to_numpy().max() <= -1.0


@pytest.mark.parametrize("shape", [[4, 4], [3, 7], [7, 3], [3, 3, 2, 5], [2, 2, 3, 20]])
def test_orthogonal(shape):
    a = nn.init.orthogonal(shape, gain=2.0).to_numpy()
    matrix = a.reshape(shape[-1], -1)
    product = matrix @ matrix.T if shape[-1] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-5)
    with pytest.raises(owl.ShapeError, match="two axes"):
        nn.init.orthogonal([3])


def test_defaults_of_layers():
    owl.seed(0)
    layer = nn.Linear(400, 300)
    assert layer.weight.to_numpy().var() == pytest.approx(2 / 400, rel=0.03) and not layer.bias.to_numpy().any()
    kernels = nn.Conv2d(20, 30, 3)
    assert kernels.weight.to_numpy().var() == pytest.approx(2 / 180, rel=0.1) and not kernels.bias.to_numpy().any()
    lstm = nn.LSTM(100, 25)
    for a in lstm.state().values():
        assert np.abs(a.to_numpy()).max() <= 0.2 and a.to_numpy().var() == pytest.approx(0.2**2 / 3, rel=0.3)


def test_init_is_given_to_a_layer():
    assert nn.Linear(3, 2, init=nn.init.constant).weight.tolist() == owl.zeros([3, 2]).tolist()
    assert nn.Conv2d(1, 2, 3, init=lambda shape: nn.init.constant(shape, 2.0)).weight.to_numpy().sum() == 36
    assert nn.Embedding(5, 2, init=nn.init.constant).weight.tolist() == owl.zeros([2, 5]).tolist()
    with pytest.raises(owl.ShapeError, match=r"init gave an array of shape \[2, 3\] for a parameter of shape \[3, 2\]"):
        nn.Linear(3, 2, init=lambda shape: owl.ones(shape[::-1]))
    with pytest.raises(TypeError, match="function of a shape.*not 0.1"):
        nn.Linear(3, 2, init=0.1)
    with pytest.raises(TypeError, match="must give an NArray; .* gave ndarray"):
        nn.Linear(3, 2, init=np.zeros)


# ---- modules


class Net(nn.Module):
    def __init__(self, units=4):
        self.scale = owl.ones([1])
        self.layers = [nn.Linear(3, units), nn.Linear(units, 2)]
        self.heads = {"a": nn.Linear(2, 1), "b": [nn.Linear(2, 1, bias=False)]}
        self.pair = (nn.BatchNorm(2), owl.ones([9]))
        self.buffer("seen", owl.zeros([1]))
        self.name = "net"

    def forward(self, x):
        self.seen = self.seen + 1.0
        x = owl.multiply(self.pair[0](self.layers[1](owl.relu(self.layers[0](x)))), self.scale)
        return self.heads["a"](x) + self.heads["b"][0](x)


NAMES = ["scale", "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias", "heads.a.weight", "heads.a.bias",
         "heads.b.0.weight", "pair.0.weight", "pair.0.bias"]  # fmt: skip
BUFFERS = ["pair.0.running_mean", "pair.0.running_var", "pair.0.num_batches_tracked", "seen"]


def test_names():
    net = Net()
    assert list(net.parameters()) == NAMES and list(net.buffers()) == BUFFERS
    assert list(net.state()) == [*NAMES, *BUFFERS]
    assert list(net.modules()) == ["", "layers.0", "layers.1", "heads.a", "heads.b.0", "pair.0"]
    assert list(nn.Sequential(nn.Linear(2, 2), owl.relu, nn.Sequential(nn.Linear(2, 2))).parameters()) == [
        "0.weight", "0.bias", "2.0.weight", "2.0.bias"]  # fmt: skip


def test_a_tape_takes_a_module():
    net, x = Net(), owl.randn([3, 5])
    with owl.Tape() as tape:
        y = net(x).sum()
    grads = tape.gradient(y, net)
    assert list(grads) == NAMES and all(grads[name].shape == a.shape for name, a in net.parameters().items())
    assert net.seen.item() == 1.0
    _, again = owl.value_and_grad(lambda module: module(x).sum())(net)
    assert list(again) == NAMES


def test_modules_among_other_arguments():
    net, w, x = nn.Linear(3, 2), owl.ones([2]), owl.ones([3, 4])

    def loss(parts):
        return owl.multiply(parts["net"](x), parts["w"]).sum()

    value, grads = owl.value_and_grad(loss)({"net": net, "w": w})
    assert list(grads) == ["net", "w"] and list(grads["net"]) == ["weight", "bias"]
    np.testing.assert_allclose(grads["w"].to_numpy(), net(x).sum(1).to_numpy().ravel(), rtol=1e-6)


def test_update_binds():
    net = Net()
    new = {"scale": owl.full([1], 3.0), "heads.b.0.weight": owl.ones([2, 1]), "seen": owl.ones([1])}
    net.update(new)
    assert net.scale is new["scale"] and net.heads["b"][0].weight is new["heads.b.0.weight"] and net.seen is new["seen"]
    before = net.state()
    with pytest.raises(owl.DataError, match=r"left over: more; scale has shape \[1\], not \[2\]"):
        net.update({"seen": owl.zeros([1]), "more": owl.ones([1]), "scale": owl.ones([2])})
    with pytest.raises(TypeError, match="scale must be an NArray, not ndarray"):
        net.update({"scale": np.ones(1)})
    assert all(net.state()[name] is a for name, a in before.items())


def test_arrays_in_lists_and_dicts():
    class Own(nn.Module):
        def __init__(self):
            self.w = [owl.ones([2]), {"deep": owl.ones([3])}]
            self.kept = (owl.ones([2]),)

        def __call__(self, x):
            return owl.multiply(x, self.w[0]).sum() + self.w[1]["deep"].sum()

    own = Own()
    assert list(own.parameters()) == ["w.0", "w.1.deep"]
    with owl.Tape() as tape:
        y = own(owl.ones([2]))
    owl.optim.SGD(1.0).update(own, tape.gradient(y, own))
    assert own.w[0].tolist() == [0, 0] and own.w[1]["deep"].tolist() == [0, 0, 0]
    own.freeze("w.0")
    assert list(own.trainable_parameters()) == ["w.1.deep"]


def test_parts_in_several_places():
    class Twice(nn.Module):
        def __init__(self):
            self.a = nn.Linear(2, 2)
            self.b = self.a
            self.parent = self

        def forward(self, x):
            return self.b(self.a(x))

    twice = Twice()
    assert list(twice.parameters()) == ["a.weight", "a.bias"]
    assert list(twice.state()) == ["a.weight", "a.bias", "b.weight", "b.bias"]  # as PyTorch's state_dict
    assert list(twice.modules()) == ["", "a"]


def test_strict_loading_lists_everything():
    net = Net()
    state = net.state()
    good = {name: x for name, x in state.items() if name not in ("scale", "seen")}
    bad = good | {"layers.0.weight": owl.ones([4, 3]), "pair.0.bias": owl.ones([2], "int32"), "layers.7.bias": owl.ones([1]), "x": owl.ones([1])}
    with pytest.raises(owl.DataError) as caught:
        net.load_state(bad)
    text = str(caught.value)
    for part in ("missing: scale, seen", "left over: layers.7.bias, x", "layers.0.weight has shape [3, 4], not [4, 3]",
                 "pair.0.bias is of type float32, not int32"):  # fmt: skip
        assert part in text
    assert all(net.state()[name] is x for name, x in state.items())
    net.load_state({name: x.astype("float64") if x.dtype == np.float32 else x for name, x in state.items()})
    assert {x.dtype.name for name, x in net.state().items() if name in NAMES} == {"float32"}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_files_of_other_types(suffix, dtype, tmp_path):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
        if dtype == "bfloat16" and not reference.bfloat16:
            pytest.skip("needs ml_dtypes")
    net, same, single = drawn(Net()).to(dtype=dtype), Net().to(dtype=dtype), Net()
    net.save(tmp_path / f"net{suffix}")
    for other in (same, single):
        other.load(tmp_path / f"net{suffix}")
        for name, a in net.state().items():
            assert (a.astype("float64").to_numpy() == other.state()[name].astype("float64").to_numpy()).all(), name
    assert same.scale.dtype.name == dtype and single.scale.dtype == np.float32
    assert net.pair[0].num_batches_tracked.dtype == np.int64 and same(owl.ones([3, 2])).shape == [1, 2]


def test_bfloat16_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    files = pytest.importorskip("safetensors.torch")
    theirs = torch.nn.Linear(5, 3).to(torch.bfloat16)
    files.save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    ours = nn.Linear(5, 3).to(dtype="bfloat16")
    ours.load(tmp_path / "theirs.safetensors")
    assert ours.weight.dtype.name == "bfloat16"
    assert (ours.weight.astype("float32").to_numpy() == theirs.weight.detach().float().numpy()).all()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_files(suffix, tmp_path):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    net, other = drawn(Net()), Net()
    net(owl.ones([3, 4]))
    net.save(tmp_path / f"net{suffix}")
    other.load(tmp_path / f"net{suffix}")
    assert all(same_bits(a.to_numpy(), net.state()[name].to_numpy()) for name, a in other.state().items())
    assert other.pair[0].num_batches_tracked.tolist() == [1]
    with pytest.raises(owl.DataError, match=rf"net{suffix}: load_state of Linear: missing: weight, bias; left over: .*scale"):
        nn.Linear(3, 2).load(tmp_path / f"net{suffix}")
    with pytest.raises(owl.DataError, match="no such file"):
        net.load(tmp_path / f"none{suffix}")
    with pytest.raises(ValueError, match=r"\.npz or \.safetensors"):
        net.save(tmp_path / "net.txt")


def test_the_number_of_batches_is_written_as_pytorch_does(tmp_path):
    layer = nn.BatchNorm(2)
    layer(owl.ones([2, 4]))
    layer.save(tmp_path / "bn.npz")
    with np.load(tmp_path / "bn.npz") as file:
        assert file["num_batches_tracked"].shape == () and file["num_batches_tracked"].dtype == np.int64
        assert file["num_batches_tracked"] == 1


def test_sizes_found_out_by_the_first_call(tmp_path):
    make = {
        "linear": (lambda n: nn.Linear(n, 2), [3, 5]), "conv": (lambda n: nn.Conv2d(n, 4, 3, groups=2), [5, 5, 4, 2]),
        "lstm": (lambda n: nn.LSTM(n, 2, layers=2), [3, 4, 2]), "batch norm": (nn.BatchNorm, [3, 4, 3, 2]),
    }  # fmt: skip
    for name, (layer, shape) in make.items():
        axis = {"linear": 0, "conv": 2, "lstm": 0, "batch norm": 2}[name]
        owl.seed(5)
        sized = layer(shape[axis])
        owl.seed(5)
        unsized = layer(None)
        assert "None" in repr(unsized)
        with pytest.raises(owl.Error, match="is known after the first call"):
            unsized.parameters()
        assert list(unsized._slots()) == list(sized.state())
        x = owl.ones(shape)
        unsized(x)
        assert repr(unsized) == repr(sized)
        assert {n: a.shape for n, a in unsized.state().items()} == {n: a.shape for n, a in sized.state().items()}
        assert (first(unsized(x)).to_numpy().shape == first(sized(x)).to_numpy().shape)
        sized.save(tmp_path / "sized.npz")
        loaded = layer(None)
        loaded.load(tmp_path / "sized.npz")  # the file tells the size too
        assert {n: a.shape for n, a in loaded.state().items()} == {n: a.shape for n, a in sized.state().items()}
    with pytest.raises(owl.DataError, match=r"weight has shape \[None, 2\], not \[2, 3\]"):
        nn.Linear(None, 2).load_state({"weight": owl.ones([2, 3]), "bias": owl.ones([2])})


def test_modes():
    net = Net()
    parts = [net, *net.layers, net.heads["a"], net.heads["b"][0], net.pair[0]]
    assert all(part.training for part in parts)
    assert net.eval() is net and not any(part.training for part in parts)
    assert net.train() is net and all(part.training for part in parts)


def test_freeze():
    net = Net()
    net.freeze("layers.0", "*.bias")
    frozen = [name for name in NAMES if name.startswith("layers.0") or name.endswith("bias")]
    assert list(net.trainable_parameters()) == [name for name in NAMES if name not in frozen]
    assert list(net.parameters()) == NAMES
    with owl.Tape() as tape:
        y = net(owl.ones([3, 4])).sum()
    grads = tape.gradient(y, net)
    assert list(grads) == list(net.trainable_parameters())
    before = net.parameters()
    owl.optim.Adam().update(net, grads)
    assert [name for name, a in net.parameters().items() if a is before[name]] == frozen
    net.unfreeze("layers.0.weight")
    assert "layers.0.weight" in net.trainable_parameters()
    assert list(net.unfreeze().trainable_parameters()) == NAMES and not net.freeze().trainable_parameters()
    for bad in ("layer", "seen", "layers.2"):
        with pytest.raises(ValueError, match=f"freeze: no parameter's name matches '{bad}'; there are scale"):
            net.freeze(bad)
    lazy = nn.Sequential(nn.Linear(None, 3), nn.Linear(3, 2)).freeze("0")
    lazy(owl.ones([4, 2]))
    assert list(lazy.trainable_parameters()) == ["1.weight", "1.bias"]


def test_to_a_device():
    other = owl.create_cpu_device()
    net = Net()
    assert net.to(other) is net
    assert {a.device for a in net.state().values()} == {other}
    lazy = nn.Linear(None, 2).to(other)
    lazy(owl.ones([3, 2]))
    assert lazy.weight.device == other
    net.load_state(Net().state())
    assert {a.device for a in net.state().values()} == {other}
    with pytest.raises(owl.DeviceError):
        net.to(99)


def test_layers_and_losses_without_ml_dtypes():
    """Then the type of bfloat16 is a text."""
    children.run("""
        import sys
        sys.modules["ml_dtypes"] = None
        import owl
        from owl import nn
        x = owl.randn([4, 6]).astype("bfloat16")
        assert x.dtype == "bfloat16"
        for layer in (nn.Linear(4, 3), nn.BatchNorm(4), nn.BatchNorm(4, affine=False), nn.LayerNorm(4, affine=False), nn.Dropout(0.1)):
            layer.to(dtype="bfloat16")(x)
            layer.load_state(layer.state())
        x3 = x.reshape([4, 2, 3])
        nn.LSTM(4, 2).to(dtype="bfloat16")(x3)
        nn.MultiHeadAttention(4, 2).to(dtype="bfloat16")(x3, mask=owl.zeros([2, 2], "bfloat16"))
        nn.softmax_cross_entropy(x, owl.conv.softmax(x, axis=0))
        try:
            nn.Embedding(4, 2)(x)
        except owl.DTypeError as error:
            assert "takes integers, got bfloat16" in str(error)
        owl.wait_for_all()
    """)


def test_to_a_type():
    net = Net()
    assert net.to(dtype="float64") is net
    assert {name: a.dtype.name for name, a in net.state().items() if a.dtype.name != "float64"} == {"pair.0.num_batches_tracked": "int64"}
    assert net(owl.ones([3, 2], "float64")).dtype == np.float64
    lazy = nn.Linear(None, 2).to(dtype=owl.bfloat16)
    lazy(owl.ones([3, 2]))
    assert lazy.weight.dtype.name == lazy.bias.dtype.name == "bfloat16"
    other = owl.create_cpu_device()
    assert {(a.device, a.dtype.name) for a in nn.Linear(2, 3).to(other, "float16").state().values()} == {(other, "float16")}
    for bad in ("cuda", "float16", owl.float16, True):
        with pytest.raises(TypeError, match="id of a device.*a type is dtype="):
            net.to(bad)
    with pytest.raises(owl.DTypeError, match="of floats, not int32"):
        net.to(dtype="int32")


def test_summary():
    net = nn.Sequential(nn.Conv2d(None, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(None, 10), nn.BatchNorm(10))
    text = net.summary([8, 8, 1, 2])
    lines = text.splitlines()
    assert lines[0].split() == ["layer", "result", "parameters"]
    assert re.split(r"\s{2,}", lines[2].strip()) == ["0: Conv2d", "[6, 6, 4, 2]", "40"]
    assert re.split(r"\s{2,}", lines[5].strip()) == ["3: Linear", "[10, 2]", "1,450"]
    assert lines[-1] == "1,510 parameters, all trained"
    assert repr(text) == str(text)
    net.freeze("0")
    assert net.summary([8, 8, 1, 2]).splitlines()[-1] == "1,510 parameters, 1,470 trained, 40 frozen"
    assert all(part.training for part in net.modules().values())
    assert net[4].num_batches_tracked.tolist() == [0]  # nothing moved
    assert "forward" not in vars(net[0])
    assert "[3, 5, 2]" in nn.Embedding(7, 3).summary([5, 2], dtype="int32")
    assert "[2, 4, 3], [2, 1, 3]" in nn.RNN(5, 2).summary([5, 4, 3])


def test_repr():
    assert repr(nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU()), nn.Dropout(0.3))) == (
        "Sequential(\n  (0): Linear(3, 4)\n  (1): Sequential(\n    (0): ReLU()\n  )\n  (2): Dropout(0.3)\n)")
    assert repr(Net()).splitlines()[1:3] == ["  (layers.0): Linear(3, 4)", "  (layers.1): Linear(4, 2)"]
    assert repr(nn.Conv2d(3, 4, 2, padding=(1, 0), groups=1, bias=False)) == "Conv2d(3, 4, (2, 2), padding=(1, 0), bias=False)"
    for make, *_ in LAYERS.values():
        layer = make()
        again = eval("nn." + repr(layer).replace("\n", ""), {"nn": nn}) if "\n" not in repr(layer) else layer
        assert repr(again) == repr(layer)


def test_copies_and_pickles():
    net = drawn(Net())
    net.layers[0].freeze()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(drawn(nn.Sequential(nn.Linear(3, 4)))))):
        assert all(part.training for part in other.modules().values())
    other = copy.deepcopy(net)
    assert list(other.trainable_parameters()) == list(net.trainable_parameters())
    other.update({"scale": owl.full([1], 7.0)})
    assert net.scale.item() != 7.0 and list(other.state()) == list(net.state())


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_is_copied_and_pickled(name):
    make, _, x, _ = LAYERS[name]
    layer = drawn(make()).eval()
    want = first(layer(owl.from_numpy(x))).to_numpy()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert same_bits(first(other(owl.from_numpy(x))).to_numpy(), want) and repr(other) == repr(layer)


@pytest.mark.parametrize("make", [lambda: nn.Linear(None, 2), lambda: nn.Conv2d(None, 2, 3), lambda: nn.BatchNorm(None), lambda: nn.LSTM(None, 2)])
def test_layers_without_a_size_are_copied_and_pickled(make):
    layer = make()
    x = owl.ones({"Conv2d": [5, 5, 3, 2], "LSTM": [3, 4, 2]}.get(type(layer).__name__, [3, 4]))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        other(x)
        assert "None" not in repr(other) and "None" in repr(layer)


def test_parts_of_a_sequential():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    assert len(net) == 3 and net[-1] is net[2] and [*net] == [net[0], net[1], net[2]] and net[np.int64(1)] is net[1]
    head = net[:2]
    assert isinstance(head, nn.Sequential) and [*head] == [net[0], net[1]] and list(head.parameters()) == ["0.weight", "0.bias"]
    assert list(net[::-1].parameters()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    net[-1] = nn.Linear(4, 5)
    assert net(owl.ones([3, 2])).shape == [5, 2] and list(net.parameters())[-1] == "2.bias"
    assert nn.Sequential(*net, nn.Tanh())(owl.ones([3, 2])).shape == [5, 2] and len(nn.Sequential()) == 0
    for call in (lambda: net[3], lambda: net[-4], lambda: net.__setitem__(3, nn.ReLU())):
        with pytest.raises(IndexError, match="Sequential has 3 parts, no number (3|-4)"):
            call()
    with pytest.raises(TypeError, match=r"without a list: Sequential\(\*layers\); number 0 is"):
        nn.Sequential([nn.Linear(3, 4), nn.ReLU()])
    with pytest.raises(TypeError, match="number 1 is 3"):
        net[1] = 3


def test_init_of_recurrent_layers_and_attention():
    for layer in (nn.RNN(3, 4, init=nn.init.constant), nn.LSTM(3, 4, layers=2, init=nn.init.constant), nn.MultiHeadAttention(4, 2, init=nn.init.constant)):
        weights = [a for name, a in layer.parameters().items() if "weight" in name]
        assert len(weights) >= 2 and not any(a.to_numpy().any() for a in weights)
    with pytest.raises(TypeError, match="init must be a function of a shape"):
        nn.GRU(3, 4, init=0.1)


@pytest.mark.parametrize("name", LAYERS)
def test_a_numpy_array_is_refused(name):
    make, _, x, _ = LAYERS[name]
    with pytest.raises(TypeError):
        make()(x)


class Own(nn.Module):
    def __init__(self, units, *, dim=3, **options):
        self.units, self.dim, self.options = units, dim, options


class Plain(nn.Module):
    def forward(self, x):
        return x


@pytest.mark.parametrize("call, text", [
    (lambda: nn.Linear(in_features=3, out_features=2), "Linear has no argument 'in_features': write n_in; it takes n_in, n_out, bias, init"),
    (lambda: nn.Conv2d(3, 2, kernel_size=3), "'kernel_size': write kernel;"), (lambda: nn.Conv2d(in_channels=3), "'in_channels': write c_in;"),
    (lambda: nn.LSTM(3, 4, num_layers=2), "LSTM has no argument 'num_layers': write layers;"),
    (lambda: nn.LSTM(3, 4, batch_first=True), r"'batch_first': sequences are \[features, T, N\];"),
    (lambda: nn.Softmax(dim=1), "'dim': write axis;"), (lambda: nn.ReLU(inplace=True), "ReLU has no argument 'inplace': arrays never change; it takes no"),
    (lambda: nn.ReLU(3), "takes 1 positional argument but 2 were given"), (lambda: Plain(3), "Plain.* takes no arguments"),
    (lambda: nn.LayerNorm(3, elementwise_affine=False), "write affine"), (lambda: nn.Linear(3, 2, biass=True), "Linear has no argument 'biass'; it takes"),
    (lambda: nn.Linear(3), "missing 1 required positional argument: 'n_out'"), (lambda: nn.Linear(3, 2, n_in=3), "multiple values for argument 'n_in'"),
])  # fmt: skip
def test_arguments_of_other_libraries(call, text):
    with pytest.raises(TypeError, match=text):
        call()


def test_classes_of_ones_own_take_what_they_take():
    own = Own(units=3, dim=4, inplace=True)
    assert (own.units, own.dim, own.options) == (3, 4, {"inplace": True}) and copy.deepcopy(own).dim == 4
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'units'"):
        Own()


class NoForward(nn.Module):
    pass


@pytest.mark.parametrize("call, error, text", [
    (lambda: NoForward()(1), NotImplementedError, r"NoForward defines no forward\(self"),
    (lambda: NoForward().state_dict(), AttributeError, r"NoForward has no state_dict: write module.state\(\)"),
    (lambda: NoForward().zero_grad(), AttributeError, "gradients are what tape.gradient"),
    (lambda: NoForward().half(), AttributeError, 'write module.to\\(dtype="float16"\\)'),
    (lambda: NoForward().fit(1), AttributeError, "write owl.train.Trainer"),
    (lambda: NoForward().nothing, AttributeError, "^NoForward has no nothing$"),
    (lambda: NoForward().buffer("x", 3.0), TypeError, "buffer 'x' must be an NArray, not float"),
    (lambda: nn.Sequential(nn.ReLU), TypeError, "takes modules or functions; number 0"),
    (lambda: nn.Sequential(nn.ReLU(), 3), TypeError, "number 1 is 3"),
    (lambda: nn.Linear(3, 2)(owl.ones([4, 2])), owl.ShapeError, r"Linear\(3, 2\) takes arrays of shape \[3, ...\], got \[4, 2\]"),
    (lambda: nn.Conv2d(3, 2, 3)(owl.ones([5, 5, 2, 1])), owl.ShapeError, r"takes images \[W, H, 3, N\], got \[5, 5, 2, 1\]"),
    (lambda: nn.Conv2d(3, 2, 3)(owl.ones([5, 3])), owl.ShapeError, r"Conv2d\(.*\) takes images \[W, H, C, N\], got \[5, 3\]"),
    (lambda: nn.Conv2d(3, 2, 3)(owl.ones([2, 2, 3, 1])), owl.ShapeError, "."),
    (lambda: nn.Conv2d(3, 2, 3, groups=2), ValueError, "2 groups do not divide 3 and 2 channels"),
    (lambda: nn.Conv2d(3, 2, (3, 3, 3)), TypeError, r"Conv2d: kernel must be an integer or a pair"),
    (lambda: nn.Conv2d(3, 2, 0), ValueError, "kernel must be 1 or more"),
    (lambda: nn.Conv2d(3, 2, 3, padding="same"), TypeError, "padding must be an integer or a pair"),
    (lambda: nn.Conv2d(3, 2, 3, padding=-1), ValueError, "padding must be 0 or more"),
    (lambda: nn.MaxPool2d(2, padding=2), ValueError, "more than half of the kernel"),
    (lambda: nn.AvgPool2d(2)(owl.ones([3, 2])), owl.ShapeError, r"AvgPool2d\(.*\) takes images"),
    (lambda: nn.GlobalAvgPool2d()(owl.ones([3, 2])), owl.ShapeError, "takes images"),
    (lambda: nn.LocalResponseNorm(4), ValueError, "size must be odd"),
    (lambda: nn.BatchNorm(3)(owl.ones([4, 2])), owl.ShapeError, r"takes arrays of shape \[..., 3, N\], got \[4, 2\]"),
    (lambda: nn.BatchNorm(3)(owl.ones([3, 1])), owl.ShapeError, "two elements or more"),
    (lambda: nn.BatchNorm(3)(owl.ones([3])), owl.ShapeError, r"\[..., channels, N\]"),
    (lambda: nn.LayerNorm(3)(owl.ones([4, 2])), owl.ShapeError, r"takes arrays of shape \[3, ...\], got \[4, 2\]"),
    (lambda: nn.GroupNorm(2, 3), ValueError, "2 groups do not divide 3"),
    (lambda: nn.GroupNorm(1, 3)(owl.ones([4, 2])), owl.ShapeError, r"\[..., 3, N\]"),
])  # fmt: skip
def test_mistakes(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_one_sample_and_no_samples():
    for make, _, x, _ in LAYERS.values():
        module = make().eval()
        for n in (1, 0):
            y = first(module(owl.from_numpy(x[:n])))
            assert y.shape[-1] == n and np.isfinite(y.to_numpy()).all()


# ---- training


def digits(n=256):
    images, labels = owl._owl.make_digits(0, n, 1)
    return images.reshape(n, -1).astype("float32") / 255, labels.astype("int32").ravel()


@pytest.mark.parametrize("optimizer", ["SGD", "RMSprop", "AdaGrad", "Adam", "AdamW", "Lion"])
def test_a_network_learns_digits(optimizer):
    owl.seed(1)
    images, labels = digits()
    x, t = owl.from_numpy(images), owl.from_numpy(labels)
    net = nn.Sequential(nn.Linear(None, 32), nn.BatchNorm(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10))
    opt = getattr(owl.optim, optimizer)(*{"SGD": [0.1], "Lion": [3e-3]}.get(optimizer, []))
    losses = []
    for _ in range(30):
        with owl.Tape() as tape:
            loss = nn.softmax_cross_entropy(net(x), t)
        opt.update(net, tape.gradient(loss, net))
        losses.append(loss)
    values = [loss.item() for loss in losses]
    assert np.isfinite(values).all() and values[-1] < 0.75 * values[0]
    assert nn.accuracy(net.eval()(x), t).item() > 0.5


def test_a_step_waits_for_nothing():
    go_on = threading.Event()
    late = owl.op(lambda a: go_on.wait(60) and a)
    x, t = late(owl.ones([784, 4])), owl.zeros([4], "int32")
    net, opt = nn.Sequential(nn.Linear(784, 16), nn.BatchNorm(16), nn.Dropout(0.5), nn.Linear(16, 10)), owl.optim.Adam()
    with owl.Tape() as tape:
        loss = nn.softmax_cross_entropy(net(x), t)
    grads, norm = owl.optim.clip_norm(tape.gradient(loss, net), 1.0)
    opt.update(net, grads)
    right, state = nn.accuracy(net(x), t), opt.state()
    assert not loss.ready() and not norm.ready() and not right.ready() and not state["0.weight.exp_avg"].ready()
    go_on.set()
    assert math.isfinite(loss.item()) and math.isfinite(net[0].weight.to_numpy().sum())


def test_a_training_loop_leaves_no_history():
    images, labels = digits(64)
    x, t = owl.from_numpy(images), owl.from_numpy(labels)
    net, opt = nn.Sequential(nn.Linear(784, 16), nn.BatchNorm(16), nn.ReLU(), nn.Linear(16, 10)), owl.optim.Adam()
    used = []
    for i in range(60):
        with owl.Tape() as tape:
            loss = nn.softmax_cross_entropy(net(x), t)
        opt.update(net, tape.gradient(loss, net))
        del loss, tape
        if i in (20, 59):
            settle()
            used.append(owl.memory_stats()["allocated"])
    assert used[1] <= used[0]


def test_a_plain_loop_and_the_same_by_hand_end_with_the_same_bits():
    """nn and optim record what one would write: the same operations in the same order."""
    images, labels = digits(64)
    x, hot = owl.from_numpy(images), owl.from_numpy(np.eye(10, dtype="f4")[labels])
    owl.seed(2)
    net, opt = nn.Sequential(nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10)), owl.optim.SGD(0.1)
    w1, b1, w2, b2 = net.parameters().values()
    for _ in range(5):
        with owl.Tape() as tape:
            loss = nn.softmax_cross_entropy(net(x), hot)
        opt.update(net, tape.gradient(loss, net))
        with owl.Tape() as tape:
            loss = (-owl.multiply(owl.conv.log_softmax(w2.T * owl.relu(w1.T * x + b1) + b2), hot).sum(0)).mean()
        g1, h1, g2, h2 = tape.gradient(loss, [w1, b1, w2, b2])
        w1, b1, w2, b2 = w1 - g1 * 0.1, b1 - h1 * 0.1, w2 - g2 * 0.1, b2 - h2 * 0.1
    for a, b in zip(net.parameters().values(), (w1, b1, w2, b2)):
        assert same_bits(a.to_numpy(), b.to_numpy())
