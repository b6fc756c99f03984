"""Convolution, pooling, LRN and softmax compared with plain loops in float64, and identities that need no reference."""
import copy
import pickle

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

import owl
import reference as ref
from conftest import SOAK, Counted, same_bits, settle, unflushed

C = owl.conv
EPS = np.finfo(np.float32).eps


def data(shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def near(got, want, terms=1, scale=1.0):
    """Within one rounding per added term, at the data's magnitude."""
    assert got.shape == list(want.shape[::-1])
    np.testing.assert_allclose(got.to_numpy(), want, rtol=8 * EPS * terms ** 0.5 + 8 * EPS,
                               atol=8 * EPS * terms * scale + 1e-12)


def f64(*arrays):
    return [a.astype(np.float64) for a in arrays]


def dot(a, b):
    return float((a.to_numpy().astype(np.float64) * b.to_numpy().astype(np.float64)).sum())


# --- convolution

def check_conv(x_shape, w_shape, seed=0, plain=None, **options):
    plain = plain or ref.Conv(**options)
    convolver = C.Convolver(**options)
    x, w, b = data(x_shape, seed), data(w_shape, seed + 1), data(w_shape[:1], seed + 2)
    err = data((x_shape[0], w_shape[0], *plain.out_size(x_shape, w_shape)), seed + 3)
    ox, ow, ob, oerr = map(owl.from_numpy, (x, w, b, err))
    X, W, B, ERR = f64(x, w, b, err)
    window = int(np.prod(w_shape[1:]))
    near(convolver.ff(ox, ow, ob), plain.ff(X, W, B), window, 4)
    near(convolver.bp(oerr, ox, ow), plain.bp(ERR, X, W), w_shape[0] * w_shape[2] * w_shape[3], 4)
    near(convolver.weight_grad(oerr, ox, ow), plain.weight_grad(ERR, X, W), max(1, err.size // w_shape[0]), 4)
    near(convolver.bias_grad(oerr), ERR.sum(axis=(0, 2, 3)), max(1, err.size // w_shape[0]), 4)


CONVS = [  # x [N, C, H, W], w [C_out, C_in / groups, kh, kw], options
    ((2, 1, 6, 7), (3, 1, 3, 3), {}),
    ((1, 3, 5, 5), (2, 3, 1, 1), {}),
    ((2, 2, 5, 9), (3, 2, 5, 9), {}),
    ((2, 3, 7, 5), (4, 3, 3, 2), dict(pad_h=1)),
    ((2, 3, 5, 7), (4, 3, 2, 3), dict(pad_w=2)),
    ((1, 2, 9, 8), (3, 2, 3, 3), dict(stride_v=2)),
    ((1, 2, 8, 9), (3, 2, 3, 3), dict(stride_h=3)),
    ((2, 2, 10, 7), (2, 2, 3, 2), dict(pad_h=2, pad_w=1, stride_v=3, stride_h=2)),
    ((1, 2, 9, 9), (2, 2, 3, 3), dict(dilation=2)),
    ((2, 4, 6, 6), (6, 2, 3, 3), dict(groups=2)),
    ((1, 4, 5, 5), (4, 1, 3, 3), dict(groups=4, pad_h=1, pad_w=1)),
    ((2, 4, 9, 8), (4, 2, 2, 3), dict(groups=2, dilation=2, pad_h=2, pad_w=1, stride_v=2)),
    ((3, 16, 8, 8), (32, 16, 5, 5), dict(pad_h=2, pad_w=2)),
    ((4, 1, 28, 28), (16, 1, 5, 5), {}),
    ((17, 3, 4, 4), (1, 3, 4, 4), {}),
]


@pytest.mark.parametrize("x_shape,w_shape,options", CONVS, ids=str)
def test_conv(x_shape, w_shape, options):
    check_conv(x_shape, w_shape, **options)


@given(st.data())
@settings(max_examples=60 * SOAK)
def test_conv_random(d):
    groups = d.draw(st.integers(1, 3), "groups")
    options = dict(pad_h=d.draw(st.integers(0, 3)), pad_w=d.draw(st.integers(0, 3)), stride_v=d.draw(st.integers(1, 3)),
                   stride_h=d.draw(st.integers(1, 3)), dilation=d.draw(st.integers(1, 2)), groups=groups)
    kernel = d.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)), "kernel")
    image = d.draw(st.tuples(st.integers(1, 8), st.integers(1, 8)), "image")
    x_shape = (d.draw(st.integers(1, 3)), groups * d.draw(st.integers(1, 3)), *image)
    w_shape = (groups * d.draw(st.integers(1, 3)), x_shape[1] // groups, *kernel)
    assume(min(ref.Conv(**options).out_size(x_shape, w_shape)) > 0)
    check_conv(x_shape, w_shape, seed=d.draw(st.integers(0, 1000), "seed"), **options)


@pytest.mark.parametrize("options", [(0, 0, 1, 1), (2, 1, 1, 2), (1, 2, 3, 1)], ids=str)
def test_conv_gradients_are_the_adjoints(options):
    """<conv(x, w), e> = <x, bp(e)> = <w, weight_grad(e)>, for a zero bias."""
    c = C.Convolver(*options)
    x, w = owl.from_numpy(data((5, 6, 20, 17))), owl.from_numpy(data((9, 6, 5, 3)))
    y = c.ff(x, w, owl.zeros([9]))
    err = owl.from_numpy(data(y.to_numpy().shape, 7))
    want = dot(y, err)
    scale = np.linalg.norm(y.to_numpy()) * np.linalg.norm(err.to_numpy())
    assert abs(dot(x, c.bp(err, x, w)) - want) < 1e-5 * scale
    assert abs(dot(w, c.weight_grad(err, x, w)) - want) < 1e-5 * scale


def check_large_conv(x_shape, w_shape, **options):
    check_conv(x_shape, w_shape, plain=ref.LargeConv(**options), **options)


@pytest.mark.parametrize("x_shape, w_shape, options", [
    ((2, 3, 224, 224), (64, 3, 7, 7), dict(pad_h=2, pad_w=2, stride_v=2, stride_h=2)),  # ResNet's first layer
    ((1, 8, 224, 224), (64, 8, 7, 7), dict(pad_h=3, pad_w=3, stride_v=2, stride_h=2)),
    ((1, 3, 227, 227), (96, 3, 11, 11), dict(stride_v=4, stride_h=4)),                  # AlexNet's
    ((1, 64, 224, 224), (5, 64, 3, 3), dict(pad_h=1, pad_w=1)),                         # few filters
    ((1, 40, 60, 70), (72, 40, 5, 5), {}),                                              # blocks of channels
    ((3, 48, 20, 20), (32, 48, 1, 1), {}),                                              # products of planes
    ((3, 48, 9, 9), (32, 48, 1, 1), {}),                                                # small ones
    ((3, 32, 20, 20), (48, 32, 1, 1), dict(stride_v=2, stride_h=2)),
    ((3, 32, 20, 20), (64, 32, 3, 3), dict(pad_h=1, pad_w=1)),                          # a weight gradient in blocks
    ((2, 13, 29, 31), (27, 13, 5, 5), dict(pad_h=2, pad_w=2)),                          # odd numbers of channels
    ((5, 160, 5, 5), (192, 160, 3, 3), dict(pad_h=1, pad_w=1)),                         # filters larger than images
])
def test_large_conv(x_shape, w_shape, options):
    check_large_conv(x_shape, w_shape, **options)


def random_large_conv(r):
    """Images to 512 x 512, kernels to 11 x 11, strides to 4, dilation, groups, often of one image."""
    def one(low, high):
        return int(round(np.exp(r.uniform(np.log(low), np.log(high)))))
    while True:
        size, kernel = (one(32, 512), one(32, 512)), (int(r.integers(1, 12)), int(r.integers(1, 12)))
        groups = int(r.choice([1, 1, 1, 2, 4]))
        images, channels, filters = int(r.choice([1, 1, 2, 5])), groups * one(1, 48), groups * one(1, 96)
        options = dict(pad_h=int(r.integers(0, kernel[0] + 1)), pad_w=int(r.integers(0, kernel[1] + 1)),
                       stride_v=int(r.integers(1, 5)), stride_h=int(r.integers(1, 5)),
                       dilation=int(r.choice([1, 1, 2, 3])), groups=groups)
        x_shape, w_shape = (images, channels, *size), (filters, channels // groups, *kernel)
        out = ref.LargeConv(**options).out_size(x_shape, w_shape)
        work = 2 * images * filters * np.prod(w_shape[1:], dtype=float) * max(0, out[0]) * max(0, out[1])
        if min(out) > 0 and 1e7 < work < 3e8:
            return x_shape, w_shape, options


def test_large_conv_random():
    r = np.random.default_rng(SOAK)
    for _ in range(6 * SOAK):
        x_shape, w_shape, options = random_large_conv(r)
        check_large_conv(x_shape, w_shape, **options)


def test_conv_of_views_and_expressions():
    x, w, b = data((4, 3, 12, 10)), data((5, 3, 3, 3), 1), data((5,), 2)
    c, plain = C.Convolver(1, 1, 1, 1), ref.Conv(1, 1)
    ox = owl.from_numpy(x)
    near(c.ff(ox[::2, 1:9], owl.from_numpy(w), owl.from_numpy(b)), plain.ff(*f64(x[:, :, 1:9, ::2], w, b)), 27, 4)
    got = owl.elewise.relu(c.ff(ox * 2, owl.from_numpy(w), owl.from_numpy(b)) + 1) - 1
    near(got, np.maximum(plain.ff(*f64(x * 2, w, b)) + 1, 0) - 1, 27, 8)
    near(c.ff(owl.slice(ox, 3, 1, 2), owl.from_numpy(w), owl.from_numpy(b)), plain.ff(*f64(x[1:3], w, b)), 27, 4)


def test_conv_and_its_layouts_among_other_operations():
    """Operations between two convolutions read the channels in the right order, in any memory layout."""
    x, w1, w2 = data((3, 2, 10, 10)), data((8, 2, 3, 3), 1), data((4, 8, 3, 3), 2)
    c, p = C.Convolver(1, 1, 1, 1), C.Pooler(2, 2, 2, 2)
    scale = np.arange(1, 9, dtype=np.float32)
    h = c.ff(owl.from_numpy(x), owl.from_numpy(w1), owl.zeros([8]))
    h = owl.elewise.mult(h, owl.from_numpy(scale.reshape(1, 8, 1, 1)))
    pooled = p.ff(owl.elewise.relu(h))
    y = c.ff(pooled, owl.from_numpy(w2), owl.zeros([4]))
    plain = ref.Conv(1, 1)
    H = plain.ff(*f64(x, w1), np.zeros(8)) * scale.reshape(1, 8, 1, 1)
    P = ref.Pool(2, 2, 2, 2).ff(np.maximum(H, 0))
    near(h, H, 18, 40)
    near(h[:, :, 2], H[:, 2], 18, 40)
    near(h.sum(0), H.sum(axis=3, keepdims=True), 180, 40)
    near(pooled.reshape([5 * 5 * 8, 3]), P.reshape(3, -1), 18, 40)
    near(y, plain.ff(P, w2.astype(np.float64), np.zeros(4)), 90, 100)


def residual_block(err, x, w1, w2, w3):
    """1x1, 3x3 and 1x1 filters, each with the layout that suits it, and their gradients."""
    same, one = C.Convolver(1, 1, 1, 1), C.Convolver(0, 0, 1, 1)
    zeros = owl.zeros([32])
    a = owl.elewise.relu(one.ff(x, w1, zeros))
    b = owl.elewise.relu(same.ff(a, w2, zeros))
    y = one.ff(b, w3, owl.zeros([64]))
    sb = owl.elewise.relu_back(one.bp(err, b, w3), b)
    sa = owl.elewise.relu_back(same.bp(sb, a, w2), a)
    return y, one.weight_grad(err, b, w3), same.weight_grad(sb, a, w2), one.weight_grad(sa, x, w1), one.bp(sa, x, w1)


def test_bits_of_a_chain_of_layouts():
    """Images that stay in a kernel's layout between operations have the bits of those that do not."""
    arrays = [owl.from_numpy(data(s, i)) for i, s in enumerate(
        [(4, 64, 14, 14), (4, 64, 14, 14), (32, 64, 1, 1), (32, 32, 3, 3), (64, 32, 1, 1)])]
    with unflushed():
        together = residual_block(*arrays)
    with owl.eager():
        apart = residual_block(*arrays)
    for one, other in zip(together, apart):
        same_bits(one.to_numpy(), other.to_numpy())


@pytest.mark.parametrize("case", [  # options, w, x, b
    (dict(), (3, 3, 2, 4), (8, 8, 3, 1), (4,)), (dict(), (3, 3, 2, 4), (8, 8, 2, 1), (3,)),
    (dict(), (9, 3, 2, 4), (8, 8, 2, 1), (4,)), (dict(), (3, 3, 2), (8, 8, 2, 1), (4,)),
    (dict(), (3, 3, 2, 4), (8, 8, 2), (4,)), (dict(), (3, 3, 2, 4), (8, 8, 2, 1), (4, 1)),
    (dict(groups=3), (3, 3, 2, 4), (8, 8, 2, 1), (4,)), (dict(groups=2), (3, 3, 2, 4), (8, 8, 2, 1), (4,))], ids=str)
def test_conv_shape_errors(case):
    options, w, x, b = case
    with pytest.raises(owl.ShapeError):
        C.Convolver(0, 0, 1, 1, **options).ff(owl.ones(list(x)), owl.ones(list(w)), owl.ones(list(b)))


def test_conv_gradient_shape_errors():
    c, x, w = C.Convolver(0, 0, 1, 1), owl.ones([8, 8, 2, 3]), owl.ones([3, 3, 2, 4])
    for err in ([5, 6, 4, 3], [6, 6, 3, 3], [6, 6, 4, 2], [6, 6, 4]):
        for f in (c.bp, c.weight_grad):
            with pytest.raises(owl.ShapeError):
                f(owl.ones(err), x, w)
    with pytest.raises(owl.ShapeError):
        c.bias_grad(owl.ones([4, 3]))


@pytest.mark.parametrize("options", [(-1, 0, 1, 1), (0, -1, 1, 1), (0, 0, 0, 1), (0, 0, 1, 0), (0, 0, -2, 1)], ids=str)
def test_conv_options_out_of_range(options):
    with pytest.raises(ValueError):
        C.Convolver(*options).ff(owl.ones([8, 8, 1, 1]), owl.ones([3, 3, 1, 1]), owl.ones([1]))


@pytest.mark.parametrize("keyword", ["dilation", "groups"])
@pytest.mark.parametrize("value", [0, -1])
def test_conv_keywords_out_of_range(keyword, value):
    with pytest.raises(ValueError):
        C.Convolver(0, 0, 1, 1, **{keyword: value}).ff(owl.ones([8, 8, 1, 1]), owl.ones([3, 3, 1, 1]), owl.ones([1]))


# --- pooling

def check_pool(x, average, *options, **keywords):
    plain = ref.Pool(*options, average=average, **keywords)
    pooler = C.Pooler(*options, op=C.pool_op.avg if average else C.pool_op.max, **keywords)
    want = plain.ff(x.astype(np.float64))
    ox = owl.from_numpy(x)
    y = pooler.ff(ox)
    near(y, want, 4)
    err = data(want.shape, 9)
    near(pooler.bp(owl.from_numpy(err), y, ox), plain.bp(err.astype(np.float64), x), 16, 4)


POOLS = [((2, 3, 6, 8), (2, 2, 2, 2)), ((2, 3, 7, 9), (2, 2, 2, 2)), ((1, 2, 7, 7), (3, 3, 2, 2)),
         ((1, 2, 8, 8), (3, 3, 2, 2)), ((1, 1, 5, 9), (3, 2, 1, 2)), ((1, 1, 9, 5), (2, 3, 2, 1)),
         ((1, 2, 7, 6), (3, 3, 3, 3)), ((1, 2, 5, 5), (5, 5, 1, 1)), ((1, 2, 8, 8), (1, 1, 3, 3)),
         ((1, 2, 7, 8), (3, 2, 2, 2, 1, 0)), ((2, 2, 8, 7), (3, 3, 2, 2, 1, 1)), ((1, 1, 5, 5), (4, 4, 3, 3, 2, 2)),
         ((2, 32, 8, 8), (3, 3, 3, 3)), ((3, 16, 24, 24), (2, 2, 2, 2))]


@pytest.mark.parametrize("average", [False, True], ids=["max", "avg"])
@pytest.mark.parametrize("ceil_mode", [True, False], ids=["ceil", "floor"])
@pytest.mark.parametrize("shape,options", POOLS, ids=str)
def test_pool(shape, options, ceil_mode, average):
    check_pool(data(shape), average, *options, ceil_mode=ceil_mode)


@given(st.data())
@settings(max_examples=60 * SOAK)
def test_pool_random(d):
    h, w = d.draw(st.integers(1, 4), "h"), d.draw(st.integers(1, 4), "w")
    pads = d.draw(st.integers(0, h - 1), "pad_h"), d.draw(st.integers(0, w - 1), "pad_w")
    image = d.draw(st.integers(max(1, h - 2 * pads[0]), 9), "H"), d.draw(st.integers(max(1, w - 2 * pads[1]), 9), "W")
    x = data((d.draw(st.integers(1, 2)), d.draw(st.integers(1, 3)), *image), d.draw(st.integers(0, 99), "seed"))
    if d.draw(st.booleans(), "ties"):
        x = np.round(x)
    strides = d.draw(st.integers(1, 4), "v"), d.draw(st.integers(1, 4), "h")
    check_pool(x, d.draw(st.booleans(), "average"), h, w, *strides, *pads, ceil_mode=d.draw(st.booleans(), "ceil"))


def test_pool_ties_give_the_error_to_the_first():
    x = owl.ones([4, 4, 1, 1])
    p = C.Pooler(2, 2, 2, 2)
    grad = p.bp(owl.from_numpy(np.array([[[[1., 2], [3, 4]]]], np.float32)), p.ff(x), x).to_numpy()[0, 0]
    np.testing.assert_array_equal(grad, [[1, 0, 2, 0], [0] * 4, [3, 0, 4, 0], [0] * 4])


def test_padding_never_is_the_maximum():
    x = owl.full([3, 3, 1, 1], -5.0)
    np.testing.assert_array_equal(C.Pooler(3, 3, 2, 2, 1, 1).ff(x).to_numpy(), np.full((1, 1, 2, 2), -5.0))


def test_average_is_spelled_two_ways():
    assert C.pool_op.average == C.pool_op.avg
    assert C.Pooler(2, 2, 2, 2, op=C.pool_op.average).ff(owl.ones([2, 2, 1, 1])).shape == [1, 1, 1, 1]


@pytest.mark.parametrize("window", [2000, 500])  # 500: a row of windows is folded at once
def test_averages_of_very_large_windows(window):
    n = 2000
    x, pooler = owl.full([n, n, 1, 1], 0.1), C.Pooler(window, window, window, window, op=C.pool_op.avg)
    y = pooler.ff(x)
    assert (y.to_numpy() == np.float32(0.1)).all()
    assert (y.to_numpy() == x.mean().to_numpy()).all()
    r = np.random.default_rng(0).random((1, 1, n, n), np.float32)
    near(pooler.ff(owl.from_numpy(r)), r.astype(np.float64).reshape(n // window, window, -1, window).mean(axis=(1, 3))[None, None])
    assert (pooler.bp(owl.full(y.shape, 0.1), y, x).to_numpy() == np.float32(0.1) / np.float32(window * window)).all()


def test_average_back_of_many_windows():
    """An element in 40,000 windows."""
    n = 200
    x, pooler = owl.zeros([2 * n - 1, 2 * n - 1, 1, 1]), C.Pooler(n, n, 1, 1, op=C.pool_op.avg)
    y = pooler.ff(x)
    grad = pooler.bp(owl.full(y.shape, 0.1), y, x).to_numpy()
    assert grad[0, 0, n - 1, n - 1] == pytest.approx(0.1, rel=float(2 * EPS))


@pytest.mark.parametrize("channels", [3, 40])  # 40: likely channels last among convolutions
def test_average_bits_do_not_depend_on_the_layout(channels):
    """After a convolution images are channels last; the same image alone is planes."""
    w = owl.from_numpy(data((channels, channels, 3, 3)))
    conv, pooler = C.Convolver(1, 1), C.Pooler(5, 5, 2, 2, 1, 1, op=C.pool_op.avg)
    x, b = owl.from_numpy(data((3, channels, 33, 37), 1)), owl.zeros([channels])
    together = pooler.ff(conv.ff(x, w, b)).to_numpy()
    alone = conv.ff(x, w, b)
    alone.wait_for_eval()
    y = pooler.ff(alone)
    assert same_bits(together, y.to_numpy())
    err = owl.from_numpy(data(y.to_numpy().shape, 2))
    err.wait_for_eval()
    back = pooler.bp(err, y, alone)
    back.wait_for_eval()
    assert same_bits(conv.bp(pooler.bp(err, y, alone), x, w), conv.bp(back, x, w))


@pytest.mark.parametrize("size", [4, 20, 61])  # planes of fewer elements than a vector, of one part and of several
def test_bias_grad_bits_do_not_depend_on_the_layout(size):
    conv, pooler = C.Convolver(1, 1), C.Pooler(2, 2, 2, 2)
    x, w = owl.from_numpy(data((3, 20, size, size))), owl.from_numpy(data((20, 20, 3, 3), 1))
    together = conv.bias_grad(pooler.ff(conv.ff(x, w, owl.zeros([20])))).to_numpy()
    err = pooler.ff(conv.ff(x, w, owl.zeros([20])))
    alone = owl.from_numpy(err.to_numpy())
    assert same_bits(together, conv.bias_grad(alone).to_numpy())
    near(conv.bias_grad(alone), alone.to_numpy().astype(np.float64).sum(axis=(0, 2, 3)), size, 4)


# Sums of float32 over many elements: as accurate as sum() and mean(), whose totals are double.

def test_sums_of_many_elements():
    n, v = 1_000_000, np.float64(np.float32(0.1))
    low = np.float32(-2.3)
    e = np.exp(np.float64(low))

    def near(got, want):
        assert got.shape == list(want.shape[::-1])
        np.testing.assert_allclose(got.to_numpy(), want, rtol=16 * EPS)

    rows = np.full((1, n), low)
    rows[0, 0] = 0
    near(C.softmax(owl.from_numpy(rows)).max(), np.array([1 / (1 + (n - 1) * e)]))
    near(C.log_softmax(owl.from_numpy(rows)).max(), np.array([-np.log(1 + (n - 1) * e)]))
    columns = np.full((1, n, 3), low)
    columns[0, 0] = 0
    near(C.softmax(owl.from_numpy(columns), C.soft_op.channel).max(), np.array([1 / (1 + (n - 1) * e)]))
    for shape, op in (([n, 1], C.soft_op.instance), ([3, n, 1], C.soft_op.channel)):
        y = owl.full(shape, 0.1)
        near(C.softmax_back(y, y, op).max(), np.array([v * (v - n * v * v)]))
    near(C.Convolver().bias_grad(owl.full([2000, 2000, 2, 1], 0.1)), np.full(2, 4e6 * v))
    channels = 6000  # in every window
    x, lrner = owl.full([2, 2, channels, 1], 0.1), C.Lrner(2 * channels + 1, 2.0 * channels + 1, 1.0)
    scale = 1 + channels * v * v
    y = lrner.ff(x, x)
    near(y, np.full((1, channels, 2, 2), v / scale))
    near(lrner.bp(x, y, x, x), np.full((1, channels, 2, 2), v / scale - 2 * v * channels * (v / scale) ** 2))


def test_pool_of_views():
    x = data((2, 3, 9, 11))
    near(C.Pooler(2, 2, 2, 2).ff(owl.from_numpy(x)[::2, 1:7]), ref.Pool(2, 2, 2, 2).ff(x[:, :, 1:7, ::2]))


@pytest.mark.parametrize("options", [(0, 2, 2, 2), (2, 2, 0, 2), (2, 2, 2, -1), (2, 2, 2, 2, -1, 0)], ids=str)
def test_pool_options_out_of_range(options):
    with pytest.raises(ValueError):
        C.Pooler(*options).ff(owl.ones([4, 4, 1, 1]))


def test_pool_shape_errors():
    p = C.Pooler(2, 2, 2, 2)
    with pytest.raises(owl.ShapeError):
        p.ff(owl.ones([4, 4]))
    x = owl.ones([4, 4, 1, 2])
    for err, y in (([3, 2, 1, 2], [2, 2, 1, 2]), ([2, 2, 1, 2], [2, 2, 1, 1])):
        with pytest.raises(owl.ShapeError):
            p.bp(owl.ones(err), owl.ones(y), x)


# --- LRN

@pytest.mark.parametrize("size", [1, 3, 5, 9])
@pytest.mark.parametrize("alpha,beta", [(1e-4, 0.75), (0.5, 0.75), (2.0, 0.5), (0.1, 1.0)])
def test_lrn(size, alpha, beta):
    x, err = data((2, 7, 3, 4)) * 2, data((2, 7, 3, 4), 1)
    ox, scale, unit = owl.from_numpy(x), owl.full([4, 3, 7, 2], 123.0), C.Lrner(size, alpha, beta)
    y = unit.ff(ox, scale)
    near(y, ref.lrn(x.astype(np.float64), size, alpha, beta), 8)
    near(unit.bp(ox, y, scale, owl.from_numpy(err)), ref.lrn_back(*f64(x, err), size, alpha, beta), 16, 4)
    assert (scale.to_numpy() == 123).all(), "scale is neither read nor changed"


def test_lrn_gradient_by_differences():
    """The gradient's formula agrees with the reference's slope, so the reference's gradient is right, and owl's too."""
    x, err = f64(data((1, 6, 2, 2)), data((1, 6, 2, 2), 1))
    grad, h = ref.lrn_back(x, err, 5, 0.9, 0.75), 1e-6
    for at in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[at] = h
        slope = ((ref.lrn(x + step, 5, 0.9, 0.75) - ref.lrn(x - step, 5, 0.9, 0.75)) * err).sum() / (2 * h)
        assert abs(slope - grad[at]) < 1e-7


def test_lrn_errors():
    for size in (0, -1):
        with pytest.raises(ValueError):
            C.Lrner(size, 0.1, 0.75).ff(owl.ones([2, 2, 3, 1]), owl.ones([2, 2, 3, 1]))
    with pytest.raises(owl.ShapeError):
        C.Lrner(3, 0.1, 0.75).ff(owl.ones([3]), owl.ones([3]))


# --- softmax

SOFTMAX_SHAPES = [(5, 10), (1, 10), (64, 3), (3, 1), (2, 3, 4), (2, 5, 3, 4), (256, 10), (2, 1000), (3, 6, 1, 1)]
both = pytest.mark.parametrize("channel", [False, True], ids=["instance", "channel"])


def soft_op(channel):
    return C.soft_op.channel if channel else C.soft_op.instance


@pytest.mark.parametrize("shape", SOFTMAX_SHAPES, ids=str)
@both
def test_softmax(shape, channel):
    x, err = data(shape) * 3, data(shape, 1)
    ox, op = owl.from_numpy(x), soft_op(channel)
    # owl's channel axis is -2: the second in NumPy's order
    near(C.softmax(ox, op), ref.softmax(x.astype(np.float64), channel), 4)
    near(C.log_softmax(ox, op), ref.log_softmax(x.astype(np.float64), channel), 4, 10)
    y = ref.softmax(x.astype(np.float64), channel).astype(np.float32)
    near(C.softmax_back(owl.from_numpy(err), owl.from_numpy(y), op), ref.softmax_back(*f64(err, y), channel), 8)


@pytest.mark.parametrize("shape", [(7,), (5, 10), (2, 300), (300, 2), (2, 3, 4), (70, 5, 3), (2, 5, 3, 4), (3, 1, 2)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_along_any_axis(shape, dtype):
    x, err = (data(shape) * 3).astype(dtype), data(shape, 1).astype(dtype)
    ox, oerr = owl.from_numpy(x), owl.from_numpy(err)
    for axis in range(-len(shape), len(shape)):
        along = (len(shape) - 1 - axis) % len(shape)  # in NumPy's order
        X, ERR = (np.moveaxis(a.astype(np.float64), along, -1).reshape(-1, shape[along]) for a in (x, err))

        def back(a):
            return np.moveaxis(a.reshape([*(n for i, n in enumerate(shape) if i != along), shape[along]]), -1, along)

        near(C.softmax(ox, axis=axis), back(ref.softmax(X)), 4)
        near(C.log_softmax(ox, axis=axis), back(ref.log_softmax(X)), 4, 10)
        y = back(ref.softmax(X)).astype(dtype)
        near(C.softmax_back(oerr, owl.from_numpy(y), axis=axis), back(ref.softmax_back(ERR, ref.softmax(X))), 8)
    assert same_bits(C.softmax(ox, axis=None).to_numpy(), C.softmax(ox).to_numpy())
    if len(shape) > 1:
        assert same_bits(C.softmax(ox, axis=-2).to_numpy(), C.softmax(ox, C.soft_op.channel).to_numpy())


def test_softmax_without_an_op_is_by_instance():
    x = owl.from_numpy(data((4, 3, 5)))
    assert same_bits(C.softmax(x).to_numpy(), C.softmax(x, C.soft_op.instance).to_numpy())
    assert same_bits(C.softmax_back(x, x).to_numpy(), C.softmax_back(x, x, op=C.soft_op.instance).to_numpy())


@both
def test_softmax_is_stable(channel):
    x = owl.from_numpy(np.array([[1e4, 1e4 + 1, -1e4], [-3e38, 0, 3e38], [0, -np.inf, 0]], np.float32))
    p, q = C.softmax(x, soft_op(channel)).to_numpy(), C.log_softmax(x, soft_op(channel)).to_numpy()
    assert np.isfinite(p).all() and abs(p.sum(axis=1) - 1).max() < 1e-6
    assert p[0, 1] > p[0, 0] > 0.2 and p[1, 2] == 1 and p[2, 1] == 0
    assert not np.isnan(q).any() and q[2, 1] == -np.inf


@both
def test_softmax_back_is_the_derivative(channel):
    x, err, step = f64(data((3, 4, 2)), data((3, 4, 2), 1), data((3, 4, 2), 2) * 1e-6)
    slope = ((ref.softmax(x + step, channel) - ref.softmax(x - step, channel)) * err).sum() / 2
    grad = ref.softmax_back(err, ref.softmax(x, channel), channel)
    assert abs((grad * step).sum() - slope) < 1e-12


def test_softmax_of_views_and_doubles():
    x = data((8, 6))
    near(C.softmax(owl.from_numpy(x)[::-1, ::2]), ref.softmax(x[::2, ::-1].astype(np.float64)), 4)
    wide = C.softmax(owl.from_numpy(x.astype(np.float64))).to_numpy()
    assert wide.dtype == np.float64 and abs(wide - ref.softmax(x.astype(np.float64))).max() < 1e-14


def test_softmax_errors():
    with pytest.raises(owl.ShapeError):
        C.softmax_back(owl.ones([3, 2]), owl.ones([2, 3]))
    with pytest.raises(owl.ShapeError):
        C.softmax(owl.ones([5]), C.soft_op.channel)
    for function in (C.softmax, C.log_softmax, lambda x, **more: C.softmax_back(x, x, **more)):
        for axis in (2, -3):
            with pytest.raises(owl.ShapeError, match=f"softmax.*: axis {axis}"):
                function(owl.ones([5, 2]), axis=axis)
        with pytest.raises(TypeError, match="op and axis exclude each other"):
            function(owl.ones([5, 2]), op=C.soft_op.channel, axis=0)
        with pytest.raises(TypeError, match="axis"):
            function(owl.ones([5, 2]), axis="0")


def test_scale_is_not_read():
    """Neither its values nor its type matter, and it is not computed."""
    x, unit, calls = owl.rand([2, 3, 5, 2]), C.Lrner(3, 0.5, 0.75), []
    y = unit.ff(x, x)
    back = unit.bp(x, y, x, x)
    late = owl.op(lambda a: calls.append(1) or a)
    for scale in (lambda: owl.full(x.shape, float("nan")), lambda: owl.ones(x.shape, "float64"),
                  lambda: owl.ones(x.shape, bool), lambda: late(x)):
        with unflushed():
            got, got_back = unit.ff(x, scale()), unit.bp(x, y, scale(), x)
            assert same_bits(got.to_numpy(), y.to_numpy()) and same_bits(got_back.to_numpy(), back.to_numpy())
    assert calls == []
    for f in (lambda s: unit.ff(x, s), lambda s: unit.bp(x, y, s, x)):
        with pytest.raises(owl.ShapeError):
            f(owl.ones([2, 3, 5, 1]))


def test_weights_that_stay_are_converted_twice_and_kept():
    """Kept copies stay until memory is short; new weights are converted again."""
    unit, b = owl.conv.Convolver(1, 1), owl.zeros([32])
    x, err, w = owl.rand([12, 12, 16, 16]), owl.rand([12, 12, 32, 16]), owl.rand([3, 3, 16, 32])
    both = lambda w: (unit.ff(x, w, b).to_numpy().tobytes(), unit.bp(err, x, w).to_numpy().tobytes())
    owl.wait_for_all()
    with Counted() as c:
        first = both(w)
    if c.conversions == 0:
        pytest.skip("oneDNN reads the weights as they are here")
    for more in (c.conversions, 0, 0):
        with Counted() as again:
            assert both(w) == first
        assert again.conversions == more
    settle()
    held = owl.memory_stats()["allocated"]
    owl.empty_cache()
    assert owl.memory_stats()["allocated"] < held
    with Counted() as c:
        assert both(w) == first and both(w) == first
    assert c.conversions > 0
    w = w + 0.0
    with Counted() as c:
        assert both(w) == first
    assert c.conversions > 0
    settle()
    held = owl.memory_stats()["allocated"]
    with Counted() as c:
        assert both(w) == first
    settle()
    kept = owl.memory_stats()["allocated"] - held
    assert kept > 0
    size = w.size * 4
    del w
    settle()
    assert owl.memory_stats()["allocated"] <= held - size


def test_kept_weights_give_way_to_a_limit(limit):
    unit, b = owl.conv.Convolver(1, 1), owl.zeros([64])
    x, w = owl.rand([8, 8, 64, 4]), owl.rand([3, 3, 64, 64])
    y = [unit.ff(x, w, b).to_numpy() for _ in range(3)][0]
    settle()
    held = owl.memory_stats(0)["allocated"]
    limit(held + (1 << 20))
    big = owl.ones([(1 << 20) // 4 + w.size // 2]) + 1  # does not fit together with the kept copies
    big.wait_for_eval()
    del big
    assert same_bits(unit.ff(x, w, b).to_numpy(), y)


@pytest.mark.parametrize("layer", [
    C.Convolver(1, 2, 3, 4, dilation=(2, 3), groups=2), C.Pooler(3, 4, 2, 1, 1, 2, op=C.pool_op.avg, ceil_mode=False),
    C.Lrner(5, 1e-4, 0.75),
], ids=lambda layer: type(layer).__name__)  # fmt: skip
def test_layers_are_copied_and_pickled(layer):
    names = [name for name in dir(layer) if not name.startswith("_") and not callable(getattr(layer, name))]
    assert len(names) >= 3
    for other in (copy.copy(layer), copy.deepcopy([layer])[0], pickle.loads(pickle.dumps(layer))):
        assert type(other) is type(layer) and other is not layer
        assert [getattr(other, name) for name in names] == [getattr(layer, name) for name in names]
