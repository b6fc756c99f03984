"""Rows of an embedding, chosen (take) or added to (put_add) by random indices, some of them several times: milliseconds."""
import numpy as np

import owl
from common import arguments, report, timed

A = arguments(__doc__, work="take", rows=1_000_000, width=64, rounds=9)
rng = np.random.default_rng(1)
x = owl.from_numpy(rng.standard_normal((A.rows, A.width), "f4"))
values = owl.from_numpy(rng.standard_normal((A.rows, A.width), "f4"))
indices = owl.from_numpy(rng.integers(0, A.rows, A.rows, "i4"))


def work():
    result = owl.take(x, indices, 1) if A.work == "take" else owl.put_add(x, indices, values, 1)
    result.wait_for_eval()


work()
report(f"{A.work}-ms", [timed(work) * 1e3 for _ in range(A.rounds)])
