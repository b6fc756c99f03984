"""The peers of ../calls.py: the same operations by NumPy and by PyTorch."""
import argparse
import json
import os
import time

import numpy as np

p = argparse.ArgumentParser(description=__doc__)
p.add_argument("peer", choices=["numpy", "torch"])
p.add_argument("--work", choices=["add", "product", "item", "to_numpy", "from_numpy"], default="add")
p.add_argument("--elements", type=int, default=65536)
p.add_argument("--seconds", type=float, default=2.0)
A = p.parse_args()
rng = np.random.default_rng(1)
side = round(A.elements**0.5)
numbers = rng.standard_normal((side, side), "f4")
x, y = numbers, rng.standard_normal((side, side), "f4")
copy, as_numpy = np.copy, lambda a: a
if A.peer == "torch":
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or len(os.sched_getaffinity(0)))
    torch.set_grad_enabled(False)
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    copy, as_numpy = lambda a: torch.from_numpy(a).clone(), lambda t: t.numpy()
work = {
    "add": lambda: x + y,
    "product": lambda: x @ y,
    "item": lambda: (x[0, 0] + 1.0).item(),
    "to_numpy": lambda: as_numpy(x + y),
    "from_numpy": lambda: copy(numbers),
}[A.work]


def best_us():
    best, end = float("inf"), time.perf_counter() + A.seconds
    while time.perf_counter() < end:
        start = time.perf_counter_ns()
        work()
        best = min(best, time.perf_counter_ns() - start)
    return best / 1e3


best_us()
print(json.dumps({"work": f"{A.work}-us", "peer": A.peer, "best": best_us()}))
