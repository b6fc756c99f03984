"""Fork during work, and interpreter exit during work: often, and at random moments."""
import concurrent.futures
import random
import shutil
import subprocess
import sysconfig

import pytest

import children
from conftest import SOAK

# --- fork

FORKS = """
    import os, random, signal, sys, threading, time, warnings
    import numpy as np
    warnings.simplefilter("ignore", DeprecationWarning)
    import owl

    seed, forks = int(sys.argv[1]), int(sys.argv[2])
    rng = random.Random(seed)
    other = owl.create_cpu_device()
    x = owl.full([120, 120], 1 / 120) + owl.arange(120) * 1e-6

    def work(n):
        y = x
        for _ in range(n):
            y = owl.elewise.tanh(y * x)
        with owl.device(other):
            z = y.trans() * 2 + x.sum(0)
        return y[::2, 3:], z, (y > 0.005).sum(1), owl.from_numpy(np.ones((50, 20), np.float32)) * float(n)

    want = [[v.to_numpy().tobytes() for v in work(n)] for n in range(30)]

    def good(n, values):
        return [v.to_numpy().tobytes() for v in values] == want[n]

    # Beside the forks, threads of the parent record, wait and drop.
    end = threading.Event()
    wrong = []
    def beside(n):
        while not end.is_set():
            if not good(n, work(n)):
                wrong.append(n)
            time.sleep(0.001)
    threads = [threading.Thread(target=beside, args=(n,), daemon=True) for n in (5, 25)]
    for t in threads:
        t.start()

    failed = []
    for i in range(forks):
        n = rng.randrange(30)
        values = work(n)
        how = rng.randrange(4)
        if how == 1:
            values[0].start_eval()
        elif how == 2:
            time.sleep(0.003 * rng.random())
        elif how == 3:
            owl.wait_for_all()
        pid = os.fork()
        if pid == 0:
            guard_fork()
            ok = good(n, values) and good(3, work(3)) and float((values[1] * 2 + 1).max()) > 1
            owl.wait_for_all()
            os._exit(0 if ok else 9)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code != 0 or not good(n, values):
            failed.append((i, n, how, code))
        if i % 100 == 99:
            print("forks", i + 1, "failed", len(failed), flush=True)
    end.set()
    for t in threads:
        t.join(60)
    print("failed:", failed, "wrong beside:", wrong)
    print(f"fork: seed {seed}, tried {forks}, failed {len(failed)}")
    print("good" if not failed and not wrong else "bad")
"""


@pytest.mark.parametrize("env", [{}, {"OWL_NUM_THREADS": "1"}, {"OWL_MEMORY_LIMIT": "1000000"}], ids=str)
def test_forks_in_the_middle_of_work(env):
    done = children.run(FORKS, 11, children.scaled(40, 500), env=env, timeout=150 * SOAK)
    assert done.stdout.splitlines()[-1] == "good"


def test_a_child_of_a_child():
    done = children.run("""
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        import owl
        y = owl.full([200, 200], 1 / 200)
        x = y
        for _ in range(20):
            y = y * x
        for depth in range(4):
            pid = os.fork()
            if pid:
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                value = float(y[3, 3])
                if depth:
                    os._exit(code if abs(value * 200 - 1) < 1e-3 else 8)
                print(code, round(value * 200, 3))
                break
            guard_fork()
            y = y * x
        else:
            os._exit(0 if abs(float(y[3, 3]) * 200 - 1) < 1e-3 else 9)
    """)
    assert done.stdout.split() == ["0", "1.0"]


# --- exit

LEAVE = """
    import atexit, gc, os, signal, sys, threading, time
    import numpy as np
    import owl
    how, delay = sys.argv[1], float(sys.argv[2])
    other = owl.create_cpu_device()
    x = owl.rand([200, 200]) * 0.01
    kept, until = [], time.monotonic() + delay

    def record():
        y = x
        while time.monotonic() < until:
            y = owl.elewise.tanh(y * x + y.sum(0))
            kept.append(y[::2, 1])
            with owl.device(other):
                kept.append(y + 1)
            del kept[:-50]

    def slow():
        y = x
        for _ in range(400):
            y = y * x
        return y

    def late(name):
        def run():
            assert np.isfinite(float((kept[-1] + owl.ones([1])).max()))
            os.write(1, name.encode())
        return run

    if how in ("daemon records", "daemon waits", "daemon makes errors"):
        def loop():
            while True:
                if how == "daemon records":
                    global until
                    until = time.monotonic() + 1
                    record()
                elif how == "daemon waits":
                    slow().to_numpy()
                else:
                    try:
                        owl.ones([2]) + owl.ones([3])
                    except owl.ShapeError:
                        pass
        for _ in range(4):
            threading.Thread(target=loop, daemon=True).start()
        time.sleep(delay)
    elif how == "thread outlives the main thread":
        until += 0.1
        threading.Thread(target=record).start()
    elif how == "first use at exit":
        pass
    else:
        record()

    if how == "cycle":
        class Node: pass
        a, b = Node(), Node()
        a.other, b.other, a.value, b.value = b, a, slow(), kept
        gc.disable()
        del a, b
    elif how == "finalizer":
        class Late:
            def __del__(self):
                str(self.x + 1)
        keeper = Late()
        keeper.x = slow()
        keeper.me = keeper
    elif how in ("atexit", "first use at exit"):
        kept.append(slow())
        atexit.register(late("late"))
    elif how == "atexit raises":
        kept.append(slow())
        @atexit.register
        def fail():
            float(kept[-1])
    elif how == "exception in a wait":
        def handler(*a):
            raise ValueError("the script's own")
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        for _ in range(1000):
            slow().wait_for_eval()
    elif how == "Ctrl-C in a wait":
        threading.Timer(0.02, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        for _ in range(1000):
            slow().wait_for_eval()
    elif how == "sys.exit in a wait":
        signal.signal(signal.SIGALRM, lambda *a: sys.exit(4))
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        for _ in range(1000):
            slow().wait_for_eval()
    elif how == "sys.exit in a thread":
        t = threading.Thread(target=lambda: (slow().start_eval(), sys.exit(7)))
        t.start()
        t.join()
    elif how == "os._exit in a thread":
        threading.Thread(target=lambda: os._exit(6), daemon=True).start()
        slow().wait_for_eval()
        time.sleep(60)
    elif how == "os._exit in atexit":
        kept.append(slow())
        atexit.register(lambda: os._exit(3))
    elif how == "modules cleared":
        kept.append(slow())
        for name in [m for m in sys.modules if m.startswith(("owl", "numpy"))]:
            del sys.modules[name]
    elif how == "numpy memory":
        shared = np.from_dlpack(kept[-1])
        borrowed = owl.from_dlpack(np.ones((300, 300), np.float32)) * 2
    elif how == "failed values":
        owl._owl.set_fault(0, 3)
        kept.append(slow())
        time.sleep(0.01)
"""
WAYS = {  # how: (exit code, words on stderr)
    "daemon records": (0, ""), "daemon waits": (0, ""), "daemon makes errors": (0, ""),
    "thread outlives the main thread": (0, ""), "first use at exit": (0, ""), "cycle": (0, ""), "finalizer": (0, ""),
    "atexit": (0, ""), "atexit raises": (0, "TypeError|ValueError|ShapeError"),
    "exception in a wait": (1, "the script's own"), "Ctrl-C in a wait": (-2, "KeyboardInterrupt"),
    "sys.exit in a wait": (4, ""), "sys.exit in a thread": (0, ""), "os._exit in a thread": (6, ""),
    "os._exit in atexit": (3, ""), "modules cleared": (0, ""), "numpy memory": (0, ""), "failed values": (0, ""),
}
NOISE = ("Fatal", "Segmentation", "terminate called", "Aborted", "core dumped", "SystemError", "Exception ignored")


def leave(how, seed):
    rng = random.Random(f"{how} {seed}")
    delay = rng.choice([0.001, 0.01, 0.05]) * rng.random() + 0.001
    env = rng.choice([{}, {}, {"OWL_NUM_THREADS": "1"}, {"OWL_EAGER": "1"}])
    if how in ("finalizer", "failed values"):
        env.pop("OWL_EAGER", None)  # with it, recording raises the error
    code, words = WAYS[how]
    try:
        done = children.run(LEAVE, how, delay, env=env, expect=code, timeout=60)
    except Exception as e:
        return f"{how} {delay} {env}: {e}"
    said = done.stderr
    if any(noise in said for noise in NOISE[:None if how != "atexit raises" else -1]):
        return f"{how} {delay} {env}: {said}"
    if bool(said) != bool(words) or words and not any(word in said for word in words.split("|")):
        return f"{how} {delay} {env}: {said!r} instead of {words!r}"
    if "atexit" == how and done.stdout != "late":
        return f"{how} {delay} {env}: the handler did not come to its end"
    return None


@pytest.mark.parametrize("how", WAYS)
def test_leaving_at_random_moments(how):
    times = children.scaled(1, 20)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        failures = [f for f in pool.map(lambda seed: leave(how, seed), range(times)) if f]
    print(f"leaving ({how}): tried {times}, failed {len(failures)}")
    assert not failures, failures[0]


# --- a system that cannot start threads

NO_THREADS = """
    import os, resource, threading
    import numpy as np
    import owl
    x = owl.from_numpy(np.ones((300, 300), np.float32))
    if os.getuid() == 0:
        os.setuid(65534)  # root is above this limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
    try:
        threading.Thread(target=print).start()
        raise SystemExit("threads can be made all the same")
    except RuntimeError:
        pass
    y = (x * x).sum()
    for _ in range(2):
        try:
            y.wait_for_eval()
            raise SystemExit("computed")
        except owl.DeviceError as e:
            assert "starts no thread" in str(e) and "processes and threads is 1 (ulimit -u)" in str(e), e
    resource.setrlimit(resource.RLIMIT_NPROC, (hard if hard != -1 else soft, hard))
    assert float(y) == 300 ** 3, "what was recorded meanwhile is computed once threads can be made"
"""


def test_a_limit_that_leaves_no_thread_is_named_and_can_be_lifted():
    children.run(NO_THREADS)


# --- other interpreters in the process

REFUSED = "owl cannot be imported in a sub-interpreter: its engine"


def test_a_sub_interpreter_is_refused():
    done = children.run("""
        import sys
        try:
            import _interpreters  # Python 3.13
            create, run = lambda: _interpreters.create("legacy"), _interpreters.exec
        except ImportError:
            import _xxsubinterpreters
            create, run = _xxsubinterpreters.create, _xxsubinterpreters.run_string
        code = "import sys; sys.path[:0] = {!r}\\ntry:\\n    import owl\\nexcept ImportError as e:\\n    print(e, flush=True)"

        def refused():
            error = run(create(), code.format(sys.path))
            assert error is None, error

        refused()  # before the main interpreter has imported owl
        import owl
        assert owl.ones([3]).sum().item() == 3
        refused()
        assert (owl.ones([3]) * 2).sum().item() == 6
        print("good")
    """)
    *messages, last = done.stdout.splitlines()
    assert last == "good" and len(messages) == 2 and all(REFUSED in m for m in messages)


EMBEDDING = r"""
#include <Python.h>

static PyObject *run(PyObject *module, PyObject *text) {
  PyThreadState *mine = PyThreadState_Get();
  const char *code = PyUnicode_AsUTF8(text);
  PyThreadState *other = Py_NewInterpreter();
  int result = PyRun_SimpleString(code);
  Py_EndInterpreter(other);
  PyThreadState_Swap(mine);
  return PyLong_FromLong(result);
}

static PyMethodDef methods[] = {{"run", run, METH_O, ""}, {NULL, NULL, 0, NULL}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "embedding", "", -1, methods};
PyMODINIT_FUNC PyInit_embedding(void) { return PyModule_Create(&definition); }
"""


def test_an_interpreter_of_an_embedding_program_is_refused(tmp_path):
    """Sub-interpreters of Py_NewInterpreter, as in mod_wsgi."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("there is no C compiler")
    (tmp_path / "embedding.c").write_text(EMBEDDING)
    subprocess.run([compiler, "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}", "-o",
                    str(tmp_path / f"embedding{sysconfig.get_config_var('EXT_SUFFIX')}"), str(tmp_path / "embedding.c")],
                   check=True, timeout=100)  # fmt: skip
    done = children.run("""
        import sys
        sys.path.insert(0, sys.argv[1])
        import embedding
        code = f"import sys; sys.path[:0] = {sys.path!r}\\n" + "try: import owl\\nexcept ImportError as e: print(e, flush=True)"
        assert embedding.run(code) == 0
        import owl
        x = owl.ones([200, 200])
        assert embedding.run(code) == 0
        assert (x * x).sum().item() == 200.0**3
        print("good")
    """, tmp_path)
    *messages, last = done.stdout.splitlines()
    assert last == "good" and len(messages) == 2 and all(REFUSED in m for m in messages)
