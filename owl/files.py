"""Arrays in files: owl.save and owl.load."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np

from owl._owl import DataError, NArray, from_numpy

FORMATS = (".npz", ".safetensors")


def save(path: str | os.PathLike[str], arrays: Mapping[str, NArray]) -> None:
    """Writes named arrays to a file, as ``to_numpy()`` shows them (axes reversed); waits for their values.

    The suffix says how: ``.npz`` (NumPy's ``np.load`` reads it) or ``.safetensors`` (needs the package safetensors). The
    file is written beside its place and then renamed, so that at every moment there is the old file or the new one,
    whole. ValueError: another suffix. TypeError: something else than NArrays under names. OSError: the file cannot be
    written. What went wrong with a value is raised as its owl error, and no file is touched.

    >>> owl.save("weights.npz", {"w1": owl.ones([2, 3]), "b1": owl.zeros([2])})
    >>> sorted(owl.load("weights.npz"))
    ['b1', 'w1']
    """
    path, suffix = os.fspath(path), _suffix(path)
    if not isinstance(arrays, Mapping):
        raise TypeError(f"owl.save takes a dict of NArrays by name, not {type(arrays).__name__}")
    for name, x in arrays.items():
        if not isinstance(name, str) or not isinstance(x, NArray):
            raise TypeError(f"owl.save takes NArrays by name; {name!r} is {type(x).__name__}")
    for x in arrays.values():
        x.start_eval()
    values: dict[str, Any] = {name: x.to_numpy() for name, x in arrays.items()}
    if suffix == ".npz":
        _replace(path, lambda file: _write_npz(file, values))
    else:
        data = _safetensors().save(values)
        _replace(path, lambda file: file.write(data))


def load(path: str | os.PathLike[str]) -> dict[str, NArray]:
    """The arrays of a ``.npz`` or ``.safetensors`` file by name, on the current device, axes reversed.

    Nothing in a file is ever run: arrays of Python objects are refused. DataError: the file is missing, truncated, not
    of its format, or holds something that owl has no type for. ValueError: another suffix.
    """
    path, suffix = os.fspath(path), _suffix(path)
    try:
        if suffix == ".npz":
            values = _read_npz(path)
        else:
            values = _safetensors().load_file(path)
        return {name: from_numpy(value) for name, value in values.items()}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # the readers raise a dozen kinds for what is only a bad file
        raise DataError(f"{path}: not a readable {suffix} file: {error}") from error


def _write_npz(file: IO[bytes], values: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """What np.savez writes, whose own arguments take some names for themselves."""
    with zipfile.ZipFile(file, "w") as members:
        for name, value in values.items():
            with members.open(name + ".npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, value, allow_pickle=False)


def _read_npz(path: str) -> dict[str, np.ndarray[Any, Any]]:
    values = {}
    with zipfile.ZipFile(path) as members:
        for name in members.namelist():
            with members.open(name) as member:
                values[name.removesuffix(".npy")] = np.lib.format.read_array(member, allow_pickle=False)
    return values


def _suffix(path: str | os.PathLike[str]) -> str:
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    if suffix not in FORMATS:
        raise ValueError(f"{os.fspath(path)}: the name of a file of arrays ends in {' or '.join(FORMATS)}")
    return suffix


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError("files of this kind need the package safetensors: pip install safetensors") from None
    return safetensors.numpy


def _replace(path: str, write: Callable[[IO[bytes]], Any]) -> None:
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.remove(part)
        raise
