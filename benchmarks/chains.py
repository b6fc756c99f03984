"""Two independent chains of products of 64x64 matrices, on a number of workers: seconds."""
import os

import numpy as np

import owl
from common import arguments, report, timed

A = arguments(__doc__, workers=2, length=200, rounds=50)
os.environ["OWL_NUM_THREADS"] = str(A.workers)  # owl reads it at its first use
if owl.devices()[0].threads != A.workers:
    raise SystemExit(f"this machine has {owl.devices()[0].threads} processors for {A.workers} workers")
# Orthogonal, so that no product grows or vanishes.
first, second = (owl.from_numpy(np.linalg.qr(np.random.RandomState(i).randn(64, 64))[0].astype("f4")) for i in range(2))


def chain(factor):
    product = factor
    for _ in range(A.length):
        product = product * factor
    return product


def both():
    results = chain(first), chain(second)
    owl.wait_for_all()
    return results


both()
report(f"chains-{A.workers}", [timed(both) for _ in range(A.rounds)])
