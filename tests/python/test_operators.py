"""Operators: arrays and numbers on either side, in-place forms, the matrix product, and operands that are refused."""
import operator

import numpy as np
import pytest

import owl
from conftest import same_bits
from reference import arr, dtype_of, line_up, val

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's own
F32 = np.float32
X = np.array([[1.5, -2.0, 0.25], [4.0, 3.0, -0.5]], F32)
Y = np.array([[2.0, 0.5, -4.0], [1.0, -3.0, 8.0]], F32)

BINARY = {"+": operator.add, "-": operator.sub, "/": operator.truediv, "**": operator.pow, ">": operator.gt,
          ">=": operator.ge, "<": operator.lt, "<=": operator.le, "==": operator.eq, "!=": operator.ne}
IN_PLACE = {"+=": operator.iadd, "-=": operator.isub, "/=": operator.itruediv, "*=": operator.imul}
NUMBERS = [2, 0.5, True, F32(1.5), np.float64(0.1), np.int64(3), np.int32(-2), np.bool_(True)]


def close(got, want):
    assert got.dtype == want.dtype and got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=3e-7, atol=0)


def number_in(n):
    """A number as an operand with a float32 array."""
    return F32(n)


@pytest.mark.parametrize("op", BINARY)
def test_two_arrays(op):
    f = BINARY[op]
    x = np.abs(X) if op == "**" else X
    close(val(f(arr(x), arr(Y))), f(x, Y))


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: f"{type(n).__name__}-{n}")
@pytest.mark.parametrize("op", [*BINARY, "*"])
def test_an_array_and_a_number(op, number):
    f = operator.mul if op == "*" else BINARY[op]
    x = np.abs(X)
    close(val(f(arr(x), number)), f(x, number_in(number)))
    close(val(f(number, arr(x))), f(number_in(number), x))


def test_numbers_never_raise_a_float_type():
    for number in NUMBERS:
        for f in (operator.add, operator.mul, operator.pow):
            assert dtype_of(f(arr(X), number)) == dtype_of(f(number, arr(X))) == "float32"
    assert dtype_of(arr(X.astype(np.float64)) + 1) == "float64"
    assert dtype_of(arr(np.arange(3, dtype=np.int32)) + np.float64(0.5)) == "float32"


def test_a_float64_number_keeps_its_digits_beside_float64():
    x = np.array([1.0, 3.0])
    assert same_bits(val(arr(x) * 0.1), x * 0.1)
    assert same_bits(val(1e-17 + arr(x) / 3), 1e-17 + x / 3)


def test_unary():
    assert same_bits(val(-arr(X)), -X)
    assert same_bits(val(+arr(X)), X)
    assert same_bits(val(abs(arr(X))), np.abs(X))


@pytest.mark.parametrize("exponent", [2, 3, 0.5, -1, 0, 1, 2.0, -0.5])
def test_power(exponent):
    close(val(arr(np.abs(X)) ** exponent), np.abs(X) ** F32(exponent))


def test_power_of_negative_numbers():
    np.testing.assert_allclose(val(arr(X) ** 2), X ** 2)
    np.testing.assert_allclose(val(arr(X) ** 3), X ** 3)
    assert np.isnan(val(arr(np.array([-2.0], F32)) ** 0.5))[0]


def test_pow_with_a_modulus_is_refused():
    with pytest.raises(TypeError):
        pow(arr(X), 2, 3)


# --- the matrix product

def test_star_and_at_between_arrays_are_the_matrix_product():
    a, b = arr(X), arr(Y.T.copy())
    for got in (a * b, a @ b, operator.matmul(a, b)):
        close(val(got), X @ Y.T)


@pytest.mark.parametrize("f", [operator.imul, operator.imatmul])
def test_in_place_matrix_product(f):
    a = old = arr(X)
    b = arr(np.ascontiguousarray(Y.T))
    a = f(a, b)
    assert a.shape == [2, 2] and old.shape == [2, 3]
    close(val(a), X @ Y.T)
    assert same_bits(val(old), X)


def test_at_with_a_number_is_refused():
    for f in (lambda: arr(X) @ 2.0, lambda: 2.0 @ arr(X)):
        with pytest.raises(TypeError):
            f()


# --- in-place forms

@pytest.mark.parametrize("op", ["+=", "-=", "/="])
@pytest.mark.parametrize("other", [Y, Y[:, :1], Y[:1, :], Y[:, 0], F32(3)],
                         ids=["same", "row", "column", "fewer axes", "number"])
def test_in_place_rebinds(op, other):
    """The name is bound to the new value; other names keep the old one."""
    f = IN_PLACE[op]
    x = holder = arr(X)
    view = x[:, 1:]
    x = f(x, arr(other) if np.ndim(other) else float(other))
    plain = {"+=": operator.add, "-=": operator.sub, "/=": operator.truediv}[op]
    close(val(x), plain(*line_up(X, other)))
    assert same_bits(val(holder), X) and same_bits(val(view), X[:, 1:])


def test_in_place_by_a_number():
    x = holder = arr(X)
    x *= 3
    assert same_bits(val(x), X * F32(3)) and same_bits(val(holder), X)
    x **= 2
    close(val(x), (X * F32(3)) ** 2)


@pytest.mark.parametrize("op", ["+=", "-=", "/="])
@pytest.mark.parametrize("shapes", [((1,), (2,)), ((2, 1), (2, 3)), ((2,), (2, 3)), ((2, 3), (2, 3, 4)),
                                    ((1, 3), (2, 1))], ids=str)
def test_in_place_never_enlarges(op, shapes):
    x, b = (owl.ones(list(s)) for s in shapes)
    with pytest.raises(owl.ShapeError) as e:
        IN_PLACE[op](x, b)
    assert str(list(shapes[0])) in str(e.value) and str(list(shapes[1])) in str(e.value)
    assert (val(x) == 1).all() and x.shape == list(shapes[0])


def test_in_place_on_itself():
    x = arr(X)
    x += x
    x -= x / 2
    assert same_bits(val(x), X)


def test_in_place_after_a_view_of_itself():
    """y reads x's old value, however x's memory is reused."""
    x = arr(X) + 0.0
    y = x[:, ::2] + 1
    t = x.trans()
    x += 100
    x *= 2
    assert same_bits(val(x), (X + F32(100)) * F32(2))
    assert same_bits(val(y), X[:, ::2] + F32(1)) and same_bits(val(t), X.T)


# --- comparisons

def test_comparisons_give_bool():
    for op in (">", ">=", "<", "<=", "==", "!="):
        got = BINARY[op](arr(X), arr(Y))
        assert dtype_of(got) == "bool"
        assert same_bits(val(got), BINARY[op](X, Y))


def test_comparison_with_nan():
    x = np.array([np.nan, 1.0], F32)
    for op in (">", ">=", "<", "<=", "==", "!="):
        assert same_bits(val(BINARY[op](arr(x), arr(x))), BINARY[op](x, x))


def test_equality_with_something_else_is_refused_or_false_but_never_an_array():
    for other in (None, "text", object()):
        try:
            assert (arr(X) == other) is False and (arr(X) != other) is True
        except TypeError:
            pass


def test_arrays_hash_by_identity():
    x, y = arr(X), arr(X)
    assert len({x, y, x}) == 2


def test_a_mask_counts():
    mask = arr(X) > 0
    assert int(mask.sum()) == int((X > 0).sum())
    assert dtype_of(mask.sum()) == "int32"
    assert (arr(X) - arr(X)).count_zero() == 6


# --- operands that are refused

REFUSED = {"array": np.ones((2, 3), F32), "array0": np.ones(1, F32), "list": [1.0, 2.0, 3.0],
           "nested": [[1.0] * 3] * 2, "tuple": (1.0,)}


@pytest.mark.parametrize("op", ["+", "-", "/", "**", ">", "<=", "==", "!=", "*", "@"])
@pytest.mark.parametrize("name", REFUSED)
def test_numpy_arrays_and_lists_are_refused_on_either_side(op, name):
    f = {"*": operator.mul, "@": operator.matmul, **BINARY}[op]
    other = REFUSED[name]
    for operands in ((arr(X), other), (other, arr(X))):
        with pytest.raises(TypeError, match="from_numpy"):
            f(*operands)


@pytest.mark.parametrize("op", IN_PLACE)
@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_place(op, name):
    x = arr(X)
    with pytest.raises(TypeError, match="from_numpy"):
        IN_PLACE[op](x, REFUSED[name])
    assert same_bits(val(x), X)


@pytest.mark.parametrize("name", ["array", "list"])
def test_refused_by_functions(name):
    for f in (owl.elewise.mult, owl.elewise.maximum, owl.elewise.relu_back):
        with pytest.raises(TypeError, match="from_numpy"):
            f(arr(X), REFUSED[name])


@pytest.mark.parametrize("other", [None, "1", object(), {}, 1j], ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("op", ["+", "-", "/", "*", "@", ">"])
def test_other_operands_are_refused(op, other):
    f = {"*": operator.mul, "@": operator.matmul, **BINARY}[op]
    for operands in ((arr(X), other), (other, arr(X))):
        with pytest.raises(TypeError):
            f(*operands)


def test_a_list_in_place_of_the_left_operand_stays_a_list():
    items = [1.0]
    with pytest.raises(TypeError, match="from_numpy"):
        items += arr(X)
    assert items == [1.0]


def test_no_truth_value_for_several_elements():
    with pytest.raises((ValueError, TypeError)):
        if arr(X) > 0:
            pass


@pytest.mark.parametrize("dtype", ["int32", "float64"])
@pytest.mark.parametrize("op", [*BINARY, "*"])
def test_a_number_beside_other_types(op, dtype):
    f, x = operator.mul if op == "*" else BINARY[op], np.array([[1, 2, 3], [4, 5, 6]], dtype)
    for number in (2, 0.5, True):
        for got, want in ((f(arr(x), number), f(x, float(number))), (f(number, arr(x)), f(float(number), x))):
            np.testing.assert_allclose(val(got), want, rtol=1e-6 if dtype == "int32" else 1e-15)


@pytest.mark.parametrize("dtype", ["int32", "float64"])
@pytest.mark.parametrize("op", ["+=", "-=", "/="])
def test_in_place_of_other_types(op, dtype):
    x, y = np.array([[1, 2, 3], [4, 5, 6]], dtype), np.array([[2], [4]], dtype)
    a = holder = arr(x)
    a = IN_PLACE[op](a, arr(y))
    np.testing.assert_allclose(val(a), {"+=": np.add, "-=": np.subtract, "/=": np.divide}[op](x, y), rtol=1e-6)
    assert same_bits(val(holder), x)


def test_refused_by_every_function():
    image, kernel, one = owl.ones([4, 4, 1, 1]), owl.ones([1, 1, 1, 1]), owl.ones([1])
    e, c = owl.elewise, owl.conv
    conv, pool, lrn = c.Convolver(), c.Pooler(2, 2, 2, 2), c.Lrner(1, 0.1, 0.75)
    for call in (lambda a: e.where(a, one, 0), lambda a: e.where(one, 0, a), lambda a: e.clip(one, a, 1), lambda a: e.exp(a),
                 lambda a: e.sigm_back(a), lambda a: e.sigm_back(one, a), lambda a: owl.concat([one, a], 0),
                 lambda a: owl.slice(a, 0, 0, 1), lambda a: c.softmax(a), lambda a: c.log_softmax(a),
                 lambda a: c.softmax_back(one, a), lambda a: conv.ff(a, kernel, one), lambda a: conv.ff(image, a, one),
                 lambda a: conv.ff(image, kernel, a), lambda a: conv.bp(a, image, kernel),
                 lambda a: conv.weight_grad(image, a, kernel), lambda a: conv.bias_grad(a), lambda a: pool.ff(a),
                 lambda a: pool.bp(image, a, image), lambda a: lrn.ff(a, image), lambda a: lrn.ff(image, a)):
        for other in (X, [1.0, 2.0]):
            with pytest.raises(TypeError, match="from_numpy"):
                call(other)
