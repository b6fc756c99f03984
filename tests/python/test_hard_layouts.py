"""Arrays of every layout and type that NumPy has."""
import array
import random
import warnings

import numpy as np
import pytest

import owl
from conftest import SOAK, same_bits, settle

TYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "g"]


def base(dtype, shape, rng):
    """Random elements of the type, including special ones."""
    t = np.dtype(dtype)
    if t.kind == "b":
        return rng.random(shape) < 0.5
    if t.kind in "iu":
        limits = np.iinfo(t)
        return rng.integers(max(limits.min, -1000), min(limits.max, 1000), shape, endpoint=True).astype(t)
    a = rng.normal(size=shape).astype(t)
    if a.size:
        a.flat[0] = rng.choice([np.nan, np.inf, -np.inf, -0.0, 1e-40])
    return a


def unaligned(a):
    memory = np.zeros(a.nbytes + 1, np.uint8)
    b = memory[1:].view(a.dtype).reshape(a.shape) if a.size else a
    b[...] = a
    return b


def read_only(a):
    b = a.copy()
    b.setflags(write=False)
    return b


def spread(a):
    if a.ndim == 0:
        return a
    wide = np.zeros([2 * n + 1 for n in a.shape], a.dtype)
    view = wide[tuple(slice(1, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def field(a):
    """One field of records: strides that are not multiples of the element's size."""
    records = np.zeros(a.shape, np.dtype([("tag", "u1"), ("value", a.dtype)]))
    records["value"] = a
    return records["value"]


LAYOUTS = {
    "C": np.ascontiguousarray, "Fortran": np.asfortranarray, "strided": spread, "read-only": read_only,
    "unaligned": unaligned, "field": field,
    "negative": lambda a: np.ascontiguousarray(a[tuple(slice(None, None, -1) for _ in a.shape)])[
        tuple(slice(None, None, -1) for _ in a.shape)],
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "swapped and strided": lambda a: spread(a.astype(a.dtype.newbyteorder())),
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "rolled axes": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 0, -1)), -1, 0) if a.ndim else a,
}
SHAPES = [(), (0,), (1,), (7,), (3, 0, 2), (4, 5), (1, 6), (2, 3, 4), (2, 1, 3, 1, 2), (1,) * 8,
          (2, 1, 2, 1, 1, 2, 1, 3)]


def expected(a):
    kind, width = a.dtype.kind, a.dtype.itemsize
    if kind == "u" and width == 8:
        t = np.int64 if a.size == 0 or int(a.max()) < 2**63 else np.float64
    elif kind in "iu":
        t = np.uint8 if (kind, width) == ("u", 1) else np.int64 if width == 8 or (kind, width) == ("u", 4) else np.int32
    else:
        t = {"b": np.bool_, "f": {2: np.float16, 4: np.float32}.get(width, np.float64)}[kind]
    out = np.asarray(a).astype(t)
    return out.reshape(1) if a.ndim == 0 else out


def check(a):
    before = a.tobytes()
    x = owl.from_numpy(a)
    want = expected(a)
    assert x.shape == list(want.shape[::-1]) and x.dtype == want.dtype
    got = x.to_numpy()
    assert got.flags.c_contiguous and got.flags.writeable and got.flags.aligned and got.dtype.isnative
    nan = np.isnan(want) if want.dtype.kind == "f" else np.zeros(want.shape, bool)
    assert same_bits(np.where(nan, 0, got), np.where(nan, 0, want)) and (np.isnan(got[nan])).all()
    assert a.tobytes() == before, "the caller's array is as it was"
    if a.size and a.flags.writeable and a.dtype.kind != "b":
        a[...] = 0
        assert same_bits(np.where(nan, 0, x.to_numpy()), np.where(nan, 0, want)), "later changes have no effect"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TYPES)
def test_every_layout_of_every_type(dtype, layout):
    rng = np.random.default_rng(TYPES.index(dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # float64 to float32 overflows where it should
        for shape in SHAPES:
            check(LAYOUTS[layout](base(dtype, shape, rng)))


def test_random_views_of_random_views():
    rng, numbers = random.Random(3), np.random.default_rng(3)
    for _ in range(300 * SOAK):
        a = base(rng.choice(TYPES), tuple(rng.randrange(1, 6) for _ in range(rng.randrange(1, 5))), numbers)
        for _ in range(rng.randrange(5)):
            kind = rng.randrange(6)
            if kind == 0 and a.ndim:
                a = a[tuple(slice(None, None, rng.choice([1, 2, -1, -2])) for _ in a.shape)]
            elif kind == 1:
                a = a.transpose(rng.sample(range(a.ndim), a.ndim))
            elif kind == 2:
                a = a[None] if a.ndim < 6 else a
            elif kind == 3:
                a = a.astype(a.dtype.newbyteorder())
            elif kind == 4 and a.ndim and a.shape[0]:
                a = a[rng.randrange(a.shape[0])]
            elif kind == 5:
                a = np.broadcast_to(a, (3, *a.shape)) if a.ndim < 6 else a
        check(np.asarray(a))


def test_broadcast_arrays():
    for a in (np.broadcast_to(np.float32(3), (50, 40)), np.broadcast_to(np.arange(5.0), (4, 5)),
              np.lib.stride_tricks.sliding_window_view(np.arange(20, dtype=np.int32), 5),
              np.lib.stride_tricks.as_strided(np.arange(6.0), (3, 2, 4), (16, 8, 0))):
        check(a)


INTEGERS = [("i8", [2**31 - 1, -2**31]), ("i8", [2**31]), ("i8", [-2**31 - 1]), ("i8", [2**62, 1]), ("i8", [2**53 + 1]), ("u4", [2**31 - 1]),
            ("u4", [2**32 - 1]), ("u8", [5]), ("u8", [2**64 - 1]), ("u8", [2**53]), ("i8", [])]


@pytest.mark.parametrize("dtype, values", INTEGERS)
def test_integers_that_do_and_do_not_fit(dtype, values):
    swapped = np.dtype(dtype).newbyteorder()
    for a in (np.array(values, dtype), np.array(values + values, dtype)[::2], np.array(values, swapped)):
        check(a)


@pytest.mark.parametrize("a", [
    np.zeros(3, "c8"), np.zeros(3, "c16"), np.zeros(3, "S4"), np.zeros(3, "U4"), np.zeros(3, "M8[s]"),
    np.zeros(3, "m8[s]"),
    np.zeros(3, "V8"), np.zeros(3, [("a", "f4"), ("b", "i4")]), np.zeros(3, object), np.array([None, 1.0]),
    np.array([2**70, 1]), np.zeros(0, object), np.zeros(3, [("a", "f4", (2,))]),
    np.zeros(2, "f4,f4").view(np.recarray)],
    ids=lambda a: str(a.dtype))
def test_types_without_a_counterpart(a):
    with pytest.raises(owl.DTypeError, match="float32"):
        owl.from_numpy(a)


def test_too_many_axes():
    with pytest.raises(owl.ShapeError, match="8 axes"):
        owl.from_numpy(np.zeros((1,) * 9))


class Mine(np.ndarray):
    """A subclass that computes wrongly: owl must read the elements, not call its methods."""

    def astype(self, *args, **kwargs):
        raise AssertionError("called")

    def __array_wrap__(self, *args, **kwargs):
        raise AssertionError("called")


def test_subclasses():
    check(np.arange(6.0).reshape(2, 3).view(Mine))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        m = np.matrix([[1.0, 2.0], [3.0, 4.0]])
    a = owl.from_numpy(m).to_numpy()
    assert a.tolist() == [[1, 2], [3, 4]] and type(a) is np.ndarray


def test_masked_arrays():
    """owl has no masks: it must not expose hidden elements silently."""
    a = np.ma.masked_array([1.0, 2.0, 3.0], mask=[False, True, False])
    with pytest.raises(TypeError, match="filled"):
        owl.from_numpy(a)
    assert owl.from_numpy(a.filled(0)).to_numpy().tolist() == [1, 0, 3]
    assert owl.from_numpy(np.ma.masked_array([1.0, 2.0])).to_numpy().tolist() == [1, 2]


def test_memory_mapped_files(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(12, dtype=">i2").reshape(3, 4))
    a = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert owl.from_numpy(a).to_numpy().tolist() == np.arange(12).reshape(3, 4).tolist()


class Offers:
    def __init__(self, made):
        self.made = made

    def __array__(self, dtype=None, copy=None):
        if isinstance(self.made, Exception):
            raise self.made
        return self.made


def test_what_numpy_makes_arrays_of():
    assert owl.from_numpy([[1, 2], [3, 4]]).to_numpy().tolist() == [[1, 2], [3, 4]]
    assert owl.from_numpy(5).shape == [1] and owl.from_numpy(2.5).dtype == np.float64
    assert owl.from_numpy(memoryview(b"abc")).to_numpy().tolist() == [97, 98, 99]
    assert owl.from_numpy(array.array("h", [1, -2])).to_numpy().tolist() == [1, -2]
    assert owl.from_numpy(range(3)).to_numpy().tolist() == [0, 1, 2]
    assert owl.from_numpy(Offers(np.ones((2, 3)))).shape == [3, 2]
    assert owl.from_numpy(()).shape == [0]
    with pytest.raises(KeyError, match="mine"):
        owl.from_numpy(Offers(KeyError("mine")))
    with pytest.raises(ValueError):
        owl.from_numpy([[1, 2], [3]])
    for nothing in (None, {}, "text", object(), lambda: 1):
        with pytest.raises(owl.DTypeError):
            owl.from_numpy(nothing)


def test_layouts_that_dlpack_hands_over():
    rng = np.random.default_rng(1)
    for shape in SHAPES:
        for dtype in ("f4", "f8", "i4"):
            for name in ("C", "Fortran", "strided", "negative", "transposed"):
                a = LAYOUTS[name](base(dtype, shape, rng))
                x = owl.from_dlpack(a)
                want = a.reshape(1) if a.ndim == 0 else a
                assert x.shape == list(want.shape[::-1])
                np.testing.assert_array_equal(x.to_numpy(), want)
                np.testing.assert_array_equal((x + 1).to_numpy(), want + np.dtype(dtype).type(1))
    for a in (np.zeros(3, "c8"), np.zeros(3, "i2"), np.zeros(3, ">f4"), np.zeros(3, object)):
        with pytest.raises((TypeError, BufferError, ValueError)):
            owl.from_dlpack(a)
    settle()
