"""The peers of ../chain.py, in GB/s: a copy on the card by PyTorch (bytes read and written), and CuPy's fused kernel."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from shared import options, report, timed

A = options(__doc__, ("torch-copy", "cupy"), size=256 << 20, rounds=15)
if A.peer == "cupy":
    import cupy

    a, b, c = (cupy.random.random(A.size, dtype="f4") for _ in range(3))
    kernel = cupy.ElementwiseKernel("float32 a, float32 b, float32 c", "float32 y",
                                    "y = tanhf(a * b + c) * a - b / (c + 1.5f)", "chain")  # fmt: skip
    arrays = 4

    def work():
        kernel(a, b, c)
        cupy.cuda.get_current_stream().synchronize()
else:
    import torch

    from torch_side import choose, synchronize

    device = choose(A.device)
    source = torch.rand(A.size, device=device)
    target = torch.empty_like(source)
    arrays = 2

    def work():
        target.copy_(source)
        synchronize(device)


work()
work()
report("chain-gb-s", A.peer, [arrays * 4 * A.size / timed(work) / 1e9 for _ in range(A.rounds)], better=max)
