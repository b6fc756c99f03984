"""The CPU's cost model (cpp/backend/cpu/cost.h) beside the clock: OWL_NUM_THREADS=1 python benchmarks/costs.py

For each constant of the model what this machine gives, and for each case the model's estimate (owl.explain's cost)
beside the best time measured. The model is rough: it decides what shares a task and which thread runs it, and no values.
The program `wake` of the build folder measures kWakeNs and kWakeLatencyNs.
"""
import os
import time

os.environ["OWL_NUM_THREADS"] = "1"

import owl  # noqa: E402
import owl.elewise as ele  # noqa: E402
from common import arguments  # noqa: E402

A = arguments(__doc__, rounds=30, elements=4_000_000)


def best_ns(work, rounds=A.rounds):
    """Of recording `work` and waiting for it."""
    best = float("inf")
    for _ in range(rounds + 1):
        begin = time.perf_counter_ns()
        values = work()
        owl.wait_for_all()
        best = min(best, time.perf_counter_ns() - begin)
        del values
    return best


def estimate_ns(work):
    return sum(task.cost_us for task in owl.explain(work).tasks) * 1e3


def chain(x, length):
    """An addition and a product of numbers in turn: one program."""
    for _ in range(length // 2):
        x = ele.mult(x, 1.0001) + 0.5
    return x


def constants():
    n, small = A.elements, 4096
    a = [owl.randn([n]) for _ in range(6)]
    tiny = owl.randn([16])
    kept = owl.randn([small])
    owl.wait_for_all()
    two, six = best_ns(lambda: a[0] + a[1]), best_ns(lambda: a[0] + a[1] + a[2] + a[3] + a[4] + a[5])
    one_out = best_ns(lambda: a[0] * 2.0 + 1.0)

    def three():
        x = a[0] * 2.0
        y = x + 1.0
        return x, y, y + 1.0

    three_out = best_ns(three)
    cached = [best_ns(lambda length=length: chain(kept, length), 200) for length in (8, 40)]
    short = [best_ns(lambda length=length: chain(tiny, length), 2000) for length in (8, 40)]
    d = kept.astype("float64")
    double = [best_ns(lambda length=length: chain(d, length), 200) for length in (8, 40)]
    calls = [best_ns(lambda times=times: [f := d] and [f := ele.sin(f) for _ in range(times)][-1], 50) for times in (1, 3)]
    # Each further operation of a script costs its recording too, which the first of a short chain has as well.
    per_operation = (short[1] - short[0]) / 32
    in_cache = ((cached[1] - cached[0]) / 32 - per_operation) / small
    doubles = ((double[1] - double[0]) / 32 - per_operation) / small
    return {
        "kReadNs, ns a byte": (six - two) / 4 / (4 * n),
        "kWriteNs, ns a byte": (three_out - one_out) / 2 / (4 * n),
        "kOperationNs, ns": in_cache,
        "kOperation64Ns, ns": doubles,
        "kCall64Ns, ns (a sine has cost 22)": (calls[1] - calls[0]) / 2 / small / 22,
    }


def cases():
    n = A.elements
    x, y = owl.randn([n]), owl.randn([n])
    m = {k: (owl.randn([k, k]), owl.randn([k, k])) for k in (64, 256, 1024)}
    images, w, b = owl.randn([28, 28, 16, 64]), owl.randn([5, 5, 16, 32]), owl.zeros([32])
    convolver = owl.conv.Convolver()
    square = x.reshape([1000, -1])
    owl.wait_for_all()
    yield "add", n, lambda: x + y
    yield "tanh", n, lambda: ele.tanh(x)
    for k, (p, q) in m.items():
        yield f"product of {k}", 2 * k**3, lambda p=p, q=q: p * q
    yield "convolution", 2 * 24 * 24 * 64 * 32 * 25 * 16, lambda: convolver.ff(images, w, b)
    yield "sum of columns", n, lambda: square.sum(0)
    yield "softmax of columns", n, lambda: owl.conv.softmax(square)


for name, value in constants().items():
    print(f"{name:36} {value:8.3f}")
print(f"\n{'case':24} {'estimate, us':>14} {'measured, us':>14} {'operations a ns':>16}")
for name, operations, work in cases():
    estimate, measured = estimate_ns(work), best_ns(work)
    print(f"{name:24} {estimate / 1e3:14.1f} {measured / 1e3:14.1f} {operations / measured:16.1f}")
