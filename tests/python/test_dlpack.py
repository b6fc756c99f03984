"""DLPack in host memory, with other libraries if they are installed: no copy, axes reversed, read-only if the library
supports it. GPU memory: test_cuda_exchange.py."""

import ctypes
import gc
import sys
import types

import numpy as np
import pytest

import dlpack_capsules as capsules
import owl
from conftest import TEST_DEVICE, same_bits, settle
from reference import DTYPES, NUMPY_TYPES


@pytest.fixture(autouse=True)
def in_host_memory(on_default_device):
    owl.set_device(0)


def numbers(dtype):
    return np.arange(12).reshape(3, 4).astype(dtype)


def address(x):
    """The address of an owl array's memory."""
    return np.from_dlpack(x).__array_interface__["data"][0]


@pytest.mark.parametrize("dtype", NUMPY_TYPES)
def test_torch(dtype):
    torch = pytest.importorskip("torch")
    a = numbers(dtype)
    x = owl.from_numpy(a)
    t = torch.from_dlpack(x)
    assert t.shape == (3, 4) and t.data_ptr() == address(x)
    assert same_bits(t.numpy(), a)
    assert same_bits(torch.from_dlpack(x.trans()).numpy(), a.T)
    assert same_bits(torch.from_dlpack(x[1:3, ::2]).numpy(), a[::2, 1:3])
    source = torch.tensor(a)
    y = owl.from_dlpack(source)
    assert y.shape == [4, 3] and y.dtype == dtype and address(y) == source.data_ptr()
    assert same_bits(y.to_numpy(), a)
    assert same_bits(owl.from_dlpack(source.T[1:, ::2]).to_numpy(), a.T[1:, ::2])
    assert same_bits((owl.from_dlpack(source).astype("float64") * 2.0).to_numpy(), a.astype("float64") * 2)


BACKWARDS = {
    "first": lambda a: a[::-1], "last": lambda a: a[:, ::-1], "both": lambda a: a[::-1, ::-1],
    "steps": lambda a: a[::-2, 1::2], "transposed": lambda a: a[::-1].T,
}  # fmt: skip


@pytest.mark.parametrize("dtype", NUMPY_TYPES)
@pytest.mark.parametrize("view", BACKWARDS)
def test_what_runs_backwards_is_copied(view, dtype):
    """PyTorch aborts the process on a negative stride."""
    x = owl.from_numpy(numbers(dtype))
    backwards = BACKWARDS[view](x)
    expected = backwards.to_numpy()
    assert min(np.asarray(expected).strides) != 0
    for version, flags in (((1, 0), capsules.READ_ONLY | capsules.COPIED), (None, 0)):
        taken = capsules.Taken(backwards.__dlpack__(max_version=version))
        assert min(taken.strides) >= 0 and taken.shape == expected.shape and taken.flags == flags
        taken.close()
    assert same_bits(np.from_dlpack(backwards), expected)
    assert same_bits(np.from_dlpack(backwards, copy=True), expected)
    with pytest.raises(BufferError, match="run backwards in memory"):
        backwards.__dlpack__(copy=False)


def test_what_is_broadcast_is_not_copied():
    a = np.broadcast_to(np.arange(3, dtype=np.float32), (4, 3))
    x = owl.from_dlpack(a)
    taken = capsules.Taken(x.__dlpack__(max_version=(1, 0), copy=False))
    assert taken.strides == (0, 1) and taken.flags == capsules.READ_ONLY
    assert taken.address == a.__array_interface__["data"][0]
    taken.close()


@pytest.mark.parametrize("x", [
    lambda: owl.arange(12).reshape([4, 3])[::-1][:1], lambda: owl.arange(12).reshape([4, 3])[2:2][::-1],
    lambda: owl.zeros([0, 3])[:, ::-1], lambda: owl.arange(1)[::-1]], ids=["one", "none", "empty", "single"],
)  # fmt: skip
def test_strides_that_reach_nothing_are_a_dense_arrays(x):
    """JAX checks them too."""
    x = x()
    taken = capsules.Taken(x.__dlpack__(max_version=(1, 0), copy=False))
    dense = np.empty(x.shape[::-1], np.float32)
    lengths = [max(1, n) for n in x.shape[::-1]]
    for axis, stride in enumerate(taken.strides):
        if lengths[axis] == 1 or x.size == 0:
            assert stride >= 0
    taken.close()
    assert same_bits(np.from_dlpack(x), dense[...] * 0 + x.to_numpy())


VIEWS = {**BACKWARDS, "rows": lambda a: a[1:], "columns": lambda a: a[:, 1:], "one": lambda a: a[1:2, ::2],
         "none": lambda a: a[2:2], "turned": lambda a: a.T, "whole": lambda a: a}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("view", VIEWS)
def test_torch_takes_every_view(view, dtype):
    torch = pytest.importorskip("torch")
    x = VIEWS[view](owl.from_numpy(numbers(dtype)))
    assert same_bits(torch.from_dlpack(x).numpy(), x.to_numpy())
    assert same_bits(torch.from_dlpack(x, copy=True).numpy(), x.to_numpy())


def test_torch_takes_what_is_broadcast():
    torch = pytest.importorskip("torch")
    a = np.broadcast_to(np.arange(3, dtype=np.float32), (4, 3))
    a.flags.writeable = False
    x = owl.from_dlpack(a)
    assert same_bits(torch.from_dlpack(x).numpy(), np.ascontiguousarray(a))
    with pytest.raises(BufferError):
        torch.from_dlpack(x[::-1], copy=False)


def test_torch_refuses_and_is_refused():
    torch = pytest.importorskip("torch")
    for tensor in (torch.ones(2, dtype=torch.int16), torch.ones(2, dtype=torch.complex64)):
        with pytest.raises(owl.DTypeError, match=str(tensor.dtype).split(".")[1]):
            owl.from_dlpack(tensor)
    with pytest.raises(BufferError):
        owl.from_dlpack(torch.ones(2, requires_grad=True))
    assert owl.from_dlpack(torch.tensor(3.0)).shape == [1]
    assert owl.from_dlpack(torch.ones(0, 3)).shape == [3, 0]


def test_torch_keeps_and_lets_go():
    torch = pytest.importorskip("torch")
    before = settle()
    t = torch.from_dlpack(owl.ones([1000]) + 1.0)
    gc.collect()
    assert t.sum().item() == 2000 and settle()["live_storages"] == before["live_storages"] + 1
    del t
    assert settle()["live_storages"] == before["live_storages"]
    x = owl.from_dlpack(torch.full((1000,), 3.0))
    gc.collect()
    assert x.sum().item() == 3000


@pytest.mark.parametrize("dtype", DTYPES)
def test_jax(dtype):
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    a = numbers(dtype)
    assert same_bits(np.asarray(jax.numpy.from_dlpack(owl.from_numpy(a))), a)
    assert same_bits(owl.from_dlpack(jax.numpy.asarray(a)).to_numpy(), a)


@pytest.mark.parametrize("view", VIEWS)
def test_jax_takes_every_view_or_says_why_not(view):
    jax = pytest.importorskip("jax")
    x = VIEWS[view](owl.from_numpy(numbers("float32")))
    try:
        assert same_bits(np.asarray(jax.numpy.from_dlpack(x)), x.to_numpy())
    except jax.errors.JaxRuntimeError as error:
        assert "striding" in str(error) and view in ("rows", "columns", "one")


class OldLibrary:
    """Exports capsules as before DLPack 1: __dlpack__ has no max_version."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, stream=None):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return 1, 0


@pytest.mark.parametrize("dtype", NUMPY_TYPES)
def test_libraries_from_before_dlpack_1(dtype):
    a = numbers(dtype)
    assert same_bits(owl.from_dlpack(OldLibrary(a)).to_numpy(), a)
    assert same_bits(owl.from_dlpack(OldLibrary(owl.from_numpy(a))).to_numpy(), a)


def test_the_protocols_arguments():
    x = owl.ones([3])
    assert x.__dlpack_device__() == (1, 0)
    for arguments in ({}, {"stream": None}, {"max_version": (1, 1)}, {"dl_device": (1, 0)}, {"copy": True}, {"copy": False}):
        assert "dltensor" in repr(x.__dlpack__(**arguments))
    with pytest.raises(BufferError):
        x.__dlpack__(dl_device=(2, 0))
    copied = np.from_dlpack(x, copy=True)
    assert copied.tolist() == [1, 1, 1] and copied.__array_interface__["data"][0] != address(x)


# --- other libraries' exports, by capsules made here

class Lent(capsules.Producer):
    """A NumPy array that reports another device."""

    def __init__(self, array, device):
        super().__init__(array.ctypes.data, array.shape, array.dtype, device)
        self.array = array


def test_host_memory_of_others():
    a = numbers("float32")
    other = owl.create_cpu_device()
    for device in ((capsules.HOST, 0), (capsules.PINNED, 0), (capsules.PINNED, 3)):
        lent = Lent(a, device)
        x = owl.from_dlpack(lent)
        assert x.device == 0 and address(x) == a.ctypes.data and same_bits(x.to_numpy(), a)
        assert lent.asked == [{"stream": None, "max_version": (1, 0)}]
        with owl.device(other):
            assert owl.from_dlpack(lent).device == other
        del x
        settle()
        owl.from_dlpack(a)  # releases due memory at the latest
        assert lent.deleted == 2


@pytest.mark.parametrize("device", [(capsules.GPU, 0), (capsules.GPU, 7), (capsules.MANAGED, 7)])
def test_memory_of_a_gpu_that_has_no_device(device):
    if device[1] == 0 and TEST_DEVICE:
        pytest.skip("GPU 0 has a device")
    lent = Lent(numbers("float32"), device)
    with pytest.raises(owl.DeviceError, match=rf"GPU {device[1]}, .*owl\.create_gpu_device\({device[1]}\)"):
        owl.from_dlpack(lent)
    assert lent.asked == [], "it is not asked for what cannot be taken"


def test_memory_of_other_kinds():
    lent = Lent(numbers("float32"), (capsules.ROCM, 0))
    with pytest.raises(owl.DeviceError, match="device type 10; only host memory and that of CUDA's GPUs"):
        owl.from_dlpack(lent)
    assert lent.asked[0]["stream"] is None


def test_a_device_that_is_none():
    lent = Lent(numbers("float32"), (capsules.HOST, 0))
    for device, error in (((1,), None), ("cpu", TypeError), (2, None), (("a", "b"), TypeError), (None, TypeError)):
        lent.__class__ = type("Odd", (Lent,), {"__dlpack_device__": lambda self, device=device: device})
        if error is None:
            assert owl.from_dlpack(lent).shape == [4, 3]
        else:
            with pytest.raises(error, match="__dlpack_device__"):
                owl.from_dlpack(lent)


def test_cpu_arrays_are_none_of_cudas():
    x = owl.ones([3])
    assert not hasattr(x, "__cuda_array_interface__")
    with pytest.raises(AttributeError, match="device 0, not on a GPU"):
        x.__cuda_array_interface__
    with pytest.raises(owl.DeviceError, match=r"to_cupy: the array lives on device 0 \(CPU.*x\.copy_to\(gpu\)"):
        x.to_cupy()


def test_from_cupy_of_other_things():
    for other in (3, None, [1.0], "cupy"):
        with pytest.raises(TypeError, match="from_cupy: a must be a CuPy array"):
            owl.from_cupy(other)
    x = owl.ones([2])
    assert owl.from_cupy(x) is x
    assert same_bits(owl.from_cupy(numbers("int32")).to_numpy(), numbers("int32"))


def test_arrays_without_dlpack_are_cupys_to_take_in(monkeypatch):
    class Interface:
        __cuda_array_interface__ = {}

    a, seen = numbers("float32"), []
    monkeypatch.setitem(sys.modules, "cupy", None)  # cannot be imported
    with pytest.raises(owl.Error, match="from_cupy: CuPy is not installed: pip install cupy-cuda13x"):
        owl.from_cupy(Interface())
    fake = types.SimpleNamespace(asarray=lambda array: seen.append(array) or a)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    assert same_bits(owl.from_cupy(Interface()).to_numpy(), a)
    assert type(seen[0]) is Interface


# --- capsules that are wrong

FINE = {"address": 0, "shape": (3, 4), "code": 2, "bits": 32, "lanes": 1, "strides": None, "offset": 0, "ndim": None,
        "null_shape": False, "major": 1, "flags": 0}  # fmt: skip


class Hostile:
    """Exports a capsule with the given fields; counts the releases of its memory."""

    def __init__(self, **said):
        said = {**FINE, **said}
        self.values = np.arange(12, dtype=np.float32)
        self.deleted = 0
        address = self.values.ctypes.data if said["address"] == 0 else said["address"]
        shape, strides = said["shape"], said["strides"]
        self.lengths = (ctypes.c_int64 * max(1, len(shape)))(*shape)
        self.steps = None if strides is None else (ctypes.c_int64 * max(1, len(strides)))(*strides)
        m = self.managed = capsules.Versioned()
        m.major, m.flags = said["major"], said["flags"]
        m.tensor = capsules.Tensor(address, capsules.Device(capsules.HOST, 0),
                                   len(shape) if said["ndim"] is None else said["ndim"],
                                   capsules.DataType(said["code"], said["bits"], said["lanes"]),
                                   None if said["null_shape"] else self.lengths, self.steps, said["offset"])  # fmt: skip
        m.deleter = capsules.Deleter(self.delete)

    def delete(self, address):
        self.deleted += 1

    def __dlpack_device__(self):
        return capsules.HOST, 0

    def __dlpack__(self, **arguments):
        return capsules.new(ctypes.addressof(self.managed), b"dltensor_versioned", None)


@pytest.mark.parametrize("said, error, words", [
    ({"ndim": -1}, BufferError, "-1 axes"), ({"ndim": 9}, BufferError, "9 axes; 0 to 8"),
    ({"ndim": 2**31 - 1}, BufferError, "2147483647 axes"), ({"null_shape": True}, BufferError, "no shape"),
    ({"shape": (-3, 4)}, BufferError, "length -3"), ({"shape": (2**40, 2**40)}, owl.ShapeError, "too large"),
    ({"shape": (2**62, 4, 0)}, owl.ShapeError, "too large"), ({"address": None}, BufferError, "no memory"),
    ({"strides": (2**62, 1)}, BufferError, "out of all memory"), ({"strides": (1, -(2**63))}, BufferError, "out of all memory"),
    ({"strides": (2**61, 2**61)}, BufferError, "out of all memory"), ({"offset": 2**64 - 8}, BufferError, "out of all memory"),
    ({"offset": 2}, owl.DTypeError, "not aligned"), ({"lanes": 4}, owl.DTypeError, "float32 in vectors of 4"),
    ({"lanes": 0}, owl.DTypeError, "vectors of 0"), ({"bits": 0}, owl.DTypeError, "float0"),
    ({"code": 200}, owl.DTypeError, "type 200"), ({"major": 2}, BufferError, "version 2"),
    ({"major": 0}, BufferError, "version 0"),
], ids=str)  # fmt: skip
def test_capsules_that_cannot_be_right(said, error, words):
    y = Hostile(**said)
    with pytest.raises(error, match=words):
        owl.from_dlpack(y)
    assert y.deleted == 0, "the capsule still has it"


def test_odd_capsules_that_are_right():
    for said, expected in (({"strides": (0, 0)}, np.zeros((3, 4))), ({"shape": ()}, np.zeros(1)),
                           ({"shape": (0, 4), "address": None}, np.zeros((0, 4))),
                           ({"shape": (0, 4), "strides": (-(2**63), 2**63 - 1)}, np.zeros((0, 4))),
                           ({"shape": (1,) * 6 + (3, 4)}, np.arange(12).reshape((1,) * 6 + (3, 4))),
                           ({"flags": 2**63}, np.arange(12).reshape(3, 4)),
                           ({"shape": (2, 2), "strides": (-4, -1), "offset": 44}, np.array([[11, 10], [7, 6]]))):  # fmt: skip
        x = owl.from_dlpack(Hostile(**said))
        assert np.array_equal(x.to_numpy(), expected), said


@pytest.mark.parametrize("given", [None, 3, object(), "dltensor"])
def test_what_is_no_capsule(given):
    y = types.SimpleNamespace(__dlpack__=lambda **arguments: given, __dlpack_device__=lambda: (1, 0))
    with pytest.raises((ValueError, TypeError, BufferError)):
        owl.from_dlpack(y)
    capsule = owl.ones([2]).__dlpack__()
    owl.from_dlpack(types.SimpleNamespace(__dlpack__=lambda **arguments: capsule, __dlpack_device__=lambda: (1, 0)))
    with pytest.raises((ValueError, BufferError)):  # it was imported before
        owl.from_dlpack(types.SimpleNamespace(__dlpack__=lambda **arguments: capsule, __dlpack_device__=lambda: (1, 0)))
