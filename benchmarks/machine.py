"""Describes the machine of a table of benchmarks."""
import os
import platform
import subprocess

import owl

ASK_VERSIONS = """
import sys
from importlib import metadata
for name in sys.argv[1:]:
    try: print(name, metadata.version(name))
    except metadata.PackageNotFoundError: pass
"""


def lines_of(path, key):
    """The values of `key` in a file of lines "key: value"; none if there is no such file."""
    try:
        with open(path) as file:
            return [line.split(":", 1)[1].strip() for line in file if line.split(":")[0].strip() == key]
    except OSError:
        return []


def instruction_set():
    flags = set(" ".join(lines_of("/proc/cpuinfo", "flags")[:1]).split())
    known = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX"}
    return next((name for flag, name in known.items() if flag in flags), platform.machine())


def memory():
    total = lines_of("/proc/meminfo", "MemTotal")
    return f"{int(total[0].split()[0]) / 2**20:.0f} GiB" if total else "unknown"


def versions(python, *packages):
    """"torch 2.13.0, jax 0.10.2": the versions of the packages that this interpreter has."""
    try:
        done = subprocess.run([python, "-c", ASK_VERSIONS, *packages], capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return ", ".join(done.stdout.split("\n")).strip(", ") or "none"


def commit():
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        done = subprocess.run(["git", "-C", here, "describe", "--always", "--dirty"], capture_output=True, text=True)
    except OSError:
        return ""
    return f" ({done.stdout.strip()})" if done.returncode == 0 else ""


def description(own_python, peer_python):
    model = (lines_of("/proc/cpuinfo", "model name") or [platform.processor() or "unknown processor"])[0]
    return [
        f"{model}, {len(os.sched_getaffinity(0))} CPUs, {instruction_set()}, {memory()} of memory; "
        f"{platform.system()} {platform.release()}; Python {platform.python_version()}",
        f"owl {owl.__version__}{commit()} with {versions(own_python, 'numpy', 'onednn-cpu-gomp')}; "
        f"peers: {versions(peer_python, 'numpy', 'torch', 'jax')}",
    ]
