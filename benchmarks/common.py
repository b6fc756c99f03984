"""Shared pieces of the benchmarks: data, timing, one JSON line of output."""
import argparse
import json
import pathlib
import sys
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "apps" / "mnist"))
import mnist_io  # noqa: E402


def mnist(scale=256.0, seed=0):
    """(x_train [60000, 784] float32, y_train [60000] uint8, x_test, y_test); training rows shuffled by `seed`."""
    (x, y), (xt, yt) = mnist_io.load()
    order = np.random.RandomState(seed).permutation(len(x))
    flat = lambda a: a.reshape(len(a), -1).astype("f4") / np.float32(scale)
    return flat(x)[order], y[order], flat(xt), yt


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def report(work, seconds, **more):
    print(json.dumps(dict(work=work, peer="owl", best=min(seconds), median=sorted(seconds)[len(seconds) // 2], **more)))


def arguments(doc, **numbers):
    p = argparse.ArgumentParser(description=doc)
    for name, value in numbers.items():
        p.add_argument("--" + name, type=type(value), default=value, help=f"default {value}")
    return p.parse_args()
