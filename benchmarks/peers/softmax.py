"""The peer of ../softmax.py: softmax over the classes, PyTorch's last axis, in milliseconds."""
import argparse
import json
import os
import time

import torch

p = argparse.ArgumentParser(description=__doc__)
p.add_argument("peer", choices=["torch"])
p.add_argument("--classes", type=int, default=10)
p.add_argument("--columns", type=int, default=100000)
p.add_argument("--rounds", type=int, default=15)
A = p.parse_args()
torch.set_num_threads(len(os.sched_getaffinity(0)))
x = torch.randn(A.columns, A.classes)
torch.softmax(x, 1)
milliseconds = []
for _ in range(A.rounds):
    start = time.perf_counter()
    torch.softmax(x, 1)
    milliseconds.append((time.perf_counter() - start) * 1e3)
print(json.dumps({"work": "softmax-ms", "peer": A.peer, "best": min(milliseconds)}))
