"""Softmax over the classes, owl's first axis: milliseconds."""
import owl
from common import arguments, report, timed

A = arguments(__doc__, classes=10, columns=100000, rounds=15)
x = owl.randn([A.classes, A.columns])
x.wait_for_eval()


def work():
    owl.conv.softmax(x).wait_for_eval()


work()
report("softmax-ms", [timed(work) * 1e3 for _ in range(A.rounds)])
