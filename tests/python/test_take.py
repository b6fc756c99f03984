"""take, put_add, one_hot, sort, argsort and topk: against NumPy, gradients, plans, errors."""
import inspect

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import owl
from conftest import SOAK, same_bits
from reference import DTYPES, HALVES, arr, dtype_of, val


def data(shape, dtype="float32", seed=0):
    rng = np.random.default_rng([seed, *shape])
    return (rng.standard_normal(shape) * 3).astype(dtype)


def indices(shape, length, seed=0):
    return np.random.default_rng(seed).integers(-length, length, shape).astype(np.int32)


def added(x, i, values, axis):
    """x with the values added one by one, in owl's order of the indices' axes."""
    axis %= x.ndim
    result = np.moveaxis(x.copy(), axis, 0)
    flat = values.reshape([*x.shape[:axis], i.size, *x.shape[axis + 1:]], order="F")
    np.add.at(result, i.ravel(order="F"), np.moveaxis(flat, axis, 0))
    return np.moveaxis(result, 0, axis)


CASES = [((7,), 0, (5,)), ((5, 4, 3), 0, (2, 3)), ((5, 4, 3), 1, (6,)), ((5, 4, 3), -1, (2, 1, 3)), ((1, 9), 1, (40,)),
         ((300, 3), 0, (70_000,)), ((3, 70_000), 1, (70_000,)), ((70_000, 2), 0, (9, 5)), ((3, 0, 2), 0, (4,)),
         ((3, 2), 1, (0,)), ((40_000, 3), 1, (4,))]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape, axis, of_indices", CASES)
def test_take(shape, axis, of_indices, dtype):
    x, i = data(shape, dtype), indices(of_indices, shape[axis])
    got = owl.take(arr(x), arr(i), axis)
    assert dtype_of(got) == dtype
    np.testing.assert_array_equal(val(got), np.take(x, i, axis))


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("shape, axis, of_indices", CASES)
def test_put_add(shape, axis, of_indices, dtype):
    x, i = data(shape, dtype), indices(of_indices, shape[axis])
    values = data(np.take(x, i, axis).shape, dtype, seed=1)
    got = owl.put_add(arr(x), arr(i), arr(values), axis)
    assert dtype_of(got) == dtype
    wide = np.float32 if dtype in HALVES else dtype  # halves are added in float32, and rounded once
    assert same_bits(val(got), added(x.astype(wide), i, values.astype(wide), axis).astype(x.dtype))  # NumPy adds one by one, too
    np.testing.assert_array_equal(val(arr(x)), x)


@given(st.data())
@settings(max_examples=60 * SOAK)
def test_any_shape_and_view(d):
    shape = d.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    axis = d.draw(st.integers(-len(shape), len(shape) - 1))
    of_indices = d.draw(st.lists(st.integers(0, 5), min_size=1, max_size=3))
    x, i = data([2 * n for n in shape]), indices([2 * n for n in of_indices], shape[axis])
    cut_x, cut_i = tuple(np.s_[::-2] for _ in shape), tuple(np.s_[1::2] for _ in of_indices)
    got = owl.take(arr(x)[cut_x], arr(i)[cut_i], axis)
    want = np.take(x[cut_x], i[cut_i], axis)
    np.testing.assert_array_equal(val(got), want)
    values = data(want.shape, seed=2)
    got = owl.put_add(arr(x)[cut_x], arr(i)[cut_i], arr(values), axis)
    assert same_bits(val(got), added(x[cut_x], i[cut_i], values, axis))


def test_lists_numbers_and_values_that_broadcast():
    x = owl.zeros([2, 3])
    assert owl.take(owl.arange(4), [3, -4], 0).tolist() == [3, 0]
    assert owl.take(owl.arange(4), (1,), 0).tolist() == [1] and owl.take(x, [], 1).shape == [2, 0]
    assert owl.put_add(x, [2, 2, 0], 1, 1).tolist() == [[1, 0, 2], [1, 0, 2]]
    assert owl.put_add(x, [2, 2, 0], owl.arange(2).reshape([2, 1]), 1).tolist() == [[0, 0, 0], [1, 0, 2]]
    assert owl.put_add(x, [2, 2], 0.5, 1).dtype == np.float32
    big = owl.full([1], 2**24 + 1, "int32")
    assert owl.put_add(owl.zeros([2], "int32"), [1, 1], big, 0).tolist() == [0, 2**25 + 2]
    assert owl.put_add(x, [0], owl.ones([2, 1], "float64"), 1).dtype == np.float64
    assert owl.put_add(owl.ones([2], "int32"), [0], 0.5, 0).tolist() == [1.5, 1]


def test_additions_are_in_the_order_of_the_indices():
    """Of numbers whose sum depends on the order: the same bits as one after another, wherever chunks are cut."""
    x, i = data((65, 3)), indices((150_000,), 3)
    values = data((65, 150_000), seed=1) * 10.0 ** np.random.default_rng(0).integers(-3, 4, 150_000)
    values = values.astype(np.float32)
    assert same_bits(val(owl.put_add(arr(x), arr(i), arr(values), 1)), added(x, i, values, 1))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
@pytest.mark.parametrize("labels", [[2, 0, 1], [[2, 0, 1]]])
def test_one_hot(labels, dtype):
    got = owl.one_hot(arr(np.int32(labels)), 4, dtype)
    assert dtype_of(got) == dtype
    np.testing.assert_array_equal(val(got), np.eye(4)[:, [2, 0, 1]].astype(dtype))
    assert owl.one_hot([1], 2).dtype == np.float32


# ---- sorting

LINES = [((9,), 0), ((5, 4, 3), 0), ((5, 4, 3), 1), ((5, 4, 3), -1), ((100_000,), 0), ((2, 70_001), 1), ((70_001, 2), 0),
         ((40, 3000), 0), ((3, 1), 1), ((0, 3), 0), ((0, 3), 1)]  # fmt: skip


def to_sort(shape, dtype):
    x = data(shape, dtype)
    if dtype.startswith("float"):
        x = np.round(x)  # equals
        x.reshape(-1)[::7], x.reshape(-1)[1::9], x.reshape(-1)[2::50] = np.nan, -0.0, np.inf
        x.reshape(-1)[3::50], x.reshape(-1)[4::60] = -np.inf, np.copysign(np.nan, -1)
    return x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape, axis", LINES)
def test_sort_and_argsort_are_stable_with_nan_last(shape, axis, dtype):
    x = to_sort(shape, dtype)
    order = np.argsort(x, axis, kind="stable")
    places = owl.argsort(arr(x), axis)
    assert places.dtype == np.int32
    np.testing.assert_array_equal(val(places), order)
    assert same_bits(val(owl.sort(arr(x), axis)), np.take_along_axis(x, order, axis))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape, axis", LINES[:-1])
def test_topk_has_nan_first_and_of_equals_the_first(shape, axis, dtype):
    x = to_sort(shape, dtype)
    for k in {0, *(min(k, shape[axis]) for k in (1, 5, 10**6))}:
        down = np.argsort(-x.astype(np.float64), axis, kind="stable")
        is_nan = np.take_along_axis(np.isnan(x), down, axis)
        down = np.take_along_axis(down, np.argsort(~is_nan, axis, kind="stable"), axis)
        want = np.take(down, np.arange(k), axis)
        values, places = owl.topk(arr(x), k, axis)
        assert places.dtype == np.int32 and dtype_of(values) == dtype
        np.testing.assert_array_equal(val(places), want)
        assert same_bits(val(values), np.take_along_axis(x, want, axis))


def test_axis_0_is_the_default():
    x = owl.from_numpy(np.float32([[3, 1, 2], [9, 8, 7]]))
    assert owl.sort(x).tolist() == [[1, 7], [2, 8], [3, 9]] and owl.argsort(x).tolist() == [[1, 2], [2, 1], [0, 0]]
    assert [y.tolist() for y in owl.topk(x, 1)] == [[[3, 9]], [[0, 0]]]


def test_a_result_that_nobody_wants_is_not_written():
    plan = owl.explain(lambda: owl.sort(owl.ones([1000])))
    assert [task.bytes_written for task in plan.tasks if "sort" in task.operations] == [4000]


# ---- gradients, fusion, laws


def test_repeated_rows_collect_their_errors():
    x = owl.arange(6).reshape([2, 3])
    g = owl.grad(lambda x: owl.elewise.square(owl.take(x, [0, 2, 2], 1)).sum())(x)
    assert g.tolist() == [[0, 0, 16], [2, 0, 20]]
    i, values = [2, 2, 0], owl.ones([2, 3])
    gx, gv = owl.grad(lambda x, v: owl.elewise.square(owl.put_add(x, i, v, 1)).sum(), (0, 1))(x, values)
    assert gx.tolist() == [[2, 4, 12], [4, 6, 14]] and gv.tolist() == [[12, 12, 2], [14, 14, 4]]


def test_gradients_of_topk_go_to_the_elements_chosen():
    x = owl.from_numpy(np.float32([3, 9, 1, 9]))
    weights = owl.from_numpy(np.float32([1, 2, 3]))
    g = owl.grad(lambda x: owl.multiply(owl.topk(x, 3)[0], weights).sum())(x)
    assert g.tolist() == [3, 1, 0, 2]
    with pytest.raises(owl.Error, match="does not depend"):
        owl.grad(lambda x: (owl.topk(x, 3)[1] * 1.0).sum())(x)


def test_elementwise_operations_join_the_task_of_a_take():
    x, i, b = owl.ones([64, 1000]), owl.from_numpy(indices((500,), 1000)), owl.ones([64])
    owl.wait_for_all()
    plan = owl.explain(lambda: owl.relu(owl.take(x, i, 1) + b))
    assert [task.operations for task in plan.tasks] == [["check_indices"], ["take", "add", "relu"]]
    np.testing.assert_array_equal(val(owl.relu(owl.take(x, i, 1) + b)), np.full((64, 500), 2))


def test_put_add_takes_over_the_memory_of_a_value_that_dies():
    def step():
        x = owl.zeros([64, 1000])
        return owl.put_add(x, [3, 5], owl.ones([64, 2]), 1)

    plan = owl.explain(step)
    assert plan.tasks[-1].reuses is not None
    assert step().sum().item() == 128


def test_a_cross_entropy_never_writes_the_one_hot_matrix():
    logits, labels = owl.randn([1000, 64]), owl.zeros([64], "int32")
    logits.wait_for_eval()

    def loss():
        return owl.multiply(owl.conv.log_softmax(logits), owl.one_hot(labels, 1000)).sum()

    largest = [task.operations for task in owl.explain(loss).tasks if task.shape == [1000, 64]]
    assert largest == [["log_softmax"]]


def test_lazy_and_eager_have_the_same_bits():
    x, i = arr(data((40, 50))), arr(indices((300,), 50))

    def work():
        y = owl.put_add(owl.exp(x), i, owl.take(x, i, 1) * 0.3, 1)
        return [val(z) for z in (y * 2, owl.sort(y, 1), *owl.topk(y, 7))]

    lazy = work()
    with owl.eager():
        assert all(same_bits(a, b) for a, b in zip(lazy, work()))


# ---- errors


def line():
    return f"{__file__}:{inspect.currentframe().f_back.f_lineno}"


@pytest.mark.parametrize("bad, text", [(4, "index 4 is"), (-5, "index -5 is"), (2**31 - 1, "index 2147483647 is")])
def test_an_index_out_of_range_is_an_error_at_the_line_of_the_call(bad, text):
    x, i = owl.ones([3, 4]), arr(np.int32([0, bad, 9]))
    y, here = owl.take(x, i, 1), line()
    z = y + 1
    fine = x + 1
    for value in (y, z):
        with pytest.raises(owl.IndexError, match="take: " + text + " out of range for axis 1 with size 4") as e:
            value.to_numpy()
        assert here in str(e.value)
    with pytest.raises(IndexError, match="put_add: " + text):
        owl.put_add(x, i, owl.ones([3, 3]), 1).to_numpy()
    assert fine.sum().item() == 24
    assert owl.take(x, [3], 1).sum().item() == 3


def test_the_first_bad_index_is_named_wherever_chunks_are_cut():
    i = np.zeros(300_000, np.int32)
    i[[70_000, 140_000, 299_999]] = 5, 6, 7
    with pytest.raises(owl.IndexError, match="index 5 "):
        owl.take(owl.ones([3]), arr(i), 0).to_numpy()


def test_labels_out_of_range():
    for bad in (10, -1):
        y, here = owl.one_hot([0, bad], 10), line()
        with pytest.raises(owl.IndexError, match=f"one_hot: label {bad} is out of range for 10 classes, 0 to 9") as e:
            y.to_numpy()
        assert here in str(e.value)
    with pytest.raises(owl.IndexError, match="0 classes"):
        owl.one_hot([0], 0)
    assert owl.one_hot([], 0).shape == [0, 0]


def test_indices_of_other_types():
    x = owl.ones([3, 4])
    for bad, text in ((owl.ones([2]), "float32"), (owl.ones([2], "bool"), "bool.*owl.where"), ([0, 1.5], "1.5")):
        for call in (lambda: owl.take(x, bad, 1), lambda: owl.put_add(x, bad, 1, 1), lambda: owl.one_hot(bad, 3)):
            with pytest.raises(owl.DTypeError, match=text):
                call()
    for bad, text in ((np.array([1]), "from_numpy"), (2, "not one integer"), ("0", "NArray"), (None, "NArray")):
        with pytest.raises(TypeError, match=text):
            owl.take(x, bad, 1)
    with pytest.raises(TypeError):
        owl.take(x, [[0, 1]], 1)
    with pytest.raises(owl.IndexError, match="out of range for every axis"):
        owl.take(x, [2**40], 1)


def test_other_mistakes():
    x = owl.ones([3, 4])
    with pytest.raises(owl.ShapeError, match="axis 2 is out of range"):
        owl.take(x, [0], 2)
    with pytest.raises(TypeError, match="axis"):
        owl.take(x, [0])
    with pytest.raises(owl.IndexError, match="axis 0, which has size 0"):
        owl.take(owl.ones([0, 2]), [0], 0)
    with pytest.raises(owl.ShapeError, match="9 axes"):
        owl.take(owl.ones([1] * 8), owl.zeros([1, 1], "int32"), 0)
    with pytest.raises(owl.ShapeError, match=r"values of shape \[3, 3\] do not fit \[3, 2\]"):
        owl.put_add(x, [0, 1], owl.ones([3, 3]), 1)
    with pytest.raises(owl.DTypeError, match="bool"):
        owl.put_add(x > 0, [0], x[:, :1] > 0, 1)
    with pytest.raises(owl.ShapeError, match=r"\[2, 3\].*reshape"):
        owl.one_hot(owl.zeros([2, 3], "int32"), 3)
    with pytest.raises(owl.ShapeError, match="negative"):
        owl.one_hot([0], -1)
    for k in (-1, 4):
        with pytest.raises(owl.ShapeError, match=f"k is {k}, but axis 0"):
            owl.topk(x, k)
    with pytest.raises(owl.ShapeError, match="sort: axis 2"):
        owl.sort(x, 2)
