"""owl.save and owl.load."""

import os
import random

import numpy as np
import pytest

import owl

RANDOM = np.random.default_rng(3)
VALUES = {
    "w": RANDOM.standard_normal((3, 4)).astype(np.float32),
    "double": RANDOM.standard_normal((2, 1, 5)),
    "labels": np.arange(7, dtype=np.int32),
    "mask": np.array([[True, False]]),
    "empty": np.zeros((0, 3), np.float32),
    "name with / and .": np.ones(1, np.float32),
    "file": np.full(2, 2, np.float32),
    "allow_pickle": np.full(3, 3, np.float32),
    "self": np.full(4, 4, np.float32),
}


@pytest.fixture(params=[".npz", ".safetensors"])
def path(request, tmp_path):
    if request.param == ".safetensors":
        pytest.importorskip("safetensors")
    return tmp_path / f"arrays{request.param}"


def test_what_is_saved_is_loaded(path):
    owl.save(path, {name: owl.from_numpy(v) for name, v in VALUES.items()})
    loaded = owl.load(str(path))
    assert set(loaded) == set(VALUES)
    for name, v in VALUES.items():
        got = loaded[name].to_numpy()
        assert got.dtype == v.dtype and loaded[name].shape == list(v.shape[::-1])
        np.testing.assert_array_equal(got, v)
    assert os.listdir(path.parent) == [path.name]


def test_other_programs_read_it(path):
    owl.save(path, {"w": owl.from_numpy(VALUES["w"]).trans()})
    if path.suffix == ".npz":
        with np.load(path) as file:
            np.testing.assert_array_equal(file["w"], VALUES["w"].T)
    else:
        from safetensors.numpy import load_file

        np.testing.assert_array_equal(load_file(path)["w"], VALUES["w"].T)


def test_a_failed_value_leaves_the_old_file(path):
    owl.save(path, {"w": owl.ones([2])})
    with owl.trace_nan():
        bad = owl.elewise.ln(owl.zeros([2]))
        with pytest.raises(owl.NaNError):
            owl.save(path, {"good": owl.ones([3]), "w": bad})
    assert owl.load(path)["w"].to_numpy().tolist() == [1, 1] and os.listdir(path.parent) == [path.name]


def test_a_write_that_fails_leaves_the_old_file(path, monkeypatch):
    owl.save(path, {"w": owl.ones([2])})

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        owl.save(path, {"w": owl.zeros([2])})
    assert owl.load(path)["w"].to_numpy().tolist() == [1, 1] and os.listdir(path.parent) == [path.name]


def test_wrong_calls(tmp_path):
    with pytest.raises(ValueError, match=r"x\.txt: .* \.npz or \.safetensors"):
        owl.save(tmp_path / "x.txt", {})
    with pytest.raises(ValueError, match="ends in"):
        owl.load(tmp_path / "x")
    with pytest.raises(TypeError, match="dict of NArrays"):
        owl.save(tmp_path / "x.npz", [owl.ones([1])])
    with pytest.raises(TypeError, match="'a' is ndarray"):
        owl.save(tmp_path / "x.npz", {"a": np.ones(1)})
    with pytest.raises(owl.DataError, match="no such file"):
        owl.load(tmp_path / "x.npz")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    with pytest.raises(owl.DataError, match="[Oo]bject"):
        owl.load(tmp_path / "objects.npz")
    np.save(tmp_path / "single.npy", np.ones(3))
    os.rename(tmp_path / "single.npy", tmp_path / "single.npz")
    with pytest.raises(owl.DataError, match="not a readable .npz file: File is not a zip file"):
        owl.load(tmp_path / "single.npz")


def test_damaged_files_are_data_errors(path):
    """Random truncations and flipped bytes: what was saved, or a DataError, never anything else."""
    owl.save(path, {"w": owl.from_numpy(VALUES["w"]), "labels": owl.from_numpy(VALUES["labels"])})
    whole = path.read_bytes()
    refused = 0
    for seed in range(300):
        rng = random.Random(seed)
        data = bytearray(whole)
        if seed % 2:
            del data[rng.randrange(len(data)) :]
        else:
            data[rng.randrange(min(len(data), 400))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            for x in owl.load(path).values():
                assert x.to_numpy().size < 1000, f"seed {seed}"
        except owl.DataError as error:
            assert str(path) in str(error), f"seed {seed}"
            refused += 1
        except Exception as error:
            pytest.fail(f"seed {seed}: {error!r}")
    assert refused >= 150


def test_other_programs_read_every_type(path):
    values = {name: VALUES[name] for name in ("w", "double", "labels", "mask", "empty")}
    owl.save(path, {name: owl.from_numpy(v) for name, v in values.items()})
    if path.suffix == ".npz":
        found = dict(np.load(path))
    else:
        from safetensors.numpy import load_file

        found = load_file(path)
    assert set(found) == set(values)
    for name, v in values.items():
        assert found[name].dtype == v.dtype and found[name].shape == v.shape
        np.testing.assert_array_equal(found[name], v)
