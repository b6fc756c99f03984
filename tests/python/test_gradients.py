"""Gradients: every operation's against differences, tapes, sources, seeds, views, errors, and what a step costs."""

import random
import threading
from collections import namedtuple

import numpy as np
import pytest

import owl
from conftest import HANG_S, SOAK, same_bits, settle, unflushed, window
from programs import LARGE, SHAPES, Machine, Owl, digest, random_program
from reference import arr, val

ele, conv = owl.elewise, owl.conv
mult = ele.mult
channel, instance = conv.soft_op.channel, conv.soft_op.instance


# ---- every operation, by differences --------------------------------------------------------------------------------
#
# A row: the shapes of the operands, the interval that their elements are from, a function of them. Functions give a list
# where several forms of one operation are tried.

SHAPE = (4, 3, 2)
IMAGES = (6, 5, 4, 2)  # W, H, C, N


def unary(function, low=-2.0, high=2.0):
    return [SHAPE], (low, high), function


def binary(function, low=-2.0, high=2.0):
    return [SHAPE, SHAPE], (low, high), function


CONVOLVERS = [conv.Convolver(), conv.Convolver(1, 2, 2, 1), conv.Convolver(1, 1, 1, 2, dilation=(2, 1)),
              conv.Convolver(0, 1, 1, 1, groups=2)]  # fmt: skip
POOLERS = [conv.Pooler(2, 2, 2, 2, op=op) for op in (conv.pool_op.max, conv.pool_op.avg)]
POOLERS += [conv.Pooler(3, 2, 2, 1, 1, 1, op=op, ceil_mode=c) for op in (conv.pool_op.max, conv.pool_op.avg) for c in (True, False)]
LRNER = conv.Lrner(3, 0.3, 0.7)
WEIGHTS = [(3, 2, 4, 6)] * 3 + [(3, 2, 2, 6)]


def of_convolvers(*shapes_of):
    """The rows of a function for each convolver: (convolver, *operands)."""
    function = shapes_of[-1]

    def run(*operands):
        results = []
        for c, w in zip(CONVOLVERS, WEIGHTS):
            results.append(function(c, w, *operands))
        return results

    return run


def conv_result(c, w, x=IMAGES):
    return tuple(c.ff(owl.zeros(list(x)), owl.zeros(list(w)), owl.zeros([w[3]])).shape)


def cut(x, shape):
    """As many elements of x, in this shape: operands of shapes that depend on the convolver."""
    return x.reshape([int(np.prod(x.shape))])[: int(np.prod(shape))].reshape(list(shape))


def conv_rows():
    flat_w, flat_e = (160,), (1000,)
    forward = [IMAGES, flat_w, (6,)], (-1, 1), lambda x, w, b: [c.ff(x, cut(w, s), b) for c, s in zip(CONVOLVERS, WEIGHTS)]
    data = [flat_e, flat_w], (-1, 1), lambda e, w: [
        c.bp(cut(e, conv_result(c, s)), owl.zeros(list(IMAGES)), cut(w, s)) for c, s in zip(CONVOLVERS, WEIGHTS)]
    weight = [flat_e, IMAGES], (-1, 1), lambda e, x: [
        c.weight_grad(cut(e, conv_result(c, s)), x, owl.zeros(list(s))) for c, s in zip(CONVOLVERS, WEIGHTS)]
    return {"conv": forward, "conv_back_data": data, "conv_back_weight": weight,
            "conv_back_bias": ([IMAGES], (-1, 1), lambda e: CONVOLVERS[0].bias_grad(e))}  # fmt: skip


def products(x, y):
    """Of matrices, and of the leading two axes of more, of which either side broadcasts."""
    one, other = x[:, :, 0], y[:, :, 1]
    split_x, split_y = x.reshape([4, 3, 2, 3]), y.reshape([3, 5, 2, 3])
    return [one * other, other.T @ one.T, owl.matmul(x, y), owl.matmul(one, y), owl.matmul(x, other),
            owl.matmul(split_x[:, :, :1], split_y[..., 1:2]), owl.matmul(split_y.transpose([1, 0, 2, 3]), split_x.transpose([1, 0, 2, 3]))]  # fmt: skip


def pool_back(e, x):
    return [p.bp(cut(e, p.ff(x).shape), p.ff(x), x) for p in POOLERS]


def other_device():
    return owl.create_cpu_device()


ROWS = {
    "cast": unary(lambda x: x.astype("float32").astype("float64")),
    "add": binary(lambda x, y: x + y),
    "sub": binary(lambda x, y: x - y),
    "mult": binary(mult),
    "div": binary(lambda x, y: x / y, 0.5, 2),
    "pow": binary(lambda x, y: [x**y, x**3, x**-1.5, x**1, 2.5**y], 0.5, 2),
    "neg": unary(lambda x: -x),
    "square": unary(ele.square),
    "abs": unary(ele.abs),
    "maximum": binary(lambda x, y: [ele.maximum(x, y), ele.maximum(x, 0.5), ele.maximum(0.5, y)]),
    "minimum": binary(lambda x, y: [ele.minimum(x, y), ele.minimum(x, 0.5), ele.minimum(0.5, y)]),
    "clip": ([SHAPE] * 3, (-2, 2), lambda x, y, z: [ele.clip(x, y, z), ele.clip(x, -1, 1)]),
    "where": binary(lambda x, y: ele.where(x + y > 0.1, x, y)),
    "relu": unary(ele.relu),
    "relu_back": binary(ele.relu_back),
    "sigm": unary(ele.sigm),
    "sigm_back": binary(ele.sigm_back),
    "sigm_back1": unary(ele.sigm_back),
    "tanh": unary(ele.tanh),
    "tanh_back": binary(ele.tanh_back),
    "tanh_back1": unary(ele.tanh_back),
    "gelu": unary(ele.gelu),
    "gelu_tanh": unary(lambda x: ele.gelu(x, approximate=True)),
    "leaky_relu": binary(lambda x, y: [ele.leaky_relu(x), ele.leaky_relu(x, y)]),
    "elu": binary(lambda x, y: [ele.elu(x), ele.elu(x, y)]),
    "softplus": unary(ele.softplus),
    "silu": unary(ele.silu),
    "hard_sigmoid": unary(ele.hard_sigmoid, -4, 4),
    "hard_swish": unary(ele.hard_swish, -4, 4),
    "mish": unary(ele.mish),
    "exp": unary(ele.exp),
    "expm1": unary(ele.expm1),
    "ln": unary(ele.ln, 0.5, 2),
    "log1p": unary(ele.log1p, -0.5, 2),
    "exp2": unary(ele.exp2),
    "log2": unary(ele.log2, 0.5, 2),
    "log10": unary(ele.log10, 0.5, 2),
    "sqrt": unary(ele.sqrt, 0.5, 2),
    "rsqrt": unary(ele.rsqrt, 0.5, 2),
    "erf": unary(ele.erf),
    "sin": unary(ele.sin),
    "cos": unary(ele.cos),
    "tan": unary(ele.tan, -1, 1),
    "asin": unary(ele.asin, -0.8, 0.8),
    "acos": unary(ele.acos, -0.8, 0.8),
    "atan": unary(ele.atan),
    "atan2": binary(lambda x, y: [ele.atan2(x, y), ele.atan2(-x, -y), ele.atan2(x, 0.7), ele.atan2(0.7, y)], 0.5, 2),
    "sinh": unary(ele.sinh),
    "cosh": unary(ele.cosh),
    "fmod": binary(lambda x, y: [ele.fmod(4 * x, y), ele.fmod(-x, 0.7), ele.fmod(9.0, y)], 0.5, 2),
    "remainder": binary(lambda x, y: [(4 * x) % y, -x % 0.7, 9.0 % y, x % -y], 0.5, 2),
    "copy": unary(lambda x: x[::-1, :, 1:].reshape([12])),
    "device_copy": unary(lambda x: x.copy_to(other_device()).copy_to(0)),
    "concat": binary(lambda x, y: [owl.concat([x, y, x], 0), owl.concat([y, x], -1)]),
    "place_views": unary(lambda x: owl.grad(lambda v: (v[1:3] ** 3).sum() + ele.square(v[2:, 1:]).sum())(x)),
    "add_views": unary(lambda x: owl.grad(lambda v: sum(((v[k : k + 3] ** 3).sum() for k in (0, 1, 1)), 0.0))(x)),
    "take": unary(lambda x: [owl.take(x, [0, -1, 0, 2], 0), owl.take(x, arr(np.int32([[1, 0, 2], [1, 1, 0]])), 1)]),
    "put_add": ([SHAPE, (4, 5, 2)], (-2, 2), lambda x, v: [owl.put_add(x, [0, 2, 0, 0, -2], v, 1), owl.put_add(x, [1, 1], v[:, :1], 1)]),
    "sort": unary(lambda x: [owl.sort(x), owl.sort(x, -1), *(owl.topk(x, 2, a)[0] for a in (0, 1, 2))]),
    "sum": unary(lambda x: [x.sum(), x.sum(1), x.sum([0, 2])]),
    "mean": unary(lambda x: [x.mean(), x.mean(1), x.mean([0, 2])]),
    "moments": unary(lambda x: [*owl.moments(x), *owl.moments(x, 1, correction=1), owl.moments(x, [0, 2])[0], x.var(2)]),
    "prod": unary(lambda x: [x.prod(), x.prod(1), x.prod([0, 2])]),
    "cumsum": unary(lambda x: [x.cumsum(0), x.cumsum(-1), x.reshape([-1]).cumsum(0)]),
    "max": unary(lambda x: [x.max(), x.max(1), x.max([0, 2])]),
    "min": unary(lambda x: [x.min(), x.min(1), x.min([0, 2])]),
    "matmul": ([(4, 3, 6), (3, 5, 6)], (-2, 2), products),
    "softmax": unary(lambda x: [conv.softmax(x, instance), conv.softmax(x, channel), conv.softmax(x[:, 0, 0]), conv.softmax(x, axis=0),
                                conv.softmax(x, axis=-1)]),
    "log_softmax": unary(lambda x: [conv.log_softmax(x, instance), conv.log_softmax(x, channel), conv.log_softmax(x, axis=0)]),
    "log_softmax_back": binary(lambda e, x: [
        owl.grad(lambda x: mult(e, f(x)).sum())(x) for f in (
            lambda x: conv.log_softmax(x, instance), lambda x: conv.log_softmax(x, channel), lambda x: conv.log_softmax(x, axis=0))]),
    "softmax_back": binary(lambda x, y: [conv.softmax_back(x, y, instance), conv.softmax_back(x, y, channel),
                                         conv.softmax_back(x, y, axis=0)]),
    "layer_norm": ([SHAPE, (4,), (4,)], (-2, 2), lambda x, w, b: [
        owl.layer_norm(x, w, b), owl.layer_norm(x.reshape([4, 6]), w, b, eps=0.5), owl.layer_norm(x[:, 0, 0], w, b)]),
    "layer_norm_back": ([SHAPE, SHAPE, (4,)], (-2, 2), lambda e, x, w: list(
        owl.grad(lambda x, w, b: mult(e, owl.layer_norm(x, w, b)).sum(), (0, 1, 2))(x, w, owl.zeros([4], "float64")))),
    "batch_norm": ([SHAPE, (3,), (3,), (3,), (3,)], (0.5, 2), lambda x, w, b, m, v: [
        owl.batch_norm(x, w, b, m, v), owl.batch_norm(x, w, b, x.mean([0, 2]), x.var([0, 2]), eps=0.1)]),
    **conv_rows(),
    "pool": ([IMAGES], (-1, 1), lambda x: [p.ff(x) for p in POOLERS]),
    "pool_back": ([(300,), IMAGES], (-1, 1), pool_back),
    "lrn": ([IMAGES], (-1, 1), lambda x: LRNER.ff(x, x)),
    "lrn_back": ([IMAGES] * 3, (-1, 1), lambda e, x, y: LRNER.bp(x, y, x, e)),
    "rearranged": binary(lambda x, y: [
        owl.stack([x, y, x], 1), *owl.split(x, [1, 3], 0), owl.pad(y, [(1, 0), (0, 2), (1, 1)], 7), owl.flip(x, 1), owl.roll(x, 2),
        owl.roll(y, (1, 2), (0, 2)), owl.tile(x, [2, 1, 3]), owl.repeat(y, 2, 1), owl.repeat(y, [1, 0, 2, 1], 0)]),
    "spread": unary(lambda x: [x.var(), x.var(1, correction=1), x.std([0, 2]), owl.logsumexp(x), owl.logsumexp(x, [0, 1])]),
    "all_reduce": binary(lambda x, y: owl.all_reduce([x, y.copy_to(other_device())])[1].copy_to(0)),
}  # fmt: skip
COMPOSED = {"rearranged", "spread", "batch_norm"}  # of several operations
ROUGH = {"cast": (1e-1, 1e-5)}  # step, tolerance: it rounds to float32
LAYOUTS = ["contiguous", "transposed", "sliced", "broadcast"]
WITHOUT = {"gt", "ge", "lt", "le", "eq", "ne", "isnan", "isinf", "isfinite", "sign", "floor", "ceil", "round", "trunc",
           "floor_divide", "bit_and", "bit_or", "bit_xor", "bit_not",
           "full", "arange", "rand", "randn", "randb", "argmax", "argmin", "count_zero", "check_indices"}  # fmt: skip
TESTED_IN_CPP: set[str] = set()


def test_every_operation_has_a_row_or_no_gradient_by_nature():
    ops = owl._owl.ops()
    assert {op["name"] for op in ops if op["gradient"]} == set(ROWS) - COMPOSED | TESTED_IN_CPP
    assert {op["name"] for op in ops if not op["gradient"]} == WITHOUT


def laid_out(a, layout):
    """The array with these elements, of another layout in memory."""
    if layout == "transposed":
        return arr(a.T).transpose(list(range(a.ndim))[::-1])
    if layout == "sliced":
        big = np.zeros([2 * n + 1 for n in a.shape])
        big[tuple(np.s_[1::2] for _ in a.shape)] = a[tuple(np.s_[::-1] for _ in a.shape)]
        return arr(big)[tuple(np.s_[-2::-2] for _ in a.shape)]
    return arr(a)


class Row:
    """A row as a function of float64 arrays with one number for a result, and its derivative along a direction."""

    def __init__(self, name, layout):
        shapes, (low, high), self.function = ROWS[name]
        rng = np.random.default_rng(sum(map(ord, name)))
        elementwise = name in {op["name"] for op in owl._owl.ops() if op["elementwise"]}
        if layout == "broadcast":
            if not elementwise or len(shapes) == 1:
                pytest.skip("operands have to have these shapes")
            shapes = [shapes[0], (1, 3), (4,)][: len(shapes)]
        self.layout = layout
        self.operands = [rng.uniform(low, high, s) for s in shapes]
        self.along = [rng.uniform(-1, 1, s) for s in shapes]
        self.second = [rng.uniform(-1, 1, s) for s in shapes]
        self.weights = rng
        self.seed = int(rng.integers(1000))
        self.step, self.tolerance = ROUGH.get(name, (1e-5, 1e-7))

    def arrays(self, t=0.0):
        return [laid_out(a + t * d, self.layout) for a, d in zip(self.operands, self.along)]

    def number(self, xs):
        """Weighted sums of the results and their squares, so that second derivatives are no zeros."""
        results = self.function(*xs)
        rng, total = np.random.default_rng(self.seed), 0.0
        for y in results if isinstance(results, list) else [results]:
            w = arr(rng.uniform(-1, 1, y.shape))
            total = mult(w, y + 0.3 * ele.square(y)).sum() + total
        return total

    def gradients(self, xs):
        with owl.Tape() as tape:
            y = self.number(xs)
        return tape.gradient(y, xs, unused="zeros")

    def slope(self, xs):
        """The gradient along another direction."""
        return sum(mult(g, arr(d)).sum() for g, d in zip(self.gradients(xs), self.second))

    def check(self, number, gradients):
        along = sum((val(g) * d).sum() for g, d in zip(gradients, self.along))
        low, high = (number(self.arrays(t)).item() for t in (-self.step, self.step))
        by_differences = (high - low) / (2 * self.step)
        scale = 1 + sum(np.abs(val(g)).sum() for g in gradients)
        assert abs(along - by_differences) < self.tolerance * scale, (along, by_differences)
        return abs(along - by_differences) / scale


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", sorted(ROWS))
def test_first_derivatives(name, layout):
    row = Row(name, layout)
    xs = row.arrays()
    gradients = row.gradients(xs)
    for x, g in zip(xs, gradients):
        assert g.shape == x.shape and g.dtype == x.dtype and g.device == x.device
    row.check(row.number, gradients)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", sorted(ROWS))
def test_second_derivatives(name, layout):
    row = Row(name, layout)
    xs = row.arrays()
    with owl.Tape() as tape:
        slope = row.slope(xs)
    row.check(row.slope, tape.gradient(slope, xs, unused="zeros"))


# ---- kinks and other corners ----------------------------------------------------------------------------------------


def slope(function, *values, wrt=0):
    """The gradient of the sum of function(*arrays), as a list."""
    return owl.grad(lambda *xs: function(*xs).sum(), wrt)(*(arr(np.float32(v)) for v in values)).tolist()


NAN, INF = np.nan, np.inf
KINKS = {
    "relu": (ele.relu, [[-1, 0, 2]], [0, 0, 1]),
    "abs": (ele.abs, [[-1, 0, 2]], [-1, 0, 1]),
    "leaky_relu": (lambda x: ele.leaky_relu(x, 0.25), [[-1, 0, 2]], [0.25, 0.25, 1]),
    "elu": (lambda x: ele.elu(x, 3.0), [[0, 2, 1000]], [3, 1, 1]),
    "maximum": (ele.maximum, [[1, 2, 3], [2, 2, 2]], [0, 0.5, 1]),
    "minimum": (ele.minimum, [[1, 2, 3], [2, 2, 2]], [1, 0.5, 0]),
    "maximum of a number": (lambda x: ele.maximum(x, 2), [[1, 2, 3]], [0, 0.5, 1]),
    "clip": (lambda x: ele.clip(x, -1, 1), [[-2, -1, 0, 1, 2]], [0, 1, 1, 1, 0]),
    "max": (lambda x: x.max(), [[1, 3, 3, 2]], [0, 1, 0, 0]),
    "max over an axis": (lambda x: x.max(1), [[[1, 5, 5], [2, 2, 1]]], [[0, 1, 0], [1, 0, 0]]),
    "max over axes": (lambda x: x.max([0, 1]), [[[1, 7, 2], [7, 7, 0]]], [[0, 0, 0], [1, 0, 0]]),  # in memory order
    "min": (lambda x: x.min(), [[4, 3, 3, 9]], [0, 1, 0, 0]),
    "x ** 2 at 0": (lambda x: x**2, [[0, 3]], [0, 6]),
    "x ** 0": (lambda x: x**0, [[0, 3]], [0, 0]),
    "x ** y at y = 0": (lambda x, y: x**y, [[0, 2], [0, 0]], [0, 0]),
    "2 ** x": (lambda x: 2.0**x, [[0, 1]], [np.float32(np.log(2)).item(), np.float32(2 * np.log(2)).item()]),
    "0 ** x": (lambda x: 0.0**x, [[1, 2]], [0, 0]),
    "prod with a 0": (lambda x: x.prod(), [[2, 0, 3, 4, 5]], [0, 120, 0, 0, 0]),
    "prod with two": (lambda x: x.prod(0), [[2, 0, 3, 0]], [0, 0, 0, 0]),
    "sqrt": (ele.sqrt, [[0, 4]], [INF, 0.25]),
    "a sum of NaN": (lambda x: x * 2 + ele.sqrt(-ele.abs(x)) * 0.0, [[1]], [NAN]),
}


@pytest.mark.parametrize("name", KINKS)
def test_kinks(name):
    function, values, want = KINKS[name]
    np.testing.assert_allclose(slope(function, *values), want, rtol=1e-6)


def test_the_second_derivative_of_a_product_with_a_0():
    hessian = owl.grad(lambda x: ele.mult(owl.grad(lambda x: x.prod())(x), owl.from_numpy(np.float32([1, 0, 0, 0]))).sum())
    assert hessian(owl.from_numpy(np.float32([2, 0, 3, 4]))).tolist() == [0, 12, 0, 0]


def test_where_gives_exact_zeros_to_the_side_not_chosen():
    c, x, y = arr([True, False, True]), owl.ones([3]), owl.ones([3])
    with owl.Tape() as tape:
        z = ele.where(c, x, y)
    gx, gy = tape.gradient(z, [x, y], seed=owl.from_numpy(np.float32([NAN, INF, 2])))
    np.testing.assert_array_equal(gx.tolist(), [NAN, 0, 2])
    np.testing.assert_array_equal(gy.tolist(), [0, INF, 0])


def test_x_to_the_power_of_y_passes_0_to_y_at_0():
    assert slope(lambda x, y: x**y, [0, 0, 2], [2, 0, 1], wrt=1) == [0, 0, pytest.approx(2 * np.log(2))]
    both = owl.grad(lambda x, y: owl.grad(lambda v: (x**v).sum())(y).sum())
    assert both(owl.zeros([2]), owl.full([2], 2.0)).tolist() == [0, 0]


def test_the_first_of_equal_maxima_of_a_pooling():
    pool = conv.Pooler(2, 2, 2, 2)
    g = owl.grad(lambda x: pool.ff(x).sum())(owl.ones([4, 4, 1, 1]))
    assert val(g)[:, :, 0, 0].tolist() == [[1, 0, 1, 0], [0] * 4, [1, 0, 1, 0], [0] * 4]
    twice = owl.grad(lambda e: ele.mult(pool.bp(e, pool.ff(owl.ones([4, 4, 1, 1])), owl.ones([4, 4, 1, 1])),
                                        owl.arange(16).reshape([4, 4, 1, 1])).sum())  # fmt: skip
    assert val(twice(owl.ones([2, 2, 1, 1])))[:, :, 0, 0].tolist() == [[0, 8], [2, 10]]
    lowest = owl.full([4, 4, 1, 1], -np.inf)
    padded = conv.Pooler(3, 3, 2, 2, 1, 1)
    err = owl.ones(padded.ff(lowest).shape)
    weights = owl.arange(16).reshape([4, 4, 1, 1]) + 1
    g = owl.grad(lambda e: ele.mult(padded.bp(e, padded.ff(lowest), lowest), weights).sum())(err)
    places = owl.grad(lambda w: ele.mult(padded.bp(err, padded.ff(lowest), lowest), w).sum())(weights)
    assert (g > 0).sum().item() == err.size and g.sum().item() == ele.mult(places, weights).sum().item()


def test_flat_results_have_gradients_of_zeros_and_second_derivatives_too():
    x = owl.arange(4) - 1.5
    first = owl.grad(lambda x: ele.relu(x).sum())
    assert first(x).tolist() == [0, 0, 1, 1]
    assert owl.grad(lambda x: first(x).sum())(x).tolist() == [0] * 4


@pytest.mark.parametrize("flat", [ele.floor, ele.ceil, ele.sign, lambda x: x > 1, lambda x: x.argmax(0),
                                  lambda x: x.astype("int32"), lambda x: owl.rand(x.shape)])  # fmt: skip
def test_what_has_no_gradient_is_no_path(flat):
    x = owl.arange(3) + 0.5
    with pytest.raises(owl.Error, match="y does not depend on the source"):
        with owl.Tape() as tape:
            ele.exp(x)
            y = (flat(x) * 1.0).sum()
        tape.gradient(y, x)
    assert owl.grad(lambda x: (flat(x) + x).sum())(x).tolist() == [1, 1, 1]


def test_broadcast_operands_get_sums_and_other_types_their_own():
    a, b, c = owl.ones([3, 4]), owl.full([3, 1], 2.0, "float64"), owl.full([3], 3.0)
    k = owl.full([1, 4], 5, "int32")
    ga, gb, gc = owl.grad(lambda a, b, c: mult(mult(mult(a, b), c), k).sum(), (0, 1, 2))(a, b, c)
    assert val(ga).tolist() == [[30] * 4] * 3 and ga.dtype == np.float32
    assert val(gb).tolist() == [[60]] * 3 and gb.dtype == np.float64
    assert gc.tolist() == [40, 40, 40] and gc.dtype == np.float32
    third = owl.grad(lambda b: (b / 3).mean())(b)  # numbers keep the precision of the arrays that they meet
    assert third.tolist() == [[1 / 9], [1 / 9], [1 / 9]]
    assert owl.grad(lambda b: (ele.where(b > 0, b, 0.0) / 3).sum())(b).tolist() == [[1 / 3]] * 3


# ---- sources, seeds, structures -------------------------------------------------------------------------------------


def test_sources_of_any_structure():
    Pair = namedtuple("Pair", "left right")
    a, b, c, d = (owl.full([2], float(i)) for i in range(1, 5))

    class Module:
        def parameters(self):
            return {"layers.0.weight": a, "layers.0.bias": b}

    def y_of(*xs):
        return sum(ele.square(x).sum() for x in xs)

    for sources, arrays in ((a, [a]), ([a, (b, c)], [a, b, c]), ({"w": a, "more": [b, {"x": c}]}, [a, b, c]),
                            (Pair(a, [b]), [a, b]), (Module(), [a, b]), ([Module(), c], [a, b, c]), ([a, a], [a])):  # fmt: skip
        with owl.Tape() as tape:
            y = y_of(*arrays)
        got = tape.gradient(y, sources)
        want = {"NArray": list, "list": list, "tuple": tuple, "dict": dict, "Pair": Pair, "Module": dict}
        assert isinstance(got, owl.NArray) or type(got) is want[type(sources).__name__]
        flat = [g.tolist() for _, g in owl._gradients._arrays_of(got, "")]
        twice = isinstance(sources, list) and len(sources) > len(arrays)
        assert flat == [(2 * x).tolist() for x in arrays * (2 if twice else 1)]
        if isinstance(sources, Module):
            assert list(got) == ["layers.0.weight", "layers.0.bias"]


def test_function_forms():
    def loss(x, y, scale=1.0, *, more=0.0):
        return mult(x, y["w"]).sum() * scale + more, x * 2

    x, y = owl.arange(3), {"w": owl.arange(3) + 1.0, "unused": []}
    (value, doubled), gradient = owl.value_and_grad(loss)(x, y, scale=2.0, more=1.0)
    assert value.item() == 17 and doubled.tolist() == [0, 2, 4] and gradient.tolist() == [2, 4, 6]
    gx, gy = owl.grad(loss, (0, 1))(x, y)
    assert gx.tolist() == [1, 2, 3] and gy["w"].tolist() == [0, 1, 2] and gy["unused"] == []
    assert owl.grad(loss, 1)(x, y)["w"].tolist() == [0, 1, 2]
    assert owl.grad(loss, [1])(x, y)[0]["w"].tolist() == [0, 1, 2]
    assert owl.grad(loss, -1)(x, y)["w"].tolist() == [0, 1, 2]
    assert owl.value_and_grad(lambda x: x.sum())(x)[0].item() == 3
    assert owl.grad(loss).__name__ == "loss"


def test_an_argument_is_another_array_than_the_same_elsewhere():
    x = owl.arange(3) + 1.0
    assert owl.grad(lambda a, b: mult(ele.square(a), b).sum())(x, x).tolist() == [2, 8, 18]
    assert [g.tolist() for g in owl.grad(lambda a, b: mult(ele.square(a), b).sum(), (0, 1))(x, x)] == [[2, 8, 18], [1, 4, 9]]
    assert owl.grad(lambda a: mult(a, x).sum())(x).tolist() == [1, 2, 3]
    with owl.Tape() as tape:
        y = owl.grad(lambda a: (mult(a, x)).sum())(x).sum()
    assert tape.gradient(y, x).tolist() == [1, 1, 1]


def test_seeds():
    x = owl.arange(6).reshape([2, 3])
    seed = owl.arange(6, dtype="float64").reshape([2, 3])
    with owl.Tape(persistent=True) as tape:
        y = ele.square(x)
        one = y[1:, 2:]
    assert same_bits(val(tape.gradient(y, x, seed)), 2 * val(x) * val(seed).astype("f4"))
    assert val(tape.gradient(one, x)).tolist() == [[0, 0, 0], [0, 0, 10]]  # one element, of whatever axes
    assert tape.gradient(y, x, seed=seed).dtype == np.float32
    assert val(tape.gradient(y, y, seed)).tolist() == val(seed).tolist()


def test_intermediate_results_are_sources():
    x = owl.arange(3)
    with owl.Tape() as tape:
        y = ele.exp(x)
        z = mult(y, x).sum()
    gx, gy = tape.gradient(z, [x, y])
    assert gy.tolist() == [0, 1, 2]
    np.testing.assert_allclose(gx.tolist(), np.exp([0, 1, 2]) * [1, 2, 3], rtol=1e-6)


def test_on_several_devices():
    other = owl.create_cpu_device()
    w, x = owl.arange(3), owl.arange(3) + 1.0
    with owl.Tape() as tape:
        with owl.device(other):
            y = mult(w, ele.square(x)).sum()  # copies of both
            z = mult(w, x).sum()
        loss = y + z.copy_to(w.device) + w.sum()
    gw, gx = tape.gradient(loss, [w, x])
    assert gw.tolist() == [3, 7, 13] and gx.tolist() == [0, 5, 14]
    assert gw.device == w.device and gx.device == x.device


# ---- views ----------------------------------------------------------------------------------------------------------


def test_views_of_one_array_are_added_into_one():
    x = owl.arange(20, dtype="float64").reshape([5, 4])
    before = x[2:, 1]  # a view made outside hangs on the same array
    weights = np.arange(1.0, 21).reshape(5, 4)

    def y_of(x):
        return (ele.square(x[1:3]).sum() + (x[0:2] * 3.0).sum() + x.T[0].sum() + mult(x, arr(weights)).sum()
                + (x[::-1, ::2] * 2.0).sum() + x[3, 2] * 7 + x[..., None, 1].reshape([5]).sum())  # fmt: skip

    with owl.Tape() as tape:
        y = y_of(x) + before.sum()
    want = weights.copy()
    a = np.arange(20.0).reshape(4, 5).T
    want[1:3] += 2 * a[1:3]
    want[0:2] += 3
    want[:, 0] += 1
    want[:, ::2] += 2
    want[3, 2] += 7
    want[:, 1] += 1
    want[2:, 1] += 1
    np.testing.assert_array_equal(val(tape.gradient(y, x)), want)


def test_a_view_as_a_source_gets_what_was_computed_from_it():
    x = owl.arange(6).reshape([2, 3])
    for view, index in ((x.T, lambda a: a.T), (x[1:, ::-1], lambda a: a[1:, ::-1]), (x.reshape([3, 2]), None), (x[:], lambda a: a)):
        with owl.Tape() as tape:
            y = ele.square(view).sum() + (view[:1] * 5).sum() + (x * 100).sum()
        gv, gx = tape.gradient(y, [view, x])
        want = 2 * val(view)
        want[:1] += 5
        assert same_bits(val(gv), want)
        back = np.full((2, 3), 100, "f4")
        if index:
            index(back)[...] += want
            assert same_bits(val(gx), back)
        else:
            assert val(gx).sum() == back.sum() + want.sum()


def test_slices_cost_the_array_and_the_slices():
    """Not an array for each slice: of 128 steps over one array, what the array has, and what the slices have."""
    x = owl.rand([64, 128])
    owl.wait_for_all()
    with owl.Tape() as tape:
        y = sum((ele.square(x[:, t]).sum() for t in range(128)), 0.0)
    with unflushed():
        g = tape.gradient(y, x)
        before = owl.stats()["bytes_written"]
        g.wait_for_eval()
        assert owl.stats()["bytes_written"] - before <= 2.1 * 4 * x.size
    assert same_bits(g.to_numpy(), (2 * x).to_numpy())
    plan = owl.explain(lambda: owl.grad(lambda x: sum(((x[t : t + 64] * 2.0).sum() for t in range(9)), 0.0))(owl.rand([72, 4])))
    wholes = [task for task in plan.tasks if {"place_views", "add_views"} & set(task.operations)]
    assert len(wholes) == 5  # overlapping views: each time that they are as large as the array


def test_parts_are_added_onto_earlier_ones_in_their_memory():
    x = owl.rand([100, 4])
    owl.wait_for_all()
    with unflushed():
        g = owl.grad(lambda x: sum((ele.square(x[t : t + 90]).sum() for t in range(8)), 0.0) + x.sum())(x)
        before = owl.stats()
        got = val(g)
        assert owl.stats()["in_place"] - before["in_place"] >= 2
    times = np.array([sum(t <= i < t + 90 for t in range(8)) for i in range(100)])
    np.testing.assert_allclose(got, 2 * val(x) * times[:, None] + 1, rtol=1e-5)


def test_a_part_that_lies_in_memory_as_large_as_the_whole():
    x, c = owl.rand([8, 4]), owl.rand([8, 2])
    owl.wait_for_all()
    with unflushed():
        g = owl.grad(lambda x: ele.square(owl.concat([x[:, 1:3], c], 1)).sum())(x)
        got = val(g)
    want = 2 * val(x)
    want[:, [0, 3]] = 0
    assert same_bits(got, want)


def test_reshapes_and_transposes_copy_nothing_back():
    x, w = owl.rand([6, 4]), owl.rand([4, 6])
    owl.wait_for_all()
    plan = owl.explain(lambda: owl.grad(lambda x: ele.square(x.T.reshape([24]).reshape([4, 6]) * 1.0 + w).sum())(x))
    assert sum(task.kind == "copy" or "copy" in task.operations for task in plan.tasks) <= 2  # x.T made dense, and back
    plan = owl.explain(lambda: owl.grad(lambda x: ele.square(x.reshape([24]).reshape([4, 6]) + w).sum())(x))
    assert [task.kind for task in plan.tasks] == ["fused"]
    plan = owl.explain(lambda: owl.grad(lambda x: (w * x.T.T).sum())(x))
    assert not [task for task in plan.tasks if task.kind == "copy"]


# ---- stop_gradient --------------------------------------------------------------------------------------------------


def test_stop_gradient():
    x = owl.arange(3) + 1.0
    assert owl.grad(lambda x: mult(owl.stop_gradient(x), x).sum())(x).tolist() == [1, 2, 3]
    assert owl.grad(lambda x: mult(owl.stop_gradient(ele.square(x))[::-1], x).sum())(x).tolist() == [9, 4, 1]
    constant = owl.stop_gradient(x)
    assert same_bits(constant.to_numpy(), x.to_numpy())
    with owl.Tape() as outer:
        with owl.Tape() as inner:
            y = mult(x, constant).sum()
        with pytest.raises(owl.Error, match="does not depend on the source"):
            inner.gradient(y, constant)
        g = inner.gradient(y, x).sum()
    assert outer.gradient(g, x, unused="zeros").tolist() == [0, 0, 0]
    plan = owl.explain(lambda: ele.exp(owl.stop_gradient(x * 2.0)))
    assert plan.tasks[0].operations == ["mult", "exp"]  # nothing is copied, nor kept apart


# ---- tapes ----------------------------------------------------------------------------------------------------------


def test_only_the_block_is_noted():
    x = owl.arange(3)
    before = ele.square(x)
    with owl.Tape() as tape:
        inside = ele.exp(x)
    after = inside.sum()
    for y in (before.sum(), after):
        with pytest.raises(owl.Error, match="y does not depend on the source"):
            tape.gradient(y, x)
    assert tape.gradient(inside, x, seed=owl.ones([3])).tolist() == inside.tolist()


def test_a_tape_is_used_up_or_persistent():
    x = owl.arange(3)
    with owl.Tape() as tape:
        y = ele.square(x).sum()
    tape.gradient(y, x)
    with pytest.raises(owl.Error, match="the tape is used up.*persistent=True"):
        tape.gradient(y, x)
    with owl.Tape(persistent=True) as tape:
        y = ele.square(x).sum()
        assert tape.gradient(y, x).tolist() == [0, 2, 4]  # inside the block too, where it is noted itself
        g = tape.gradient(y, x)
        assert tape.gradient(g.sum(), x).tolist() == [2, 2, 2]
    assert tape.gradient(y, x).tolist() == [0, 2, 4]


def test_gradient_inside_the_block_ends_the_notes():
    x = owl.arange(3)
    with owl.Tape() as tape:
        y = ele.square(x).sum()
        g = tape.gradient(y, x)
        live = owl.stats()["live_nodes"]
        for _ in range(1000):
            g = g * 1.0
        assert owl.stats()["live_nodes"] < live + 500
    assert g.tolist() == [0, 2, 4]


def test_mistakes_do_not_use_the_tape_up():
    x, k = owl.arange(3), owl.arange(3, dtype="int32")
    unrelated = owl.ones([2])
    with owl.Tape() as tape:
        y = mult(ele.square(x), k)
    ones = owl.ones([3])
    for call, error, words in [
        (lambda: tape.gradient(y, x), owl.ShapeError, r"y has shape \[3\].*seed"),
        (lambda: tape.gradient(y, x, owl.ones([2])), owl.ShapeError, r"seed has shape \[2\], y has \[3\]"),
        (lambda: tape.gradient(y, x, seed=k), owl.DTypeError, "the seed is int32"),
        (lambda: tape.gradient(y, k, ones), owl.DTypeError, "the source is int32.*only float arrays"),
        (lambda: tape.gradient(y, {"a": x, "b": [k]}, ones), owl.DTypeError, r"source 'b'\[0\] is int32"),
        (lambda: tape.gradient(x > 0, x, ones), owl.DTypeError, "y is bool"),
        (lambda: tape.gradient(y, [x, unrelated], ones), owl.Error, "does not depend on source 1"),
        (lambda: tape.gradient(y, {"w": unrelated}, ones), owl.Error, "does not depend on source 'w'"),
        (lambda: tape.gradient(y, np.ones(3), ones), owl.DTypeError, "must be an NArray, not ndarray"),
        (lambda: tape.gradient(y, [x, 3.0], ones), owl.DTypeError, "source 1 must be an NArray, not float"),
        (lambda: tape.gradient(1.0, x), owl.DTypeError, "y must be an NArray, not float"),
        (lambda: tape.gradient(y, x, np.ones(3)), owl.DTypeError, "the seed must be an NArray"),
        (lambda: tape.gradient(y, x, ones, "zero"), ValueError, "unused must be"),
    ]:
        with pytest.raises(error, match=words):
            call()
    g, zero = tape.gradient(y, [x, unrelated], seed=ones, unused="zeros")
    assert g.tolist() == [0, 2, 8] and zero.tolist() == [0, 0]


def test_a_view_needs_no_note():
    x = owl.arange(6).reshape([2, 3])
    for make, seed, want in [(lambda: x[1:, 2:], None, [[0, 0, 0], [0, 0, 1]]), (lambda: x.T, owl.arange(6).reshape([3, 2]), [[0, 1, 2], [3, 4, 5]]),
                             (lambda: x.reshape([6])[::-2], owl.ones([3]), [[0, 0, 0], [1, 1, 1]])]:  # fmt: skip
        with owl.Tape() as tape:
            y = make()
        assert val(tape.gradient(y, x, seed)).tolist() == want
    with owl.Tape() as tape:
        y = x[:1, :1]
    with pytest.raises(owl.Error, match="y does not depend on source 1"):
        tape.gradient(y, [x, owl.ones([2])])
    gx, zero = tape.gradient(y, [x, owl.ones([2])], unused="zeros")
    assert val(gx).tolist() == [[1, 0, 0], [0, 0, 0]] and zero.tolist() == [0, 0]


def test_nothing_noted():
    x = owl.arange(3)
    tape = owl.Tape()
    with pytest.raises(owl.Error, match="nothing was noted on the tape"):
        tape.gradient(x.sum(), x)
    with tape:
        pass
    with pytest.raises(owl.Error, match="nothing was noted on the tape"):
        tape.gradient(x.sum(), x)


def test_mistakes_of_function_forms():
    x = owl.arange(3)
    for call, error, words in [
        (lambda: owl.grad(3), TypeError, "fn must be a function"),
        (lambda: owl.grad(ele.exp, "x"), TypeError, "wrt must be"),
        (lambda: owl.grad(ele.exp, ()), TypeError, "wrt must be"),
        (lambda: owl.grad(ele.exp, 1)(x), ValueError, "wrt names argument 1, but 1 were given"),
        (lambda: owl.grad(lambda x: 3.0)(x), owl.DTypeError, "the loss.*must be an NArray, not float"),
        (lambda: owl.grad(lambda x: x * 2)(x), owl.ShapeError, "not one number"),
        (lambda: owl.grad(lambda x: owl.ones([1]))(x), owl.Error, "nothing was noted"),
        (lambda: owl.grad(lambda x: owl.ones([1]) + 1)(x), owl.Error, "does not depend on source 0"),
        (lambda: owl.grad(lambda x, y: y.sum(), (0, 1))(x, x), owl.Error, "does not depend on source 0"),
    ]:
        with pytest.raises(error, match=words):
            call()


def test_a_tape_is_entered_once_by_one_thread():
    tape = owl.Tape()
    errors = []

    def enter():
        try:
            with tape:
                pass
        except owl.Error as error:
            errors.append(str(error))

    with tape:
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        enter()
    assert "another thread" in errors[0] and "a tape is entered once" in errors[1]


def test_other_threads_are_not_noted_and_may_ask_for_gradients():
    x = owl.arange(3)
    results = []

    def other():
        results.append(ele.exp(x).sum())

    def ask():
        results.append(tape.gradient(y, x))

    with owl.Tape() as tape:
        y = ele.square(x).sum()
        for target in (other, ask):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert results[1].tolist() == [0, 2, 4]
    x = owl.arange(3)
    with owl.Tape() as tape:
        y = ele.square(x).sum()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    with pytest.raises(owl.Error, match="does not depend"):
        tape.gradient(results[-1], x)


def test_tapes_nest_to_any_depth():
    x = owl.full([1], 0.5, "float64")
    function, want = ele.sin, [np.cos, lambda x: -np.sin(x), lambda x: -np.cos(x), np.sin]
    for depth in range(4):
        function = owl.grad(function)
        assert function(x).item() == pytest.approx(want[depth](0.5), rel=1e-12)


def test_threads_with_tapes_of_their_own():
    w = owl.arange(50)
    wrong = []

    def train(k):
        for i in range(200):
            with owl.Tape() as tape:
                y = (ele.square(w) * float(k) + w * float(i)).sum()
            if tape.gradient(y, w).tolist()[3] != 6.0 * k + i:
                wrong.append((k, i))

    threads = [threading.Thread(target=train, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_control_flow_is_pythons():
    def f(x, n):
        for _ in range(n):
            x = ele.square(x) if x.item() < 2 else x * 3.0
        return x

    assert owl.grad(lambda x: f(x, 4))(owl.full([1], 1.5)).tolist() == [3 * 27.0]


# ---- what is kept ---------------------------------------------------------------------------------------------------


def test_only_what_a_rule_reads_is_kept():
    x = owl.rand([1000])
    settle()
    before = owl.stats()["live_storages"]
    with owl.Tape() as tape:
        y = ((x + 1.0) - 3.0).sum() + (-x).mean()  # sums, differences and negations read nothing
        z = ele.exp(x * 2.0 + 1.0)  # its result, which z holds anyway
        settle()
        assert owl.stats()["live_storages"] - before <= 3  # y and z, and what y is being computed from
        del y
    g = tape.gradient(z, x, seed=owl.ones([1000]))
    np.testing.assert_allclose(val(g), 2 * val(z), rtol=1e-6)


def test_what_is_dropped_inside_the_block_is_not_computed():
    calls = []
    costly = owl.op(lambda x: calls.append(1) or x, lambda err, y, x: err)
    x = owl.arange(3)
    with unflushed():
        with owl.Tape() as tape:
            y = ele.square(x).sum()
            for _ in range(300):
                costly(x)  # a tape keeps the operand and the result of each that may be needed: none of these is
        assert tape.gradient(y, x).tolist() == [0, 2, 4]
        owl.wait_for_all()
    assert not calls


def test_a_loop_inside_a_tape_that_drops_everything_is_bounded():
    x = owl.arange(3)
    with owl.Tape():
        for i in range(20_000):
            ele.exp(x)
            if i % 5000 == 4999:
                assert owl.stats()["live_nodes"] < 5000
    assert settle()["live_nodes"] < 1000


def test_a_gradient_that_is_dropped_is_not_computed():
    calls = []

    def backward(err, y, x):
        calls.append(1)
        return err

    f = owl.op(lambda x: x + 1, backward)
    x, w = owl.arange(3), owl.arange(3)
    with unflushed():
        with owl.Tape() as tape:
            y = mult(f(x), w).sum()
        gx, gw = tape.gradient(y, [x, w])
        del gx
        assert gw.tolist() == [1, 2, 3]
        owl.wait_for_all()
    assert not calls


def test_a_long_loop_is_flat_in_memory():
    w, b = owl.randn([8, 8]), owl.zeros([8, 1])
    x = owl.randn([8, 4])
    for step in range(3000 * SOAK):
        with owl.Tape() as tape:
            loss = ele.square(ele.tanh(w * x + b)).mean()
        gw, gb = tape.gradient(loss, [w, b])
        w -= 0.1 * gw
        b -= 0.1 * gb
        if step == 500:
            early = settle()
    del gw, gb, loss, tape
    late = settle()
    assert late["live_nodes"] <= early["live_nodes"] + 20 and late["live_storages"] <= early["live_storages"] + 10


def test_losses_that_are_kept_keep_nothing_else():
    w, x = owl.randn([8, 8]), owl.randn([8, 4])
    losses, others = [], []
    for step in range(50):
        with owl.Tape() as tape:
            hidden = ele.tanh(w * x)
            loss = ele.square(hidden).mean()
            others.append(mult(hidden, hidden).max())  # never differentiated
        w -= 0.1 * tape.gradient(loss, w)
        losses.append(loss)
        del hidden, loss, tape
        if step == 10:
            early = settle()
    late = settle()
    assert late["live_storages"] - early["live_storages"] <= 2 * 39 + 5


@pytest.mark.parametrize("count", [*range(60, 70), *range(126, 131), *range(254, 260)])
def test_notes_that_are_needed_stay_on_the_tape(count):
    """Whichever of them is the latest when the tape looks for what was dropped."""
    x = owl.full([4], -1.0)
    with owl.Tape() as outer:
        with owl.Tape() as tape:
            y = x
            for _ in range(count):
                y = ele.tanh(y)  # the rule reads the result
            y = y.sum()
        g = tape.gradient(y, x).sum()
    assert outer.gradient(g, x).shape == [4]


def test_a_chain_of_many_operations():
    x = owl.ones([4])
    with owl.Tape() as tape:
        y = x
        for _ in range(20_000):
            y = y * 1.0001
        y = y.sum()
    assert tape.gradient(y, x).tolist()[0] == pytest.approx(1.0001**20_000, rel=1e-2)


# ---- operations of one's own ----------------------------------------------------------------------------------------


def test_operations_in_python_take_part():
    product = owl.op(lambda x, y: x * y, lambda err, z, x, y: (err * y, err * x), name="product")
    x, y = owl.arange(3), owl.full([3], 2.0, "float64")
    gx, gy = owl.grad(lambda x, y: ele.square(product(x * 2.0, y)).sum(), (0, 1))(x, y)
    assert gx.tolist() == [0, 32, 64] and gx.dtype == np.float32
    assert gy.tolist() == [0, 16, 64] and gy.dtype == np.float64


def test_an_operation_without_a_backward_function_is_named():
    lonely = owl.op(lambda x: x * 2, name="lonely")
    x = owl.arange(3)
    with owl.Tape() as tape:
        y = lonely(x).sum()  # its line
        z = ele.exp(x).sum()
    with pytest.raises(owl.Error, match=r"the operation lonely, recorded at .*test_gradients.py:\d+, has no backward function"):
        tape.gradient(y, x)
    assert tape.gradient(z, x).tolist() == ele.exp(x).tolist()  # not on the way
    f = owl.op(lambda x: x * 2, lambda err, y, x: 2 * err, name="f")
    with pytest.raises(owl.Error, match="the operation f.back, .*has no backward function"):
        owl.grad(lambda x: ele.square(owl.grad(lambda x: ele.square(f(x)).sum())(x)).sum())(x)


def test_a_failure_of_the_backward_pass_names_the_forward_line(script):
    done = script("""
        import owl
        def backward(err, y, x):
            raise ValueError("no")
        f = owl.op(lambda x: x, backward, name="f")
        with owl.Tape() as tape:
            y = f(owl.ones([3]) if False else x) if False else f(x := owl.ones([3]))  # forward
            loss = y.sum()
        g = tape.gradient(loss, x)
        try:
            g.to_numpy()
        except owl.Error as error:
            print(error)
    """)
    line = next(i for i, text in enumerate(done.path.read_text().splitlines(), 1) if "# forward" in text)
    assert f"user_script.py:{line}" in done.stdout and "f.back" in done.stdout


def test_errors_are_raised_at_the_line_of_the_call(script):
    done = script("""
        import traceback
        import owl
        x = owl.ones([3])
        with owl.Tape() as tape:
            y = x * 2
        try:
            tape.gradient(y, x)  # here
        except owl.ShapeError:
            print(traceback.format_exc())
    """)
    assert "# here" in done.stdout


# ---- bits -----------------------------------------------------------------------------------------------------------


class Noting(Machine):
    """Keeps the leaves of a program that have gradients."""

    def __init__(self, *args, **kwargs):
        self.leaves = []
        super().__init__(*args, **kwargs)

    def make(self, *args):
        super().make(*args)
        if self.pool[-1].dtype.kind == "f":
            self.leaves.append(self.pool[-1])


def gradients_of_program(program, waits=0, shapes=SHAPES):
    owl.seed(1)
    with owl.Tape() as tape:
        machine = Noting(Owl(waits=waits, rough=True), shapes)
        machine.run(program)
        y = owl.zeros([1])
        for x in machine.pool:
            if x.dtype.kind == "f" and x.size:
                y = y + ele.tanh(x).mean()
        machine.pool.clear()
    return [y.to_numpy(), *(g.to_numpy() for g in tape.gradient(y, machine.leaves, unused="zeros"))]


def random_programs(count):
    rng = random.Random(7)
    return [random_program(rng) for _ in range(count)]


@pytest.mark.parametrize("which", range(4))
def test_same_bits_lazy_eager_and_with_any_window(which):
    for program in random_programs(240 * SOAK)[which::4]:
        with owl.eager():
            want = gradients_of_program(program)
        for count, waits in ((1, 0), (7, 3), (1 << 30, 0)):
            with window(count, -1):
                got = gradients_of_program(program, waits)
            assert len(got) == len(want)
            for a, b in zip(got, want):
                assert same_bits(a, b), (program, count)


def print_gradients(first, count):
    """A hash of the gradients of each program, of which a third has arrays that threads share out."""
    for i in range(first, first + count):
        shapes = LARGE if i % 3 == 0 else SHAPES
        print(i, digest(gradients_of_program(random_program(random.Random(i)), i % 4, shapes)))


@pytest.mark.parametrize("first", range(0, 160 * SOAK, 80))
def test_same_bits_on_any_number_of_threads(script, first):
    text = f"import test_gradients; test_gradients.print_gradients({first}, 80)"
    want, *others = (script(text, env=env, timeout=HANG_S).stdout for env in (
        {"OWL_NUM_THREADS": "1", "OWL_EAGER": "1"}, {"OWL_NUM_THREADS": "1"}, {"OWL_NUM_THREADS": "2"},
        {"OWL_NUM_THREADS": "2", "OWL_WINDOW": "5"}))  # fmt: skip
    assert want.count("\n") == 80
    for got in others:
        assert got.splitlines() == want.splitlines()


def test_every_program_gives_finite_differences_a_chance():
    """The programs do exercise gradients: most leaves have some."""
    all_of_them = [g for program in random_programs(30) for g in gradients_of_program(program)[1:]]
    assert sum(bool(np.any(g)) for g in all_of_them) > len(all_of_them) / 4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gradients_of_halves(dtype):
    """As in float32, rounded; of views, sums, products and networks."""
    def run(dtype, a, w):
        x, w = owl.from_numpy(a).astype(dtype), owl.from_numpy(w).astype(dtype)
        with owl.Tape() as tape:
            y = ele.tanh(w * x) + x[1:5] * 0.5 + x[:4, ::-1]
            loss = owl.conv.softmax(y).sum() + ele.mult(y, y).mean() + x.max(0).sum() - owl.concat([x, x], 0)[::3].sum()
        assert str(loss.dtype) == dtype
        gradients = tape.gradient(loss, [x, w])
        assert [str(g.dtype) for g in gradients] == [dtype] * 2 and gradients[0].shape == x.shape
        return [g.astype("float64").to_numpy() for g in gradients]

    rng = np.random.default_rng(5)
    a, w = rng.normal(size=(7, 5)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    a, w = (owl.from_numpy(v).astype(dtype).astype("float32").to_numpy() for v in (a, w))
    unit = 2.0**-7 if dtype == "bfloat16" else 2.0**-10
    for got, want in zip(run(dtype, a, w), run("float64", a, w)):
        np.testing.assert_allclose(got, want, rtol=8 * unit, atol=8 * unit)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "int32", "bool"])
def test_integers_have_no_gradient(dtype):
    x = owl.ones([3], dtype)
    with owl.Tape() as tape:
        y = (x * 0.5).sum()
    with pytest.raises(owl.DTypeError, match=f"the source is {dtype}.*only float arrays"):
        tape.gradient(y, x)
