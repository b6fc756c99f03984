"""PyTorch's modules and owl's, through one file: loads each state dict in the other, and compares the outputs.

Each layer is made by PyTorch with random parameters (buffers too), its state_dict() is written by safetensors, read by owl,
and both compute the same input in evaluation mode; then owl's parameters, drawn again, go back the same way. Prints the
largest difference between the outputs, as a share of the largest output. Needs torch and safetensors.

    python tests/python/interchange.py
"""

import argparse
import os
import sys
import tempfile

import numpy as np

import owl
from owl import nn

IMAGES, VECTORS, SEQUENCES = (5, 8, 12, 10), (7, 8), (3, 6, 8)  # NumPy's order

# PyTorch's module, as text in torch.nn; owl's; the input's shape.
LAYERS = [
    ("Linear(8, 5)", lambda: nn.Linear(8, 5), VECTORS),
    ("Linear(8, 5, bias=False)", lambda: nn.Linear(8, 5, bias=False), SEQUENCES),
    ("Conv2d(8, 6, 3)", lambda: nn.Conv2d(8, 6, 3), IMAGES),
    ("Conv2d(8, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=2, groups=2)",
     lambda: nn.Conv2d(8, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=2, groups=2), IMAGES),
    ("BatchNorm1d(8)", lambda: nn.BatchNorm(8), VECTORS),
    ("BatchNorm2d(8)", lambda: nn.BatchNorm(8), IMAGES),
    ("BatchNorm2d(8, affine=False)", lambda: nn.BatchNorm(8, affine=False), IMAGES),
    ("LayerNorm(8)", lambda: nn.LayerNorm(8), SEQUENCES),
    ("LayerNorm((12, 10))", lambda: nn.LayerNorm([10, 12]), IMAGES),
    ("GroupNorm(4, 8)", lambda: nn.GroupNorm(4, 8), IMAGES),
    ("Embedding(50, 8)", lambda: nn.Embedding(50, 8), None),
    ("RNN(8, 5, batch_first=True)", lambda: nn.RNN(8, 5), SEQUENCES),
    ("RNN(8, 5, 3, bidirectional=True, batch_first=True)", lambda: nn.RNN(8, 5, layers=3, bidirectional=True), SEQUENCES),
    ("LSTM(8, 5, batch_first=True)", lambda: nn.LSTM(8, 5), SEQUENCES),
    ("LSTM(8, 5, 3, bidirectional=True, batch_first=True)", lambda: nn.LSTM(8, 5, layers=3, bidirectional=True), SEQUENCES),
    ("GRU(8, 5, batch_first=True)", lambda: nn.GRU(8, 5), SEQUENCES),
    ("GRU(8, 5, 3, bidirectional=True, batch_first=True)", lambda: nn.GRU(8, 5, layers=3, bidirectional=True), SEQUENCES),
    ("MultiheadAttention(8, 4, batch_first=True)", lambda: nn.MultiHeadAttention(8, 4), SEQUENCES),
    ("MultiheadAttention(8, 4, bias=False, batch_first=True)", lambda: nn.MultiHeadAttention(8, 4, bias=False), SEQUENCES),
    ("Sequential(Conv2d(8, 6, 3), BatchNorm2d(6), ReLU(), Flatten(), Linear(480, 10))",
     lambda: nn.Sequential(nn.Conv2d(8, 6, 3), nn.BatchNorm(6), nn.ReLU(), nn.Flatten(), nn.Linear(480, 10)), IMAGES),
]  # fmt: skip


def output_of(module, x, theirs):
    """What a module gives for x, in NumPy's order of axes; without the state of recurrent layers, or attention's weights."""
    if theirs:
        import torch

        with torch.no_grad():
            given = torch.from_numpy(x)
            y = module(*[given] * (3 if isinstance(module, torch.nn.MultiheadAttention) else 1))
        return (y[0] if isinstance(y, tuple) else y).numpy()
    y = module(owl.from_numpy(x))
    return (y[0] if isinstance(y, tuple) else y).to_numpy()


def compare(text, make, shape, folder):
    """The largest differences of the outputs: owl with PyTorch's file, PyTorch with owl's."""
    import safetensors.torch
    import torch

    rng = np.random.default_rng(0)
    x = rng.integers(0, 50, (7, 3)) if shape is None else rng.standard_normal(shape).astype("f4")
    theirs = eval(text, vars(torch.nn) | {"__builtins__": {}}).eval()
    for i, a in enumerate([*theirs.parameters(), *theirs.buffers()]):
        if a.dtype.is_floating_point:
            a.data = torch.from_numpy(np.random.default_rng(i + 1).uniform(0.1, 0.9, tuple(a.shape)).astype("f4"))
    ours, path = make().eval(), os.path.join(folder, "net.safetensors")
    safetensors.torch.save_file(theirs.state_dict(), path)
    ours.load(path)
    to_owl = difference(output_of(ours, x, False), output_of(theirs, x, True))
    state = {name: a * 0.5 + 0.2 if a.dtype.kind == "f" else a for name, a in ours.state().items()}
    ours.load_state(state)
    ours.save(path)
    theirs.load_state_dict(safetensors.torch.load_file(path), strict=True)
    return to_owl, difference(output_of(theirs, x, True), output_of(ours, x, False))


def difference(a, b):
    if a.shape != b.shape:
        raise SystemExit(f"shapes differ: {a.shape}, {b.shape}")
    return float(np.abs(a - b).max() / np.abs(b).max())


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        import safetensors.torch  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        sys.exit(f"interchange: {error.name} is missing: pip install torch safetensors")
    wide = max(len(text) for text, _, _ in LAYERS)
    print(f"{'PyTorch module':{wide}}  to owl   to PyTorch")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for text, make, shape in LAYERS:
            found = compare(text, make, shape, folder)
            worst = max(worst, *found)
            print(f"{text:{wide}}  {found[0]:.1e}  {found[1]:.1e}")
    print(f"largest difference: {worst:.1e}")
    return 0 if worst <= 1e-5 else f"interchange: {worst:.1e} is above 1e-5"


if __name__ == "__main__":
    sys.exit(main())
