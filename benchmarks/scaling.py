#!/usr/bin/env python3
"""Simulates a training step on 2 to 1,024 ranks: when buckets of gradients are ready, and what their sums then take.

    python benchmarks/scaling.py                                  # both networks at 10 and 100 Gbit/s
    python benchmarks/scaling.py --gigabit 1 --cores 16           # ranks 16 times as fast
    python benchmarks/scaling.py --trace trace.json --network cnn # with the times of distributed.py --profile trace.json
    python benchmarks/scaling.py --figure scaling.png

Each rank has the same number of samples on any number of ranks. The efficiency is the time of a step of one rank by itself,
divided by that of a step of all. "direct" is what owl does: every rank sends each other a message, then a share of the
data. "tree" would be messages and data along a tree: halves of the data to one rank, quarters to a second, and so on, and
back, in which the additions keep their order.
"""
import argparse
import heapq
import json
import math
import random
import statistics
from dataclasses import dataclass
from pathlib import Path

RANKS = [2**k for k in range(1, 11)]
STEPS = 30
BLOCK = 256 << 10  # bytes that are added at once, beside the transfer of others
MESSAGE = 4096  # of so many bytes, data goes with the ranks' messages


@dataclass
class Network:
    """Milliseconds of a rank of one core: buckets ready after the beginning of a step, the backward pass ended, the update
    of all parameters made; and when the forward pass needs those of a bucket that the ranks update in parts (None: every rank
    updates all of it). Rounded from traces of distributed.py --profile on an AMD EPYC with other work beside, 128 samples (CNN)
    and 50 (perceptron) a rank; the perceptron's update is an estimate."""

    ready: list
    computed: float
    update: float
    bytes: list
    needed: list


NETWORKS = {
    "cnn": Network([24.0, 49.0, 59.0], 59.2, 1.2, [1_600_000, 122_240, 2_080], [19.0, None, None]),
    "mlp": Network([25.0, 39.0, 39.1], 39.2, 19.0, [36_000_000, 9_408_000, 144_040], [3.5, 0.0, None]),
}


@dataclass
class Cluster:
    gigabit: float  # of one rank, each way
    latency_us: float
    message_us: float  # a rank's work for one message
    add_gb: float  # bytes that a rank adds a second

    def transfer(self, sent):
        return sent * 8 / self.gigabit / 1e6

    def meeting(self, ranks, tree):
        """Every rank learns of each other that it has come."""
        rounds = math.log2(ranks) if tree else 1
        messages = rounds if tree else ranks - 1
        return (rounds * self.latency_us + messages * self.message_us) / 1e3

    def sum(self, size, ranks, tree):
        if size <= MESSAGE and not tree:  # with the message that the ranks exchange anyway
            return self.meeting(ranks, tree) + self.transfer(size * (ranks - 1))
        return self.scatter(size, ranks, tree) + self.gather(size, ranks, tree) - self.meeting(ranks, tree)

    def scatter(self, size, ranks, tree):
        """Every rank gets its part of the sum: all-to-all, with the additions beside."""
        share = size / ranks * (ranks - 1)
        add = share / self.add_gb / 1e6
        moved = max(self.transfer(share), add, self._work(size, ranks, tree)) + min(self.transfer(BLOCK), add)
        return self.meeting(ranks, tree) + self._rounds(ranks, tree) * self.latency_us / 1e3 + moved

    def gather(self, size, ranks, tree):
        """Every rank gets the parts of the others."""
        moved = max(self.transfer(size / ranks * (ranks - 1)), self._work(size, ranks, tree))
        return self.meeting(ranks, tree) + self._rounds(ranks, tree) * self.latency_us / 1e3 + moved

    def _rounds(self, ranks, tree):
        return math.log2(ranks) if tree else 1

    def _work(self, size, ranks, tree):
        messages = math.log2(ranks) if tree else (ranks - 1) * max(1, math.ceil(size / ranks / BLOCK))
        return messages * self.message_us / 1e3


def step_ms(network, cluster, ranks, *, tree=False, cores=1, jitter=0.03, seed=0):
    """The mean of some steps: an event for each bucket of each rank that is ready, and for each end of a sum."""
    rng = random.Random(seed)
    parts = [needed is not None for needed in network.needed]
    costs = [(cluster.scatter if part else cluster.sum)(size, ranks, tree) for size, part in zip(network.bytes, parts)]
    updates = [network.update * size / sum(network.bytes) / (ranks if part else 1) for size, part in zip(network.bytes, parts)]
    begun, ends = [0.0] * ranks, []
    for _ in range(STEPS):
        speed = [(1 + abs(rng.gauss(0, jitter))) / cores for _ in range(ranks)]
        events = [(begun[r] + at * speed[r], k) for r in range(ranks) for k, at in enumerate(network.ready)]
        heapq.heapify(events)
        waiting, link_free, done = [ranks] * len(costs), 0.0, [0.0] * len(costs)
        next_bucket, ready_at = 0, [0.0] * len(costs)
        while events:
            now, bucket = heapq.heappop(events)
            waiting[bucket] -= 1
            ready_at[bucket] = now
            while next_bucket < len(costs) and waiting[next_bucket] == 0:  # one after another, in recorded order
                link_free = done[next_bucket] = max(ready_at[next_bucket], link_free) + costs[next_bucket]
                next_bucket += 1
        updated = [0.0] * len(costs)  # by all ranks
        for r in range(ranks):
            at = begun[r] + network.computed * speed[r]
            for k, end in enumerate(done):  # the update of a bucket's parameters is beside the next sum
                at = max(at, end) + updates[k] * speed[r]
                updated[k] = max(updated[k], at)
            begun[r] = at
        for k in reversed(range(len(costs))):  # beside the next forward pass, until it needs them
            if parts[k]:
                link_free = max(link_free, updated[k]) + cluster.gather(network.bytes[k], ranks, tree)
                begun = [max(at, link_free - network.needed[k] * speed[r]) for r, at in enumerate(begun)]
        ends.append(max(begun))
    return (ends[-1] - ends[0]) / (STEPS - 1)


def traced(path, network, ranks):
    """The network with the times of a trace: of rank 0's sums, and of the tasks before and behind them. The update is made
    of what lies between the sums and the next forward pass, of which a rank has made its part."""
    events = sorted((e for e in json.loads(Path(path).read_text())["traceEvents"] if e.get("ph") == "X"), key=lambda e: e["ts"])
    sums = [e for e in events if e["name"] in ("distributed.all_reduce", "distributed.reduce_scatter")]
    tasks = [e for e in events if e["cat"] in ("kernel", "fused") and not e["name"].startswith("distributed")]
    each = len(network.bytes) + (network.bytes[-1] > MESSAGE)  # the last sum is of the loss, and of a small last bucket
    steps = [sums[i : i + each] for i in range(0, len(sums) - each + 1, each)]
    found, computed, update = [[] for _ in network.bytes], [], []
    for before, now in zip(steps, steps[1:]):
        first = next(e["ts"] for e in tasks if e["ts"] > before[-1]["ts"] and e["name"].startswith(("conv", "matmul")))
        for k, place in enumerate(found):
            place.append((now[k]["ts"] - first) / 1e3)
        last = now[len(found) - 1]["ts"]
        computed.append(max(e["ts"] + e["dur"] for e in tasks if e["ts"] < last) / 1e3 - first / 1e3)
        update.append(sum(e["dur"] for e in tasks if before[len(found) - 1]["ts"] + before[len(found) - 1]["dur"] <= e["ts"] < first) / 1e3)
    middle = statistics.median
    ready = [middle(each) for each in found]
    needed = [part and part * ready[0] / network.ready[0] for part in network.needed]
    whole = sum(size / (ranks if part is not None else 1) for size, part in zip(network.bytes, network.needed))
    return Network(ready, middle(computed), middle(update) * sum(network.bytes) / whole, network.bytes, needed)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--network", choices=sorted(NETWORKS), action="append", help="default: both")
    options.add_argument("--gigabit", type=float, action="append", help="per second, of one rank (default: 10 and 100)")
    options.add_argument("--latency-us", type=float, default=20)
    options.add_argument("--message-us", type=float, default=1, help="work of a rank for one message (default: 1)")
    options.add_argument("--add-gb", type=float, default=5, help="that a rank adds per second (default: 5)")
    options.add_argument("--cores", type=float, default=1, help="how many times as fast a rank computes (default: 1)")
    options.add_argument("--jitter", type=float, default=0.03, help="deviation of a rank's speed (default: 0.03)")
    options.add_argument("--trace", help="of rank 0, by distributed.py --profile, in place of the times of an AMD EPYC")
    options.add_argument("--trace-ranks", type=int, default=2, metavar="N", help="of the job with the trace (default: 2)")
    options.add_argument("--figure", metavar="FILE", help="also draws the efficiency, as a PNG; needs matplotlib")
    found = options.parse_args()
    if found.trace and len(found.network or []) != 1:
        options.error("--trace needs the --network that it is of")
    if found.figure:
        import figure

        figure.require()
    lines = []
    for name in found.network or sorted(NETWORKS):
        network = traced(found.trace, NETWORKS[name], found.trace_ranks) if found.trace else NETWORKS[name]
        for gigabit in found.gigabit or [10, 100]:
            cluster = Cluster(gigabit, found.latency_us, found.message_us, found.add_gb)
            alone = (network.computed + network.update) / found.cores
            for tree in (False, True):
                steps = [step_ms(network, cluster, r, tree=tree, cores=found.cores, jitter=found.jitter) for r in RANKS]
                lines.append((f"{name}, {gigabit:g} Gbit/s, {'tree' if tree else 'direct'}", alone, steps))
    print(f"{'milliseconds of a step, ranks:':32}{1:>6}" + "".join(f"{r:>6}" for r in RANKS) + "  at least half efficient up to")
    for title, alone, steps in lines:
        most = max([1, *(r for r, step in zip(RANKS, steps) if alone / step >= 0.5)])
        print(f"{title:32}{alone:6.1f}" + "".join(f"{step:6.1f}" for step in steps) + f"  {most} ranks")
    if found.figure:
        figure.draw_lines([(title, RANKS, [100 * alone / step for step in steps]) for title, alone, steps in lines],
                          "ranks", "efficiency, %", found.figure)  # fmt: skip


if __name__ == "__main__":
    main()
