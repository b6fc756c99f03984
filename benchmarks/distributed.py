#!/usr/bin/env python3
"""Time of a training step on the ranks of an MPI job, against one process with all threads.

    python benchmarks/distributed.py                        # one process
    mpirun -n 2 python benchmarks/distributed.py            # two ranks that share the cores
    mpirun -n 2 python benchmarks/distributed.py --profile trace.json     # what rank 0 does when

Both compute two shards, so that they end with the same parameters, whose hash is printed.
"""
import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np

import owl
from owl import distributed, nn, optim, train


def perceptron(unit):
    return nn.Sequential(nn.Linear(784, unit), nn.ReLU(), nn.Linear(unit, unit), nn.ReLU(), nn.Linear(unit, 10))


def convolutional(_):
    return nn.Sequential(nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10))  # fmt: skip


NETWORKS = {"mlp": (perceptron, (784,), 100), "cnn": (convolutional, (1, 28, 28), 256)}


def union(spans):
    """Spans of time that do not overlap."""
    joined = []
    for begin, end in sorted(spans):
        if joined and begin <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([begin, end])
    return joined


def hidden_share(path):
    """The share of the time of all sums in which another thread of rank 0 computed."""
    events = [e for e in json.loads(Path(path).read_text())["traceEvents"] if e.get("ph") == "X"]
    sums = [(e["ts"], e["ts"] + e["dur"]) for e in events if e["name"].startswith("distributed.all_reduce")]
    others = union((e["ts"], e["ts"] + e["dur"]) for e in events
                   if not e["name"].startswith(("distributed", "wait", "plan")))  # fmt: skip
    beside = sum(max(0, min(end, b) - max(begin, a)) for begin, end in sums for a, b in others)
    return beside / max(1e-9, sum(end - begin for begin, end in sums))


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--network", choices=sorted(NETWORKS), default="cnn")
    options.add_argument("--unit", type=int, default=3000, help="units of the perceptron (default: 3000)")
    options.add_argument("--batch-size", type=int, help="default: 100 of the perceptron, 256 of the CNN")
    options.add_argument("--steps", type=int, default=40)
    options.add_argument("--shards", type=int, default=2)
    options.add_argument("--profile", metavar="FILE", help="writes a trace of rank 0's last steps")
    found = options.parse_args()
    make, shape, batch = NETWORKS[found.network]
    batch = found.batch_size or batch
    distributed.init()
    owl.seed(1)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch * found.steps, *shape), np.float32)
    labels = rng.integers(0, 10, len(x)).astype(np.int32)
    trainer = train.Trainer(make(found.unit), "softmax_cross_entropy", optim.Adam(), distributed=True, shards=found.shards)
    times = []
    for epoch in range(1, 4):  # the first warms up
        owl.wait_for_all()
        begun = time.perf_counter()
        if found.profile and epoch == 3 and distributed.rank() == 0:
            with owl.profile(found.profile):
                trainer.fit((x, labels), epoch, batch_size=batch, progress=False)
                owl.wait_for_all()
        else:
            trainer.fit((x, labels), epoch, batch_size=batch, progress=False)
            owl.wait_for_all()
        times.append(time.perf_counter() - begun)
    state = hashlib.sha256(b"".join(each.to_numpy().tobytes() for each in trainer.model.parameters().values()))
    if distributed.rank() == 0:
        print(f"{found.network}, batches of {batch}, {distributed.size()} ranks of {owl.devices()[0].threads} threads: "
              f"{1e3 * min(times[1:]) / found.steps:.2f} ms a step, parameters {state.hexdigest()[:12]}")  # fmt: skip
        if found.profile and distributed.size() > 1:
            print(f"{100 * hidden_share(found.profile):.0f} % of the time of the sums is beside computing")


if __name__ == "__main__":
    main()
