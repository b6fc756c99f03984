"""owl.save and owl.load; atomic replacement of files; file names that are not valid text."""

import errno
import functools
import json
import os
import random
import stat
import subprocess
import sys
import textwrap
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

import owl
import reference
from owl._replace import replacing

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
    """Random truncations and flipped bytes: loading gives the saved arrays or a DataError, nothing else."""
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


# ---- Atomic replacement ---------------------------------------------------------------------------------------------


def save_profile(path):
    with owl.profile(path):
        owl.ones([2]).sum().item()


def save_digits(path):
    from owl.data import mnist_files

    mnist_files._save_npz(Path(path), x=np.ones(3))


WRITERS = {
    "x.npz": lambda path: owl.save(path, {"w": owl.ones([3])}),
    "x.safetensors": lambda path: owl.save(path, {"w": owl.ones([3])}),
    "x.json": save_profile,
    "digits.npz": save_digits,
}


@pytest.fixture(params=WRITERS)
def written(request, tmp_path):
    """A path in an empty folder, and a function that writes a file there."""
    if request.param.endswith(".safetensors"):
        pytest.importorskip("safetensors")
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder" / request.param, WRITERS[request.param]


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize("mask", [0o002, 0o022, 0o077])
def test_a_new_file_has_the_mode_of_any_new_file(written, mask):
    path, write = written
    before = os.umask(mask)
    try:
        write(path)
    finally:
        os.umask(before)
    assert mode_of(path) == 0o666 & ~mask and os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
def test_the_old_files_mode_is_kept(written, mode):
    path, write = written
    path.write_bytes(b"old")
    path.chmod(mode)
    write(path)
    assert mode_of(path) == mode and path.read_bytes() != b"old" and os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_old_files_owner_is_kept(written):
    path, write = written
    path.write_bytes(b"old")
    os.chown(path, 1234, 2345)
    path.chmod(0o640)
    write(path)
    found = os.stat(path)
    assert (found.st_uid, found.st_gid, mode_of(path)) == (1234, 2345, 0o640) and path.read_bytes() != b"old"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("kind", ["python", "profile"])
def test_an_owner_that_cannot_be_kept(tmp_path, kind):
    """Another user's file in a folder where this one may write: the group, another one now, gets no access by it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "x.json"
    path.write_bytes(b"old")
    os.chown(path, 1234, 2345)
    path.chmod(0o662)
    folder.chmod(0o777)
    for parent in folder.parents:
        if parent.stat().st_uid == 0 and parent != Path("/") and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(3456)
            os.setuid(4567)
            if kind == "profile":
                save_profile(path)
            else:
                with replacing(str(path)) as file:
                    file.write(b"new")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    found = os.stat(path)
    assert (found.st_uid, found.st_gid, mode_of(path)) == (4567, 3456, 0o602) and path.read_bytes() != b"old"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_write_protected_file_is_not_replaced(written):
    path, write = written
    path.write_bytes(b"old")
    path.chmod(0o400)
    with pytest.raises((PermissionError, owl.Error), match="Permission denied"):
        write(path)
    assert path.read_bytes() == b"old" and os.listdir(path.parent) == [path.name]


def test_a_symbolic_link_stays(written, tmp_path):
    path, write = written
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "target"
    for way in (target, Path("../elsewhere/target"), Path("middle")):
        path.unlink(missing_ok=True)
        (path.parent / "middle").unlink(missing_ok=True)
        (path.parent / "middle").symlink_to(target)
        path.symlink_to(way)
        for there in (False, True):  # a link may lead to a file that does not exist yet
            if there:
                target.write_bytes(b"old")
                target.chmod(0o600)
            else:
                target.unlink(missing_ok=True)
            write(path)
            assert path.is_symlink() and target.is_file() and target.stat().st_size > 10
            assert not there or mode_of(target) == 0o600
    assert os.listdir(tmp_path / "elsewhere") == ["target"] and set(os.listdir(path.parent)) == {path.name, "middle"}


def test_a_link_to_itself_and_a_folder_are_refused(written):
    path, write = written
    path.symlink_to(path)
    with pytest.raises((OSError, owl.Error), match="symbolic links"):
        write(path)
    assert path.is_symlink()
    path.unlink()
    path.mkdir()
    with pytest.raises((IsADirectoryError, owl.Error), match="Is a directory"):
        write(path)
    if write is not save_digits:  # save_digits creates the folder
        with pytest.raises((FileNotFoundError, owl.Error), match="No such file"):
            write(path.parent / "none" / path.name)
    assert os.listdir(path.parent) == [path.name] and os.listdir(path) == []


def test_a_long_name(written):
    path, write = written
    path = path.with_name("x" * (255 - len(path.suffix)) + path.suffix)
    write(path)
    assert os.listdir(path.parent) == [path.name]


def test_a_pipe_is_written_as_it_is(written):
    path, write = written
    os.mkfifo(path)
    got = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    write(path)
    reader.join(60)
    assert len(got[0]) > 10 and stat.S_ISFIFO(os.stat(path).st_mode) and os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_device_is_an_error_and_stays(written):
    path, write = written
    path.symlink_to("/dev/full")
    with pytest.raises((OSError, owl.Error), match="No space left on device"):
        write(path)
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode) and path.is_symlink()


def test_the_folder_refuses(written, monkeypatch):
    """The message names the target, not the temporary file."""
    path, write = written
    path.parent.rmdir()
    path.parent.symlink_to("/proc")
    with pytest.raises((OSError, owl.Error)) as caught:
        write(path)
    assert str(path) in str(caught.value) and ".part" not in str(caught.value)


SAVERS = """
    import sys
    import owl
    path, n = sys.argv[1], int(sys.argv[2])
    for i in range(40):
        owl.save(path, {"a": owl.full([300], n), "b": owl.full([300], n)})
"""


def test_threads_and_processes_save_under_one_name(path, tmp_path):
    """Every save succeeds, and a reader finds one complete file."""
    owl.save(path, {"a": owl.zeros([300]), "b": owl.zeros([300])})
    processes = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(SAVERS), str(path), str(n)],
                                  stderr=subprocess.PIPE, text=True) for n in (10, 11)]  # fmt: skip
    failures = []

    def work(n):
        try:
            for _ in range(40):
                owl.save(path, {"a": owl.full([300], n), "b": owl.full([300], n)})
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or any(process.poll() is None for process in processes):
        found = owl.load(path)
        (value,) = {float(v) for x in found.values() for v in x.to_numpy()}
        assert value in {0, 1, 2, 3, 4, 10, 11}
    assert not failures, failures[0]
    assert [process.communicate()[1] for process in processes] == ["", ""]
    assert os.listdir(tmp_path) == [path.name]


def test_two_files_of_a_thread_at_once(tmp_path):
    """Names of temporary files are unique, also in a forked child."""
    path = str(tmp_path / "x")
    with replacing(path) as first, replacing(path) as second:
        first.write(b"first")
        second.write(b"second")
        assert len(os.listdir(tmp_path)) == 2
    assert (tmp_path / "x").read_bytes() == b"first"  # the last to end


def test_dumps_that_cannot_be_written(tmp_path):
    """A failing OWL_DUMP does not stop the script, but prints a message."""
    dump = tmp_path / "dump"
    dump.mkdir()
    (dump / "000001-graph.dot").symlink_to("/dev/full")
    done = subprocess.run([sys.executable, "-c", "import owl; print((owl.ones([2]) + 1).to_numpy())"], text=True,
                          env={**os.environ, "OWL_DUMP": str(dump)}, capture_output=True, timeout=100)  # fmt: skip
    assert done.stdout == "[2. 2.]\n" and done.returncode == 0
    assert done.stderr == f"owl: OWL_DUMP: cannot write {dump}/000001-graph.dot: {os.strerror(errno.ENOSPC)}\n"


# ---- Types of other libraries ---------------------------------------------------------------------------------------


def write_safetensors(path, tensors):
    """By the format's definition: names, types, shapes and offsets as JSON after its length, then the bytes."""
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def from_bits(bits, exponent_bits, mantissa_bits, bias):
    """A float by its definition, without special values of the largest exponents."""
    sign, exponent = bits >> (exponent_bits + mantissa_bits), bits >> mantissa_bits & ((1 << exponent_bits) - 1)
    mantissa = (bits & ((1 << mantissa_bits) - 1)) / 2**mantissa_bits
    return (-1) ** sign * (2.0 ** (exponent - bias) * (1 + mantissa) if exponent else 2.0 ** (1 - bias) * mantissa)


SMALL_FLOATS = {  # type: (exponent and mantissa bits, bias, codes of nan and infinity)
    "F8_E4M3": (4, 3, 7, {0x7F: np.nan, 0xFF: np.nan}),
    "F8_E5M2": (5, 2, 15, {sign | 0x7C | m: np.nan if m else -np.inf if sign else np.inf
                           for sign in (0, 128) for m in range(4)}),
    "F8_E4M3FNUZ": (4, 3, 8, {0x80: np.nan}),
    "F8_E5M2FNUZ": (5, 2, 16, {0x80: np.nan}),
}  # fmt: skip


@pytest.mark.parametrize("dtype", sorted({*reference.DTYPES, "bfloat16"}))
def test_every_type_is_kept(dtype, path):
    x = owl.arange(12).reshape(3, 4).astype(dtype)
    y = owl.full([2], 2**53 + 1, "int64")
    if dtype == "bfloat16" and path.suffix == ".safetensors" and not reference.bfloat16:
        with pytest.raises(owl.DTypeError, match="ml_dtypes"):
            owl.save(path, {"x": x})
        return
    owl.save(path, {"x": x, "y": y, "none": owl.zeros([0, 3], dtype)})
    found = owl.load(path)
    assert found["y"].tolist() == [2**53 + 1] * 2 and found["none"].shape == [0, 3]
    assert str(found["x"].dtype) == str(found["none"].dtype) == str(x.dtype)
    assert found["x"].tolist() == x.tolist() and found["x"].shape == [3, 4]
    if path.suffix == ".npz":
        stored = np.load(path)["x"]
        assert stored.dtype == ("V2" if dtype == "bfloat16" else x.dtype)
    elif reference.bfloat16:
        from safetensors.numpy import load_file

        assert str(load_file(path)["x"].dtype) == str(x.dtype)


@pytest.mark.skipif(reference.bfloat16 is None, reason="needs ml_dtypes")
def test_ml_dtypes_arrays_in_files(path):
    a = np.arange(6).reshape(2, 3).astype(reference.bfloat16)
    if path.suffix == ".npz":
        np.savez(path, a=a)
    else:
        from safetensors.numpy import save_file

        save_file({"a": a}, path)
    assert np.array_equal(owl.load(path)["a"].to_numpy(), a)


@pytest.mark.parametrize("dtype", ["BF16", "F8_E8M0", *SMALL_FLOATS])
def test_small_floats_of_safetensors_are_exact(dtype, tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "x.safetensors"
    bits = np.arange(65536 if dtype == "BF16" else 256, dtype="<u2" if dtype == "BF16" else "u1")
    if dtype == "BF16":
        want = None
    elif dtype == "F8_E8M0":
        want = np.array([2.0 ** (b - 127) for b in range(255)] + [np.nan])
    else:
        exponent_bits, mantissa_bits, bias, special = SMALL_FLOATS[dtype]
        want = np.array([special.get(b, from_bits(b, exponent_bits, mantissa_bits, bias)) for b in range(256)])
    write_safetensors(path, {"before": ("F32", [3], np.float32([1, 2, 3]).tobytes()),
                             "small": (dtype, [2, len(bits) // 2], bits.tobytes()),
                             "none": (dtype, [0, 4], b""),
                             "after": ("I32", [2], np.int32([4, 5]).tobytes())})  # fmt: skip
    found = owl.load(path)
    assert found["before"].to_numpy().tolist() == [1, 2, 3] and found["after"].to_numpy().tolist() == [4, 5]
    kept = "bfloat16" if dtype == "BF16" else "float32"
    assert found["none"].shape == [4, 0] and str(found["none"].dtype) == kept
    assert str(found["small"].dtype) == kept
    if dtype == "BF16":  # computing may take denormal numbers for 0
        bits = owl._owl.bfloat16_bits(found["small"])
        assert np.array_equal(bits.ravel(), np.arange(65536))
        return
    got = found["small"].to_numpy()
    assert got.shape == (2, len(bits) // 2)
    np.testing.assert_array_equal(got.ravel(), want.astype(np.float32))
    zeros = want == 0
    assert np.array_equal(np.signbit(got.ravel()[zeros]), np.signbit(want[zeros]))


def test_other_types_become_the_nearest(path):
    """As in owl.from_numpy."""
    values = {t: np.arange(6).reshape(2, 3).astype(t) for t in
              ("float16", "int8", "uint8", "int16", "uint16", "int64", "uint32", "uint64")}  # fmt: skip
    values["large"] = np.array([1, 2**40])
    if path.suffix == ".npz":
        values |= {"big-endian": np.arange(3).astype(">f4"), "long": np.arange(3).astype(np.longdouble)}
        np.savez(path, **values)
    else:
        from safetensors.numpy import save_file

        save_file(values, path)
    for name, x in owl.load(path).items():
        same = owl.from_numpy(values[name])
        assert x.dtype == same.dtype and np.array_equal(x.to_numpy(), values[name]), name


@pytest.mark.parametrize("value", [np.ones(2, np.complex64), np.array(["a"]), np.array(["2020"], "M8[D]"),
                                   np.zeros(2, [("a", "f4")]), np.array([{}], object)], ids=lambda v: v.dtype.kind)  # fmt: skip
def test_what_cannot_be_read_is_named(value, tmp_path):
    np.savez(tmp_path / "x.npz", good=np.ones(2), bad=value)
    kind = "Object arrays" if value.dtype.kind == "O" else str(value.dtype)
    with pytest.raises(owl.DataError) as caught:
        owl.load(tmp_path / "x.npz")
    assert "'bad'" in str(caught.value) and kind in str(caught.value) and str(tmp_path / "x.npz") in str(caught.value)


@pytest.mark.parametrize("dtype, content", [("C64", bytes(16)), ("F4", bytes(1))])
def test_tensors_that_cannot_be_read_are_named(dtype, content, tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"good": ("F32", [1], bytes(4)), "bad": (dtype, [2], content)})
    with pytest.raises(owl.DataError, match=rf"'bad' .*{dtype}"):
        owl.load(path)


# ---- Names that are not text ---------------------------------------------------------------------------------------

# Runs in a folder whose name is not UTF-8: all functions that report places, take paths or show them.
NO_TEXT = r"""
    import json, os, sys
    import owl

    def here(name):
        return os.path.join(os.path.dirname(__file__), os.fsdecode(name))

    x = owl.ones([3]) * 2
    assert x.sum().item() == 6
    plan = owl.explain(lambda: x + 1)
    assert plan.tasks[0].places == [__file__ + ":10"], plan.tasks[0].places
    assert isinstance(str(plan), str)
    for path in (here(b"trace\xff.json"), os.fsencode(here(b"bytes\xff.json"))):
        with owl.profile(path):
            (x + 5).sum().item()
        with open(path, encoding="utf-8") as file:
            events = json.load(file)["traceEvents"]
        assert __file__ + ":15" in [event["args"].get("line") for event in events]
    with open(os.devnull, "w", errors="surrogateescape") as file:
        owl.dump(file)
    owl.dump()
    with owl.trace_nan():
        y = owl.elewise.ln(owl.zeros([2]))
        try:
            y.to_numpy()
        except owl.NaNError as error:
            assert f"recorded at {__file__}:23)" in str(error), str(error)

    @owl.op
    def fails(x):
        raise ValueError(os.fsdecode(b"no such \xff"))
    try:
        fails(x).to_numpy()
    except owl.Error as error:
        assert os.fsdecode(b"no such \xff") in str(error)
    for suffix in (".npz", ".safetensors") if sys.argv[1] == "1" else (".npz",):
        path = here(b"arrays\xff") + suffix
        for name in (path, os.fsencode(path)):
            owl.save(name, {"x": x})
            assert owl.load(name)["x"].shape == [3]
    for call in (lambda: owl.load(here(b"none\xff.npz")), lambda: owl.create_gpu_device(99),
                 lambda: owl._owl.start_profile(here(b"none\xff/trace.json"))):
        try:
            call()
        except owl.Error as error:
            message = str(error)
        else:
            raise AssertionError(call)
    assert here(b"none\xff/trace.json") in message
    assert owl.get_gpu_device_count() >= 0 and owl.has_cuda() in (True, False)
    print("good", owl.__file__ == here(b"owl/__init__.py"))
"""


@pytest.fixture
def no_text(tmp_path):
    """A folder whose name is not UTF-8."""
    folder = os.path.join(os.fsencode(tmp_path), b"caf\xe9 \xff")
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("the file system takes no such names")
    return folder


def run_there(folder, command, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OWL_")}
    return subprocess.run(command, env={**kept, "PYTHONIOENCODING": "utf-8:strict", **environment},
                          capture_output=True, timeout=100, cwd="/")  # fmt: skip


@pytest.mark.parametrize("own_package", [False, True])
def test_names_that_are_no_text(no_text, own_package):
    # Invalid UTF-8 among valid characters: overlong, a surrogate, too large, truncated; 2, 3 and 4 bytes.
    script = os.path.join(no_text, b"\xff \xc0\xaf \xe0\x80\x80 \xed\xa0\x80 \xf4\x90\x80\x80 \xf0\x80\x80\x80 \xe2\x82 "
                          b"\xc3\xa9 \xe2\x82\xac \xed\x9f\xbf \xf0\x9f\xa6\x89 \xf4\x8f\xbf\xbf \xc3.py")  # fmt: skip
    Path(os.fsdecode(script)).write_text(textwrap.dedent(NO_TEXT), encoding="utf-8")
    package = os.path.dirname(os.fsencode(owl.__file__))
    environment = {"OWL_DUMP": os.path.join(no_text, b"d\xff"), "OWL_LOG": "plan,run,memory"}
    if own_package:
        os.symlink(package, os.path.join(no_text, b"owl"))
        environment["PYTHONPATH"] = no_text
    done = run_there(no_text, [sys.executable, script, str(int(has_safetensors()))], **environment)
    assert done.stdout == b"good %s\n" % str(own_package).encode(), done.stderr.decode(errors="replace")[-3000:]
    assert done.returncode == 0 and os.listdir(os.path.join(no_text, b"d\xff"))
    if own_package:
        for arguments in ([], ["--cmake-dir"]):
            done = run_there(no_text, [sys.executable, "-m", "owl", *arguments], PYTHONPATH=no_text)
            shown = os.path.join(no_text, b"owl")
            assert shown in done.stdout or b"there is no" in done.stderr and b"Traceback" not in done.stderr


def test_a_profile_of_the_whole_run_under_a_name_that_is_no_text(no_text):
    path = os.path.join(no_text, b"trace\xff.json")
    done = run_there(no_text, [sys.executable, "-c", "import owl; owl.ones([2]).sum().item()"], OWL_PROFILE=path)
    assert (done.returncode, done.stderr) == (0, b"")
    with open(path, encoding="utf-8") as file:
        assert json.load(file)["traceEvents"]


@functools.cache
def has_safetensors():
    try:
        import safetensors  # noqa: F401
    except ImportError:
        return False
    return True


# ---- Metadata -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_metadata(tmp_path, suffix):
    path, plain = tmp_path / f"x{suffix}", tmp_path / f"plain{suffix}"
    texts = {"epoch": "7", "__metadata__": 'quotes " and umlauts äöü \u2603', "": ""}
    owl.save(path, {"w": owl.ones([2])}, metadata=texts)
    owl.save(plain, {"w": owl.ones([2])})
    assert owl.load_metadata(path) == texts and owl.load_metadata(plain) == {}
    assert list(owl.load(path)) == ["w"] == list(owl.load(plain))
    for wrong in ({"a": 1}, {1: "a"}, "text", [("a", "b")]):
        with pytest.raises(TypeError, match="texts by name"):
            owl.save(path, {"w": owl.ones([2])}, metadata=wrong)
    assert owl.load_metadata(path) == texts
    with pytest.raises(owl.DataError, match="no such file"):
        owl.load_metadata(tmp_path / f"missing{suffix}")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(owl.DataError, match="not a readable"):
        owl.load_metadata(path)


def test_metadata_that_are_not_texts(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as members:
        members.writestr("__metadata__.json", '{"a": [1]}')
    with pytest.raises(owl.DataError, match="texts"):
        owl.load_metadata(tmp_path / "x.npz")
