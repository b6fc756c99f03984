"""Milliseconds that `import owl` takes beyond NumPy's import, in fresh interpreters.

The first run, which loads the libraries into the page cache, is not counted.
"""
import statistics
import subprocess
import sys

from common import arguments, report

SCRIPT = """
import time
start = time.perf_counter()
import numpy
between = time.perf_counter()
import owl
print(between - start, time.perf_counter() - between)
"""


def measure():
    out = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True).stdout
    return [1e3 * float(word) for word in out.split()]


A = arguments(__doc__, runs=11)
measure()
numpy_ms, owl_ms = zip(*(measure() for _ in range(A.runs)))
report("import-ms", owl_ms, worst=max(owl_ms), numpy=statistics.median(numpy_ms))
