"""The peer of ../take.py: NumPy's take, and its quickest sum by random indices, argsort and add.reduceat."""
import argparse
import json
import time

import numpy as np

p = argparse.ArgumentParser(description=__doc__)
p.add_argument("peer", choices=["numpy"])
p.add_argument("--work", choices=["take", "put_add"], default="take")
p.add_argument("--rows", type=int, default=1_000_000)
p.add_argument("--width", type=int, default=64)
p.add_argument("--rounds", type=int, default=9)
A = p.parse_args()
rng = np.random.default_rng(1)
x = rng.standard_normal((A.rows, A.width), "f4")
values = rng.standard_normal((A.rows, A.width), "f4")
indices = rng.integers(0, A.rows, A.rows, "i4")


def put_add():
    order = np.argsort(indices, kind="stable")
    places = indices[order]
    starts = np.flatnonzero(np.r_[True, places[1:] != places[:-1]])
    result = x.copy()
    result[places[starts]] += np.add.reduceat(values[order], starts, axis=0)
    return result


def take():
    return np.take(x, indices, axis=0)


work = {"take": take, "put_add": put_add}[A.work]
work()
milliseconds = []
for _ in range(A.rounds):
    start = time.perf_counter()
    work()
    milliseconds.append((time.perf_counter() - start) * 1e3)
print(json.dumps({"work": f"{A.work}-ms", "peer": A.peer, "best": min(milliseconds)}))
