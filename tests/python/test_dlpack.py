"""DLPack in host memory, with other libraries where they are installed: no copy, axes reversed, read-only where the
library can tell. GPU memory: test_cuda_exchange.py."""

import gc
import sys
import types

import dlpack_capsules as capsules
import numpy as np
import pytest
from conftest import TEST_DEVICE, same_bits, settle
from reference import DTYPES

import owl


@pytest.fixture(autouse=True)
def in_host_memory(on_default_device):
    owl.set_device(0)


def numbers(dtype):
    return np.arange(12).reshape(3, 4).astype(dtype)


def address(x):
    """Where the memory of an owl array lies."""
    return np.from_dlpack(x).__array_interface__["data"][0]


@pytest.mark.parametrize("dtype", DTYPES)
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


def test_torch_refuses_and_is_refused():
    torch = pytest.importorskip("torch")
    for tensor in (torch.ones(2, dtype=torch.int64), torch.ones(2, dtype=torch.bfloat16)):
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


class OldLibrary:
    """Hands out capsules as before DLPack 1: __dlpack__ knows no max_version."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, stream=None):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return 1, 0


@pytest.mark.parametrize("dtype", DTYPES)
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


# --- what another library may say, by capsules made here

class Lent(capsules.Producer):
    """A NumPy array that says it lies elsewhere."""

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
        owl.from_dlpack(a)  # what is due is given back at the latest here
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
