"""Shared by owl's scripts and the peers': options, data, timing, one JSON line of output. Imports no framework.

The data is random, in MNIST's shapes: the times are the same, and no machine needs MNIST.
"""
import argparse
import json
import time

import numpy as np


def options(doc, peers=(), **numbers):
    p = argparse.ArgumentParser(description=doc)
    if peers:
        p.add_argument("peer", choices=peers)
    p.add_argument("--device", choices=["gpu", "cpu"], default="gpu", help="cpu: checks that a script works")
    for name, value in numbers.items():
        p.add_argument("--" + name.replace("_", "-"), type=type(value), default=value, help=f"default {value}")
    return p.parse_args()


def images(count):
    """(images [count, 784] float32, labels [count], labels one of ten [count, 10] float32): something to learn.

    A tenth of the labels are random, so that errors, and with them gradients, never vanish.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, count)
    prototypes = (rng.random((10, 784)) < 0.2).astype("f4")
    x = rng.random((count, 784), dtype="f4") * prototypes[labels] + 0.3 * rng.random((count, 784), dtype="f4")
    labels = np.where(rng.random(count) < 0.1, rng.integers(0, 10, count), labels)
    return x, labels, np.eye(10, dtype="f4")[labels]


def minibatches(size, *arrays):
    """The full minibatches, as a list of tuples."""
    return [tuple(a[i:i + size] for a in arrays) for i in range(0, len(arrays[0]) // size * size, size)]


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def report(work, peer, figures, better=min, **more):
    print(json.dumps(dict(work=work, peer=peer, best=better(figures), median=sorted(figures)[len(figures) // 2], **more)))
