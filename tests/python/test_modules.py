"""owl.nn.Module: names, files, modes, copies, mistakes, and training with owl.optim."""

import copy
import math
import pickle
import re
import threading

import numpy as np
import pytest

import children
import owl
import reference
from conftest import same_bits, settle
from nn_layers import LAYERS, drawn, first
from owl import nn
from owl.nn.module import Trained, values


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


CHANGES = {
    "an attribute": lambda net: setattr(net, "more", nn.Linear(1, 1)),
    "an array": lambda net: setattr(net, "shift", owl.zeros([1])),
    "no array any more": lambda net: setattr(net, "scale", None),
    "another module": lambda net: setattr(net.heads["a"], "weight", nn.Linear(2, 1)),
    "a deleted attribute": lambda net: delattr(net, "scale"),
    "a list": lambda net: net.layers.append(nn.Linear(2, 2)),
    "a list's element": lambda net: net.layers.__setitem__(1, nn.Linear(4, 2, bias=False)),
    "a dict": lambda net: net.heads.update(c=nn.Linear(2, 1)),
    "a dict's element": lambda net: net.heads.update(a=nn.Linear(2, 1, bias=False)),
    "a dict's order": lambda net: net.heads.update(a=net.heads.pop("a")),
    "a list in a dict": lambda net: net.heads["b"].pop(),
    "a part of a part": lambda net: setattr(net.pair[0], "weight", None),
    "a buffer": lambda net: net.buffer("scale", owl.ones([1])),
    "a freeze": lambda net: net.freeze("layers.0"),
    "an unfreeze": lambda net: net.unfreeze("heads.a.bias"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_loop_notices_each_change_of_a_module(change):
    net = Net()
    net.freeze("heads.a.bias")
    kept = Trained(net)
    before = kept.slots()
    assert list(before) == list(net.trainable_parameters())
    net(owl.randn([3, 5]))
    owl.optim.SGD(0.1).update(net, {name: owl.ones_like(x) for name, x in net.trainable_parameters().items()})
    net.eval().train()
    assert kept.slots() is before  # new arrays, counters and modes are no change
    CHANGES[change](net)
    assert kept.slots() is not before and list(kept.slots()) == list(net.trainable_parameters())
    assert all(x is y for x, y in zip(values(kept.slots()).values(), net.trainable_parameters().values()))


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
