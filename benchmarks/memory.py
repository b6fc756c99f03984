"""Megabytes of an MLP epoch at its peak, beyond the weights and the data set, beside one step's live set.

The data set is one owl array and minibatches are slices of it, which share its memory, so owl allocates only the steps'
results. The live set is the maximum over a step's plan (owl.explain): every array that a task writes is alive from that
task to its last reader, the new weights to the end of the step; an array that takes over another's memory begins where
that one ends. Tasks count in the order of the plan, one at a time, one step at a time.

`with_cache` also counts the freed blocks that owl keeps for the next array.
"""
import numpy as np

import owl
from common import arguments, mnist, report
from network import BATCH, Mlp

MB = 1e6


def live_set(tasks):
    """Bytes at the widest point."""
    last = [max((t for t, task in enumerate(tasks) if i in task.after), default=len(tasks)) for i in range(len(tasks))]
    for t, task in enumerate(tasks):
        if task.reuses is not None:
            last[task.reuses] = t - 1
    return max(sum(task.bytes_written for task, end in zip(tasks[:t + 1], last) if end >= t) for t in range(len(tasks)))


A = arguments(__doc__, hidden=256, images=60000)
x, y, _, _ = mnist()
network = Mlp(A.hidden)
images, labels = owl.from_numpy(x[:A.images]), owl.from_numpy(np.eye(10, dtype="f4")[y[:A.images]])
owl.wait_for_all()
before = owl.memory_stats()
if before["peak"] > before["allocated"]:
    raise SystemExit("loading had a higher peak than the epoch, which therefore cannot be measured")


def step(i):
    network.step(owl.slice(images, 1, i, BATCH), owl.slice(labels, 1, i, BATCH))
    return [network.w1, network.b1, network.w2, network.b2]


live = live_set(owl.explain(lambda: step(0)).tasks)  # the explained step runs afterwards
for i in range(BATCH, len(x[:A.images]) // BATCH * BATCH, BATCH):
    step(i)
owl.wait_for_all()
after = owl.memory_stats()
with_cache = after["allocated"] + after["cached"] - before["allocated"]
report("mlp-memory-mb", [(after["peak"] - before["allocated"]) / MB], live_set=live / MB, with_cache=with_cache / MB)
