"""Checkpoints: a tree of arrays and plain values in one file, whose bytes depend on nothing but its content.

The arrays are those of a ``.npz`` or ``.safetensors`` file, named by their path in the tree, so that other programs read
them. Everything else is one text of JSON with sorted keys among the metadata (owl.load_metadata). A SHA-256 of the whole file, written in the place of 64 zeros,
makes any flipped bit an error. The file is written beside the old one, which it then replaces.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from typing import Any

import numpy as np

from owl._owl import DataError, NArray, bfloat16_bits, from_bfloat16_bits, from_numpy
from owl._replace import replacing
from owl.files import _METADATA, _name, _safetensors, write_npz

Values = dict[str, np.ndarray[Any, Any]]

_KEY = "owl.train"  # the name of the JSON text among the metadata
_MARK = b"owl.train sha256 "
_BLANK = b"0" * 64
_ARRAY = "array"  # {"array": name} stands for an array in the JSON text
_VERSION = 1


def write(path: str | os.PathLike[str], tree: dict[str, Any]) -> None:
    """Writes a tree of dicts with names as keys, lists, NArrays, numbers, texts, bools and None; waits for the arrays.

    OSError: the file cannot be written; the old one stays. TypeError: anything else in the tree.
    """
    name, suffix = _name(path)
    arrays: dict[str, NArray] = {}
    plain = _without_arrays(tree, "", arrays)
    for array in arrays.values():
        array.start_eval()
    halves = {each: "bfloat16" for each, array in sorted(arrays.items()) if str(array.dtype) == "bfloat16"}
    values = {each: bfloat16_bits(array) if each in halves else array.to_numpy() for each, array in sorted(arrays.items())}
    content = {"tree": plain, "version": _VERSION, "views": halves}
    data = _npz(values, content) if suffix == ".npz" else _safetensors_bytes(values, content)
    at = data.index(_MARK) + len(_MARK)
    digest = hashlib.sha256(data).hexdigest().encode()
    with replacing(name) as file:
        for part in (memoryview(data)[:at], digest, memoryview(data)[at + len(_BLANK) :]):
            file.write(part)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The tree of a file that :func:`write` wrote. Never runs code of the file.

    DataError: it is missing, truncated, changed by as little as a bit, or no checkpoint.
    """
    name, suffix = _name(path)
    try:
        with open(name, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise DataError(f"{name}: no such file") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error
    at = data.find(_MARK) + len(_MARK)
    if at < len(_MARK):
        raise DataError(f"{name}: not a checkpoint of owl.train, or truncated: it has no checksum")
    if (
        hashlib.sha256(data[:at] + _BLANK + data[at + len(_BLANK) :]).hexdigest().encode()
        != data[at : at + len(_BLANK)]
    ):
        raise DataError(f"{name}: damaged: its content does not fit its checksum")
    try:
        return _tree(*(_read_npz(data) if suffix == ".npz" else _read_safetensors(data)))
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # the readers raise a dozen classes
        raise DataError(f"{name}: not a checkpoint of owl.train: {error}") from error


# ---- The tree -------------------------------------------------------------------------------------------------------


def _without_arrays(value: Any, path: str, arrays: dict[str, NArray]) -> Any:
    """The tree with names in the place of its arrays, which are added to ``arrays``."""
    if isinstance(value, NArray):
        while path in arrays:
            path += "'"
        arrays[path] = value
        return {_ARRAY: path}
    if isinstance(value, dict):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"checkpoint: {path or 'the tree'} has the key {wrong[0]!r}, which is no text")
        parts = sorted(value.items())  # so that the arrays' names do not depend on the order of keys
        return {"dict": {key: _without_arrays(part, f"{path}.{key}".lstrip("."), arrays) for key, part in parts}}
    if isinstance(value, (list, tuple)):
        return [_without_arrays(part, f"{path}.{i}".lstrip("."), arrays) for i, part in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"checkpoint: {path} is {type(value).__name__}; a state has arrays, numbers, texts, bools, None, lists and dicts"
    )


def _tree(content: Any, values: Values) -> dict[str, Any]:
    if content["version"] != _VERSION:
        raise DataError(f"its version is {content['version']!r}; this owl reads {_VERSION}")
    if others := set(content["views"].values()) - {"bfloat16"}:
        raise DataError(f"arrays of {', '.join(sorted(others))}, a type that owl lacks")
    found = _with_arrays(content["tree"], values, content["views"])
    if not isinstance(found, dict):
        raise DataError("no state")
    return found


def _with_arrays(value: Any, values: Values, halves: Any) -> Any:
    """The tree with its arrays; those in ``halves`` are the bits of bfloat16, for which NumPy has no type."""
    if isinstance(value, list):
        return [_with_arrays(part, values, halves) for part in value]
    if not isinstance(value, dict):
        return value
    if _ARRAY in value:
        name = value[_ARRAY]
        return from_bfloat16_bits(values[name]) if name in halves else from_numpy(values[name])
    return {key: _with_arrays(part, values, halves) for key, part in value["dict"].items()}


# ---- The two formats ------------------------------------------------------------------------------------------------


def _npz(values: Values, content: dict[str, Any]) -> bytes:
    """With the checksum as the archive's comment: a member has a checksum of its own."""
    buffer = io.BytesIO()
    write_npz(buffer, values, {_KEY: json.dumps(content, sort_keys=True)}, comment=_MARK + _BLANK)
    return buffer.getvalue()


def _read_npz(data: bytes) -> tuple[Any, Values]:
    values: Values = {}
    with zipfile.ZipFile(io.BytesIO(data)) as members:
        if any(info.compress_type != zipfile.ZIP_STORED for info in members.infolist()):
            raise DataError("a compressed member; the file of a checkpoint is not compressed")
        metadata = json.loads(members.read(_METADATA))
        for name in members.namelist():
            if name != _METADATA:
                values[name.removesuffix(".npy")] = _read_npy(members.read(name))
    return json.loads(metadata[_KEY]), values


def _read_npy(data: bytes) -> np.ndarray[Any, Any]:
    """The array of a .npy member, without the allocation of what its header states: the view fails if it is too short."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, by_column, dtype = read_header(file)
    if dtype.hasobject or by_column:
        raise DataError("an array that owl does not write")
    return np.ndarray(shape, dtype, data, file.tell())


def _safetensors_bytes(values: Values, content: dict[str, Any]) -> bytes:
    """With the checksum in the text, under a key that comes first."""
    text = json.dumps(content | {"checksum": (_MARK + _BLANK).decode()}, sort_keys=True)
    data: bytes = _safetensors().save(values, {_KEY: text})
    return data


def _read_safetensors(data: bytes) -> tuple[Any, Values]:
    values: Values = _safetensors().load(data)
    length = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_KEY]), values
