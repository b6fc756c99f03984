"""Reductions: every axis and list of axes, every type, empty axes, ties, views; and the accuracy of sums."""
import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import owl
from conftest import SOAK, same_bits
from reference import DTYPES, FLOATS, arr, dtype_of, eps, ulps, val

ele = owl.elewise
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's own
SHAPES = [(7,), (1,), (3, 4), (1, 5), (5, 1), (2, 3, 4), (3, 1, 2, 2), (65, 33), (2, 1025), (1025, 2), (1, 1, 3000)]
SUM_TYPE = {**{t: t for t in DTYPES}, "bool": "int32", "uint8": "int64"}
MEAN_TYPE = {t: t if t in FLOATS else "float32" for t in DTYPES}


BOOLS = dict.fromkeys(DTYPES, "bool")


def data(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, shape).astype(bool) if dtype == "bool" else (rng.normal(size=shape) * 20).astype(dtype)


def axis_choices(ndim):
    """Every axis, negative ones, every list of axes, and none."""
    yield None
    yield from range(-ndim, ndim)
    for k in range(2, ndim + 1):
        for axes in itertools.combinations(range(ndim), k):
            yield list(axes)
    if ndim > 1:
        yield [-1, 0]


def want(f, a, axis):
    """NumPy's result in owl's form: the axis stays, and with no axis the shape is [1]."""
    if axis is None:
        return np.asarray(f(a)).reshape(1)
    return f(a, axis=tuple(axis) if isinstance(axis, list) else axis, keepdims=True)


def call(x, name, axis):
    return getattr(x, name)() if axis is None else getattr(x, name)(axis)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
def test_against_numpy(name, dtype, shape):
    a = data(shape, dtype)
    for axis in axis_choices(len(shape)):
        got = call(arr(a), name, axis)
        if name in ("max", "min"):
            assert dtype_of(got) == dtype
            assert same_bits(val(got), want(getattr(np, name), a, axis)), axis
            continue
        assert dtype_of(got) == (SUM_TYPE if name == "sum" else MEAN_TYPE)[dtype]
        exact = want(getattr(np, name), a.astype(np.float64), axis)
        if got.to_numpy().dtype.kind == "i":
            np.testing.assert_array_equal(val(got), exact)
            continue
        magnitude = want(getattr(np, name), np.abs(a.astype(np.float64)), axis)
        half = eps(dtype) if "float16" in dtype else 0  # rounded once
        unit = eps("float32" if half else dtype_of(got))
        count = a.size / exact.size
        assert val(got).shape == exact.shape
        error = np.abs(val(got).astype(np.float64) - exact)
        assert (error <= (np.log2(count) + 34) * unit * magnitude + half * np.abs(exact)).all(), axis


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_products(dtype, shape):
    a = np.random.default_rng(3).uniform(0.9, 1.1, shape).astype(dtype) if dtype in FLOATS else data(shape, dtype)
    for axis in axis_choices(len(shape)):
        got = call(arr(a), "prod", axis)
        assert dtype_of(got) == SUM_TYPE[dtype]
        if dtype not in FLOATS:
            np.testing.assert_array_equal(val(got), want(np.prod, a.astype(np.int64), axis).astype(SUM_TYPE[dtype]))
        else:
            exact, rounding = want(np.prod, a.astype(np.float64), axis), max(20 * eps("float64"), 8 * eps("float32"), eps(dtype) / 2)
            np.testing.assert_allclose(val(got).astype(np.float64), exact, rtol=450 * eps(dtype) if dtype == "float64" else rounding)
    assert arr(np.float32([2, 0, np.nan])).prod().tolist() == [pytest.approx(np.nan, nan_ok=True)]
    assert owl.zeros([0, 3]).prod(0).tolist() == [[1, 1, 1]] and owl.zeros([0]).prod().item() == 1


@pytest.mark.parametrize("shape", [*SHAPES, (40, 30, 3, 20), (100_000,), (3, 70_000), (70_000, 3), (0,), (0, 3), (3, 0)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_moments(dtype, shape):
    a = data(shape, dtype)
    for axis in axis_choices(len(shape)):
        mean, var = owl.moments(arr(a), axis)
        assert dtype_of(mean) == dtype_of(var) == MEAN_TYPE[dtype]
        far = eps(MEAN_TYPE[dtype])
        exact = a.astype(np.float64)
        np.testing.assert_allclose(val(mean).astype(np.float64), want(np.mean, exact, axis), rtol=4 * far, atol=40 * far)
        np.testing.assert_allclose(val(var).astype(np.float64), want(np.var, exact, axis), rtol=40 * far, atol=40 * far)
        assert same_bits(val(call(arr(a), "var", axis)), val(var))
        with np.errstate(all="ignore"):
            sample = want(lambda x, **more: np.var(x, ddof=1, **more), exact, axis)
        np.testing.assert_allclose(val(owl.moments(arr(a), axis, correction=1)[1]).astype(np.float64), sample, rtol=40 * far, atol=40 * far)


def test_moments_are_one_pass():
    x = owl.rand([64, 50, 8, 6])
    owl.wait_for_all()
    plan = owl.explain(lambda: owl.moments(x * 2, [0, 1, 3]))
    assert [task.operations for task in plan.tasks] == [["mult", "moments"]]
    far = arr((np.random.default_rng(5).normal(size=(1000, 70)) + 1e6).astype(np.float32))
    for axis in (None, 0, 1):
        np.testing.assert_allclose(val(owl.moments(far, axis)[1]), want(np.var, val(far).astype(np.float64), axis), rtol=1e-5)
    assert np.isnan(owl.moments(arr(np.float32([1, np.inf])))[1].item())
    assert owl.moments(arr(np.float32([1, np.inf])))[0].item() == np.inf


CUMSUM_SHAPES = [*SHAPES, (100_000,), (3, 40_000), (40_000, 2), (130, 700, 2), (0,), (3, 0), (0, 3)]


@pytest.mark.parametrize("shape", CUMSUM_SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_cumulative_sums(dtype, shape):
    a = data(shape, dtype)
    for axis in range(-len(shape), len(shape)):
        for x, b in ((arr(a), a), (arr(a)[::-1], a[::-1])):
            got = x.cumsum(axis)
            assert dtype_of(got) == SUM_TYPE[dtype] and got.shape == list(shape)
            exact = np.cumsum(b.astype(np.float64), axis)
            if dtype not in FLOATS:
                np.testing.assert_array_equal(val(got), exact)
            else:
                assert (np.abs(val(got).astype(np.float64) - exact) <= 3 * eps(dtype) * np.cumsum(np.abs(b.astype(np.float64)), axis)).all()


def test_cumulative_sums_with_operations_around():
    a = data((700, 90), "float32")
    for axis in (0, 1):
        want = np.cumsum(a.astype(np.float64) * 2 + 1, axis) - a
        np.testing.assert_allclose(val((arr(a) * 2 + 1).cumsum(axis) - arr(a)), want, rtol=1e-5, atol=1e-3)
        x = arr(a)
        assert same_bits(val(ele.relu(x.cumsum(axis))), np.maximum(val(arr(a).cumsum(axis)), 0))
    with np.errstate(over="ignore"):
        big = np.full(5, 2**30, np.int32)
        assert same_bits(val(arr(big).cumsum(0)), np.cumsum(big, dtype=np.int32))
    for wrong in (2, -3):
        with pytest.raises(owl.ShapeError, match="cumsum"):
            arr(a).cumsum(wrong)
    with pytest.raises(TypeError, match="cumsum.. needs the argument 'axis'"):
        arr(a).cumsum()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_arg_against_numpy(name, dtype, shape):
    a = data(shape, dtype)
    for axis in range(-len(shape), len(shape)):
        got = getattr(arr(a), name)(axis)
        assert dtype_of(got) == "int32"
        np.testing.assert_array_equal(val(got), getattr(np, name)(a, axis=axis, keepdims=True))
        if name == "argmax":
            assert same_bits(val(arr(a).max_index(axis)), val(got))


def test_arg_without_an_axis_counts_in_column_major_order():
    a = data((5, 6, 7), "float32")
    flat = a.T.ravel()
    assert arr(a).argmax().shape == [1]
    assert int(arr(a).argmax()) == flat.argmax() and int(arr(a).argmin()) == flat.argmin()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_the_first_of_equals(dtype):
    a = np.array([[1, 3, 3, 0, 0], [2, 2, 2, 2, 2]]).astype(dtype)
    np.testing.assert_array_equal(val(arr(a).argmax(1)), [[1], [0]])
    np.testing.assert_array_equal(val(arr(a).argmin(1)), [[3], [0]])
    long = np.zeros((3, 5000), dtype)
    long[1, [4000, 777, 4999]] = 1
    np.testing.assert_array_equal(val(arr(long).argmax(1)), [[0], [777], [0]])
    np.testing.assert_array_equal(val(arr(long.T).argmax(0)), [[0, 777, 0]])


def test_nan_and_infinity():
    for length in (3, 1000, 70_000):
        a = np.zeros(length, np.float32)
        a[length // 2] = np.nan
        for name in ("sum", "mean", "max", "min"):
            assert np.isnan(float(call(arr(a), name, 0))), (name, length)
        assert int(arr(a).argmax(0)) == int(arr(a).argmin(0)) == length // 2
        a[length // 2] = -np.inf
        assert float(arr(a).sum()) == -np.inf and float(arr(a).min()) == -np.inf and float(arr(a).max()) == 0
    assert float(arr(np.full(9, -np.inf, np.float32)).max()) == -np.inf
    assert int(arr(np.full(9, -np.inf, np.float32)).argmax(0)) == 0


def test_long_sums_are_exact_enough():
    """One million additions of 0.1: sums are computed in parts, so the error does not grow with the length."""
    a = np.full(1_000_000, 0.1, np.float32)
    exact = a.astype(np.float64).sum()
    for x, axis in ((arr(a), None), (arr(a.reshape(1000, 1000)), [0, 1]), (arr(a.reshape(1, -1)), 1),
                    (arr(a.reshape(-1, 1)), 0)):
        assert abs(float(call(x, "sum", axis)) - exact) < exact * 16 * np.finfo(np.float32).eps
    assert abs(float(arr(a).mean()) - 0.1) < 1e-7


def test_sums_of_halves_are_added_in_float32():
    for dtype in ("float16", "bfloat16")[:1 + ("bfloat16" in DTYPES)]:
        assert owl.ones([5000], dtype).sum().item() == float(np.float32(5000).astype(owl.zeros([1], dtype).dtype))
        a = data((3000,), dtype)
        assert owl.from_numpy(a).sum().to_numpy()[0] == a.astype(np.float64).sum().astype(np.float32).astype(a.dtype)


def test_sums_of_int64_are_exact():
    a = np.array([2**53 + 1, 2**62, -2**62, 2**40, -1])
    assert arr(a).sum().item() == 2**53 + 2**40 and arr(a.reshape(5, 1)).sum([0]).item() == a.sum()
    assert arr(a).max().item() == 2**62 and arr(a).argmin().item() == 2 and arr(a[:1]).min().item() == 2**53 + 1
    assert arr(np.full(70_000, 255, np.uint8)).sum().item() == 70_000 * 255


def test_integer_sums():
    a = np.full((300, 7), 2**31 - 1, np.int32)
    with np.errstate(over="ignore"):
        assert same_bits(val(arr(a).sum(0)), a.sum(axis=0, keepdims=True, dtype=np.int32))
    ones = np.ones(100_000, bool)
    assert int(arr(ones).sum()) == 100_000
    assert float(arr(ones).mean()) == 1.0


@pytest.mark.parametrize("shape,axis", [((0,), 0), ((3, 0), 1), ((0, 3), 0), ((2, 0, 4), 1), ((2, 0, 4), [0, 1]),
                                        ((0, 0), None)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_over_an_empty_axis(dtype, shape, axis):
    x = owl.zeros(list(shape), dtype=dtype)
    a = np.zeros(shape, dtype)
    total = call(x, "sum", axis)
    np.testing.assert_array_equal(val(total), want(np.sum, a, axis))
    assert dtype_of(total) == SUM_TYPE[dtype]
    mean = val(call(x, "mean", axis)).astype(np.float64)
    assert np.isnan(mean).all() and mean.shape == val(total).shape
    for name in ("max", "min"):
        with pytest.raises(owl.ShapeError, match=name):
            call(x, name, axis)
    if not isinstance(axis, list):
        for name in ("argmax", "argmin"):
            with pytest.raises(owl.ShapeError):
                call(x, name, axis)


def test_along_a_full_axis_of_an_empty_array():
    x = owl.zeros([3, 0])
    for name in ("sum", "mean", "max", "min", "argmax", "argmin"):
        assert call(x, name, 0).shape == [1, 0] and val(call(x, name, 0)).shape == (1, 0)


@pytest.mark.parametrize("name", ["sum", "max", "min", "mean", "argmax", "argmin", "max_index"])
@pytest.mark.parametrize("axis", [2, -3, 100, -(2**62)])
def test_an_axis_out_of_range(name, axis):
    with pytest.raises(owl.ShapeError) as e:
        getattr(owl.ones([2, 3]), name)(axis)
    assert str(axis) in str(e.value) and "[2, 3]" in str(e.value)


@pytest.mark.parametrize("name", ["sum", "max", "min", "mean"])
def test_bad_lists_of_axes(name):
    x = owl.ones([2, 3])
    for axes in ([0, 0], [0, -2], [0, 2]):
        with pytest.raises(owl.ShapeError):
            getattr(x, name)(axes)
    for axis in (1.5, "0", [0.5], {}):
        with pytest.raises(TypeError):
            getattr(x, name)(axis)
    assert val(getattr(x, name)((0, 1))).shape == (1, 1)


def test_count_zero():
    a = np.array([[0, 1, -0.0, 2], [0, 3, 4, np.nan]], np.float32)
    for dtype in DTYPES:
        b = np.nan_to_num(a, nan=1).astype(dtype)
        got = arr(b).count_zero()
        assert type(got) is int and got == 3
    assert arr(a).count_zero() == 3
    assert owl.zeros([0, 5]).count_zero() == 0
    assert owl.zeros([1000, 100]).count_zero() == 100_000
    assert (owl.arange(1000) - 5).count_zero() == 1


@given(st.data())
@settings(max_examples=60 * SOAK)
def test_views_and_fused_operands(d):
    """A reduction reads strided views and expressions like plain arrays."""
    shape = d.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4), "shape")
    a = np.random.default_rng(d.draw(st.integers(0, 99), "seed")).normal(size=shape).astype(np.float32)
    cuts = st.sampled_from([slice(None), slice(None, None, 2), slice(None, None, -1), slice(1, None)])
    index = tuple(d.draw(cuts) for _ in shape)
    order = d.draw(st.permutations(range(len(shape))))
    b = a[index].transpose(order)
    x = arr(a)[index].transpose(list(order))
    if d.draw(st.booleans(), "in an expression"):
        b, x = b * np.float32(0.5) + np.float32(1), x * 0.5 + 1
    axis = d.draw(st.sampled_from(list(axis_choices(len(shape)))), "axis")
    count = b.size // max(want(np.sum, b, axis).size, 1)
    np.testing.assert_allclose(val(call(x, "sum", axis)), want(np.sum, b.astype(np.float64), axis),
                               rtol=0, atol=1e-6 * max(count, 1) * (1 + np.abs(b).max(initial=0)))
    if b.size:
        assert same_bits(val(call(x, "max", axis)), want(np.max, b, axis))


def test_the_mean_of_a_constant_is_the_constant():
    for value in (0.1, 3.0, -7.25):
        assert ulps(val(owl.full([123, 45], value).mean()), np.array([np.float64(np.float32(value))])) <= 4


# --- made of other operations

@pytest.mark.parametrize("shape", [*SHAPES, (0, 3), (2, 0)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["any", "all"])
def test_any_and_all(name, dtype, shape):
    a = data(shape, dtype) * (np.random.default_rng(1).random(shape) < 0.5).astype(dtype)
    for axis in axis_choices(len(shape)):
        got = call(arr(a), name, axis)
        assert dtype_of(got) == BOOLS[dtype]
        assert same_bits(val(got), want(getattr(np, name), a, axis)), axis
    assert same_bits(val(getattr(arr(a), name)([0])), want(getattr(np, name), a, [0]))


def test_nan_is_true():
    x = arr(np.float32([np.nan, 0]))
    assert x.any().item() is True and x.all().item() is False and x[:1].all().item() is True and (-x[1:]).any().item() is False


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["var", "std"])
def test_variance(name, dtype, shape):
    a = data(shape, dtype) if dtype == "bool" else (data(shape, "float64") + 100).astype(dtype)
    for axis in axis_choices(len(shape)):
        for correction in (0, 1, 0.5):
            got = getattr(arr(a), name)(axis, correction=correction)
            assert dtype_of(got) == MEAN_TYPE[dtype]
            exact = want(lambda *args, **more: getattr(np, name)(*args, ddof=correction, **more), a.astype(np.float64), axis)
            double = dtype == "float64"
            far = 1e-12 if double else max(2e-5, eps(MEAN_TYPE[dtype]))
            np.testing.assert_allclose(val(got).astype(np.float64), exact, rtol=far, atol=1e-12 if double else 1e-4)
        assert same_bits(val(call(arr(a), name, axis)), val(getattr(arr(a), name)(axis=axis, correction=0)))


def test_the_variance_of_large_numbers_close_to_each_other():
    a = np.float32(1e4) + np.random.default_rng(2).random(10_000).astype(np.float32)
    np.testing.assert_allclose(arr(a).var().item(), a.astype(np.float64).var(), rtol=1e-4)
    assert owl.full([50], 0.1).var().item() == owl.full([50], 0.1).std().item() == 0


def test_the_variance_of_too_few_is_numpys():
    for n in (0, 1, 2):
        for correction in (0, 1, 2, 3):
            a = np.arange(n, dtype=np.float32)
            np.testing.assert_array_equal(val(arr(a).var(0, correction)), a.var(0, ddof=correction, keepdims=True))
            np.testing.assert_array_equal(val(arr(a).std(0, correction)), a.std(0, ddof=correction, keepdims=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_logsumexp(dtype):
    a = data((3, 4, 5), dtype)
    for axis in axis_choices(3):
        got = owl.logsumexp(arr(a)) if axis is None else owl.logsumexp(arr(a), axis)
        assert dtype_of(got) == MEAN_TYPE[dtype]
        exact = want(lambda x, **more: np.log(np.exp(x).sum(**more)), a.astype(np.float64), axis)
        np.testing.assert_allclose(val(got).astype(np.float64), exact, rtol=1e-14 if dtype == "float64" else max(2e-6, eps(MEAN_TYPE[dtype])))


def test_logsumexp_of_large_and_infinite_numbers():
    inf = np.inf
    a = np.float32([[1000, 1000], [-1000, -1000], [-inf, -inf], [inf, 1], [-inf, 5], [np.nan, inf], [3e38, -3e38]])
    log2 = np.log(2)
    np.testing.assert_allclose(val(owl.logsumexp(arr(a), axis=1))[:, 0], [1000 + log2, -1000 + log2, -inf, inf, 5, np.nan, 3e38], rtol=1e-6)
    assert val(owl.logsumexp(owl.zeros([0, 2]), 0)).tolist() == [[-inf, -inf]]
    x = owl.rand([4, 3])
    gradient = owl.grad(lambda x: owl.logsumexp(x, 0).sum())(x)
    np.testing.assert_allclose(val(gradient), val(owl.exp(x) / owl.exp(x).sum(0)), rtol=1e-5)


@pytest.mark.parametrize("name", ["var", "std", "any", "all"])
def test_errors_have_the_functions_own_name(name):
    with pytest.raises(owl.ShapeError, match=rf"^{name}: axis 2 is out of range for shape \[2, 3\]"):
        getattr(owl.ones([2, 3]), name)(2)
    with pytest.raises(TypeError, match="keepdims"):
        getattr(owl.ones([2, 3]), name)(keepdims=True)
