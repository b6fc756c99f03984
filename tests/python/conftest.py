"""Fixtures and helpers shared by all test files.

OWL_SOAK=N multiplies the number of random examples. OWL_TEST_DEVICE=gpu runs every test with GPU 0 as the default device;
=standin does the same with the libraries of tests/standin, which compute on the CPU, in place of CUDA's.
"""
import contextlib
import ctypes
import faulthandler
import gc
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, os.path.dirname(__file__))

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take three quarters of the GPU
os.environ["OWL_MIRRORS"] = ""  # neither tests nor the programs that they start download

ROOT = pathlib.Path(__file__).resolve().parents[2]
STANDIN = pathlib.Path(os.environ.get("BUILD", ROOT / "build"), "standin")
TEST_DEVICE = os.environ.get("OWL_TEST_DEVICE", "")


def load_standin():
    """Makes this process open the stand-in's libraries in place of CUDA's; returns the library."""
    driver = ctypes.CDLL(str(STANDIN / "libcuda.so.1"))
    for name in ("libnvrtc.so.13", "libcublasLt.so.13", "libcudnn.so.9", "libnccl.so.2"):
        ctypes.CDLL(str(STANDIN / name))
    return driver


if TEST_DEVICE not in ("", "gpu", "standin"):
    raise SystemExit(f"OWL_TEST_DEVICE={TEST_DEVICE}: expected gpu or standin")
CUDA = load_standin() if TEST_DEVICE == "standin" else None

import mpi  # noqa: E402
import owl  # noqa: E402

DEFAULT_DEVICE = owl.create_gpu_device(0) if TEST_DEVICE else 0

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job; programs would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

SOAK = int(os.environ.get("OWL_SOAK", "1"))
WINDOW = int(os.environ.get("OWL_WINDOW", "64")), int(os.environ.get("OWL_IDLE_US", "100"))  # the engine's defaults
HANG_S = 180 * SOAK  # a longer test counts as hung: prints every thread's stack and ends the run

settings.register_profile("owl", deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
settings.load_profile("owl")


def pytest_configure(config):
    config.owl_stderr = os.fdopen(os.dup(2), "w")  # the real one: output is not captured yet


# Tests of the CPU device or its memory, which do not run if another device is the default.
ABOUT_THE_CPU = {
    "test_arrays.py": ["test_dlpack_to_numpy", "test_dlpack_waits_for_the_value_and_takes_views", "test_properties",
                       "test_properties_and_repr_do_not_wait", "test_memory_is_numpys_c_order_with_the_axes_reversed"],
    "test_conv.py": ["test_kept_weights_give_way_to_a_limit"],
    "test_devices.py": [],  # all of it
    "test_every_type.py": ["test_exchange_with_numpy"],
    "test_hard_faults.py": ["test_a_fault_at_every_place"],  # to_numpy of a view is a task of its own on a GPU
    "test_lifetimes.py": ["test_dlpack_keeps_the_storage_until_the_last_reader_goes",
                          "test_memory_that_somebody_reads_is_not_taken_over"],
    "test_plans.py": ["test_images_stay_channels_last_between_convolutions", "test_the_layout_between_two_convolutions"],
    "test_strips.py": [],
    "test_threads.py": ["test_a_small_value_does_not_queue_behind_a_long_chain",
                        "test_independent_work_of_one_device_runs_on_several_threads_at_once",
                        "test_an_operation_takes_as_many_threads_as_pay"],
    "test_user_op.py": ["test_operands_are_as_to_numpy_shows_them_read_only_and_not_copied"],
}


def pytest_collection_modifyitems(items):
    for item in items if TEST_DEVICE else ():
        tests = ABOUT_THE_CPU.get(item.path.name)
        if tests is not None and (not tests or item.originalname in tests):
            item.add_marker(pytest.mark.skip(reason="about the CPU device"))


@pytest.fixture(autouse=True)
def guard_against_hangs(request):
    faulthandler.dump_traceback_later(HANG_S, exit=True, file=request.config.owl_stderr)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def on_default_device():
    owl.set_device(DEFAULT_DEVICE)
    yield
    owl.set_device(DEFAULT_DEVICE)


@pytest.fixture
def gpu():
    """The id of a GPU's device."""
    if not TEST_DEVICE:
        pytest.skip("needs a GPU: OWL_TEST_DEVICE is not set")
    return DEFAULT_DEVICE


@pytest.fixture
def limit():
    """Sets a memory limit on every device; none after the test."""
    yield owl.set_memory_limit
    owl.set_memory_limit(0)


@contextlib.contextmanager
def window(count, idle_us):
    """Sets the engine's window to `count` operations, flushed after `idle_us` (-1: never) without a new one."""
    owl._owl.set_window(count, idle_us)
    try:
        yield
    finally:
        owl._owl.set_window(*WINDOW)


@contextlib.contextmanager
def unflushed():
    """Plans nothing before the test waits for a value."""
    with window(1 << 30, -1):
        yield


def settle(timeout=30):
    """Waits until the engine is idle; returns the counters."""
    gc.collect()
    owl.wait_for_all()
    deadline = time.monotonic() + timeout
    while True:
        s = owl.stats()
        if s["window_nodes"] == 0 and s["tasks_in_flight"] == 0:
            return s
        assert time.monotonic() < deadline, f"the engine does not come to rest: {s}"
        time.sleep(0.002)


def eventually(holds, timeout=20):
    """Whether the condition becomes true: a worker releases a task's storages a moment after the task has ended."""
    deadline = time.monotonic() + timeout
    while not holds() and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.002)
    return holds()


class Counted:
    """Counter differences over a `with` block."""

    def __enter__(self):
        self._before = settle()
        return self

    def __exit__(self, *error):
        if error[0] is None:
            after = settle()
            self.delta = {k: after[k] - self._before[k] for k in after}

    def __getattr__(self, name):
        return self.delta[name]


def run_on_terminal(command, timeout, **options):
    """Runs a command whose stderr is a terminal: (exit code, stdout, the terminal's output)."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave, text=True, **options)
    os.close(slave)
    pieces = []

    def collect():
        try:
            while piece := os.read(master, 65536):
                pieces.append(piece)
        except OSError:  # Linux raises it when the terminal's other end is closed
            pass

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        stdout, _ = process.communicate(timeout=timeout)
    finally:
        process.kill()
        collector.join()
        os.close(master)
    return process.returncode, stdout, b"".join(pieces).decode()


def rss():
    """Resident memory of this process, in bytes."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def script(tmp_path):
    """Runs Python text in a separate process: script(text, env={...}) -> CompletedProcess with .path."""
    def run(text, env=None, timeout=100, args=(), expect=0):
        path = tmp_path / "user_script.py"
        path.write_text(textwrap.dedent(text))
        full = {k: v for k, v in os.environ.items() if not k.startswith("OWL_") or k == "OWL_MIRRORS"}
        full["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), *filter(None, [full.get("PYTHONPATH")])])
        full.update(env or {})
        done = subprocess.run([sys.executable, "-X", "faulthandler", str(path), *map(str, args)], env=full,
                              cwd=tmp_path, capture_output=True, text=True, timeout=timeout)
        assert expect is None or done.returncode == expect, \
            f"exit code {done.returncode}, not {expect}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
        done.path = path
        return done
    return run


def line_of(path, mark):
    """The 1-based number of the only line of a file that contains `mark`."""
    lines = [i for i, text in enumerate(path.read_text().splitlines(), 1) if mark in text]
    assert len(lines) == 1, (mark, lines)
    return lines[0]


def same_bits(a, b):
    """A NaN's payload depends on the processor, so with a GPU all NaNs are equal."""
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    if TEST_DEVICE:
        a, b = (np.where(np.isnan(x), x.dtype.type(np.nan), x) if x.dtype.kind == "f" else x for x in (a, b))
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.fixture(params=list(mpi.LIBRARIES))
def library(request):
    mpi.prefix_of(request.param)
    return request.param


@pytest.fixture(params=["Open MPI", "MPICH"])
def launcher(request):
    mpi.prefix_of(request.param)
    return request.param
