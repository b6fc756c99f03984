"""DLPack with other libraries, where they are installed: no copy, axes reversed, read-only where the library can tell."""

import gc

import numpy as np
import pytest
from conftest import same_bits, settle
from reference import DTYPES

import owl


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


def test_cupy():
    cupy = pytest.importorskip("cupy")
    with pytest.raises(owl.DeviceError, match="host memory"):
        owl.from_dlpack(cupy.ones(3, dtype="float32"))


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
