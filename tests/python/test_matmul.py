"""The matrix product: every type, transposed and strided operands, empty sizes, many sizes, and errors."""
import operator

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import owl
from conftest import SOAK, Counted, same_bits, unflushed
from reference import DTYPES, HALVES, arr, dtype_of, eps, promoted, val

SIZES = [(1, 1, 1), (2, 3, 4), (1, 7, 1), (7, 1, 5), (1, 64, 33), (33, 1, 64), (16, 16, 16), (17, 31, 13),
         (64, 4096, 3), (64, 4096, 64), (50, 1061, 190), (100, 784, 10), (256, 784, 256), (10, 256, 1), (129, 257, 65), (1, 301, 607), (607, 301, 1)]


def data(shape, dtype="float32", seed=0):
    rng = np.random.default_rng([seed, *shape])
    return (rng.normal(size=shape) if np.dtype(dtype).kind == "f" else rng.integers(-9, 10, shape)).astype(dtype)


def within(got, a, b):
    """Every element within k + 2 roundings of the exact product's magnitude; the types may differ."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    exact, magnitude = a @ b, np.abs(a) @ np.abs(b)
    assert got.shape == exact.shape
    bound = (min(a.shape[1], 200) + 2) * np.finfo(got.dtype).eps * magnitude
    assert (np.abs(got - exact) <= bound).all()


@pytest.mark.parametrize("m,k,n", SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", ["nn", "tn", "nt", "tt"])
def test_values(m, k, n, dtype, form):
    a, b = data((m, k), dtype), data((k, n), dtype)
    x = arr(a.T.copy()).trans() if form[0] == "t" else arr(a)
    y = arr(b.T.copy()).trans() if form[1] == "t" else arr(b)
    got = val(x * y)
    assert got.dtype == dtype
    within(got, a, b)


@pytest.mark.parametrize("m,k,n", [(1, 1, 1), (3, 5, 2), (40, 70, 30), (2, 1000, 2)])
@pytest.mark.parametrize("form", ["nn", "tn", "nt", "tt"])
def test_int32_is_exact_and_wraps(m, k, n, form):
    a, b = data((m, k), "int32") * 2**20, data((k, n), "int32") * 2**9
    x = arr(a.T.copy()).T if form[0] == "t" else arr(a)
    y = arr(b.T.copy()).T if form[1] == "t" else arr(b)
    assert same_bits(val(x * y), a @ b)


@pytest.mark.parametrize("a", DTYPES)
@pytest.mark.parametrize("b", DTYPES)
def test_types(a, b):
    x, y = data((3, 4)).astype(a), data((4, 2)).astype(b)
    got = val(arr(x) * arr(y))
    wide = promoted(a, b)
    if wide in ("bool", "uint8"):  # products are counted, as sums are
        assert got.dtype == (np.int32 if wide == "bool" else np.int64)
        np.testing.assert_array_equal(got, x.astype(int) @ y.astype(int))
    else:
        assert got.dtype == wide
        numbers = np.float32 if wide in HALVES else wide  # in which halves are multiplied
        want = (x.astype(numbers) @ y.astype(numbers)).astype(wide)
        rounding = eps(wide) if wide in HALVES else 1e-5
        np.testing.assert_allclose(got.astype(numbers), want.astype(numbers), rtol=rounding, atol=1e-6)


@pytest.mark.parametrize("m,k,n", [(0, 3, 2), (2, 3, 0), (2, 0, 3), (0, 0, 0), (0, 0, 4)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_empty_sizes(m, k, n, dtype):
    got = owl.ones([m, k], dtype=dtype) * owl.ones([k, n], dtype=dtype)
    assert got.shape == [m, n] and dtype_of(got) == dtype
    assert val(got).shape == (m, n) and (val(got) == 0).all()


@given(st.data())
@settings(max_examples=80 * SOAK)
def test_views_as_operands(d):
    """Operands sliced, strided, reversed and transposed; alone and inside an expression."""
    m, k, n = (d.draw(st.integers(1, 40)) for _ in range(3))

    def operand(rows, columns):
        a = data((2 * rows + 1, 2 * columns + 1), seed=d.draw(st.integers(0, 9)))
        index = tuple(d.draw(st.sampled_from([slice(0, k), slice(1, k + 1), slice(0, 2 * k, 2), slice(k, 0, -1)]))
                      for k in (rows, columns))
        if d.draw(st.booleans()):
            return a[index], arr(a.T.copy()).trans()[index]
        return a[index], arr(a)[index]
    (a, x), (b, y) = operand(m, k), operand(k, n)
    within(val(x * y), a, b)
    np.testing.assert_allclose(val(owl.elewise.relu(x * y + 1) * 2), np.maximum(a @ b + 1, 0) * 2, atol=1e-4)


@pytest.mark.parametrize("apart", [256, 257, 512, 1024, 1536])
@pytest.mark.parametrize("m, k, n", [(40, 50, 60), (31, 256, 256), (240, 33, 32)])
@pytest.mark.parametrize("form", ["nn", "tn", "nt", "tt"])
def test_columns_that_share_sets_of_the_cache(m, k, n, form, apart):
    """They are copied before the product: the values are those of dense operands."""
    def padded(x):
        return arr(np.concatenate([x, np.full((apart - x.shape[0], x.shape[1]), np.nan, x.dtype)]))[: x.shape[0]]

    a, b = data((m, k)), data((k, n))
    x = padded(np.ascontiguousarray(a.T)).trans() if form[0] == "t" else padded(a)
    y = padded(np.ascontiguousarray(b.T)).trans() if form[1] == "t" else padded(b)
    within(val(x * y), a, b)


@pytest.mark.parametrize("length", [1, 3, 4, 31, 64, 1100])
def test_a_vector_with_steps(length):
    """float64 products of one row or column, over operands with every kind of step."""
    a, x = data((length, 37), "float64"), data((37, 1), "float64")
    matrices = [arr(a), arr(a.T.copy()).trans(), arr(np.repeat(a, 2, axis=0))[::2]]
    vectors = [arr(x), arr(np.repeat(x, 3, axis=0))[::3], arr(np.repeat(x, 2, axis=1))[:, :1]]
    for matrix in matrices:
        for vector in vectors:
            within(val(matrix * vector), a, x)
            within(val(vector.trans() * matrix.trans()), x.T, a.T)


@pytest.mark.parametrize("m, n", [(1, 1), (1, 4), (4, 4), (1, 64), (16, 16)])
def test_long_products(m, n):
    """Equal terms: their roundings accumulate, in a single float32 sum to a third of a percent."""
    k, v = 2_000_000, np.float64(np.float32(0.1))
    np.testing.assert_allclose(val(owl.full([m, k], 0.1) * owl.full([k, n], 0.1)), k * v * v, rtol=3e-5)


def test_an_operand_with_itself():
    a = data((30, 50))
    x = arr(a)
    within(val(x.trans() * x), a.T, a)
    within(val(x * x.trans()), a, a.T)


def test_a_chain_keeps_its_order():
    mats = [data((20, 20), seed=i) / 4 for i in range(6)]
    got, want = arr(mats[0]), mats[0].astype(np.float64)
    for m in mats[1:]:
        got, want = got * arr(m), want @ m
    np.testing.assert_allclose(val(got), want, atol=1e-3)


def test_special_values():
    a, b = np.array([[np.inf, 1.0], [np.nan, 0]], np.float32), np.array([[1.0, 0], [2, 3]], np.float32)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(val(arr(a) * arr(b)), a @ b)


def test_a_columns_bits_do_not_depend_on_its_neighbours_epilogue():
    """A bias and an activation after a product give the same bits as separately."""
    a, b, bias = data((64, 100)), data((100, 33)), data((64, 1))
    with unflushed():
        fused = val(owl.elewise.relu(arr(a) * arr(b) + arr(bias)))
    product = arr(a) * arr(b)
    product.wait_for_eval()
    assert same_bits(fused, val(owl.elewise.relu(product + arr(bias))))


@pytest.mark.parametrize("m, k", [(4, 2048), (10, 512), (16, 77), (33, 16), (512, 10), (1000, 1)])
@pytest.mark.parametrize("form", ["nn", "tn", "nt", "tt"])
def test_a_small_left_operand(m, k, form):
    """Many columns, each of which has the bits that it has in any other product of many columns."""
    a, b = data((m, k)), data((k, 300))
    x = arr(a.T.copy()).trans() if form[0] == "t" else arr(a)
    y = arr(b.T.copy()).trans() if form[1] == "t" else arr(b)
    whole = x * y
    within(val(whole), a, b)
    for begin, end in ((0, 64), (100, 177), (171, 300)):
        assert same_bits(val(x * y[:, begin:end]), val(whole[:, begin:end])), (begin, end)


def test_a_transposed_operand_costs_no_copy():
    x, y = arr(data((64, 80))), arr(data((64, 70)))
    with Counted() as c:
        product = x.trans() * y
        product.wait_for_eval()
    assert c.copies == 0 and c.kernels == 1 and c.buffers_written == 1


BAD = [((256, 784), (256, 10), "matrix product of [256, 784] and [256, 10]: inner sizes 784 and 256 differ"),
       ((2, 3), (2, 3), "inner sizes 3 and 2 differ"), ((3,), (3, 2), "[3]"), ((2, 3), (3,), "[3]"),
       ((2, 3, 1), (3, 2), "[2, 3, 1]"), ((1, 1), (1,), "[1]")]


@pytest.mark.parametrize("a,b,text", BAD, ids=lambda v: str(v)[:20])
def test_errors(a, b, text):
    x, y = owl.ones(list(a)), owl.ones(list(b))
    for f in (lambda: x * y, lambda: x @ y, lambda: operator.imul(x, y)):
        with pytest.raises(owl.ShapeError) as e:
            f()
        assert text in str(e.value)


# ---- products of the leading two axes


def products(a, b):
    """The products of the leading two axes, in float64."""
    ndim = max(a.ndim, b.ndim)
    a, b = (np.moveaxis(x.reshape(x.shape + (1,) * (ndim - x.ndim)).astype(np.float64), [0, 1], [-2, -1]) for x in (a, b))
    return np.moveaxis(a @ b, [-2, -1], [0, 1])


MANY = [((3, 4), (4, 5, 6)), ((3, 4, 6), (4, 5)), ((3, 4, 6), (4, 5, 6)), ((3, 4, 1, 2), (4, 5, 6, 2)),
        ((3, 4, 6, 1), (4, 5, 1, 2)), ((3, 4), (4, 5, 6, 2)), ((3, 4), (4, 1, 6, 2)), ((3, 1), (1, 1, 6, 2)),
        ((130, 70, 3), (70, 90, 3)), ((200, 300, 13), (300, 200, 13)), ((3, 4, 0), (4, 5, 0)), ((3, 0, 2), (0, 5, 2)),
        ((1, 4, 3), (4, 1, 3)), ((2, 3, 1, 2, 1, 2, 1, 2), (3, 2, 2, 1, 2, 1, 2, 1))]  # fmt: skip


def laid_out(x, order):
    """x as a view of an array with its axes in this order."""
    order = [axis for axis in order if axis < x.ndim] + list(range(len(order), x.ndim))
    return arr(x.transpose(order)).transpose(np.argsort(order).tolist())


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("a, b", MANY)
def test_products_of_many_matrices(a, b, dtype):
    a, b = data(a, dtype), data(b, dtype, seed=1)
    for order in ([0, 1, 2, 3], [1, 0, 2, 3], [0, 3, 2, 1], [1, 0, 3, 2], [0, 2, 1, 3], [2, 0, 1, 3]):
        got = owl.matmul(laid_out(a, order), laid_out(b, order))
        assert dtype_of(got) == dtype
        np.testing.assert_allclose(val(got), products(a, b), rtol=1e-4, atol=1e-3 if dtype == "float32" else 1e-10)


def test_matmul_of_two_axes_is_the_product():
    a, b = arr(data((30, 40))), arr(data((40, 50)))
    assert same_bits(val(owl.matmul(a, b)), val(a * b))


@pytest.mark.parametrize("a, b", [((3,), (3, 2)), ((2, 3), (3,)), ((3,), (3,))])
def test_matmul_of_one_axis_says_what_to_write(a, b):
    with pytest.raises(owl.ShapeError, match=r"at least 2 axes; reshape\(\[-1, 1\]\) makes a column"):
        owl.matmul(owl.ones(list(a)), owl.ones(list(b)))


def test_shapes_that_do_not_fit_many_products():
    with pytest.raises(owl.ShapeError, match="lengths 5 and 6 of axis 2 differ"):
        owl.matmul(owl.ones([3, 4, 5]), owl.ones([4, 3, 6]))
    with pytest.raises(owl.ShapeError, match="inner sizes 4 and 3 differ"):
        owl.matmul(owl.ones([3, 4, 5]), owl.ones([3, 3, 5]))
    with pytest.raises(owl.ShapeError, match="both must have 2 axes .*matmul takes more axes"):
        owl.ones([3, 4, 5]) * owl.ones([4, 3, 5])
    with pytest.raises(TypeError, match="matmul: b must be an owl.NArray"):
        owl.matmul(owl.ones([3, 4]), 2)


def test_attention_copies_no_transpose():
    d, heads, t, n = 8, 4, 16, 3
    x, w = owl.randn([d * heads, t, n]), [owl.randn([d * heads, d * heads]) for _ in range(3)]

    def attend():
        q, k, v = (owl.matmul(p, x).reshape([d, heads, t, n]).transpose([0, 2, 1, 3]) for p in w)
        scores = owl.matmul(k.transpose([1, 0, 2, 3]), q) * d**-0.5
        return owl.matmul(v, owl.conv.softmax(scores.reshape([t, t * heads * n])).reshape([t, t, heads, n]))

    owl.wait_for_all()
    assert [task.operations[0] for task in owl.explain(attend).tasks] == ["matmul"] * 4 + ["softmax", "matmul"]


def test_the_gradient_of_weights_for_many_columns_is_one_product():
    w, x = owl.randn([5, 4]), owl.randn([4, 6, 7])
    owl.wait_for_all()
    plan = owl.explain(lambda: owl.grad(lambda w: owl.elewise.square(owl.matmul(w, x)).sum())(w))
    assert [task.operations[0] for task in plan.tasks] == ["matmul", "matmul"]
    assert plan.tasks[-1].shape == [5, 4]
