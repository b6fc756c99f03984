"""Laws 5 and 7: independent work overlaps; arrays in many Python threads; the GIL is free while owl waits."""
import json
import sys
import threading
import time

import numpy as np
import pytest

import owl
from conftest import settle, unflushed
from reference import arr, val


def in_threads(count, work):
    """Runs work(i) in threads; raises the first exception."""
    errors = []

    def guarded(i):
        try:
            work(i)
        except BaseException as e:
            errors.append(e)
    threads = [threading.Thread(target=guarded, args=(i,), daemon=True) for i in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
        assert not t.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


def slow(n=40, size=900):
    """A value that is seconds away: a chain of products."""
    x = owl.full([size, size], 1.0 / size)
    y = x
    for _ in range(n):
        y = y * x
    return y


# --- 5. Independent work overlaps

def test_a_small_value_does_not_queue_behind_a_long_chain():
    y = slow()
    y.start_eval()
    small = owl.ones([10]) + 1
    assert float(small[0]) == 2
    assert not y.ready()


def test_devices_do_not_wait_for_each_other():
    other = owl.create_cpu_device()
    with owl.device(other):
        y = slow()
        y.start_eval()
    z = owl.ones([64, 64]) * owl.ones([64, 64])
    assert float(z[0, 0]) == 64
    assert not y.ready()


# --- 7. Any thread

def test_threads_make_use_and_drop_arrays():
    before = settle()["live_nodes"]

    def work(i):
        rng = np.random.default_rng(i)
        for _ in range(60):
            a = rng.normal(size=(rng.integers(1, 40), 7)).astype(np.float32)
            x = arr(a)
            y = owl.elewise.tanh(x * 2 + 1).sum(0)
            np.testing.assert_allclose(val(y), np.tanh(a * 2 + 1).sum(axis=0, keepdims=True), atol=1e-4)
            x.trans() * x
    in_threads(8, work)
    assert settle()["live_nodes"] == before


def test_threads_share_arrays():
    """Views, readers and in-place forms of one array from many threads: each sees its own value."""
    shared = arr(np.arange(1000, dtype=np.float32))
    pending = shared * 2

    def work(i):
        for k in range(50):
            x = pending
            x += i
            assert float(x[k]) == 2 * k + i
            assert float(pending[k]) == 2 * k
    in_threads(6, work)


def test_threads_hand_arrays_over():
    """One thread records, another computes from the result, and a third drops it."""
    lock, pool = threading.Lock(), [owl.ones([50])]

    def work(i):
        for _ in range(300):
            with lock:
                x = pool[-1]
            y = x + 1.0
            with lock:
                pool.append(y)
                if len(pool) > 5:
                    pool.pop(0)
    with unflushed():
        in_threads(6, work)
        a = val(pool[-1])
    assert (a == a[0]).all() and 2 <= a[0] <= 1801


def test_threads_wait_for_the_same_value():
    y = slow(10, 400)
    in_threads(8, lambda i: np.testing.assert_allclose(float(y[0, 0]), 1 / 400, rtol=1e-4))


def test_each_thread_has_its_device():
    other = owl.create_cpu_device()
    owl.set_device(other)
    seen = []
    in_threads(1, lambda i: seen.append((owl.ones([2]) + 1).device))
    assert seen == [0]
    assert (owl.ones([2]) + 1).device == other


def test_devices_from_threads():
    devices = [owl.create_cpu_device() for _ in range(2)]
    x = arr(np.arange(100, dtype=np.float32))

    def work(i):
        with owl.device(devices[i % 2]):
            for k in range(50):
                y = x * float(k)
                assert y.device == devices[i % 2] and float(y[7]) == 7 * k
    in_threads(4, work)


WAITS = {"wait_for_eval": lambda y: y.wait_for_eval(), "timeout": lambda y: y.wait_for_eval(100.0),
         "to_numpy": lambda y: y.to_numpy(), "asarray": np.asarray, "count_zero": lambda y: y.count_zero(),
         "float": lambda y: float(y[0, 0]), "wait_for_all": lambda y: owl.wait_for_all()}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_every_wait_frees_the_gil(wait):
    """With a switch interval of minutes another thread runs only when this one releases the GIL."""
    y, seen = slow(25, 700), []
    go = threading.Event()

    def watch():
        go.wait()
        seen.append(y.ready())
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(600)
    try:
        go.set()
        wait(y)
        seen.append("waited")
    finally:
        sys.setswitchinterval(interval)
    thread.join(60)
    assert seen == [False, "waited"]


def test_a_timeout_runs_out():
    y = slow()
    assert y.wait_for_eval(0.0) is False
    assert y.wait_for_eval(timeout=0.01) is False


def kernels(path):
    """(begin, end, thread) of every kernel of a profile, by time."""
    events = json.loads(path.read_text())["traceEvents"]
    return sorted((e["ts"], e["ts"] + e["dur"], e["tid"]) for e in events
                  if e["ph"] == "X" and e["cat"] in ("kernel", "fused"))


several_threads = pytest.mark.skipif(owl.devices()[0].threads < 2, reason="one thread")


@several_threads
def test_independent_work_of_one_device_runs_on_several_threads_at_once(tmp_path):
    x = owl.rand([120, 120])
    x.wait_for_eval()
    for _ in range(20):
        with owl.profile(tmp_path / "trace.json"):
            held = [x * x for _ in range(200)]  # each too small for two threads
        spans = kernels(tmp_path / "trace.json")
        assert len(spans) >= len(held)
        if any(b[0] < a[1] and a[2] != b[2] for a, b in zip(spans, spans[1:])):
            return
    pytest.fail("no two ran at once")


@several_threads
def test_an_operation_takes_as_many_threads_as_pay(tmp_path):
    def most(make):
        counts = []
        for _ in range(10):
            owl.wait_for_all()
            with owl.profile(tmp_path / "trace.json"):
                make().wait_for_eval()
            counts.append(len({thread for _, _, thread in kernels(tmp_path / "trace.json")}))
        return max(counts)
    small, large = owl.rand([20, 20]), owl.rand([2000, 2000])
    assert most(lambda: small * small) == most(lambda: owl.elewise.tanh(small)) == most(lambda: small.sum(0)) == 1
    assert most(lambda: large.trans() * large) > 1 and most(lambda: owl.elewise.tanh(large)) > 1


def test_threads_without_work_spin_for_a_bounded_time():
    """In processor time: a thread that looked for work until the next value came would use all of it."""
    x = owl.ones([256, 256])
    x.wait_for_eval()
    pause, times = 0.004, 100
    begin = time.process_time()
    for i in range(times):
        (x + i).wait_for_eval()
        time.sleep(pause)
    assert time.process_time() - begin < 0.3 * times * pause


def test_copies_overlap_with_computation():
    """To and from a device that is computing a long chain."""
    other, x = owl.create_cpu_device(), owl.rand([300, 300])
    x.wait_for_eval()
    for busy in (0, other):
        with owl.device(busy):
            y = slow()
            y.start_eval()
        assert x.copy_to(other).copy_to(0).wait_for_eval(60) and not y.ready()
        y.wait_for_eval()
