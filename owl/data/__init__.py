"""Data sets and minibatches: ``ArrayDataset``, ``Loader``, ``mnist``, transforms; and downloads (``python -m owl.data``)."""

from owl.data.datasets import ArrayDataset, mnist
from owl.data.download import DATA_SETS, DataFile, DataSet, cache_folder, fetch, main, mirrors
from owl.data.loader import Loader
from owl.data.transforms import random_crop, random_flip, random_shift, standardize

__all__ = [
    "DATA_SETS",
    "ArrayDataset",
    "DataFile",
    "DataSet",
    "Loader",
    "cache_folder",
    "fetch",
    "main",
    "mirrors",
    "mnist",
    "random_crop",
    "random_flip",
    "random_shift",
    "standardize",
]
