"""The peer of ../matmul.py: PyTorch's product of float32 matrices, in milliseconds.

With bfloat16 it includes the rounding of the float32 matrices; `tensors_ms` is the product of matrices that are already
bfloat16.
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import torch

from shared import options, report, timed
from torch_side import choose, synchronize

A = options(__doc__, ("torch",), size=8192, precision="float32", rounds=15)
device = choose(A.device)
torch.backends.cuda.matmul.allow_tf32 = A.precision == "tf32"
torch.manual_seed(0)
a, b = (torch.randn(A.size, A.size, device=device) for _ in range(2))


def measure(product):
    def work():
        product()
        synchronize(device)

    work()
    return [timed(work) * 1e3 for _ in range(A.rounds)]


more = {}
if A.precision == "bfloat16":
    milliseconds = measure(lambda: (a.bfloat16() @ b.bfloat16()).float())
    a, b = a.bfloat16(), b.bfloat16()
    more["tensors_ms"] = min(measure(lambda: a @ b))
else:
    milliseconds = measure(lambda: a @ b)
report(f"matmul-{A.precision}", A.peer, milliseconds, tflops=2 * A.size**3 / min(milliseconds) / 1e9, **more)
