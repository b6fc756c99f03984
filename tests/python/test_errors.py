"""Law 6: errors found while recording are raised at their line; a task's failure names the line that recorded it."""
import re
import time
import traceback
import weakref

import pytest

import owl
from conftest import Counted, eventually, line_of, unflushed
from reference import val


def test_recording_errors_are_raised_at_the_line():
    with unflushed():
        x, y = owl.ones([2, 3]), owl.ones([4, 5])
        with pytest.raises(owl.ShapeError) as e:
            x + y  # THE LINE
    last = traceback.extract_tb(e.value.__traceback__)[-1]
    assert last.filename == __file__ and "THE LINE" in last.line
    assert (val(x) == 1).all() and (val(y) == 1).all()


def test_error_classes():
    for cls, builtin in ((owl.ShapeError, ValueError), (owl.DTypeError, TypeError), (owl.DeviceError, RuntimeError),
                         (owl.OutOfMemoryError, MemoryError), (owl.DataError, ValueError), (owl.NaNError, Exception)):
        assert issubclass(cls, owl.Error) and issubclass(cls, builtin)


# The N-th launched task fails. Five products, each followed by a wait, then uses of the failed one.
FAULTS = """
    import sys
    import owl
    x = owl.from_numpy(__import__("numpy").ones((8, 8), "float32"))
    values, failed = [], []
    for i in range(5):
        v = x * x  # HERE
        values.append(v)
        try:
            v.wait_for_eval()
        except owl.Error as e:
            failed.append(i)
            print("kind", type(e).__name__)
            print("message", str(e).replace("\\n", " "))
    print("failed", failed)
    bad = values[failed[0]]
    for name, make in (("again", lambda: bad), ("child", lambda: bad + 1), ("grandchild", lambda: (bad + 1).sum() * 2),
                       ("view", lambda: bad[0]), ("mixed", lambda: x - bad)):
        for ask in ("wait_for_eval", "to_numpy"):
            try:
                getattr(make(), ask)()
                print(name, "no error")
            except owl.Error as e:
                print(name, "HERE" if "matmul" in str(e) and "user_script.py:%d" % LINE in str(e) else str(e))
    print("ready", bad.ready() in (True, False), "repr", bool(repr(bad)), bad.shape)
    print("good", [float(v[0, 0]) for v in values if v is not bad])
    print("goes on", float((x * x + x).sum()))
    del bad, v
    values.clear()
    owl.wait_for_all()
    print("end")
"""


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("env", [{}, {"OWL_NUM_THREADS": "1"}], ids=str)
def test_a_task_that_fails(script, n, env):
    here = next(i for i, line in enumerate(FAULTS.splitlines(), 1) if "# HERE" in line)
    text = FAULTS.replace("% LINE", f"% {here}")
    done = script(text, env={"OWL_FAULT": f"op:{n}", **env})
    lines = done.stdout.splitlines()
    said = dict(s.split(" ", 1) for s in lines if " " in s)
    assert said["failed"] == f"[{n - 1}]"
    assert "matmul" in said["message"] and f"user_script.py:{line_of(done.path, '# HERE')}" in said["message"]
    for name in ("again", "child", "grandchild", "view", "mixed"):
        assert [s for s in lines if s.startswith(name)] == [f"{name} HERE"] * 2
    assert said["good"] == str([8.0] * 4)
    assert said["goes"] == "on 576.0"
    assert lines[-1] == "end"


def test_eager_raises_at_the_line(script):
    """With OWL_EAGER=1 the script waits for an operation where it records it, so its failure is raised there."""
    done = script("""
        import numpy as np
        import owl
        x = owl.from_numpy(np.ones((8, 8), "float32"))
        y = x * x
        try:
            y * x  # HERE
        except owl.Error as e:
            print(e)
        print(float((y * x).sum()))
    """, env={"OWL_EAGER": "1", "OWL_FAULT": "op:2"})
    message, value = done.stdout.splitlines()
    assert "matmul" in message and f"user_script.py:{line_of(done.path, '# HERE')}" in message
    assert value == "4096.0"


PENDING = """
    import numpy as np
    import owl
    x = owl.from_numpy(np.ones((8, 8), "float32"))
    owl._owl.set_window(1 << 30, -1)
    a = x * x  # FIRST
    b = a.trans() * x
    c = owl.elewise.relu(b) + 1
    d = c.sum()
    free = owl.conv.softmax(x)
    try:
        owl.wait_for_all()
        print("no error")
    except owl.Error as e:
        print(type(e).__name__, e)
    for v in (d, c, b, a):
        try:
            v.wait_for_eval()
            print("no error")
        except owl.Error as e:
            print("failed", "FIRST" if "matmul" in str(e) and ":6" in str(e) else e)
    print("free", float(free.sum()))
    del a, b, c, d, v
    owl.wait_for_all()
    print("end")
"""


def test_everything_computed_from_a_failure_fails_with_the_first_cause(script):
    """a fails before b, c and d are even planned; wait_for_all raises that error; `free` has its value."""
    done = script(PENDING, env={"OWL_FAULT": "op:1"})
    lines = done.stdout.splitlines()
    assert "matmul" in lines[0] and f"user_script.py:{line_of(done.path, '# FIRST')}" in lines[0]
    assert lines[1:5] == ["failed FIRST"] * 4
    assert lines[5].startswith("free 8") or lines[5].startswith("free 7.99")
    assert lines[6] == "end"


ALLOCATION = """
    import numpy as np
    import owl
    x = owl.from_numpy(np.ones((64, 64), "float32"))
    failed = []
    for i in range(6):
        try:
            v = x * x  # HERE
            v.wait_for_eval()
        except owl.OutOfMemoryError as e:
            failed.append(i)
            print("message", e)
            print("builtin", isinstance(e, MemoryError))
    print("failed", len(failed))
    print("goes on", float((x * x).sum()))
"""


@pytest.mark.parametrize("n", [2, 3])
def test_an_allocation_that_fails(script, n):
    done = script(ALLOCATION, env={"OWL_FAULT": f"alloc:{n}"})
    said = dict(s.split(" ", 1) for s in done.stdout.splitlines() if " " in s)
    assert said["failed"] == "1" and said["builtin"] == "True" and said["goes"] == "on 262144.0"
    assert "matmul" in said["message"] and f"user_script.py:{line_of(done.path, '# HERE')}" in said["message"]


def test_failed_values_nobody_holds_are_silent(script):
    done = script("""
        import numpy as np
        import owl
        x = owl.from_numpy(np.ones((8, 8), "float32"))
        y = x * x
        y.start_eval()
        while not owl.stats()["kernels"] and not owl.stats()["tasks_skipped"]:
            try:
                y.wait_for_eval()
                break
            except owl.Error:
                break
        del y
        owl.wait_for_all()
        print(float((x * x).sum()))
    """, env={"OWL_FAULT": "op:1"})
    assert done.stdout.strip() == "512.0"


def test_an_error_at_the_end_of_a_script_is_a_plain_traceback(script):
    done = script("""
        import numpy as np
        import owl
        x = owl.from_numpy(np.ones((8, 8), "float32"))
        y = x * x
        print(y.to_numpy())
    """, env={"OWL_FAULT": "op:1"}, expect=1)
    assert "owl.Error" in done.stderr and "matmul" in done.stderr and "user_script.py:5" in done.stderr
    assert "Fatal" not in done.stderr


@owl.op
def _refuse(x):
    raise ValueError("no")


def _spreads(a, bad):
    """Values in one task with the failing one, first those that do not depend on it."""
    product, chain = a * a, owl.elewise.tanh(a * 2.0)
    total = chain.sum(0)
    return {
        "before and behind a kernel": [chain, total, product, total + bad.sum(0)],
        "behind a kernel": [product, product + bad],
        "in a program": [chain, chain * 0.5, chain + bad, (chain + bad) * 2.0],
        "a view": [product, product + bad[::-1, :]],
    }


@pytest.mark.parametrize("name", _spreads(owl.ones([2, 2]), owl.ones([2, 2])))
@pytest.mark.parametrize("traced", [False, True])
def test_a_failure_reaches_nothing_but_what_is_computed_from_it(name, traced):
    a = owl.rand([300, 300])
    owl.wait_for_all()
    with owl.trace_nan(traced):
        hold = owl._owl.HoldWindow()
        try:
            values = _spreads(a, _refuse(a))[name]
            with pytest.raises(owl.Error, match="ValueError: no"):
                owl.wait_for_all()
        finally:
            hold.release()
        well = _spreads(a, owl.ones([300, 300]))[name]
    failed = 0
    for value, like in zip(values, well, strict=True):
        try:
            assert value.to_numpy().tobytes() == like.to_numpy().tobytes()
            assert not failed
        except owl.Error as e:
            assert "ValueError: no" in str(e)
            failed += 1
    assert failed == (2 if name == "in a program" else 1)


def test_wait_for_all_raises_the_first_of_several_errors_and_waits_for_the_rest():
    def failing(name, seconds):
        def f(x):
            time.sleep(seconds)
            raise ValueError(name)
        return owl.op(f, name=name)(owl.ones([2]))
    other = owl.create_cpu_device()
    for first, second in ((0.1, 0), (0, 0.1)):
        one = failing("one", first)
        with owl.device(other):
            two = failing("two", second)
        slow = owl.op(lambda x: (time.sleep(0.2), x)[1])(owl.ones([2])) + 1
        with pytest.raises(owl.Error, match="^one: .*ValueError: one"):
            owl.wait_for_all()
        assert slow.ready() and two.ready()
        with pytest.raises(owl.Error, match="^two: .*ValueError: two"):
            owl.wait_for_all()
        owl.wait_for_all()  # each of the two has been raised
        for value, name in ((one, "one"), (two, "two"), (one + 1, "one")):
            with pytest.raises(owl.Error, match=f"ValueError: {name}"):
                value.wait_for_eval()  # waiting for the value itself always raises
        del one, two


def failing_op():
    def f(x):
        raise ValueError("no")
    return owl.op(f)


def test_wait_for_all_raises_a_failure_once_whatever_was_computed_from_it():
    a = failing_op()(owl.ones([3]))
    b, c = a + 1, (a * 2.0).sum()
    with pytest.raises(owl.Error, match="ValueError: no"):
        owl.wait_for_all()
    owl.wait_for_all()
    d = owl.elewise.exp(b) + c
    owl.wait_for_all()
    with pytest.raises(owl.Error, match="ValueError: no"):
        d.to_numpy()


class Model:
    """Keeps the failed value in a frame of the exception's traceback."""

    def __init__(self, chain=False):
        self.chain = chain
        self.weights = owl.ones([500])
        self.y = owl.op(self.function, name="model")(self.weights)

    def function(self, x):
        try:
            raise KeyError(x.shape)
        except KeyError as e:
            if self.chain:
                raise ValueError("in a model") from e
            raise

    def wait(self):
        self.y.wait_for_eval()


@pytest.mark.parametrize("chain", [False, True])
def test_an_object_that_keeps_a_failed_value_is_freed(chain):
    with Counted() as c:
        model = Model(chain)
        with pytest.raises(owl.Error) as e:
            model.wait()
        assert "function" in [frame.name for frame in traceback.extract_tb(e.value.__cause__.__traceback__)]
        gone = weakref.ref(model)
        del model, e
        assert eventually(lambda: gone() is None)
    assert c.live_nodes == 0 and c.live_storages == 0


def test_the_memory_of_failed_values_goes_with_their_last_handle():
    allocated = owl.memory_stats()["allocated"]
    x = owl.ones([3])
    for _ in range(20):
        y = owl.op(lambda x: 1 / 0, shape=[1_000_000])(x)
        with pytest.raises(owl.Error, match="ZeroDivisionError"):
            y.wait_for_eval()
    del y, x
    assert owl.memory_stats()["allocated"] == allocated


def test_a_failed_value_is_read_by_any_number_of_operations():
    """Takes under a second; if each operation walked through all failed values, it would exceed a test's time limit."""
    bad = failing_op()(owl.ones([2]))
    values = [bad + k for k in range(200_000)]
    with pytest.raises(owl.Error, match="ValueError: no"):
        owl.wait_for_all()
    owl.wait_for_all()
    with pytest.raises(owl.Error, match="ValueError: no"):
        values[-1].wait_for_eval()


@pytest.mark.parametrize("rows", [1, 3])
def test_operation_and_line_of_a_fused_task_that_gets_no_memory_belong_together(rows, script):
    done = script(f"""
        import owl
        device = owl.create_cpu_device()
        owl.set_device(device)
        x = owl.ones([1000, {rows}])
        x.wait_for_eval()
        owl.set_memory_limit(owl.memory_stats(device)["allocated"] + 64, device)
        a = owl.elewise.exp(x)    # line exp
        b = owl.elewise.tanh(a)   # line tanh
        c = b.sum()               # line sum
        for value in (a, b):
            try:
                value.wait_for_eval()
            except owl.OutOfMemoryError as e:
                print(e)
    """, env={"OWL_WINDOW": "100", "OWL_IDLE_US": "-1"})
    lines = done.stdout.splitlines()
    source = {"exp": "# line exp", "tanh": "# line tanh", "sum": "# line sum"}
    assert len(lines) == 2
    for line in lines:
        blamed, place = re.search(r"\(in operation '(\w+)' recorded at .*?:(\d+)\)$", line).groups()
        assert line.startswith(f"{blamed} [1000, {rows}]: no memory")
        assert source[blamed] in done.path.read_text().splitlines()[int(place) - 1]
