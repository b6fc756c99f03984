"""MNIST for the programs of this folder; `owl.data.mnist_files` says where it is looked for.

`load` gives all of it, `load_mb_from_mat` the walkthrough's minibatches.
"""

from owl.data.mnist_files import as_samples, load, load_mb_from_mat, one_hot

__all__ = ["as_samples", "load", "load_mb_from_mat", "one_hot"]
