"""tanh(a*b + c)*a - b/(c + 1.5) over 4M floats: milliseconds."""
import numpy as np

import owl
from common import arguments, report, timed

A = arguments(__doc__, size=4 << 20, rounds=9)
mult, tanh = owl.elewise.mult, owl.elewise.tanh
a, b, c = (owl.from_numpy(np.random.RandomState(i).rand(A.size).astype("f4")) for i in range(3))


def work():
    y = mult(tanh(mult(a, b) + c), a) - b / (c + 1.5)
    y.wait_for_eval()


work()
report("chain-ms", [timed(work) * 1e3 for _ in range(A.rounds)])
