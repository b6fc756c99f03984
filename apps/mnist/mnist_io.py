"""MNIST for the programs of this folder: found on disk in any of its usual forms, or drawn where it is not there.

Both entry points look in the same places, in this order:

1. the path that the caller names,
2. the environment variable `OWL_DATA`,
3. the working folder,
4. the user's cache, `$XDG_CACHE_HOME/owl` or `~/.cache/owl`,

and otherwise draw **synthetic digits**, which is said on stderr. A place that somebody named (1, 2) must hold the data;
in 3 and 4 a file that is there must be sound. Whatever is wrong with a file is an `owl.DataError` that names it.

A place is a folder with the four IDX files (each plain or `.gz`), `mnist.npz` (Keras) or `mnist_all.mat`, tried in this
order, or the path of one `.npz` or `.mat` file.
"""

import contextlib
import gzip
import math
import os
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np

import owl

SIDE = 28  # pixels along each edge of an image
CLASSES = 10

IDX_STEMS = {
    "train": ("train-images{}idx3-ubyte", "train-labels{}idx1-ubyte"),
    "test": ("t10k-images{}idx3-ubyte", "t10k-labels{}idx1-ubyte"),
}
NPZ_NAME = "mnist.npz"
MAT_NAME = "mnist_all.mat"

SYNTHETIC_TRAIN, SYNTHETIC_TEST = 60_000, 10_000
SYNTHETIC_SEED = 1
SYNTHETIC_NAME = f"synthetic-digits-v1-seed{SYNTHETIC_SEED}.npz"


def load(path=None):
    """All of MNIST, as `(train_images, train_labels), (test_images, test_labels)`.

    Images are uint8 `[n, 28, 28]` (0 background, 255 ink), labels uint8 `[n]` in 0..9. `path` names a folder or a
    `.npz` or `.mat` file; without it the places that the module names are searched, and synthetic digits
    (60,000 + 10,000) are the last resort.

    Raises `owl.DataError` where a named place does not hold the data, or a file is not what it should be.
    """
    if path is not None:
        return _load_named(path, "the data path")
    if os.environ.get("OWL_DATA"):
        return _load_named(os.environ["OWL_DATA"], "OWL_DATA")
    for folder in (Path("."), cache_folder()):
        data = None if folder is None else _load_folder(folder)
        if data is not None:
            return data
    return _synthetic()


def load_mb_from_mat(mat_file, mb_size):
    """The walkthrough's minibatches: `(train_data, test_data)`.

    `train_data` is a list of `(samples, labels)`, shuffled by NumPy's global generator and cut into minibatches of
    `mb_size` (the last one may be smaller); `test_data` is one such pair. `samples` is float32 `[n, 784]`, pixel values
    divided by 256; `labels` float32 `[n, 10]`, one-hot. `owl.from_numpy` makes them `[784, n]` and `[10, n]`.

    `mat_file` is a `.mat` file (any other form of MNIST that `load` takes will do). The bare name `mnist_all.mat`,
    where the working folder has no such file, stands for whatever `load()` finds.

    Raises `ValueError` where `mb_size` is not a positive integer, otherwise as `load`.
    """
    if isinstance(mb_size, bool) or not isinstance(mb_size, (int, np.integer)) or mb_size < 1:
        raise ValueError(f"the minibatch size must be a positive integer, not {mb_size!r}")
    by_search = os.fspath(mat_file) == MAT_NAME and not os.path.exists(mat_file)
    (images, labels), (test_images, test_labels) = load(None if by_search else mat_file)

    order = np.random.permutation(len(images))
    samples, targets = as_samples(images[order]), one_hot(labels[order])
    cuts = range(mb_size, len(images), mb_size)
    train_data = list(zip(np.split(samples, cuts), np.split(targets, cuts)))
    print(f"Training data: {len(train_data)} mini-batches")
    print(f"Test data: {len(test_images)} samples")
    return train_data, (as_samples(test_images), one_hot(test_labels))


def as_samples(images):
    """uint8 `[n, 28, 28]` to float32 `[n, 784]` in 0..1 (divided by 256, as Minerva did)."""
    return np.multiply(images.reshape(len(images), -1), np.float32(1 / 256), dtype=np.float32)


def one_hot(labels):
    """Labels `[n]` in 0..9 to float32 `[n, 10]` with a single 1 in each row."""
    return np.eye(CLASSES, dtype=np.float32)[labels]


def cache_folder():
    """The user's cache folder for owl, which need not exist; None where the user has no home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # The XDG rules say to ignore a relative path.
        return Path(base) / "owl"
    try:
        return Path.home() / ".cache" / "owl"
    except RuntimeError:
        return None


# ---- Places ---------------------------------------------------------------------------------------------------------


def _load_named(path, who):
    """Loads from a place that somebody named: it has to be there."""
    if not os.fspath(path):
        raise owl.DataError(f"{who} is empty; it should name a folder with MNIST, or a .npz or .mat file")
    path = Path(os.path.expanduser(path))
    if os.path.isdir(path):
        data = _load_folder(path)
        if data is None:
            raise owl.DataError(
                f"{path} ({who}): found no MNIST in this folder; expected the four IDX files "
                f"({_idx_name('train', 0)}, ... plain or .gz), {NPZ_NAME} or {MAT_NAME}"
            )
        return data
    if not os.path.exists(path):
        raise owl.DataError(f"{path} ({who}): no such file or folder")
    readers = {".npz": _load_npz, ".mat": _load_mat}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise owl.DataError(
            f"{path} ({who}): expected a .npz or .mat file, or a folder; "
            f"for IDX files name the folder that holds all four"
        )
    return reader(path)


def _load_folder(folder):
    """Loads whichever form of MNIST the folder holds; None where it holds none."""
    parts = {split: [_find_idx(folder, split, i) for i in (0, 1)] for split in IDX_STEMS}
    if any(path for paths in parts.values() for path in paths):
        missing = [_idx_name(split, i) for split, paths in parts.items() for i in (0, 1) if paths[i] is None]
        if missing:
            raise owl.DataError(
                f"{folder}: has some of MNIST's four IDX files but not {', '.join(missing)} (plain or .gz)"
            )
        return tuple(_load_idx(*paths) for paths in parts.values())
    for name, reader in ((NPZ_NAME, _load_npz), (MAT_NAME, _load_mat)):
        if os.path.exists(folder / name):
            return reader(folder / name)
    return None


def _idx_name(split, which):
    return IDX_STEMS[split][which].format("-")


def _find_idx(folder, split, which):
    """The path of an IDX file: `...-idx3-ubyte` or `....idx3-ubyte`, plain before `.gz`; None where there is none."""
    for separator in "-.":
        for ending in ("", ".gz"):
            path = folder / (IDX_STEMS[split][which].format(separator) + ending)
            if os.path.isfile(path):
                return path
    return None


# ---- IDX: a magic number, the lengths of the axes (all big-endian int32), the bytes ---------------------------------


def _load_idx(images_path, labels_path):
    images = _read_idx(images_path, 0x803, "images")
    labels = _read_idx(labels_path, 0x801, "labels")
    return _checked(images, labels, f"{images_path} and {labels_path.name}")


def _read_idx(path, magic, what):
    """The uint8 array in an IDX file whose magic number has to be `magic`; its last byte is the number of axes."""
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
        body = _read_up_to(file, expected + 1)
    if len(body) != expected:
        found = "more" if len(body) > expected else f"only {len(body):,}"
        raise owl.DataError(f"{path}: the header promises {shape[0]:,} {what}, {expected:,} bytes, but {found} follow")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _describe_magic(magic):
    known = {0x801: "IDX labels", 0x803: "IDX images"}
    if magic >> 16 == 0x1F8B:
        return f"{magic:#010x}: gzip data, whose name should end in .gz"
    return f"{magic} ({known[magic]})" if magic in known else f"{magic:#010x}"


def _read_up_to(file, size):
    """At most `size` bytes, piece by piece: a damaged header may promise more than memory holds."""
    data = bytearray()
    while len(data) < size and (piece := file.read(min(size - len(data), 1 << 20))):
        data += piece
    return data


# ---- Keras's mnist.npz and Roweis's mnist_all.mat -------------------------------------------------------------------


def _load_npz(path):
    with _reading(path), open(path, "rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise owl.DataError(f"{path}: expected a .npz archive, found a single .npy array")
        arrays = {}
        for name in ("x_train", "y_train", "x_test", "y_test"):
            if name not in archive:
                raise owl.DataError(f"{path}: expected an array {name!r}, found only {sorted(archive.files)}")
            arrays[name] = archive[name]
    return (
        _checked(arrays["x_train"], arrays["y_train"], f"{path} (x_train and y_train)"),
        _checked(arrays["x_test"], arrays["y_test"], f"{path} (x_test and y_test)"),
    )


def _load_mat(path):
    """`train0`..`train9` and `test0`..`test9`, each uint8 `[n, 784]`, joined in the order of the digits."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise owl.DataError(
            f"{path}: reading .mat files takes SciPy (pip install scipy); the IDX files and {NPZ_NAME} do not"
        ) from error
    with _reading(path), open(path, "rb") as file:
        variables = loadmat(file)
    return _join_digits(path, variables, "train"), _join_digits(path, variables, "test")


def _join_digits(path, variables, prefix):
    images, labels = [], []
    for digit in range(CLASSES):
        name = f"{prefix}{digit}"
        if name not in variables:
            raise owl.DataError(f"{path}: expected a variable {name!r}, found none of this name")
        samples = variables[name]
        if samples.dtype != np.uint8 or samples.ndim != 2 or samples.shape[1] != SIDE * SIDE:
            raise owl.DataError(
                f"{path}: expected {name} to be uint8 [n, {SIDE * SIDE}], found {samples.dtype} {list(samples.shape)}"
            )
        images.append(samples.reshape(-1, SIDE, SIDE))
        labels.append(np.full(len(samples), digit, np.uint8))
    return _checked(np.concatenate(images), np.concatenate(labels), f"{path} ({prefix}0 to {prefix}9)")


# ---- What every form has to satisfy ---------------------------------------------------------------------------------


def _checked(images, labels, where):
    """`(images, labels)` as uint8, once they are certain to be labelled digits; `where` names them in errors."""
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
def _reading(path):
    """Turns whatever goes wrong while `path` is read into a DataError that names it."""
    try:
        yield
    except owl.DataError:
        raise
    except EOFError as error:
        raise owl.DataError(f"{path}: truncated: the data ends before it should ({error})") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise owl.DataError(f"{path}: expected sound compressed data, found damaged or other data: {error}") from error
    except OSError as error:
        raise owl.DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # The parsers of NumPy, zipfile and SciPy raise nearly anything at a damaged file.
        form = {".npz": "a NumPy .npz archive", ".mat": "a MATLAB 5 file"}.get(path.suffix.lower(), "an IDX file")
        raise owl.DataError(f"{path}: expected {form}, found a damaged or different file: {error}") from error


# ---- Synthetic digits -----------------------------------------------------------------------------------------------


def _synthetic():
    """Drawn digits, the same ones every time, from the cache where they were drawn before."""
    cache = cache_folder()
    print(
        f"mnist_io: no MNIST in the working folder or {cache or 'a cache'}: using SYNTHETIC digits instead "
        f"({SYNTHETIC_TRAIN:,} + {SYNTHETIC_TEST:,} drawn images; accuracies are not MNIST's). "
        f"OWL_DATA=folder names the real data.",
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
        # Nobody's data is lost here: the file is owl's own and can be drawn again.
        print(f"mnist_io: drawing the digits of {cached} again: {reason}", file=sys.stderr, flush=True)

    images, labels = owl._owl.make_digits(SYNTHETIC_SEED, SYNTHETIC_TRAIN + SYNTHETIC_TEST)
    train = images[:SYNTHETIC_TRAIN], labels[:SYNTHETIC_TRAIN]
    test = images[SYNTHETIC_TRAIN:], labels[SYNTHETIC_TRAIN:]
    if cached is not None:
        try:
            _save_npz(cached, x_train=train[0], y_train=train[1], x_test=test[0], y_test=test[1])
        except OSError as error:
            reason = error.strerror or error
            print(f"mnist_io: the digits are not cached: {cached}: {reason}", file=sys.stderr, flush=True)
    return train, test


def _save_npz(path, **arrays):
    """Writes `path` so that a reader finds the whole file or none: to a temporary neighbour, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
