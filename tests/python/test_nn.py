"""owl.nn: layers and first values against NumPy's formulas, and against PyTorch where it is installed."""

import math

import numpy as np
import pytest

import interchange
import owl
from conftest import settle
from nn_layers import (
    CAUSAL,
    IMAGES,
    LAYERS,
    SEQUENCES,
    attention,
    channels,
    drawn,
    first,
    gru_step,
    lstm_step,
    numbers,
    recurrent,
)
from owl import nn


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
