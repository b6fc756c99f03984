"""The peer of ../take.py: NumPy's take, and its quickest sum by random indices, argsort and add.reduceat."""
import numpy as np
from timing import arguments, report

p = arguments(__doc__, "numpy", rows=1_000_000, width=64, rounds=9)
p.add_argument("--work", choices=["take", "put_add"], default="take")
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
report(f"{A.work}-ms", A.peer, work, A.rounds)
