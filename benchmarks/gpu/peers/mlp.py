"""The peers of ../mlp.py: the same hand-written gradients, data on the card."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import numpy as np

from shared import images, minibatches, options, report, timed

A = options(__doc__, ("torch", "torch-graphs", "jax"), hidden=256, images=60000, epochs=8)
BATCH, RATE = 256, 0.1 / 256
x, labels, targets = images(A.images)
batches = minibatches(BATCH, x, targets)
rs = np.random.RandomState(1)
w1 = (rs.randn(784, A.hidden) * np.sqrt(4 / (784 + A.hidden))).astype("f4")
w2 = (rs.randn(A.hidden, 10) * np.sqrt(4 / (A.hidden + 10))).astype("f4")
P = [w1, np.zeros((1, A.hidden), "f4"), w2, np.zeros((1, 10), "f4")]

if A.peer == "jax":
    import jax

    jax.config.update("jax_default_matmul_precision", "highest")
    device = jax.devices("gpu" if A.device == "gpu" else "cpu")[0]
    P = [jax.device_put(p, device) for p in P]
    batches = [tuple(jax.device_put(a, device) for a in batch) for batch in batches]

    def gradient_step(P, x, target):
        w1, b1, w2, b2 = P
        a1 = jax.nn.relu(x @ w1 + b1)
        s2 = jax.nn.softmax(a1 @ w2 + b2) - target
        s1 = (s2 @ w2.T) * (a1 > 0)
        return [w1 - RATE * (x.T @ s1), b1 - RATE * s1.sum(0, keepdims=True),
                w2 - RATE * (a1.T @ s2), b2 - RATE * s2.sum(0, keepdims=True)]  # fmt: skip

    jitted = jax.jit(gradient_step, donate_argnums=0)

    def epoch():
        global P
        for x, target in batches:
            P = jitted(P, x, target)
        jax.block_until_ready(P)

    weights = lambda: map(np.array, P)
else:
    import torch

    from torch_side import captured, choose, synchronize

    torch.set_grad_enabled(False)
    device = choose(A.device)
    w1, b1, w2, b2 = P = [torch.from_numpy(p.copy()).to(device) for p in P]
    batches = [tuple(torch.from_numpy(a).to(device) for a in batch) for batch in batches]

    def step(x, target):
        a1 = torch.addmm(b1, x, w1).relu_()
        s2 = torch.softmax(torch.addmm(b2, a1, w2), 1).sub_(target)
        s1 = torch.mm(s2, w2.T).mul_(a1 > 0)
        w1.addmm_(x.T, s1, alpha=-RATE), b1.sub_(s1.sum(0, keepdim=True), alpha=RATE)
        w2.addmm_(a1.T, s2, alpha=-RATE), b2.sub_(s2.sum(0, keepdim=True), alpha=RATE)

    if A.peer == "torch-graphs":
        step = captured(step, *batches[0])

    def epoch():
        for batch in batches:
            step(*batch)
        synchronize(device)

    weights = lambda: (p.cpu().numpy() for p in P)

epoch()
seconds = [timed(epoch) for _ in range(A.epochs)]
w1, b1, w2, b2 = weights()
right = (np.maximum(x[:10000] @ w1 + b1, 0) @ w2 + b2).argmax(1) == labels[:10000]
report("mlp-epoch", A.peer, seconds, accuracy=float(right.mean()))
