"""Inspection: explain, draw, profile, trace_nan, dump, OWL_DUMP, OWL_PROFILE."""

import gc
import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import owl

ele = owl.elewise


@pytest.fixture(autouse=True)
def forget_failures():
    """Inspected exceptions keep frames, and so failed values, until the garbage collector runs."""
    yield
    gc.collect()


def line():
    """The caller's line number."""
    return inspect.currentframe().f_back.f_lineno


def operations(x):
    return [task.operations for task in owl.explain(x).tasks]


# ---- explain ---------------------------------------------------------------------------------------------------------


def test_explain_shows_fusion_order_and_lines():
    a, w = owl.randn([100, 50]), owl.randn([10, 100])
    owl.wait_for_all()

    def step():
        return owl.conv.softmax(ele.relu(w * a * 2.0 + 1.0))

    here = line() - 2
    plan = owl.explain(step)
    assert [t.kind for t in plan.tasks] == ["kernel", "kernel"]
    assert [t.operations for t in plan.tasks] == [["matmul", "mult", "add", "relu"], ["softmax"]]
    assert [t.after for t in plan.tasks] == [[], [0]]
    assert all(place == f"{__file__}:{here}" for t in plan.tasks for place in t.places)
    assert plan.tasks[0].shape == [10, 50]
    assert plan.tasks[0].bytes_read == 4 * (100 * 50 + 10 * 100) and plan.tasks[0].bytes_written == 4 * 500
    assert plan.tasks[1].reuses == 0  # the product's memory
    assert "mult, add, relu" in str(plan) and f"test_inspection.py:{here}" in str(plan)
    assert len(plan) == 2 and repr(plan).startswith("<owl.Plan of 2 tasks>")


def test_explain_runs_nothing_and_changes_nothing():
    kernels = []

    def step():
        x = ele.tanh(owl.ones([1000]) * 2.0)
        kernels.append(owl.stats()["kernels"])
        return x.sum(), x.max()

    owl.wait_for_all()
    first = owl.explain(step)
    assert owl.stats()["kernels"] == kernels[0]
    owl.wait_for_all()  # the explained operations were dropped, not run
    assert owl.stats()["kernels"] == kernels[0]
    assert [t.operations for t in owl.explain(step).tasks] == [t.operations for t in first.tasks]


def test_what_is_explained_is_what_runs():
    def step():
        x = owl.randn([64, 64])
        y = ele.exp(x) + x.trans()
        return [(y * y).sum(0), ele.mult(y, 2.0)[1:, :].sum(), y.reshape([-1])[::3]]

    hold = owl._owl.HoldWindow()
    try:
        values = step()
        owl.wait_for_all()
        values = step()
        plan = owl.explain(values)
        before = owl.stats()
        for v in values:
            v.wait_for_eval()
        after = owl.stats()
        assert after["kernels"] - before["kernels"] == len(plan)
        assert after["buffers_written"] - before["buffers_written"] == sum(t.outputs for t in plan.tasks)
        assert after["bytes_written"] - before["bytes_written"] == sum(t.bytes_written for t in plan.tasks)
        assert after["in_place"] - before["in_place"] == sum(t.reuses is not None for t in plan.tasks)
    finally:
        hold.release()


def test_explain_takes_an_array_several_and_none():
    hold = owl._owl.HoldWindow()
    try:
        owl.wait_for_all()
        x = owl.ones([4]) + 1.0
        y = owl.zeros([3]) * 2.0
        assert operations(y) == [["full"], ["mult"]]
        assert len(owl.explain([x, y])) == 4
        assert len(owl.explain()) == 4
        x.wait_for_eval()
        assert len(owl.explain(x)) == 0 and "nothing to run" in str(owl.explain(x))
    finally:
        hold.release()
    with pytest.raises(TypeError, match="NArray"):
        owl.explain([1.0])
    with pytest.raises(ZeroDivisionError):
        owl.explain(lambda: 1 / 0)
    assert (owl.ones([2]) + 1).wait_for_eval(60)  # the window still works


def test_windows_are_held_until_the_last_lets_go():
    first, second = owl._owl.HoldWindow(), owl._owl.HoldWindow()
    first.release()
    x = owl.ones([3]) + 1.0
    assert owl.explain(x).tasks and not x.ready()
    second.release()
    second.release()
    y = owl.ones([3]) + 1.0
    deadline = time.monotonic() + 60
    while not y.ready() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert y.ready() and x.ready()


def test_a_dump_that_cannot_be_written_stops_nothing():
    done = run("import owl; assert float((owl.ones([3]) + 1).sum()) == 6", OWL_DUMP="/proc/none")
    assert "OWL_DUMP: " in done.stderr


def test_a_value_that_is_held_keeps_its_memory():
    owl.wait_for_all()

    def kept():
        x = owl.ones([100])
        return ele.exp(x.sum(0) + x), x

    assert [t.reuses for t in owl.explain(kept).tasks if t.kind == "fused"] == [None]
    assert [t.reuses for t in owl.explain(lambda: kept()[0]).tasks if t.kind == "fused"] == [0]


def test_explain_of_a_long_graph_crosses_batches():
    def chain():
        x = owl.ones([8])
        for _ in range(700):
            x = x + 1.0
        return x

    plan = owl.explain(chain)
    assert sum(len(t.operations) for t in plan.tasks) == 701
    assert all(t.after == [i - 1] for i, t in enumerate(plan.tasks) if i)


def test_draw_frames_what_runs_together():
    a = owl.randn([6, 5])
    owl.wait_for_all()
    text = owl.draw(lambda: ele.relu(a.trans() * a + 1.0))
    assert text.startswith("digraph owl {") and text.rstrip().endswith("}")
    assert text.count("subgraph cluster_") == 1
    for word in ("matmul", "add", "relu", "view", "float32 [5, 6]", "style=dashed"):
        assert word in text
    assert owl.draw(a).count("label") == 1  # a value in memory: one leaf


# ---- profile ---------------------------------------------------------------------------------------------------------


def spans(path):
    events = json.loads(path.read_text())["traceEvents"]
    lanes = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    return [(lanes[e["tid"]], e) for e in events if e["ph"] == "X"]


def test_profile_has_tasks_lines_and_lanes(tmp_path):
    path = tmp_path / "trace.json"
    x = owl.randn([300, 300])
    with owl.profile(path):
        y = x * x
        here = line() - 1
        z = ele.exp(y * 0.001) + 1.0
        total = (x * 0.5 + 1.0).sum()
        w = ele.exp(x.trans()) + 1.0
    assert z.ready() and total.ready() and w.ready()
    found = spans(path)
    products = [e for _, e in found if e["name"] == "matmul mult exp add"]
    assert products and all(e["args"]["line"] == f"{__file__}:{here}" for e in products)
    assert all(e["args"]["result"] == "float32 [300, 300]" for e in products)
    sums = [e for _, e in found if e["name"] == "mult add sum" and e["cat"] == "kernel"]
    assert sums and all(e["args"]["parameters"] == "axes=[], all=true" for e in sums)
    assert any(e["name"] == "exp add" and e["cat"] == "fused" for _, e in found)
    assert any(e["name"] == "plan" for _, e in found)
    assert any(lane.startswith(f"device {owl.current_device()}, worker ") for lane, _ in found)
    assert all(e["dur"] >= 0 and e["tdur"] >= 0 and e["ts"] >= 0 for _, e in found)
    assert not list(tmp_path.glob("*.part"))


def test_profile_has_shared_copies_of_memory(tmp_path):
    path = tmp_path / "trace.json"
    x = np.ones(20_000_000, np.float32)
    with owl.profile(path):
        for _ in range(3):
            owl.from_numpy(x).wait_for_eval()
    copies = [e for _, e in spans(path) if e["name"] == "copy of memory"]
    assert all(set(e["args"]) == {"device", "chunk"} for e in copies)
    assert copies or owl.devices()[0].threads == 1


def test_a_profile_ends_with_an_exception_too(tmp_path):
    path = tmp_path / "trace.json"
    with pytest.raises(KeyError), owl.profile(str(path)):
        (owl.ones([10]) + 1).wait_for_eval()
        raise KeyError
    assert spans(path)


def test_profile_errors_come_at_the_start(tmp_path):
    with pytest.raises(owl.Error, match=r"cannot write .*No such file"), owl.profile(tmp_path / "none" / "x.json"):
        pytest.fail("entered")
    with owl.profile(tmp_path / "a.json"):
        with pytest.raises(owl.Error, match="already"), owl.profile(tmp_path / "b.json"):
            pytest.fail("entered")
    assert (tmp_path / "a.json").exists() and not (tmp_path / "b.json").exists()


def run(code, **environment):
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True,
                          text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def test_a_whole_run_is_profiled_by_environment(tmp_path):
    run("import owl; (owl.ones([10, 10]) * owl.ones([10, 10])).to_numpy()", OWL_PROFILE=str(tmp_path / "run.json"))
    assert any(e["name"] == "matmul" for _, e in spans(tmp_path / "run.json"))


def test_plans_are_dumped_by_environment(tmp_path):
    run("import owl; (owl.ones([10, 10]) * owl.ones([10, 10]) + 1.0).to_numpy()", OWL_DUMP=str(tmp_path / "d"),
        OWL_IDLE_US="-1")  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == ["000001-graph.dot", "000001-plan.txt"]
    assert "matmul" in (tmp_path / "d" / "000001-plan.txt").read_text()
    assert (tmp_path / "d" / "000001-graph.dot").read_text().startswith("digraph")


def test_dump_tells_what_is_there():
    hold = owl._owl.HoldWindow()
    try:
        x = owl.ones([123, 7]) + 1.0
        here = line() - 1
        out = io.StringIO()
        owl.dump(out)
    finally:
        hold.release()
    assert f"operation add [123, 7] of {__file__}:{here}" in out.getvalue()
    assert "device 0" in out.getvalue() and "bytes in use" in out.getvalue()
    assert x.wait_for_eval()


def test_dump_on_signal():
    done = run(
        "import os, signal, threading, time, owl\n"
        "owl.dump_on_signal()\n"
        "x = owl.randn([1000, 1000])\n"
        "y = [x * x for _ in range(40)]\n"
        "threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()\n"
        "owl.wait_for_all()\n"
        "time.sleep(0.3)\n"
    )
    assert "bytes in use" in done.stderr


# ---- trace_nan -------------------------------------------------------------------------------------------------------

FINITE = np.array([[0.5, 2.0, -1.0], [0.0, 1000.0, 3.0]], np.float32)  # [3, 2] in owl

GUILTY = {  # operation -> what to record from an array x with the elements above
    "exp": lambda x: ele.exp(x),
    "ln": lambda x: ele.ln(x),
    "sqrt": lambda x: ele.sqrt(x),
    "div": lambda x: 1.0 / x,
    "pow": lambda x: x**200.0,
    "mult": lambda x: x * 1e38,
    "square": lambda x: ele.square(x * 1e18),
    "add": lambda x: ele.mult(x, 1e17) * 3e18 + x.max() * 3.3e35,
    "sub": lambda x: ele.mult(x, -1e35) - x.max() * 3e35,
    "expm1": lambda x: ele.expm1(x),
    "log1p": lambda x: ele.log1p(x - 1.0),
    "cast": lambda x: (x.astype("float64") * 1e300).astype("float32"),
    "matmul": lambda x: x * (x.trans() * 3e35),
    "sum": lambda x: (x * 0.0 + 2e38).sum(),
    "softmax_back": lambda x: owl.conv.softmax_back(x * 3e35, x * 3e35),
}


@pytest.mark.parametrize("name", GUILTY)
def test_trace_nan_names_the_guilty_operation(name):
    x = owl.from_numpy(FINITE)
    with owl.trace_nan():
        y = GUILTY[name](x) * 1.0 + 0.0
        with pytest.raises(owl.NaNError, match=rf"^{name} made (NaN|-?infinity)") as caught:
            y.to_numpy()
        assert f"recorded at {__file__}:" in str(caught.value)
        good = x + 1.0
    np.testing.assert_array_equal(good.to_numpy(), FINITE + 1)


@pytest.mark.parametrize("planted", range(50))
def test_a_planted_nan_is_found_at_every_site(planted):
    """A chain of fifty operations of which one divides zero by zero."""
    with owl.trace_nan():
        x = owl.ones([100, 3])
        first = None
        for site in range(50):
            if site == planted:
                x = (x * 0.0) / (x - x)
                first = line() - 1
            elif site % 7 == 3:
                x = owl.conv.softmax(x)
            elif site % 11 == 5:
                x = owl.ones([100, 100]) * x * 0.01
            else:
                x = x * 0.5 + 0.5
        with pytest.raises(owl.NaNError, match=r"^div made NaN of 0 and 0, at \[0, 0\] of its result \[100, 3\]") as e:
            x.to_numpy()
        assert f"{__file__}:{first})" in str(e.value)


def test_only_what_depends_on_it_fails():
    x = owl.from_numpy(FINITE)
    hold = owl._owl.HoldWindow()  # to get one fused program
    try:
        with owl.trace_nan():
            bad, good = ele.exp(x), x * 2.0
            worse, better = bad + good, good + 1.0
            np.testing.assert_array_equal(better.to_numpy(), FINITE * 2 + 1)
    finally:
        hold.release()
    np.testing.assert_array_equal(good.to_numpy(), FINITE * 2)
    for value in (bad, worse):
        with pytest.raises(owl.NaNError, match=r"^exp made infinity of 1000, at \[1, 1\]"):
            value.to_numpy()


def test_values_that_were_not_finite_are_not_blamed():
    x = owl.from_numpy(np.array([np.nan, np.inf, -np.inf, 1], np.float32))
    with owl.trace_nan():
        for y in (x + 1.0, ele.exp(x), x.sum(), owl.full([3], float("inf")), x.reshape([2, 2]) * x.reshape([2, 2])):
            y.to_numpy()
        ele.where(x > 0, x, float("-inf")).to_numpy()
        assert (x.astype("int32") + 1).dtype == owl.int32


def test_a_finite_value_behind_an_overflow_is_found():
    """exp overflows although the final value is finite: 1 / inf."""
    with owl.trace_nan():
        y = 1.0 / ele.exp(owl.full([3], 1000.0))
        with pytest.raises(owl.NaNError, match="^exp made infinity of 1000"):
            y.to_numpy()
    assert (1.0 / ele.exp(owl.full([3], 1000.0))).to_numpy().tolist() == [0, 0, 0]


def test_bits_are_the_same_with_and_without():
    x = owl.from_numpy(np.random.default_rng(1).standard_normal((97, 33)).astype(np.float32))

    def compute():
        y = ele.tanh(x * 1.5) + ele.sigm(x.trans().trans())
        z = owl.conv.softmax(y * x.trans())
        return [v.to_numpy() for v in (y, z, z.sum(0), (y * 2.0)[::2, 1:], ele.where(y > 0, y, -y))]

    plain = compute()
    with owl.trace_nan():
        traced = compute()
    for a, b in zip(plain, traced):
        np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))


def test_it_can_be_switched_and_nests():
    assert not owl._owl.tracing_nan()
    owl.trace_nan()
    assert owl._owl.tracing_nan()
    with owl.trace_nan(False):
        assert not owl._owl.tracing_nan()
        assert np.isinf((1.0 / owl.zeros([1])).to_numpy()).all()
    assert owl._owl.tracing_nan()
    owl.trace_nan(False)
    assert not owl._owl.tracing_nan()


def test_trace_nan_is_the_same_eagerly():
    run(
        "import owl, numpy as np\n"
        "owl.trace_nan()\n"
        "try: (owl.elewise.ln(owl.zeros([2])) + 1).to_numpy()\n"
        "except owl.NaNError as e: assert str(e).startswith('ln made -infinity of 0'), e\n"
        "else: raise SystemExit('not found')",
        OWL_EAGER="1",
    )


def test_eager_runs_each_operation_at_its_line():
    with owl.eager():
        x = owl.randn([50, 50])
        assert x.ready()
        y = ele.exp(x) + 1.0
        assert y.ready()
        with owl.trace_nan(), pytest.raises(owl.NaNError):
            ele.ln(owl.zeros([2]))
    owl.seed(7)
    with owl.eager():
        one_by_one = ele.tanh(owl.randn([1000]) * 2.0).to_numpy()
    owl.seed(7)
    np.testing.assert_array_equal(one_by_one, ele.tanh(owl.randn([1000]) * 2.0).to_numpy())
    hold = owl._owl.HoldWindow()
    try:
        z = x + 1.0
        assert not z.ready()
    finally:
        hold.release()


def test_signals_are_given_back():
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


NETWORKS = {  # operation -> what to record
    "conv": lambda c, f: c.Convolver().ff(f([4, 4, 1, 1], 3e38), f([2, 2, 1, 1], 2), f([1], 0)),
    "conv_back_data": lambda c, f: c.Convolver().bp(f([3, 3, 1, 1], 3e38), f([4, 4, 1, 1], 1), f([2, 2, 1, 1], 2)),
    "conv_back_weight": lambda c, f: c.Convolver().weight_grad(f([3, 3, 1, 1], 3e38), f([4, 4, 1, 1], 1), f([2, 2, 1, 1], 1)),
    "conv_back_bias": lambda c, f: c.Convolver().bias_grad(f([3, 3, 1, 1], 3e38)),
    "pool": lambda c, f: c.Pooler(2, 2, 2, 2, op=c.pool_op.avg).ff(f([4, 4, 1, 1], 1.7e308, "float64")),
    "pool_back": lambda c, f: c.Pooler(3, 3, 1, 1, 1, 1).bp(*[f([3, 3, 1, 1], 3e38)] * 3),
    "lrn": lambda c, f: c.Lrner(3, 1.0, -2.0).ff(f([2, 2, 3, 1], 1e30), f([2, 2, 3, 1], 1)),
    "lrn_back": lambda c, f: c.Lrner(3, 1.0, 0.75).bp(*[f([2, 2, 3, 1], 1e30)] * 4),
    "log_softmax": lambda c, f: c.log_softmax(owl.concat([f([1, 1], -3e38), f([1, 1], 3e38)], 0)),
    "sigm_back": lambda c, f: ele.sigm_back(f([1], 3e38), f([1], 3e38)),
    "tanh_back": lambda c, f: ele.tanh_back(f([1], 3e38), f([1], 3e38)),
    "mine": lambda c, f: owl.op(lambda x: x + np.float32("inf"), name="mine")(f([3], 1)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_trace_nan_names_the_guilty_operation_of_a_network(name):
    with owl.trace_nan():
        y = NETWORKS[name](owl.conv, owl.full)
        with pytest.raises(owl.NaNError, match=rf"^{name} made (NaN|-?infinity) of"):
            y.to_numpy()


@pytest.mark.parametrize("make", [lambda: owl.ones([2]) * 1e300, lambda: owl.full([2], 1e300),
                                  lambda: owl.randn([20_000], 3e38, 3e38)], ids=["number", "full", "randn"])
def test_infinity_of_a_finite_number_is_found(make):
    with owl.trace_nan():
        y = make()
        with pytest.raises(owl.NaNError):
            y.to_numpy()


@pytest.mark.parametrize("show", [owl.draw, owl.explain], ids=lambda f: f.__name__)
@pytest.mark.parametrize("x, told", [
    (3, "not int"), ("x", "not str"), (np.zeros(3), "not ndarray; convert it with owl.from_numpy, which reverses the axes"),
    ([1], "not list with int"), ([np.zeros(2)], "not list with ndarray"), (lambda: 2.0, "not float"),
], ids=["int", "str", "numpy", "ints", "numpys", "function"])
def test_what_is_no_array_is_told(show, x, told):
    with pytest.raises(TypeError, match=rf"^{show.__name__}: x must be an NArray, .* {told}$"):
        show(x)
    owl.wait_for_all()


class OwnStep(owl.optim.Optimizer):
    def step(self, x, g, slots, t, lr):
        return owl.nn.mse(x, g, "none")  # line of a step


@pytest.mark.parametrize("make, blamed", [(owl.optim.Adam, "update"), (owl.optim.SGD, "update"), (OwnStep, "of a step")])
def test_an_optimizers_operations_have_the_line_of_the_update(make, blamed):
    lines = inspect.getsource(sys.modules[__name__]).splitlines()

    def line_of(error):
        return lines[int(re.search(rf"{re.escape(__file__)}:(\d+)", str(error.value))[1]) - 1].partition("  # line ")[2]

    x, large, optimizer = owl.ones([4]), owl.full([4], 3e38), make(10.0)
    with owl.trace_nan():
        with pytest.raises(owl.NaNError) as error:
            optimizer.update({"x": x}, {"x": large})["x"].wait_for_eval()  # line update
        assert line_of(error) == blamed
        with pytest.raises(owl.NaNError) as error:
            owl.nn.mse(large, x, "none").wait_for_eval()  # line after
        assert line_of(error) == "after"
