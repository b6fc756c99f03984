"""Gradients: every operation's against differences, tapes, sources, seeds, views, errors, and what a step costs."""

import random
import threading

import numpy as np
import pytest

import owl
from conftest import SOAK, eventually, line_of, same_bits, settle, unflushed
from programs import Owl, random_program, Machine
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
    "exp": unary(ele.exp),
    "expm1": unary(ele.expm1),
    "ln": unary(ele.ln, 0.5, 2),
    "log1p": unary(ele.log1p, -0.5, 2),
    "sqrt": unary(ele.sqrt, 0.5, 2),
    "erf": unary(ele.erf),
    "sin": unary(ele.sin),
    "cos": unary(ele.cos),
    "copy": unary(lambda x: x[::-1, :, 1:].reshape([12])),
    "device_copy": unary(lambda x: x.copy_to(other_device()).copy_to(0)),
    "concat": binary(lambda x, y: [owl.concat([x, y, x], 0), owl.concat([y, x], -1)]),
    "add_view": unary(lambda x: owl.grad(lambda v: (v[1:3] ** 3).sum() + ele.square(v[2:, 1:]).sum())(x)),
    "sum": unary(lambda x: [x.sum(), x.sum(1), x.sum([0, 2])]),
    "mean": unary(lambda x: [x.mean(), x.mean(1), x.mean([0, 2])]),
    "max": unary(lambda x: [x.max(), x.max(1), x.max([0, 2])]),
    "min": unary(lambda x: [x.min(), x.min(1), x.min([0, 2])]),
    "matmul": ([(4, 3), (3, 5)], (-2, 2), lambda x, y: [x * y, y.T * x.T, y.T @ x.T]),
    "softmax": unary(lambda x: [conv.softmax(x, instance), conv.softmax(x, channel), conv.softmax(x[:, 0, 0])]),
    "log_softmax": unary(lambda x: [conv.log_softmax(x, instance), conv.log_softmax(x, channel)]),
    "softmax_back": binary(lambda x, y: [conv.softmax_back(x, y, instance), conv.softmax_back(x, y, channel)]),
    **conv_rows(),
    "pool": ([IMAGES], (-1, 1), lambda x: [p.ff(x) for p in POOLERS]),
    "pool_back": ([(300,), IMAGES], (-1, 1), pool_back),
    "lrn": ([IMAGES], (-1, 1), lambda x: LRNER.ff(x, x)),
    "lrn_back": ([IMAGES] * 3, (-1, 1), lambda e, x, y: LRNER.bp(x, y, x, e)),
    "all_reduce": binary(lambda x, y: owl.all_reduce([x, y.copy_to(other_device())])[1].copy_to(0)),
}  # fmt: skip
ROUGH = {"cast": (1e-1, 1e-5)}  # step, tolerance: it rounds to float32
LAYOUTS = ["contiguous", "transposed", "sliced", "broadcast"]
WITHOUT = {"gt", "ge", "lt", "le", "eq", "ne", "isnan", "sign", "floor", "ceil", "full", "arange", "rand", "randn",
           "randb", "argmax", "argmin", "count_zero"}  # fmt: skip
TESTED_IN_CPP: set[str] = set()


def test_every_operation_has_a_row_or_no_gradient_by_nature():
    ops = owl._owl.ops()
    assert {op["name"] for op in ops if op["gradient"]} == set(ROWS) | TESTED_IN_CPP
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
        elementwise = next(op["elementwise"] for op in owl._owl.ops() if op["name"] == name)
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
