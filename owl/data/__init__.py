"""Data sets and minibatches: ``ArrayDataset``, ``Loader``, ``mnist``, transforms; and downloads (``python -m owl.data``)."""

from typing import TYPE_CHECKING

from owl import _hints
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


if not TYPE_CHECKING:

    def __getattr__(name):
        raise _hints.of_module("owl.data", name)
