"""Processor seconds of planning and scheduling in an MLP epoch, beside those of the whole epoch.

owl.profile records a span for each plan, each chunk of a kernel and each time a thread looks for work or waits, with
the thread's processor time in it. Planning is the time of the plans' spans, including submission to the scheduler.
Scheduling is the workers' time outside all spans (ordering tasks, allocating, distributing chunks, waking and going to
sleep), and the script's thread's time while it waits. A span includes the cost of recording it. The epoch's own time is
that of the whole process, without a profile: it includes recording and the script's copies. `looking_for_work` is the
time of idle workers before they sleep, which delays no other thread; scheduling does not include it. All are medians of
epochs with and without a profile in turn.
"""
import json
import os
import statistics
import tempfile
import time

import owl
from common import arguments, mnist, report
from network import Mlp, minibatches


def processor_seconds(work):
    """Processor seconds of the process, and of all threads but this one."""
    process, thread = time.process_time(), time.thread_time()
    work()
    process = time.process_time() - process
    return process, process - (time.thread_time() - thread)


def spans(path):
    """{(whether the lane is a worker's, kind of span): seconds} of a profile."""
    with open(path) as file:
        events = json.load(file)["traceEvents"]
    workers = {e["tid"] for e in events if e["name"] == "thread_name" and "worker" in e["args"]["name"]}
    seconds = {}
    for e in events:
        if e["ph"] == "X":
            what = (e["tid"] in workers, e["name"] if e["cat"] == "engine" else "work")
            seconds[what] = seconds.get(what, 0.0) + e["tdur"] / 1e6
    return seconds


def profiled(work):
    """Seconds of planning, of scheduling and of looking for work."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "trace.json")
        with owl.profile(path):
            _, workers = processor_seconds(work)
        found = spans(path)
    planning = sum(s for (_, what), s in found.items() if what == "plan")
    outside = workers - sum(s for (of_worker, _), s in found.items() if of_worker)
    return planning, outside + found.get((False, "wait"), 0.0), found.get((True, "wait"), 0.0)


A = arguments(__doc__, hidden=256, epochs=11, images=60000)
x, y, _, _ = mnist()
batches = minibatches(x[:A.images], y[:A.images])
network = Mlp(A.hidden)
network.epoch(batches)
plain, traced = [], []
for _ in range(A.epochs):
    plain.append(processor_seconds(lambda: network.epoch(batches))[0])
    traced.append(profiled(lambda: network.epoch(batches)))
epoch = statistics.median(plain)
planning, scheduling, looking = map(statistics.median, zip(*traced))
report("mlp-planning", [planning + scheduling], epoch=epoch, planning=planning, scheduling=scheduling,
       looking_for_work=looking)
