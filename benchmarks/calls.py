"""One operation at a time, each waited for, and copies from NumPy and back: microseconds a call."""
import time

import numpy as np

import owl
from common import arguments, report

A = arguments(__doc__, work="add", elements=65536, seconds=2.0)
rng = np.random.default_rng(1)
side = round(A.elements**0.5)
numbers = rng.standard_normal((side, side), "f4")
x, y = owl.from_numpy(numbers), owl.from_numpy(rng.standard_normal((side, side), "f4"))
WORK = {
    "add": lambda: (x + y).wait_for_eval(),
    "product": lambda: (x * y).wait_for_eval(),
    "item": lambda: (x[0, 0] + 1.0).item(),
    "to_numpy": lambda: (x + y).to_numpy(),
    "from_numpy": lambda: owl.from_numpy(numbers),
}


def best_us(work):
    best, end = float("inf"), time.perf_counter() + A.seconds
    while time.perf_counter() < end:
        start = time.perf_counter_ns()
        work()
        best = min(best, time.perf_counter_ns() - start)
    return best / 1e3


best_us(WORK[A.work])
before, cpu, clock = owl.stats(), time.process_time(), time.perf_counter()
us = best_us(WORK[A.work])
cpu, clock, after = time.process_time() - cpu, time.perf_counter() - clock, owl.stats()
report(f"{A.work}-us", [us], threads=cpu / clock, wakes=after["wakes"] - before["wakes"])
