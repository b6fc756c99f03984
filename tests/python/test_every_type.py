"""Operations that are not elementwise, for every element type, as accurate as the type allows: float64 to its last
digits, halves as float32 that is rounded once, bools and integers exactly or as float32."""

import numpy as np
import pytest

import owl
import reference as ref
from conftest import same_bits
from reference import DTYPES, FLOATS, HALVES, INTEGERS, NUMPY_TYPES, arr, eps, val
from test_conv import CONVS
from test_indexing import INDICES, in_owl

C = owl.conv
each_type = pytest.mark.parametrize("dtype", DTYPES)


def numbers(shape, dtype, seed=0):
    """Small integers if the type is not float64, so that sums in float32 are exact; any number in float64."""
    rng = np.random.default_rng([seed, *shape])
    if dtype == "float64":
        return rng.normal(size=shape)
    low, high = {"bool": (0, 2), "uint8": (0, 9)}.get(dtype, (-4, 5))
    return rng.integers(low, high, shape).astype(dtype)


def same(got, want, rtol, atol=0.0):
    """Checks the type and equal values; float64 within a few roundings."""
    a = got.to_numpy()
    assert a.shape == want.shape
    if a.dtype == np.float64:
        np.testing.assert_allclose(a, want, rtol=1e-12, atol=1e-12)
    elif a.dtype.name in HALVES:  # operands that are results were rounded too
        if rtol == 0:
            assert same_bits(a, want.astype(np.float32).astype(a.dtype))
        else:
            unit = 4 * eps(a.dtype.name)
            np.testing.assert_allclose(a.astype(np.float64), want, rtol=unit, atol=unit)
    else:
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, want, rtol=rtol, atol=atol)


@each_type
@pytest.mark.parametrize("case", CONVS, ids=lambda case: str(case[2]) or "plain")
def test_convolution(case, dtype):
    x_shape, w_shape, options = case
    plain, convolver = ref.Conv(**options), C.Convolver(**options)
    x, w, b = numbers(x_shape, dtype), numbers(w_shape, dtype, 1), numbers(w_shape[:1], dtype, 2)
    err = numbers((x_shape[0], w_shape[0], *plain.out_size(x_shape, w_shape)), dtype, 3)
    ox, ow, ob, oerr = map(owl.from_numpy, (x, w, b, err))
    X, W, B, ERR = (a.astype(np.float64) for a in (x, w, b, err))
    same(convolver.ff(ox, ow, ob), plain.ff(X, W, B), 0)
    same(convolver.bp(oerr, ox, ow), plain.bp(ERR, X, W), 0)
    same(convolver.weight_grad(oerr, ox, ow), plain.weight_grad(ERR, X, W), 0)
    same(convolver.bias_grad(oerr), ERR.sum(axis=(0, 2, 3)), 0)


POOLS = [dict(h=2, w=2, stride_v=2, stride_h=2), dict(h=3, w=2, stride_v=2, stride_h=1, pad_h=1),
         dict(h=3, w=3, stride_v=2, stride_h=2, ceil_mode=False)]


@each_type
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("options", POOLS, ids=str)
def test_pooling(options, average, dtype):
    plain = ref.Pool(**options, average=average)
    pooler = C.Pooler(**options, op=C.pool_op.average if average else C.pool_op.max)
    x = numbers((2, 3, 6, 7), dtype)
    X = x.astype(np.float64)
    y = plain.ff(X)
    err = numbers(y.shape, dtype, 1)
    oy = pooler.ff(owl.from_numpy(x))
    same(oy, y, 1e-6)
    same(pooler.bp(owl.from_numpy(err), oy, owl.from_numpy(x)), plain.bp(err.astype(np.float64), X), 1e-6, 1e-6)
    assert oy.dtype == (x.dtype if dtype in FLOATS else np.float32)


@each_type
def test_normalisation(dtype):
    x, err = numbers((2, 7, 3, 4), dtype), numbers((2, 7, 3, 4), dtype, 1)
    X, ERR = x.astype(np.float64), err.astype(np.float64)
    ox, unit = owl.from_numpy(x), C.Lrner(5, 0.5, 0.75)
    y = unit.ff(ox, ox)
    same(y, ref.lrn(X, 5, 0.5, 0.75), 2e-6)
    same(unit.bp(ox, y, ox, owl.from_numpy(err)), ref.lrn_back(X, ERR, 5, 0.5, 0.75), 1e-5, 1e-5)


@each_type
@pytest.mark.parametrize("channel", [False, True])
def test_softmax(channel, dtype):
    x, err = numbers((3, 5, 4), dtype), numbers((3, 5, 4), dtype, 1)
    X, ERR = x.astype(np.float64), err.astype(np.float64)
    ox, op = owl.from_numpy(x), C.soft_op.channel if channel else C.soft_op.instance
    y = C.softmax(ox, op)
    same(y, ref.softmax(X, channel), 1e-6)
    same(C.log_softmax(ox, op), ref.log_softmax(X, channel), 1e-6, 1e-6)
    same(C.softmax_back(owl.from_numpy(err), y, op), ref.softmax_back(ERR, ref.softmax(X, channel), channel), 1e-5, 1e-6)


def test_mixed_operands_of_networks_are_promoted():
    x, w, b = owl.ones([4, 4, 1, 1], "int32"), owl.ones([2, 2, 1, 1], "float64"), owl.ones([1], bool)
    y = C.Convolver().ff(x, w, b)
    assert y.dtype == np.float64 and y.to_numpy().ravel().tolist() == [5.0] * 9
    assert C.softmax_back(owl.ones([2, 2], "float64"), owl.ones([2, 2])).dtype == np.float64
    assert C.Lrner(1, 0.0, 1.0).bp(x, x, x, owl.ones([4, 4, 1, 1], "float64")).dtype == np.float64


@each_type
@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexing(index, dtype):
    a = numbers((3, 4, 5), dtype)
    assert same_bits(val(arr(a)[index]), in_owl(a[index]))
    assert same_bits(val(arr(a)[index].reshape([-1])), a[index].reshape(-1, order="F"))


@each_type
def test_shapes(dtype):
    a = numbers((3, 4, 5), dtype)
    x = arr(a)
    for axes in ((2, 0, 1), (0, 2, 1), (-1, -2, -3)):
        assert same_bits(val(x.transpose(axes)), a.transpose(axes))
        assert same_bits(val(x.transpose(*axes)), a.transpose(axes))
    assert same_bits(val(x.transpose()), a.T) and same_bits(val(x.transpose(None)), a.T)
    assert same_bits(val(x.reshape([4, -1])), a.reshape(4, -1, order="F"))
    assert same_bits(val(x.transpose((2, 0, 1)).reshape(10, 6)), a.transpose(2, 0, 1).reshape(10, 6, order="F"))
    assert same_bits(val(x[0].trans()), a[0].T) and same_bits(val(x[0].T), a[0].T)
    for axis in (0, 1, -1):
        assert same_bits(val(owl.concat([x, x[::-1]], axis)), np.concatenate([a, a[::-1]], axis))
        assert same_bits(val(owl.slice(x, axis, 1, 2)), np.take(a, [1, 2], axis))


@each_type
def test_exchange_with_numpy(dtype):
    for a in (numbers((3, 4), dtype), numbers((0, 2), dtype), numbers((5,), dtype), np.asfortranarray(numbers((3, 4), dtype)),
              numbers((6, 8), dtype)[::2, ::-3]):
        x = owl.from_numpy(a)
        assert x.shape == list(a.shape[::-1]) and x.dtype == dtype
        assert same_bits(x.to_numpy(), a) and same_bits(np.asarray(x), a) and same_bits(np.array(x), a)
        if dtype not in NUMPY_TYPES:
            continue
        shared = np.from_dlpack(x)
        assert same_bits(shared, a) and not shared.flags.writeable
        assert same_bits(owl.from_dlpack(a).to_numpy(), a)
        assert same_bits(np.from_dlpack(x.transpose()), a.T)


@each_type
def test_numbers_out_of_arrays(dtype):
    kind = bool if dtype == "bool" else int if dtype in INTEGERS else float
    for number in {"bool": (False, True), "uint8": (0, 1, 255)}.get(dtype, (0, 1, -3)):
        x = owl.full([1, 1], number, dtype)
        assert x.item() == number and type(x.item()) is kind
        assert (float(x), int(x), bool(x)) == (float(number), int(number), bool(number))
        assert owl.full([4], number, dtype).count_zero() == (4 if number == 0 else 0)


@each_type
def test_constants_and_ranges(dtype):
    assert same_bits(owl.zeros([2, 3], dtype).to_numpy(), np.zeros((3, 2), dtype))
    assert same_bits(owl.ones([2, 3], dtype=dtype).to_numpy(), np.ones((3, 2), dtype))
    assert same_bits(owl.full([3], 1, dtype).to_numpy(), np.ones(3, dtype))
    assert same_bits(owl.arange(5, dtype=dtype).to_numpy(), np.arange(5).astype(dtype))
    assert same_bits(owl.arange(0, dtype=dtype).to_numpy(), np.zeros(0, dtype))
    bernoulli = owl.randb([10_000], 0.3, dtype).to_numpy()
    assert bernoulli.dtype == dtype and set(np.unique(bernoulli).tolist()) == {0, 1}


@pytest.mark.parametrize("dtype", FLOATS)
def test_random_numbers_of_float_types(dtype):
    u, n = owl.rand([10_000], -2.0, 3.0, dtype).to_numpy(), owl.randn([10_000], 1.0, 2.0, dtype).to_numpy()
    assert u.dtype == n.dtype == dtype and -2 <= u.min() < -1.9 and 2.9 < u.max() < 3
    if dtype in HALVES:  # as float32 numbers, rounded; but never up to the end of the range
        u, n = u.astype(np.float64), n.astype(np.float64)
        for low, high in ((0.0, 1.0), (-1.0, 0.0), (-1.0, -0.5), (-3.0, 257.0)):
            x = owl.rand([30_000], low, high, dtype).to_numpy().astype(np.float64)
            assert low <= x.min() and x.max() < high
    assert abs(n.mean() - 1) < 0.1 and abs(n.std() - 2) < 0.1
    if dtype == "float64":  # more digits than float32
        assert (u != u.astype(np.float32)).any() and (n != n.astype(np.float32)).any()


@pytest.mark.parametrize("draw", [owl.rand, owl.randn])
@pytest.mark.parametrize("dtype", ["bool", *INTEGERS])
def test_random_numbers_are_no_integers(draw, dtype):
    with pytest.raises(owl.DTypeError, match=f"got {dtype}.*astype"):
        draw([3], dtype=dtype)


@pytest.mark.parametrize("dtype", ["bool", *INTEGERS])
def test_negative_powers_of_integers(dtype):
    x = owl.full([2], 1, dtype)
    for exponent in (-1, -3, np.int64(-2)):
        with pytest.raises(owl.DTypeError, match="negative integer"):
            x**exponent
    assert (x**-1.0).to_numpy().tolist() == [1.0, 1.0]
    assert (x ** owl.full([2], -1, "int32")).to_numpy().tolist() == [1, 1]
    assert (x ** owl.full([2], -1, "int64")).to_numpy().tolist() == [1, 1]


@each_type
def test_astype_to_every_type(dtype):
    a = numbers((3, 4), dtype)
    for target in DTYPES:
        x = arr(a).astype(target)
        assert same_bits(val(x), a.astype(target))
        assert same_bits(val(arr(a).astype(np.dtype(target))), a.astype(target))
    assert arr(a).astype(float).dtype == np.float64 and arr(a).astype(int).dtype == np.int32


def test_int64_is_exact_from_script_to_kernel():
    """Beyond 2^53, where float64 has no odd numbers."""
    n = 2**53 + 1
    x = owl.full([3], n, "int64")
    assert x.tolist() == [n] * 3 and owl.full_like(x, -n).tolist() == [-n] * 3
    assert x[0].item() == int(x[1]) == n and range(n + 1)[x[2]] == n
    assert (x + n).tolist() == [2 * n] * 3 and (n - x).tolist() == [0] * 3 and (x * 3).tolist() == [3 * n] * 3
    assert (x == n).tolist() == [True] * 3 and (x == n - 1).tolist() == [False] * 3 and (x > n - 1).tolist() == [True] * 3
    assert owl.where(x > 0, n + 2, x).tolist() == [n + 2] * 3 and owl.clip(x, n + 2, n + 4).tolist() == [n + 2] * 3
    assert owl.arange(n, n + 3, dtype="int64").tolist() == [n, n + 1, n + 2]
    assert owl.arange(n, n - 5, -2, "int64").tolist() == [n, n - 2, n - 4]
    assert (x + np.int64(n)).tolist() == [2 * n] * 3 and owl.maximum(x, 2**62).tolist() == [2**62] * 3
    assert (owl.full([1], 2**63 - 1, "int64") + 1).item() == -(2**63)
    a, b = np.array([[n, 2], [3, -n]]), np.array([[1, 5], [-n, 7]])
    assert same_bits(val(arr(a) * arr(b)), a @ b)


@pytest.mark.parametrize("dtype, low, high", [("uint8", 0, 255), ("int32", -(2**31), 2**31 - 1), ("int64", -(2**63), 2**63 - 1)])
def test_numbers_outside_an_integer_type(dtype, low, high):
    x = owl.from_numpy(np.array([low, high], dtype))
    assert (x + 0).tolist() == [low, high] and owl.full([1], high, dtype).item() == high
    for n in (low - 1, high + 1, 2**70, -(2**200)):
        for call in (lambda: x + n, lambda: n * x, lambda: owl.maximum(x, n), lambda: owl.clip(x, n, n),
                     lambda: owl.full([2], n, dtype), lambda: owl.full_like(x, n), lambda: owl.arange(n, n + 3, dtype=dtype)):
            with pytest.raises(OverflowError, match=dtype):
                call()
        above = n > high
        assert (x < n).tolist() == (x <= n).tolist() == [above] * 2
        assert (x > n).tolist() == (n < x).tolist() == [not above] * 2
        assert (x == n).tolist() == [False] * 2 and (x != n).tolist() == [True] * 2


@pytest.mark.parametrize("dtype", [t for t in HALVES if t in DTYPES])
def test_halves_are_rounded_once_for_each_operation(dtype):
    """Fused or not, from float32 and float64, numbers between two halves included."""
    rng = np.random.default_rng(4)
    half = owl.zeros([1], dtype).dtype
    wide = np.concatenate([rng.normal(size=5000) * 10.0 ** rng.integers(-9, 8, 5000), [0.0, -0.0, np.inf, -np.inf, np.nan, 65504,
                           65519.99, 65520, -65520, 1e-8, 2.0**-25, 2.0**-24 * 1.5]])
    with np.errstate(all="ignore"):
        for source in (wide, wide.astype(np.float32)):
            got = owl.from_numpy(source).astype(dtype).to_numpy()
            np.testing.assert_array_equal(got.astype(np.float32), source.astype(half).astype(np.float32))
        between = owl.full([1], 1 + eps(dtype) / 2 + 2.0**-40, "float64")  # in float32 it is the middle between two halves
        assert between.astype(dtype).item() == 1 + eps(dtype)
        every = np.arange(65536, dtype=np.uint16).view(half)
        normal = every[~(np.abs(every.astype(np.float32)) < np.finfo(np.float32).tiny) | (every == 0)]  # else they may be 0
        for target in ("float32", "float64", "bool"):
            np.testing.assert_array_equal(owl.from_numpy(normal).astype(target).to_numpy(), normal.astype(target))
        a, b = (rng.normal(size=1003).astype(half) for _ in range(2))
        x, y = owl.from_numpy(a), owl.from_numpy(b)
        product = (a.astype(np.float32) * b.astype(np.float32)).astype(half)
        want = (product.astype(np.float32) / (1 + np.abs(a.astype(np.float32)).astype(half).astype(np.float32)).astype(half).astype(np.float32)).astype(half)
        got = owl.mult(x, y) / (abs(x) + 1)
        assert got.dtype == half and same_bits(got.to_numpy(), want)
        with owl.eager():
            assert same_bits((owl.mult(x, y) / (abs(x) + 1)).to_numpy(), want)
