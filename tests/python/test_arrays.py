"""Creating arrays, exchanging them with NumPy, and changing their shape."""
import functools
import gc
import json
import operator
import pickle
import re
import sys
import sysconfig
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import children
import owl
import owl.elewise as ele
from conftest import SOAK, Counted, same_bits, unflushed
from reference import DTYPES, NUMPY_TYPES, arr, dtype_of, val

F32 = np.float32


def counting(shape, dtype="float32"):
    return np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)


# --- NumPy and back

LAYOUTS = {
    "c": lambda a: a, "fortran": np.asfortranarray, "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "negative": lambda a: a[::-1, :, ::-1], "transposed": lambda a: a.transpose(1, 2, 0), "offset": lambda a: a[1:, 1:],
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape), "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "empty": lambda a: a[:, :0], "one row": lambda a: a[:1], "flat": lambda a: a.ravel(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout_of_numpy(layout, dtype):
    a = LAYOUTS[layout](counting((3, 4, 5), dtype))
    x = owl.from_numpy(a)
    assert x.shape == list(a.shape[::-1]) and dtype_of(x) == dtype
    native = a.astype(dtype)
    assert same_bits(x.to_numpy(), native) and same_bits(np.asarray(x), native)


def test_read_only_and_misaligned_arrays():
    a = counting((3, 4))
    a.flags.writeable = False
    assert same_bits(owl.from_numpy(a).to_numpy(), a)
    raw = np.zeros(4 * 12 + 1, np.uint8)
    odd = raw[1:].view(F32)
    odd[:] = np.arange(12)
    assert same_bits(owl.from_numpy(odd).to_numpy(), np.arange(12, dtype=F32))


@pytest.mark.parametrize("scalar", [np.array(2.5, F32), F32(2.5), 2.5, np.array(7, np.int32)], ids=repr)
def test_a_scalar_has_shape_1(scalar):
    x = owl.from_numpy(scalar)
    assert x.shape == [1] and float(x) == scalar


# --- memory of bools: any nonzero byte is true

BYTES = np.array([0, 1, 2, 255, 0, 128, 64, 3, 0, 1, 7, 254] * 11, np.uint8).reshape(4, 33)


def bools_from_file(suffix):
    def load(bools, tmp_path):
        path = tmp_path / f"bools{suffix}"
        if suffix == ".npz":
            np.savez(path, b=bools)
        else:
            pytest.importorskip("safetensors.numpy").save_file({"b": np.ascontiguousarray(bools)}, path)
        return owl.load(path)["b"]
    return load


def bools_in_a_structure(bools, _):
    rows = np.full(bools.shape, 99, [("before", np.uint8), ("flag", bool), ("after", np.uint8)])
    rows["flag"].view(np.uint8)[...] = bools.view(np.uint8)
    return owl.from_dlpack(rows["flag"])


WAYS_IN = {
    "numpy": lambda bools, _: owl.from_numpy(bools),
    "numpy, strided": lambda bools, _: owl.from_numpy(np.repeat(bools, 2, axis=1)[:, ::2]),
    "dlpack": lambda bools, _: owl.from_dlpack(bools),
    "dlpack, reversed": lambda bools, _: owl.from_dlpack(bools[::-1, ::-1].copy()[::-1, ::-1]),
    "dlpack, of a structure": bools_in_a_structure,
    "npz": bools_from_file(".npz"),
    "safetensors": bools_from_file(".safetensors"),
    "a user's operation": lambda bools, _: owl.op(lambda: bools.copy(), shape=list(bools.shape[::-1]), dtype=bool)(),
    "another device": lambda bools, _: owl.from_numpy(bools).copy_to(owl.create_cpu_device()).copy_to(0),
}


@pytest.mark.parametrize("way", WAYS_IN)
def test_bools_of_any_byte(way, tmp_path):
    truth = BYTES != 0
    b, good = WAYS_IN[way](BYTES.view(bool), tmp_path), owl.from_numpy(truth)
    number = owl.from_numpy(np.arange(BYTES.size, dtype=np.float32).reshape(BYTES.shape))
    assert dtype_of(b) == "bool" and int(b.sum()) == truth.sum() and b.count_zero() == (~truth).sum()
    e = owl.elewise
    for use in (lambda b: b, lambda b: 1 - b, lambda b: b + b, lambda b: b == True, lambda b: b != good,  # noqa: E712
                lambda b: b > False, lambda b: b * 2, lambda b: b + 0.5, lambda b: b.sum(0), lambda b: b.mean(1),
                lambda b: b.max(0), lambda b: b.min(), lambda b: b.argmax(0), lambda b: b.argmin(1),
                lambda b: e.mult(b, good), lambda b: e.maximum(b, good), lambda b: e.where(b, number, -1),
                lambda b: e.where(good, b, good), lambda b: e.clip(b, False, True), lambda b: b.astype("int32"),
                lambda b: b.astype("float64"), lambda b: b.astype("int32") * b.trans().astype("int32"),
                lambda b: owl.concat([b, good], 0), lambda b: b[::2, 1:], lambda b: b.trans(), lambda b: e.relu(b),
                lambda b: b.reshape([-1]), lambda b: owl.slice(b, 1, 1, 2), lambda b: -b.astype("float32"),
                lambda b: owl.op(lambda x: x.view(np.uint8).astype(np.int32), dtype="int32")(b)):
        got, want = use(b), use(good)
        assert same_bits(got.to_numpy(), want.to_numpy())
        assert same_bits(np.from_dlpack(got), np.from_dlpack(want))
    assert set(b.to_numpy().view(np.uint8).ravel()) == set(np.from_dlpack(b).view(np.uint8).ravel()) == {0, 1}


def test_bools_of_the_usual_bytes_are_shared():
    bools = BYTES % 2 == 0
    x = owl.from_dlpack(bools)
    assert np.from_dlpack(x).ctypes.data == bools.ctypes.data


@pytest.mark.parametrize("enter", [owl.from_numpy, owl.from_dlpack], ids=["numpy", "dlpack"])
def test_one_odd_byte_anywhere(enter):
    for n in range(1, 20):
        for at in range(n):
            bools = np.zeros(n, np.uint8)
            bools[at] = 2
            assert same_bits(enter(bools.view(bool)).to_numpy(), bools != 0)


def test_a_bool_of_any_byte_as_scalar():
    assert bool(owl.from_numpy(np.array(7, np.uint8).view(bool))) is True
    assert float(owl.ones([1]) * np.array([2], np.uint8).view(bool)[0]) == 1.0


CASTS = {"longdouble": "float64", "int8": "int32", "int16": "int32", "uint16": "int32", "uint32": "int64",
         "uint64": "int64", **{dtype: dtype for dtype in DTYPES}}


@pytest.mark.parametrize("source", CASTS)
def test_other_types_are_cast_to_the_nearest(source):
    a = np.array([0, 1, 100]).astype(source)
    x = owl.from_numpy(a)
    assert dtype_of(x) == CASTS[source]
    np.testing.assert_array_equal(x.to_numpy(), a)


@pytest.mark.parametrize("a", [np.array([2**63 - 1, -2**63], np.int64), np.array([2**32 - 1], np.uint32),
                               np.array([1, 2**63 - 1], np.uint64), np.array([], np.uint64)], ids=repr)
def test_integers_that_fit_int64_are_exact(a):
    assert same_bits(owl.from_numpy(a).to_numpy(), a.astype(np.int64))


def test_integers_that_do_not_fit_give_float64():
    a = np.array([1, 2**63], np.uint64)
    assert same_bits(owl.from_numpy(a).to_numpy(), a.astype(np.float64))


@pytest.mark.parametrize("a", [np.array([1j]), np.array(["a"]), np.array([None]), np.array(["2020-01-01"], "M8[D]"),
                               np.zeros(2, [("x", "f4")])], ids=lambda a: a.dtype.kind)
def test_types_that_have_no_nearest(a):
    with pytest.raises(TypeError):
        owl.from_numpy(a)


def test_the_caller_may_change_the_source():
    a = np.ones((300, 400), F32)
    x = owl.from_numpy(a)
    y = x + 1
    a[:] = 7
    assert (x.to_numpy() == 1).all() and (y.to_numpy() == 2).all()


def test_what_to_numpy_gives_cannot_change_the_array():
    x = owl.ones([3, 4])
    for export in (x.to_numpy, lambda: np.asarray(x), lambda: np.array(x)):
        a = export()
        if a.flags.writeable:
            a[:] = 5
        assert (x.to_numpy() == 1).all()


def test_numpy_arrays_outlive_their_source():
    x = arr(counting((200, 300))) + 0
    a, b = x.to_numpy(), np.asarray(x)
    del x
    gc.collect()
    for _ in range(20):
        (owl.ones([200, 300]) * 9).wait_for_eval()
    assert same_bits(a, counting((200, 300)).T) and same_bits(b, a)


# --- a temporary's memory is handed over

LARGE = [400, 300]  # large enough to be handed over
hands_over = pytest.mark.skipif(sys.version_info < (3, 11) or sysconfig.get_config_var("Py_GIL_DISABLED") == 1,
                                reason="a temporary cannot be told from a held array")


def is_handed_over(a):
    """Whether a NumPy array has owl's memory; every array that to_numpy gives is its own and can be written."""
    assert a.flags.writeable and a.flags.c_contiguous and a.flags.aligned
    return type(a.base).__name__ == "PyCapsule"


@hands_over
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_temporary_hands_its_memory_over(dtype):
    x = owl.from_numpy(counting(LARGE[::-1]) % 7).astype(dtype)
    owl.wait_for_all()
    before = owl.memory_stats(0)["allocated"]
    a = ele.where(x == x, x, x).to_numpy()
    assert is_handed_over(a) and same_bits(a, x.to_numpy())
    assert owl.memory_stats(0)["allocated"] >= before + a.nbytes, "it stays accounted"
    a[:] = 3
    part = a[10:20]
    del a
    y = [ele.where(x == x, x, x) for _ in range(3)]
    owl.wait_for_all()
    assert (part == part.dtype.type(3)).all(), "the memory is not used again"
    del part, y
    gc.collect()
    owl.wait_for_all()
    assert owl.memory_stats(0)["allocated"] == before


def name(x):
    y = x + 1
    return y.to_numpy(), y


def bound(x):
    f = (x + 1).to_numpy
    return f(), f.__self__


def partial(x):
    f = functools.partial(owl.NArray.to_numpy, x + 1)
    return f(), f.args[0]


def starred(x):
    held = (x + 1,)
    return owl.NArray.to_numpy(*held), held[0]


def mapped(x):
    held = [x + 1]
    return next(map(owl.NArray.to_numpy, held)), held[0]


def call_by_name(x):
    held = [x + 1]
    return operator.methodcaller("to_numpy")(held[0]), held[0]


def attribute(x):
    class Holder:
        y = x + 1
    return Holder.y.to_numpy(), Holder.y


def weakly(x):
    refs = []

    def noted(y):
        refs.append(weakref.ref(y))
        return y
    return noted(x + 1).to_numpy(), x + 1


def wrapped(x):
    class Wrapper:
        inner = x + 1
        to_numpy = functools.partial(owl.NArray.to_numpy, inner)
    return Wrapper().to_numpy(), Wrapper.inner


def viewed(x):
    y = x + 1
    return y[:].to_numpy(), y


def view_of_a_temporary(x):
    return (x + 1)[:, 0:300].to_numpy(), x + 1


def read_later(x):
    y = [None]

    def noted(t):
        y[0] = t * 1
        return t
    return noted(x + 1).to_numpy(), y[0]


def exported(x):
    shared = []

    def noted(t):
        shared.append(np.from_dlpack(t))
        return t
    a = noted(x + 1).to_numpy()
    a[:] = 0
    return owl.from_numpy(shared[0]).to_numpy(), x + 1


def on_a_tape(x):
    with owl.Tape() as tape:
        y = []

        def noted(t):
            y.append(ele.mult(t, t).sum())
            return t
        a = noted(x + 1).to_numpy()
    kept = a.copy()
    a[:] = 0
    g = tape.gradient(y[0], x)
    assert (g.to_numpy() == 2 * kept).all()
    return kept, x + 1


def imported(x):
    numbers = np.ones(LARGE[::-1], F32)
    a = owl.from_dlpack(numbers).to_numpy()
    a[:] = 0
    assert (numbers == 1).all()
    return (x + 1).to_numpy(), x + 1


@pytest.mark.parametrize("way", [name, bound, partial, starred, mapped, call_by_name, attribute, weakly, wrapped, viewed,
                                 view_of_a_temporary, read_later, exported, on_a_tape, imported])
def test_no_memory_is_handed_over_that_others_can_reach(way):
    numbers = counting(LARGE[::-1])
    x = owl.from_numpy(numbers)
    a, held = way(x)
    assert same_bits(a, numbers + 1)
    a[:] = -1
    assert same_bits(np.asarray(held), numbers + 1) and same_bits(np.asarray(x), numbers)


@hands_over
def test_nothing_is_handed_over_under_a_memory_limit():
    x = owl.ones(LARGE)
    a = (x + 1).to_numpy()  # in an assert pytest would refer to the temporary
    assert is_handed_over(a)
    owl.set_memory_limit(100 << 20)
    try:
        a = (x + 1).to_numpy()
        assert not is_handed_over(a)
    finally:
        owl.set_memory_limit(0)


def test_small_temporaries_are_copied():
    x = owl.ones([4, 4])
    a = (x + 1).to_numpy()
    assert not is_handed_over(a)


def test_a_failed_temporary_raises_its_error():
    with pytest.raises(owl.ShapeError):
        (owl.ones(LARGE) + owl.ones([3, 7])).to_numpy()


def test_asarray_with_a_type():
    x = owl.ones([2, 3])
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    assert np.asarray(x).shape == (3, 2)


# --- DLPack

@pytest.mark.parametrize("dtype", NUMPY_TYPES)
def test_dlpack_to_numpy(dtype):
    x = arr(counting((3, 4, 5), dtype))
    a = np.from_dlpack(x)
    assert same_bits(a, x.to_numpy()) and a.shape == (5, 4, 3)
    assert not a.flags.writeable
    assert np.shares_memory(a, np.from_dlpack(x))
    del x
    gc.collect()
    assert same_bits(a, counting((3, 4, 5), dtype).T)


def test_dlpack_waits_for_the_value_and_takes_views():
    x = arr(counting((6, 7)))
    with unflushed():
        assert same_bits(np.from_dlpack(x + 1), x.to_numpy() + F32(1))
    assert same_bits(np.from_dlpack(x[::2, 1:5]), x.to_numpy()[1:5, ::2])
    assert same_bits(np.from_dlpack(x.trans()), x.to_numpy().T)
    assert x.__dlpack_device__() == (1, 0)


@pytest.mark.parametrize("dtype", NUMPY_TYPES)
def test_dlpack_from_numpy(dtype):
    a = counting((3, 4, 5), dtype)
    x = owl.from_dlpack(a)
    assert x.shape == [5, 4, 3] and dtype_of(x) == dtype
    assert same_bits(x.to_numpy(), a)
    assert np.shares_memory(np.from_dlpack(x), a), "not zero-copy"
    y = x.astype("float64") + 1
    del x
    gc.collect()
    np.testing.assert_array_equal(y.to_numpy(), a.astype(np.float64) + 1)


def test_dlpack_from_odd_layouts():
    a = counting((6, 8))
    for b in (a[::2, ::3], a.T, a[::-1], a[:, 2:5], a[:0]):
        assert same_bits(owl.from_dlpack(b).to_numpy(), np.ascontiguousarray(b))


def test_memory_lent_by_dlpack_is_never_written():
    a = counting((64, 64))
    before, x = a.copy(), owl.from_dlpack(a)
    x -= 1
    x *= 3
    x.wait_for_eval()
    del x
    assert same_bits(a, before)


def test_dlpack_refuses_what_it_cannot_take():
    for other in (3, [1.0], None, object()):
        with pytest.raises((TypeError, AttributeError)):
            owl.from_dlpack(other)
    with pytest.raises((TypeError, BufferError)):
        owl.from_dlpack(np.ones(3, np.complex64))


# --- makers

@pytest.mark.parametrize("shape", [[3], [2, 3], [0], [4, 0, 2], [1, 1, 1], [2] * 8], ids=str)
@pytest.mark.parametrize("dtype", [None, *DTYPES])
def test_constants(shape, dtype):
    kw = {"dtype": dtype} if dtype else {}
    for x, value in ((owl.zeros(shape, **kw), 0), (owl.ones(shape, **kw), 1), (owl.full(shape, 7, **kw), 7)):
        assert x.shape == shape and dtype_of(x) == (dtype or "float32")
        assert (val(x) == np.array(value).astype(dtype or F32)).all() and val(x).shape == tuple(shape)


def test_ways_to_name_a_shape_and_a_type():
    for shape in ((2, 3), [2, 3], [np.int64(2), np.int32(3)], np.array([2, 3])):
        assert owl.zeros(shape).shape == [2, 3]
    assert owl.zeros(5).shape == [5]
    for dtype in ("float64", np.float64, np.dtype("float64"), float):
        assert dtype_of(owl.zeros([2], dtype=dtype)) == "float64"
    for dtype in ("int32", np.int32, np.dtype("int32")):
        assert dtype_of(owl.ones([2]).astype(dtype)) == "int32"
    assert owl.ones([2]).dtype == np.float32


def test_arange():
    for n in (0, 1, 5, 1000):
        assert same_bits(val(owl.arange(n)), np.arange(n, dtype=F32))
    assert same_bits(val(owl.arange(5, dtype="int32")), np.arange(5, dtype=np.int32))
    assert same_bits(val(owl.arange(100_000, dtype="int32")), np.arange(100_000, dtype=np.int32))


BAD_SHAPES = [[], (), [-1], [2, -3], [2**31, 2**31, 2**31], [2**63 - 1, 2], [1] * 9]


@pytest.mark.parametrize("shape", BAD_SHAPES, ids=str)
@pytest.mark.parametrize("make", [owl.zeros, owl.ones, lambda s: owl.full(s, 2), owl.randn, owl.rand,
                                  lambda s: owl.randb(s, 0.5)],
                         ids=["zeros", "ones", "full", "randn", "rand", "randb"])
def test_shapes_that_are_none(make, shape):
    with pytest.raises(owl.ShapeError):
        make(shape)


# --- random numbers

def moments(x):
    a = val(x).astype(np.float64)
    return a.mean(), a.std(), ((a - a.mean()) ** 3).mean() / a.std() ** 3


def test_moments():
    """Bounds of six standard errors and more for 250,000 draws."""
    owl.seed(11)
    mean, std, skew = moments(owl.randn([500, 500], 3.0, 0.5))
    assert abs(mean - 3) < 0.008 and abs(std - 0.5) < 0.006 and abs(skew) < 0.05
    a = val(owl.randn([250_000]))
    assert 4 < np.abs(a).max() < 7 and abs((np.abs(a) < 1).mean() - 0.6827) < 0.007
    u = val(owl.rand([250_000], -2.0, 3.0))
    assert -2 <= u.min() < -1.99 and 2.99 < u.max() <= 3
    assert abs(u.mean() - 0.5) < 0.02 and abs(u.std() - 5 / 12 ** 0.5) < 0.02
    for prob in (0.0, 0.25, 1.0):
        b = val(owl.randb([250_000], prob))
        assert set(np.unique(b)) <= {0, 1} and abs(b.mean() - prob) < 0.006
    assert abs(np.corrcoef(a[:-1], a[1:])[0, 1]) < 0.015


def test_the_third_argument_of_randn_is_the_standard_deviation():
    owl.seed(3)
    assert abs(val(owl.randn([100_000], 0.0, 4.0)).std() - 4) < 0.06


@pytest.mark.parametrize("make", [owl.randn, owl.rand, lambda s: owl.randb(s, 0.4)], ids=["randn", "rand", "randb"])
def test_the_same_seed_gives_the_same_numbers(make):
    def draw():
        owl.seed(1234)
        return val(make([37, 11])), val(make([37, 11]))
    (a, b), (c, d) = draw(), draw()
    assert same_bits(a, c) and same_bits(b, d) and not same_bits(a, b)
    owl.seed(1235)
    assert not same_bits(val(make([37, 11])), a)


def test_numbers_do_not_depend_on_when_they_are_waited_for():
    owl.seed(5)
    with unflushed():
        x, y = owl.randn([1000]), owl.randn([1000])
        later = val(y), val(x)
    owl.seed(5)
    sooner = val(owl.randn([1000])), val(owl.randn([1000]))
    assert same_bits(later[1], sooner[0]) and same_bits(later[0], sooner[1])


def test_numbers_drawn_and_dropped_still_count():
    owl.seed(5)
    owl.randn([1000])
    second = val(owl.randn([1000]))
    owl.seed(5)
    val(owl.randn([1000]))
    assert same_bits(second, val(owl.randn([1000])))


def test_the_place_of_the_generator():
    owl.seed(1234)
    owl.rand([3])
    state = owl.random_state()
    assert state == (1234, 1)
    first = [val(owl.randn([37, 11])), val(owl.randb([40], 0.5))]
    assert owl.random_state() == (1234, 3)
    for again in (state, list(state), json.loads(json.dumps(state))):
        owl.set_random_state(again)
        assert all(same_bits(val(x), y) for x, y in zip((owl.randn([37, 11]), owl.randb([40], 0.5)), first))
    owl.set_random_state((2**64 - 1, 2**40))
    assert owl.random_state() == (2**64 - 1, 2**40)


PARTS = {"rand": (-1.0, 3.0), "randn": (0.5, 2.0), "randb": (0.3, 0.0)}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", PARTS)
def test_a_part_of_a_random_array_is_drawn_again(kind, dtype):
    """With the bits that it has in the whole, wherever it begins and ends in the generator's blocks and the chunks."""
    def bits(x):
        return (x.astype("float32") if is_half(x) else x).to_numpy().ravel().view("u1")

    def is_half(x):
        return str(x.dtype) in ("float16", "bfloat16")

    owl.seed(11)
    owl.rand([2])
    state = owl.random_state()
    a, b = PARTS[kind]
    n = 150_001
    whole = bits(getattr(owl, kind)([n], *((a,) if kind == "randb" else (a, b)), dtype=dtype)).reshape(n, -1)
    for first, count in ((0, n), (0, 1), (1, 1), (2, 3), (3, 64), (4, 64), (5, 200), (63, 130), (65_535, 70_000), (65_537, 65_536),
                         (n - 1, 1), (17, 0)):  # fmt: skip
        owl.set_random_state(state)
        part = owl._owl.draw_part(kind, first, [count], a, b, dtype)
        assert str(part.dtype) == dtype and owl.random_state()[1] == state[1] + 1
        assert np.array_equal(bits(part).reshape(count, whole.shape[1]), whole[first : first + count]), (first, count)
    owl.set_random_state(state)
    columns = owl._owl.draw_part(kind, 7 * 30, [7, 11], a, b, dtype)  # columns 30 to 41 of 7 rows
    assert np.array_equal(bits(columns).reshape(77, -1), whole[210:287])


def test_parts_far_along_and_wrong_ones():
    far = 2**40 + 3
    owl.seed(3)
    one = val(owl._owl.draw_part("randn", far, [100], 0, 1, "float32"))
    owl.seed(3)
    assert same_bits(val(owl._owl.draw_part("randn", far + 10, [90], 0, 1, "float32")), one[10:])
    for first in (-1, 2**63 - 5):
        with pytest.raises(ValueError, match="the first element of a part must be from 0"):
            owl._owl.draw_part("rand", first, [10], 0, 1, "float32")
    with pytest.raises(ValueError, match="kind must be 'rand', 'randn' or 'randb', not 'bernoulli'"):
        owl._owl.draw_part("bernoulli", 0, [10], 0, 1, "float32")


def test_a_part_in_a_checkpoint_and_under_a_tape_is_drawn_again_as_it_is():
    x = owl.arange(50) + 1.0

    def dropped(x):
        return owl.elewise.mult(x, owl.stop_gradient(owl._owl.draw_part("randb", 13, x.shape, 0.5, 0, "float32")))

    owl.seed(3)
    want = val(owl.randb([63], 0.5))[13:]
    for function in (dropped, owl.checkpoint(lambda x: owl.square(dropped(x)))):
        owl.seed(3)
        g = val(owl.grad(lambda x: function(x).sum())(x))
        assert np.array_equal(g != 0, want != 0) and 5 < (g != 0).sum() < 45


def test_the_place_of_a_generator_without_a_seed(script):
    done = script("""
        import owl
        state = owl.random_state()
        x = owl.rand([5]).tolist()
        owl.set_random_state(state)
        print(owl.rand([5]).tolist() == x, state[1])
    """)
    assert done.stdout == "True 0\n"


@pytest.mark.parametrize("prob", [-0.1, 1.5, float("nan")])
def test_a_probability_outside_0_to_1(prob):
    with pytest.raises((ValueError, owl.Error)):
        owl.randb([3], prob)


# --- properties

def test_properties():
    x = owl.zeros([2, 3, 4], dtype="int32")
    assert x.shape == [2, 3, 4] and isinstance(x.shape, list)
    assert (x.ndim, x.size, len(x), dtype_of(x), x.device) == (3, 24, 2, "int32", 0)
    x.shape.append(9)
    assert x.shape == [2, 3, 4]
    assert [owl.zeros([3, 4], dtype=dtype).nbytes for dtype in ("bool", "float16", "bfloat16", "int64")] == [12, 24, 24, 96]
    for name in ("shape", "ndim", "size", "nbytes", "dtype", "device"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(x, name, 1)
    with pytest.raises(TypeError):
        x[0] = 1


def test_properties_do_not_wait():
    x = owl.ones([300, 2])
    x.wait_for_eval()
    with unflushed():
        y = x + 41
        assert (y.shape, y.ndim, y.size, len(y), dtype_of(y), y.device) == ([300, 2], 2, 600, 300, "float32", 0)
        assert not y.ready()


# --- as text

def test_repr_waits_and_is_the_same_whatever_the_timing():
    x = owl.ones([300, 2])
    x.wait_for_eval()
    for show in (repr, str, "{}".format, lambda y: f"{y!r}"):
        with unflushed():
            y = x + 41
            early = show(y)
            assert y.ready() and early.count("42.") == 600
        assert show(y) == early and early.endswith("shape=[300, 2], dtype=float32, device=0)")


def shown(x):
    """As NumPy shows the values, whose axes are in owl's order."""
    values = np.array2string(val(x), separator=", ", prefix="NArray(")
    return f"NArray({values}, shape={x.shape}, dtype={dtype_of(x)}, device={x.device})"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [[1], [3], [1000], [1001], [5000], [2, 3], [10, 100], [10, 101], [3, 400], [400, 3],
                                   [7, 6, 30], [2, 3, 4, 50], [1, 1, 1500], [6, 6, 7, 7], [0], [0, 3], [2000, 0], [1] * 8],
                         ids=str)
def test_repr_cuts_as_numpy_does(shape, dtype):
    rng = np.random.default_rng(1)
    x = arr((rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 3, shape)).astype(dtype))
    assert repr(x) == shown(x)
    for view in (x.transpose(), x[::-1], x[..., ::2], x[None] if x.ndim < 8 else x):
        assert repr(view) == shown(view)


def test_repr_obeys_numpys_options():
    x = arr(np.arange(60, dtype=F32).reshape(3, 20) / 7)
    for options in ({"threshold": 10}, {"threshold": 10, "edgeitems": 1}, {"threshold": 5, "edgeitems": 9},
                    {"precision": 2, "suppress": True}, {"threshold": np.inf}, {"linewidth": 30},
                    {"formatter": {"float": "<{:.1f}>".format}}):  # fmt: skip
        with np.printoptions(**options):
            assert repr(x) == shown(x)
    with np.printoptions(threshold=np.inf):
        assert repr(owl.zeros([2000])).count("0.") == 2000


def test_repr_of_a_large_array_looks_at_its_edges_only():
    x = owl.zeros([4000, 4000]) + 1
    x.wait_for_eval()
    before = owl.memory_stats()["peak"]
    assert len(repr(x)) < 500 and owl.memory_stats()["peak"] == before


def test_repr_of_a_failed_value_shows_the_error():
    with owl.trace_nan():
        bad = owl.log(owl.zeros([2, 3]) - 1)
    for x in (bad, bad + 1, bad[0], [bad]):
        for _ in range(2):
            text = repr(x)
            assert "NArray(<NaNError: " in text and "'ln'" in text and "test_arrays.py:" in text
    assert repr(bad).endswith(">, shape=[2, 3], dtype=float32, device=0)")
    with pytest.raises(owl.NaNError):
        bad.to_numpy()
    del bad, x
    try:
        owl.wait_for_all()
    except owl.NaNError:
        pass


def test_repr_on_the_null_device():
    with owl.device(owl._owl.create_null_device()):
        text = repr(owl.ones([3]) + 1)
    assert "<DeviceError: " in text and "null device" in text and "shape=[3]" in text


# --- lengths one by one

@pytest.mark.parametrize("make", [owl.zeros, owl.ones, owl.rand, owl.randn], ids=lambda f: f.__name__)
def test_lengths_one_by_one(make):
    assert make(3, 4).shape == [3, 4] and make(3, 4, 5).shape == [3, 4, 5] and make(7).shape == [7]
    assert make(2, 3, dtype="float64").dtype == np.float64 and make(2, 3, dtype="float64").shape == [2, 3]
    assert make(np.int64(3), np.int32(4)).shape == [3, 4] and make(np.array(3), 4).shape == [3, 4]
    assert make(*[1] * 8).shape == [1] * 8 and make(0).shape == [0]
    assert make([3, 4]).shape == make((3, 4)).shape == make(np.array([3, 4])).shape == [3, 4]
    assert make([3, 4], dtype="float64").dtype == np.float64
    with pytest.raises(owl.ShapeError, match="9"):
        make(*[1] * 9)
    for wrong in ((2, "3"), (2, [3]), (2, None, 3), ("2",), ([2], [3]), (2.0,), ([2.0],), (None,)):
        with pytest.raises(TypeError):
            make(*wrong)
    with pytest.raises(TypeError, match="shape"):
        make(2, 3, shape=[4])


def test_zeros_and_ones_take_any_lengths():
    for make in (owl.zeros, owl.ones):
        assert make(3, 0).shape == [3, 0] and make(3, 4, "int32").dtype == np.int32 and make([3], "int32").dtype == np.int32
        with pytest.raises(owl.ShapeError, match="-4"):
            make(3, -4)
        with pytest.raises(TypeError, match="shape must be one integer or several, not float"):
            make(3, 4.0)


def test_ints_alone_are_a_shape_of_random_numbers():
    owl.seed(5)
    a = val(owl.randn(30, 40))
    owl.seed(5)
    assert same_bits(val(owl.randn([30, 40])), a)
    x = val(owl.randn(200, 50, mu=3.0, sigma=0.5))
    assert x.shape == (200, 50) and abs(x.mean() - 3) < 0.05 and abs(x.std() - 0.5) < 0.05
    x = val(owl.rand(200, 50, low=2, high=3))
    assert x.shape == (200, 50) and x.min() >= 2 and x.max() <= 3
    assert owl.randn([3], 0, 1).shape == [3] and owl.rand([2], 0, 5).shape == [2]
    assert owl.randn([3], 4, 0).to_numpy().tolist() == [4, 4, 4]


@pytest.mark.parametrize("call, spellings", [
    (lambda: owl.randn(3, 0), ["randn(3, 0)", "randn([3], 0.0)", "randn([3, 0])", "mu and sigma"]),
    (lambda: owl.randn(3, 0, 1), ["randn([3], 0.0, 1.0)", "randn([3, 0, 1])"]),
    (lambda: owl.randn(3, 0.0, 1.0), ["randn(3, 0.0, 1.0)", "randn([3], 0.0, 1.0)", "randn([3, 4])"]),
    (lambda: owl.randn(3, 4, 0.0, 1.0), ["randn([3, 4], 0.0, 1.0)"]),
    (lambda: owl.randn(3, -1), ["randn([3], -1.0)"]),
    (lambda: owl.randn(0, 3), ["randn(0, 3)", "randn([0], 3.0)", "randn([0, 3])", "mu and sigma"]),
    (lambda: owl.rand(0, 3), ["rand(0, 3)", "rand([0], 3.0)", "rand([0, 3])", "low and high"]),
    (lambda: owl.randn(-3, 4), ["randn(-3, 4)", "randn([3, 4], 4.0)", "randn([3, 4])"]),
    (lambda: owl.randn(3.0, 4), ["randn(3.0, 4)", "randn([3, 4], 4.0)", "randn([3, 4])"]),
    (lambda: owl.rand(np.float32(2.0), 3, 4), ["rand([3, 4], 3.0, 4.0)", "rand([3, 4])"]),
    (lambda: owl.randn(3, 4, -5), ["randn([3, 4], -5.0)", "randn([3, 4])"]),
    (lambda: owl.randn(3, np.float32(0.5)), ["randn([3], 0.5)"]),
    (lambda: owl.randn(3, 4, 0, dtype="float64"), ["randn([3, 4], 0.0)"]),
    (lambda: owl.rand(3, 0.0, 2.0), ["rand([3], 0.0, 2.0)", "low and high"]),
    (lambda: owl.rand(3, -1, 1), ["rand([3], -1.0, 1.0)", "rand([3, 4])"]),
    (lambda: owl.randb(3, 1), ["randb(3, 1)", "randb([3, 1], 0.5)", "randb([3], 1.0)"]),
    (lambda: owl.randb(3, 4, 0.5), ["randb([3, 4], 0.5)"]),
    (lambda: owl.full(3, 4, 1.0), ["full([3, 4], 1.0)"]),
])  # fmt: skip
def test_what_could_mean_two_things_is_an_error_that_shows_both(call, spellings):
    with pytest.raises(owl.ShapeError) as e:
        call()
    for spelling in spellings:
        assert spelling in str(e.value), str(e.value)


def test_full_and_randb_take_one_shape():
    assert owl.full(3, 4).to_numpy().tolist() == [4, 4, 4] and owl.full((2, 3), 7).shape == [2, 3]
    assert owl.randb(3, 0.5).shape == [3] and owl.randb([3], 1).to_numpy().tolist() == [1, 1, 1]
    assert owl.randb(3, prob=1).to_numpy().tolist() == [1, 1, 1]


def test_axis_is_called_dim_too():
    x = arr(counting((2, 3)))
    want = val(owl.concat([x, x], 1))
    assert same_bits(val(owl.concat([x, x], axis=1)), want) and same_bits(val(owl.concat(arrays=[x, x], dim=1)), want)
    want = val(owl.slice(x, 1, 1, 2))
    assert same_bits(val(owl.slice(x, axis=1, offset=1, count=2)), want)
    assert same_bits(val(owl.slice(x, dim=1, offset=1, count=2)), want)
    for call in (lambda: owl.concat([x, x], 1, dim=1), lambda: owl.concat([x, x], axis=1, dim=1)):
        with pytest.raises(TypeError, match="'axis' twice"):
            call()
    with pytest.raises(TypeError, match=r"needs the argument 'axis'; it takes arrays, axis$"):
        owl.concat([x, x])


# --- eye, linspace, like others

@pytest.mark.parametrize("dtype", DTYPES)
def test_eye(dtype):
    for n, m, k in ((3, None, 0), (3, 5, 0), (5, 3, 0), (4, 4, 1), (4, 6, -2), (3, 3, 3), (3, 3, -9), (3, 3, 2**40),
                    (0, None, 0), (0, 3, 0), (3, 0, 1), (1, 1, 0)):
        got = owl.eye(n, m, k, dtype)
        assert dtype_of(got) == dtype and same_bits(val(got), np.eye(n, m, k, dtype=dtype)), (n, m, k)
    for k in (2**63 - 1, -2**63):
        assert not val(owl.eye(3, 4, k)).any()
    assert owl.eye(3).dtype == np.float32 and owl.eye(n=2, m=3, k=1).shape == [2, 3]
    for wrong in ((-1,), (2, -3), (2**62, 2**62)):
        with pytest.raises(owl.ShapeError):
            owl.eye(*wrong)
    for wrong in ((2.0,), ([2, 3],), ("2",)):
        with pytest.raises(TypeError):
            owl.eye(*wrong)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("endpoint", [True, False])
def test_linspace(dtype, endpoint):
    for start, stop, num in ((0, 1, 5), (0, 1, 50), (-3.5, 7.25, 1001), (5, -5, 7), (0.1, 0.7, 12345), (2, 2, 3), (0, 1, 1),
                             (3, 9, 0), (1e-3, 1e3, 99), (-7, 7, 4)):
        if dtype == "uint8" and (min(start, stop) < 0 or max(start, stop) > 255):
            with pytest.raises(OverflowError, match="uint8"):
                owl.linspace(start, stop, num, endpoint, dtype)
            continue
        got = owl.linspace(start, stop, num, endpoint, dtype)
        assert dtype_of(got) == dtype and got.shape == [num]
        assert same_bits(val(got), np.linspace(start, stop, num, endpoint, dtype=dtype)), (start, stop, num)
    assert owl.linspace(0, 1).shape == [50] and owl.linspace(start=0, stop=1, num=3).dtype == np.float32


def test_linspace_refuses():
    for wrong, error in (((0, 1, -1), owl.ShapeError), ((0, np.inf), ValueError), ((np.nan, 1), ValueError),
                         ((0, 1, 2.0), TypeError), (("0", 1), TypeError), ((0, 1, 5, "yes"), TypeError)):
        with pytest.raises(error, match="linspace"):
            owl.linspace(*wrong)
    with pytest.raises(OverflowError):
        owl.linspace(0, 3e9, 5, dtype="int32")


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_like_others(dtype):
    x = arr(counting((2, 3, 4), dtype))
    for got, value in ((owl.zeros_like(x), 0), (owl.ones_like(x), 1), (owl.full_like(x, 1), 1), (owl.full_like(x, v=0), 0)):
        assert got.shape == [2, 3, 4] and dtype_of(got) == dtype and (val(got) == value).all()
    assert dtype_of(owl.zeros_like(x, "float64")) == dtype_of(owl.full_like(x, 2, dtype="float64")) == "float64"
    assert owl.zeros_like(x[:, 0]).shape == [2, 4]
    for make in (owl.zeros_like, owl.ones_like, lambda a: owl.full_like(a, 1)):
        with pytest.raises(TypeError, match="from_numpy"):
            make(np.ones(3))
    with pytest.raises(OverflowError):
        owl.full_like(x.astype("int32"), 2**31)


def test_numbers_out_of_arrays():
    for dtype, kind in (("float32", float), ("float64", float), ("int32", int), ("bool", bool)):
        for shape in ([1], [1, 1, 1]):
            x = owl.full(shape, 1, dtype=dtype)
            assert type(x.item()) is kind and x.item() == 1
            assert float(x) == 1.0 and int(x) == 1 and bool(x) is True
    assert bool(owl.zeros([1])) is False and int(owl.full([1], -2.7)) == -2
    assert float(owl.full([1], 0.1, dtype="float64")) == 0.1
    for shape in ([2], [0], [1, 2]):
        for f in (float, int, bool, lambda x: x.item()):
            with pytest.raises((ValueError, TypeError)):
                f(owl.ones(shape))
    with pytest.raises((ValueError, OverflowError)):
        int(owl.full([1], float("nan")))


def test_waiting():
    x = owl.ones([3])
    with unflushed():
        y = x + 1
        assert not y.ready()
        assert y.start_eval() is None
        assert y.wait_for_eval() is not False and y.ready()
        assert (x + 1).wait_for_eval(60.0) is True
        assert (x + 1).wait_for_eval(timeout=60) is True


# --- form

@given(st.data())
@settings(max_examples=100 * SOAK)
def test_reshape_and_transpose(d):
    shape = d.draw(st.lists(st.integers(0, 5), min_size=1, max_size=5), "shape")
    a = counting(shape)
    order = d.draw(st.permutations(range(len(shape))), "order")
    x, b = arr(a).transpose(list(order)), a.transpose(order)
    assert same_bits(val(x), b)
    target = [int(np.prod(b.shape[:2], dtype=int)), *b.shape[2:]]
    assert same_bits(val(x.reshape(target)), b.reshape(target, order="F"))
    if b.size:
        assert same_bits(val(x.reshape([-1, *b.shape[2:]])), b.reshape(target, order="F"))
        assert same_bits(val(x.reshape([-1])), b.reshape(-1, order="F"))


def test_reshape_errors():
    x = owl.ones([2, 6])
    for shape in ([5], [5, -1], [2, 6, 2], [0, -1]):
        with pytest.raises(owl.ShapeError, match=r"\[2, 6\]"):
            x.reshape(shape)
    for shape in ([], [-1, -1], [-2, 6], [1] * 8 + [12]):
        with pytest.raises(owl.ShapeError):
            x.reshape(shape)
    with pytest.raises(owl.ShapeError):
        owl.zeros([0, 3]).reshape([0, -1])
    with pytest.raises(TypeError):
        x.reshape([2.0, 6.0])


def test_trans():
    a = counting((3, 5))
    assert same_bits(val(arr(a).trans()), a.T) and same_bits(val(arr(a).T), a.T)
    assert same_bits(val(arr(a).trans().trans()), a)
    for shape in ([3], [2, 3, 4]):
        with pytest.raises(owl.ShapeError):
            owl.ones(shape).trans()
    for axes in ([0], [0, 0], [0, 2], [1, 0, 2], []):
        with pytest.raises(owl.ShapeError):
            arr(a).transpose(axes)
    assert same_bits(val(arr(a).transpose([-1, 0])), a.T)


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_concat(dim, dtype):
    parts = []
    for length in (2, 1, 0, 3):
        shape = [3, 4, 2]
        shape[dim] = length
        parts.append(counting(shape, dtype))
    assert same_bits(val(owl.concat([arr(p) for p in parts], dim)), np.concatenate(parts, axis=dim))
    views = [arr(p)[::-1, :, ::-1] for p in parts]
    assert same_bits(val(owl.concat(views, dim)), np.concatenate([p[::-1, :, ::-1] for p in parts], axis=dim))


def test_concat_of_many_and_of_one():
    parts = [counting((2, 1)) + i for i in range(500)]
    assert same_bits(val(owl.concat([arr(p) for p in parts], 1)), np.concatenate(parts, axis=1))
    assert same_bits(val(owl.concat([arr(parts[3])], 0)), parts[3])


def test_concat_errors():
    x = owl.ones([2, 3])
    for arrays, dim in (([], 0), ([x, owl.ones([2, 4])], 0), ([x, owl.ones([2])], 0), ([x, x], 2), ([x, x], -3)):
        with pytest.raises(owl.ShapeError):
            owl.concat(arrays, dim)
    for arrays in ([x, 1.0], [np.ones((2, 3))], x.to_numpy(), 5):
        with pytest.raises(TypeError):
            owl.concat(arrays, 0)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_slice(dim):
    a = counting((5, 7))
    for offset, count in ((0, 5), (1, 3), (4, 1), (2, 0), (0, 0)):
        got = owl.slice(arr(a), dim, offset, count)
        assert same_bits(val(got), np.take(a, range(offset, offset + count), axis=dim))
    for offset, count in ((-1, 2), (0, a.shape[dim] + 1), (3, 6), (1, -1), (2**62, 2**62)):
        with pytest.raises((owl.ShapeError, IndexError)):
            owl.slice(arr(a), dim, offset, count)


def test_a_slice_along_the_last_axis_shares_memory():
    x = owl.ones([1000, 100])
    with Counted() as c:
        parts = [owl.slice(x, 1, i, 10) for i in range(0, 100, 10)]
        assert sum(float(p[0, 0]) for p in parts) == 10
    assert c.bytes_written == 0 and c.kernels == 0


# --- rearranging: NumPy's functions, on arrays with the axes in owl's order

@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_stack(axis, dtype):
    parts = [counting((3, 4), dtype), counting((3, 4), dtype)[::-1], counting((3, 4), dtype)]
    assert same_bits(val(owl.stack([arr(p) for p in parts], axis)), np.stack(parts, axis))
    assert same_bits(val(owl.stack([arr(p) for p in parts])), np.stack(parts))
    assert owl.stack([owl.ones([2], "int32"), owl.ones([2])]).dtype == np.float32
    views = [arr(p).T[:, ::-1] for p in parts]
    assert same_bits(val(owl.stack(views, axis)), np.stack([p.T[:, ::-1] for p in parts], axis))


def test_stack_errors():
    x = owl.ones([2, 3])
    for arrays, axis, told in (([], 0, "one array"), ([x, owl.ones([3, 2])], 0, "[3, 2]"), ([x], 3, "axis 3"), ([x], -4, "axis -4"),
                               ([owl.ones([1] * 8)], 0, "more than 8 axes")):
        with pytest.raises(owl.ShapeError, match=re.escape(told)):
            owl.stack(arrays, axis)
    for arrays in ([x, 1.0], [np.ones((2, 3))], x, 5):
        with pytest.raises(TypeError):
            owl.stack(arrays)


@pytest.mark.parametrize("parts", [1, 2, 3, 6, [1, 3], [2, 2, 9], [-2], [4, 1], [], [0], [-9, 9]], ids=str)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_split(parts, axis):
    a = counting((6, 6))
    got, want = owl.split(arr(a), parts, axis), np.split(a, parts, axis)
    assert isinstance(got, list) and len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        assert same_bits(val(g), w)


def test_split_errors():
    for parts in (4, 0, -1, 7):
        with pytest.raises(owl.ShapeError, match=rf"axis 0 of \[6, 2\] does not divide into {parts} equal parts"):
            owl.split(owl.ones([6, 2]), parts, 0)
    for call in (lambda x: owl.split(x, 2), lambda x: owl.split(x, 2.0, 0), lambda x: owl.split(x, "2", 0)):
        with pytest.raises(TypeError):
            call(owl.ones([6, 2]))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
@pytest.mark.parametrize("widths", [0, 2, (1, 2), [(1, 0), (0, 2), (3, 1)], ((0, 0), (1, 1), (0, 0)), [(2, 1)], [[1], [0], [2]], [3]], ids=str)
def test_pad(widths, dtype):
    a = counting((2, 3, 4), dtype)
    assert same_bits(val(owl.pad(arr(a), widths)), np.pad(a, widths))
    assert same_bits(val(owl.pad(arr(a), widths, 1)), np.pad(a, widths, constant_values=1))
    assert same_bits(val(owl.pad(arr(a).transpose([2, 0, 1]), widths, value=True)),
                     np.pad(a.transpose(2, 0, 1), widths, constant_values=True))


def test_pad_errors():
    x = owl.ones([2, 3])
    for widths in ([(1, 1)] * 3, -1, [(0, 0), (0, -2)], (1, 2, 3), [], [(1, 2, 3)]):
        with pytest.raises(owl.ShapeError, match="pad"):
            owl.pad(x, widths)
    for widths in (1.0, "1", [(1.0, 1)], [1, (1, 1)], None):
        with pytest.raises(TypeError, match="pad: widths"):
            owl.pad(x, widths)
    with pytest.raises(OverflowError):
        owl.pad(owl.ones([2], "int32"), 1, 2**40)


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), [1], [2, 0, 1]], ids=str)
def test_flip(axis):
    for a in (counting((2, 3, 4)), counting((1, 5, 0)), counting((2, 3, 4), "bool")):
        assert same_bits(val(owl.flip(arr(a), axis)), np.flip(a, tuple(axis) if isinstance(axis, list) else axis))
    x = owl.ones([1000, 100])
    x.wait_for_eval()
    with Counted() as c:
        y = owl.flip(x, axis=0)
        assert float(y[0, 0]) == 1
    assert c.kernels == 0
    with pytest.raises(owl.ShapeError, match="named twice"):
        owl.flip(x, [0, -2])


@pytest.mark.parametrize("shift, axis", [(1, None), (-2, 0), (3, 1), (0, -1), (25, 2), (-25, None), ((1, 2), (0, 2)), (1, (0, 1, 2)),
                                         ((1, 2), 0), ((1, 1), (2, 2)), ((2, 3), None)], ids=str)
def test_roll(shift, axis):
    for a in (counting((2, 3, 4)), counting((3, 1, 5), "int32"), counting((2, 0, 3))):
        if axis is None:  # in memory order, which is that of NumPy's axes
            want = np.roll(a.T, shift).T
        else:
            want = np.roll(a, shift, axis)
        assert same_bits(val(owl.roll(arr(a), shift, axis)), np.ascontiguousarray(want))
    with pytest.raises(owl.ShapeError, match="roll: 2 shifts for 3 axes"):
        owl.roll(arr(a), (1, 2), (0, 1, 2))


@pytest.mark.parametrize("reps", [1, 2, 0, (2, 3), (1, 1, 4), [2, 1, 3, 2], (1, 0), (1, 2, 1, 1, 3), []], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
def test_tile(reps, dtype):
    for shape in ((2, 3, 4), (5,), (3, 1), (2, 0)):
        a = counting(shape, dtype)
        want = np.tile(a.T, reps[::-1] if not isinstance(reps, int) else reps).T
        assert same_bits(val(owl.tile(arr(a), reps)), np.ascontiguousarray(want))
    many = arr(counting((2, 1, 2, 1, 2, 1, 2, 1), dtype))
    assert same_bits(val(owl.tile(many, [1, 1, 1, 2, 1, 3])), np.tile(val(many), [1, 1, 1, 2, 1, 3, 1, 1]))


@pytest.mark.parametrize("repeats", [1, 3, 0, [1, 2, 0], (0, 0, 0), [2]], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
def test_repeat(repeats, dtype):
    a = counting((3, 3, 3), dtype)
    for axis in (0, 1, -1):
        assert same_bits(val(owl.repeat(arr(a), repeats, axis)), np.repeat(a, repeats, axis))
        assert same_bits(val(owl.repeat(arr(a).transpose([2, 0, 1]), repeats, axis)), np.repeat(a.transpose(2, 0, 1), repeats, axis))
    flat = counting((3,), dtype)
    assert same_bits(val(owl.repeat(arr(flat), repeats)), np.repeat(flat, repeats))
    if isinstance(repeats, int):
        assert same_bits(val(owl.repeat(arr(a), repeats)), np.repeat(a.T, repeats))


def test_repeat_and_tile_errors():
    x = owl.ones([2, 3])
    for call, told in ((lambda: owl.repeat(x, [1, 2], 1), "2 counts for axis 1"), (lambda: owl.repeat(x, -1, 0), "negative"),
                       (lambda: owl.tile(x, -1), "negative"), (lambda: owl.tile(x, [1] * 9), "axes"), (lambda: owl.repeat(x, 2, 2), "axis 2"),
                       (lambda: owl.repeat(x, 2**62, 0), "overflow")):
        with pytest.raises(owl.ShapeError, match=told):
            call()


def test_special_values_are_only_moved():
    a = np.float32([np.nan, -0.0, np.inf, 1e-30])
    for f, g in ((owl.tile, np.tile), (owl.repeat, np.repeat), (owl.roll, np.roll)):
        assert same_bits(val(f(arr(a), 3)), g(a, 3))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
def test_pickle_carries_the_value(dtype):
    x = owl.from_numpy(np.arange(6).reshape(2, 3).astype(dtype))
    y = pickle.loads(pickle.dumps(x + 0 if dtype != "bool" else x))
    assert y.shape == x.shape and y.dtype == x.dtype
    np.testing.assert_array_equal(y.to_numpy(), x.to_numpy())


def test_memory_is_numpys_c_order_with_the_axes_reversed():
    image = owl.conv.Convolver(1, 1).ff(owl.rand([6, 6, 8, 2]), owl.rand([3, 3, 8, 8]), owl.zeros([8]))
    for x in (arr(counting((2, 3, 4))), arr(counting((2, 3))) + 1, owl.arange(6).reshape([2, 3]), image):
        a = np.from_dlpack(x)
        assert a.flags.c_contiguous and a.shape == tuple(x.shape[::-1])


def philox(counter, key):
    (a, b, c, d), (k, m) = counter, key
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = q >> 32 ^ b ^ k, q & 0xFFFFFFFF, p >> 32 ^ d ^ m, p & 0xFFFFFFFF
        k, m = k + 0x9E3779B9 & 0xFFFFFFFF, m + 0xBB67AE85 & 0xFFFFFFFF
    return a, b, c, d


def test_the_generator_is_philox_4x32_10():
    """Block and call are the counter, the seed is the key; rand takes each word's upper 24 bits."""
    assert philox((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)  # its authors' example
    owl.seed(7 << 32 | 9)
    for call in range(3):
        words = [w for block in range(300) for w in philox((block, 0, call, 0), (9, 7))]
        assert same_bits(val(owl.rand([1199])), np.array([(w >> 8) * 2.0**-24 for w in words[:1199]], F32))


def words_of(blocks, high, call, seed):
    """All words of these blocks, [blocks, 4]: philox() on arrays. `high`: the upper half of the block's number."""
    a = np.arange(blocks, dtype=np.uint64)
    b, c, d = (np.full_like(a, n) for n in (high, call, 0))
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    k, m = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p, q = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, b, c, d = q >> shift ^ b ^ np.uint64(k), q & low, p >> shift ^ d ^ np.uint64(m), p & low
        k, m = k + 0x9E3779B9 & 0xFFFFFFFF, m + 0xBB67AE85 & 0xFFFFFFFF
    return np.stack([a, b, c, d], axis=1).astype(np.uint32)


def test_normal_numbers_are_box_and_mullers():
    """Compared with the formula in float64, from the float32 numbers of the radius and the angle."""
    blocks, seed = 250_000, 3 << 32 | 5
    owl.seed(seed)
    got = val(owl.randn([4 * blocks])).astype(np.float64)
    words = words_of(blocks, 0, 0, seed)
    assert tuple(words[7]) == philox((7, 0, 0, 0), (5, 3))
    w, v = words.reshape(-1, 2).T
    u = (w >> 1).astype(F32) * F32(2**-31) + F32(2**-32)
    place = (v & 0x3FFFFFFF).astype(F32) * F32(2**-30) - F32(0.5)  # in quarter turns
    radius = np.sqrt(-2 * np.log(u.astype(np.float64)))
    # Turned by whole quarters exactly, so that a result near 0 keeps its digits.
    c, s = np.cos(place * np.float64(np.pi / 2)), np.sin(place * np.float64(np.pi / 2))
    quarter = v >> 30
    cosine = np.choose(quarter, [c, -s, -c, s])
    sine = np.choose(quarter, [s, c, -s, -c])
    want = np.stack([radius * cosine, radius * sine], axis=1).ravel()
    assert (np.abs(got - want) <= 4 * np.spacing(np.abs(want).astype(F32))).all()
    owl.seed(seed)
    np.testing.assert_allclose(val(owl.randn([4 * blocks], 2.0, 0.5)), 2 + 0.5 * want, rtol=1e-6, atol=1e-6)


def test_normal_numbers_of_float64_are_box_and_mullers():
    blocks, seed = 20_000, 3 << 32 | 5
    owl.seed(seed)
    got = val(owl.randn([4 * blocks], dtype="float64"))
    high, low = (words_of(blocks, part, 0, seed).astype(np.uint64) for part in (0, 1 << 31))
    u = ((high << np.uint64(32) | low) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    first, second = u.reshape(-1, 2).T
    radius, angle = np.sqrt(-2 * np.log(1 - first)), 2 * np.pi * second
    want = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()
    np.testing.assert_allclose(got, want, rtol=1e-15, atol=1e-14)


def test_ten_million_normal_numbers():
    """Moments, and the distribution of the angles of pairs: bounds of six standard errors."""
    n = 10_000_000
    owl.seed(21)
    a = val(owl.randn([n])).astype(np.float64)
    error = 6 / n**0.5
    for power, want, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs((a**power).mean() - want) < error * spread**0.5, power
    for edge, share in ((0.5, 0.38292492), (1, 0.68268949), (2, 0.95449974), (3, 0.99730020), (4, 0.99993666)):
        assert abs((np.abs(a) < edge).mean() - share) < error * (share * (1 - share))**0.5, edge
    pairs = a.reshape(-1, 2)
    turns = np.arctan2(pairs[:, 1], pairs[:, 0]) / (2 * np.pi) % 1
    for parts in (4, 512):  # quadrants, and narrow sectors
        counts = np.bincount((turns * parts).astype(int), minlength=parts)
        assert np.abs(counts - n / 2 / parts).max() < 6 * (n / 2 / parts)**0.5, parts


def test_numbers_depend_neither_on_the_device_nor_on_the_thread_that_asks():
    def draw():
        owl.seed(9)
        return [x.to_numpy().tobytes() for x in (owl.randn([1001]), owl.rand([33, 7], dtype="float64"), owl.randb([999], 0.3))]
    here, there = draw(), []
    with owl.device(owl.create_cpu_device()):
        assert draw() == here
    thread = threading.Thread(target=lambda: there.append(draw()))
    thread.start()
    thread.join()
    assert there == [here]


def test_defaults_of_random_numbers():
    owl.seed(12)
    u, n = val(owl.rand([250_000])), val(owl.randn([250_000]))
    assert 0 <= u.min() < 1e-4 and 1 - 1e-4 < u.max() < 1 and abs(u.mean() - 0.5) < 0.004
    assert abs(n.mean()) < 0.013 and abs(n.std() - 1) < 0.009
    owl.seed(12)
    assert same_bits(val(owl.rand(shape=[250_000], low=0.0, high=1.0)), u)
    assert same_bits(val(owl.randn(shape=[250_000], mu=0.0, sigma=1.0)), n)


@pytest.mark.parametrize("low, high, dtype", [(2.0, 1.0, F32), (-3e38, 3e38, F32), (0.0, 1e300, F32), (0.0, np.inf, F32),
                                              (np.nan, 1.0, F32), (-1e308, 1e308, "float64")])
def test_a_range_that_cannot_be_drawn_from_is_refused(low, high, dtype):
    with pytest.raises(ValueError, match=re.escape(f"got {low:.9g} and {high:.9g}")):
        owl.rand([1000], low, high, dtype)


def test_ranges_of_one_number_and_of_half_of_all():
    assert (val(owl.rand([100], 3.0, 3.0)) == 3).all()
    assert len(np.unique(val(owl.rand([1000], -1.7e38, 1.7e38)))) > 990
    assert len(np.unique(val(owl.rand([1000], -8e307, 8e307, "float64")))) == 1000


def test_bfloat16_without_ml_dtypes():
    """Everything but a NumPy array of it."""
    children.run("""
        import sys
        sys.modules["ml_dtypes"] = None
        import numpy as np
        import owl
        x = owl.full([3], 0.1, owl.bfloat16)
        assert x.dtype == owl.bfloat16 == "bfloat16" and (x + 1).dtype == owl.bfloat16
        assert (x * 2).astype("float32").to_numpy().tolist() == [0.2001953125] * 3
        assert x.tolist() == [0.10009765625] * 3 and float(x[0]) == 0.10009765625
        assert "0.10009766" in repr(x) and "dtype=bfloat16" in repr(x), repr(x)
        for call in (x.to_numpy, lambda: np.asarray(x)):
            try:
                call()
            except owl.DTypeError as error:
                assert "ml_dtypes" in str(error) and "astype" in str(error)
            else:
                raise AssertionError
        owl.save("x.npz", {"x": x})
        assert owl.load("x.npz")["x"].tolist() == x.tolist() and np.load("x.npz")["x"].dtype == "V2"
        assert owl.from_dlpack(x).dtype == "bfloat16" and owl.zeros_like(x).dtype == "bfloat16"
        assert owl.op(lambda a, b: a, dtype="float32")(owl.ones([2]), owl.ones([2])).tolist() == [1, 1]
    """)
