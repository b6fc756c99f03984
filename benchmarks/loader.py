"""owl.data.Loader in an MLP's epoch of MNIST, 784-H-10, minibatch 256, shuffled: CPU seconds of the loader alone.

`epoch` is the CPU time of a whole epoch with it. `longer` is the epoch's time by that of an epoch with minibatches that were
made beforehand, `waits` the share of the epoch that the script spends in the loader.
"""
import time

import numpy as np

import owl
from common import arguments, mnist, report
from network import BATCH, Mlp

A = arguments(__doc__, hidden=256, epochs=10, images=60000)
x, y, _, _ = mnist()
labels = np.eye(10, dtype="f4")[y]
loader = owl.data.Loader((x[:A.images], labels[:A.images]), BATCH, shuffle=True)
network = Mlp(A.hidden)


def epoch(batches):
    """Seconds of an epoch, CPU seconds of it, and the seconds that the script spends in the loader."""
    inside, begin, cpu = 0.0, time.perf_counter(), time.process_time()
    batches = iter(batches)
    while True:
        before = time.perf_counter()
        batch = next(batches, None)
        inside += time.perf_counter() - before
        if batch is None:
            break
        network.step(*batch)
    owl.wait_for_all()
    return time.perf_counter() - begin, time.process_time() - cpu, inside


def alone():
    begin = time.process_time()
    for _ in loader:
        pass
    return time.process_time() - begin


ready = list(loader)
epoch(ready), epoch(loader)
turns = [(epoch(ready)[0], *epoch(loader), alone()) for _ in range(A.epochs)]
made, loaded, cpu, inside, bare = zip(*turns)
report(f"loader-h{A.hidden}", bare, epoch=min(cpu), longer=min(loaded) / min(made),
       waits=min(part / whole for part, whole in zip(inside, loaded)))  # fmt: skip
