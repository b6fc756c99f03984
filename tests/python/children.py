"""Child processes with a watchdog: when its time is up, a child prints every thread's stack and exits."""
import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap

from conftest import SOAK

# A forked child lacks the watchdog, and calls guard_fork(). SIGINT: a shell's background jobs ignore it.
PREAMBLE = ("import faulthandler, signal; faulthandler.enable(); faulthandler.dump_traceback_later({}, exit=True); "
            "signal.signal(signal.SIGINT, signal.default_int_handler); "
            "guard_fork = lambda: (faulthandler.register(signal.SIGALRM, chain=True), signal.alarm(60))\n")


def scaled(ordinary, full):
    """The number of tries of a test: `ordinary` in a normal run, `full` in a soak run (OWL_SOAK=50)."""
    return min(full, ordinary * SOAK)


def run(text, *args, env=None, timeout=120, expect=0):
    """Runs Python text as a separate script; returns the finished process. `expect` is its exit code."""
    full = {k: v for k, v in os.environ.items() if not k.startswith("OWL_")} | (env or {})
    full["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), *filter(None, [full.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "user_script.py")
        path.write_text(PREAMBLE.format(timeout) + textwrap.dedent(text))
        done = subprocess.run([sys.executable, str(path), *map(str, args)], env=full, cwd=folder, capture_output=True,
                              text=True, timeout=timeout + 60)
        last = pathlib.Path(folder, "last_call")  # the call that fuzz_calls.py was making
        note = last.read_text().strip() if done.returncode != expect and last.exists() else ""
    assert done.returncode == expect, \
        f"exit code {done.returncode}, not {expect} {note}\n{done.stdout[-5000:]}\n--- stderr\n{done.stderr[-9000:]}"
    print(done.stdout, end="")  # shown by pytest -s or -rP, and if the test fails
    return done
