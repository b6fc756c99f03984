"""Megabytes of an MLP epoch at its peak, beyond the weights and the data set, beside one step's live set.

The data set is one array of owl's and minibatches are slices of it, which share its memory: what owl allocates is what
the steps make. The live set is what a step's plan (owl.explain) holds at its widest point: every array that a task
writes is alive from that task to the last that reads it, the new weights to the end of the step; one that takes over
another's memory begins where that ends. Tasks count in the order of the plan, one at a time, one step at a time.

`with_cache` counts the freed blocks too that owl keeps for the next array.
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
    raise SystemExit("what was loaded took more memory for a while: the peak of an epoch cannot be seen")


def step(i):
    network.step(owl.slice(images, 1, i, BATCH), owl.slice(labels, 1, i, BATCH))
    return [network.w1, network.b1, network.w2, network.b2]


live = live_set(owl.explain(lambda: step(0)).tasks)  # it is run as soon as it has been explained
for i in range(BATCH, len(x[:A.images]) // BATCH * BATCH, BATCH):
    step(i)
owl.wait_for_all()
after = owl.memory_stats()
with_cache = after["allocated"] + after["cached"] - before["allocated"]
report("mlp-memory-mb", [(after["peak"] - before["allocated"]) / MB], live_set=live / MB, with_cache=with_cache / MB)
