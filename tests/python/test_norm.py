"""Normalisation of layers and batches compared with NumPy in float64, and gradients with PyTorch's where it is installed."""
import numpy as np
import pytest

import owl
from conftest import same_bits, unflushed
from reference import arr, dtype_of, val

ele = owl.elewise
TOLERANCE = {"float32": 2e-6, "float64": 1e-14}
SHAPES = [(1,), (3,), (5, 4), (17, 3), (64, 300), (1024, 70), (1000, 3, 5), (40_000, 3), (2, 3000), (7, 1)]


def drawn(shape, dtype="float32", seed=0):
    rng = np.random.default_rng([seed, *shape])
    n = shape[0]
    return rng.normal(size=shape).astype(dtype), rng.uniform(0.5, 2, n).astype(dtype), rng.normal(size=n).astype(dtype)


def tall(a, x):
    """a, a number for each index of x's first axis, as an array that broadcasts to x."""
    return a.reshape([-1] + [1] * (x.ndim - 1))


def layer_norm(x, w, b, eps=1e-5):
    x, w, b = (a.astype(np.float64) for a in (x, w, b))
    return (x - x.mean(0)) / np.sqrt(x.var(0) + eps) * tall(w, x) + tall(b, x)


def layer_norm_back(e, x, w, eps=1e-5):
    e, x, w = (a.astype(np.float64) for a in (e, x, w))
    root = 1 / np.sqrt(x.var(0) + eps)
    normed, g, rest = (x - x.mean(0)) * root, e * tall(w, x), tuple(range(1, x.ndim))
    return root * (g - g.mean(0) - normed * (g * normed).mean(0)), (e * normed).sum(rest), e.sum(rest)


def gradients(x, w, b, e, of=(0, 1, 2), **more):
    operands = [arr(a) for a in (x, w, b)]
    with owl.Tape() as tape:
        y = owl.layer_norm(*operands, **more)
    return [val(g) for g in tape.gradient(y, [operands[i] for i in of], seed=arr(e))]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values(shape, dtype):
    x, w, b = drawn(shape, dtype)
    got = owl.layer_norm(arr(x), arr(w), arr(b))
    assert dtype_of(got) == dtype and got.shape == list(shape)
    np.testing.assert_allclose(val(got), layer_norm(x, w, b), rtol=TOLERANCE[dtype], atol=3 * TOLERANCE[dtype])
    wide = owl.layer_norm(arr(x), arr(w), arr(b), eps=0.5)
    np.testing.assert_allclose(val(wide), layer_norm(x, w, b, 0.5), rtol=TOLERANCE[dtype], atol=3 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients(shape, dtype):
    x, w, b = drawn(shape, dtype)
    e = np.random.default_rng(7).normal(size=shape).astype(dtype)
    want = layer_norm_back(e, x, w)
    rows = x.size / shape[0]
    for got, exact, terms in zip(gradients(x, w, b, e), want, (1, rows, rows)):
        tolerance = TOLERANCE[dtype] * max(4, terms**0.5)
        np.testing.assert_allclose(got, exact, rtol=tolerance, atol=4 * tolerance)
    for of in ([0], [1], [2], [0, 2], [1, 2]):  # alone they have the same bits, except that bias alone is a sum
        for i, got in zip(of, gradients(x, w, b, e, of)):
            np.testing.assert_allclose(got, want[i], rtol=TOLERANCE[dtype] * 200, atol=TOLERANCE[dtype] * 200)


@pytest.mark.parametrize("far", [1e3, 1e6])
@pytest.mark.parametrize("length", [5, 1024, 50_000])
def test_numbers_far_from_0_keep_the_digits_of_their_differences(length, far):
    x, w, b = drawn((length, 6))
    x = (x + far).astype(np.float32)
    np.testing.assert_allclose(val(owl.layer_norm(arr(x), arr(w), arr(b))), layer_norm(x, w, b), rtol=1e-5, atol=1e-5)
    e = np.random.default_rng(7).normal(size=x.shape).astype(np.float32)
    for got, want in zip(gradients(x, w, b, e), layer_norm_back(e, x, w)):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_operations_around_are_computed_row_by_row():
    x, w, b = drawn((256, 40))
    ox, ow, ob = arr(x), arr(w), arr(b)
    owl.wait_for_all()
    plan = owl.explain(lambda: ele.relu(owl.layer_norm(ox * 2 + 1, ow, ob)))
    assert [task.operations for task in plan.tasks] == [["mult", "add", "layer_norm", "relu"]]
    with unflushed():
        got = ele.relu(owl.layer_norm(ox * 2 + 1, ow, ob))
    assert same_bits(val(got), np.maximum(val(owl.layer_norm(arr(val(ox * 2 + 1)), ow, ob)), 0))

    def backward(e):
        with owl.Tape() as tape:
            y = owl.layer_norm(ox, ow, ob)
        return tape.gradient(y, [ox, ow, ob], seed=e)

    e = arr(np.random.default_rng(7).normal(size=x.shape).astype(np.float32))
    owl.wait_for_all()
    plan = owl.explain(lambda: backward(e * 2))
    assert [task.operations for task in plan.tasks] == [["mult", "layer_norm_back"]]
    with unflushed():
        together = backward(e * 2)
    assert all(same_bits(val(a), val(c)) for a, c in zip(together, backward(arr(val(e * 2)))))


def test_layers_without_elements():
    w = owl.ones([4])
    assert owl.layer_norm(owl.zeros([4, 0]), w, w).shape == [4, 0]
    with owl.Tape() as tape:
        y = owl.layer_norm(owl.zeros([4, 0]), w, w * 2)
    assert [g.tolist() for g in tape.gradient(y, [w], seed=owl.zeros([4, 0]))] == [[0] * 4]
    none = owl.zeros([0])
    assert owl.layer_norm(owl.zeros([0, 3]), none, none).to_numpy().shape == (3, 0)


def test_views_and_types():
    x, w, b = drawn((6, 8))
    want = layer_norm(x[::-1], w, b)
    np.testing.assert_allclose(val(owl.layer_norm(arr(x)[::-1], arr(w), arr(b))), want, rtol=1e-5, atol=1e-5)
    whole = np.arange(12, dtype=np.int32).reshape(4, 3) ** 2
    got = owl.layer_norm(arr(whole), owl.ones([4], "int32"), owl.zeros([4], "bool"))
    assert dtype_of(got) == "float32"
    np.testing.assert_allclose(val(got), layer_norm(whole, np.ones(4), np.zeros(4)), rtol=1e-5, atol=1e-6)
    assert dtype_of(owl.layer_norm(owl.ones([2, 2]), owl.ones([2], "float64"), owl.ones([2]))) == "float64"


def statistics(x):
    axes = tuple(i for i in range(x.ndim) if i != x.ndim - 2)
    return x.mean(axes), x.var(axes)


@pytest.mark.parametrize("shape", [(3, 5), (4, 3, 2), (6, 5, 3, 4)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batches(shape, dtype):
    x = np.random.default_rng(1).normal(size=shape).astype(dtype)
    n, axes = shape[-2], [i for i in range(len(shape)) if i != len(shape) - 2]
    rng = np.random.default_rng(2)
    w, b, m = (rng.normal(size=n).astype(dtype) for _ in range(3))
    v = rng.uniform(0.5, 2, n).astype(dtype)
    along = [n if i == len(shape) - 2 else 1 for i in range(len(shape))]

    def want(mean, var, eps=1e-5):
        return (x - mean.reshape(along)) / np.sqrt(var.reshape(along) + eps) * w.reshape(along) + b.reshape(along)

    got = owl.batch_norm(*(arr(a) for a in (x, w, b, m, v)))
    assert dtype_of(got) == dtype
    np.testing.assert_allclose(val(got), want(m, v), rtol=1e-5, atol=1e-5)
    own = owl.batch_norm(arr(x), arr(w), arr(b), arr(x).mean(axes), arr(x).var(axes), eps=0.1)
    np.testing.assert_allclose(val(own), want(*statistics(x), 0.1), rtol=1e-5, atol=1e-5)


def test_gradients_are_pytorchs():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, w, b = drawn((33, 20))
    e = np.random.default_rng(3).normal(size=x.shape).astype(np.float32)
    tx, tw, tb = (torch.tensor(np.ascontiguousarray(a), requires_grad=True) for a in (x.T, w, b))
    want = torch.autograd.grad(torch.nn.functional.layer_norm(tx, (33,), tw, tb), [tx, tw, tb], torch.tensor(np.ascontiguousarray(e.T)))
    for got, theirs in zip(gradients(x, w, b, e), want):
        np.testing.assert_allclose(got, theirs.numpy().T, rtol=1e-4, atol=1e-5)
    x = np.random.default_rng(1).normal(size=(5, 4, 3, 2)).astype(np.float32)
    e = np.random.default_rng(3).normal(size=x.shape).astype(np.float32)
    w, b = w[:3], b[:3]
    tx, tw, tb = (torch.tensor(np.ascontiguousarray(a), requires_grad=True) for a in (x.T, w, b))
    y = torch.nn.functional.batch_norm(tx, None, None, tw, tb, True)
    want = torch.autograd.grad(y, [tx, tw, tb], torch.tensor(np.ascontiguousarray(e.T)))
    operands = [arr(a) for a in (x, w, b)]
    with owl.Tape() as tape:
        y = owl.batch_norm(*operands, operands[0].mean([0, 1, 3]), operands[0].var([0, 1, 3]))
    for got, theirs in zip(tape.gradient(y, operands, seed=arr(e)), want):
        np.testing.assert_allclose(val(got), theirs.numpy().T, rtol=1e-4, atol=1e-5)


def one():
    return owl.ones([4])


def four():
    return owl.ones([4, 3])


@pytest.mark.parametrize("call, kind, parts", [
    (lambda: owl.layer_norm(four(), owl.ones([3]), one()), owl.ShapeError, ["layer_norm: weight has shape [3], expected [4]"]),
    (lambda: owl.layer_norm(four(), one(), owl.ones([4, 1])), owl.ShapeError, ["layer_norm: bias has shape [4, 1], expected [4]"]),
    (lambda: owl.layer_norm(four(), one(), one(), -1), ValueError, ["layer_norm: eps must be a number from 0 on"]),
    (lambda: owl.layer_norm(four(), one(), one(), eps=np.nan), ValueError, ["eps"]),
    (lambda: owl.layer_norm(four(), one()), TypeError, ["needs the argument 'bias'"]),
    (lambda: owl.layer_norm(four(), 1.0, one()), TypeError, ["layer_norm: weight"]),
    (lambda: owl.batch_norm(one(), one(), one(), one(), one()), owl.ShapeError, ["batch_norm of [4]", "at least 2 axes"]),
    (lambda: owl.batch_norm(four(), one(), one(), one(), owl.ones([3])), owl.ShapeError, ["batch_norm: var has shape [3]", "length 4"]),
    (lambda: owl.batch_norm(four(), one(), one(), one(), one(), eps=np.inf), ValueError, ["batch_norm: eps"]),
])  # fmt: skip
def test_mistakes(call, kind, parts):
    with pytest.raises(kind) as e:
        call()
    assert all(part in str(e.value) for part in parts), str(e.value)
