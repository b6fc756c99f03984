"""The peer of ../attention.py: PyTorch's scaled_dot_product_attention between its four projections, forward and backward,
in milliseconds."""
import torch
from timing import arguments, report, use_all_cores

A = arguments(__doc__, "torch", features=256, heads=8, steps=128, samples=8, rounds=40).parse_args()
use_all_cores(torch)
shape = A.samples, A.steps, A.features
x, err = torch.randn(shape, requires_grad=True), torch.randn(shape)
into, out = torch.nn.Linear(A.features, 3 * A.features), torch.nn.Linear(A.features, A.features)
sources = [x, *into.parameters(), *out.parameters()]


def work():
    heads = into(x).view(A.samples, A.steps, 3, A.heads, -1).permute(2, 0, 3, 1, 4)
    together = torch.nn.functional.scaled_dot_product_attention(*heads)
    y = out(together.transpose(1, 2).reshape(shape))
    return torch.autograd.grad(y, sources, err)


report("attention-ms", A.peer, work, A.rounds)
