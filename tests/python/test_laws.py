"""Laws 1 to 4 of lazy evaluation: same bits, no wasted work, starts without a wait, bounded."""
import random
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import owl
import programs
from conftest import SOAK, WINDOW, Counted, rss, same_bits, settle, unflushed, window
from reference import arr, val

number = st.integers(0, 999)
program_text = st.lists(st.tuples(*[number] * 6), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def devices():
    return 0, owl.create_cpu_device(), owl.create_cpu_device()


# --- 1. Same bits

WINDOWS = [(1, -1), (2, -1), (7, -1), (1 << 30, -1), (7, 0)]


@given(program=program_text, seed=st.integers(0, 5))
@settings(max_examples=200 * SOAK)
def test_same_bits_for_every_window(devices, program, seed):
    """The cuts of the window, and when and for what the script waits, never change a value."""
    options = dict(seed=seed, devices=devices, rough=True)
    want = programs.evaluate(program, **options)
    for w in WINDOWS:
        for waits in (0, 3):
            with window(*w):
                got = programs.evaluate(program, waits=waits, **options)
            for i, (a, b) in enumerate(zip(got, want, strict=True)):
                assert same_bits(a, b), f"value {i} with window {w}, waits {waits}"


class Turn(programs.Owl):
    """A program's turn in a loop: with arrays and numbers of its own."""

    def __init__(self, turn, **options):
        super().__init__(**options)
        self.turn = turn

    def leaf(self, a, dtype):
        return super().leaf(a + self.turn / 8, dtype)

    def number(self, x, n, number, swap):
        return super().number(x, n, number + self.turn, swap)


def test_same_bits_where_a_plan_is_used_again():
    """A program in a loop, the arrays and numbers of each turn its own."""
    reused = 0

    def loop(program, seed):
        owl.seed(seed)
        return [programs.digest(programs.values(programs.Machine(Turn(turn, rough=True)).run(program)))
                for turn in range(3)]

    @given(program=program_text, seed=st.integers(0, 2**31))
    @settings(max_examples=60 * SOAK)
    def check(program, seed):
        nonlocal reused
        with owl.eager():
            want = loop(program, seed)
        with window(1 << 20, -1):
            before = owl.stats()["plans_reused"]
            assert loop(program, seed) == want
            reused += owl.stats()["plans_reused"] - before

    check()
    assert reused > 60


FAMILIES = [  # programs over arrays of their own: (a, b, number) to what they make
    lambda a, b, n: [a * n + b],
    lambda a, b, n: [owl.elewise.mult(a, b) - n, owl.elewise.exp(a * 0.1)],
    lambda a, b, n: [owl.elewise.relu(a - b) / (n + 2)],
    lambda a, b, n: [(a > b).astype("float32"), a * 0.9 + b * (1 - n)],
    lambda a, b, n: [a - a.mean() if a.size else a],
]
SMALL = [(1,), (3,), (64, 5), (0, 2), (2, 3, 4), (33, 31)]


def family_values(text, seed):
    """Updates of a few families of arrays, each as often as `text` says; some values are dropped, some read early."""
    rng = np.random.default_rng(seed)
    pool = [owl.from_numpy(rng.uniform(-1, 1, SMALL[i % len(SMALL)]).astype("f4")) for i in range(12)]
    kept = []
    for kind, count, start, read in text:
        made = []
        for i in range(count % 14):
            a = pool[(start + i) % len(pool)]
            b = next(x for x in pool[(start + 3 * i) % len(pool):] + pool if x.shape == a.shape)
            made.append(FAMILIES[kind % len(FAMILIES)](a, b, (start % 5) * 0.25))
            if read % 7 == 0 and i == 3 and made[2][0].size:
                float(made[2][0].sum())
        for i, results in enumerate(made):
            if (read + i) % 3:  # the others are dropped
                pool[(start + i) % len(pool)] = results[-1]
                kept.append(results[0])
        del kept[:-20]
    return [x.to_numpy() for x in pool + kept]


@given(text=st.lists(st.tuples(number, number, number, number), min_size=1, max_size=12), seed=st.integers(0, 5))
@settings(max_examples=60 * SOAK)
def test_same_bits_where_equal_programs_become_one_task(text, seed):
    owl._owl.set_batch_alike(False)
    try:
        want = family_values(text, seed)
    finally:
        owl._owl.set_batch_alike(True)
    for w in [(5, -1), (64, 100), (1 << 30, -1)]:
        with window(*w):
            got = family_values(text, seed)
        for i, (a, b) in enumerate(zip(got, want, strict=True)):
            assert same_bits(a, b), f"value {i} with window {w}"


BESIDE_VIEWS = {  # an operand combined with views of it, of intermediates and of results of other groups
    "transposed": lambda x, f, g: f + f.trans(),
    "reversed": lambda x, f, g: owl.elewise.maximum(f[::-1], f),
    "broadcast": lambda x, f, g: f - f[:, :1] - f[:1],
    "reshaped": lambda x, f, g: f + f.reshape([-1]).reshape([6, 6]),
    "view of a third": lambda x, f, g: owl.elewise.clip(f, g, g.trans() + 9),
    "two groups": lambda x, f, g: owl.elewise.where(f > 2, g.trans(), f) + g,
    "one by one": lambda x, f, g: (f + g) + f.trans() + (f * 2 + g)[::-1],
    "view first": lambda x, f, g: f.trans() * 2 + f,
    "in place": lambda x, f, g: f.__iadd__(f.trans()).__isub__(g[::-1]),
    "kernel between": lambda x, f, g: f + (f.trans() * g).trans() + g,
    "sum between": lambda x, f, g: (f - f.sum(0)) / f.trans().sum(1),
    "argmax": lambda x, f, g: owl.elewise.maximum(f, f.trans().argmax(0)) + f.trans(),
}


@pytest.mark.parametrize("name", BESIDE_VIEWS)
def test_an_operand_beside_views_of_it(name):
    """A value must not be fused with a reader of its memory: it has the bits of eager evaluation."""
    x = arr(np.random.default_rng(1).uniform(1, 2, (6, 6)).astype(np.float32))

    def compute():
        f, g = x * 2, x + 1
        y = BESIDE_VIEWS[name](x, f, g)
        assert y.wait_for_eval(60), "the value never arrives"
        return val(y)
    with window(1, -1):
        want = compute()
    with unflushed():
        assert same_bits(compute(), want)


@given(program=program_text, seed=st.integers(0, 5))
@settings(max_examples=30 * SOAK)
def test_same_bits_on_large_arrays(devices, program, seed):
    """As above, on arrays that are cut into chunks."""
    options = dict(seed=seed, devices=devices, rough=True, shapes=programs.LARGE)
    with window(1, -1):
        want = programs.evaluate(program, waits=3, **options)
    for w in ((1 << 30, -1), (7, 0)):
        with window(*w):
            got = programs.evaluate(program, **options)
        assert all(same_bits(a, b) for a, b in zip(got, want, strict=True)), f"window {w}"


@given(program=program_text)
@settings(max_examples=150 * SOAK)
def test_values_against_float64(devices, program):
    """Every element is within the error bound of the float64 value (see programs.Numpy)."""
    with np.errstate(all="ignore"):
        want = programs.Machine(programs.Numpy()).run(program)
    got = programs.evaluate(program, devices=devices)
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        told = np.isfinite(b.v) & np.isfinite(b.e)
        assert (np.abs(a - b.v)[told] <= b.e[told]).all(), (a, b.v, b.e)


ENVIRONMENTS = [{"OWL_EAGER": "1"}, {"OWL_NUM_THREADS": "1"}, {"OWL_NUM_THREADS": "2"},
                {"OWL_EAGER": "1", "OWL_NUM_THREADS": "1"}, {"OWL_WINDOW": "3"}]


def test_same_bits_in_every_environment(script):
    """One hash per program, over the bits of all its values, from a process per setting."""
    seed, count = 1, 100 * SOAK
    print("programs", seed, "to", seed + count - 1)
    text = f"import programs\nprograms.main({seed}, {count})"
    want = script(text).stdout.splitlines()
    assert len(want) == count
    for env in ENVIRONMENTS:
        got = script(text, env=env, timeout=300 * SOAK).stdout.splitlines()
        different = [a.split()[0] for a, b in zip(got, want, strict=True) if a != b]
        assert not different, f"{env}: programs {different}"


KERNELS = """
    import hashlib
    import numpy as np
    import owl
    def show(name, x):
        print(name, hashlib.sha256(np.ascontiguousarray(x.to_numpy()).tobytes()).hexdigest())
    owl.seed(3)
    for m, k, n in ((64, 4096, 64), (784, 256, 256), (100, 784, 1000), (256, 784, 256), (10, 256, 257), (1, 5000, 1),
                    (500, 1, 500)):
        a, b = owl.randn([m, k]), owl.randn([k, n])
        show(f"matmul {m} {k} {n}", a * b)
        show("transposed", owl.randn([k, m]).trans() * b)
        show("relu", owl.elewise.relu(a * b + owl.randn([m, 1])))
    for c_in, c_out, size, kernel, pad in ((1, 16, 28, 5, 0), (16, 32, 12, 5, 2), (3, 8, 17, 3, 1)):
        c = owl.conv.Convolver(pad, pad, 1, 1)
        x, w, b = owl.randn([size, size, c_in, 32]), owl.randn([kernel, kernel, c_in, c_out]), owl.randn([c_out])
        y = c.ff(x, w, b)
        e = owl.randn(y.shape)
        for name, v in (("ff", y), ("bp", c.bp(e, x, w)), ("weight", c.weight_grad(e, x, w)), ("bias", c.bias_grad(e))):
            show(f"conv {c_in} {name}", v)
        p = owl.conv.Pooler(3, 3, 2, 2)
        show("pool", p.ff(y))
        show("pool back", p.bp(owl.randn(p.ff(y).shape), p.ff(y), y))
        l = owl.conv.Lrner(5, 1e-2, 0.75)
        show("lrn", l.ff(y, y))
    for shape in ([1_000_000], [1000, 1000], [3, 400_000], [400_000, 3]):
        x = owl.randn(shape)
        for name in ("sum", "mean", "max"):
            show(f"{name} {shape}", getattr(x, name)(0))
            show(f"{name} last", getattr(x, name)(-1))
        show("all", x.sum())
    show("softmax", owl.conv.softmax(owl.randn([1000, 300])))
    show("rand", owl.rand([300_001]))
    show("randb", owl.randb([300_001], 0.3))
"""


def test_same_bits_of_large_kernels_on_1_and_2_threads(script):
    want = script(KERNELS, env={"OWL_NUM_THREADS": "2"}).stdout.splitlines()
    assert len(want) > 60
    for env in ({"OWL_NUM_THREADS": "1"}, {"OWL_NUM_THREADS": "3"}, {"OWL_EAGER": "1", "OWL_NUM_THREADS": "1"}):
        got = script(KERNELS, env=env).stdout.splitlines()
        assert [a for a, b in zip(got, want, strict=True) if a != b] == [], env


# --- 2. No wasted work

def test_what_nobody_holds_is_not_computed():
    x = owl.ones([1000])
    x.wait_for_eval()
    for _ in range(1000):
        x + 1.0
    memory = rss()
    # A worker may plan the window while the script is delayed between an operation and dropping its name.
    with window(WINDOW[0], -1), Counted() as c:
        highest = 0
        for i in range(100_000):
            x + 1.0
            if i % 1000 == 0:
                highest = max(highest, owl.stats()["live_nodes"])
    assert c.kernels == 0 and c.bytes_written == 0
    assert c.recorded == 100_000 and c.dropped == 100_000
    assert c.live_nodes == 0 and c.live_storages == 0
    assert highest < 2000 and rss() - memory < 8 << 20


def test_a_chain_that_nobody_holds_is_not_computed():
    x = owl.ones([100, 100])
    x.wait_for_eval()
    with Counted() as c, unflushed():
        y = owl.elewise.exp(x * x + 1).sum(0) * 3
        z = owl.conv.softmax(x).max(1)
        del y, z
    assert c.kernels == 0 and c.dropped == c.recorded > 0


def test_only_what_is_asked_for_is_computed():
    x = owl.ones([64, 64])
    x.wait_for_eval()
    with unflushed():
        with Counted() as c:
            y = x + 1
            for _ in range(10):
                unused = x * x
            del unused
            assert float(y.sum()) == 2 * 64 * 64
    assert c.kernels <= 2 and c.dropped == 10


@pytest.mark.parametrize("k", [1, 2, 3, 10, 25])
@pytest.mark.parametrize("shape", [[7], [300, 400]], ids=str)
def test_a_chain_is_one_kernel_and_one_buffer(k, shape):
    """x -> f1 -> f2 -> ... -> fk: one task that reads x once and writes fk once."""
    x = owl.ones(shape)
    x.wait_for_eval()
    with Counted() as c, unflushed():
        y = x
        for i in range(k):
            y = y * 0.5 if i % 2 else y + 1.0
        y.wait_for_eval()
    assert (c.kernels, c.buffers_written, c.bytes_written) == (1, 1, 4 * x.size)
    assert c.live_nodes == 1 and c.live_storages == 1


def test_broadcast_operands_are_part_of_the_chain():
    """(x - column) / row, squared: one kernel, without broadcast copies in memory."""
    x, column, row = owl.ones([200, 300]), owl.ones([200, 1]), owl.full([1, 300], 2.0)
    owl.wait_for_all()
    with Counted() as c, unflushed():
        y = owl.elewise.square((x - column) / row) + x
        y.wait_for_eval()
    assert (c.kernels, c.buffers_written, c.copies) == (1, 1, 0)


def test_a_held_intermediate_is_written_too_in_the_same_kernel():
    x = owl.ones([1000])
    x.wait_for_eval()
    with Counted() as c, unflushed():
        y = x + 1
        z = y * 3
        z.wait_for_eval()
        assert (val(y) == 2).all() and (val(z) == 6).all()
    assert c.kernels <= 2 and c.buffers_written == 2


def test_a_common_operand_is_computed_once():
    """     e
         / | \\      e is read by three: one kernel, one buffer."""
    x = owl.ones([1000])
    x.wait_for_eval()
    with Counted() as c, unflushed():
        e = owl.elewise.exp(x)
        y = (e + 1) / (e - 0.5) * 2 + e
        del e
        y.wait_for_eval()
    assert (c.kernels, c.buffers_written) == (1, 1)


def test_a_value_is_computed_once_however_often_it_is_asked_for():
    x = owl.ones([100])
    with Counted() as c:
        y = x + 1
        for _ in range(5):
            y.wait_for_eval()
            y.to_numpy()
        owl.wait_for_all()
    assert c.buffers_written <= 2


# --- 3. Starts without a wait

def eventually(ready, timeout=60):
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


EXPRESSIONS = {
    "tiny": lambda x: x + 1, "fused": lambda x: owl.elewise.tanh(x * 2 + 1).sum(0), "product": lambda x: x.trans() * x,
    "view": lambda x: (x * 2)[1:, ::2], "data": lambda x: x, "random": lambda x: owl.randn([100, 100]),
    "softmax": lambda x: owl.conv.softmax(x), "cast": lambda x: x.astype("float64").trans(),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_a_quiet_script_finds_its_values_ready(name):
    y = EXPRESSIONS[name](owl.ones([300, 400]))
    assert eventually(y.ready)


def test_a_quiet_script_with_several_devices(devices):
    results = []
    for d in devices:
        with owl.device(d):
            results.append(owl.ones([50, 50]) * 2 + len(results))
    assert eventually(lambda: all(r.ready() for r in results))


def test_start_eval_starts_what_the_window_would_keep():
    with unflushed():
        y = owl.ones([100]) + 1
        y.start_eval()
        assert eventually(y.ready)


def test_a_window_without_idle_flush_keeps_back_what_nobody_asks_for():
    x = owl.ones([100])
    x.wait_for_eval()
    with unflushed():
        y = x + 1
        time.sleep(0.05)
        assert not y.ready() and owl.stats()["window_nodes"] == 1


# --- 4. Bounded

def test_a_loop_that_never_waits_is_bounded():
    x = owl.ones([16, 16])
    settle()
    memory, highest = rss(), 0
    for i in range(200_000):
        x = x * 0.5 + 1.0
        if i % 500 == 0:
            highest = max(highest, owl.stats()["live_nodes"])
    assert (val(x) == 2).all()
    assert highest < 20_000 and rss() - memory < 64 << 20


def test_a_loop_over_large_arrays_is_bounded_by_bytes():
    """5 GB recorded, at most half a GB at any time."""
    x = owl.ones([1000, 1000])
    settle()
    highest = 0
    for _ in range(600):
        x = owl.elewise.maximum(x.trans() * 0.5, x) + 1.0
        highest = max(highest, owl.memory_stats()["allocated"])
    x.wait_for_eval()
    assert highest < 512 << 20


def test_a_held_list_of_results_does_not_grow_the_graph():
    x, kept = owl.ones([4]), []
    settle()
    before = owl.stats()["live_nodes"]
    for i in range(20_000):
        x = x + 1.0
        if i % 100 == 0:
            kept.append(x)
    settle()
    assert owl.stats()["live_nodes"] - before <= 201
    assert [float(k[0]) for k in kept] == [2.0 + i for i in range(0, 20_000, 100)]


MILLION = 1_000_000


def test_a_chain_of_a_million():
    y = owl.zeros([1])
    for _ in range(MILLION):
        y = y + 1.0
    assert float(y) == MILLION


def test_a_million_pending_operations():
    """Planned at once; and released at once without planning."""
    with unflushed():
        before = settle()["live_nodes"]
        y = owl.zeros([1])
        for _ in range(MILLION // 4):
            y = y + 1.0
        assert float(y) == MILLION // 4
        for _ in range(MILLION // 4):
            y = y + 1.0
        del y
        assert settle()["live_nodes"] == before


def test_a_million_views_of_views():
    x = owl.arange(8)
    for _ in range(MILLION // 10):
        x = x[::-1]
    assert same_bits(val(x), np.arange(8, dtype=np.float32))
    del x
    settle()


def test_a_wide_graph():
    """One operand with many readers, one reader with many operands."""
    rng = random.Random(1)
    x = arr(np.arange(64, dtype=np.float32))
    parts = [x * float(rng.randrange(9)) for _ in range(5000)]
    total = owl.concat([p.reshape([64, 1]) for p in parts], 1).sum(1)
    want = sum(val(p) for p in parts)
    assert same_bits(val(total).ravel(), want)


def test_long_graphs_need_no_stack(script):
    """Records, plans and releases a long chain and many diamonds on a thread with a stack of 256 KiB."""
    script(
        """
        import threading
        import owl
        owl._owl.set_window(1 << 30, -1)  # all of it is one graph
        failures = []

        def work():
            try:
                x = owl.ones([4])
                for _ in range(300_000):
                    x = x + 1.0
                assert x.to_numpy().tolist() == [300_001.0] * 4
                y = owl.ones([4])
                for _ in range(20_000):
                    a, b = y * 0.5, y * 0.25
                    y = a + b + b
                dropped = y + 1.0
                del dropped
                assert y.to_numpy().tolist() == [1.0] * 4
                z = owl.ones([4])
                for _ in range(100_000):
                    z = z.reshape([2, 2]).trans().reshape([4])
                assert float(z.sum()) == 4
            except BaseException as e:
                failures.append(e)

        threading.stack_size(256 * 1024)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert not failures, failures
        """
    )


def test_work_begins_while_the_script_still_records():
    with window(WINDOW[0], -1):  # so that no pause of the script starts it
        first = x = owl.ones([100]) + 1
        deadline = time.monotonic() + 60
        while not first.ready():
            assert time.monotonic() < deadline
            x = x + 1.0


@pytest.mark.parametrize("held", [0, 40, 100])
def test_what_is_dropped_while_it_is_computed_is_given_up(held):
    """A planned chain of products waits for its operand; only the products that a live value needs are computed."""
    go = threading.Event()
    x = owl.full([50, 50], 1 / 50)
    with Counted() as c:
        y = owl.op(lambda a: (go.wait(60), a)[1])(x)
        kept = []
        for i in range(1, 101):
            y = y * x
            if i == held:
                kept.append(y)
        y.start_eval()
        del y
        go.set()
    assert held <= c.kernels <= held + 3
    assert all(abs(val(k) - 1 / 50).max() < 1e-6 for k in kept)


@pytest.mark.parametrize("seed", range(20 * SOAK))
def test_dropping_at_any_moment_spares_what_is_held(seed):
    """Drops some of the values that are planned, running or done; the others and their results are right."""
    rng = random.Random(seed)
    first = np.random.default_rng(seed).integers(-9, 9, (40, 40)).astype(np.int32)
    held = [(arr(first), first)]
    for _ in range(150):
        (x, a), (y, b) = rng.choice(held), rng.choice(held)
        made = [lambda: (x * y, a @ b), lambda: (x + y, a + b), lambda: (x.trans() - 1, a.T - 1),
                lambda: (owl.concat([x, y], 0)[20:60], np.concatenate([a, b])[20:60])]
        held.append(rng.choice(made)())
        if rng.random() < 0.2:
            held[-1][0].start_eval()
        if rng.random() < 0.1:
            time.sleep(0.0002)
        while len(held) > 1 and rng.random() < 0.5:
            held.pop(rng.randrange(len(held)))
        x = y = made = None  # drops the values
    for x, a in held:
        assert same_bits(val(x), a)
