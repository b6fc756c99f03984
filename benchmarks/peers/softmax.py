"""The peer of ../softmax.py: softmax over the classes, PyTorch's last axis, in milliseconds."""
import torch
from timing import arguments, report, use_all_cores

A = arguments(__doc__, "torch", classes=10, columns=100000, rounds=15).parse_args()
use_all_cores(torch)
x = torch.randn(A.columns, A.classes)
report("softmax-ms", A.peer, lambda: torch.softmax(x, 1), A.rounds)
