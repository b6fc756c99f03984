"""Sizes that overflow, negative lengths, too many axes: the right error at the line, without an allocation."""
import numpy as np
import pytest

import owl
from conftest import settle

HUGE = [[2**62, 4], [2**40, 2**40], [2**31, 2**31, 2], [2**61], [2**63 - 1], [2**62, 0, 4], [0, 2**62, 2**62],
        [3**39, 3]]
MAKERS = {"zeros": owl.zeros, "ones": owl.ones, "full": lambda s, **k: owl.full(s, 2, **k), "rand": owl.rand,
          "randn": owl.randn, "randb": lambda s, **k: owl.randb(s, 0.5, **k)}


@pytest.fixture(scope="module")
def nowhere():
    """A device that computes and allocates nothing, for views of any size."""
    return owl._owl.create_null_device()


@pytest.fixture(autouse=True)
def nothing_is_allocated(nowhere):
    before = settle(), owl.memory_stats()
    yield
    owl.set_device(0)
    after = settle(), owl.memory_stats()
    assert after[1]["allocated"] <= before[1]["allocated"]
    assert after[1]["peak"] - before[1]["peak"] <= 1 << 20
    assert after[0]["live_nodes"] <= before[0]["live_nodes"], "a call that fails leaves no node"


@pytest.mark.parametrize("maker", MAKERS)
def test_shapes_that_no_array_can_have(maker):
    make = MAKERS[maker]
    for shape in HUGE:
        with pytest.raises(owl.ShapeError, match="overflow"):
            make(shape)
    for shape in ([2**63], [2**64], [-2**70], [2**63, 0]):
        with pytest.raises((owl.ShapeError, OverflowError)):
            make(shape)
    for shape in ([-1], [3, -2], [0, -1], [-2**63], [-2**31, -2**32]):
        with pytest.raises(owl.ShapeError, match="negative"):
            make(shape)
    for axes in (9, 32, 100_000):
        with pytest.raises(owl.ShapeError, match="axes"):
            make([1] * axes)
    with pytest.raises(owl.ShapeError):
        make([])
    for dtype in ("bool", "float64"):
        with pytest.raises(owl.ShapeError, match="overflow"):
            make([2**62], dtype=dtype)


def test_ranges_that_no_array_can_have():
    for args in ((1e300,), (2**63,), (2**61,), (0, 1e18, 1e-9), (0, -2**62, -1)):
        with pytest.raises((owl.ShapeError, OverflowError)):
            owl.arange(*args)
    for args in ((0, 5, 0), (float("nan"),), (0, float("inf")), (0, 1, float("nan"))):
        with pytest.raises((owl.ShapeError, ValueError)):
            owl.arange(*args)


def test_what_memory_cannot_hold_fails_where_it_is_waited_for(nowhere):
    before = owl.memory_stats()["allocated"]
    for shape in ([2**59], [2**40, 2**19]):
        x = owl.zeros(shape)
        with pytest.raises(owl.OutOfMemoryError, match="test_hard_sizes.py"):
            x.wait_for_eval()
    assert owl.memory_stats()["allocated"] <= before


def on(device, make):
    owl.set_device(device)
    return make()


OVERFLOWS = {
    "broadcast": lambda: owl.zeros([2**40, 1]) + owl.zeros([1, 2**40]),
    "broadcast of three": lambda: owl.elewise.where(owl.zeros([2**30, 1, 1]) > 0, owl.zeros([1, 2**30, 1]),
                                                    owl.zeros([1, 1, 2**30])),
    "broadcast of views": lambda: owl.zeros([2**40, 2]).trans()[:1] - owl.zeros([2**40, 2])[:, 1:],
    "compare": lambda: owl.zeros([2**40, 1]) == owl.zeros([1, 2**40]),
    "product": lambda: owl.zeros([2**40, 1]) * owl.zeros([1, 2**40]),
    "concat": lambda: owl.concat([owl.zeros([2**59])] * 5, 0),
    "concat of many": lambda: owl.concat([owl.zeros([2**40, 2**10])] * 2000, 1),
    "concat beyond 64 bits": lambda: owl.concat([owl.zeros([2**60], dtype="bool")] * 40, 0),
    "convolution": lambda: owl.conv.Convolver(2**30, 2**30, 1, 1).ff(
        owl.zeros([4, 4, 1, 1]), owl.zeros([3, 3, 1, 2**8]), owl.zeros([2**8])),
    "convolution with padding beyond 64 bits": lambda: owl.conv.Convolver(2**62, 2**62, 1, 1).ff(
        owl.zeros([4, 4, 1, 1]), owl.zeros([3, 3, 1, 1]), owl.zeros([1])),
    "convolution of many": lambda: owl.conv.Convolver(2, 2, 1, 1).ff(
        owl.zeros([1, 1, 1, 2**40]), owl.zeros([1, 1, 1, 2**20]), owl.zeros([2**20])),
    "pooling": lambda: owl.conv.Pooler(2**32, 2**32, 1, 1, 2**32 - 1, 2**32 - 1).ff(owl.zeros([4, 4, 1, 1])),
}


@pytest.mark.parametrize("name", OVERFLOWS)
def test_results_whose_size_overflows(nowhere, name):
    with pytest.raises((owl.ShapeError, ValueError, OverflowError)) as e:
        on(nowhere, OVERFLOWS[name])
    assert "internal" not in str(e.value)


RESHAPES = [[2**40, 2**40], [2**62, -1, 4], [-1, -1], [-2], [2**63 - 1], [0, -1], [2**32, 2**32], [-1, 2**62, 2**62],
            [1] * 9, [], [7]]


@pytest.mark.parametrize("shape", RESHAPES, ids=str)
def test_reshapes_that_cannot_be(shape):
    x = owl.ones([2, 3])
    x.wait_for_eval()
    with pytest.raises((owl.ShapeError, OverflowError)):
        x.reshape(shape)
    with pytest.raises((owl.ShapeError, OverflowError)):
        owl.zeros([0, 3]).reshape(shape if shape != [0, -1] else [-1, 0, 0])


NUMBERS = [2**31, -2**31 - 1, 2**62, 2**63 - 1, -2**63, 2**63, -2**70]


@pytest.mark.parametrize("n", NUMBERS)
def test_axes_indices_and_counts_beyond_every_bound(n):
    x = owl.ones([2, 3])
    x.wait_for_eval()
    wrong = (owl.ShapeError, owl.IndexError, OverflowError, ValueError)
    for call in (lambda: x.sum(n), lambda: x.max([0, n]), lambda: x.argmax(n), lambda: x[n], lambda: x[0, n],
                 lambda: x.transpose([0, n]), lambda: owl.concat([x, x], n), lambda: owl.slice(x, n, 0, 1),
                 lambda: owl.slice(x, 0, n, 1), lambda: owl.slice(x, 0, 1, n), lambda: owl.slice(x, 0, n, n),
                 lambda: owl.slice(x, 0, 1, 2**63 - 1), lambda: x.reshape([n]), lambda: owl.set_device(n),
                 lambda: x.copy_to(n)):
        with pytest.raises((*wrong, owl.DeviceError, TypeError)):
            call()


@pytest.mark.parametrize("n", NUMBERS)
def test_slices_beyond_every_bound_are_cut_as_numpy_does(n):
    a = np.ones((2, 3), np.float32)
    x = owl.from_numpy(a.T)
    for s in (slice(n), slice(n, None), slice(None, None, n), slice(n, -n), slice(-n, n, 2), slice(n, n, n)):
        assert x[s].shape == list(a[s].shape) and x[:, s].shape == list(a[:, s].shape)
    del x


def test_too_many_axes():
    x = owl.ones([1] * 8)
    x.wait_for_eval()
    for call in (lambda: x[None], lambda: x[..., None], lambda: x.reshape([1] * 9), lambda: x[(None,) * 30],
                 lambda: owl.ones([2])[(None,) * 9]):
        with pytest.raises((owl.ShapeError, owl.IndexError)):
            call()
