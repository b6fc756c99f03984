"""tanh(a*b + c)*a - b/(c + 1.5) in float32, ideally one kernel: GB/s, for three arrays read and one written."""
from owl_side import use
from shared import options, report, timed

import owl

A = options(__doc__, size=256 << 20, rounds=15)
use(A.device)
owl.seed(0)
mult, tanh = owl.elewise.mult, owl.elewise.tanh
a, b, c = (owl.rand([A.size]) for _ in range(3))


def work():
    y = mult(tanh(mult(a, b) + c), a) - b / (c + 1.5)
    y.wait_for_eval()


work()
report("chain-gb-s", "owl", [4 * 4 * A.size / timed(work) / 1e9 for _ in range(A.rounds)], better=max)
