"""The CUDA device: every operation compared with the CPU device, laws, memory, errors, graphs.

On a GPU, or on the stand-in for CUDA's libraries (OWL_TEST_DEVICE, see conftest.py).
"""
import random

import numpy as np
import pytest

import children
import owl
import programs
from conftest import CUDA, TEST_DEVICE, WINDOW, same_bits, unflushed, window
from reference import DTYPES, HALVES

pytestmark = pytest.mark.skipif(not TEST_DEVICE, reason="needs a GPU: OWL_TEST_DEVICE is not set")
needs_standin = pytest.mark.skipif(TEST_DEVICE != "standin", reason="needs the stand-in")

elewise, conv = owl.elewise, owl.conv


def on(device, f, *arrays):
    """f's results on a device, as NumPy arrays; f may return one array or several."""
    with owl.device(device):
        made = f(*[owl.from_numpy(a) for a in arrays])
        return [y.to_numpy() for y in (made if isinstance(made, (tuple, list)) else [made])]


def agree(gpu, f, *arrays, exact=False, rtol=2e-5, atol=2e-5):
    for got, want in zip(on(gpu, f, *arrays), on(0, f, *arrays), strict=True):
        assert got.dtype == want.dtype and got.shape == want.shape
        if exact:
            assert same_bits(got, want)
        else:
            half = got.dtype.name in HALVES
            np.testing.assert_allclose(got.astype(float) if half else got, want.astype(float) if half else want, rtol=rtol, atol=atol)


def numbers(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# ---- elementwise

@pytest.mark.parametrize("name", ["exp", "expm1", "ln", "log1p", "sqrt", "square", "abs", "sign", "floor", "ceil", "erf",
                                  "isnan", "sigm", "relu", "tanh", "gelu", "gelu_tanh", "leaky_relu", "elu", "softplus", "sin",
                                  "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "exp2", "log2", "log10", "rsqrt", "round",
                                  "trunc", "isinf", "isfinite", "silu", "hard_sigmoid", "hard_swish", "mish"])
def test_functions_have_the_cpus_bits_in_float32(gpu, name):
    x = np.concatenate([numbers(1003) * 3, np.float32([0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 1e-30, 88, -100])])
    f = (lambda x: elewise.gelu(x, True)) if name == "gelu_tanh" else getattr(elewise, name)
    agree(gpu, f, x, exact=True)
    agree(gpu, f, x.astype(np.float64), rtol=1e-14, atol=1e-15)


def test_operators_have_the_cpus_bits(gpu):
    x, y = numbers(33, 7), numbers(33, 7, seed=1)

    def all_of_them(x, y):
        return [x + y, x - y, x / y, elewise.mult(x, y), -x, x > y, x <= 0.1, x == x, x != y, 2 / x, 1 - x, x ** 3, abs(x),
                elewise.maximum(x, y), elewise.minimum(x, 0), elewise.clip(x, -0.5, 0.5), elewise.where(x > 0, x, y),
                elewise.atan2(x, y), elewise.fmod(x, y), elewise.fmod(x * 1e12, y), x // y, x % y, -x // 0.25, (x * 1e12) % y,
                elewise.leaky_relu(x, 0.2), elewise.leaky_relu(x, y), elewise.elu(x, 0.5),
                elewise.relu_back(x, y), elewise.sigm_back(x, y), elewise.tanh_back(x, y)]

    agree(gpu, all_of_them, x, y, exact=True)


def test_types(gpu):
    i = np.arange(-50, 50, dtype=np.int32).reshape(10, 10)
    b = i % 3 == 0
    agree(gpu, lambda i, b: [i + i, i * 3, i / 7, i - b.astype("int32"), i ** 2, i > 3, b + b, elewise.mult(i, i),
                             i.astype("float64"), i.astype("bool"), (i * 1.5).astype("int32"), elewise.relu(i),
                             i + b, i.sum(), b.sum(0), i.max(1), i // 7, i % -7, i // 0, i & 6, i | 5, i ^ -1, ~i, ~b, b & (i > 0),
                             b ^ True, i.prod(0), b.cumsum(0), i.cumsum(1)], i, b, exact=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type(gpu, dtype):
    """With the CPU's bits: float32 operations have them, and conversions are the same text."""
    a = (np.random.default_rng(1).normal(size=(7, 130)) * 40).astype(dtype)
    b = (np.random.default_rng(2).normal(size=(7, 130)) * 40).astype(dtype)
    agree(gpu, lambda x, y: [x + y, elewise.mult(x, y), x > y, elewise.maximum(x, y), elewise.where(x > y, x, y), x == 3, x / 7,
                             x[::2, 1:].transpose(), owl.concat([x, y[:, :3]], 1), x + owl.ones([1, 7]), abs(x) + 1, x.max(0), x.argmin(1),
                             owl.full([3], 1, dtype), owl.arange(5, dtype=dtype), owl.randb([100], 0.5, dtype=dtype) if owl.seed(3) is None else 0,
                             *[x.astype(t) for t in DTYPES]], a, b, exact=True)  # fmt: skip
    agree(gpu, lambda x: [x.sum(), x.sum(1), x.mean(0), owl.exp(x.astype("float32") / 40).astype(dtype)], a, rtol=1e-2, atol=1e-2)
    agree(gpu, lambda x: x * x.T, a, rtol=1e-2, atol=50 if "16" in dtype else 1e-2)


def test_int64_is_exact(gpu):
    n = 2**53 + 1
    a = np.array([[n, -n, 3], [2**62, 5, -1]])
    agree(gpu, lambda x: [x + n, x * 3, x == n, owl.full([3], n, "int64"), owl.arange(n, n + 5, dtype="int64"), x.sum(), x.min(1),
                          x * x.T, owl.clip(x, -n, n)], a, exact=True)
    big = np.random.default_rng(1).integers(-2**60, 2**60, (70, 90))
    agree(gpu, lambda x: x * x.T, big, exact=True)


@pytest.mark.parametrize("shapes", [((5, 1), (1, 7)), ((4, 3, 2), (1, 3, 1)), ((6,), (3, 6)), ((2, 3, 4), (4,)),
                                    ((1,), (300, 5)), ((70_001,), (1,))])
def test_broadcasting(gpu, shapes):
    agree(gpu, lambda x, y: elewise.tanh(x + y) * 2, *[numbers(*s, seed=k) for k, s in enumerate(shapes)], exact=True)


def test_views(gpu):
    x = numbers(12, 10, 8)
    agree(gpu, lambda x: [x[1:5] + 1, x[:, ::-2], x[3], x[..., None] * 2, x.transpose([2, 0, 1]) - 1,
                          x.reshape([80, 12]).T, x[::3, 1:, ::-1].sum(1), x[7:2:-1]], x, exact=True)


def test_a_long_program(gpu):
    def chain(x):
        for k in range(100):
            x = elewise.tanh(x * 1.01 + 0.1) - k % 3
        return x

    agree(gpu, chain, numbers(1001), exact=True)


# ---- kernels

def test_equal_programs_are_a_launch_or_two(gpu):
    """Slots of 48 programs of two inputs, two outputs and three constants fit into one launch or two, by how arrays lie."""
    arrays = [numbers(*shape, seed=i) for i, shape in enumerate([(3,), (64, 64), (5, 7), (1,), (0, 2), (300,), (33, 31), (9,)] * 6)]

    def update(scale, *all):
        return [y for i, x in enumerate(all) for y in (elewise.exp(x * 0.25 * (i + 1.5)) + scale, elewise.tanh(x - i))]

    want = on(0, update, numbers(1), *arrays)
    with unflushed():
        before = owl.stats()["kernels"]
        got = on(gpu, update, numbers(1), *arrays)
    assert owl.stats()["kernels"] - before <= 4
    assert all(same_bits(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("make", ["rand", "randn", "randb"])
def test_random_numbers_are_the_cpus(gpu, make):
    def draw():
        owl.seed(42)
        arguments = (0.3,) if make == "randb" else (-1.5, 2.5)
        return [getattr(owl, make)([n, 7], *arguments) for n in (1, 5, 1000)]

    agree(gpu, draw, exact=True)

    def draw_doubles():
        owl.seed(7)
        arguments = (0.3,) if make == "randb" else (-1.5, 2.5)
        return getattr(owl, make)([501], *arguments, dtype="float64")

    agree(gpu, draw_doubles, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("make", ["rand", "randn", "randb"])
def test_parts_of_random_arrays_are_the_wholes(gpu, make):
    a, b = (0.3, 0.0) if make == "randb" else (-1.5, 2.5)
    cuts = [(0, 1), (1, 6), (3, 1021), (1020, 1030), (1029, 5000), (4999, 5003)]

    def whole_and_parts(dtype):
        owl.seed(42)
        state = owl.random_state()
        arrays = [owl._owl.draw_part(make, 0, [5003], a, b, dtype)]
        for begin, end in cuts:
            owl.set_random_state(state)
            arrays.append(owl._owl.draw_part(make, begin, [end - begin], a, b, dtype))
        owl.set_random_state(state)
        return [*arrays, owl._owl.draw_part(make, 2**35 + 1, [9], a, b, dtype)]

    for dtype in ("float32", "float64", "int32"):
        if dtype == "int32" and make != "randb":
            continue  # drawn as floats
        whole, *parts, far = on(gpu, lambda: whole_and_parts(dtype))
        for (begin, end), part in zip(cuts, parts):
            assert same_bits(part, whole[begin:end])
        if dtype == "float32":
            assert same_bits(far, on(0, lambda: whole_and_parts(dtype))[-1])


def test_creation(gpu):
    agree(gpu, lambda: [owl.zeros([3, 2]), owl.ones([5]), owl.full([7], -2.5), owl.arange(11), owl.full([3], 4, "int32"),
                        owl.ones([2], "bool"), owl.arange(5, dtype="float64"), owl.zeros([0, 3])], exact=True)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
@pytest.mark.parametrize("shape", [(1,), (1000,), (33, 65), (3, 200_000), (5000, 3), (7, 11, 13), (2, 3, 70_000), (300, 300)])
def test_reductions(gpu, shape, dtype):
    x = (numbers(*shape) * 3).astype(dtype)
    for axis in [None, *range(len(shape))]:
        agree(gpu, lambda x, a=axis: [getattr(x, f)() if a is None else getattr(x, f)(a)
                                      for f in ("sum", "max", "min", "mean", "argmax", "argmin")], x,
              rtol=1e-5, atol=1e-5)
    near_1 = (1 + numbers(*shape) * 1e-3).astype(dtype)
    agree(gpu, lambda x: [x.prod(), *(x.prod(axis) for axis in range(len(shape)))], near_1, rtol=1e-5)
    agree(gpu, lambda x: [x.var(), (x * 2 + 1).std(0), *owl.moments(x * 3, len(shape) - 1, correction=1)], x, rtol=1e-5, atol=1e-5)
    agree(gpu, lambda x: [x.cumsum(axis) for axis in range(len(shape))], x, rtol=1e-5, atol=1e-4)
    agree(gpu, lambda x: [(x * 2).cumsum(0) - 1, owl.grad(lambda x: elewise.mult(x.cumsum(0), x).sum())(x * 1.5)], x, rtol=1e-4, atol=1e-2)


def test_reductions_of_several_axes_and_of_nothing(gpu):
    x = numbers(6, 5, 4, 3)
    agree(gpu, lambda x: [x.sum([0, 2]), x.max([1, 3]), x.mean([0, 1, 2]), x.min([2, 3]), (x * 2).sum([0, 3])], x)
    agree(gpu, lambda: [owl.zeros([0, 3]).sum(0), owl.zeros([3, 0]).mean(1), owl.zeros([0]).sum()])
    assert on(gpu, lambda x: owl.full([1], float((x > 0).count_zero())), x)[0] == (x <= 0).sum()
    special = np.float32([1, np.nan, 3, np.nan, np.inf])
    agree(gpu, lambda x: [x.max(), x.min(), x.argmax(), x.argmin(), x.sum()], special)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mkn", [(1, 1, 1), (5, 7, 3), (64, 784, 10), (1, 9, 4), (4, 9, 1), (33, 1, 17)])
def test_products(gpu, mkn, dtype):
    m, k, n = mkn
    a, b = numbers(k, m, dtype=dtype), numbers(n, k, seed=1, dtype=dtype)  # owl sees [m, k] and [k, n]
    agree(gpu, lambda a, b: [a * b, b.T * a.T, elewise.relu(a * b + 1) * 2], a, b)
    agree(gpu, lambda at, b: [at.T * b, at.T[1:] * b], np.ascontiguousarray(a.T), b)


def test_products_of_integers_and_of_nothing(gpu):
    a, b = np.arange(35, dtype=np.int32).reshape(5, 7), np.arange(21, dtype=np.int32).reshape(7, 3) * 1_000_000
    agree(gpu, lambda a, b: [b * a, a.T * b.T], a, b, exact=True)
    agree(gpu, lambda: [owl.zeros([3, 0]) * owl.zeros([0, 2]) + 1, owl.zeros([0, 2]) * owl.zeros([2, 3])])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_products_of_many_matrices(gpu, dtype):
    a, b = (numbers(*s, seed=len(s), dtype=np.float64) * 3 for s in ((6, 2, 8, 9), (6, 2, 7, 8)))  # [9, 8, 2, 6], [8, 7, 2, 6]

    def products(a, b):
        views = [a[:, :, :1], a[..., :1], a[:, :, 0, 0], a[:, :, ::-1], a[:, :7, :, 1:], a[:, :, 1]]
        return [owl.matmul(a, b), owl.matmul(views[0], b), owl.matmul(views[1], b[:, :, :1]), owl.matmul(views[2], b),
                owl.matmul(views[3], b), owl.matmul(views[4], b[:7, ..., 1:]), owl.matmul(views[5], b[:, :, 0]),
                owl.matmul(a.transpose([0, 1, 3, 2]), b.transpose([0, 1, 3, 2])), owl.matmul(a, b[:, :, 0, 0]),
                owl.matmul(b.transpose([1, 0, 2, 3]), a.transpose([1, 0, 2, 3])) * 2 + 1,
                owl.matmul(a[:, :0], b[:0]), owl.matmul(a.transpose([0, 3, 2, 1]), b.transpose([3, 1, 2, 0]))]  # fmt: skip

    agree(gpu, products, a.astype(dtype), b.astype(dtype), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
def test_take_and_put_add(gpu, dtype):
    rng = np.random.default_rng(3)
    for shape, axis, of_indices in (((7,), 0, (3000,)), ((5, 4, 3), 1, (2, 3)), ((300, 3), 0, (5,)), ((4, 2), 1, (0,))):
        x, i = (numbers(*shape) * 5).astype(dtype), rng.integers(-shape[axis], shape[axis], of_indices).astype(np.int32)
        along = len(shape) - 1 - axis
        agree(gpu, lambda x, i: [owl.take(x, i, along), owl.take(x, i, along) + 1, owl.sort(x, along)[:1]], x, i, exact=True)
        if dtype == "bool":
            continue
        values = (numbers(*np.take(x, i, axis).shape, seed=1) * 5).astype(dtype)
        agree(gpu, lambda x, i, v: [owl.put_add(x, i, v, along), owl.put_add(x, i, v, along) * 2,
                                    owl.put_add(x * 1, i, v, along)], x, i, values, exact=True)
    agree(gpu, lambda i: [owl.one_hot(i, 4, dtype)], np.int32([0, 3, 1]), exact=True)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
def test_sorting(gpu, dtype):
    for shape in ((9,), (3, 5), (4, 5, 6), (5000,), (2, 2049), (1500, 3)):
        x = np.round(numbers(*shape) * 3)
        if dtype.startswith("float"):
            x.reshape(-1)[::7], x.reshape(-1)[1::9], x.reshape(-1)[2::50] = np.nan, -0.0, np.inf
        for axis in range(len(shape)):
            agree(gpu, lambda x: [owl.sort(x, axis), owl.argsort(x, axis), *owl.topk(x, 3 if x.shape[axis] > 2 else 1, axis)],
                  x.astype(dtype), exact=True)  # fmt: skip


def test_gradients_of_choosing(gpu):
    x, i = numbers(6, 5), np.int32([0, 4, 4, 1])
    agree(gpu, lambda x, i: [owl.grad(lambda x: elewise.square(owl.take(x, i, 0)).sum())(x),
                             owl.grad(lambda x: elewise.mult(owl.topk(x, 2)[0], owl.topk(x, 3)[0][1:]).sum())(x)], x, i)


def test_an_index_out_of_range_fails_what_is_computed_from_it(gpu):
    with owl.device(gpu):
        x = owl.arange(12).reshape([3, 4])
        fine = owl.take(x, [0, -1], 1)
        y = owl.take(x, [1, 7], 1)
        z = owl.relu(y + 1).sum()
        for value in (z, y, z * 2, y + 1):
            with pytest.raises(owl.IndexError, match="take: index 7 is out of range for axis 1 with size 4.*test_cuda.py"):
                value.to_numpy()
        with pytest.raises(owl.IndexError, match="put_add: index -5"):
            owl.put_add(x, [0, -5], 1, 1).to_numpy()
        with pytest.raises(owl.IndexError, match="one_hot: label 4"):
            owl.one_hot([4], 4).copy_to(0).to_numpy()
        del y, z, value
        late = owl.take(x, [4], 1) + 1
        with pytest.raises(owl.IndexError, match="index 4"):
            owl.wait_for_all()
        owl.wait_for_all()  # reported once
        del late
        assert fine.tolist() == [[0, 9], [1, 10], [2, 11]] and (x + 1).sum().item() == 78
        for _ in range(2000):  # cells are used again
            x = owl.take(x, [3, 2, 1, 0], 1)
        assert x.tolist() == np.arange(12).reshape(4, 3).T.tolist()


@pytest.mark.parametrize("op", [conv.soft_op.instance, conv.soft_op.channel])
@pytest.mark.parametrize("shape", [(10,), (3, 10), (7, 2000), (4, 5, 6, 7), (2, 40_000), (3, 1, 5)])
def test_softmax(gpu, shape, op):
    if op == conv.soft_op.channel and len(shape) < 2:
        return
    x, err = numbers(*shape) * 5, numbers(*shape, seed=1)
    agree(gpu, lambda x, e: [conv.softmax(x, op), conv.log_softmax(x, op), conv.softmax_back(e, conv.softmax(x, op), op),
                             owl.grad(lambda x: elewise.mult(e, conv.log_softmax(x, op)).sum())(x),
                             conv.softmax(x * 2 - 1, op), conv.softmax(x, op) + e], x, err)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(10,), (3, 10), (700, 7), (3, 2000), (2, 40_000), (3, 5, 64), (300, 100)])
def test_normalisation(gpu, shape, dtype):
    x, w, b, err = numbers(*shape, dtype=dtype), numbers(shape[-1], dtype=dtype), numbers(shape[-1], seed=1, dtype=dtype), numbers(*shape, seed=2, dtype=dtype)

    def gradients(x, w, b, e, of=(0, 1, 2)):
        operands = [x, w, b]
        with owl.Tape() as tape:
            y = owl.layer_norm(*operands)
        return tape.gradient(y, [operands[i] for i in of], seed=e)

    tolerance = 1e-4 if dtype == "float32" else 1e-12
    agree(gpu, lambda x, w, b, e: [owl.layer_norm(x, w, b), owl.layer_norm(x * 2 + 3, w, b, eps=0.1) - x, *gradients(x, w, b, e),
                                   *gradients(x, w, b, e * 2, [0]), *gradients(x, w, b, e, [1])], x, w, b, err, rtol=tolerance, atol=tolerance)
    if len(shape) > 1:
        agree(gpu, lambda x: [conv.softmax(x, axis=1), owl.batch_norm(x, *[owl.full([x.shape[-2]], 1.5)] * 4)], x, rtol=tolerance, atol=tolerance)


GEOMETRY = [dict(), dict(pad_h=1, pad_w=2), dict(stride_v=2, stride_h=3), dict(pad_h=2, pad_w=2, dilation=2),
            dict(groups=2, pad_h=1, pad_w=1)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("more", GEOMETRY)
def test_convolution(gpu, more, dtype):
    more = dict(dict(pad_h=0, pad_w=0, stride_v=1, stride_h=1), **more)
    c = conv.Convolver(**more)
    x, w, b = numbers(3, 4, 9, 11, dtype=dtype), numbers(6, 4 // more.get("groups", 1), 3, 2, seed=1, dtype=dtype), numbers(6, dtype=dtype)
    err = numbers(*on(0, c.ff, x, w, b)[0].shape, seed=2, dtype=dtype)
    agree(gpu, lambda x, w, b, e: [c.ff(x, w, b), c.bp(e, x, w), c.weight_grad(e, x, w), c.bias_grad(e),
                                   elewise.relu(c.ff(x, w, b)) + 1], x, w, b, err, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_convolution_of_what_begins_anywhere(gpu, precision):
    """A part of an array may begin at any element; a library's kernels read several at a time."""
    c = conv.Convolver(pad_h=1, pad_w=1, stride_v=1, stride_h=1)
    x, w, b, err = numbers(4, 4, 9, 11), numbers(7, 4, 3, 3, seed=1), numbers(6), numbers(4, 6, 9, 11, seed=2)
    owl.set_matmul_precision(precision)
    try:
        agree(gpu, lambda x, w, b, e: [c.ff(x[..., 1:], w[..., 1:], b), c.bp(e[..., 1:], x[..., 1:], w[..., 1:]),
                                       c.weight_grad(e[..., 1:], x[..., 1:], w[..., 1:])], x, w, b, err,
              **(dict(rtol=1e-4, atol=1e-4) if precision == "float32" else dict(rtol=0.05, atol=0.2)))
    finally:
        owl.set_matmul_precision("float32")


@pytest.mark.parametrize("op", [conv.pool_op.max, conv.pool_op.avg])
@pytest.mark.parametrize("window", [(2, 2, 2, 2), (3, 3, 2, 2), (3, 2, 1, 3), (2, 3, 3, 2, 1, 1), (5, 5, 2, 2, 2, 2)])
def test_pooling(gpu, window, op):
    p = conv.Pooler(*window, op=op)
    x = np.round(numbers(3, 4, 9, 11) * 2)  # with equal maxima
    err = numbers(*on(0, p.ff, x)[0].shape, seed=2)
    agree(gpu, lambda x, e: [p.ff(x), p.bp(e, p.ff(x), x), p.ff(x) * 2], x, err)


def test_sums_of_many_elements(gpu):
    """In double, as on the CPU."""
    average = conv.Pooler(1000, 1000, 1000, 1000, op=conv.pool_op.avg)
    x = np.full((1, 1, 1000, 1000), 0.1, np.float32)
    assert on(gpu, average.ff, x)[0].ravel() == np.float32(0.1)
    overlapping, channels = conv.Pooler(60, 60, 1, 1, op=conv.pool_op.avg), conv.Lrner(8001, 8001.0, 1.0)
    err, many = np.full((1, 1, 60, 60), 0.1, np.float32), np.full((1, 4000, 1, 1), 0.1, np.float32)
    agree(gpu, lambda e, x, m: [overlapping.bp(e, e, x[:119, :119]), channels.ff(m, m),
                                channels.bp(m, channels.ff(m, m), m, m)], err, x, many, rtol=1e-6, atol=0)
    rows = np.full((1, 300_000), -2.3, np.float32)
    rows[0, 0] = 0
    for op, shape in ((conv.soft_op.instance, (1, 300_000)), (conv.soft_op.channel, (1, 100_000, 3))):
        agree(gpu, lambda x: [conv.softmax(x, op).max(), conv.log_softmax(x, op).max(), conv.softmax_back(x, x, op).max()],
              rows.reshape(shape), rtol=1e-6, atol=0)


@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0, 0.6])
def test_lrn(gpu, beta):
    n = conv.Lrner(5, 0.3, beta)
    x, err = numbers(2, 7, 5, 6), numbers(2, 7, 5, 6, seed=1)
    agree(gpu, lambda x, e: [n.ff(x, x), n.bp(x, n.ff(x, x), x, e)], x, err)


def test_rearrangements(gpu):
    x, y = numbers(6, 4, 3), numbers(6, 4, 3, seed=1)
    agree(gpu, lambda x, y: [owl.stack([x, y], 1), *owl.split(x, 2, 1), owl.pad(x, [(1, 2), (0, 0), (3, 1)], 0.5), owl.flip(x),
                             owl.roll(x, 5), owl.roll(y, -1, 1), owl.tile(x, [2, 1, 3]), owl.repeat(y, 2, 1), (x > 0).any(1),
                             x.all(), owl.tile(x > 0, 2)], x, y, exact=True)
    agree(gpu, lambda x: [x.var(1), x.std(), owl.logsumexp(x, [0, 2])], x)


def test_concat_and_slice(gpu):
    x, y = numbers(4, 5, 6), numbers(4, 2, 6, seed=1)
    agree(gpu, lambda x, y: [owl.concat([x, y, x], 1), owl.concat([x[1:3], y[1:3]], 1), owl.slice(x, 2, 1, 2),
                             owl.concat([x > 0, y > 0], 1)], x, y, exact=True)


def test_masks_that_are_drawn_again(gpu):
    """Dropout's, and those of a checkpoint: the forward pass's numbers."""
    def layer(x):
        return elewise.mult(x * 2.0 + owl.rand(x.shape), owl.stop_gradient(owl.randb(x.shape, 0.5)))

    def gradient(x, wrap):
        owl.seed(4)
        return owl.grad(lambda x: elewise.square(wrap(layer)(wrap(layer)(x))).sum())(x)

    x = owl.rand([37, 5])
    agree(gpu, lambda x: [gradient(x, lambda f: f), gradient(x, owl.checkpoint)], x, exact=True)


def test_gradients_of_views(gpu):
    def gradient(x, parts):
        return owl.grad(lambda x: sum((elewise.square(part(x)).sum() for part in parts), 0.0))(x)

    some = [lambda x: x[1:3], lambda x: x[::-2, 1:], lambda x: x[0, 1, 2], lambda x: x.transpose([2, 0, 1])[:, ::3]]
    x = numbers(4, 5, 6)
    agree(gpu, lambda x: [gradient(x, some), gradient(x, some[1:2] * 5), gradient(x, some[2:3])], x, exact=True)


def test_fusion_around_kernels(gpu):
    x, y = numbers(60, 50), numbers(60, 50, seed=1)
    agree(gpu, lambda x, y: [elewise.mult(x, y).sum(0), elewise.exp((x + y).max(1)) - 1, (x - x.mean(0)).sum(1) + 2,
                             conv.softmax(x + y) - y, (elewise.relu(x) > 0.5).sum()], x, y, rtol=1e-4, atol=1e-4)


def test_fusion_behind_what_makes_arrays(gpu):
    def made(x):
        owl.seed(4)
        return [owl.rand([1000]) * 2.0 - 1.0, owl.randn([1000]) + x, owl.full([1000], 0.5) + x, owl.arange(1000) * 3.0,
                owl.randb([1000], 0.3) + x]

    agree(gpu, made, numbers(1000), exact=True)
    with owl.device(gpu):
        plan = owl.explain(lambda: owl.rand([1000]) * 2.0 - 1.0)
    assert [task.operations for task in plan.tasks] == [["rand", "mult", "sub"]]


def test_kernels_wait_for_each_other_without_harm(gpu):
    """All of a GPU's kernels run one after another: a short one's task may read what another kernel makes."""
    with owl.device(gpu):
        x, y = owl.ones([4, 4]), owl.ones([4, 4])
        owl.wait_for_all()
        plan = owl.explain(lambda: x * y + x.sum(0))
    assert [task.operations for task in plan.tasks] == [["sum"], ["matmul", "add"]]


# ---- laws

def test_same_bits_lazy_or_eager(gpu):
    rng = random.Random(5)
    for i in range(12 if TEST_DEVICE == "standin" else 30):  # each compiles new kernels, up to half a second
        program = programs.random_program(rng, 12)
        options = dict(seed=i, shapes=programs.SHAPES, devices=(gpu,), rough=True)
        with window(1, -1):
            want = programs.evaluate(program, waits=3, **options)
        with window(64, rng.choice([-1, 100])):
            got = programs.evaluate(program, waits=0, **options)
        assert all(same_bits(a, b) for a, b in zip(got, want, strict=True)), program


def train(gpu, steps=30, wait_each=False, batch=8):
    with owl.device(gpu):
        owl.seed(3)
        x, t = owl.randn([20, 64]), owl.rand([5, 64])
        w, b = owl.randn([5, 20], 0.0, 0.3), owl.zeros([5, 1])
        for i in range(steps):
            at = i % (64 // batch) * batch
            xs, ts = owl.slice(x, 1, at, batch), owl.slice(t, 1, at, batch)
            y = elewise.sigm(w * xs + b)
            e = elewise.sigm_back(y - ts, y)
            w -= 0.1 * (e * xs.T)
            b -= 0.1 * e.sum(1)
            if wait_each:
                w.wait_for_eval()
        return [w.to_numpy(), b.to_numpy()]


@pytest.mark.parametrize("wait_each", [False, True])
def test_loops_become_graphs_with_the_same_bits(gpu, wait_each):
    with owl.eager():
        want = train(gpu)
    with window(WINDOW[0], -1):  # not planned where a busy machine lets the script pause
        before = owl.stats()
        got = train(gpu, wait_each=wait_each)
        after = owl.stats()
        assert all(same_bits(a, b) for a, b in zip(got, want, strict=True))
        assert after["graph_replays"] > before["graph_replays"]
        longer = train(gpu, steps=100, wait_each=wait_each)
        assert owl.stats()["graph_captures"] - after["graph_captures"] < 25  # not one for each step
    assert not same_bits(longer[0], want[0])


def test_devices_mix_and_copies_overlap(gpu):
    x = numbers(100, 100)
    a = owl.from_numpy(x)
    with owl.device(0):
        b = owl.from_numpy(x) + 1
        c = a + b  # copied to the CPU
        assert c.device == 0
    d = c + a
    assert d.device == gpu
    assert same_bits(d.to_numpy(), (x + (x + 1)) + x)
    assert same_bits(a[10:20].copy_to(0).to_numpy(), x[:, 10:20])
    assert same_bits(b.copy_to(gpu).to_numpy(), x + 1)


def second_gpu():
    """Another GPU's device, created once."""
    if not hasattr(second_gpu, "id"):
        if owl.get_gpu_device_count() < 2:
            pytest.skip("needs two GPUs")
        second_gpu.id = owl.create_gpu_device(1)
    return second_gpu.id


def test_all_reduce_by_nccl(gpu):
    other = second_gpu()
    calls = CUDA.standin_count(b"ncclAllReduce") if CUDA else 0
    for i, dtype in enumerate(("float32", "float64", "int32")):
        x, y = (numbers(50, 30, seed=i) * 9).astype(dtype), (numbers(50, 30, seed=9) * 9).astype(dtype)
        for _ in range(3):
            a = owl.from_numpy(x) + 1
            with owl.device(other):
                b = owl.from_numpy(y)[:, ::-1]
            p, q = owl.all_reduce([a, b])
            assert (p.device, q.device) == (gpu, other)
            with owl.device(other):
                twice = q * 2
            assert same_bits(p.to_numpy(), (x + 1) + y[::-1]) and same_bits(twice.to_numpy(), ((x + 1) + y[::-1]) * 2)
            del p, q, a, b, twice
    if CUDA:
        assert CUDA.standin_count(b"ncclAllReduce") == calls + 18


def test_an_index_out_of_range_fails_the_copy_on_another_gpu(gpu):
    other = second_gpu()
    with owl.device(other):
        x = owl.arange(4)
        bad, good = owl.take(x, [9], 0) * 2, owl.take(x, [3], 0) * 2
    with owl.device(gpu):
        with pytest.raises(owl.IndexError, match="take: index 9"):
            (bad + 1).to_numpy()
        assert (good + 1).item() == 7


def test_a_sum_that_only_one_gpu_needs(gpu):
    other = second_gpu()
    with owl.device(other):
        b = owl.ones([100]) * 2
    wanted, dropped = owl.all_reduce([owl.ones([100]), b])
    del dropped
    assert wanted.to_numpy().tolist() == [3] * 100


def test_data_may_change_after_from_numpy(gpu):
    x = np.zeros(300_000, np.float32)
    total = owl.zeros([1])
    for i in range(20):
        x[:] = i
        total += owl.from_numpy(x).sum()
    assert total.item() == sum(range(20)) * 300_000


# ---- memory and errors

def test_memory_is_counted_and_given_back(gpu):
    owl.wait_for_all()
    before = owl.memory_stats(gpu)["allocated"]
    x = owl.zeros([1000, 250])
    x.wait_for_eval()
    assert owl.memory_stats(gpu)["allocated"] - before == 1_000_000 + 48_576  # its class, an eighth of a power of two
    del x
    owl.wait_for_all()
    assert owl.memory_stats(gpu)["allocated"] == before
    owl.empty_cache()
    assert owl.memory_stats(gpu)["cached"] == 0


def test_out_of_memory_in_a_loop_and_on_with_half(gpu, limit):
    owl.empty_cache()
    limit(owl.memory_stats(gpu)["allocated"] + 3_000_000)
    w, batch, done = owl.ones([100, 1]), 16_000, []
    while len(done) < 5:
        try:
            y = elewise.sigm(owl.randn([100, batch]) + w)
            w = y.mean(1)
            w.wait_for_eval()
            done.append(batch)
        except owl.OutOfMemoryError as e:
            assert "largest holders" in str(e) or "in use" in str(e)
            batch //= 2
            w = owl.ones([100, 1])
    assert done[-1] < 16_000 and np.isfinite(w.to_numpy()).all()


def test_no_such_gpu(gpu):
    with pytest.raises(owl.DeviceError, match=r"no GPU 77: .*GPU.*create_cpu_device"):
        owl.create_gpu_device(77)
    assert owl.get_gpu_device_count() >= 1 and owl.has_cuda()
    with pytest.raises(owl.DeviceError):
        owl.create_gpu_device(-1)


def test_devices_tell_what_they_are(gpu):
    info = next(d for d in owl.devices() if d.id == gpu)
    assert info.kind == "gpu" and "GPU 0" in info.name and not info.simulated


def test_nan_is_traced(gpu):
    x = owl.from_numpy(np.float32([1, 0, 2]))
    with owl.trace_nan():
        y = elewise.ln(x)
        z = y * 2
    with pytest.raises(owl.NaNError, match="ln made -infinity of 0"):
        z.to_numpy()
    with owl.trace_nan():
        big = owl.full([4, 4], 1e30)
        product = big * big
    with pytest.raises(owl.NaNError, match="matmul made infinity"):
        product.wait_for_eval()
    assert (x + 1).to_numpy().tolist() == [2, 1, 3]


def test_operations_of_users_compute_on_the_host(gpu):
    double = owl.op(lambda a: a * 2)
    y = double(owl.ones([3]))
    assert y.device == gpu and (y + 1).to_numpy().tolist() == [3, 3, 3]


@pytest.mark.parametrize("shape", [(2, 2), (5000,), (40, 50), (8, 9, 20), (0, 3)])
def test_repr_shows_what_the_cpu_shows(gpu, shape):
    a = numbers(*shape)
    here = owl.from_numpy(a)
    with owl.device(0):
        want = repr(owl.from_numpy(a)).replace("device=0", f"device={gpu}")
        want_view = repr(owl.from_numpy(a)[::-1]).replace("device=0", f"device={gpu}")
    assert repr(here) == want
    with unflushed():
        assert repr(here + 0) == want
        with owl.device(0):  # the printed value comes from its own device
            assert repr(here[::-1]) == want_view


def test_a_forked_child_is_told(gpu):
    done = children.run(f"""
        import os, sys
        os.environ["OWL_TEST_DEVICE"] = "{TEST_DEVICE}"
        import conftest
        import owl
        owl.set_device(conftest.DEFAULT_DEVICE)
        x = owl.ones([3]); x.wait_for_eval()
        pid = os.fork()
        if pid == 0:
            guard_fork()
            try:
                x + 1
            except owl.DeviceError as e:
                assert "forked process" in str(e), e
            try:
                x.to_numpy()
            except owl.DeviceError as e:
                assert "forked process" in str(e), e
                owl.set_device(0)
                assert owl.ones([2]).to_numpy().sum() == 2
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert (x + 1).to_numpy().tolist() == [2, 2, 2]
        print("fine")
    """)
    assert "fine" in done.stdout


@needs_standin
def test_a_fault_of_the_gpu_comes_home():
    done = children.run("""
        import os
        os.environ["OWL_TEST_DEVICE"] = "standin"
        import conftest
        import owl
        gpu = conftest.DEFAULT_DEVICE
        owl.set_device(gpu)
        x = owl.ones([3]) * 2
        x.wait_for_eval()
        conftest.CUDA.standin_fail(b"cuLaunchKernel:1:700")
        y = owl.elewise.exp(x)
        try:
            y.wait_for_eval()
        except owl.DeviceError as e:
            assert "exp" in str(e) and "CUDA_ERROR_ILLEGAL_ADDRESS" in str(e) and "user_script.py" in str(e), e
        else:
            raise SystemExit("no error")
        try:
            (x + 1).to_numpy()
        except owl.DeviceError as e:
            pass
        else:
            raise SystemExit("no error")
        owl.set_device(0)
        assert (owl.ones([2]) + 1).to_numpy().tolist() == [2, 2]
        print("fine")
    """)
    assert "fine" in done.stdout


@needs_standin
def test_data_after_a_fault_of_the_gpu():
    """Many copies are in flight, each with pinned memory: the next must not wait for one of them."""
    done = children.run("""
        import os
        os.environ["OWL_TEST_DEVICE"] = "standin"
        import conftest
        import numpy as np
        import owl
        owl.set_device(conftest.DEFAULT_DEVICE)
        x, spare = owl.ones([3]) * 2, owl.zeros([1000])
        owl.wait_for_all()
        conftest.CUDA.standin_delay(20_000_000)
        on_their_way = [owl.from_numpy(np.zeros(1000, "f4")) for _ in range(32)]
        del spare  # memory for the next operation: the driver allocates none after a fault
        conftest.CUDA.standin_fail(b"cuLaunchKernel:1:700")
        y = owl.elewise.exp(x)
        for ask in (y.wait_for_eval, lambda: owl.from_numpy(np.zeros(1000, "f4")), x.to_numpy, owl.wait_for_all):
            try:
                ask()
            except owl.DeviceError as e:
                assert "CUDA_ERROR_ILLEGAL_ADDRESS" in str(e), e
            else:
                raise SystemExit("no error")
        print("fine", flush=True)
        os._exit(0)  # without waiting for running work
    """)
    assert "fine" in done.stdout


@needs_standin
def test_memory_that_libraries_need():
    """owl's cache is freed when the driver or a library lacks memory."""
    done = children.run("""
        import os
        os.environ["OWL_TEST_DEVICE"] = "standin"
        import conftest
        import numpy as np
        import owl
        gpu = conftest.DEFAULT_DEVICE
        owl.set_device(gpu)

        def fill():
            size = 1 << 28
            while size >= 1 << 14:  # until even a kernel's module no longer fits
                try:
                    blocks = owl.zeros([size // 4])
                    blocks.wait_for_eval()
                    kept.append(blocks)
                except owl.OutOfMemoryError:
                    size //= 2

        a, b = owl.ones([40, 30]), owl.ones([30, 20])
        x, w, bias = owl.ones([9, 9, 2, 2]), owl.ones([3, 3, 2, 2]), owl.zeros([2])
        owl.wait_for_all()
        c = owl.conv.Convolver(1, 1, 1, 1)
        for compute in (lambda: a * b, lambda: c.ff(x, w, bias), lambda: owl.conv.softmax(a)):
            kept = []
            fill()
            assert len(kept) > 3
            kept.clear()
            owl.wait_for_all()
            assert owl.memory_stats(gpu)["cached"] > 20e6
            assert np.isfinite(compute().to_numpy()).all()
        print("fine")
    """, env={"STANDIN_CUDA_MEMORY": str(200 << 20)})
    assert "fine" in done.stdout


def test_leaving_the_interpreter(gpu):
    for end in ("", "import os; os.kill(os.getpid(), 2)"):
        children.run(f"""
            import os
            os.environ["OWL_TEST_DEVICE"] = "{TEST_DEVICE}"
            import conftest
            import owl
            owl.set_device(conftest.DEFAULT_DEVICE)
            x = owl.ones([100, 100])
            for i in range(300):
                x = owl.elewise.tanh(x + 1)
            try:
                {end or "pass"}
            except KeyboardInterrupt:
                pass
        """)


@needs_standin
def test_only_the_first_use_opens_cuda():
    before = CUDA.standin_count(b"cuInit")
    assert before == 1
