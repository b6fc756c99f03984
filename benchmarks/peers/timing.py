"""Shared by the peers: their arguments, PyTorch's threads, and the best time of many rounds as one line of JSON."""
import argparse
import json
import os
import time


def arguments(doc, peer, **numbers):
    """The command line: the peer's name, and numbers with their defaults."""
    p = argparse.ArgumentParser(description=doc)
    p.add_argument("peer", choices=[peer])
    for name, value in numbers.items():
        p.add_argument("--" + name, type=type(value), default=value)
    return p


def use_all_cores(torch):
    torch.set_num_threads(len(os.sched_getaffinity(0)))


def report(name, peer, work, rounds, **more):
    """Calls `work` once unmeasured, then `rounds` times."""
    work()
    milliseconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        milliseconds.append((time.perf_counter() - start) * 1e3)
    print(json.dumps({"work": name, "peer": peer, "best": min(milliseconds), **more}))
