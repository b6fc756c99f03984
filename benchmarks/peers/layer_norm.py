"""The peer of ../layer_norm.py: layer normalisation over PyTorch's last axis, forward and backward, in milliseconds."""
import argparse
import json
import os
import time

import torch

p = argparse.ArgumentParser(description=__doc__)
p.add_argument("peer", choices=["torch"])
p.add_argument("--features", type=int, default=1024)
p.add_argument("--vectors", type=int, default=4096)
p.add_argument("--rounds", type=int, default=15)
A = p.parse_args()
torch.set_num_threads(len(os.sched_getaffinity(0)))
x, err = torch.randn(A.vectors, A.features, requires_grad=True), torch.randn(A.vectors, A.features)
weight, bias = (torch.rand(A.features) + 0.5).requires_grad_(), torch.randn(A.features).requires_grad_()


def work():
    y = torch.nn.functional.layer_norm(x, (A.features,), weight, bias)
    return torch.autograd.grad(y, [x, weight, bias], err)


work()
milliseconds = []
for _ in range(A.rounds):
    start = time.perf_counter()
    work()
    milliseconds.append((time.perf_counter() - start) * 1e3)
print(json.dumps({"work": "layer-norm-ms", "peer": A.peer, "best": min(milliseconds)}))
