"""MNIST: found on disk in any of its usual forms, downloaded, or synthetic digits.

Both entry points look in the same places, in this order:

1. the path that the caller names,
2. the environment variable `OWL_DATA`,
3. the working folder,
4. the user's cache, `$XDG_CACHE_HOME/owl/mnist` or `~/.cache/owl/mnist`, then the folder above it.

If none has it, they download the four IDX files into the cache (`owl.data.fetch`; an empty `OWL_MIRRORS` prevents it);
if that fails, they draw **synthetic digits**. Both print a line on stderr. A place that the user named (1, 2) must have
the data; a file found in 3 or 4 must be valid. A faulty file raises an `owl.DataError` that names it.

A place is a folder with the four IDX files (each plain or `.gz`), `mnist.npz` (Keras) or `mnist_all.mat`, tried in this
order, or the path of one `.npz` or `.mat` file, whose suffix may be left out. The readers allocate at most `MAX_BYTES`,
whatever size a file's header states.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import os
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

import numpy as np

import owl
from owl._replace import replacing
from owl.data.download import cache_folder, fetch, mirrors

Array = np.ndarray[Any, Any]
Place = Union[str, "os.PathLike[str]"]
Labelled = tuple[Array, Array]  # images and their labels
Digits = tuple[Labelled, Labelled]  # to train and to test

SIDE = 28  # pixels along each edge of an image
CLASSES = 10

IDX_STEMS = {
    "train": ("train-images{}idx3-ubyte", "train-labels{}idx1-ubyte"),
    "test": ("t10k-images{}idx3-ubyte", "t10k-labels{}idx1-ubyte"),
}
NPZ_NAME = "mnist.npz"
MAT_NAME = "mnist_all.mat"

MAX_BYTES = 1 << 30  # limit of one file, unpacked: more than a million images

FIRST_BYTE_S = 5  # how long a program waits for a download to begin
NO_ANSWER_NAME = ".no-answer"  # in the cache: created when no mirror answered within that time
NO_ANSWER_S = 3600  # for how long load() then tries no mirror

SYNTHETIC_TRAIN, SYNTHETIC_TEST = 60_000, 10_000
SYNTHETIC_SEED = 1
SYNTHETIC_NAME = f"synthetic-digits-v1-seed{SYNTHETIC_SEED}.npz"


def load(path: Place | None = None) -> Digits:
    """All of MNIST, as `(train_images, train_labels), (test_images, test_labels)`.

    Images are uint8 `[n, 28, 28]` (0 background, 255 ink), labels uint8 `[n]` in 0..9. `path` names a folder or a
    `.npz` or `.mat` file (whose suffix may be left out); without it `load` searches the places listed at the top, then
    tries a download, then draws synthetic digits (60,000 + 10,000).

    Raises `owl.DataError` if a named place lacks the data, or a file is faulty.
    """
    if path is not None:
        return _load_named(path, "the data path")
    if os.environ.get("OWL_DATA"):
        return _load_named(os.environ["OWL_DATA"], "OWL_DATA")
    cache = cache_folder()
    data = _load_folder(Path("."))
    if data is None and cache is not None:
        data = _load_folder(cache / "mnist", skip_partial=True) or _load_folder(cache)
    if data is None and cache is not None and _download(cache / "mnist"):
        data = _load_folder(cache / "mnist")
    return _synthetic() if data is None else data


def load_mb_from_mat(file: Place, batch: int) -> tuple[list[tuple[Array, Array]], tuple[Array, Array]]:
    """The walkthrough's minibatches: `(train_data, test_data)`.

    `train_data` is a list of `(samples, labels)`, shuffled by NumPy's global generator and cut into minibatches of
    `batch` (the last one may be smaller); `test_data` is one such pair. `samples` is float32 `[n, 784]`, pixel values
    divided by 256; `labels` float32 `[n, 10]`, one-hot. `owl.from_numpy` makes them `[784, n]` and `[10, n]`.

    `file` is a `.mat` file, with or without this suffix (or any other form of MNIST that `load` takes). If the working
    folder has no such file, the bare name `mnist_all` or `mnist_all.mat` stands for the result of `load()`.

    Raises `ValueError` if `batch` is not a positive integer, otherwise as `load`.
    """
    if isinstance(batch, bool) or not isinstance(batch, (int, np.integer)) or batch < 1:
        raise ValueError(f"the minibatch size must be a positive integer, not {batch!r}")
    bare = os.fspath(file) in (MAT_NAME, MAT_NAME.removesuffix(".mat"))
    by_search = bare and not os.path.exists(file) and not os.path.exists(MAT_NAME)
    (images, labels), (test_images, test_labels) = load(None if by_search else file)

    order = np.random.permutation(len(images))
    samples, targets = as_samples(images[order]), one_hot(labels[order])
    cuts = range(batch, len(images), batch)
    train_data = list(zip(np.split(samples, cuts), np.split(targets, cuts)))
    print(f"Training data: {len(train_data)} mini-batches")
    print(f"Test data: {len(test_images)} samples")
    return train_data, (as_samples(test_images), one_hot(test_labels))


def as_samples(images: Array) -> Array:
    """uint8 `[n, 28, 28]` to float32 `[n, 784]` in 0..1 (divided by 256, as Minerva did)."""
    return np.multiply(images.reshape(len(images), -1), np.float32(1 / 256), dtype=np.float32)


def one_hot(labels: Array) -> Array:
    """Labels `[n]` in 0..9 to float32 `[n, 10]` with a single 1 in each row."""
    return np.eye(CLASSES, dtype=np.float32)[labels]


# ---- Places ---------------------------------------------------------------------------------------------------------


def _load_named(path: Place, who: str) -> Digits:
    """Loads from a place that the user named, which must have the data."""
    if not os.fspath(path):
        raise owl.DataError(f"{who} is empty; it should name a folder with MNIST, or a .npz or .mat file")
    named = Path(os.path.expanduser(os.fsdecode(path)))
    return _load_place(named, named if os.path.exists(named) else _with_suffix(named), who)


def _load_place(named: Path, path: Path | None, who: str) -> Digits:
    """Loads from `path`, which the user called `named`."""
    if path is None:
        raise owl.DataError(f"{named} ({who}): no such file or folder")
    if os.path.isdir(path):
        data = _load_folder(path)
        if data is None:
            raise owl.DataError(
                f"{path} ({who}): found no MNIST in this folder; expected the four IDX files "
                f"({_idx_name('train', 0)}, ... plain or .gz), {NPZ_NAME} or {MAT_NAME}"
            )
        return data
    readers = {".npz": _load_npz, ".mat": _load_mat}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise owl.DataError(
            f"{path} ({who}): expected a .npz or .mat file, or a folder; "
            f"for IDX files name the folder that holds all four"
        )
    return reader(path)


def _with_suffix(path: Path) -> Path | None:
    """`path` with the suffix of a file that exists, .mat (as SciPy's loadmat adds it) before .npz, or None."""
    found = (path.with_name(path.name + suffix) for suffix in (".mat", ".npz"))
    return next(filter(os.path.exists, found), None) if path.name else None


def _load_folder(folder: Path, skip_partial: bool = False) -> Digits | None:
    """Loads MNIST from the folder, in any form; None if it has none.

    If it has only some of the IDX files, an error, or with `skip_partial` None.
    """
    parts = {split: [_find_idx(folder, split, i) for i in (0, 1)] for split in IDX_STEMS}
    missing = [_idx_name(split, i) for split, paths in parts.items() for i in (0, 1) if paths[i] is None]
    if len(missing) < 4 and not (missing and skip_partial):
        if missing:
            raise owl.DataError(
                f"{folder}: has some of MNIST's four IDX files but not {', '.join(missing)} (plain or .gz)"
            )
        train, test = (_load_idx(*filter(None, paths)) for paths in parts.values())
        return train, test
    for name, reader in ((NPZ_NAME, _load_npz), (MAT_NAME, _load_mat)):
        if os.path.exists(folder / name):
            return reader(folder / name)
    return None


def _idx_name(split: str, which: int) -> str:
    return IDX_STEMS[split][which].format("-")


def _find_idx(folder: Path, split: str, which: int) -> Path | None:
    """The path of an IDX file: `...-idx3-ubyte` or `....idx3-ubyte`, plain before `.gz`; None if there is none."""
    for separator in "-.":
        for ending in ("", ".gz"):
            path = folder / (IDX_STEMS[split][which].format(separator) + ending)
            if os.path.isfile(path):
                return path
    return None


# ---- IDX: a magic number, the lengths of the axes (all big-endian int32), the bytes ---------------------------------


def _load_idx(images_path: Path, labels_path: Path) -> Labelled:
    images = _read_idx(images_path, 0x803, "images")
    labels = _read_idx(labels_path, 0x801, "labels")
    return _checked(images, labels, f"{images_path} and {labels_path.name}")


def _read_idx(path: Path, magic: int, what: str) -> Array:
    """The uint8 array in an IDX file, whose magic number must be `magic`; its last byte is the number of axes."""
    ndim = magic & 0xFF
    header_size = 4 * (1 + ndim)
    with _reading(path), gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        header = _read_up_to(file, header_size)
        if len(header) < header_size:
            raise owl.DataError(f"{path}: expected an IDX header of {header_size} bytes, found only {len(header)}")
        found, *shape = struct.unpack(f">{1 + ndim}I", header)
        if found != magic:
            raise owl.DataError(f"{path}: expected magic number {magic} (IDX {what}), found {_describe_magic(found)}")
        if ndim == 3 and shape[1:] != [SIDE, SIDE]:
            raise owl.DataError(f"{path}: expected images of {SIDE} x {SIDE} pixels, found {shape[1]} x {shape[2]}")
        expected = math.prod(shape)
        _check_size(path, expected)
        body = _read_up_to(file, expected + 1)
    if len(body) != expected:
        found = "more" if len(body) > expected else f"only {len(body):,}"
        raise owl.DataError(f"{path}: the header promises {shape[0]:,} {what}, {expected:,} bytes, but {found} follow")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _describe_magic(magic: int) -> str:
    known = {0x801: "IDX labels", 0x803: "IDX images"}
    if magic >> 16 == 0x1F8B:
        return f"{magic:#010x}: gzip data, whose name should end in .gz"
    return f"{magic} ({known[magic]})" if magic in known else f"{magic:#010x}"


def _read_up_to(file: Any, size: int) -> bytearray:
    """At most `size` bytes, read piece by piece: a damaged header may state a size beyond all memory."""
    data = bytearray()
    while len(data) < size and (piece := file.read(min(size - len(data), 1 << 20))):
        data += piece
    return data


def _check_size(path: Path, size: int) -> None:
    if size > MAX_BYTES:
        raise owl.DataError(f"{path}: promises {size:,} bytes of data; more than {MAX_BYTES:,} are not read")


# ---- Keras's mnist.npz: a zip archive of .npy files, each a header and the elements ---------------------------------

NPY_HEADER_BYTES = 1 << 12  # NumPy writes 128


def _load_npz(path: Path) -> Digits:
    arrays = {}
    with _reading(path), open(path, "rb") as file:
        if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
            raise owl.DataError(f"{path}: expected a .npz archive, found a single .npy array")
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            for name in ("x_train", "y_train", "x_test", "y_test"):
                if f"{name}.npy" not in names:
                    found = sorted(n.removesuffix(".npy") for n in names)[:10]
                    raise owl.DataError(f"{path}: expected an array {name!r}, found only {found}")
                member = archive.getinfo(f"{name}.npy")
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise owl.DataError(f"{path}: {name} is packed by a method that NumPy does not write")
                _check_size(path, member.file_size)
                with archive.open(member) as stream:
                    arrays[name] = _read_npy(f"{path} ({name})", stream, member.file_size)
    return (
        _checked(arrays["x_train"], arrays["y_train"], f"{path} (x_train and y_train)"),
        _checked(arrays["x_test"], arrays["y_test"], f"{path} (x_test and y_test)"),
    )


def _read_npy(where: str, stream: Any, size: int) -> Array:
    """The array in a .npy file of `size` bytes. np.load would allocate what the header states."""
    data = _read_up_to(stream, size + 1)  # one more, to reach the end, where zipfile compares the checksum
    header = io.BytesIO(data[:NPY_HEADER_BYTES])
    version = np.lib.format.read_magic(header)
    if version not in ((1, 0), (2, 0)):
        raise owl.DataError(f"{where}: expected .npy format 1.0 or 2.0, found {version[0]}.{version[1]}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, by_column, dtype = read(header)
    except MemoryError as error:  # Python's parser raises it for an expression that is nested too deeply
        raise ValueError("the header is no description of an array") from error
    if dtype.kind not in "biuf":
        raise owl.DataError(f"{where}: expected numbers, found {dtype}")
    expected = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or expected != len(data) - header.tell():
        raise owl.DataError(
            f"{where}: the header promises {dtype} {list(shape)}, but {len(data) - header.tell():,} bytes follow"
        )
    array = np.frombuffer(data, dtype, offset=header.tell())
    return np.ascontiguousarray(array.reshape(shape[::-1]).T) if by_column else array.reshape(shape)


# ---- Roweis's mnist_all.mat: MATLAB 5, a header and then elements, each a tag (type, length) and its data -----------

MAT_HEADER_BYTES = 128
MAT_UINT8, MAT_INT32, MAT_UINT32, MAT_MATRIX, MAT_ZIPPED = 2, 5, 6, 14, 15  # types of elements
MAT_CLASSES = ("0", "cell", "struct", "object", "char", "sparse", "float64", "float32", "int8", "uint8", "int16",
               "uint16", "int32", "uint32", "int64", "uint64")  # fmt: skip


def _load_mat(path: Path) -> Digits:
    """`train0`..`train9` and `test0`..`test9`, each uint8 `[n, 784]`, joined in the order of the digits."""
    with _reading(path), open(path, "rb") as file:
        _check_size(path, os.fstat(file.fileno()).st_size)
        variables = _read_mat(path, memoryview(file.read()))
        return _join_digits(path, variables, "train"), _join_digits(path, variables, "test")


def _read_mat(path: Path, data: memoryview) -> dict[str, Array | str]:
    """The arrays in a MATLAB 5 file, by name; the name of its class for each that is not dense uint8."""
    if bytes(data[:8]) == b"\x89HDF\r\n\x1a\n" or bytes(data[:10]) == b"MATLAB 7.3":
        raise owl.DataError(f"{path}: expected a MATLAB 5 file, found MATLAB 7.3 (save -v7 writes 5)")
    order = {b"IM": "<", b"MI": ">"}.get(bytes(data[126:MAT_HEADER_BYTES]))
    if order is None:
        raise owl.DataError(f"{path}: expected a MATLAB 5 file, found something else")
    variables, unpacked = {}, 0
    at = MAT_HEADER_BYTES
    while at < len(data):
        kind, body, at = _mat_element(data, at, order, padded=False)
        if kind == MAT_ZIPPED:
            unzip = zlib.decompressobj()
            start = unzip.decompress(body, 8)
            size = 8 + struct.unpack(order + "II", start)[1]
            unpacked += size
            _check_size(path, unpacked)
            body = memoryview(start + unzip.decompress(unzip.unconsumed_tail, size))
            if not unzip.eof:
                raise ValueError(f"compressed data of another length than the {size:,} bytes promised")
            kind, body, _ = _mat_element(body, 0, order)
        if kind == MAT_MATRIX:
            name, array = _mat_array(body, order)
            variables[name] = array
    return variables


def _mat_element(data: memoryview, at: int, order: str, padded: bool = True) -> tuple[int, memoryview, int]:
    """The element at byte `at`: `(type, data, where the next begins)`. Elements in a matrix begin at multiples of 8."""
    kind, size = struct.unpack_from(order + "II", data, at)
    if kind >> 16:  # A small element: the upper half is the length, and up to 4 bytes of data follow directly.
        kind, size, begin, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        if size > 4:
            raise ValueError(f"a small element of {size} bytes")
    else:
        begin = at + 8
        after = begin + (-(-size // 8) * 8 if padded else size)
    if size > len(data) - begin:
        raise EOFError(f"{size:,} bytes promised, {len(data) - begin:,} found")
    return kind, data[begin : begin + size], after


def _mat_array(data: memoryview, order: str) -> tuple[str, Array | str]:
    """`(name, array)` from a matrix; the name of its class in place of an array that is not dense uint8."""
    _, flags, at = _mat_element(data, 0, order)
    _, lengths, at = _mat_element(data, at, order)
    _, letters, at = _mat_element(data, at, order)
    code = struct.unpack_from(order + "I", flags)[0] & 0xFF
    shape = struct.unpack(f"{order}{len(lengths) // 4}i", lengths)
    name = bytes(letters).decode("latin-1")
    if MAT_CLASSES[code : code + 1] != ("uint8",):
        return name, f"{MAT_CLASSES[code] if code < len(MAT_CLASSES) else code} {list(shape)}"
    kind, values, _ = _mat_element(data, at, order)
    if kind != MAT_UINT8 or min(shape, default=-1) < 0 or math.prod(shape) != len(values):
        raise ValueError(f"{name!r} is uint8 {list(shape)}, but {len(values):,} bytes of type {kind} follow")
    return name, np.frombuffer(values, np.uint8).reshape(shape, order="F")


def _join_digits(path: Path, variables: dict[str, Array | str], prefix: str) -> Labelled:
    images, labels = [], []
    for digit in range(CLASSES):
        name = f"{prefix}{digit}"
        if name not in variables:
            raise owl.DataError(f"{path}: expected a variable {name!r}, found none of this name")
        samples = variables[name]
        if isinstance(samples, str) or samples.ndim != 2 or samples.shape[1] != SIDE * SIDE:
            found = samples if isinstance(samples, str) else f"uint8 {list(samples.shape)}"
            raise owl.DataError(f"{path}: expected {name} to be uint8 [n, {SIDE * SIDE}], found {found}")
        images.append(samples.reshape(-1, SIDE, SIDE))
        labels.append(np.full(len(samples), digit, np.uint8))
    return _checked(np.concatenate(images), np.concatenate(labels), f"{path} ({prefix}0 to {prefix}9)")


# ---- Checks of every form -------------------------------------------------------------------------------------------


def _checked(images: Array, labels: Array, where: str) -> Labelled:
    """`(images, labels)` as uint8, after checking that they are labelled digits; `where` names them in errors."""
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        raise owl.DataError(
            f"{where}: expected images to be uint8 [n, {SIDE}, {SIDE}], found {images.dtype} {list(images.shape)}"
        )
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise owl.DataError(f"{where}: expected labels to be integers [n], found {labels.dtype} {list(labels.shape)}")
    if len(images) != len(labels):
        raise owl.DataError(
            f"{where}: expected a label for each image, found {len(images):,} images and {len(labels):,} labels"
        )
    if len(images) == 0:
        raise owl.DataError(f"{where}: expected images, found none")
    wrong = np.flatnonzero((labels < 0) | (labels >= CLASSES))
    if len(wrong):
        raise owl.DataError(
            f"{where}: expected labels of 0 to {CLASSES - 1}, found {labels[wrong[0]]} at position {wrong[0]:,}"
        )
    return images, labels.astype(np.uint8, copy=False)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns any exception while `path` is read into a DataError that names it."""
    try:
        yield
    except (owl.DataError, MemoryError):
        raise
    except EOFError as error:
        raise owl.DataError(f"{path}: truncated: the data ends before it should ({error})") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise owl.DataError(f"{path}: expected sound compressed data, found damaged or other data: {error}") from error
    except OSError as error:
        raise owl.DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # The parsers of NumPy and zipfile raise nearly any class for a damaged file.
        form = {".npz": "a NumPy .npz archive", ".mat": "a MATLAB 5 file"}.get(path.suffix.lower(), "an IDX file")
        raise owl.DataError(f"{path}: expected {form}, found a damaged or different file: {error}") from error


# ---- The download ---------------------------------------------------------------------------------------------------


def _download(folder: Path) -> bool:
    """Tries to fetch MNIST into `folder`; true on success. Takes FIRST_BYTE_S if no mirror answers."""

    def say(text: str) -> None:
        print(f"owl.data: {text}", file=sys.stderr, flush=True)

    started = time.monotonic()
    marker = folder / NO_ANSWER_NAME
    try:
        if not mirrors("mnist"):
            return False
        with contextlib.suppress(OSError):
            ago = time.time() - marker.stat().st_mtime
            if 0 <= ago < NO_ANSWER_S:
                say(f"nothing is downloaded: no mirror answered {ago / 60:.0f} minutes ago "
                    f"(`python -m owl.data fetch mnist` tries again)")  # fmt: skip
                return False
        say(f"no MNIST in the working folder or {folder}: downloading it (11 MB; an empty OWL_MIRRORS prevents this)")
        fetch("mnist", folder, first_byte_within=FIRST_BYTE_S)
        return True
    except owl.DataError as error:
        say(f"no download: {error}")
    if time.monotonic() - started > FIRST_BYTE_S / 2:
        with contextlib.suppress(OSError):
            marker.touch()
    return False


# ---- Synthetic digits -----------------------------------------------------------------------------------------------


def _synthetic() -> Digits:
    """Synthetic digits, always the same, from the cache if they were drawn before."""
    cache = cache_folder()
    print(
        f"owl.data: no MNIST in the working folder or {cache or 'a cache'}: using SYNTHETIC digits instead "
        f"({SYNTHETIC_TRAIN:,} + {SYNTHETIC_TEST:,} drawn images; accuracies are not MNIST's). "
        f"OWL_DATA=folder names the real data, `python -m owl.data fetch mnist` downloads it.",
        file=sys.stderr,
        flush=True,
    )
    cached = None if cache is None else cache / SYNTHETIC_NAME
    if cached is not None and os.path.exists(cached):
        try:
            data = _load_npz(cached)
            if (len(data[0][0]), len(data[1][0])) == (SYNTHETIC_TRAIN, SYNTHETIC_TEST):
                return data
            reason = "it holds another number of images"
        except owl.DataError as error:
            reason = str(error)
        # This loses no user's data: the file is owl's own and can be drawn again.
        print(f"owl.data: drawing the digits of {cached} again: {reason}", file=sys.stderr, flush=True)

    images, labels = owl._owl.make_digits(SYNTHETIC_SEED, SYNTHETIC_TRAIN + SYNTHETIC_TEST)
    train = images[:SYNTHETIC_TRAIN], labels[:SYNTHETIC_TRAIN]
    test = images[SYNTHETIC_TRAIN:], labels[SYNTHETIC_TRAIN:]
    if cached is not None:
        try:
            _save_npz(cached, x_train=train[0], y_train=train[1], x_test=test[0], y_test=test[1])
        except OSError as error:
            reason = error.strerror or str(error)
            print(f"owl.data: the digits are not cached: {cached}: {reason}", file=sys.stderr, flush=True)
    return train, test


def _save_npz(path: Path, **arrays: Array) -> None:
    """Writes `path` atomically: a reader finds the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(str(path)) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
