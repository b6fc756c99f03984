#!/usr/bin/env python3
"""Time of a training step on the ranks of an MPI job, against one process with all threads.

    python benchmarks/distributed.py                        # one process
    mpirun -n 2 python benchmarks/distributed.py            # two ranks that share the cores
    mpirun -n 2 python benchmarks/distributed.py --overlap 3              # and what it gains that sums are beside computing
    mpirun -n 2 python benchmarks/distributed.py --overlap 3 --gigabit 10 # the same over a network of 10 Gbit/s
    mpirun -n 2 python benchmarks/distributed.py --profile trace.json     # what rank 0 does when

The first two compute two shards, so that they end with the same parameters, whose hash is printed. `--gigabit` puts
slow_mpi.c before MPI's library (that of OWL_MPI, or the first one found); it needs a C compiler.
"""
import argparse
import hashlib
import json
import os
import subprocess
import tempfile
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


SUMS = "distributed.all_reduce", "distributed.reduce_scatter", "distributed.all_gather"
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


def spans(path):
    """The spans of a trace: those of the sums, and those of other threads that compute."""
    events = [e for e in json.loads(Path(path).read_text())["traceEvents"] if e.get("ph") == "X"]
    sums = [e for e in events if e["name"].startswith(SUMS)]
    return sums, union((e["ts"], e["ts"] + e["dur"]) for e in events
                       if not e["name"].startswith(("distributed", "wait", "plan")))  # fmt: skip


def share_beside(path):
    """The share of the time of all sums in which another thread of rank 0 computed."""
    sums, others = spans(path)
    beside = sum(max(0, min(e["ts"] + e["dur"], b) - max(e["ts"], a)) for e in sums for a, b in others)
    return beside / max(1e-9, sum(e["dur"] for e in sums))


class Waiting:
    """In the place of a trainer's ranks: waits for all that is sent, and then until it has arrived."""

    def __init__(self, ranks):
        self.ranks, self.seconds = ranks, 0.0

    def __getattr__(self, name):
        return getattr(self.ranks, name)

    def added(self, values, gradients, buffers, shared):
        return self._timed(gradients, lambda: self.ranks.added(values, gradients, buffers, shared), lambda found: found[1])

    def gathered_parts(self, parts):
        return self._timed(parts, lambda: self.ranks.gathered_parts(parts), lambda found: found)

    def _timed(self, operands, operation, results):
        for each in operands.values():
            each.wait_for_eval()
        distributed.barrier()
        begun = time.perf_counter()
        found = operation()
        for each in results(found).values():
            each.wait_for_eval()
        self.seconds += time.perf_counter() - begun
        return found


class Epochs:
    """Epochs of one trainer, whose time is taken."""

    def __init__(self, trainer, data, batch):
        self.trainer, self.data, self.batch = trainer, data, batch

    def run(self):
        owl.wait_for_all()
        distributed.barrier()
        begun = time.perf_counter()
        self.trainer.fit(self.data, len(self.trainer.history) + 1, batch_size=self.batch, progress=False)
        owl.wait_for_all()
        distributed.barrier()
        return time.perf_counter() - begun

    def traced(self, path):
        if distributed.rank() > 0:
            return self.run()
        with owl.profile(path):
            return self.run()


def what_overlap_gives(epochs, steps, rounds):
    """Steps with the sums beside the backward pass, and behind it, in turn; the least of each, in ms a step."""
    parts, ranks = epochs.trainer.parts, epochs.trainer.ranks
    waiting = Waiting(ranks)

    def use(which):
        parts.ranks = parts.own.ranks = which

    beside, behind, sums = [], [], []
    for _ in range(rounds):
        beside.append(epochs.run())
        use(waiting)
        waiting.seconds = 0.0
        behind.append(epochs.run())
        sums.append(waiting.seconds)
        use(ranks)
    with tempfile.TemporaryDirectory() as folder:
        use(waiting)
        epochs.traced(Path(folder) / "trace.json")
        use(ranks)
        processor = distributed.rank() == 0 and sum(e["tdur"] for e in spans(Path(folder) / "trace.json")[0]) / 1e6
    return [1e3 * each / steps for each in (min(beside), min(behind), min(sums), processor)]


def behind_a_network(gigabit, folder):
    """Lets owl open, in place of MPI's library, one that receives no faster than this."""
    from owl import _mpi

    found = _mpi.launcher()
    if found is None:
        raise SystemExit("--gigabit is for ranks: start them with mpirun")
    # Not opened yet: the first one that is, stays.
    library = next((path for path in _mpi._candidates(found) if os.path.exists(path)), None)
    if library is None:
        raise SystemExit("--gigabit needs the path of MPI's library: OWL_MPI=PATH")
    slow = f"{folder}/slow_mpi_{os.getpid()}.so"
    source = Path(__file__).with_name("slow_mpi.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", source, "-o", slow, "-Wl,--no-as-needed", library, f"-Wl,-rpath,{Path(library).parent}", "-ldl"],
                   check=True)  # fmt: skip
    os.environ |= {"OWL_MPI": slow, "MPI_GIGABIT": str(gigabit)}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--network", choices=sorted(NETWORKS), default="cnn")
    options.add_argument("--unit", type=int, default=3000, help="units of the perceptron (default: 3000)")
    options.add_argument("--batch-size", type=int, help="default: 100 of the perceptron, 256 of the CNN")
    options.add_argument("--steps", type=int, default=40)
    options.add_argument("--shards", type=int, default=2)
    options.add_argument("--overlap", type=int, default=0, metavar="ROUNDS",
                         help="also measures steps whose sums wait for the end of the backward pass, in turn")  # fmt: skip
    options.add_argument("--gigabit", type=float, help="lets the ranks receive no faster than a network of so many Gbit/s")
    options.add_argument("--profile", metavar="FILE", help="writes a trace of rank 0's last steps")
    found = options.parse_args()
    make, shape, batch = NETWORKS[found.network]
    batch = found.batch_size or batch
    with tempfile.TemporaryDirectory() as folder:
        if found.gigabit:
            behind_a_network(found.gigabit, folder)
        distributed.init()
    owl.seed(1)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch * found.steps, *shape), np.float32)
    labels = rng.integers(0, 10, len(x)).astype(np.int32)
    trainer = train.Trainer(make(found.unit), "softmax_cross_entropy", optim.Adam(), distributed=True, shards=found.shards)
    epochs = Epochs(trainer, (x, labels), batch)
    times = [epochs.run() for _ in range(3)][1:]  # the first warms up
    state = hashlib.sha256(b"".join(each.to_numpy().tobytes() for each in trainer.model.parameters().values()))
    if distributed.rank() == 0:
        print(f"{found.network}, batches of {batch}, {distributed.size()} ranks of {owl.devices()[0].threads} threads: "
              f"{1e3 * min(times) / found.steps:.2f} ms a step, parameters {state.hexdigest()[:12]}")  # fmt: skip
    if found.overlap and distributed.size() > 1:
        beside, behind, sums, processor = what_overlap_gives(epochs, found.steps, found.overlap)
        if distributed.rank() == 0:
            print(f"sums behind the backward pass: {behind:.2f} ms a step, of which they take {sums:.2f} ms ({processor:.2f} "
                  f"ms of processor time); beside it: {beside:.2f} ms; {100 * (behind - beside) / sums:.0f} % hidden")  # fmt: skip
    if found.profile:
        epochs.traced(found.profile)
        if distributed.rank() == 0 and distributed.size() > 1:
            print(f"{100 * share_beside(found.profile):.0f} % of the time of the sums is beside computing")


if __name__ == "__main__":
    main()
