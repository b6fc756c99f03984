"""GPU memory between owl and other libraries: DLPack and __cuda_array_interface__, by the rules of streams.

This file simulates the other library with the driver's functions, so that it can do all that the rules allow: be slow,
and reuse memory as soon as it is returned. CuPy, PyTorch and JAX are tested if they are installed.
"""
import ctypes
import gc
import sys
import threading
import time
import types

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import owl
from conftest import CUDA, TEST_DEVICE, same_bits, settle, unflushed
from dlpack_capsules import GPU, HOST, MANAGED, Producer, Taken
from reference import DTYPES

pytestmark = pytest.mark.skipif(not TEST_DEVICE, reason="needs a GPU: OWL_TEST_DEVICE is not set")
on_gpu_only = pytest.mark.skipif(TEST_DEVICE != "gpu", reason="needs a GPU: OWL_TEST_DEVICE is not gpu")

F32 = np.dtype("float32")
NON_BLOCKING, DISABLE_TIMING = 1, 2
SLOW = 40  # operations that delay a stream


class Driver:
    """The driver's functions, which must return 0. Integers are handles or sizes."""

    def __init__(self):
        self._library = CUDA or ctypes.CDLL("libcuda.so.1")
        self.context = self.out("cuDevicePrimaryCtxRetain", 0)
        self.call("cuCtxSetCurrent", self.context)

    def call(self, name, *arguments, expect=0):
        wide = [ctypes.c_void_p(a) if isinstance(a, int) else a for a in arguments]
        code = getattr(self._library, name)(*wide)
        assert code == expect, f"{name}: {code}"

    def out(self, name, *arguments):
        """The value that the function stores through its first argument."""
        given = ctypes.c_void_p()
        self.call(name, ctypes.byref(given), *arguments)
        return given.value or 0

    def stream(self):
        return self.out("cuStreamCreate", NON_BLOCKING)

    def memory(self, count, byte=0xEE):
        """Device memory filled with a byte."""
        address = self.out("cuMemAlloc_v2", max(count, 1))
        self.fill(address, byte, count, 1)
        self.call("cuStreamSynchronize", 1)
        return address

    def fill(self, address, byte, count, stream):
        self.call("cuMemsetD8Async", address, byte, count, stream)

    def copy(self, to, source, count, stream):
        if count:
            self.call("cuMemcpyDtoDAsync_v2", to, source, count, stream)

    def order(self, first, then):
        """Makes `then` wait for the present work of `first`."""
        event = self.out("cuEventCreate", DISABLE_TIMING)
        self.call("cuEventRecord", event, first)
        self.call("cuStreamWaitEvent", then, event, 0)

    def upload(self, array):
        address = self.memory(array.nbytes)
        if array.nbytes:
            self.call("cuMemcpyHtoDAsync_v2", address, array.ctypes.data, array.nbytes, 1)
            self.call("cuStreamSynchronize", 1)
        return address

    def download(self, address, shape, dtype, strides=None, stream=1):
        """The elements as the stream sees them; strides in elements."""
        dense = np.empty(shape, dtype)
        strides = strides or tuple(s // dense.itemsize for s in dense.strides)
        reach = [s * (n - 1) for s, n in zip(strides, shape)]
        low, high = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)
        memory = np.empty(high - low + 1 if dense.size else 0, dtype)
        if dense.size:
            self.call("cuMemcpyDtoHAsync_v2", memory.ctypes.data, address + low * dense.itemsize, memory.nbytes, stream)
        self.call("cuStreamSynchronize", stream)
        return as_strided(memory[-low:], shape, [s * dense.itemsize for s in strides]).copy()

    def delay(self, stream, address, count):
        for _ in range(SLOW):
            self.fill(address, 0xEE, count, stream)


@pytest.fixture(scope="module")
def driver():
    return Driver()


@pytest.fixture(autouse=True)
def slow_streams():
    if CUDA:
        CUDA.standin_delay(300)
    yield
    if CUDA:
        CUDA.standin_delay(0)


def look(driver, taken, stream=1):
    return driver.download(taken.address, taken.shape, taken.dtype, taken.strides, stream)


def numbers(dtype, shape=(3, 4)):
    return (np.arange(np.prod(shape)) % 117 - 3).reshape(shape).astype(dtype)


def let_go():
    """Waits until all dropped memory has been returned to its owner."""
    settle()
    owl.from_dlpack(np.zeros(1, F32))


# ---- from owl to others

@pytest.mark.parametrize("dtype", DTYPES)
def test_handed_out(gpu, driver, dtype):
    a = numbers(dtype)
    x = owl.from_numpy(a)
    assert x.__dlpack_device__() == (GPU, 0)
    for value, want in ((x, a), (x.trans(), a.T), (x[1:3, ::2], a[::2, 1:3]), (x[::-1], a[:, ::-1]), (x[:0], a[:, :0])):
        for version in (None, (1, 0)):
            taken = Taken(value.__dlpack__(max_version=version))
            assert taken.device == (GPU, 0) and taken.shape == want.shape and taken.dtype == dtype
            assert taken.read_only == bool(version)
            assert same_bits(look(driver, taken), want)
            taken.close()


def test_what_is_handed_out_need_not_be_there(gpu, driver):
    with unflushed():
        x = owl.arange(10)
        y = x * 2 + 1
        assert not y.ready()
        taken = Taken(y.__dlpack__())
    assert look(driver, taken).tolist() == [2 * i + 1 for i in range(10)]
    taken.close()


def test_memory_is_shared_and_kept(gpu, driver):
    before = settle()["live_storages"]
    x = owl.ones([1000]) + 1
    taken, again = Taken(x.__dlpack__()), Taken(x.__dlpack__())
    assert taken.address == again.address
    del x
    gc.collect()
    settle()
    assert (look(driver, taken) == 2).all()
    taken.close()
    assert settle()["live_storages"] == before + 1
    again.close()
    assert settle()["live_storages"] == before


def test_capsules_that_nobody_takes(gpu):
    before = settle()["live_storages"]
    x = owl.ones([1000]) + 1
    capsule = x.__dlpack__(max_version=(1, 0))
    assert "dltensor_versioned" in repr(capsule)
    del x
    assert settle()["live_storages"] == before + 1
    del capsule
    assert settle()["live_storages"] == before


def test_streams(gpu, driver):
    own = driver.stream()
    for turn in range(10):
        for stream in (None, 1, 2, own):
            x = owl.full([5000], turn) + 1
            taken = Taken(x.__dlpack__(stream=stream))
            assert (look(driver, taken, stream or 1) == turn + 1).all()
            taken.close()
    x = owl.full([100], 7) + 1
    taken = Taken(x.__dlpack__(stream=-1))  # no synchronization: the consumer's responsibility
    x.wait_for_eval()
    assert (look(driver, taken) == 8).all()
    taken.close()
    for stream in (0, -2, -2**40):
        with pytest.raises(ValueError, match=f"stream {stream} does not exist; expected 1"):
            x.__dlpack__(stream=stream)
    for stream in ("1", 1.0, [1]):
        with pytest.raises(TypeError, match="stream must be an integer"):
            x.__dlpack__(stream=stream)


def test_memory_comes_back_in_order(gpu, driver):
    """Work that a consumer enqueued before the release is done before owl writes to the memory again."""
    size = 1 << 16
    own, scratch = driver.stream(), driver.memory(4 * size)
    for turn in range(20):
        copies = []
        for k in range(3):
            x = owl.full([size], 100 * turn + k) + 1
            taken = Taken(x.__dlpack__(stream=own))
            target = driver.memory(4 * size)
            driver.delay(own, scratch, 4 * size)
            driver.copy(target, taken.address, 4 * size, own)
            del x
            taken.close()
            copies.append((target, 100 * turn + k + 1))
            others = [owl.full([size], -1.0) * 2 for _ in range(3)]  # they take over the memory
            owl.wait_for_all()
            del others
        for target, want in copies:
            assert (driver.download(target, (size,), F32, stream=own) == want).all()
            driver.call("cuMemFree_v2", target)


def test_a_stream_that_records_a_graph(gpu, driver):
    """owl's work must not become part of another library's CUDA graph, nor invalidate its capture."""
    size = 1 << 16
    stream, target = driver.stream(), driver.memory(4 * size)
    x, y = owl.full([size], 1.0) + 1, owl.full([size], 2.0) + 1
    taken = Taken(x.__dlpack__(stream=stream))
    before = settle()["live_storages"]
    driver.call("cuStreamBeginCapture_v2", stream, 0)
    driver.copy(target, taken.address, 4 * size, stream)
    with pytest.raises(BufferError, match="capturing a CUDA graph"):
        y.__dlpack__(stream=stream)
    del x
    taken.close()
    for turn in range(5):
        assert ((owl.full([size], turn) * 2).to_numpy() == 2 * turn).all()  # not in the memory of x
    assert settle()["live_storages"] == before
    graph = ctypes.c_void_p()
    driver.call("cuStreamEndCapture", stream, ctypes.byref(graph))
    run = driver.out("cuGraphInstantiateWithFlags", graph, 0)
    driver.call("cuGraphLaunch", run, stream)
    assert (driver.download(target, (size,), F32, stream=stream) == 2).all()
    (y + 1).wait_for_eval()
    assert settle()["live_storages"] == before - 1


def test_a_stream_that_is_gone(gpu, driver):
    """owl waits for its work, and does not use its handle again."""
    size = 1 << 16
    scratch = driver.memory(4 * size)
    for turn in range(5):
        stream, target = driver.stream(), driver.memory(4 * size)
        x = owl.full([size], turn) + 1
        taken = Taken(x.__dlpack__(stream=stream))
        driver.delay(stream, scratch, 4 * size)
        driver.copy(target, taken.address, 4 * size, stream)
        driver.call("cuStreamDestroy_v2", stream)
        del x
        taken.close()
        others = [owl.full([size], -1.0) * 2 for _ in range(3)]
        owl.wait_for_all()
        del others
        assert (driver.download(target, (size,), F32) == turn + 1).all()
        driver.call("cuMemFree_v2", target)


def test_the_default_stream_of_another_thread(gpu, driver):
    """Stream 2 differs for each thread; any thread may release last."""
    size = 1 << 16
    scratch = driver.memory(4 * size)

    def use(x, target, taken):
        driver.call("cuCtxSetCurrent", driver.context)
        taken.append(Taken(x.__dlpack__(stream=2)))
        driver.delay(2, scratch, 4 * size)
        driver.copy(target, taken[0].address, 4 * size, 2)

    for turn in range(5):
        target, taken = driver.memory(4 * size), []
        x = owl.full([size], turn) + 1
        user = threading.Thread(target=use, args=(x, target, taken))
        user.start()
        user.join()
        del x
        taken[0].close()
        others = [owl.full([size], -1.0) * 2 for _ in range(3)]
        owl.wait_for_all()
        del others
        driver.call("cuCtxSynchronize")
        assert (driver.download(target, (size,), F32) == turn + 1).all()
        driver.call("cuMemFree_v2", target)


def test_arguments(gpu, driver):
    a = numbers("float32")
    x = owl.from_numpy(a)
    there = Taken(x.__dlpack__(dl_device=(GPU, 0), copy=False))
    assert there.device == (GPU, 0)
    copied = Taken(x.__dlpack__(dl_device=(GPU, 0), copy=True))
    assert copied.device == (GPU, 0) and copied.address != there.address
    assert same_bits(look(driver, copied), a)
    for wanted in ((GPU, 1), (MANAGED, 0), (10, 0)):
        with pytest.raises(BufferError, match="GPU 0 can be exported there or to the CPU"):
            x.__dlpack__(dl_device=wanted)
    for taken in (there, copied):
        taken.close()


def test_to_the_host(gpu):
    a = numbers("int32")
    for x, want in ((owl.from_numpy(a), a), (owl.from_numpy(a)[::2, 1:], a[1:, ::2])):
        for copy in (None, True):
            taken = Taken(x.__dlpack__(dl_device=(HOST, 0), copy=copy, stream=0))  # the host has no streams
            assert taken.device == (HOST, 0)
            memory = (ctypes.c_int32 * want.size).from_address(taken.address)
            assert same_bits(np.array(memory).reshape(want.shape), want)
            taken.close()
        with pytest.raises(BufferError, match="from a GPU to the CPU is a copy"):
            x.__dlpack__(dl_device=(HOST, 0), copy=False)
        try:
            b = np.from_dlpack(x, device="cpu")
        except TypeError:
            continue  # NumPy before 2.1
        assert same_bits(b, want)
    with owl.device(0):
        x = owl.from_numpy(a)
    taken = Taken(x.__dlpack__(copy=True))  # a copy on the original's device, with any current device
    assert taken.device == (HOST, 0)
    assert same_bits(np.array((ctypes.c_int32 * 12).from_address(taken.address)).reshape(3, 4), a)
    taken.close()


def test_a_value_that_failed(gpu):
    x = owl.ones([1 << 58]) + 1
    for ask in (x.__dlpack__, lambda: x.__dlpack__(stream=-1), lambda: x.__cuda_array_interface__):
        with pytest.raises(owl.OutOfMemoryError):
            ask()


def test_an_index_out_of_range_is_found_before_a_value_is_handed_out(gpu):
    for ask in (lambda x: x.__dlpack__(), lambda x: x.__dlpack__(stream=2), lambda x: x.__cuda_array_interface__):
        x = owl.take(owl.arange(4), [9], 0) * 2
        with pytest.raises(owl.IndexError, match="take: index 9"):
            ask(x)


# ---- from others to owl

class Lender(Producer):
    """A library that computes late, on its own stream, and reuses memory as soon as it is returned."""

    def __init__(self, driver, array, device=(GPU, 0), strides=None, offset=0, shape=None):
        self.driver, self.stream = driver, driver.stream()
        source, memory = driver.upload(array), driver.memory(array.nbytes)
        self.memory = memory
        driver.delay(self.stream, memory, array.nbytes)
        driver.copy(memory, source, array.nbytes, self.stream)
        super().__init__(memory + offset * array.itemsize, array.shape if shape is None else shape, array.dtype, device,
                         strides, ask=lambda stream: driver.order(self.stream, stream),
                         deleted=lambda: driver.fill(memory, 0xEE, array.nbytes, self.stream))


@pytest.mark.parametrize("dtype", DTYPES)
def test_taken_in(gpu, driver, dtype):
    a = numbers(dtype)
    lent = Lender(driver, a)
    x = owl.from_dlpack(lent)
    assert x.shape == [4, 3] and x.dtype == dtype and x.device == gpu
    assert same_bits(x.to_numpy(), a)
    assert lent.asked[0]["max_version"] == (1, 0) and lent.asked[0]["stream"] > 2
    taken = Taken(x.__dlpack__())
    assert (taken.address == lent.memory) == (dtype != "bool")  # owl cannot check the bytes of bools without waiting
    taken.close()
    del x
    let_go()
    assert lent.deleted == 1


def test_bools_of_any_byte(gpu, driver):
    bools = np.array([[0, 1, 2], [255, 0, 128]], np.uint8).view(bool)
    truth = bools.view(np.uint8) != 0
    strided = dict(strides=(1, 3), shape=(3, 2))
    for x, want in ((owl.from_dlpack(Lender(driver, bools)), truth), (owl.from_numpy(bools), truth),
                    (owl.from_dlpack(Lender(driver, bools, **strided)), truth.T)):
        assert same_bits(x.to_numpy(), want) and int(x.sum()) == 4 and x.count_zero() == 2
        assert same_bits((1 - x).to_numpy(), 1 - want.astype(np.int32))
        assert same_bits((x == True).to_numpy(), want)  # noqa: E712
        taken = Taken(x.__dlpack__())
        assert same_bits(look(driver, taken).view(np.uint8), want.astype(np.uint8))
        taken.close()


def test_taken_in_while_its_library_records_a_graph(gpu, driver):
    """The array belongs to that graph; no stream of owl may join it, or owl's work would be captured too."""
    a = numbers("float32")
    lent, other = Lender(driver, a), Lender(driver, a)
    driver.call("cuStreamBeginCapture_v2", lent.stream, 2)
    with pytest.raises(BufferError, match="CUDA graph that is being captured"):
        owl.from_dlpack(lent)
    x = owl.from_dlpack(other)
    assert same_bits((x + owl.from_numpy(a)).to_numpy(), a + a)
    graph = ctypes.c_void_p()
    driver.call("cuStreamEndCapture", lent.stream, ctypes.byref(graph), expect=904)  # our stream never rejoins
    assert same_bits((x * 2).to_numpy(), a * 2)


def test_taken_in_of_odd_layouts(gpu, driver):
    a = numbers("float32", (6, 5))
    for shape, strides, offset, want in (
        ((5, 6), (1, 5), 0, a.T), ((6, 5), (5, -1), 4, a[:, ::-1]), ((3, 2), (-10, 2), 26, a[5::-2, 1:5:2]),
        ((6, 5), (0, 1), 0, np.broadcast_to(a[0], (6, 5))), ((1,), (7,), 3, a[0, 3:4]), ((0, 5), (5, 1), 0, a[:0]),
        ((), (), 8, a[1, 3:4]),
    ):
        lent = Lender(driver, a, strides=strides, offset=offset, shape=shape)
        x = owl.from_dlpack(lent)
        assert same_bits(x.to_numpy(), want.astype("f4"))
        assert same_bits((x * 2).to_numpy(), want * np.float32(2))
        lent = owl.from_dlpack(Lender(driver, a, strides=strides, offset=offset, shape=shape))
        assert same_bits((lent + 1).to_numpy(), want + np.float32(1))


@pytest.mark.parametrize("first", ["value", "computation", "copy", "product", "lent on", "interface"])
def test_whoever_reads_first_sees_what_was_brought(gpu, driver, first):
    """The producer is late: each access to its memory must wait for it, but the script must not."""
    a = np.random.default_rng(1).standard_normal((200, 200)).astype("f4")
    for _ in range(5):
        x = owl.from_dlpack(Lender(driver, a))
        if first == "value":
            assert same_bits(x.to_numpy(), a)
        elif first == "computation":
            assert same_bits((x * 2 + 1).to_numpy(), a * np.float32(2) + np.float32(1))
        elif first == "copy":
            assert same_bits(x.copy_to(0).to_numpy(), a)
        elif first == "product":
            np.testing.assert_allclose((x * x.T).to_numpy(), a.T @ a, rtol=1e-4, atol=1e-4)
        elif first == "lent on":
            stream = driver.stream()
            taken = Taken(x.__dlpack__(stream=stream))
            assert same_bits(look(driver, taken, stream), a)
            taken.close()
        else:
            facts = x.__cuda_array_interface__
            assert same_bits(driver.download(facts["data"][0], a.shape, F32, stream=facts["stream"]), a)


def test_memory_is_given_back_when_owl_is_through(gpu, driver):
    """Its readers are ordered, but have not run, when the last array is dropped."""
    a = numbers("float32", (300, 300))
    waited = []
    for _ in range(10):
        lent = Lender(driver, a)
        x, late = owl.from_dlpack(lent), owl.ones([1, 300])
        for _ in range(30):
            late = late + late.sum() * 0
        y = x * 2 + late
        y.start_eval()
        del x
        owl.from_dlpack(np.zeros(1, F32))
        waited.append(y.ready())
        deadline = time.monotonic() + 30
        while not lent.deleted and time.monotonic() < deadline:
            owl.from_dlpack(np.zeros(1, F32))  # releases due memory
        assert lent.deleted == 1  # and its owner wrote to the memory at once
        assert same_bits(y.to_numpy(), a * 2 + 1)
    assert not all(waited) or not CUDA  # the script itself does not wait


def test_views_keep_memory_that_was_taken_in(gpu, driver):
    a = numbers("float32", (300, 300))
    lent = Lender(driver, a)
    x = owl.from_dlpack(lent)
    view = x[:, 3]
    del x
    let_go()
    assert lent.deleted == 0 and same_bits(view.to_numpy(), a[3])
    del view
    let_go()
    assert lent.deleted == 1


def test_memory_taken_in_is_never_written(gpu, driver):
    a = numbers("float32", (64, 64))
    lent = Lender(driver, a)
    kept = owl.from_dlpack(lent)
    x = kept - 1
    x *= 3
    x.wait_for_eval()
    assert lent.deleted == 0
    assert same_bits(driver.download(lent.memory, a.shape, F32, stream=lent.stream), a)


def test_managed_memory_counts_as_the_gpus(gpu, driver):
    a = numbers("float64")
    assert same_bits((owl.from_dlpack(Lender(driver, a, device=(MANAGED, 0))) + 0.5).to_numpy(), a + 0.5)


def test_host_memory_stays_on_the_host(gpu):
    a = numbers("float32")
    x = owl.from_dlpack(a)
    assert owl.current_device() == gpu and x.device == 0
    y = x * 2
    assert y.device == gpu and same_bits(y.to_numpy(), a * 2)


def test_the_current_device_is_taken_where_several_have_the_gpu(gpu, driver):
    second = owl.create_gpu_device(0)
    a = numbers("float32")
    owl.set_device(0)
    assert owl.from_dlpack(Lender(driver, a)).device == gpu
    for device in (second, gpu):
        with owl.device(device):
            x = owl.from_dlpack(Lender(driver, a))
            assert x.device == device and same_bits((x + 1).to_numpy(), a + 1)


def test_what_contradicts_itself(gpu, driver):
    lent = Lender(driver, numbers("float32"))
    lent.__class__ = type("Odd", (Lender,), {"__dlpack_device__": lambda self: (HOST, 0)})
    lent._ask = lambda stream: None
    with pytest.raises(BufferError, match="memory is of GPU 0, but that is not what __dlpack_device__ said"):
        owl.from_dlpack(lent)


def test_libraries_from_before_dlpack_1(gpu, driver):
    class Old(Lender):
        def __dlpack__(self, stream=None):
            return super().__dlpack__(stream=stream)

    a = numbers("float32")
    lent = Old(driver, a)
    assert same_bits(owl.from_dlpack(lent).to_numpy(), a)
    assert [sorted(asked) for asked in lent.asked] == [["stream"]] and lent.asked[0]["stream"] > 2


def test_there_and_back(gpu):
    """owl imports its own array, through a wrapper that hides its class."""
    class Hidden:
        def __init__(self, x):
            self.x = x

        def __dlpack__(self, **arguments):
            return self.x.__dlpack__(**arguments)

        def __dlpack_device__(self):
            return self.x.__dlpack_device__()

    a = np.random.default_rng(2).standard_normal((50, 40)).astype("f4")
    x = owl.from_numpy(a)
    for _ in range(30):
        x = owl.from_dlpack(Hidden(x + 1))
    np.testing.assert_allclose(x.to_numpy(), a + 30, rtol=1e-5, atol=1e-5)
    before = settle()["live_storages"]
    del x
    let_go()
    assert settle()["live_storages"] < before


# ---- __cuda_array_interface__

def test_cuda_array_interface(gpu, driver):
    for dtype, typestr in zip(("bool", "int32", "float32", "float64"), ("|b1", "<i4", "<f4", "<f8")):
        a = numbers(dtype)
        facts = owl.from_numpy(a).__cuda_array_interface__
        assert facts["version"] == 3 and facts["shape"] == (3, 4) and facts["typestr"] == typestr
        assert facts["strides"] is None and facts["data"][1] is True
    for turn in range(10):
        x = owl.from_numpy(numbers("float32")) * 2 + turn
        for value, want in ((x, x), (x.T, x.T), (x[1:3, ::-1], x[1:3, ::-1])):
            facts = value.__cuda_array_interface__
            strides = facts["strides"] and tuple(s // 4 for s in facts["strides"])
            got = driver.download(facts["data"][0], facts["shape"], F32, strides, facts["stream"])
            assert same_bits(got, want.to_numpy())
        assert x.T.__cuda_array_interface__["strides"] == (4, 16)
    assert owl.zeros([0, 3]).__cuda_array_interface__["data"] == (0, True)
    assert hasattr(owl.ones([2]), "__cuda_array_interface__")
    assert not hasattr(owl.ones([2]).copy_to(0), "__cuda_array_interface__")


# ---- the libraries

def test_to_cupy_without_cupy(gpu, monkeypatch):
    x = owl.ones([3])
    monkeypatch.setitem(sys.modules, "cupy", None)  # cannot be imported
    with pytest.raises(owl.Error, match="to_cupy: CuPy is not installed: pip install cupy-cuda13x"):
        x.to_cupy()
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(from_dlpack=lambda array: [array]))
    assert x.to_cupy()[0] is x


@on_gpu_only
@pytest.mark.parametrize("dtype", DTYPES)
def test_cupy(gpu, dtype):
    cupy = pytest.importorskip("cupy")
    a = numbers(dtype)
    x = owl.from_numpy(a)
    c = x.to_cupy()
    assert c.shape == (3, 4) and same_bits(c.get(), a)
    assert same_bits(x[1:3, ::2].to_cupy().get(), a[::2, 1:3])
    assert same_bits(cupy.asarray(x).get(), a)
    for source in (cupy.asarray(a), cupy.asarray(a).T[1:, ::2]):
        y = owl.from_cupy(source)
        assert y.device == gpu and same_bits(y.to_numpy(), source.get())
    with cupy.cuda.Stream(non_blocking=True) as stream:
        for turn in range(20):
            c = (owl.full([1000, 100], turn) + 1).to_cupy()
            y = owl.from_cupy(c * 2) + 1
            assert float(y.max()) == 2 * turn + 3
    del c, y, stream
    gc.collect()


@on_gpu_only
@pytest.mark.parametrize("dtype", DTYPES)
def test_torch(gpu, dtype):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    a = numbers(dtype)
    x = owl.from_numpy(a)
    t = torch.from_dlpack(x)
    assert t.shape == (3, 4) and t.is_cuda and same_bits(t.cpu().numpy(), a)
    y = owl.from_dlpack(torch.tensor(a, device="cuda").T[1:, ::2])
    assert y.device == gpu and same_bits(y.to_numpy(), a.T[1:, ::2])
    for turn in range(20):
        t = torch.full((300, 300), float(turn), device="cuda") @ torch.eye(300, device="cuda")
        y = owl.from_dlpack(t) + 1
        del t
        assert float((torch.from_dlpack(y) * 2).max()) == 2 * turn + 2


@on_gpu_only
def test_jax(gpu):
    jax = pytest.importorskip("jax")
    if jax.default_backend() != "gpu":
        pytest.skip("JAX sees no GPU")
    a = numbers("float32")
    assert same_bits(np.asarray(jax.numpy.from_dlpack(owl.from_numpy(a))), a)
    y = owl.from_dlpack(jax.numpy.asarray(a) * 2)
    assert y.device == gpu and same_bits(y.to_numpy(), a * 2)
