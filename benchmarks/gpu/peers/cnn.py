"""The peers of ../cnn.py: PyTorch eager, and its fastest layout in CUDA graphs; data on the card, float32."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import torch
from torch import nn

from shared import images, minibatches, options, report, timed
from torch_side import captured, choose, synchronize

A = options(__doc__, ("torch", "torch-graphs"), batch=256, batches=100, rounds=6)
device = choose(A.device)
layout = torch.channels_last if A.peer == "torch-graphs" else torch.contiguous_format
x, labels, _ = images(A.batch * A.batches)
batches = [(torch.from_numpy(x).to(device).contiguous(memory_format=layout), torch.from_numpy(t).to(device))
           for x, t in minibatches(A.batch, x.reshape(-1, 1, 28, 28), labels)]  # fmt: skip
torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3),
    nn.Flatten(), nn.Linear(512, 10),
).to(device, memory_format=layout)  # fmt: skip
torch.backends.cudnn.benchmark = A.peer == "torch-graphs"
decaying = [p for p in model.parameters() if p.ndim > 1]
others = [p for p in model.parameters() if p.ndim == 1]
optimizer = torch.optim.SGD(
    [dict(params=decaying, weight_decay=1e-4), dict(params=others, weight_decay=0)], lr=0.05, momentum=0.9
)
cross_entropy = nn.CrossEntropyLoss()


def eager(x, label):
    optimizer.zero_grad(set_to_none=True)
    cross_entropy(model(x), label).backward()
    optimizer.step()


step = captured(eager, *batches[0]) if A.peer == "torch-graphs" else eager


def one_round():
    for batch in batches:
        step(*batch)
    synchronize(device)


one_round()
seconds = [timed(one_round) / A.batches for _ in range(A.rounds)]
with torch.no_grad():
    loss = float(cross_entropy(model(batches[-1][0]), batches[-1][1]))
report("cnn-minibatch", A.peer, seconds, loss=loss)
