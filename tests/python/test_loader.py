"""owl.data: data sets, the loader's order, threads, state and errors, transforms."""

import os
import threading
import time
import traceback
import weakref

import numpy as np
import pytest

import children
import owl
from conftest import eventually, same_bits
from owl import data
from owl.data import ahead
from owl.data.pool import Pool

RNG = np.random.default_rng(0)
X = RNG.standard_normal((50, 3, 4)).astype(np.float32)
LABELS = np.arange(50, dtype=np.int32)


def loader(**options):
    return data.Loader(data.ArrayDataset(X, LABELS), **{"batch_size": 8, "shuffle": True, **options})


def threaded(**options):
    """A loader that needs threads: the engine gathers no transformed batches."""
    return loader(transform=lambda x, rng: x, **options)


def values(batches):
    return [tuple(part.to_numpy() for part in batch) for batch in batches]


def equal(first, second):
    return len(first) == len(second) and all(
        same_bits(a, b) for left, right in zip(first, second) for a, b in zip(left, right))  # fmt: skip


def labels_of(batches):
    return np.concatenate([batch[-1].to_numpy() for batch in batches])


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name == "owl.data.Loader"]


# ---- Data sets ------------------------------------------------------------------------------------------------------


def test_a_data_set_of_arrays():
    dataset = data.ArrayDataset(X, LABELS)
    assert len(dataset) == 50
    assert all(same_bits(a, b) for a, b in zip(dataset[3:5], (X[3:5], LABELS[3:5])))
    x, label = dataset[7]
    assert same_bits(x, X[7]) and label == 7
    assert all(same_bits(a, b) for a, b in zip(dataset.take(np.array([9, 0])), (X[[9, 0]], LABELS[[9, 0]])))


@pytest.mark.parametrize("array", [X[::2], X.transpose(2, 1, 0), X[:, ::-1], np.asfortranarray(X), X.astype(">f4"), X > 0,
                                   X.astype("f8"), np.arange(50).astype("u1"), np.zeros((50, 0), "f4")])  # fmt: skip
def test_rows_of_any_layout(array):
    (rows,) = data.ArrayDataset(array).take(np.array([2, 0]))
    assert np.array_equal(rows, array[[2, 0]]) and rows.dtype == array.dtype and not np.shares_memory(rows, array)


@pytest.mark.parametrize("arrays, error, words", [
    ((), ValueError, "no arrays"), ((X, LABELS[:40]), ValueError, "other lengths"), ((X[:0], LABELS[:0]), ValueError, "no samples"),
    ((np.float32(1),), ValueError, "no axes"), ((np.array(["a"]),), TypeError, "numbers and bools"), ((np.zeros(3, "c8"),), TypeError, "complex64"),
])  # fmt: skip
def test_arrays_that_are_no_data_set(arrays, error, words):
    with pytest.raises(error, match=words):
        data.ArrayDataset(*arrays)
    with pytest.raises((TypeError, ValueError)):
        data.Loader(arrays, 8)


def test_an_narray_is_no_data_set():
    with pytest.raises(TypeError, match="to_numpy"):
        data.ArrayDataset(owl.from_numpy(X))


def test_memmaps(tmp_path):
    np.save(tmp_path / "x.npy", X)
    dataset = data.ArrayDataset(np.load(tmp_path / "x.npy", mmap_mode="r"), LABELS)
    assert equal(values(data.Loader(dataset, 8, shuffle=True)), values(loader()))


class Squares:
    """A data set as PyTorch's are: one sample an index."""

    def __len__(self):
        return 10

    def __getitem__(self, i):
        return np.float32([i, i * i]), i


def test_a_data_set_that_gives_samples():
    x, i = next(iter(data.Loader(Squares(), 4)))
    assert x.to_numpy().tolist() == [[0, 0], [1, 1], [2, 4], [3, 9]] and i.to_numpy().tolist() == [0, 1, 2, 3]


# ---- Batches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefetch", [0, 1, 2, 7, 100])
def test_batches(prefetch):
    batches = list(loader(shuffle=False, prefetch=prefetch))
    assert [x.shape for x, _ in batches] == [[4, 3, 8]] * 6 + [[4, 3, 2]]
    assert np.array_equal(np.concatenate([x for x, _ in values(batches)]), X)
    assert labels_of(batches).tolist() == list(range(50))
    assert not loader_threads()


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "u1", "?", "f2"])
def test_the_engine_gathers_what_threads_would(dtype):
    """Batches of arrays in contiguous memory are recorded; their bits are those of the other ways."""
    arrays = (X * 9).astype(dtype), LABELS
    for dataset in (data.ArrayDataset(*arrays), data.datasets.Part(data.ArrayDataset(*arrays), np.arange(49, 3, -2))):
        epochs = []
        for options in ({}, {"prefetch": 0}, {"transform": lambda x, rng: x}):
            one = data.Loader(dataset, 8, shuffle=True, seed=5, **options)
            it = iter(one)
            next(it)
            assert bool(loader_threads()) == ("transform" in options)
            epochs.append(list(it) + list(one))
        assert equal(epochs[0], epochs[1]) and equal(epochs[0], epochs[2])


def read_only():
    x = X.copy()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize("x", [X[:, ::-1], X.astype("i2"), X.astype(">f4"), np.asfortranarray(X), read_only()])
def test_other_arrays_are_gathered_by_threads(x):
    it = iter(data.Loader((x, LABELS), 8))
    next(it)
    assert loader_threads()
    assert sum(len(labels.to_numpy()) for _, labels in it) == 42


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_arrays_may_change_when_the_loop_has_ended(steps):
    x = np.zeros((50, 100000), np.float32)
    kept = []
    for step, (batch, _) in enumerate(data.Loader((x, LABELS), 8), 1):
        kept.append(batch + 1)
        if step == steps:
            break
    x += 1
    assert all((batch.to_numpy() == 1).all() for batch in kept)


def test_lengths():
    assert len(loader()) == 7 and len(loader(drop_last=True)) == 6 and len(loader(batch_size=50)) == 1
    assert len(list(loader(drop_last=True))) == 6
    assert len(data.Loader((X[:1], LABELS[:1]), 8)) == 1  # a data set of one sample


def test_each_epoch_has_an_order_of_its_own_that_depends_on_seed_and_epoch_alone():
    one = loader(seed=3)
    epochs = [labels_of(one) for _ in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(50))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    again = loader(seed=3, prefetch=0)
    assert all(np.array_equal(epoch, labels_of(again)) for epoch in epochs)
    assert not np.array_equal(epochs[0], labels_of(loader(seed=4)))


def test_a_batch_does_not_change_with_the_data():
    own = X.copy()
    batch, _ = next(iter(data.Loader((own, LABELS), 50)))
    own[:] = 0
    assert np.array_equal(batch.to_numpy(), X)


def test_dtypes():
    parts = data.Loader((X.astype("f8"), LABELS, X > 0, X[:, 0].astype("f2")), 50)
    first = next(iter(parts))
    assert [part.dtype for part in first[:3]] == [np.float64, np.int32, np.bool_]
    assert np.allclose(first[3].to_numpy(), X[:, 0].astype("f2"))


def test_the_device():
    device = owl.create_cpu_device()
    assert {part.device for batch in loader(device=device) for part in batch} == {device}
    with owl.device(device):
        assert {part.device for batch in loader() for part in batch} == {device}
    assert {part.device for batch in loader() for part in batch} == {owl.current_device()}
    with pytest.raises(owl.DeviceError):
        list(loader(device=99))


@pytest.mark.parametrize("options, error", [
    ({"batch_size": 0}, ValueError), ({"batch_size": -1}, ValueError), ({"batch_size": 2.5}, TypeError), ({"batch_size": True}, TypeError),
    ({"prefetch": -1}, ValueError), ({"seed": -1}, ValueError), ({"transform": 3}, TypeError),
    ({"batch_size": 51, "drop_last": True}, ValueError),
])  # fmt: skip
def test_options_that_make_no_sense(options, error):
    with pytest.raises(error, match="|".join([*options, "no batch"])):
        loader(**options)


def test_a_data_set_without_samples():
    with pytest.raises(ValueError, match="no samples"):
        data.Loader({}, 8)
    with pytest.raises(TypeError, match="ArrayDataset"):
        data.Loader(3, 8)


# ---- State ----------------------------------------------------------------------------------------------------------


def noise(x, rng):
    return x + rng.standard_normal(x.shape).astype(np.float32)


@pytest.mark.parametrize("stop", range(8))
def test_a_loop_resumes_anywhere_with_the_same_bits(stop):
    whole = loader(transform=noise)
    list(whole)
    expected = values(whole) + values(whole)
    cut = loader(transform=noise)
    list(cut)
    it = iter(cut)
    first = values(next(it) for _ in range(stop))
    state = cut.state()
    assert (state["epoch"], state["position"]) == ((1, stop) if stop < 7 else (2, 0))
    it.close()
    resumed = loader(transform=noise)
    resumed.load_state(state)
    assert resumed.state() == state
    rest = values(resumed) if stop < 7 else []
    assert equal(expected, first + rest + values(resumed))


def test_a_loop_that_was_left_counts_as_an_epoch():
    one, other = loader(), loader()
    next(iter(one))
    list(other)
    assert np.array_equal(labels_of(one), labels_of(other))


def test_epoch_and_position_are_enough_of_a_state():
    one = loader()
    one.load_state({"epoch": 1, "position": 3})
    other = loader()
    list(other)
    assert equal(values(one), values(other)[3:])


@pytest.mark.parametrize("other", [{"batch_size": 9}, {"seed": 1}, {"shuffle": False}, {"drop_last": True}])
def test_a_state_of_another_loader(other):
    with pytest.raises(ValueError, match=f"{next(iter(other))}.*here"):
        loader(**other).load_state(loader().state())


@pytest.mark.parametrize("state", [None, {}, {"epoch": 1}, {"epoch": 0, "position": 8}, {"epoch": -1, "position": 0},
                                   {"epoch": "1", "position": 0}])  # fmt: skip
def test_what_is_no_state(state):
    with pytest.raises((ValueError, TypeError), match="state|epoch|position"):
        loader().load_state(state)


# ---- Threads --------------------------------------------------------------------------------------------------------


class Slow:
    """Counts the batches that were gathered; `wait` blocks each but the first."""

    def __init__(self):
        self.count, self.go = 0, threading.Event()
        self.go.set()

    def __call__(self, x, rng):
        self.count += 1
        assert self.go.wait(60)
        return x


@pytest.mark.parametrize("prefetch", [1, 2, 3])
def test_threads_gather_ahead_and_not_too_far(prefetch):
    transform = Slow()
    it = iter(loader(transform=transform, prefetch=prefetch, batch_size=2))
    next(it)
    assert eventually(lambda: transform.count == 1 + prefetch)
    time.sleep(0.05)
    assert transform.count == 1 + prefetch
    it.close()


def test_several_threads_work_at_once():
    together = threading.Barrier(3)

    def transform(x, rng):
        together.wait(30)
        return x

    assert len(list(loader(batch_size=9, prefetch=3, transform=transform))) == 6


def test_threads_end_with_the_loop():
    for _ in threaded():
        break
    assert not loader_threads()
    it = iter(threaded())
    next(it)
    assert loader_threads()
    del it
    assert not loader_threads()
    with pytest.raises(ZeroDivisionError):
        for _ in threaded():
            1 / 0
    assert eventually(lambda: not loader_threads())


def test_an_error_of_a_transform_comes_out_with_its_own_traceback():
    def transform(x, rng):
        if x[0, 0, 0] == X[16, 0, 0]:
            raise KeyError("a fault of mine")
        return x

    for prefetch in (0, 2):
        got = []
        with pytest.raises(KeyError, match="a fault of mine") as caught:
            for batch in loader(shuffle=False, transform=transform, prefetch=prefetch):
                got.append(batch)
        assert len(got) == 2
        assert "raise KeyError" in "".join(traceback.format_exception(caught.value))
        del caught
        assert not loader_threads()


@pytest.mark.parametrize("result", ["text", None, {}])
def test_a_transform_that_gives_no_array(result):
    with pytest.raises((TypeError, ValueError)):
        list(loader(transform=lambda x, rng: result))


def test_ctrl_c_ends_a_loop_that_waits():
    children.run("""
        import os, signal, threading, time
        import numpy as np
        import owl
        from owl import data
        def transform(x, rng):
            time.sleep(2)
            return x
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        start = time.monotonic()
        try:
            list(data.Loader((np.zeros((10, 2), "f4"),), 2, transform=transform))
        except KeyboardInterrupt:
            assert time.monotonic() - start < 1.5
        else:
            raise SystemExit("not interrupted")
    """)


@pytest.mark.parametrize("begun", [0, 1])
def test_ctrl_c_while_the_threads_are_started(begun, monkeypatch):
    start, count = threading.Thread.start, iter(range(10))

    def interrupted(thread):
        if next(count) == begun:
            raise KeyboardInterrupt
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(iter(threaded()))
    monkeypatch.undo()
    assert eventually(lambda: not loader_threads())
    ahead._close_all()  # as at the interpreter's end


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_goes_on():
    children.run("""
        import os
        import numpy as np
        import owl
        from owl import data
        x = np.arange(40, dtype="f4").reshape(40, 1)
        loader = data.Loader((x,), 4)
        it = iter(loader)
        got = [next(it)[0]]
        child = os.fork()
        if not child:
            guard_fork()
        got += [batch for batch, in it]
        good = np.concatenate([batch.to_numpy() for batch in got]).ravel().tolist() == list(range(40))
        good = good and len(list(loader)) == 10
        if not child:
            os._exit(0 if good else 1)
        assert good and os.waitpid(child, 0)[1] == 0
    """)


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "del data, loader", "globals()['cycle'] = [it]; cycle.append(cycle)"])
def test_the_interpreter_ends_in_the_middle_of_a_loop(end):
    done = children.run(f"""
        import sys, time
        import numpy as np
        import owl
        from owl import data
        loader = data.Loader((np.zeros((100000, 100), "f4"),), 10, transform=lambda x, rng: (time.sleep(0.001), x)[1])
        it = iter(loader)
        held = next(it)
        {end}
    """)
    assert done.stderr == ""


class Watched(data.ArrayDataset):
    """Counts the live arrays that it gave, and the most at a time."""

    live = most = 0

    def take(self, indices):
        parts = super().take(indices)
        self.live += 1
        self.most = max(self.most, self.live)
        weakref.finalize(parts[0], self.gone)
        return parts

    def gone(self):
        self.live -= 1


def test_memory_stays_bounded():
    watched = Watched(X)
    for (batch,) in data.Loader(watched, 1):
        batch.wait_for_eval()
    del batch
    assert 2 <= watched.most <= 6  # two ahead, one in use, one that a thread or the engine just released
    assert eventually(lambda: watched.live == 0)


def test_memory_is_used_again_and_only_when_no_view_is_left():
    pool = Pool()
    first = pool.empty((4, 5), np.dtype(np.float32))
    place, view = first.ctypes.data, first[1:, ::-1].T
    assert place % 64 == 0
    del first
    second = pool.empty((4, 5), np.dtype(np.float32))
    assert not np.shares_memory(view, second)
    del view
    assert pool.empty((5, 4), np.dtype(np.int32)).ctypes.data == place
    many = [pool.empty((4, 5), np.dtype(np.float32)) for _ in range(100)]
    assert len({each.ctypes.data for each in many}) == 100 and len(pool._lent) <= 8
    assert pool.empty((0, 3), np.dtype(np.float32)).shape == (0, 3)


def test_batches_that_are_kept_keep_their_values():
    kept = [batch for batch in loader(shuffle=False, batch_size=2)]
    views = [next(iter(loader(shuffle=False, batch_size=2, transform=lambda x, rng: x[:, ::-1])))[0] for _ in range(5)]
    list(loader(batch_size=2))
    assert np.array_equal(np.concatenate([x for x, _ in values(kept)]), X)
    assert all(np.array_equal(view.to_numpy(), X[:2, ::-1]) for view in views)


def test_a_profiler_sees_a_loop_to_its_end():
    """CPython 3.11 may hang when Python code of a pending call is traced; memory comes back in such calls."""
    children.run("""
        import cProfile
        import numpy as np
        import owl
        from owl import data, nn, train
        x = np.random.default_rng(0).random((20000, 784)).astype("f4")
        loader = data.Loader((x, np.zeros(20000, "i4")), 100)
        trainer = train.Trainer(nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10)), "softmax_cross_entropy", "adam")
        with cProfile.Profile():
            trainer.fit(loader, 4, progress=False)
    """)


# ---- Transforms -----------------------------------------------------------------------------------------------------

IMAGES = RNG.random((6, 2, 5, 7)).astype(np.float32)


def rng():
    return np.random.default_rng(1)


def test_standardize():
    mean, std = IMAGES.mean(), IMAGES.std()
    out = data.standardize(mean, std)(IMAGES, rng())
    assert out.dtype == np.float32 and np.allclose(out, (IMAGES - mean) / std, atol=1e-6)
    by_channel = data.standardize([0.25, 0.5], [2.0, 4.0])(IMAGES, rng())
    assert np.allclose(by_channel[:, 1], (IMAGES[:, 1] - 0.5) / 4, atol=1e-6)
    by_pixel = data.standardize(IMAGES.mean(0), IMAGES.std(0))(IMAGES, rng())
    assert np.allclose(by_pixel.mean(0), 0, atol=1e-6) and np.allclose(by_pixel.std(0), 1, atol=1e-5)
    assert data.standardize(1, 2)(np.uint8([[3]]), rng()).tolist() == [[1.0]]
    assert data.standardize(1, 2)(np.float64([[3]]), rng()).dtype == np.float64
    for wrong in ((0, 0), (0, [1, 0]), (0, -1), (0, np.nan), (np.inf, 1)):
        with pytest.raises(ValueError, match="standardize"):
            data.standardize(*wrong)


def test_random_shift():
    out = data.random_shift(2)(IMAGES, rng())
    assert out.shape == IMAGES.shape and out.dtype == np.float32
    padded = np.pad(IMAGES, [(0, 0), (0, 0), (2, 2), (2, 2)])
    places = set()
    for before, after in zip(padded, out):
        place = [(i, j) for i in range(5) for j in range(5) if np.array_equal(before[:, i : i + 5, j : j + 7], after)]
        assert place
        places.update(place)
    assert len(places) > 1
    assert same_bits(data.random_shift(0)(IMAGES, rng()), IMAGES)


def test_random_crop():
    assert data.random_crop(4)(IMAGES, rng()).shape == (6, 2, 4, 4)
    assert data.random_crop((5, 7), padding=1)(IMAGES[:, 0], rng()).shape == (6, 5, 7)
    with pytest.raises(ValueError, match="8 x 8 in images of 5 x 7"):
        data.random_crop(8)(IMAGES, rng())


def test_random_flip():
    out = data.random_flip()(IMAGES, rng())
    flipped = [np.array_equal(a, b[..., ::-1]) for a, b in zip(IMAGES, out)]
    assert all(np.array_equal(a, b) or mirrored for a, b, mirrored in zip(IMAGES, out, flipped)) and 0 < sum(flipped) < 6
    assert same_bits(data.random_flip(0)(IMAGES, rng()), IMAGES)
    assert same_bits(data.random_flip(1)(IMAGES, rng()), IMAGES[..., ::-1])
    with pytest.raises(ValueError, match="probability"):
        data.random_flip(1.5)


@pytest.mark.parametrize("make", [lambda: data.random_shift(-1), lambda: data.random_crop(0), lambda: data.random_crop((1, 2, 3)),
                                  lambda: data.random_crop(3, padding=-1)])  # fmt: skip
def test_transforms_that_make_no_sense(make):
    with pytest.raises(ValueError, match="random_"):
        make()


def test_images_have_two_axes():
    for make in (data.random_shift(1), data.random_crop(1), data.random_flip()):
        with pytest.raises(ValueError, match="images"):
            list(data.Loader((np.zeros((4, 784), "f4"),), 2, transform=make))


def test_each_batch_of_each_epoch_has_its_own_random_numbers():
    def drawn(**options):
        found = {}

        def draws(x, rng):
            found[x[:, 0, 0].tobytes()] = rng.random()
            return x

        one = loader(shuffle=False, transform=draws, **options)
        return [[found[x[:, 0, 0].tobytes()] for x, _ in values(one)] for _ in range(2)]

    first, second = drawn()
    assert len({*first, *second}) == 14
    assert [first, second] == drawn(prefetch=0) != drawn(seed=1)


def test_transforms_run_in_order_and_leave_the_data_alone():
    before = X.copy()
    both = loader(transform=[noise, data.standardize(1.0, 2.0), data.random_flip()])
    again = loader(transform=[noise, data.standardize(1.0, 2.0), data.random_flip()], prefetch=0)
    assert equal(values(both), values(again))
    assert same_bits(before, X)


# ---- MNIST ----------------------------------------------------------------------------------------------------------


def test_mnist(tmp_path):
    images = RNG.integers(0, 256, (30, 28, 28)).astype(np.uint8)
    labels = RNG.integers(0, 10, 30).astype(np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=images[:20], y_train=labels[:20], x_test=images[20:], y_test=labels[20:])
    train, test = data.mnist(tmp_path)
    assert (len(train), len(test)) == (20, 10)
    x, t = next(iter(data.Loader(train, 20)))
    assert x.shape == [28, 28, 1, 20] and x.dtype == np.float32 and t.dtype == np.int32
    assert np.allclose(x.to_numpy()[:, 0], images[:20] / 255) and t.to_numpy().tolist() == labels[:20].tolist()
    flat, _ = data.mnist(tmp_path / "mnist.npz", flat=True)
    assert flat[:][0].shape == (20, 784) and flat[:][0].max() <= 1
    with pytest.raises(owl.DataError):
        data.mnist(tmp_path / "missing")
