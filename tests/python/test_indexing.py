"""x[...] compared with NumPy's basic indexing, in owl's order of the axes."""
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import owl
from conftest import SOAK, same_bits
from reference import arr, val

A = np.arange(3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5)

INDICES = [0, -1, (0,), (1, 2), (1, 2, 3), (-1, -2, -3), slice(None), (slice(None), 1), (Ellipsis, 1), (1, Ellipsis),
           Ellipsis, (), None, (None, 1), (slice(1, 3), None, Ellipsis), slice(None, None, -1),
           (slice(None, None, 2), slice(3, 0, -2)), (slice(5, 99), 0), (slice(-99, 2), 0), (slice(2, 1),),
           (slice(None), slice(4, 4)), np.int64(2), (np.int32(-1), np.uint8(1)), (Ellipsis, None),
           (1, Ellipsis, None, 2), (slice(None, None, 1000),), (slice(-1, None, -1000),)]


def in_owl(a):
    """owl has no 0-d arrays."""
    return a if a.ndim else a.reshape(1)


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_against_numpy(index):
    assert same_bits(val(arr(A)[index]), in_owl(A[index]))


def slices(length):
    bound = st.none() | st.integers(-length - 2, length + 2)
    return st.builds(slice, bound, bound, st.none() | st.integers(1, 4) | st.integers(-4, -1))


@st.composite
def indices(draw, shape):
    items = []
    for length in shape[:draw(st.integers(0, len(shape)))]:
        items.append(draw(st.integers(-length, length - 1) | slices(length)) if length else draw(slices(length)))
    if draw(st.booleans()):
        items.insert(draw(st.integers(0, len(items))), Ellipsis)
    for _ in range(draw(st.integers(0, 2))):
        items.insert(draw(st.integers(0, len(items))), None)
    return tuple(items)


def legal(index, shape):
    """An inserted Ellipsis may have pushed an integer onto another axis."""
    try:
        np.empty(shape)[index]
    except IndexError:
        return False
    return True


@given(st.data())
@settings(max_examples=150 * SOAK)
def test_fuzz(d):
    """Repeated indexing of an array or of an expression, then reads and operations."""
    a = np.arange(d.draw(st.integers(0, 50)), 5000, dtype=np.float32)
    shape = d.draw(st.lists(st.integers(0, 5), min_size=1, max_size=4), "shape")
    a = a[:int(np.prod(shape))].reshape(shape)
    x = arr(a)
    if d.draw(st.booleans(), "expression"):
        a, x = a * np.float32(2), x * 2
    for _ in range(2):
        index = d.draw(indices(a.shape), "index")
        if not legal(index, a.shape) or a[index].ndim > 6:
            continue
        a, x = in_owl(a[index]), x[index]
        assert x.shape == list(a.shape)
    assert same_bits(val(x + 1), a + np.float32(1))
    assert same_bits(val(x), a)


@pytest.mark.parametrize("index,bad,axis,size", [(3, 3, 0, 3), (-4, -4, 0, 3), ((0, 4), 4, 1, 4),
                                                 ((slice(None), 0, 77), 77, 2, 5), ((Ellipsis, -6), -6, 2, 5),
                                                 ((None, 9), 9, 0, 3)], ids=str)
def test_out_of_range(index, bad, axis, size):
    with pytest.raises(IndexError) as e:
        arr(A)[index]
    for part in (f"index {bad}", f"axis {axis}", str(size)):
        assert part in str(e.value)


@pytest.mark.parametrize("index", [(0, 0, 0, 0), (Ellipsis, Ellipsis), (slice(None),) * 4], ids=str)
def test_too_many(index):
    with pytest.raises(IndexError):
        arr(A)[index]


@pytest.mark.parametrize("index", [1.0, "0", [0, 1], np.array([0, 1]), np.ones((3, 4, 5), bool), True, (0, [1]), {},
                                   (0, 1.5), slice(0.0, 1)],
                         ids=str)
def test_other_types_are_refused(index):
    with pytest.raises(TypeError):
        arr(A)[index]


def test_an_owl_array_is_no_index():
    with pytest.raises(TypeError):
        arr(A)[owl.zeros([2], dtype="int32")]


def test_a_step_of_0():
    with pytest.raises(ValueError):
        arr(A)[::0]


def test_an_empty_axis_has_no_elements():
    with pytest.raises(IndexError):
        owl.zeros([0, 3])[0]
    assert owl.zeros([0, 3])[:, 1].shape == [0]


def test_huge_integers():
    for index in (2**31, 2**63 - 1, -2**63, 2**70):
        with pytest.raises(IndexError):
            arr(A)[index]
    assert arr(A)[: 2**70].shape == [3, 4, 5] and arr(A)[-2**70:].shape == [3, 4, 5]


def test_iteration_ends():
    assert [float(x) for x in arr(A[0, 0])] == list(A[0, 0])
