"""Devices: creation and choice, copies between them, simulated GPUs, memory limits."""
import pathlib
import re
import threading

import numpy as np
import pytest

import owl
from conftest import Counted, line_of, same_bits, settle, unflushed
from reference import arr, val


@pytest.fixture(scope="module")
def other():
    return owl.create_cpu_device()


def test_a_script_that_names_no_device_runs():
    assert owl.devices()[0].id == 0 and owl.devices()[0].kind == "cpu" and not owl.devices()[0].simulated
    assert owl.devices()[0].threads >= 1
    assert (owl.ones([2]) + 1).device == 0


def test_initialize_is_harmless():
    assert owl.initialize() is None
    assert owl.initialize(["script.py", "--anything"]) is None
    assert owl.initialize(argv=None) is None


def test_new_devices():
    count = len(owl.devices())
    a, b = owl.create_cpu_device(), owl.create_cpu_device()
    assert type(a) is int and a != b and 0 not in (a, b)
    assert len(owl.devices()) == count + 2 and {d.id for d in owl.devices()} >= {0, a, b}
    for d in (a, b):
        with owl.device(d):
            x = owl.ones([3, 4]) * 2
            assert x.device == d and (val(x) == 2).all()


def test_set_device_decides_where_things_are_computed(other):
    x = owl.ones([3])
    owl.set_device(other)
    assert x.device == 0
    for y in (x + 1, owl.zeros([2]), owl.from_numpy(np.ones(2, np.float32)), x.sum(), owl.randn([2]),
              owl.concat([x, x], 0)):
        assert y.device == other
        y.wait_for_eval()
    owl.set_device(0)
    assert (x + 1).device == 0


def test_with_device_returns_to_the_one_before(other):
    with owl.device(other):
        assert owl.zeros([1]).device == other
        with owl.device(0):
            assert owl.zeros([1]).device == 0
        assert owl.zeros([1]).device == other
    assert owl.zeros([1]).device == 0
    with pytest.raises(KeyError):
        with owl.device(other):
            raise KeyError
    assert owl.zeros([1]).device == 0


def test_an_operand_is_copied_once(other):
    x = arr(np.arange(12, dtype=np.float32).reshape(3, 4))
    x.wait_for_eval()
    with Counted() as c:
        with owl.device(other):
            results = [x * k for k in range(6)]
            results.append(x.sum())
            owl.wait_for_all()
    assert c.copies == 1
    for k in range(6):
        assert same_bits(val(results[k]), val(x) * np.float32(k))
    assert float(results[6]) == 66 and results[6].device == other and x.device == 0


def test_an_operand_is_copied_once_to_each_of_two_devices(other):
    third, x = owl.create_cpu_device(), owl.ones([100])
    x.wait_for_eval()
    with Counted() as c:
        results = []
        for k in range(8):
            with owl.device((other, third)[k % 2]):
                results.append(x + k)
        owl.wait_for_all()
    assert c.copies == 2
    assert [float(r[5]) for r in results] == [1.0 + k for k in range(8)]


def test_a_copy_of_a_pending_value_waits_for_nothing(other):
    x = owl.full([400, 400], 1 / 400)
    for _ in range(10):
        x = x * x.trans()
    with owl.device(other):
        y = x + 1
    assert y.device == other
    np.testing.assert_allclose(val(y), 1 + 1 / 400, rtol=1e-5)


def test_values_pass_to_and_fro(other):
    x = owl.ones([50])
    for k in range(40):
        with owl.device((0, other)[k % 2]):
            x = x + 1
    assert (val(x) == 41).all()


def test_copy_to(other):
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    x = arr(a)
    y = x.copy_to(other)
    assert y.device == other and x.device == 0 and same_bits(val(y), a)
    assert x.copy_to(0).device == 0 and same_bits(val(y.copy_to(0)), a)
    assert same_bits(val(x[:, ::-1].copy_to(other)), a[:, ::-1])


def test_views_of_a_value_elsewhere(other):
    x = arr(np.arange(20, dtype=np.float32).reshape(4, 5))
    with owl.device(other):
        y = x[1::2, ::-1] * 2
        z = x.trans() * x
    assert y.device == z.device == other
    assert same_bits(val(y), val(x)[1::2, ::-1] * np.float32(2))
    np.testing.assert_array_equal(val(z), val(x).T @ val(x))


def test_in_place_with_an_operand_elsewhere(other):
    w, keep = owl.ones([10]), None
    with owl.device(other):
        g = owl.full([10], 0.25)
    keep = w
    w -= g * 2
    assert w.device == 0 and (val(w) == 0.5).all() and (val(keep) == 1).all()


def test_the_device_may_change_the_memory_of_its_copy_only(other):
    x = owl.ones([1000])
    x.wait_for_eval()
    with owl.device(other):
        y = x
        y += 1
        y.wait_for_eval()
    assert (val(x) == 1).all() and (val(y) == 2).all()


@pytest.mark.parametrize("device", [-1, 1000, 2**31 - 1])
def test_ids_that_name_no_device(device):
    for f in (lambda: owl.set_device(device), lambda: owl.ones([2]).copy_to(device), lambda: owl.memory_stats(device)):
        with pytest.raises(owl.DeviceError, match=str(device)):
            f()
    with pytest.raises(owl.DeviceError):
        with owl.device(device):
            pass
    assert owl.ones([1]).device == 0


@pytest.mark.parametrize("device", ["cpu", 1.5, None, [0]])
def test_ids_of_another_type(device):
    with pytest.raises(TypeError):
        owl.set_device(device)
    with pytest.raises(TypeError):
        owl.ones([2]).copy_to(device)


# --- GPUs

def test_without_a_gpu(script):
    done = script("""
        import owl
        print(owl.has_cuda(), owl.get_gpu_device_count())
        for i in (0, 3, -1):
            try:
                print("made", owl.create_gpu_device(i))
            except owl.DeviceError as e:
                print(isinstance(e, RuntimeError), e)
        print(float(owl.ones([3]).sum()))
    """)
    lines = done.stdout.splitlines()
    if lines[0].startswith("True"):
        assert int(lines[0].split()[1]) > 0
        return
    assert lines[0] == "False 0"
    for i, line in zip((0, 3, -1), lines[1:4]):
        assert line.startswith("True ") and str(i) in line
    assert "OWL_SIMULATED_GPUS" in lines[1], "the message says what to do"
    assert lines[4] == "3.0"


SIMULATED = """
    import numpy as np
    import owl
    print(owl.has_cuda(), owl.get_gpu_device_count())
    a, b = owl.create_gpu_device(0), owl.create_gpu_device(1)
    print(a != b, [(d.kind, d.simulated) for d in owl.devices() if d.id in (a, b)])
    print("simulated" in [d for d in owl.devices() if d.id == a][0].name.lower())
    x = owl.from_numpy(np.arange(6, dtype=np.float32))
    with owl.device(a):
        p = x * 2
    with owl.device(b):
        q = x + 1
    owl.set_device(a)
    r = p + q
    print(p.device == a, q.device == b, r.device == a, r.to_numpy().tolist())
    try:
        owl.create_gpu_device(2)
    except owl.DeviceError as e:
        print("refused", e)
"""


def test_simulated_gpus(script):
    lines = script(SIMULATED, env={"OWL_SIMULATED_GPUS": "2"}).stdout.splitlines()
    assert lines[0] == "False 2"
    assert lines[1] == "True [('gpu', True), ('gpu', True)]" and lines[2] == "True"
    assert lines[3] == "True True True [1.0, 4.0, 7.0, 10.0, 13.0, 16.0]"
    assert lines[4].startswith("refused") and "2" in lines[4]


# --- sums across devices

ALL_REDUCE = """
    import sys
    import numpy as np
    import owl
    count, rng = int(sys.argv[1]), np.random.default_rng(1)
    gpus = [owl.create_gpu_device(i) for i in range(count)]
    for shape, dtype in (((3, 4), "float32"), ((1000, 301), "float32"), ((5,), "int32"), ((2, 0), "float64")):
        parts = [(rng.standard_normal(shape) * 100).astype(dtype) for _ in gpus]
        arrays = [owl.from_numpy(part).copy_to(gpu) for part, gpu in zip(parts, gpus)]
        before = [array.to_numpy().tobytes() for array in arrays]
        seen = set()
        for turn in range(5):
            if turn:
                for i, gpu in enumerate(gpus):
                    with owl.device(gpu):
                        arrays[i] = arrays[i] * 1
            sums = owl.all_reduce(arrays)
            assert [s.device for s in sums] == gpus and type(sums) is list
            assert all(s.shape == arrays[0].shape and s.dtype == dtype for s in sums)
            seen |= {s.to_numpy().tobytes() for s in sums}
        assert len(seen) == 1, "the same bits on all devices, and every time"
        np.testing.assert_allclose(sums[0].to_numpy(), np.sum(parts, axis=0, dtype=dtype), rtol=1e-5, atol=1e-3)
        assert [array.to_numpy().tobytes() for array in arrays] == before
    owl.wait_for_all()
"""


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_all_reduce(script, count):
    script(ALL_REDUCE, env={"OWL_SIMULATED_GPUS": "5"}, args=[count])


DATA_PARALLEL = """
    import numpy as np
    import owl
    owl.seed(1)
    x, true_w = owl.randn([8, 120]), owl.randn([3, 8])
    y = true_w * x

    def train(gpus):
        share = 120 // len(gpus)
        weights = [owl.zeros([3, 8]).copy_to(gpu) for gpu in gpus]
        parts = [(x[:, i * share:(i + 1) * share], y[:, i * share:(i + 1) * share]) for i in range(len(gpus))]
        for step in range(50):
            gradients = []
            for gpu, w, (px, py) in zip(gpus, weights, parts):
                with owl.device(gpu):
                    gradients.append((w * px - py) * px.T)
            for i, (gpu, gradient) in enumerate(zip(gpus, owl.all_reduce(gradients))):
                with owl.device(gpu):
                    weights[i] -= 0.5 / 120 * gradient
        values = [w.to_numpy() for w in weights]
        assert all((value == values[0]).all() for value in values), "the devices agree to the last bit"
        return values[0]

    gpus = [owl.create_gpu_device(i) for i in range(4)]
    alone = train(gpus[:1])
    for count in (2, 3, 4):
        np.testing.assert_allclose(train(gpus[:count]), alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(alone, true_w.to_numpy(), atol=1e-2)
"""


def test_gradients_of_a_minibatch_in_parts(script):
    script(DATA_PARALLEL, env={"OWL_SIMULATED_GPUS": "4"})


def test_all_reduce_waits_for_nothing(other):
    with unflushed():
        x = owl.ones([10]) + 1
        sums = owl.all_reduce([x, x.copy_to(other)])
        assert not any(s.ready() for s in sums)
        assert [s.to_numpy().tolist() for s in sums] == [[4.0] * 10] * 2


def test_all_reduce_computes_what_is_asked_for(other):
    x, y = owl.ones([10]), owl.ones([10]).copy_to(other)
    owl.wait_for_all()
    with Counted() as c:
        with unflushed():
            first = owl.all_reduce([x, y])[0]
            first.wait_for_eval()
    assert c.copies - c.dropped == 1, "the sum on the second device has no reader"


def test_all_reduce_of_views_and_of_itself(other):
    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    x = arr(a)
    sums = owl.all_reduce((x[::-1], x.copy_to(other)[::-1]))
    sums = owl.all_reduce(sums)
    for s in sums:
        assert same_bits(val(s), a[::-1] * 4)


def test_all_reduce_refuses(other):
    x = owl.ones([2, 3])
    y = x.copy_to(other)
    with owl.device(other):
        more, positive = y + 1, y > 0
    for arrays, error, text in (
        ([], ValueError, "all_reduce: the list is empty"),
        ([x, owl.ones([3]).copy_to(other)], owl.ShapeError, "array 0 has shape [2, 3], array 1 [3]; all must have one shape"),
        ([x, y.astype("int32")], owl.DTypeError, "array 0 is float32, array 1 int32; all must have one type"),
        ([x > 0, positive], owl.DTypeError, "bool arrays is not defined"),
        ([y, x, more], owl.DeviceError, f"array 0 and array 2 are both on device {other}"),
        (x, TypeError, "must be a list or tuple of NArrays, not one NArray"),
        (3, TypeError, "must be a list or tuple of NArrays"),
        ([x, np.ones(2)], TypeError, "all_reduce: every array must be an owl.NArray, not numpy.ndarray"),
    ):
        with pytest.raises(error, match=re.escape(text)):
            owl.all_reduce(arrays)
    assert [s.device for s in owl.all_reduce([y, x])] == [other, 0]


# --- the precision of products

@pytest.fixture
def precision():
    """Sets it; float32 again after the test."""
    yield owl.set_matmul_precision
    owl.set_matmul_precision("float32")


def test_the_precision_of_products_changes_no_bit_on_a_cpu(precision):
    owl.set_device(0)
    a, b = (np.random.default_rng(k).standard_normal((70, 70)).astype("f4") for k in range(2))
    image, w = owl.rand([9, 9, 4, 2]), owl.rand([3, 3, 4, 5])
    unit, zero = owl.conv.Convolver(1, 1), owl.zeros([5])

    def everything():
        x, y = owl.from_numpy(a), owl.from_numpy(b)
        out = unit.ff(image, w, zero)
        return [val(r) for r in (x * y, x @ y.T, x.astype("float64") * y, x.astype("int32") * y.astype("int32"), out,
                                 unit.bp(out, image, w), unit.weight_grad(out, image, w), unit.bias_grad(out))]

    assert owl.get_matmul_precision() == "float32"
    full = everything()
    for word in ("tf32", "bfloat16", "float32"):
        precision(word)
        assert owl.get_matmul_precision() == word
        for got, want in zip(everything(), full, strict=True):
            assert same_bits(got, want)


def test_the_precision_is_every_threads(precision):
    seen = []
    precision("tf32")
    thread = threading.Thread(target=lambda: seen.append(owl.get_matmul_precision()))
    thread.start()
    thread.join()
    assert seen == ["tf32"]


@pytest.mark.parametrize("word", ["half", "TF32", "", "float64", "\ud800", None, 1, np.float32])
def test_words_that_are_no_precision(word):
    with pytest.raises(ValueError, match="must be 'float32', 'tf32' or 'bfloat16', not "):
        owl.set_matmul_precision(word)
    assert owl.get_matmul_precision() == "float32"


def test_threads_are_limited(script):
    done = script("import owl\nprint(owl.devices()[0].threads)", env={"OWL_NUM_THREADS": "1"})
    assert done.stdout.strip() == "1"


# --- memory

def test_memory_stats():
    settle()
    before = owl.memory_stats()
    x = owl.ones([1000, 1000])
    x.wait_for_eval()
    now = owl.memory_stats()
    assert {"allocated", "cached", "peak", "limit"} <= set(now)
    assert now["allocated"] - before["allocated"] >= 4_000_000 and now["peak"] >= now["allocated"]
    del x
    settle()
    assert owl.memory_stats()["allocated"] == before["allocated"]


def test_a_value_too_large_for_the_limit(limit):
    small = owl.ones([10])
    settle()
    limit(owl.memory_stats()["allocated"] + (16 << 20))
    big = owl.ones([3000, 3000]) + 1
    for ask in (big.wait_for_eval, big.to_numpy, (big * 2).wait_for_eval, owl.wait_for_all):
        with pytest.raises(owl.OutOfMemoryError) as e:
            ask()
    text = str(e.value)
    assert re.search(r"\d+(\.\d+)? ?(MiB|MB|GiB|GB|bytes)", text), "sizes are named"
    assert "test_devices.py" in text
    assert (val(small) == 1).all() and (val(small + 1) == 2).all()
    assert owl.ones([100, 100]).count_zero() == 0
    limit(0)
    assert float((owl.ones([3000, 3000]) + 1).max()) == 2
    with pytest.raises(owl.OutOfMemoryError):
        big.wait_for_eval()
    del big
    owl.wait_for_all()


def test_the_largest_holders_are_named(limit):
    holder = owl.ones([1000, 1000]) * 2  # HOLDER
    holder.wait_for_eval()
    settle()
    limit(owl.memory_stats()["allocated"] + (4 << 20))
    with pytest.raises(owl.OutOfMemoryError) as e:
        owl.ones([2000, 2000]).wait_for_eval()
    here = line_of(pathlib.Path(__file__), "# HOLD" + "ER")
    assert "[1000, 1000]" in str(e.value) or f"test_devices.py:{here}" in str(e.value)
    limit(0)
    assert (val(holder) == 2).all()


def test_a_program_that_fits_runs_at_the_limit(limit):
    """Before an allocation fails, owl trims the cache and waits for running work."""
    kept = [owl.ones([k, 1000]) for k in range(1, 200, 3)]
    owl.wait_for_all()
    del kept
    settle()
    limit(owl.memory_stats()["allocated"] + (12 << 20))
    x = owl.ones([500, 1000])
    for _ in range(300):
        x = (x + 1.0).reshape([-1])[::-1].reshape([500, 1000])
    assert (val(x) == 301).all()
    assert owl.memory_stats()["allocated"] <= owl.memory_stats()["limit"]


def test_a_limit_of_one_device(other, limit):
    owl.set_memory_limit(8 << 20, other)
    try:
        with owl.device(other):
            x = owl.ones([3000, 3000])
            with pytest.raises(owl.OutOfMemoryError):
                x.wait_for_eval()
            del x
        assert owl.ones([3000, 3000]).count_zero() == 0
        assert owl.memory_stats(other)["limit"] == 8 << 20
    finally:
        owl.set_memory_limit(0, other)


def test_limits_out_of_range():
    for bytes in (-1, "1GB", 1.5):
        with pytest.raises((ValueError, TypeError)):
            owl.set_memory_limit(bytes)


def test_a_size_that_no_machine_has():
    x = owl.ones([1 << 58])
    with pytest.raises(owl.OutOfMemoryError):
        x.wait_for_eval()
    del x
    assert float(owl.ones([2]).sum()) == 2




def test_wait_for_all_leaves_every_held_value_ready(other):
    values = [owl.rand([100, 100]) * i for i in range(30)]
    with owl.device(other):
        values += [v.sum(0) for v in values]
    values += [v[0] for v in values] + [v.reshape([-1]).copy_to(other) for v in values]
    thread = threading.Thread(target=lambda: values.append(owl.ones([10]) + 5))
    thread.start()
    thread.join()
    owl.wait_for_all()
    assert all(v.ready() for v in values)


def test_a_limit_without_a_device_is_every_devices(other, limit):
    limit(1 << 28)
    assert owl.memory_stats(0)["limit"] == owl.memory_stats(other)["limit"] == 1 << 28


# --- instructions

@pytest.mark.parametrize("isa", ["avx512", "avx2", "baseline"])
def test_older_instructions_compute_the_same(script, isa):
    """Within rounding, and integers exactly; the device reports the instruction set, at most OWL_ISA."""
    done = script("""
        import numpy as np
        import owl
        rng = np.random.default_rng(0)
        a, b = (rng.standard_normal((70, 90), dtype="f4") for _ in range(2))
        i = rng.integers(-1000, 1000, (33, 33)).astype("i4")
        x, y, k = owl.from_numpy(a), owl.from_numpy(b), owl.from_numpy(i)
        e = owl.elewise
        near = lambda got, want: np.testing.assert_allclose(got.to_numpy(), want, rtol=1e-5, atol=1e-5)
        near(x.trans() * y, b @ a.T)
        near(e.tanh(e.mult(x, y) + 1.0), np.tanh(a * b + 1))
        near(owl.conv.softmax(x).sum(0), np.ones((70, 1)))
        near(x.sum([0, 1]), a.sum(dtype="f8"))
        assert ((k * k - k).to_numpy() == i @ i - i).all()
        image, w = owl.rand([9, 9, 8, 3]), owl.rand([3, 3, 8, 8])
        unit = owl.conv.Convolver(1, 1)
        out = unit.ff(image, w, owl.zeros([8]))
        one = owl.zeros([9, 9, 8, 3]).to_numpy()
        one[1, 2, 4, 5] = 1
        near(unit.bp(owl.from_numpy(one), image, w)[3:8, 2:7, :, 1].sum(), w.to_numpy()[2].sum())
        near(owl.conv.Pooler(2, 2, 2, 2).ff(out).max(), out.to_numpy().max())
        owl.seed(3)
        print(owl.devices()[0].name, (owl.rand([1000]) + owl.randn([1000])).to_numpy().tobytes().hex())
    """, env={"OWL_ISA": isa})
    name, numbers = done.stdout.rsplit(maxsplit=1)
    here = owl.devices()[0].name
    allowed = {"avx512": ["AVX-512", "AVX2", ""], "avx2": ["AVX2", ""], "baseline": [""]}[isa]
    assert next((a for a in ("AVX-512", "AVX2") if a in name), "") in allowed and name.split(", AVX")[0] == here.split(", AVX")[0]
    owl.seed(3)
    assert (owl.rand([1000]) + owl.randn([1000])).to_numpy().tobytes().hex() == numbers


def test_an_instruction_set_that_is_none(script):
    done = script("import owl\nowl.ones([1])", env={"OWL_ISA": "sse9"}, expect=1)
    assert "owl.Error: OWL_ISA=sse9: expected baseline, avx2 or avx512" in done.stderr


def test_a_transpose_is_viewed_on_the_other_device(other):
    """One copy of the value serves all views of it, and a product through strides has the bits of its own device."""
    w, x = owl.randn([20, 50]), owl.randn([20, 25])
    here = (w.T * x).to_numpy()
    with Counted() as c:
        with owl.device(other):
            there, flipped, plain = w.T * x, w[::-1].T * x[::-1], w * 1.0
        assert there.to_numpy().tobytes() == here.tobytes()
        assert np.allclose(flipped.to_numpy(), here, atol=1e-5) and plain.to_numpy().tobytes() == w.to_numpy().tobytes()
    assert c.copies <= 4, "of w and of x, and of x[::-1] for the product"


def test_one_of_several_results_is_copied_whole(other):
    """And viewed there, so that a product that reads it transposed has the bits of a product of any other value."""
    rng = np.random.default_rng(0)
    x, b = (owl.from_numpy(rng.standard_normal((n, 24)).astype(np.float32)) for n in (64, 2))
    gradients = []
    for device in (0, other):
        with owl.Tape() as tape:
            several = owl.topk(x, 24, 0)[0]
            with owl.device(device):
                found = several.T * b
                loss = (found * owl.ones([2, 3])).sum()
        gradients.append(val(tape.gradient(loss, x)))
    alone = owl.from_numpy(several.to_numpy())
    with owl.device(other):
        assert same_bits(val(found), val(alone.T * b))
    assert same_bits(*gradients) and gradients[0].any()
