"""A product of two float32 matrices in owl, at a precision: milliseconds."""
import sys

from owl_side import use
from shared import options, report, timed

import owl

A = options(__doc__, size=8192, precision="float32", rounds=15)
if not hasattr(owl, "set_matmul_precision"):
    sys.exit("this owl has no set_matmul_precision")
use(A.device)
owl.set_matmul_precision(A.precision)
owl.seed(0)
a, b = owl.randn([A.size, A.size]), owl.randn([A.size, A.size])


def work():
    c = a * b
    c.wait_for_eval()


work()
milliseconds = [timed(work) * 1e3 for _ in range(A.rounds)]
report(f"matmul-{A.precision}", "owl", milliseconds, tflops=2 * A.size**3 / min(milliseconds) / 1e9)
