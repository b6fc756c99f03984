"""The peer of ../layer_norm.py: layer normalisation over PyTorch's last axis, forward and backward, in milliseconds."""
import torch
from timing import arguments, report, use_all_cores

A = arguments(__doc__, "torch", features=1024, vectors=4096, rounds=15).parse_args()
use_all_cores(torch)
x, err = torch.randn(A.vectors, A.features, requires_grad=True), torch.randn(A.vectors, A.features)
weight, bias = (torch.rand(A.features) + 0.5).requires_grad_(), torch.randn(A.features).requires_grad_()


def work():
    y = torch.nn.functional.layer_norm(x, (A.features,), weight, bias)
    return torch.autograd.grad(y, [x, weight, bias], err)


report("layer-norm-ms", A.peer, work, A.rounds)
