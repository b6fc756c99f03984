"""Downloads, from HTTP servers on 127.0.0.1, some of which misbehave. No test leaves this machine."""

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import owl
from conftest import run_on_terminal
from mirror import Server
from owl import data

pytest.importorskip("pooch")

PATIENCE = 100  # seconds until a call counts as hung; no test measures speed
SHORT = 1.0  # the timeout for a server that is silent on purpose

SIZES = {"large.bin": 300_000, "middle.bin": 70_000, "small.bin": 100}
CONTENTS = {name: np.random.default_rng(size).bytes(size) for name, size in SIZES.items()}
FILES = tuple(data.DataFile(name, len(c), hashlib.md5(c).hexdigest()) for name, c in CONTENTS.items())


@pytest.fixture
def serve(monkeypatch):
    """serve(behave, ...) starts a server per argument (None: a correct one) and makes them the mirrors, in order."""
    servers = []

    def start(*behaviours):
        started = [Server(CONTENTS, behave) for behave in behaviours]
        servers.extend(started)
        monkeypatch.setenv("OWL_MIRRORS", ", ".join(server.url for server in started))
        return started[0] if len(started) == 1 else started

    yield start
    for server in servers:
        server.close()


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """The target folder, with a data set called test, an empty cache, and no proxy for 127.0.0.1."""
    monkeypatch.setitem(data.DATA_SETS, "test", data.DataSet(("http://mirror.invalid/",), FILES))
    for name, value in (("XDG_CACHE_HOME", tmp_path / "cache"), ("no_proxy", "*"), ("NO_PROXY", "*")):
        monkeypatch.setenv(name, str(value))
    return tmp_path / "folder"


def assert_complete(folder):
    """Checks that the folder has the data set and nothing else."""
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENTS


def fetch(folder, **options):
    return data.fetch("test", folder, **{"timeout": PATIENCE, "quiet": True, **options})


def failure(folder, **options):
    with pytest.raises(owl.DataError) as caught:
        fetch(folder, **options)
    return str(caught.value)


def test_a_complete_download(serve, tmp_path, capsys):
    server = serve(None)
    folder = data.fetch("test")
    assert folder == tmp_path / "cache" / "owl" / "test"
    assert_complete(folder)
    assert server.requests == list(CONTENTS)
    out, err = capsys.readouterr()  # not a terminal: a line for each file
    assert out == "" and "\r" not in err
    assert [line.split(":")[0] for line in err.splitlines()] == list(CONTENTS)
    assert f"large.bin: 300,000 bytes from {server.url}large.bin" in err
    (folder / "other").touch()
    assert (folder / "large.bin").stat().st_mode == (folder / "other").stat().st_mode


def test_only_what_is_missing_is_asked_for(serve, folder, monkeypatch):
    server = serve(None)
    fetch(folder)
    (folder / "middle.bin").unlink()
    fetch(folder)
    for wrong in (CONTENTS["small.bin"][:-1], b"?" + CONTENTS["small.bin"][1:], b""):
        (folder / "small.bin").write_bytes(wrong)
        fetch(folder)
    assert server.requests == [*CONTENTS, "middle.bin", "small.bin", "small.bin", "small.bin"]
    assert_complete(folder)
    for mirrors in ("", "not an address"):
        monkeypatch.setenv("OWL_MIRRORS", mirrors)
        assert fetch(folder) == folder


def test_symbolic_links_stay_and_modes_are_kept(serve, folder, tmp_path):
    serve(None)
    folder.mkdir()
    (folder / "large.bin").symlink_to(tmp_path / "new")
    (folder / "middle.bin").symlink_to(tmp_path / "old")
    for damaged, mode in ((tmp_path / "old", 0o640), (folder / "small.bin", 0o600)):
        damaged.write_bytes(b"damaged")
        damaged.chmod(mode)
    fetch(folder)
    assert_complete(folder)
    assert [(folder / name).is_symlink() for name in CONTENTS] == [True, True, False]
    assert [(folder / name).stat().st_mode & 0o777 for name in ("middle.bin", "small.bin")] == [0o640, 0o600]
    assert sorted(os.listdir(tmp_path)) == ["folder", "new", "old"]


def test_a_file_that_is_called_compressed_is_kept_as_it_is(serve, folder):
    """Like yann.lecun.com; here also without a length, and after a redirection."""
    target = serve(lambda request: request.whole(request.content, Content_Encoding="x-gzip", Content_Length=None))
    serve(lambda request: request.redirect(target.url + request.name))
    fetch(folder)
    assert_complete(folder)


def silent(request):
    request.silence()


def stall(request):
    request.whole(request.content, keep=50_000)
    request.silence()


def endless(request):
    request.whole(b"", Content_Length=None)
    for _ in range(1000):
        request.wfile.write(bytes(1 << 16))  # until the client disconnects
    raise AssertionError("64 MB were taken for a file of 300 kB")


FAILURES = {  # and the message of each
    lambda request: request.whole(bytes(len(request.content))): "300,000 bytes with md5 .* are right",
    lambda request: request.whole(request.content, keep=50_000): "IncompleteRead",
    lambda request: request.send_error(404): "404",
    lambda request: request.redirect("file:///etc/passwd"): "No connection adapters",
    silent: "timed out",
    stall: "timed out",
    endless: "more than 300,000 bytes",
}


def test_mirrors_are_asked_in_turn(serve, folder):
    *failing, good = serve(*FAILURES, None)
    fetch(folder, timeout=SHORT)
    assert_complete(folder)
    assert [server.requests for server in failing] == [["large.bin"]] * len(FAILURES)
    assert good.requests == list(CONTENTS)  # comes first once it has answered
    good.close()
    (folder / "middle.bin").unlink()
    first, *lines, last = failure(folder, timeout=SHORT).splitlines()
    assert first == "middle.bin could not be downloaded. Tried:" and "OWL_MIRRORS" in last
    for line, server, words in zip(lines, [*failing, good], [*FAILURES.values(), "refused"], strict=True):
        assert re.fullmatch(f"  {server.url}middle.bin: .*{words.replace('300,', '70,')}.*", line)
    assert sorted(os.listdir(folder)) == ["large.bin", "small.bin"]


def test_the_time_for_a_first_byte(serve, folder, monkeypatch):
    def late(request):
        time.sleep(0 if request.name == "small.bin" else 1.5 * SHORT)
        return False

    serve(silent, silent)
    assert re.search("timed out|no answer", failure(folder, first_byte_within=SHORT))  # though timeout=PATIENCE
    serve(silent, silent, None)
    fetch(folder, first_byte_within=3 * SHORT)  # Each mirror gets its share of the time.
    assert_complete(folder)
    for name in CONTENTS:
        (folder / name).unlink()
    serve(list(FAILURES)[1], late)
    fetch(folder, first_byte_within=SHORT)  # Any answer lifts the limit, also a faulty one.
    assert_complete(folder)
    (folder / "small.bin").unlink()
    hanging = threading.Event()  # like an unresponsive name server
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: hanging.wait(PATIENCE) and [])
    assert "no answer within 1 s" in failure(folder, first_byte_within=SHORT)
    hanging.set()


def test_wrong_arguments_and_mirrors(monkeypatch, folder):
    with pytest.raises(ValueError, match="no data set 'mnits'; known: mnist"):
        data.fetch("mnits", folder)
    for option in ("timeout", "first_byte_within"):
        for seconds in (0, -1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match=f"{option} must be a positive number"):
                data.fetch("test", folder, **{option: seconds})
    monkeypatch.delenv("OWL_MIRRORS", raising=False)
    assert len(data.mirrors("mnist")) >= 3 and all(m.endswith("/mnist/") for m in data.mirrors("mnist"))
    monkeypatch.setenv("OWL_MIRRORS", " http://a/b , HTTPS://c/d/ ,, ")
    assert data.mirrors("mnist") == ["http://a/b/", "HTTPS://c/d/"]
    for wrong in ("ftp://a/b", "/srv/mirror", "http:/x"):
        monkeypatch.setenv("OWL_MIRRORS", f"http://a,{wrong}")
        assert f"found '{wrong}'" in failure(folder)
    monkeypatch.setenv("OWL_MIRRORS", "")
    assert "OWL_MIRRORS is empty" in failure(folder)
    assert not folder.exists()


def test_folders_that_cannot_be(serve, tmp_path, folder):
    server = serve(None)
    (tmp_path / "file").write_text("not a folder")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        assert re.match(f"{tmp_path / 'file'}.*cannot be", failure(place))
    (folder / "large.bin").mkdir(parents=True)
    assert f"{folder}/large.bin: cannot be written: Is a directory" in failure(folder)
    if os.geteuid() != 0:  # root may write everywhere
        (folder / "large.bin").rmdir()
        folder.chmod(0o500)
        assert f"{folder}/large.bin: cannot be written: Permission denied" in failure(folder)
    assert server.requests == []


# ---- Processes ------------------------------------------------------------------------------------------------------

# The data set of this file, and the command line.
RUN = f"""
import sys
import owl.data
files = tuple(owl.data.DataFile(*f) for f in {[tuple(f) for f in FILES]!r})
owl.data.DATA_SETS["test"] = owl.data.DataSet((), files)
sys.exit(owl.data.main(["fetch", "test", "--folder", sys.argv[1], *sys.argv[2:]]))
"""


def script_command(before, folder, *options):
    return [sys.executable, "-c", before + RUN, str(folder), *map(str, options)]


def run(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=PATIENCE)


def test_pooch_is_asked_for_where_it_is_missing(serve, folder):
    server = serve(None)
    without_pooch = "import sys; sys.modules['pooch'] = None"
    done = run(*script_command(without_pooch, folder))
    assert done.returncode == 1 and "pooch" in done.stderr and "pip install pooch" in done.stderr
    assert server.requests == [] and not folder.exists()
    fetch(folder)
    assert run(*script_command(without_pooch, folder)).stdout == f"{folder}\n"  # needs no download


def test_a_full_disk(serve, folder):
    """A limit on file sizes simulates a full disk."""
    serve(None)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    done = run(*script_command(limit, folder))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"error: {folder}/large.bin: cannot be written: File too large" in done.stderr
    assert os.listdir(folder) == []


def start(folder, *options):
    return subprocess.Popen(script_command("", folder, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_that_fetch_at_once(serve, folder):
    """Each gets all files, and every file with its final name is complete at any time."""
    together = threading.Barrier(3)

    def wait_for_all(request):
        if request.name != "large.bin":
            return False
        request.whole(request.content, keep=50_000)
        together.wait(PATIENCE)
        request.wfile.write(request.content[50_000:])

    serve(wait_for_all)
    running = [start(folder, "--quiet") for _ in range(3)]
    while any(process.poll() is None for process in running):
        for name, content in CONTENTS.items():
            assert not (folder / name).exists() or (folder / name).read_bytes() == content
    assert [process.communicate() for process in running] == [(f"{folder}\n", "")] * 3
    assert_complete(folder)


def test_ctrl_c(serve, folder):
    asked = threading.Event()
    serve(lambda request: request.name == "middle.bin" and (asked.set() or stall(request)))
    with start(folder, "--timeout", PATIENCE) as process:
        assert asked.wait(PATIENCE)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "interrupted" in err and "Traceback" not in err
    assert os.listdir(folder) == ["large.bin"]


def test_command_line(serve, folder):
    command = sys.executable, "-W", "error", "-m", "owl.data"
    done = run(*command, "fetch", "--help")
    assert done.returncode == 0
    for word in ("mnist", "--folder", "--timeout", "--quiet", "OWL_MIRRORS"):
        assert word in done.stdout
    for wrong, word in ((["fetch", "x"], "mnist"), ([], "COMMAND"), (["fetch", "mnist", "--timeout=0"], "positive")):
        done = run(*command, *wrong)
        assert done.returncode == 2 and word in done.stderr

    server = serve(None)  # a server without MNIST
    done = run(*command, "fetch", "mnist", "--folder", folder, "--timeout", PATIENCE)
    assert done.returncode == 1 and done.stdout == "" and "Traceback" not in done.stderr
    assert f"{server.url}train-images-idx3-ubyte.gz: 404" in done.stderr
    done = run(*script_command("", folder))
    assert done.returncode == 0 and done.stdout == f"{folder}\n" and len(done.stderr.splitlines()) == len(FILES)


def test_progress_bar_on_a_terminal(serve, folder):
    pytest.importorskip("tqdm")
    serve(list(FAILURES)[1], None)  # the first one truncates
    size = "import fcntl, struct, termios; fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack('4H', 24, 80, 0, 0))"
    code, out, shown = run_on_terminal(script_command(size, folder), PATIENCE)
    assert code == 0 and out == f"{folder}\n"
    assert "large.bin: 300,000 bytes" in shown and "100%" in shown and "300k" in shown
    assert_complete(folder)
