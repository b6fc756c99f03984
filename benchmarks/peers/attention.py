"""The peer of ../attention.py: PyTorch's scaled_dot_product_attention between its four projections, forward and backward,
in milliseconds."""
import argparse
import json
import os
import time

import torch

p = argparse.ArgumentParser(description=__doc__)
p.add_argument("peer", choices=["torch"])
p.add_argument("--features", type=int, default=256)
p.add_argument("--heads", type=int, default=8)
p.add_argument("--steps", type=int, default=128)
p.add_argument("--samples", type=int, default=8)
p.add_argument("--rounds", type=int, default=40)
A = p.parse_args()
torch.set_num_threads(len(os.sched_getaffinity(0)))
shape = A.samples, A.steps, A.features
x, err = torch.randn(shape, requires_grad=True), torch.randn(shape)
into, out = torch.nn.Linear(A.features, 3 * A.features), torch.nn.Linear(A.features, A.features)
sources = [x, *into.parameters(), *out.parameters()]


def work():
    heads = into(x).view(A.samples, A.steps, 3, A.heads, -1).permute(2, 0, 3, 1, 4)
    together = torch.nn.functional.scaled_dot_product_attention(*heads)
    y = out(together.transpose(1, 2).reshape(shape))
    return torch.autograd.grad(y, sources, err)


work()
milliseconds = []
for _ in range(A.rounds):
    start = time.perf_counter()
    work()
    milliseconds.append((time.perf_counter() - start) * 1e3)
print(json.dumps({"work": "attention-ms", "peer": A.peer, "best": min(milliseconds)}))
