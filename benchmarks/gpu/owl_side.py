"""Shared by owl's scripts: import folders and the device."""
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "apps" / "mnist")]

import owl  # noqa: E402


def use(device):
    owl.set_device(owl.create_gpu_device(0) if device == "gpu" else 0)


def on_card(batches):
    """The same minibatches as owl arrays, already on the device."""
    arrays = [tuple(owl.from_numpy(a) for a in batch) for batch in batches]
    owl.wait_for_all()
    return arrays
