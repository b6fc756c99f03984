"""Elementwise operations: one table row per operation drives values, broadcasting, types, empty axes and errors."""
import copy
import math
import operator
import pickle
from dataclasses import dataclass

import numpy as np
import pytest

import owl
from conftest import same_bits
from reference import DTYPES, FLOATS, arr, dtype_of, erf, line_up, promoted, sigm, softplus, ulps, val

E = owl.elewise
ROOT2 = np.sqrt(2.0)


@dataclass
class Row:
    """`domain`: intervals of the operands. `bound`: units in the last place, 0 is correctly rounded; `absolute`: or
    this many of the type's epsilon (where cancellation makes ulps meaningless). `types`: the rule from the promoted
    type to the result's (see RESULT)."""
    op: str
    call: callable
    ref: callable
    domain: tuple
    bound: float = 0
    absolute: float = 0
    types: str = "float"

    @property
    def arity(self):
        return len(self.domain)


ANY, SMALL, POSITIVE, UNIT = (-50, 50), (-4, 4), (1e-3, 50), (0, 1)


def where_positive(err, y):
    return np.where(y > 0, err, 0)


def gelu_tanh(x):
    return x * (0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))


def leaky_relu(x, slope):
    return np.where(x > 0, x, slope * x)


def hard_sigmoid(x):
    return np.clip(x / 6 + 0.5, 0, 1)


def elu(x, alpha):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


ROWS = [
    Row("add", lambda x, y: x + y, np.add, (ANY, ANY), types="keep"),
    Row("sub", lambda x, y: x - y, np.subtract, (ANY, ANY), types="number"),
    Row("mult", E.mult, np.multiply, (ANY, ANY), types="keep"),
    Row("div", lambda x, y: x / y, np.divide, (ANY, POSITIVE)),
    Row("floor_divide", lambda x, y: x // y, np.floor_divide, (ANY, POSITIVE), types="power"),
    Row("remainder", lambda x, y: x % y, np.remainder, (ANY, POSITIVE), types="power"),
    Row("pow", lambda x, y: x ** y, np.power, (POSITIVE, SMALL), 4, types="power"),
    Row("neg", lambda x: -x, np.negative, (ANY,), types="number"),
    Row("gt", lambda x, y: x > y, np.greater, (SMALL, SMALL), types="bool"),
    Row("ge", lambda x, y: x >= y, np.greater_equal, (SMALL, SMALL), types="bool"),
    Row("lt", lambda x, y: x < y, np.less, (SMALL, SMALL), types="bool"),
    Row("le", lambda x, y: x <= y, np.less_equal, (SMALL, SMALL), types="bool"),
    Row("eq", lambda x, y: x == y, np.equal, (SMALL, SMALL), types="bool"),
    Row("ne", lambda x, y: x != y, np.not_equal, (SMALL, SMALL), types="bool"),
    Row("exp", E.exp, np.exp, (ANY,), 2),
    Row("exp2", E.exp2, np.exp2, (ANY,), 2),
    Row("ln", E.ln, np.log, (POSITIVE,), 2),
    Row("log2", E.log2, np.log2, (POSITIVE,), 2),
    Row("log10", E.log10, np.log10, (POSITIVE,), 2),
    Row("sigm", E.sigm, sigm, (ANY,), 4),
    Row("relu", E.relu, lambda x: np.maximum(x, 0), (ANY,), types="keep"),
    Row("tanh", E.tanh, np.tanh, (SMALL,), 4),
    Row("sqrt", E.sqrt, np.sqrt, (POSITIVE,)),
    Row("rsqrt", E.rsqrt, lambda x: 1 / np.sqrt(x), (POSITIVE,), 2),
    Row("square", E.square, np.square, (ANY,), types="keep"),
    Row("abs", E.abs, np.abs, (ANY,), types="keep"),
    Row("sign", E.sign, np.sign, (ANY,), types="keep"),
    Row("log1p", E.log1p, np.log1p, ((-0.99, 50),), 4),
    Row("expm1", E.expm1, np.expm1, (SMALL,), 4),
    Row("sin", E.sin, np.sin, (ANY,), 2, 2),
    Row("cos", E.cos, np.cos, (ANY,), 2, 2),
    Row("tan", E.tan, np.tan, (ANY,), 2),
    Row("asin", E.asin, np.arcsin, ((-1, 1),), 2),
    Row("acos", E.acos, np.arccos, ((-1, 1),), 2),
    Row("atan", E.atan, np.arctan, (ANY,), 2),
    Row("atan2", E.atan2, np.arctan2, (ANY, ANY), 2),
    Row("sinh", E.sinh, np.sinh, (ANY,), 2),
    Row("cosh", E.cosh, np.cosh, (ANY,), 2),
    Row("floor", E.floor, np.floor, (ANY,)),
    Row("ceil", E.ceil, np.ceil, (ANY,)),
    Row("round", E.round, np.round, (ANY,), types="keep"),
    Row("trunc", E.trunc, np.trunc, (ANY,), types="keep"),
    Row("fmod", E.fmod, np.fmod, (ANY, POSITIVE), types="power"),
    Row("isnan", E.isnan, np.isnan, (ANY,), types="bool"),
    Row("isinf", E.isinf, np.isinf, (ANY,), types="bool"),
    Row("isfinite", E.isfinite, np.isfinite, (ANY,), types="bool"),
    Row("erf", E.erf, erf, (SMALL,), 4),
    Row("gelu", E.gelu, lambda x: 0.5 * x * (1 + erf(x / ROOT2)), (SMALL,), 4, 4),
    Row("gelu_tanh", lambda x: E.gelu(x, approximate=True), gelu_tanh, (SMALL,), 4, 4),
    Row("leaky_relu", E.leaky_relu, leaky_relu, (ANY, UNIT), 1),
    Row("elu", E.elu, elu, (SMALL, POSITIVE), 4),
    Row("softplus", E.softplus, softplus, (ANY,), 4),
    Row("silu", E.silu, lambda x: x / (1 + np.exp(-x)), (ANY,), 2),
    Row("hard_sigmoid", E.hard_sigmoid, hard_sigmoid, (SMALL,), 1, 1),
    Row("hard_swish", E.hard_swish, lambda x: x * hard_sigmoid(x), (SMALL,), 2, 4),
    Row("mish", E.mish, lambda x: x * np.tanh(np.log1p(np.exp(x))), (ANY,), 2),
    Row("maximum", E.maximum, np.maximum, (ANY, ANY), types="keep"),
    Row("minimum", E.minimum, np.minimum, (ANY, ANY), types="keep"),
    Row("clip", E.clip, lambda x, low, high: np.minimum(np.maximum(x, low), high), (ANY, (-9, 0), (0, 9)),
        types="keep"),
    Row("where", lambda c, x, y: E.where(c > 0, x, y), lambda c, x, y: np.where(c > 0, x, y), (ANY, ANY, ANY),
        types="select"),
    Row("relu_back", E.relu_back, where_positive, (ANY, ANY)),
    Row("sigm_back", E.sigm_back, lambda err, y: err * y * (1 - y), (ANY, UNIT), 4),
    Row("tanh_back", E.tanh_back, lambda err, y: err * (1 - y * y), (ANY, (-1, 1)), 4, 50 * 4),
    Row("sigm_back1", lambda y: E.sigm_back(y), lambda y: y * (1 - y), (UNIT,), 4),
    Row("tanh_back1", lambda y: E.tanh_back(y), lambda y: 1 - y * y, ((-1, 1),), 4, 4),
]
IDS = [r.op for r in ROWS]
each_row = pytest.mark.parametrize("row", ROWS, ids=IDS)
several = pytest.mark.parametrize("row", [r for r in ROWS if r.arity > 1], ids=[r.op for r in ROWS if r.arity > 1])

# The result's type by a row's `types`, from the promoted type; None: a DTypeError.
RESULT = {
    "keep": {t: t for t in DTYPES},
    "number": {t: t if t != "bool" else None for t in DTYPES},
    "power": {t: t if t != "bool" else "int32" for t in DTYPES},
    "float": {t: t if t in FLOATS else "float32" for t in DTYPES},
    "bool": dict.fromkeys(DTYPES, "bool"),
    "select": {t: t for t in DTYPES},
}
REMAINDERS = ("fmod", "floor_divide", "remainder")  # integers by 0 are 0, of NumPy's floats NaN
BOOL_TO_INT = {"square", "abs", "sign", "relu", "round", "trunc"}  # bool gives int32


def expected_type(row, promoted):
    return "int32" if row.op in BOOL_TO_INT and promoted == "bool" else RESULT[row.types][promoted]


def draw(row, shapes, dtype="float32", seed=0):
    rng = np.random.default_rng([seed, len(row.op), row.arity])
    return [rng.uniform(low, high, shape).astype(dtype) for (low, high), shape in zip(row.domain, shapes)]


def reference(row, operands):
    with np.errstate(all="ignore"):
        return np.asarray(row.ref(*(a.astype(np.float64) for a in line_up(*operands))))


def check(row, got, want):
    """`got` has the reference's values within the row's bound."""
    assert got.shape == want.shape
    if got.dtype == bool or got.dtype == np.int32:
        np.testing.assert_array_equal(got, want)
        return
    bound = max(row.bound, 0.5)
    if got.dtype == np.float64:
        bound += 4  # the reference is float64 too
    if row.absolute:
        off = np.abs(got.astype(np.float64) - want) > row.absolute * np.finfo(got.dtype).eps
        got, want = got[off], want[off]
    assert ulps(got, want) <= bound


@each_row
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values(row, dtype):
    operands = draw(row, [(37, 29)] * row.arity, dtype)
    check(row, val(row.call(*map(arr, operands))), reference(row, operands))


@each_row
def test_values_on_a_fine_grid(row):
    """Enough points to meet every branch of an approximation: small, large and both signs."""
    operands = draw(row, [(40_000,)] * row.arity, seed=1)
    low, high = row.domain[0]
    small = np.geomspace(1e-30, max(high, 1e-3), 20_000).astype(np.float32)
    operands[0][:20_000] = small
    if low < 0:
        operands[0][:20_000:2] = np.maximum(-small[::2], np.float32(low))
    check(row, val(row.call(*map(arr, operands))), reference(row, operands))


@each_row
def test_int32(row):
    rng = np.random.default_rng(5)
    low = 1 if row.op in ("pow", "ln", "log2", "log10", "sqrt", "rsqrt", "div", "log1p", *REMAINDERS) else -6
    operands = [rng.integers(low, 7, (11, 5)).astype(np.int32) for _ in row.domain]
    if row.op == "clip":
        operands[1:] = [-abs(operands[1]), abs(operands[2])]
    got = row.call(*map(arr, operands))
    assert dtype_of(got) == expected_type(row, "int32")
    check(row, val(got), reference(row, operands))


BROADCASTS = [((3,), (3, 4)), ((3, 4), (3,)), ((3, 1), (1, 4)), ((1,), (2, 3, 4)), ((2, 3, 4), (2,)),
              ((2, 1, 4), (1, 3)), ((2, 3), (2, 3, 1, 5)), ((1, 1), (1,)), ((1, 1, 1, 1), (2,)),
              ((5, 1, 3, 1), (1, 4, 1, 2)), ((4, 1), (4, 600)), ((1, 70), (300, 1)),
              ((2, 3, 2, 3, 2, 1, 2, 2), (2, 1, 2, 1, 1, 2))]


@several
@pytest.mark.parametrize("shapes", BROADCASTS, ids=str)
def test_broadcasting_is_aligned_at_the_first_axis(row, shapes):
    shapes = [*shapes, shapes[0]][:row.arity]
    operands = draw(row, shapes, seed=2)
    got = row.call(*map(arr, operands))
    want = reference(row, operands)
    assert got.shape == list(want.shape)
    check(row, val(got), want)


@several
@pytest.mark.parametrize("shapes", [((3, 4), (4,)), ((2, 3), (3, 2)), ((2,), (3,)), ((2, 3, 4), (2, 4)), ((0,), (2,))],
                         ids=str)
def test_shapes_that_do_not_fit(row, shapes):
    shapes = [*shapes, shapes[0]][:row.arity]
    with pytest.raises(owl.ShapeError) as e:
        row.call(*(owl.ones(list(s)) for s in shapes))
    assert str(list(shapes[0])) in str(e.value) and str(list(shapes[1])) in str(e.value)


@each_row
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4), (2, 0, 3)], ids=str)
def test_empty_axes(row, shape):
    got = row.call(*(owl.zeros(list(shape)) for _ in row.domain))
    assert got.shape == list(shape) and val(got).shape == shape


@several
def test_length_1_broadcasts_against_an_empty_axis(row):
    got = row.call(*[owl.ones([3, 1]), owl.ones([1, 0]), owl.ones([3])][:row.arity])
    assert got.shape == [3, 0] and val(got).shape == (3, 0)


# --- types

@each_row
@pytest.mark.parametrize("dtype", DTYPES)
def test_type_of_the_result(row, dtype):
    operands = [owl.ones([3], dtype=dtype)] * row.arity
    want = expected_type(row, dtype)
    if want is None:
        with pytest.raises(owl.DTypeError, match=dtype):
            row.call(*operands)
    else:
        got = row.call(*operands)
        assert dtype_of(got) == want == got.to_numpy().dtype.name


ARITHMETIC = {
    "+": (lambda x, y: x + y, "keep"), "-": (lambda x, y: x - y, "number"), "/": (lambda x, y: x / y, "float"),
    "mult": (E.mult, "keep"), ">": (lambda x, y: x > y, "bool"), "maximum": (E.maximum, "keep"),
    "minimum": (E.minimum, "keep"), "where": (lambda x, y: E.where(owl.ones([3], dtype="bool"), x, y), "keep"),
}


@pytest.mark.parametrize("name", ARITHMETIC)
@pytest.mark.parametrize("a", DTYPES)
@pytest.mark.parametrize("b", DTYPES)
def test_promotion_of_two_arrays(name, a, b):
    call, rule = ARITHMETIC[name]
    x, y = owl.full([3], 1, dtype=a), owl.full([3], 1, dtype=b)
    want = RESULT[rule][promoted(a, b)]
    if want is None:
        with pytest.raises(owl.DTypeError):
            call(x, y)
    else:
        assert dtype_of(call(x, y)) == want


# array type x kind of number -> the type they are computed in
WITH_NUMBER = {t: {bool: t, int: t if t != "bool" else "int32", float: t if t in FLOATS else "float32"} for t in DTYPES}


@pytest.mark.parametrize("name", ARITHMETIC)
@pytest.mark.parametrize("kind", [bool, int, float])
@pytest.mark.parametrize("a", DTYPES)
def test_promotion_of_an_array_and_a_number(name, kind, a):
    call, rule = ARITHMETIC[name]
    x, want = owl.full([3], 1, dtype=a), RESULT[rule][WITH_NUMBER[a][kind]]
    for operands in ((x, kind(1)), (kind(1), x)):
        if want is None:
            with pytest.raises(owl.DTypeError):
                call(*operands)
        else:
            got = call(*operands)
            assert dtype_of(got) == want == got.to_numpy().dtype.name


@pytest.mark.parametrize("a,b", [("int32", "float32"), ("bool", "float64"), ("int32", "float64"),
                                 ("float32", "float64")])
def test_mixed_types_are_computed_in_the_larger(a, b):
    x, y = np.array([0, 1, 16777217, 7]).astype(a), np.array([0.1, 1e-9, 0.5, 3]).astype(b)
    assert same_bits(val(arr(x) + arr(y)), x.astype(b) + y)


def test_int32_with_a_float_is_computed_in_float32():
    x = np.arange(-5, 6, dtype=np.int32)
    assert same_bits(val(arr(x) * 0.1), x.astype(np.float32) * np.float32(0.1))
    assert same_bits(val(arr(x) / 3), x.astype(np.float32) / np.float32(3))


def test_int32_wraps():
    big, x = np.int32(2**31 - 1), np.array([2**31 - 1, -2**31, 65537, -1], np.int32)
    with np.errstate(over="ignore"):
        assert same_bits(val(arr(x) + 1), x + np.int32(1))
        assert same_bits(val(arr(x) - big), x - big)
        assert same_bits(val(E.mult(arr(x), arr(x))), x * x)
        assert same_bits(val(-arr(x)), -x)
        assert same_bits(val(E.square(arr(x))), x * x)
        assert same_bits(val(E.abs(arr(x))), np.abs(x))


# --- special values

SPECIALS = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 3.4e38, -3.4e38, 1.2e-38, 88.9, -104.5],
                    np.float32)
UNSAID = dict.fromkeys(["gelu", "gelu_tanh", "silu", "mish"], [-np.inf])  # inf * 0, on which frameworks disagree


@each_row
def test_special_values(row):
    grids = np.meshgrid(*[SPECIALS] * row.arity)
    keep = ~np.isin(grids[0], UNSAID.get(row.op, []))
    if row.op == "clip":
        keep &= grids[1] <= grids[2]
    if row.op in ("sigm_back", "tanh_back"):  # beyond it, overflow depends on the order of the products
        keep &= ~(np.abs(grids[1]) > 1)
    operands = [g[keep] for g in grids]
    with np.errstate(all="ignore"):
        want = row.ref(*operands) if row.op not in ("erf", "gelu", "gelu_tanh") else reference(row, operands).astype(np.float32)
    got = val(row.call(*map(arr, operands)))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(want))
    finite = np.isfinite(want)
    tiny = np.finfo(np.float32).tiny
    np.testing.assert_allclose(got[finite], want[finite], rtol=2e-6, atol=tiny)


SIGNED_ZEROS = [r for r in ROWS if r.op in (
    "add", "sub", "mult", "div", "neg", "sqrt", "rsqrt", "floor", "ceil", "round", "trunc", "tan", "asin", "atan", "atan2",
    "sinh", *REMAINDERS, "silu", "hard_swish", "mish")]


@pytest.mark.parametrize("row", SIGNED_ZEROS, ids=lambda r: r.op)
def test_signs_of_zero(row):
    x = np.array([0.0, -0.0, 1.0, -1.0], np.float32)
    operands = [g.ravel() for g in np.meshgrid(*[x] * row.arity)]
    with np.errstate(all="ignore"):
        want = row.ref(*operands)
    got = val(row.call(*map(arr, operands)))
    number = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got)[number], np.signbit(want)[number])


# --- bits

@each_row
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_do_not_depend_on_the_place(row, dtype):
    """The same elements alone, in a short array, at an offset, strided or transposed: the same bits."""
    operands = draw(row, [(2048 + 37,)] * row.arity, dtype, seed=3)
    whole = val(row.call(*map(arr, operands)))
    views = [arr(a) for a in operands]
    for start, stop in ((0, 1), (1, 2), (0, 3), (5, 12), (7, 23), (2084, 2085), (1000, 2085), (3, 2050)):
        assert same_bits(val(row.call(*(v[start:stop] for v in views))), whole[start:stop])
        assert same_bits(val(row.call(*(arr(a[start:stop]) for a in operands))), whole[start:stop])
    for step in (2, 3, 17):
        assert same_bits(val(row.call(*(v[::step] for v in views))), whole[::step])
    across = val(row.call(*(v[:2080].reshape([65, 32]).trans() for v in views)))
    assert same_bits(across, whole[:2080].reshape(32, 65))


@several
def test_bits_of_a_broadcast_operand(row):
    """A broadcast element gives the same bits as a full array of it, as the first operand or the second."""
    first, second, *rest = draw(row, [(33, 1), (1, 47), (33, 47)][:row.arity], seed=4)
    full = [np.ascontiguousarray(np.broadcast_to(a, (33, 47))) for a in (first, second)]
    got = val(row.call(*map(arr, [first, second, *rest])))
    assert same_bits(got, val(row.call(*map(arr, [*full, *rest]))))


# --- parameters, limits, other names

@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name, ref, default, parameter", [("leaky_relu", leaky_relu, 0.01, "slope"),
                                                           ("elu", elu, 1.0, "alpha")])
def test_a_parameter_is_a_number_an_array_or_left_out(name, ref, default, parameter, dtype):
    function, x = getattr(E, name), np.linspace(-4, 4, 1001).astype(dtype)
    for value in (0.2, 0, 1, -0.5, 3, np.float32(0.3), np.float64(0.7)):
        want = ref(x, x.dtype.type(value))
        for got in (function(arr(x), value), function(arr(x), **{parameter: value}), function(x=arr(x), **{parameter: value})):
            assert dtype_of(got) == dtype
            np.testing.assert_allclose(val(got), want, rtol=1e-6 if dtype == "float32" else 1e-14)
    assert same_bits(val(function(arr(x))), val(function(arr(x), default)))
    each = np.linspace(0.1, 2, 7).astype(dtype)  # a parameter for each channel, as PReLU has
    got = function(arr(x[:, None]), arr(each[None]))
    np.testing.assert_allclose(val(got), ref(x[:, None], each[None]), rtol=1e-6)
    assert dtype_of(function(owl.arange(3, dtype="int32"), 2)) == "float32"
    for wrong in ("0.2", None, [0.2]):
        with pytest.raises(TypeError, match=name):
            function(arr(x), wrong)
    with pytest.raises(TypeError, match=parameter):
        function(arr(x), beta=1)


def test_gelu_keeps_its_digits_far_out():
    """Beside the bound of its row, which is absolute: also where 1 + erf(x / sqrt(2)) would have lost all digits."""
    x = np.concatenate([np.linspace(-13, 13, 40_001), np.geomspace(1e-30, 1, 20_000), -np.geomspace(1e-30, 1, 20_000)])
    x = x.astype(np.float32)
    want = np.array([0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x.tolist()])
    assert ulps(val(E.gelu(arr(x))), want) <= 2


@pytest.mark.parametrize("function, want", [("gelu", [0.0, -0.0, np.inf, -0.0, np.nan]), ("sigm", [0.5, 0.5, 1, 0, np.nan])])
def test_ends_of_activations(function, want):
    got = val(getattr(E, function)(arr(np.float32([0.0, -0.0, np.inf, -np.inf, np.nan]))))
    np.testing.assert_array_equal(got, np.float32(want))
    np.testing.assert_array_equal(np.signbit(got[:4]), np.signbit(np.float32(want[:4])))


def test_gelu_approximate():
    x = np.concatenate([np.linspace(-16, 16, 4001), [1e20, -1e20, 0.0]]).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        # as x / (1 + e^-2u), the same formula without its cancellation for large |x|
        x64 = x.astype(np.float64)
        want = x64 / (1 + np.exp(-2 * np.sqrt(2 / np.pi) * (x64 + 0.044715 * x64**3)))
    for call in (lambda x: E.gelu(x, True), lambda x: E.gelu(x, approximate=True), lambda x: E.gelu(x, np.bool_(True))):
        assert ulps(val(call(arr(x))), want) <= 2
    assert same_bits(val(E.gelu(arr(x), False)), val(E.gelu(arr(x))))
    assert not same_bits(val(E.gelu(arr(x), True)), val(E.gelu(arr(x))))
    for wrong in ("tanh", 1, None):
        with pytest.raises(TypeError, match="gelu: approximate must be True or False"):
            E.gelu(arr(x), wrong)


@pytest.mark.parametrize("low, high", [(1, 0), (0.5, 0.4), (np.float32(2), 1), (2, np.inf * -1)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_limits_the_wrong_way_round(low, high, dtype):
    x = owl.ones([3], dtype)
    with pytest.raises(ValueError, match="clip: low must not be above high, got"):
        E.clip(x, low, high)
    with pytest.raises(ValueError, match="rand: low must not be above high"):
        owl.rand([3], low, high)


def test_limits_that_are_equal_or_arrays():
    x = arr(np.float32([-1, 0.5, 2]))
    assert val(E.clip(x, 1, 1)).tolist() == [1, 1, 1]
    assert val(E.clip(x, arr(np.float32([1, 0, 0])), 0)).tolist() == [0, 0, 0]  # arrays: minimum(maximum(x, low), high)


ALIASES = {"log": "ln", "sigmoid": "sigm", "multiply": "mult"}


def test_other_names():
    for alias, name in ALIASES.items():
        assert getattr(E, alias) is getattr(owl, alias) is getattr(E, name)


def test_every_function_is_in_owl_too():
    import builtins

    for name in E.__all__:
        assert getattr(owl, name) is getattr(E, name)
    assert set(owl.__all__) >= set(E.__all__) - set(dir(builtins))
    assert not set(owl.__all__) & set(dir(builtins))
    namespace = {}
    exec("from owl import *", namespace)
    assert namespace["exp"] is E.exp and not {"abs", "round"} & set(namespace)
    assert namespace["__builtins__"]["abs"] is abs and namespace["__builtins__"]["round"] is round


# --- the table is complete

def test_every_elementwise_operation_has_a_row():
    """Fails for a new operation without a row. (cast has its own table, test_astype.)"""
    ops = [op for op in owl._owl.ops() if op["elementwise"]]
    functions = {op["name"] for op in ops if op["function"]}
    others = {op["name"] for op in ops if not op["function"]} - {"cast"}
    assert functions | others <= set(IDS) | set(BITS)
    assert functions | set(ALIASES) == set(E.__all__)
    assert all(op["doc"] for op in ops)


@pytest.mark.parametrize("a", DTYPES)
@pytest.mark.parametrize("b", DTYPES)
def test_astype(a, b):
    x = np.array([0, 1, 2.7, -3.9, 100]).astype(a)
    got = arr(x).astype(b)
    assert dtype_of(got) == b
    assert same_bits(val(got), x.astype(b))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_halves_are_rounded_to_even(dtype):
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 0.49999997, 8388607.5, -8388607.5, 1e20, 2.0**31 + 0.5], dtype)
    assert same_bits(val(E.round(arr(x))), np.round(x))
    assert same_bits(val(E.trunc(arr(x))), np.trunc(x))


def test_remainders_are_exact_however_large_the_quotient():
    """Beyond a quotient of 2**28 tiles go through the C library; neighbours in their tile keep their bits."""
    rng = np.random.default_rng(8)
    for spread in (1, 9, 20, 60, 120):
        x = (rng.uniform(-1, 1, 5000) * 2.0 ** rng.integers(-spread // 2, spread + 1, 5000)).astype(np.float32)
        y = (rng.uniform(0.5, 1, 5000) * 2.0 ** rng.integers(-spread // 2, 1, 5000)).astype(np.float32)
        whole = rng.integers(0, 5000, 900)
        x[whole] = (y[whole] * np.float32(3)).astype(np.float32)  # at and next to multiples
        x[whole[:300]] = np.nextafter(x[whole[:300]], np.float32(0))
        y[::3] *= -1
        want = np.fmod(x, y)
        assert same_bits(val(E.fmod(arr(x), arr(y))), want)
        assert same_bits(val(E.fmod(arr(x[:77]), arr(y[:77]))), want[:77])
        assert same_bits(val(E.fmod(arr(x.astype(np.float64)), arr(y.astype(np.float64)))), want.astype(np.float64))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("call, ref", [(lambda x, y: x // y, np.floor_divide), (lambda x, y: x % y, np.remainder)], ids=["//", "%"])
def test_floor_division_and_remainder_of_floats_are_numpys(call, ref, dtype):
    """Bit by bit, next to multiples and beyond a quotient of 2**28 too."""
    rng = np.random.default_rng(11)
    for spread in (1, 20, 60):
        x = (rng.uniform(-1, 1, 5000) * 2.0 ** rng.integers(-spread // 2, spread + 1, 5000)).astype(dtype)
        y = (rng.uniform(-1, 1, 5000) * 2.0 ** rng.integers(-spread // 2, 1, 5000)).astype(dtype)
        x[::5] = y[::5] * np.round(rng.uniform(-9, 9, 1000)).astype(dtype)
        x[::10] = np.nextafter(x[::10], x.dtype.type(0))
        assert same_bits(val(call(arr(x), arr(y))), ref(x, y))
    x, y = (g.ravel() for g in np.meshgrid(SPECIALS.astype(dtype), SPECIALS.astype(dtype)))
    with np.errstate(all="ignore"):
        tiny = np.finfo(np.float32).tiny  # denormals are 0
        np.testing.assert_allclose(val(call(arr(x), arr(y))), ref(x, y), rtol=0, atol=tiny)
        np.testing.assert_allclose(val(call(arr(x), 2.5)), ref(x, x.dtype.type(2.5)), rtol=0, atol=tiny)
        np.testing.assert_allclose(val(call(-7, arr(x))), ref(x.dtype.type(-7), x), rtol=0, atol=tiny)


BITS = {"bit_and": (lambda x, y: x & y, np.bitwise_and), "bit_or": (lambda x, y: x | y, np.bitwise_or),
        "bit_xor": (lambda x, y: x ^ y, np.bitwise_xor), "bit_not": (lambda x: ~x, np.invert)}  # fmt: skip


@pytest.mark.parametrize("name", BITS)
def test_operations_on_bits(name):
    call, ref = BITS[name]
    count = 1 if name == "bit_not" else 2
    rng = np.random.default_rng(12)
    for shape in ((3,), (65, 33), (1000, 7), (0, 4)):
        ints = [rng.integers(-(2**31), 2**31, shape).astype(np.int32) for _ in range(count)]
        bools = [rng.integers(0, 2, shape).astype(bool) for _ in range(count)]
        assert same_bits(val(call(*map(arr, ints))), ref(*ints))
        assert same_bits(val(call(*map(arr, bools))), ref(*bools))
        assert same_bits(val(call(*(arr(a)[::-1] for a in ints))), ref(*(a[::-1] for a in ints)))
        if count == 2:
            assert same_bits(val(call(arr(ints[0]), arr(bools[0]))), ref(ints[0], bools[0].astype(np.int32)))
            for number in (True, 5, -3, 2**31 - 1):
                assert same_bits(val(call(arr(ints[0]), number)), ref(ints[0], np.int32(number)))
                assert same_bits(val(call(number, arr(ints[0]))), ref(np.int32(number), ints[0]))
            assert same_bits(val(call(arr(bools[0]), True)), ref(bools[0], True))
            assert dtype_of(call(arr(bools[0]), 1)) == "int32"
    for wrong in ("float32", "float64"):
        with pytest.raises(owl.DTypeError, match=f"{name} of {wrong} is not defined, only of bools and integers"):
            call(*[owl.ones([2], wrong)] * count)
    if count == 2:
        with pytest.raises(owl.DTypeError, match="float32"):
            call(owl.ones([2], "int32"), 0.5)
        with pytest.raises(OverflowError, match="does not fit int32"):
            call(owl.ones([2], "int32"), 2**31)
        with pytest.raises(TypeError, match="from_numpy"):
            call(np.ones(2, bool), owl.ones([2], "bool"))
        assert call(owl.ones([2, 1], "bool"), owl.ones([1, 3], "bool")).shape == [2, 3]


def test_operators_of_integers_in_place():
    x = owl.arange(6, dtype="int32")
    kept = x
    x //= 2
    x %= owl.full([6], 2, "int32")
    x |= 4
    x ^= 1
    x &= 7
    a = np.arange(6, dtype=np.int32)
    assert val(x).tolist() == ((((a // 2) % 2) | 4) ^ 1).tolist() and val(kept).tolist() == a.tolist()
    for function in (operator.ifloordiv, operator.imod, operator.iand, operator.ior, operator.ixor):
        with pytest.raises(owl.ShapeError, match="would enlarge the left operand"):
            function(owl.ones([1, 2], "int32"), owl.ones([3, 2], "int32"))


def test_floor_division_and_remainder_of_integers():
    x, y = (g.ravel() for g in np.meshgrid(np.int32([7, -7, 0, 6, 2**31 - 1, -2**31]), np.int32([3, -3, 0, 1, -1, 2**31 - 1, -2**31])))
    with np.errstate(all="ignore"):
        assert same_bits(val(arr(x) // arr(y)), x // y)
        assert same_bits(val(arr(x) % arr(y)), x % y)
    assert same_bits(val(arr(x) % 3), x % np.int32(3)) and same_bits(val(arr(x) // -3), x // np.int32(-3))
    assert val(7 // arr(x[:2])).tolist() == [1, -1] and val(7 % arr(np.int32([4, -4]))).tolist() == [3, -1]


def test_remainders_of_integers():
    x, y = (g.ravel() for g in np.meshgrid(np.int32([7, -7, 0, 6, 2**31 - 1, -2**31]), np.int32([3, -3, 0, 1, -1, 2**31 - 1, -2**31])))
    with np.errstate(all="ignore"):
        assert same_bits(val(E.fmod(arr(x), arr(y))), np.fmod(x, y))
    assert same_bits(val(E.fmod(arr(x), 3)), np.fmod(x, np.int32(3)))


@pytest.mark.parametrize("name, ref", [("tan", np.tan), ("sin", np.sin), ("cos", np.cos)])
def test_large_angles(name, ref):
    x = np.float32([1e5, -3e5, 1048576, 1048577, 1e7, -1e10, 1e22, 3e38, 11.0, 355.0 / 2, 0.5])
    assert ulps(val(getattr(E, name)(arr(x))), ref(x.astype(np.float64))) <= 2
    assert same_bits(val(getattr(E, name)(arr(x[-1:]))), val(getattr(E, name)(arr(x)))[-1:])


def test_atan2_takes_y_first():
    y, x = np.float32([1, 1, -1, -1, 0.0, -0.0]), np.float32([1, -1, 1, -1, -1, -1])
    assert ulps(val(E.atan2(arr(y), arr(x))), np.arctan2(y.astype(np.float64), x)) <= 1
    assert same_bits(val(E.atan2(x=arr(x), y=arr(y))), val(E.atan2(arr(y), arr(x))))
    assert E.atan2(1, owl.ones([1])).item() == E.atan2(owl.ones([1]), 1).item() == pytest.approx(np.pi / 4)


def test_int32_powers_wrap():
    x = np.array([3, -3, 7, 2, -2**31, 0], np.int32)
    for n in (0, 1, 2, 3, 20, 31, 33, 63):
        assert same_bits(val(arr(x) ** n), x ** np.int32(n))
        assert same_bits(val(arr(x) ** owl.full([6], n, "int32")), x ** np.int32(n))


@pytest.mark.parametrize("row", [r for r in ROWS if expected_type(r, "bool")], ids=lambda r: r.op)
def test_bool(row):
    operands = list(np.random.default_rng(0).integers(0, 2, (row.arity, 11, 5)).astype(bool))
    if row.op in ("div", "pow", "ln", "log2", "log10", "rsqrt", "log1p", *REMAINDERS):
        operands[-1][:] = True
    if row.op == "clip":
        operands[1][:], operands[2][:] = False, True
    got, want = val(row.call(*map(arr, operands))), reference(row, operands)
    np.testing.assert_allclose(got, want.astype(got.dtype), rtol=1e-6)


@several
@pytest.mark.parametrize("dtype", ["bool", "int32", "float64"])
def test_broadcasting_of_every_type(row, dtype):
    if expected_type(row, dtype) is None:
        return
    for shapes in BROADCASTS:
        rng = np.random.default_rng(6)
        operands = [rng.integers(1, 2 if dtype == "bool" else 5, s).astype(dtype) for s in [*shapes, shapes[0]][:row.arity]]
        got = row.call(*map(arr, operands))
        written_out = [np.ascontiguousarray(np.broadcast_to(a, got.shape)) for a in line_up(*operands)]
        assert same_bits(val(got), val(row.call(*map(arr, written_out))))


@each_row
def test_special_values_of_float64(row):
    specials = np.where(np.isfinite(SPECIALS), SPECIALS.astype(np.float64), SPECIALS)
    specials[-5:] = 1.7e308, -1.7e308, 2.3e-308, 709.9, -745.0
    grids = np.meshgrid(*[specials] * row.arity)
    keep = ~np.isin(grids[0], UNSAID.get(row.op, []))
    if row.op == "clip":
        keep &= grids[1] <= grids[2]
    if row.op in ("sigm_back", "tanh_back"):
        keep &= ~(np.abs(grids[1]) > 1)
    operands = [g[keep] for g in grids]
    want, got = reference(row, operands), val(row.call(*map(arr, operands)))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(want))
    finite = np.isfinite(want)
    np.testing.assert_allclose(got[finite], want[finite], rtol=1e-12, atol=2.3e-308)


def test_functions_are_pickled_by_name():
    for name in owl.elewise.__all__:
        function = getattr(owl.elewise, name)
        assert pickle.loads(pickle.dumps(function)) is function and copy.deepcopy(function) is function
        assert "Capsule" not in function.__qualname__
