"""Threads: none before the first use, then as many as affinity and settings allow, and no more."""
import os

import pytest

import children

COUNT = """
    import os, sys
    cpus = sorted(os.sched_getaffinity(0))[:int(sys.argv[1])]
    os.sched_setaffinity(0, cpus)
    import numpy
    def threads():
        return len(os.listdir("/proc/self/task"))
    before = threads()
    import owl
    assert threads() == before, "importing owl starts no thread"
    device = owl.devices()[0]
    other = owl.create_cpu_device()
    assert threads() == before, "nor does asking for devices"
    x = owl.rand([300, 300])
    float((x * x).sum())
    first = threads() - before
    with owl.device(other):
        float((x * x + 1).sum())
    print(len(cpus), device.threads, first, threads() - before)
    # While one device's workers are busy, another device's worker may plan the window: then both run workers already.
"""


@pytest.mark.parametrize("cpus", sorted({1, 2, len(os.sched_getaffinity(0))}))
def test_an_affinity_mask_is_respected(cpus):
    cpus = min(cpus, len(os.sched_getaffinity(0)))
    allowed, told, first, both = map(int, children.run(COUNT, cpus).stdout.split())
    assert allowed == cpus and 1 <= told <= cpus  # fewer if a cgroup's quota is smaller
    assert first in (told, 2 * told) and both == 2 * told


@pytest.mark.parametrize("threads", [1, 2, 1000])
def test_a_setting_never_raises_the_number(threads):
    cpus = len(os.sched_getaffinity(0))
    done = children.run(COUNT, cpus, env={"OWL_NUM_THREADS": str(threads)})
    _, told, first, both = map(int, done.stdout.split())
    assert told <= min(threads, cpus) and first in (told, 2 * told) and both == 2 * told


def test_threads_inherit_the_mask():
    """A worker runs on the process's CPUs, also if the mask is set after the import and before the first use."""
    done = children.run("""
        import os
        import owl
        one = min(os.sched_getaffinity(0))
        os.sched_setaffinity(0, [one])
        float((owl.rand([300, 300]) * owl.rand([300, 300])).sum())
        masks = {tuple(os.sched_getaffinity(int(t))) for t in os.listdir("/proc/self/task")}
        print((one,) in masks)
        x = [owl.rand([200, 200]) for _ in range(20)]
        print(all(float((a * a).min()) >= 0 for a in x))
    """)
    assert done.stdout.split() == ["True", "True"]
