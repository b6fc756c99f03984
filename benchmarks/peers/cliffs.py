"""The operations of ../cliffs.py by a peer."""
import importlib.util
import os
import pathlib

here = pathlib.Path(__file__).resolve()
spec = importlib.util.spec_from_file_location("own_cliffs", here.parent.parent / here.name)
cliffs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cliffs)


def by_torch(A):
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    torch.set_grad_enabled(False)
    names = {"torch": torch, "F": torch.nn.functional}
    return cliffs.measure(3, names, torch.from_numpy, lambda result: None, A.only, A.seconds)


def by_numpy(A):
    return cliffs.measure(4, {}, lambda x: x, lambda result: None, A.only, A.seconds)


p = cliffs.parse(__doc__)
p.add_argument("peer", choices=["torch", "numpy"])
A = p.parse_args()
cliffs.report(A.peer, {"torch": by_torch, "numpy": by_numpy}[A.peer](A))
