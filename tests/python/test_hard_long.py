"""A long loop that never waits: memory and graph do not grow."""
import children
from conftest import SOAK

LOOP = """
    import os, sys
    import owl

    steps = int(sys.argv[1])
    x = owl.rand([8, 8])
    w = owl.rand([8, 8]) * 0.01
    owl.wait_for_all()

    def resident():
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    loss_sum = owl.zeros([1])
    first = highest_nodes = early_nodes = largest = 0
    for step in range(1, steps + 1):
        y = owl.elewise.tanh(w * x)
        loss = owl.elewise.square(y - x).mean()
        w -= y * 1e-6
        loss_sum += loss
        if step % 100 == 0:
            nodes = owl.stats()["live_nodes"]
            if step <= 1000:
                early_nodes = max(early_nodes, nodes)
            highest_nodes = max(highest_nodes, nodes)
        if step == 1000:
            first = resident()
        elif step % 10000 == 0:
            largest = max(largest, resident())
    last = resident()
    mean = float(loss_sum) / steps
    owl.wait_for_all()
    print(f"a loop of {steps} steps: RSS {first / 2**20:.1f} MiB at step 1000, {last / 2**20:.1f} at the end, "
          f"{largest / 2**20:.1f} at most; live nodes at most {early_nodes} until step 1000, {highest_nodes} in all, "
          f"{owl.stats()['live_nodes']} at the end; mean loss {mean:.6f}")
    print(last <= 1.1 * first, largest <= 1.1 * first, highest_nodes <= 2 * early_nodes + 2000, 0 < mean < 10)
"""


def test_a_loop_that_never_waits():
    done = children.run(LOOP, children.scaled(100_000, 1_000_000), timeout=160 * min(SOAK, 20))
    assert done.stdout.splitlines()[-1] == "True True True True", done.stdout
