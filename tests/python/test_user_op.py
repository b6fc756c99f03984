"""owl.op: user-defined operations over NumPy arrays."""

import gc
import re
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

import owl
from conftest import Counted, line_of, same_bits, settle, unflushed
from reference import DTYPES, arr, val

softsign = owl.op(
    lambda x: x / (1 + abs(x)), lambda err, y, x: err / (1 + abs(x)) ** 2, name="softsign"
)


def numbers(shape, dtype="float32"):
    return np.arange(1, 1 + np.prod(shape)).reshape(shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (5,), (2, 3), (4, 1, 3), (0, 2)])
def test_values(shape, dtype):
    a = numbers(shape, dtype)
    y = owl.op(lambda x: x[..., ::-1].copy())(arr(a))
    assert y.shape == list(shape) and np.dtype(y.dtype).name == dtype
    assert same_bits(val(y), a[::-1])  # NumPy's last axis is owl's first


def test_operands_are_as_to_numpy_shows_them_read_only_and_not_copied():
    x = owl.from_numpy(numbers((3, 4)))
    x.wait_for_eval()
    seen = []
    owl.op(lambda a: seen.append(a) or a)(x).wait_for_eval()
    (a,) = seen
    assert same_bits(a, x.to_numpy())
    assert not a.flags.writeable
    assert a.__array_interface__["data"][0] == np.from_dlpack(x).__array_interface__["data"][0]


def test_an_operand_that_is_kept_keeps_its_memory():
    kept = []
    a = numbers((100, 100))
    owl.op(lambda x: kept.append(x) or x)(owl.from_numpy(a) + 0.0).wait_for_eval()
    for _ in range(20):  # would be written into that memory
        owl.full([100, 100], -1.0).wait_for_eval()
    assert same_bits(kept[0], a)


def test_views_and_fused_operands():
    a = numbers((4, 6))
    x = owl.from_numpy(a)
    y = owl.op(np.add)((x * 2.0).trans(), x[::-1, 1:3].reshape([4, 3])[0, 0].reshape([1, 1])).to_numpy()
    assert same_bits(y, (a * 2).T + a[1, 5])


def test_recording_calls_nothing_and_waits_for_nothing():
    calls = []
    with unflushed():
        y = owl.op(lambda x: calls.append(1) or x)(owl.ones([2]))
        assert not calls and not y.ready()
        y.wait_for_eval()
        assert calls == [1]


def test_what_nobody_holds_is_not_called():
    calls = []
    with unflushed():
        y = owl.op(lambda x: calls.append(1) or x)(owl.ones([2]))
        del y
        owl.wait_for_all()
    assert not calls


def test_called_once_on_a_thread_of_its_own():
    threads = []
    y = owl.op(lambda x: threads.append(threading.get_ident()) or x)(owl.ones([2]))
    for _ in range(3):
        y.to_numpy()
        (y + 1.0).to_numpy()
    assert len(threads) == 1 and threads[0] != threading.get_ident()


def test_shapes_and_types_by_rule():
    a, b = numbers((2, 3)), numbers((4, 3))
    outer = owl.op(lambda x, y: np.matmul(y, x.T), shape=lambda x, y: [x[1], y[1]])
    y = outer(arr(a.T), arr(b.T))
    assert y.shape == [2, 4]
    assert same_bits(val(y), a @ b.T)
    count = owl.op(lambda x: np.count_nonzero(x, keepdims=True).reshape(1).astype(np.int32), shape=[1], dtype="int32")
    assert count(arr(a)).to_numpy().tolist() == [6]
    assert owl.op(lambda x: x > 2, dtype=bool)(arr(a)).dtype == np.bool_
    assert owl.op(lambda x: x.astype("f8"), dtype=np.float64)(arr(a)).dtype == np.float64
    assert owl.op(lambda x: x.astype("f8"), dtype=lambda x: np.float64)(arr(a)).dtype == np.float64
    assert owl.op(lambda: np.zeros((3, 2), "f4"), shape=[2, 3], dtype="float32")().shape == [2, 3]


def test_operands_broadcast_from_the_first_axis_and_the_largest_type_wins():
    a, b = owl.full([3], 2, "int32"), owl.ones([3, 4], "float64")
    y = owl.op(lambda x, y: x + y)(a, b)
    assert y.shape == [3, 4] and y.dtype == np.float64
    assert y.to_numpy().tolist() == [[3.0] * 3] * 4


def test_a_single_number_has_shape_1():
    assert owl.op(lambda x: x.sum(), shape=[1])(owl.ones([3])).to_numpy().tolist() == [3.0]


def test_results_of_any_layout():
    a = numbers((3, 4))
    for result in (np.asfortranarray(a), a[::-1][::-1], np.repeat(a, 2, axis=1)[:, ::2], a.astype(">f4")):
        assert same_bits(owl.op(lambda x, result=result: result)(arr(a.T)).to_numpy(), a)


def test_denormals_are_as_in_the_script():
    tiny = np.float32(1e-40)
    y = owl.op(lambda x: np.full_like(x, tiny) * np.float32(2) / np.float32(2))(owl.ones([4]))
    assert same_bits(y.to_numpy(), np.full(4, tiny))


@pytest.mark.parametrize("result, error, words", [
    (lambda x: x[:1], owl.ShapeError, "shape (1, 3), expected (2, 3)"),
    (lambda x: x.astype("f8"), owl.DTypeError, "float64, expected float32"),
    (lambda x: None, owl.DTypeError, "NoneType"),
    (lambda x: [1.0], owl.DTypeError, "list"),
])
def test_a_wrong_result(result, error, words):
    y = owl.op(result, name="wrong")(owl.ones([3, 2]))
    with pytest.raises(error) as caught:
        y.to_numpy()
    assert words in str(caught.value) and str(caught.value).startswith("wrong: ")


@pytest.mark.parametrize("error", [owl.ShapeError, owl.DTypeError, owl.DeviceError, owl.IndexError, owl.DataError,
                                   owl.OutOfMemoryError, owl.NaNError, owl.Error])
def test_an_error_of_owls_keeps_its_kind(error):
    def careless(x):
        raise error("no")
    bad = owl.op(careless)(owl.ones([3]))
    for value in (bad * 2.0, bad):
        with pytest.raises(error) as caught:
            value.to_numpy()
        assert caught.type is error and type(caught.value.__cause__) is error


def test_errors_at_several_operands_are_results_of_their_own():
    calls = []

    def backward(err, y, a, b):
        calls.append(1)
        return err * 2, None
    f = owl.op(lambda a, b: a + b.sum(), backward, shape=lambda a, b: a)
    a, b = owl.ones([3, 2]), owl.ones([4], np.float64)
    y = f(a, b)
    a_err, b_err = f.back(owl.ones([3, 2]), y, a, b)
    assert a_err.shape == [3, 2] and a_err.dtype == np.float32 and b_err.shape == [4] and b_err.dtype == np.float64
    assert (a_err.to_numpy() == 2).all() and (b_err.to_numpy() == 0).all() and calls == [1]
    err = owl.from_numpy(np.ones((2, 3), np.float32))
    settle()
    with unflushed(), Counted() as c:
        kept, dropped = f.back(err, y, a, b)
        del dropped
        assert (kept.to_numpy() == 2).all()
    assert calls == [1, 1] and c.buffers_written == 1


def test_an_exception_comes_home_with_its_line_and_its_cause(script):
    done = script("""
        import owl
        def careless(x):
            return {}["missing"]
        x = owl.ones([3])
        good = x + 1.0
        bad = owl.op(careless)(x)  # here
        after = bad * 2.0
        for value in (after, bad):
            try:
                value.to_numpy()
            except owl.Error as e:
                print(e)
                print(repr(e.__cause__), e.__cause__.__traceback__.tb_frame.f_code.co_name)
        try:
            owl.wait_for_all()
        except owl.Error as e:
            print(type(e.__cause__).__name__)
        del bad, after, value
        owl.wait_for_all()
        print(good.to_numpy(), owl.op(careless, shape=lambda s: s)(x).shape)
    """)
    line = line_of(done.path, "# here")
    where = f"recorded at {done.path}:{line}"
    out = done.stdout.splitlines()
    for text in (out[0], out[2]):
        assert text.startswith("careless: the function raised KeyError: 'missing'") and where in text
    assert out[1] == out[3] == "KeyError('missing') careless"
    assert out[4] == "KeyError"
    assert out[5] == "[2. 2. 2.] [3]"


def test_an_error_of_owl_keeps_its_class():
    def forward(x):
        return (owl.ones([2]) + owl.ones([3])).to_numpy()

    y = owl.op(forward)(owl.ones([2]))
    with pytest.raises(owl.ShapeError) as caught:
        y.to_numpy()
    assert isinstance(caught.value.__cause__, owl.ShapeError)


def test_operands_are_checked_at_the_line():
    with pytest.raises(owl.ShapeError, match=r"\[2\] and \[3\].*shape="):
        owl.op(np.add)(owl.ones([2]), owl.ones([3]))
    with pytest.raises(TypeError, match="from_numpy"):
        owl.op(np.add)(owl.ones([2]), np.ones(2))
    with pytest.raises(owl.ShapeError):
        owl.op(np.add, shape=[-1])(owl.ones([2]), owl.ones([2]))
    with pytest.raises(owl.ShapeError):
        owl.op(np.add, dtype="f4")()
    with pytest.raises(owl.DTypeError):
        owl.op(np.add, shape=[1])()
    with pytest.raises(owl.DTypeError):
        owl.op(np.add, dtype="complex64")
    with pytest.raises(owl.DTypeError):
        owl.op(np.add, dtype=lambda x: "complex64")(owl.ones([1]))
    with pytest.raises(TypeError, match="forward"):
        owl.op(None)
    with pytest.raises(TypeError, match="backward"):
        owl.op(np.add, 3)


def test_bools_of_any_byte_in_many_chunks():
    n = 2_500_003
    y = owl.op(lambda: np.full(n, 3, np.uint8).view(bool), shape=[n], dtype=bool)()
    assert int(y.sum()) == n and (y.to_numpy().view(np.uint8) == 1).all()


@pytest.mark.parametrize("options, error, words", [
    (dict(shape=[2, -1]), owl.ShapeError, "length -1 is negative"),
    (dict(shape=[]), owl.ShapeError, "no 0-d arrays"),
    (dict(shape=lambda s: [1] * 9), owl.ShapeError, "at most 8 axes"),
    (dict(shape=lambda s: ["a"]), TypeError, "shape"),
    (dict(shape=lambda s: None), TypeError, "shape"),
    (dict(dtype=lambda t: np.complex64), owl.DTypeError, "complex64"),
    (dict(dtype="complex64"), owl.DTypeError, "complex64"),
], ids=str)
def test_errors_of_rules_name_the_operation(options, error, words):
    with pytest.raises(error, match=f"^mine: .*{words}"):
        owl.op(lambda x: x, name="mine", **options)(owl.ones([3]))


def test_names():
    def cube(x):
        return x**3

    assert owl.op(cube).name == "cube" and repr(owl.op(cube)) == "owl.op(cube)"
    assert owl.op(cube, name="third power").name == "third power"
    f = owl.op(cube, np.add)
    assert f.forward is cube and f.backward is np.add


def test_backward_of_one_operand():
    a = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    x = owl.from_numpy(a)
    y = softsign(x)
    err = owl.full([4, 3], 0.5)
    got = softsign.back(err, y, x)
    assert got.shape == [4, 3]
    assert same_bits(got.to_numpy(), np.float32(0.5) / (1 + abs(a)) ** 2)


def test_backward_of_several_operands():
    a, b = numbers((2, 3)), numbers((3,), "float64")
    scale = owl.op(lambda x, s, n: x * s, lambda err, y, x, s, n: (err * s, (err * x).sum(0), None), dtype="float64")
    x, s, n = owl.from_numpy(a), owl.from_numpy(b), owl.ones([3, 2], "int32")
    x_err, s_err, n_err = scale.back(owl.ones([3, 2]), scale(x, s, n), x, s, n)
    assert (x_err.shape, s_err.shape, n_err.shape) == ([3, 2], [3], [3, 2])
    assert [e.dtype.name for e in (x_err, s_err, n_err)] == ["float32", "float64", "float32"]
    assert x_err.to_numpy().tolist() == [[1, 2, 3]] * 2
    assert s_err.to_numpy().tolist() == a.sum(0).tolist()
    assert n_err.to_numpy().tolist() == [[0] * 3] * 2


def test_backward_errors():
    x = owl.ones([3])
    with pytest.raises(TypeError, match="without a backward"):
        owl.op(np.abs).back(x, x, x)
    with pytest.raises(owl.ShapeError):
        softsign.back(owl.ones([4]), x, x)
    with pytest.raises(owl.ShapeError, match="operand 0"):
        owl.op(np.abs, lambda err, y, x: err[1:]).back(x, x, x).to_numpy()
    with pytest.raises(owl.ShapeError, match="1 errors for 2"):
        owl.op(np.add, lambda err, y, *xs: err).back(x, x, x, x)[0].to_numpy()


def test_functions_may_use_owl_themselves():
    def forward(x):
        y = owl.from_numpy(x) * 2.0
        for _ in range(100):  # more than a window
            y = y + 1.0
        return y.to_numpy()

    x = owl.ones([5])
    values = [owl.op(forward)(x + float(i)) for i in range(20)]
    for i, y in enumerate(values):
        assert y.to_numpy().tolist() == [2.0 * (1 + i) + 100] * 5


def test_functions_may_wait_for_other_operations_of_the_script():
    inner = owl.op(lambda x: x + 1)
    x = owl.ones([2])
    pending = [inner(x + float(i)) for i in range(8)]
    outer = [owl.op(lambda x, p=p: p.to_numpy())(x) for p in pending]
    assert [y.to_numpy()[0] for y in outer] == [i + 2.0 for i in range(8)]


def test_waiting_for_itself_is_an_error_not_a_hang():
    results = {}
    started = threading.Event()

    def forward(x):
        started.wait(60)
        return results["after"].to_numpy()

    y = owl.op(forward, name="snake")(owl.ones([2]))
    results["after"] = y + 1.0
    started.set()
    with pytest.raises(owl.Error, match="needs its own result"):
        y.to_numpy()
    results.clear()
    with pytest.raises(owl.Error, match="wait_for_all inside"):
        owl.op(lambda x: owl.wait_for_all() or x)(owl.ones([2])).to_numpy()


def test_the_device_computes_what_the_function_records():
    device = owl.create_cpu_device()
    seen = []
    x = owl.ones([2])
    with owl.device(device):
        y = owl.op(lambda x: seen.append(owl.current_device()) or x)(x)
    assert y.device == device
    y.wait_for_eval()
    assert seen == [device]


def test_threads():
    wrong = []

    def work(k):
        x = owl.full([50], float(k))
        for _ in range(30):
            x = softsign(x) + float(k)
        want = np.full(50, k, np.float32)
        for _ in range(30):
            want = want / (1 + abs(want)) + np.float32(k)
        if not same_bits(x.to_numpy(), want):
            wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_functions_and_operands_are_given_back():
    class Forward:
        def __call__(self, x):
            return x

    forward = Forward()
    gone = weakref.ref(forward)
    before = settle()
    y = owl.op(forward)(owl.ones([10]))
    y.wait_for_eval()
    dropped = owl.op(forward)(owl.ones([10]))
    del dropped, y, forward
    after = settle()
    for _ in range(3):  # objects dropped on a worker are released in the interpreter's loop
        gc.collect()
    owl.op(lambda x: x)(owl.ones([1])).wait_for_eval()
    assert gone() is None
    assert after["live_nodes"] == before["live_nodes"] and after["live_storages"] == before["live_storages"]


def test_a_limit_on_memory_holds_around_the_function(script):
    done = script("""
        import numpy as np, owl
        owl.set_memory_limit(owl.memory_stats()["allocated"] + (1 << 20))
        y = owl.op(lambda x: np.ones(1 << 20, "f4"), shape=[1 << 20])(owl.ones([1]))
        try:
            y.to_numpy()
        except owl.OutOfMemoryError as e:
            print("out of memory", owl.ones([3]).to_numpy())
    """)
    assert done.stdout == "out of memory [1. 1. 1.]\n"


ENVIRONMENTS = [{}, {"OWL_EAGER": "1"}, {"OWL_NUM_THREADS": "1"}, {"OWL_WINDOW": "1"}, {"OWL_SIMULATED_GPUS": "1"}]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=str)
def test_every_environment(script, environment):
    done = script("""
        import numpy as np, owl
        if owl.get_gpu_device_count():
            owl.set_device(owl.create_gpu_device(0))
        def waits(x):
            return (owl.from_numpy(x) + 1.0).to_numpy()
        f, g = owl.op(waits), owl.op(lambda x: x * 2)
        x = owl.ones([7])
        for _ in range(40):
            x = g(f(x)) / 2.0
        print(x.to_numpy()[0])
    """, env=environment)
    assert done.stdout == "41.0\n"


def test_fork_in_the_middle_of_functions(script):
    """The child calls the interrupted function again, the parent goes on."""
    done = script("""
        import os, threading, time, owl
        def slow(x):
            time.sleep(0.002)
            return (owl.from_numpy(x) + 1.0).to_numpy()
        f, quick, done = owl.op(slow), owl.op(lambda x: x), []
        def load():
            while not done:
                x = owl.ones([3])
                for _ in range(5):
                    x = quick(x)
                x.to_numpy()
        threads = [threading.Thread(target=load) for _ in range(3)]
        for t in threads:
            t.start()
        for round in range(100):
            values = [owl.ones([4]) for _ in range(3)]
            for _ in range(2):
                values = [f(x) for x in values]
            for x in values:
                x.start_eval()
            time.sleep(round * 0.0001)
            child = os.fork()
            if child == 0:
                ok = all((x * 1.0).to_numpy().tolist() == [3.0] * 4 for x in values)
                os._exit(0 if ok and f(values[0]).to_numpy()[0] == 4.0 else 1)
            assert os.waitpid(child, 0)[1] == 0, round
            assert all(x.to_numpy().tolist() == [3.0] * 4 for x in values)
        done.append(True)
        for t in threads:
            t.join()
        print("ok")
    """)
    assert done.stdout == "ok\n"


def test_a_function_that_forks(script):
    done = script("""
        import os, subprocess, sys, owl
        def forks(x):
            child = os.fork()
            if child == 0:
                os._exit(0 if (owl.from_numpy(x) + 1.0).to_numpy()[0] == 2.0 else 1)
            assert os.waitpid(child, 0)[1] == 0
            return x + float(subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, text=True).stdout)
        print(owl.op(forks, dtype="float32")(owl.ones([2])).to_numpy())
    """)
    assert done.stdout == "[2. 2.]\n"


@pytest.mark.parametrize("ending", ["", "raise SystemExit(0)", "y.start_eval(); time.sleep(0.01)",
                                    "threading.Thread(target=y.to_numpy, daemon=True).start(); time.sleep(0.01)"])
@pytest.mark.parametrize("body", ["return x", "time.sleep(0.05); return x",
                                  "return (owl.from_numpy(x) + 1.0).to_numpy()", "raise ValueError"])
def test_leaving_the_interpreter(script, ending, body):
    done = script(f"""
        import threading, time, owl
        threading.excepthook = lambda failure: None     # a daemon's traceback would end where the interpreter does
        def forward(x):
            {body}
        f = owl.op(forward)
        y = owl.ones([100])
        for _ in range(30):
            y = f(y)
        {ending}
    """)
    assert not done.stderr


def test_it_waits_without_the_gil():
    """The script waits for a value whose function needs the GIL, and a function waits for another thread."""
    turn = threading.Event()
    y = owl.op(lambda x: turn.wait(60) and x)(owl.ones([3]))
    t = threading.Timer(0.01, turn.set)
    t.start()
    assert y.to_numpy().tolist() == [1, 1, 1]
    t.join()


def test_many_at_once():
    x = owl.arange(1000)
    values = [softsign(x + float(i)) for i in range(2000)]
    want = np.arange(1000, dtype=np.float32)
    for i in range(0, 2000, 97):
        shifted = want + np.float32(i)
        assert same_bits(values[i].to_numpy(), shifted / (1 + abs(shifted)))


ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "user-operations.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_the_documents_snippets_print_what_they_say(script, snippet):
    done = script(snippet)
    assert done.stdout.splitlines() == re.findall(r"print\(.*\)  # (.*)", snippet)


def test_the_documents_cpp_example_is_the_tested_one():
    (block,) = re.findall(r"^```cpp\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    tested = (ROOT / "tests" / "cpp" / "test_user_op.cpp").read_text(encoding="utf-8")
    example = block[block.index("// The Euclidean"):]
    assert example in tested
