"""The MNIST reader: every form of the data, every fault of a file, the download, the synthetic digits."""

import gzip
import hashlib
import io
import os
import random
import re
import socket
import struct
import sys
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

import owl
from conftest import SOAK
from mirror import Server

APPS = Path(__file__).resolve().parents[2] / "apps" / "mnist"
sys.path.insert(0, str(APPS))

import mnist_io  # noqa: E402
from owl.data import mnist_files  # noqa: E402

TRAIN, TEST = 40, 20
IDX_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """An empty working folder and an empty cache, no OWL_DATA, no mirrors: the reader finds only a test's own files."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OWL_DATA", raising=False)
    monkeypatch.setenv("OWL_MIRRORS", "")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(scope="module")
def digits():
    """A small data set in the form of `load`'s result: every class occurs in both parts."""
    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (TRAIN + TEST, 28, 28), dtype=np.uint8)
    labels = (np.arange(TRAIN + TEST) % 10).astype(np.uint8)
    return (images[:TRAIN], labels[:TRAIN]), (images[TRAIN:], labels[TRAIN:])


def idx_bytes(array):
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def write_idx(folder, data, zipped=False):
    folder.mkdir(exist_ok=True)
    for name, array in zip(IDX_NAMES, [array for split in data for array in split]):
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
        else:
            (folder / name).write_bytes(idx_bytes(array))
    return folder


def write_npz(path, data, **replaced):
    (x_train, y_train), (x_test, y_test) = data
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test, **replaced}
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def write_mat(path, data, **replaced):
    scipy_io = pytest.importorskip("scipy.io")
    variables = {}
    for prefix, (images, labels) in zip(("train", "test"), data):
        for digit in range(10):
            variables[f"{prefix}{digit}"] = images[labels == digit].reshape(-1, 784)
    variables.update(replaced)
    scipy_io.savemat(path, {name: value for name, value in variables.items() if value is not None})
    return path


def mat_element(kind, body, order, padded=True):
    """An element of a MATLAB 5 file; in the small form if it fits."""
    if len(body) <= 4 and padded:
        return struct.pack(order + "I", len(body) << 16 | kind) + body.ljust(4, b"\0")
    return struct.pack(order + "II", kind, len(body)) + body + b"\0" * (-len(body) % 8 if padded else 0)


def mat_matrix(name, array, order="<", code=9):
    """A variable, as `mat_element` returns it; `code` is MATLAB's number for the class (9: uint8)."""
    return mat_element(14, mat_element(6, struct.pack(order + "II", code, 0), order)
                       + mat_element(5, struct.pack(f"{order}{array.ndim}i", *array.shape), order)
                       + mat_element(1, name.encode(), order)
                       + mat_element(2, array.tobytes(order="F"), order), order)  # fmt: skip


def mat_packed(element):
    return mat_element(15, zlib.compress(element, 1), "<", padded=False)


def mat_header(order="<"):
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(order + "HH", 0x100, 0x4D49)


def mat_variables(data):
    """`[(name, uint8 [n, 784])]`, the digits sorted by class."""
    return [(f"{prefix}{digit}", images[labels == digit].reshape(-1, 784))
            for prefix, (images, labels) in zip(("train", "test"), data) for digit in range(10)]  # fmt: skip


def mat_bytes(data, order="<", zipped=False, extra=()):
    elements = [*extra, *(mat_matrix(name, array, order) for name, array in mat_variables(data))]
    if zipped:
        elements = [mat_element(15, zlib.compress(element), order, padded=False) for element in elements]
    return mat_header(order) + b"".join(elements)


def assert_same(found, expected):
    for found_split, expected_split in zip(found, expected):
        for f, e in zip(found_split, expected_split):
            assert f.dtype == np.uint8
            np.testing.assert_array_equal(f, e)


def assert_data_error(path, *words):
    """Checks that loading `path` raises a DataError whose message has all of `words`."""
    with pytest.raises(owl.DataError) as caught:
        mnist_io.load(path)
    for word in words:
        assert str(word) in str(caught.value)


# ---- Sound files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
def test_idx(tmp_path, digits, zipped):
    assert_same(mnist_io.load(write_idx(tmp_path / "idx", digits, zipped)), digits)


def test_idx_with_dots_in_the_names(tmp_path, digits):
    folder = write_idx(tmp_path / "idx", digits)
    for name in IDX_NAMES:
        (folder / name).rename(folder / name.replace("-idx", ".idx"))
    assert_same(mnist_io.load(str(folder)), digits)


def test_npz(tmp_path, digits):
    path = write_npz(tmp_path / "mnist.npz", digits)
    assert_same(mnist_io.load(path), digits)
    assert_same(mnist_io.load(tmp_path), digits)


def test_npz_with_wide_labels(tmp_path, digits):
    path = write_npz(tmp_path / "mnist.npz", digits, y_train=digits[0][1].astype(np.int64))
    assert_same(mnist_io.load(path), digits)


def test_mat_is_in_the_order_of_the_digits(tmp_path, digits):
    found = mnist_io.load(write_mat(tmp_path / "mnist_all.mat", digits))
    ordered = [(images[np.argsort(labels, kind="stable")], np.sort(labels)) for images, labels in digits]
    assert_same(found, ordered)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("order", "<>")
def test_mat_of_either_byte_order_packed_or_not(tmp_path, digits, order, zipped):
    path = tmp_path / "mnist_all.mat"
    path.write_bytes(mat_bytes(digits, order, zipped))
    ordered = [(images[np.argsort(labels, kind="stable")], np.sort(labels)) for images, labels in digits]
    assert_same(mnist_io.load(path), ordered)


def test_mat_with_other_variables_beside(tmp_path, digits):
    scipy_io = pytest.importorskip("scipy.io")
    path = tmp_path / "mnist_all.mat"
    variables = dict(mat_variables(digits), note="words", cell=np.array([1, "two"], object), record={"a": 1.5},
                     x=np.eye(3), z=np.array([1j]), empty=np.zeros((0, 0)), five=np.uint8(5), cube=np.zeros((2, 3, 4)),
                     sparse=__import__("scipy.sparse").sparse.eye(4).tocsc())  # fmt: skip
    for packed in (False, True):
        scipy_io.savemat(path, variables, do_compression=packed)
        assert [len(labels) for _, labels in mnist_io.load(path)] == [TRAIN, TEST]


def test_mat_of_version_7_3(tmp_path):
    (tmp_path / "mnist_all.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n")
    assert_data_error(tmp_path / "mnist_all.mat", "MATLAB 7.3", "save -v7")


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize("packed", [False, True])
def test_npz_by_columns_and_of_either_version(tmp_path, digits, version, packed):
    arrays = dict(zip(("x_train", "y_train", "x_test", "y_test"), [array for split in digits for array in split]))
    arrays["x_test"] = np.asfortranarray(arrays["x_test"])
    arrays["y_test"] = arrays["y_test"].astype(">i4")
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(tmp_path / "mnist.npz", "w", method) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, version)
            archive.writestr(f"{name}.npy", member.getvalue())
    found = mnist_io.load(tmp_path)
    assert_same(found, digits)
    assert all(images.flags.c_contiguous for images, _ in found)


# ---- Where the data is looked for -----------------------------------------------------------------------------------


def test_search_order(tmp_path, digits, monkeypatch):
    def only(k):  # different data sets, so that the size shows the place
        return tuple((images[k:], labels[k:]) for images, labels in digits)

    write_npz(tmp_path / "named.npz", only(1))
    (tmp_path / "environment").mkdir()
    write_npz(tmp_path / "environment" / "mnist.npz", only(2))
    write_npz(tmp_path / "work" / "mnist.npz", only(3))
    (tmp_path / "cache" / "owl").mkdir(parents=True)
    write_npz(tmp_path / "cache" / "owl" / "mnist.npz", only(4))

    monkeypatch.setenv("OWL_DATA", str(tmp_path / "environment"))
    assert_same(mnist_io.load(tmp_path / "named.npz"), only(1))
    assert_same(mnist_io.load(), only(2))
    monkeypatch.delenv("OWL_DATA")
    assert_same(mnist_io.load(), only(3))
    (tmp_path / "work" / "mnist.npz").unlink()
    assert_same(mnist_io.load(), only(4))


@pytest.mark.parametrize("by_environment", [False, True])
@pytest.mark.parametrize("what", ["missing", "empty folder", "other file", "empty file"])
def test_a_named_place_never_falls_through(tmp_path, digits, monkeypatch, what, by_environment):
    write_npz(tmp_path / "work" / "mnist.npz", digits)  # a later place, which must not be reached
    path = tmp_path / {"other file": "notes.txt", "empty file": "empty.npz"}.get(what, "there")
    if what == "empty folder":
        path.mkdir()
    elif what == "other file":
        path.write_text("not data")
    elif what == "empty file":
        path.touch()
    if by_environment:
        monkeypatch.setenv("OWL_DATA", str(path))
    assert_data_error(None if by_environment else path, path)


def test_an_empty_path_is_an_error():
    assert_data_error("", "empty")


def test_a_damaged_file_in_the_working_folder_is_an_error(tmp_path):
    (tmp_path / "work" / "mnist.npz").write_bytes(b"PK\x03\x04 and no more")
    assert_data_error(None, "mnist.npz")


# ---- Damaged and mislabelled files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IDX_NAMES)
def test_idx_set_that_lacks_a_file(tmp_path, digits, name):
    folder = write_idx(tmp_path / "idx", digits)
    (folder / name).unlink()
    assert_data_error(folder, folder, name)


def test_idx_images_and_labels_exchanged(tmp_path, digits):
    folder = write_idx(tmp_path / "idx", digits)
    images, labels = folder / IDX_NAMES[0], folder / IDX_NAMES[1]
    content = images.read_bytes()
    images.write_bytes(labels.read_bytes())
    labels.write_bytes(content)
    assert_data_error(folder, images, "magic number 2051", "2049")


@pytest.mark.parametrize("name", IDX_NAMES)
@pytest.mark.parametrize("keep", [0, 3, 9, -1])
def test_idx_truncated(tmp_path, digits, name, keep):
    path = write_idx(tmp_path / "idx", digits) / name
    path.write_bytes(path.read_bytes()[:keep])
    assert_data_error(path.parent, path, "only")


def test_idx_with_bytes_left_over(tmp_path, digits):
    path = write_idx(tmp_path / "idx", digits) / IDX_NAMES[1]
    path.write_bytes(path.read_bytes() + b"\0")
    assert_data_error(path.parent, path, "40", "more")


def test_idx_header_that_promises_the_earth(tmp_path, digits):
    path = write_idx(tmp_path / "idx", digits) / IDX_NAMES[0]
    content = bytearray(path.read_bytes())
    content[4:8] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert_data_error(path.parent, path, f"{0xFFFFFFFF * 784:,} bytes")
    content[4:8] = b"\0\0\xff\xff"
    path.write_bytes(content)
    assert_data_error(path.parent, path, "65,535 images", "only")


def test_idx_images_of_another_size(tmp_path, digits):
    path = write_idx(tmp_path / "idx", digits) / IDX_NAMES[2]
    path.write_bytes(idx_bytes(np.zeros((TEST, 32, 32), np.uint8)))
    assert_data_error(path.parent, path, "28 x 28", "32 x 32")


def test_idx_of_other_elements(tmp_path, digits):
    path = write_idx(tmp_path / "idx", digits) / IDX_NAMES[0]
    content = bytearray(path.read_bytes())
    content[2] = 0x0D  # float32
    path.write_bytes(content)
    assert_data_error(path.parent, path, "magic number 2051", "0x00000d03")


def test_idx_counts_differ(tmp_path, digits):
    path = write_idx(tmp_path / "idx", digits) / IDX_NAMES[3]
    path.write_bytes(idx_bytes(np.zeros(TEST - 1, np.uint8)))
    assert_data_error(path.parent, path.name, "20 images", "19 labels")


def test_idx_label_above_nine(tmp_path, digits):
    path = write_idx(tmp_path / "idx", digits) / IDX_NAMES[1]
    content = bytearray(path.read_bytes())
    content[8 + 5] = 10
    path.write_bytes(content)
    assert_data_error(path.parent, path.name, "0 to 9", "found 10 at position 5")


def test_idx_without_images(tmp_path, digits):
    folder = write_idx(tmp_path / "idx", digits)
    (folder / IDX_NAMES[0]).write_bytes(idx_bytes(np.zeros((0, 28, 28), np.uint8)))
    (folder / IDX_NAMES[1]).write_bytes(idx_bytes(np.zeros(0, np.uint8)))
    assert_data_error(folder, IDX_NAMES[0], "none")


def test_idx_gzip_data_without_its_ending(tmp_path, digits):
    folder = write_idx(tmp_path / "idx", digits, zipped=True)
    for name in IDX_NAMES:
        (folder / f"{name}.gz").rename(folder / name)
    assert_data_error(folder, IDX_NAMES[0], "gzip", ".gz")


def test_idx_plain_data_named_gz(tmp_path, digits):
    folder = write_idx(tmp_path / "idx", digits)
    for name in IDX_NAMES:
        (folder / name).rename(folder / f"{name}.gz")
    assert_data_error(folder, f"{IDX_NAMES[0]}.gz", "compressed")


@pytest.mark.parametrize("keep", [5, 500, -9, -1])
def test_idx_gzip_truncated(tmp_path, digits, keep):
    path = write_idx(tmp_path / "idx", digits, zipped=True) / f"{IDX_NAMES[0]}.gz"
    path.write_bytes(path.read_bytes()[:keep])
    assert_data_error(path.parent, path, "truncated")


def test_idx_gzip_damaged(tmp_path, digits):
    path = write_idx(tmp_path / "idx", digits, zipped=True) / f"{IDX_NAMES[0]}.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert_data_error(path.parent, path)


def replaced_arrays(digits):
    (x_train, y_train), _ = digits
    high, low = y_train.astype(np.int64), y_train.astype(np.int64)
    high[3], low[3] = 10, -1
    return {
        "no y_train": ({"y_train": None}, "y_train"),
        "float images": ({"x_train": x_train.astype(np.float32)}, "float32"),
        "flat images": ({"x_train": x_train.reshape(TRAIN, 784)}, "[40, 784]"),
        "float labels": ({"y_train": y_train.astype(np.float64)}, "float64"),
        "one-hot labels": ({"y_train": np.eye(10, dtype=np.uint8)[y_train]}, "[40, 10]"),
        "fewer labels": ({"y_train": y_train[1:]}, "39 labels"),
        "label 10": ({"y_train": high}, "found 10 at position 3"),
        "label -1": ({"y_train": low}, "found -1 at position 3"),
        "pickled objects": ({"y_train": np.array([None] * TRAIN, dtype=object)}, "mnist.npz"),
    }


@pytest.mark.parametrize("what", ["no y_train", "float images", "flat images", "float labels", "one-hot labels",
                                  "fewer labels", "label 10", "label -1", "pickled objects"])  # fmt: skip
def test_npz_with_wrong_arrays(tmp_path, digits, what):
    replaced, word = replaced_arrays(digits)[what]
    path = write_npz(tmp_path / "mnist.npz", digits, **replaced)
    assert_data_error(path, path, word)


def test_npz_that_is_something_else(tmp_path, digits):
    path = tmp_path / "mnist.npz"
    for content in (b"", b"PK", b"<html>not found</html>", b"\x80\x04K\x01."):
        path.write_bytes(content)
        assert_data_error(path, path)
    with open(path, "wb") as file:
        np.save(file, digits[0][0])
    assert_data_error(path, path, ".npy")


def test_mat_with_wrong_variables(tmp_path, digits):
    path = tmp_path / "mnist_all.mat"
    write_mat(path, digits, train3=None)
    assert_data_error(path, path, "train3")
    write_mat(path, digits, test4=np.zeros((3, 100), np.uint8))
    assert_data_error(path, path, "test4", "[3, 100]")
    write_mat(path, digits, test4=np.zeros((3, 784)))
    assert_data_error(path, path, "test4", "float64")


@pytest.mark.parametrize("form", ["npz", "mat"])
def test_truncated_at_any_place(tmp_path, digits, form):
    path = tmp_path / {"npz": "mnist.npz", "mat": "mnist_all.mat"}[form]
    {"npz": write_npz, "mat": write_mat}[form](path, digits)
    content = path.read_bytes()
    for keep in range(0, len(content), len(content) // 23):
        path.write_bytes(content[:keep])
        assert_data_error(path, path)


@pytest.mark.parametrize("form", ["idx", "npz", "mat"])
def test_flipped_bits_never_surprise(tmp_path, digits, form):
    """A damaged file gives a DataError or, if the bit is a pixel's or unused, valid arrays; nothing else."""
    if form == "idx":
        path = write_idx(tmp_path / "idx", digits, zipped=True) / f"{IDX_NAMES[1]}.gz"
        place = path.parent
    else:
        place = path = tmp_path / {"npz": "mnist.npz", "mat": "mnist_all.mat"}[form]
        {"npz": write_npz, "mat": write_mat}[form](path, digits)
    content = path.read_bytes()
    rng = np.random.default_rng(5)
    for position in rng.integers(0, len(content), 60):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            data = mnist_io.load(place)
        except owl.DataError:
            continue
        for images, labels in data:
            assert images.dtype == labels.dtype == np.uint8
            assert images.shape == (len(labels), 28, 28)
            assert labels.max() <= 9


def test_a_folder_in_a_files_place(tmp_path):
    (tmp_path / "mnist.npz").mkdir()
    assert_data_error(tmp_path, "mnist.npz")


# ---- Promises of too much -------------------------------------------------------------------------------------------


def peak_memory(path):
    """Loads `path`, which must raise a DataError; returns the peak of memory and the message."""
    tracemalloc.start()
    try:
        with pytest.raises(owl.DataError) as caught:
            mnist_io.load(path)
        return tracemalloc.get_traced_memory()[1], str(caught.value)
    finally:
        tracemalloc.stop()


def test_bombs(tmp_path, digits, monkeypatch):
    """Files that really unpack to far more than their size, and files whose header only states it."""
    limit, bomb = 1 << 20, 64 << 20
    monkeypatch.setattr(mnist_files, "MAX_BYTES", limit)
    zeros = np.zeros((bomb // 784, 28, 28), np.uint8)

    folder = write_idx(tmp_path / "idx", digits, zipped=True)
    images = folder / f"{IDX_NAMES[0]}.gz"
    images.write_bytes(gzip.compress(idx_bytes(zeros), 1))
    peak, message = peak_memory(folder)
    assert peak < 8 * limit and f"{zeros.size:,}" in message
    content = bytearray(idx_bytes(zeros))
    content[4:8] = struct.pack(">I", TRAIN)  # a header that states little
    images.write_bytes(gzip.compress(content, 1))
    peak, message = peak_memory(folder)
    assert peak < 8 * limit and "more follow" in message

    path = write_npz(tmp_path / "mnist.npz", digits, x_train=zeros)
    peak, message = peak_memory(path)
    assert peak < 8 * limit and f"more than {limit:,} are not read" in message
    content = path.read_bytes()
    told = struct.pack("<I", zeros.size + 128)  # the member's length according to the archive
    assert content.count(told) >= 2
    path.write_bytes(content.replace(told, struct.pack("<I", 31_488)))
    peak, message = peak_memory(path)
    assert peak < 8 * limit

    matrix = mat_matrix("train0", zeros.reshape(-1, 784))
    for element in (matrix, matrix[:4] + struct.pack("<I", 800) + matrix[8:]):
        path = tmp_path / "mnist_all.mat"
        path.write_bytes(mat_header() + mat_packed(element))
        peak, message = peak_memory(path)
        assert peak < 8 * limit
    path.write_bytes(mat_header() + matrix)
    peak, message = peak_memory(path)
    assert peak < 8 * limit and f"more than {limit:,} are not read" in message


def test_npz_that_describes_its_array_strangely(tmp_path, digits):
    path = write_npz(tmp_path / "mnist.npz", digits)
    whole = npy_bytes(digits[0][0])
    body = digits[0][0].tobytes()
    for text in ("-" * 4000, "(" * 4000, "[" * 150, "{}", "None", "'x' * 10", "__import__('os').abort()", "\0", "\n",
                 npy_text("(-40, -28, 28)"), npy_text("(40, 28)"), npy_text("(40, 28, 28, 1)"), npy_text("(True,)"),
                 npy_text(f"({10**30}, 28, 28)"), npy_text("(40, 28, 28)", "'|O'"), npy_text("(40, 28, 28)", "'|V0'"),
                 npy_text("(40, 28, 28)", "[('a', 'u1')]"), npy_text("(4000000000, 28, 28)", "'<f8'"),
                 npy_text("(1 << 99,)"), npy_text("()"), npy_text("(0, 28, 28)")):  # fmt: skip
        replace_member(path, "x_train.npy", b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text.encode() + body)
        assert_data_error(path, path)
    for damaged in (b"", whole[:6], whole[:9], whole[:100], whole[:-1], whole + b"\0", b"\x93NUMPY\x03" + whole[7:],
                    whole[:6] + b"\2\0" + b"\xff" * 4 + whole[10:], whole[:8] + b"\xff\xff" + whole[10:]):  # fmt: skip
        replace_member(path, "x_train.npy", damaged)
        assert_data_error(path, path)
    replace_member(path, "x_train.npy", whole)
    assert_same(mnist_io.load(path), digits)


def npy_bytes(array):
    member = io.BytesIO()
    np.lib.format.write_array(member, array, (1, 0))
    return member.getvalue()


def npy_text(shape, dtype="'|u1'"):
    return f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}\n"


def replace_member(path, name, content):
    """Replaces the content of one file of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for n, old in members.items():
            archive.writestr(n, content if n == name else old)


# ---- Mutations ------------------------------------------------------------------------------------------------------

MUTATIONS = 1000 * SOAK  # of each form
FORMS = ("idx", "idx.gz", "npz", "mat")
EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 10_000_000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def mutate(content, rng):
    """`content` with one to three bytes changed."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        size = len(content)
        # Headers are where a change matters; they are near the beginning or, in a zip archive, near the end.
        at = rng.choice((rng.randrange(size + 1), min(rng.randrange(160), size), max(size - rng.randrange(400), 0)))
        some = rng.randrange(1, 40)
        what = rng.randrange(8)
        if what == 0:
            del content[at:]
        elif what == 1:
            del content[at : at + some]
        elif what == 2:
            content[at:at] = rng.randbytes(some)
        elif what == 3:
            content[at : at + some] = rng.randbytes(len(content[at : at + some]))
        elif what == 4 and at < size:
            content[at] ^= 1 << rng.randrange(8)
        elif what == 5:  # a count or a length
            number = struct.pack(rng.choice("<>") + "I", rng.choice(EXTREMES))
            content[at & ~3 : (at & ~3) + 4] = number
        elif what == 6:
            content[at : at + some] = bytes(len(content[at : at + some]))
        else:
            other = rng.randrange(size + 1)
            content[at:at] = content[other : other + some]
    return bytes(content)


def retell(member, rng):
    """A .npy file with another number in its header's text, whose length stays."""
    number = rng.choice(list(re.finditer(rb"\d+", member[10:128])))
    told = str(rng.choice([*EXTREMES, -1, 10**12])).encode()
    text = member[10:][: number.start()] + told + member[10:128][number.end() :]
    return member[:10] + text.rstrip().ljust(117) + b"\n" + member[128:]


def mutation(form, files, rng):
    """The files of one form of MNIST, `{name: content}`, with one of them changed somehow."""
    name = rng.choice(sorted(files))
    content = files[name]
    how = rng.randrange(20)
    if how == 0:  # mislabelled: another form's content
        other = rng.choice([f for f in FORMS if f != form])
        return {**files, name: rng.choice(sorted(mutation.sound[other].values()))}
    if how == 1 and len(files) > 1:  # two files exchanged
        second = rng.choice(sorted(files))
        return {**files, name: files[second], second: content}
    if how < 12 or form == "idx":
        return {**files, name: mutate(content, rng)}
    # Changes the data before compression, so that checksums are right.
    if form == "idx.gz":
        return {**files, name: gzip.compress(mutate(gzip.decompress(content), rng), 1)}
    if form == "npz":
        changed = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as new:
            chosen = rng.choice(old.namelist())
            for member in old.namelist():
                change = rng.choice((mutate, retell)) if member == chosen else lambda same, rng: same
                new.writestr(member, change(old.read(member), rng))
        return {name: changed.getvalue()}
    elements = [mat_packed(element) for element in mutation.elements[:3]]
    elements[rng.randrange(3)] = mat_packed(mutate(rng.choice(mutation.elements[:3]), rng))
    return {name: mat_header() + b"".join(elements) + mutation.rest}


@pytest.mark.filterwarnings("ignore")  # Python's parser may warn about a damaged header.
@pytest.mark.parametrize("form", FORMS)
def test_mutated_files_never_surprise(tmp_path, digits, form):
    """A damaged file gives valid arrays or a DataError, and takes no more memory than other files of its size."""
    small = tuple((images[:20], labels[:20]) for images, labels in digits)
    idx = {n: idx_bytes(a) for n, a in zip(IDX_NAMES, [array for split in small for array in split])}
    npz = write_npz(tmp_path / "sound.npz", small).read_bytes()
    mutation.sound = {"idx": idx, "idx.gz": {f"{n}.gz": gzip.compress(c) for n, c in idx.items()},
                      "npz": {"mnist.npz": npz}, "mat": {"mnist_all.mat": mat_bytes(small)}}  # fmt: skip
    mutation.elements = [mat_matrix(n, a) for n, a in mat_variables(small)]
    mutation.rest = b"".join(map(mat_packed, mutation.elements[3:]))
    sound = mutation.sound[form]
    folder = tmp_path / "mutated"
    folder.mkdir()
    on_disk = {}
    outcomes = {"loaded": 0, "refused": 0}
    tracemalloc.start()
    try:
        for seed in range(MUTATIONS):
            for name, content in mutation(form, sound, random.Random(f"{form} {seed}")).items():
                if on_disk.get(name) is not content:
                    (folder / name).write_bytes(content)
                    on_disk[name] = content
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            try:
                data = mnist_io.load(folder)
                for images, labels in data:
                    assert images.dtype == labels.dtype == np.uint8
                    assert len(images) > 0 and images.shape == (len(labels), 28, 28)
                    assert labels.max() <= 9
                outcomes["loaded"] += 1
            except owl.DataError as error:
                assert str(folder) in str(error) or any(name in str(error) for name in sound)
                outcomes["refused"] += 1
            except BaseException as error:
                raise AssertionError(f"mutation {seed} of {form}: {error!r}") from error
            taken = tracemalloc.get_traced_memory()[1] - before
            assert taken < 4 << 20, f"mutation {seed} of {form} took {taken:,} bytes"
            data = None
    finally:
        tracemalloc.stop()
    print(f"{form}: {MUTATIONS} mutations, {outcomes}")
    assert sum(outcomes.values()) == MUTATIONS and min(outcomes.values()) > 0


# ---- The download ---------------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(digits, monkeypatch):
    """mirror(behave) starts a server with `digits` as the four files, which becomes the only mirror."""
    names = [file.name for file in owl.data.DATA_SETS["mnist"].files]
    arrays = [array for split in digits for array in split]
    contents = {name: gzip.compress(idx_bytes(array), mtime=0) for name, array in zip(names, arrays)}
    files = tuple(owl.data.DataFile(n, len(c), hashlib.md5(c).hexdigest()) for n, c in contents.items())
    monkeypatch.setitem(owl.data.DATA_SETS, "mnist", owl.data.DataSet((), files))
    monkeypatch.setattr(mnist_files, "SYNTHETIC_TRAIN", 30)
    monkeypatch.setattr(mnist_files, "SYNTHETIC_TEST", 10)
    servers = []

    def start(behave=None):
        servers.append(Server(contents, behave))
        monkeypatch.setenv("OWL_MIRRORS", servers[-1].url)
        return servers[-1]

    start.contents = contents
    yield start
    for server in servers:
        server.close()


def is_synthetic(data):
    return [len(labels) for _, labels in data] == [30, 10]


def test_the_first_run_downloads(tmp_path, digits, mirror, capsys):
    server = mirror()
    assert_same(mnist_io.load(), digits)
    err = capsys.readouterr().err
    assert "downloading" in err and str(tmp_path / "cache" / "owl" / "mnist") in err and "SYNTHETIC" not in err
    assert server.requests == list(mirror.contents)
    assert sorted(os.listdir(tmp_path / "cache" / "owl" / "mnist")) == sorted(mirror.contents)
    server.requests.clear()
    assert_same(mnist_io.load(), digits)
    assert server.requests == [] and capsys.readouterr().err == ""


def test_what_is_there_is_not_downloaded(tmp_path, digits, mirror, monkeypatch):
    server = mirror()
    write_npz(tmp_path / "named.npz", digits)
    assert_same(mnist_io.load(tmp_path / "named.npz"), digits)
    monkeypatch.setenv("OWL_DATA", str(tmp_path / "named.npz"))
    assert_same(mnist_io.load(), digits)
    monkeypatch.setenv("OWL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(owl.DataError):
        mnist_io.load()
    assert server.requests == []


def test_a_part_of_the_data_in_the_cache_is_completed(tmp_path, digits, mirror, monkeypatch):
    server = mirror()
    folder = tmp_path / "cache" / "owl" / "mnist"
    folder.mkdir(parents=True)
    names = list(mirror.contents)
    (folder / names[1]).write_bytes(mirror.contents[names[1]])
    monkeypatch.setenv("OWL_MIRRORS", "")
    assert is_synthetic(mnist_io.load())
    monkeypatch.setenv("OWL_MIRRORS", server.url)
    assert_same(mnist_io.load(), digits)
    assert server.requests == [names[0], names[2], names[3]]


def test_offline_the_digits_are_drawn(tmp_path, mirror, monkeypatch, capsys):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{s.getsockname()[1]}/"
    for _ in range(2):  # After an immediate failure, as without a network, load() tries again every time.
        monkeypatch.setenv("OWL_MIRRORS", dead)
        assert is_synthetic(mnist_io.load())
        err = capsys.readouterr().err
        assert f"{dead}train-images-idx3-ubyte.gz: " in err and "refused" in err and "SYNTHETIC" in err
    monkeypatch.setenv("OWL_MIRRORS", "nonsense")
    assert is_synthetic(mnist_io.load())
    assert "OWL_MIRRORS: expected addresses" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pooch", None)  # as if it were not installed
        patch.setenv("OWL_MIRRORS", dead)
        assert is_synthetic(mnist_io.load())
        assert re.search("no download: .* needs the package pooch.*\n.*SYNTHETIC", capsys.readouterr().err)
    monkeypatch.setenv("OWL_MIRRORS", "")
    assert is_synthetic(mnist_io.load())
    err = capsys.readouterr().err
    assert "SYNTHETIC" in err and "downloading" not in err and "no download" not in err


def test_silence_is_not_waited_for_every_time(tmp_path, mirror, monkeypatch, capsys):
    monkeypatch.setattr(mnist_files, "FIRST_BYTE_S", 0.3)
    server = mirror(lambda request: request.silence())
    assert is_synthetic(mnist_io.load())
    assert re.search("timed out|no answer within", capsys.readouterr().err) and len(server.requests) == 1
    assert is_synthetic(mnist_io.load())
    assert "no mirror answered 0 minutes ago" in capsys.readouterr().err and len(server.requests) == 1
    marker = tmp_path / "cache" / "owl" / "mnist" / mnist_files.NO_ANSWER_NAME
    for age in (mnist_files.NO_ANSWER_S + 60, -3600):  # an hour later; a clock that was set back
        os.utime(marker, (time.time() - age,) * 2)
        server.requests.clear()
        assert is_synthetic(mnist_io.load())
        assert len(server.requests) == 1


def test_an_unwritable_cache_is_no_obstacle_to_the_digits(tmp_path, mirror, capsys):
    server = mirror()
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert is_synthetic(mnist_io.load())
    err = capsys.readouterr().err
    assert "no download: " in err and "cannot be" in err and "SYNTHETIC" in err
    assert server.requests == []


# ---- Minibatches for the walkthrough --------------------------------------------------------------------------------


def test_minibatches(tmp_path, digits):
    np.random.seed(3)
    train_data, test_data = mnist_io.load_mb_from_mat(write_mat(tmp_path / "mnist_all.mat", digits), 16)
    assert [samples.shape for samples, _ in train_data] == [(16, 784), (16, 784), (8, 784)]
    assert [labels.shape for _, labels in train_data] == [(16, 10), (16, 10), (8, 10)]
    for samples, labels in [*train_data, test_data]:
        assert samples.dtype == labels.dtype == np.float32
        assert ((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all()

    # The same samples with the same labels, in another order.
    def pairs(samples, labels):
        return sorted((s.tobytes(), int(label)) for s, label in zip(samples, labels))

    samples, targets = (np.concatenate(parts) for parts in zip(*train_data))
    (images, labels), _ = digits
    assert pairs((samples * 256).astype(np.uint8), targets.argmax(1)) == pairs(images.reshape(TRAIN, 784), labels)
    assert not np.array_equal(targets.argmax(1), np.sort(labels))


def test_minibatches_of_the_walkthroughs_file_found_elsewhere(tmp_path, digits, monkeypatch):
    monkeypatch.setenv("OWL_DATA", str(write_idx(tmp_path / "idx", digits)))
    train_data, test_data = mnist_io.load_mb_from_mat("mnist_all.mat", 256)
    assert len(train_data) == 1 and len(train_data[0][0]) == TRAIN and len(test_data[0]) == TEST
    with pytest.raises(owl.DataError, match="other.mat"):
        mnist_io.load_mb_from_mat("other.mat", 256)
    with pytest.raises(owl.DataError, match="no such file"):
        mnist_io.load_mb_from_mat(tmp_path / "mnist_all.mat", 256)


def test_the_walkthroughs_own_call(tmp_path, digits, monkeypatch):
    """The script names mnist_all.mat without its suffix, as SciPy's loadmat allows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OWL_DATA", raising=False)
    write_mat(tmp_path / "mnist_all.mat", digits)
    sizes = []
    for name in ("mnist_all", "mnist_all.mat", tmp_path / "mnist_all", os.fsencode(tmp_path / "mnist_all")):
        train_data, test_data = mnist_io.load_mb_from_mat(name, 256)
        sizes.append((len(train_data[0][0]), len(test_data[0])))
    assert sizes == [(TRAIN, TEST)] * 4
    assert len(mnist_io.load("mnist_all")[0][0]) == TRAIN
    monkeypatch.setenv("OWL_DATA", str(tmp_path / "mnist_all"))
    assert len(mnist_io.load()[0][0]) == TRAIN
    (tmp_path / "mnist_all.mat").unlink()
    for call in (lambda: mnist_io.load(), lambda: mnist_io.load("mnist_all"), lambda: mnist_io.load("."),
                 lambda: mnist_io.load_mb_from_mat(tmp_path / "mnist_all", 256)):  # fmt: skip
        with pytest.raises(owl.DataError, match=r"mnist_all|found no MNIST"):
            call()
    monkeypatch.setenv("OWL_DATA", str(write_idx(tmp_path / "idx", digits)))
    assert len(mnist_io.load_mb_from_mat("mnist_all", 256)[0][0][0]) == TRAIN  # the data of load()


def test_names_without_suffix(tmp_path, digits):
    (images, labels), (test_images, test_labels) = digits
    np.savez(tmp_path / "own.npz", x_train=images[:7], y_train=labels[:7], x_test=test_images, y_test=test_labels)
    assert len(mnist_io.load(tmp_path / "own")[0][0]) == 7
    write_mat(tmp_path / "own.mat", digits)  # which comes first
    assert len(mnist_io.load(tmp_path / "own")[0][0]) == TRAIN
    (tmp_path / "own").mkdir()  # but the exact name comes first
    with pytest.raises(owl.DataError, match="found no MNIST in this folder"):
        mnist_io.load(tmp_path / "own")
    with pytest.raises(owl.DataError, match=r"other \(the data path\): no such file or folder"):
        mnist_io.load(tmp_path / "other")


@pytest.mark.parametrize("size", [0, -1, 2.5, True, None])
def test_minibatches_of_an_impossible_size(size):
    with pytest.raises(ValueError, match="minibatch size"):
        mnist_io.load_mb_from_mat("mnist_all.mat", size)


# ---- Synthetic digits -----------------------------------------------------------------------------------------------


def test_synthetic_digits_are_announced_and_cached(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(mnist_files, "SYNTHETIC_TRAIN", 300)
    monkeypatch.setattr(mnist_files, "SYNTHETIC_TEST", 100)
    drawn = mnist_io.load()
    assert "SYNTHETIC" in capsys.readouterr().err
    assert [len(labels) for _, labels in drawn] == [300, 100]
    assert_same(drawn, drawn)  # uint8

    cached = tmp_path / "cache" / "owl" / mnist_files.SYNTHETIC_NAME
    assert os.listdir(cached.parent) == [cached.name]  # and no temporary file
    monkeypatch.setattr(owl._owl, "make_digits", lambda *args: pytest.fail("drawn again"))
    assert_same(mnist_io.load(), drawn)
    assert "SYNTHETIC" in capsys.readouterr().err


def test_a_damaged_cache_is_drawn_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(mnist_files, "SYNTHETIC_TRAIN", 300)
    monkeypatch.setattr(mnist_files, "SYNTHETIC_TEST", 100)
    drawn = mnist_io.load()
    cached = tmp_path / "cache" / "owl" / mnist_files.SYNTHETIC_NAME
    whole = cached.read_bytes()
    cached.write_bytes(whole[: len(whole) // 2])
    assert_same(mnist_io.load(), drawn)
    assert "again" in capsys.readouterr().err
    assert cached.read_bytes()[:2] == b"PK" and len(cached.read_bytes()) == len(whole)


def test_an_unwritable_cache_is_no_obstacle(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(mnist_files, "SYNTHETIC_TRAIN", 30)
    monkeypatch.setattr(mnist_files, "SYNTHETIC_TEST", 10)
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(mnist_io.load()[0][1]) == 30
    assert "not cached" in capsys.readouterr().err


def test_synthetic_digits_do_not_depend_on_threads_or_count():
    images, labels = owl._owl.make_digits(11, 2500, threads=1)
    for threads, count in ((2, 2500), (7, 2500), (0, 700), (3, 257), (1, 1), (5, 0)):
        some, their_labels = owl._owl.make_digits(11, count, threads=threads)
        np.testing.assert_array_equal(some, images[:count])
        np.testing.assert_array_equal(their_labels, labels[:count])


def test_synthetic_digits_follow_the_seed_and_look_like_digits():
    images, labels = owl._owl.make_digits(1, 2000)
    assert images.shape == (2000, 28, 28) and images.dtype == np.uint8
    assert labels.shape == (2000,) and labels.dtype == np.uint8
    assert np.bincount(labels, minlength=10).min() > 130 and labels.max() == 9
    ink = images.astype(float).mean((1, 2)) / 255
    assert 0.03 < ink.min() and ink.max() < 0.5
    again, other = owl._owl.make_digits(1, 2000), owl._owl.make_digits(2, 2000)
    assert np.array_equal(again[0], images) and np.array_equal(again[1], labels)
    assert not np.array_equal(other[0], images)
    assert len({hashlib.sha256(image.tobytes()).digest() for image in images}) == 2000


# ---- The real data --------------------------------------------------------------------------------------------------

REAL = os.path.abspath(os.environ["OWL_DATA"]) if os.environ.get("OWL_DATA") else None


@pytest.mark.skipif(not REAL, reason="OWL_DATA does not name the real MNIST")
def test_real_mnist():
    real = Path(REAL)
    (images, labels), (test_images, test_labels) = mnist_io.load(real)
    assert images.shape == (60_000, 28, 28) and test_images.shape == (10_000, 28, 28)
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    if (real / "mnist_all.mat").exists():
        pytest.importorskip("scipy.io")
        by_digit = mnist_io.load(real / "mnist_all.mat")
        assert np.bincount(by_digit[0][1]).tolist() == np.bincount(labels).tolist()
        assert by_digit[1][0].sum(dtype=np.int64) == test_images.sum(dtype=np.int64)
