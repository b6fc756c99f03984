"""Microseconds for one recorded and run operation: a chain of x = x + 1.0 on a 1x1 array, for several lengths."""
import owl
from common import arguments, report, timed

A = arguments(__doc__, length=20000, rounds=7)


def chain(n):
    x = owl.zeros([1, 1])
    for _ in range(n):
        x = x + 1.0
    x.wait_for_eval()


def per_operation(n, rounds):
    return [timed(lambda: chain(n)) / n * 1e6 for _ in range(rounds)]


chain(A.length)
report("op-us", per_operation(A.length, A.rounds), at_1000=min(per_operation(1000, 20)),
       at_1000000=min(per_operation(1_000_000, 1)))
