"""Arrays in files: owl.save, owl.load and owl.load_metadata."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import numpy as np

from owl._owl import DataError, DTypeError, NArray, bfloat16_bits, from_bfloat16_bits, from_numpy
from owl._replace import replacing

FORMATS = (".npz", ".safetensors")

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_METADATA = "__metadata__.json"  # the member of an .npz file that has the metadata


def save(path: Path, arrays: Mapping[str, NArray], metadata: Mapping[str, str] | None = None) -> None:
    """Writes named arrays to a file, with the axes of ``to_numpy()`` (reversed); waits for their values.

    The suffix chooses the format: ``.npz`` (NumPy's ``np.load`` reads it) or ``.safetensors`` (needs the package
    safetensors). The content is written to a new file, which is then renamed, so that a reader always finds the whole
    old file or the whole new one, even if several threads or processes save under one name. A symbolic link stays and
    its target is replaced; the old file's mode and owner are kept. ``metadata`` are texts by name, which
    :func:`load_metadata` reads. ValueError: another suffix. TypeError: not a dict of NArrays by name, or metadata that are
    not texts. OSError: the file cannot be written. If a value has failed, its owl error is raised, and the file stays as
    it was.

    >>> owl.save("weights.npz", {"w1": owl.ones([2, 3]), "b1": owl.zeros([2])})
    >>> sorted(owl.load("weights.npz"))
    ['b1', 'w1']
    """
    path, suffix = _name(path)
    if not isinstance(arrays, Mapping):
        raise TypeError(f"owl.save takes a dict of NArrays by name, not {type(arrays).__name__}")
    for name, x in arrays.items():
        if not isinstance(name, str) or not isinstance(x, NArray):
            raise TypeError(f"owl.save takes NArrays by name; {name!r} is {type(x).__name__}")
    if metadata is not None and not _are_texts(metadata):
        raise TypeError(f"owl.save: metadata are texts by name, not {metadata!r}")
    for x in arrays.values():
        x.start_eval()
    write(path, {name: _value(x, suffix) for name, x in arrays.items()}, metadata)


def write(path: Path, values: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Writes named NumPy arrays to a file, as :func:`save` does."""
    path, suffix = _name(path)
    data = None if suffix == ".npz" else _safetensors().save(dict(values), dict(metadata) if metadata else None)
    with replacing(path) as file:
        if data is None:
            write_npz(file, values, metadata)
        else:
            file.write(data)


def load(path: Path) -> dict[str, NArray]:
    """The arrays of a ``.npz`` or ``.safetensors`` file by name, on the current device, axes reversed.

    owl's types are kept; others become the nearest, as in :func:`owl.from_numpy`, and the float8 formats of
    ``.safetensors`` float32, which holds them exactly. Loading never runs code of the file: arrays of Python objects are refused. DataError: the file is missing, truncated or malformed, or has an array whose type owl lacks;
    the message names it. ValueError: another suffix.
    """
    path, suffix = _name(path)
    try:
        return {name: _array(path, name, dtype, read)
                for name, dtype, read in (_npz(path) if suffix == ".npz" else _safetensors_file(path))}  # fmt: skip
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (DataError, ImportError, MemoryError):
        raise
    except Exception as error:  # the readers raise a dozen classes for a bad file
        raise DataError(f"{path}: not a readable {suffix} file: {error}") from error


def load_metadata(path: Path) -> dict[str, str]:
    """The texts by name that :func:`save`, or another program that writes ``.safetensors``, stored beside the arrays.

    DataError: the file is missing, truncated or malformed. ValueError: another suffix.

    >>> owl.save("weights.npz", {"w": owl.ones([2])}, metadata={"epoch": "7"})
    >>> owl.load_metadata("weights.npz")
    {'epoch': '7'}
    """
    path, suffix = _name(path)
    try:
        found = _npz_metadata(path) if suffix == ".npz" else _safetensors_metadata(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"{path}: not a readable {suffix} file: {error}") from error
    if not _are_texts(found):
        raise DataError(f"{path}: its metadata are not texts by name")
    return dict(found)


def _are_texts(metadata: Any) -> bool:
    return isinstance(metadata, Mapping) and all(
        isinstance(name, str) and isinstance(text, str) for name, text in metadata.items())  # fmt: skip


# A file's contents: names, element types if known before the values, functions that read the values.
_Contents = Iterator[tuple[str, str, Callable[[], Any]]]


def _array(path: str, name: str, dtype: str, read: Callable[[], Any]) -> NArray:
    try:
        value = read()
    except MemoryError:
        raise
    except Exception as error:
        kind = f" of type {dtype}" if dtype else ""
        raise DataError(f"{path}: the array {name!r}{kind} cannot be read: {error}") from error
    if dtype == "BF16" or value.dtype == _BITS:
        return from_bfloat16_bits(value.view("<u2"))
    try:
        return from_numpy(value)
    except DTypeError:
        raise DataError(
            f"{path}: the array {name!r} is of type {dtype or value.dtype}, which has no counterpart in owl: it has "
            "bool, uint8, int32, int64, float16, bfloat16, float32 and float64"
        ) from None


_BITS = np.dtype("V2")  # bfloat16's in a .npz, for which NumPy has no name; ml_dtypes' arrays are saved like this too


def value_for(path: Path, x: NArray) -> Any:
    """An array's value as :func:`write` takes it for a file of this name; waits."""
    return _value(x, _name(path)[1])


def _value(x: NArray, suffix: str) -> Any:
    return bfloat16_bits(x).view(_BITS) if suffix == ".npz" and str(x.dtype) == "bfloat16" else x.to_numpy()


def write_npz(
    file: IO[bytes],
    values: Mapping[str, np.ndarray[Any, Any]],
    metadata: Mapping[str, str] | None = None,
    comment: bytes = b"",
) -> None:
    """Writes like np.savez, whose parameters' names could not be used as names of arrays; without times."""
    import zipfile  # here: it takes longer to load than all of owl

    with zipfile.ZipFile(file, "w") as members:
        members.comment = comment
        if metadata:
            members.writestr(zipfile.ZipInfo(_METADATA), json.dumps(dict(metadata), sort_keys=True))
        for name, value in values.items():
            with members.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, value, allow_pickle=False)


def _npz_metadata(path: str) -> Any:
    import zipfile

    with zipfile.ZipFile(path) as members:
        return json.loads(members.read(_METADATA)) if _METADATA in members.namelist() else {}


def _safetensors_metadata(path: str) -> Any:
    with _safetensors().safe_open(path, framework="np") as tensors:
        return tensors.metadata() or {}


def _npz(path: str) -> _Contents:
    import zipfile

    def read(member: str) -> Any:
        with members.open(member) as file:
            return np.lib.format.read_array(file, allow_pickle=False)

    with zipfile.ZipFile(path) as members:
        for member in members.namelist():
            if member == _METADATA:
                continue
            yield member.removesuffix(".npy"), "", functools.partial(read, member)


def _safetensors_file(path: str) -> _Contents:
    """The package checks the file and reads the types that NumPy has; bfloat16 and small floats are read here."""
    with _safetensors().safe_open(path, framework="np") as tensors, open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        for name in tensors.keys():  # noqa: SIM118  (not a mapping)
            entry = header[name]
            dtype = entry["dtype"]
            if dtype in _SMALL_FLOATS:
                yield name, dtype, functools.partial(_read_small_floats, file, 8 + size, entry)
            else:
                yield name, dtype, functools.partial(tensors.get_tensor, name)


def _float8(exponent_bits: int, bias: int, special: str) -> np.ndarray[Any, Any]:
    """The float32 of each byte (sign, exponent, mantissa). ``special``: which bytes are not finite numbers.

    "ieee": the largest exponent, for infinity and NaN; "fn": all bits set, for NaN; "fnuz": minus zero, for NaN.
    """
    mantissa_bits = 7 - exponent_bits
    values = []
    for byte in range(256):
        exponent, mantissa = byte % 128 >> mantissa_bits, byte % (1 << mantissa_bits) / (1 << mantissa_bits)
        value = math.ldexp(mantissa + (exponent > 0), max(exponent, 1) - bias)
        if special == "ieee" and exponent == (1 << exponent_bits) - 1:
            value = math.nan if mantissa else math.inf
        elif byte == 128 if special == "fnuz" else special == "fn" and byte % 128 == 127:
            value = math.nan
        values.append(-value if byte & 128 else value)
    return np.array(values, np.float32)


# Formats without a NumPy type: the stored type, and the conversion to float32, which represents each exactly; of
# bfloat16, which owl has, the bits.
_SMALL_FLOATS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "BF16": ("<u2", np.asarray),
    "F8_E4M3": ("u1", lambda bits: _float8(4, 7, "fn")[bits]),
    "F8_E5M2": ("u1", lambda bits: _float8(5, 15, "ieee")[bits]),
    "F8_E4M3FNUZ": ("u1", lambda bits: _float8(4, 8, "fnuz")[bits]),
    "F8_E5M2FNUZ": ("u1", lambda bits: _float8(5, 16, "fnuz")[bits]),
    "F8_E8M0": ("u1", np.array([*(2.0 ** (e - 127) for e in range(255)), math.nan], np.float32).__getitem__),
}


def _read_small_floats(file: IO[bytes], start: int, entry: Mapping[str, Any]) -> Any:
    stored, convert = _SMALL_FLOATS[entry["dtype"]]
    begin, end = entry["data_offsets"]
    file.seek(start + begin)
    return convert(np.frombuffer(file.read(end - begin), stored)).reshape(entry["shape"])


def _name(path: Path) -> tuple[str, str]:
    path = os.fsdecode(path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path}: the name of a file of arrays ends in {' or '.join(FORMATS)}")
    return path, suffix


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError("files of this kind need the package safetensors: pip install safetensors") from None
    return safetensors.numpy
