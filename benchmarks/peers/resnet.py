"""The peer of ../resnet.py: the same network and gradients in PyTorch, eagerly, in milliseconds."""
import torch
from timing import arguments, report, use_all_cores
from torch.nn.functional import conv2d, max_pool2d, relu

A = arguments(__doc__, "torch", samples=8, size=224, rounds=12).parse_args()
use_all_cores(torch)


def weight(n_in, n_out, kernel):
    scale = (2 / (n_in * kernel * kernel)) ** 0.5
    return (torch.randn(n_out, n_in, kernel, kernel) * scale).requires_grad_()


first = weight(3, 64, 7)
blocks = []
for stage, n_out in enumerate((64, 128, 256, 512)):
    for block in range(2):
        stride = 2 if stage and not block else 1
        n_in = n_out // stride
        shortcut = weight(n_in, n_out, 1) if stride > 1 else None
        blocks.append((weight(n_in, n_out, 3), weight(n_out, n_out, 3), shortcut, stride))
weights = [first, *(w for block in blocks for w in block[:3] if w is not None)]
x = torch.randn(A.samples, 3, A.size, A.size, requires_grad=True)


def work():
    h = max_pool2d(relu(conv2d(x, first, None, 2, 3)), 3, 2, 1)
    for one, other, shortcut, stride in blocks:
        inner = relu(conv2d(h, one, None, stride, 1))
        h = relu(conv2d(inner, other, None, 1, 1) + (h if shortcut is None else conv2d(h, shortcut, None, stride)))
    loss = h.mean()
    torch.autograd.grad(loss, [x, *weights])
    return loss


report("resnet-ms", A.peer, work, A.rounds, loss=work().item())
