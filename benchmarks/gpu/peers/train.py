"""The peer of ../train.py: PyTorch eager with its fused Adam; minibatches drawn from NumPy arrays: images a second."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import numpy as np
import torch
from torch import nn

from shared import images, options, report, timed
from torch_side import choose, synchronize

A = options(__doc__, ("torch",), units=1000, images=60000, epochs=3)
BATCH = 100
device = choose(A.device)
x, labels, _ = images(A.images)
torch.manual_seed(0)
model = nn.Sequential(
    nn.Linear(784, A.units), nn.ReLU(), nn.Linear(A.units, A.units), nn.ReLU(), nn.Linear(A.units, 10)
).to(device)
optimizer = torch.optim.Adam(model.parameters(), fused=True)
cross_entropy = nn.CrossEntropyLoss(reduction="sum")
rng = np.random.default_rng(0)


def epoch(count):
    """Trains on `count` images; returns their mean loss."""
    total = torch.zeros((), device=device)
    order = rng.permutation(len(x))[:count]
    for i in range(0, count, BATCH):
        chosen = order[i:i + BATCH]
        images, label = (torch.from_numpy(a[chosen]).to(device, non_blocking=True) for a in (x, labels))
        optimizer.zero_grad(set_to_none=True)
        loss = cross_entropy(model(images), label)
        (loss / BATCH).backward()
        optimizer.step()
        total += loss.detach()
    mean = float(total) / count
    synchronize(device)
    return mean


epoch(20 * BATCH)
rates = [A.images / timed(lambda: epoch(A.images)) for _ in range(A.epochs)]
with torch.no_grad():
    right = model(torch.from_numpy(x[:10000]).to(device)).argmax(1).cpu().numpy() == labels[:10000]
report(f"train-u{A.units}", A.peer, rates, better=max, accuracy=float(right.mean()))
