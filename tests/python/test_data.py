"""Downloads, from HTTP servers on 127.0.0.1 that misbehave in every usual way. No test leaves this machine."""

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import run_on_terminal
from mirror import Server

import owl
from owl import data

PATIENCE = 100  # seconds until something counts as hung; no test is about speed
SHORT = 1.0  # the time-out where a server is silent on purpose

CONTENTS = {
    "large.bin": np.random.default_rng(1).bytes(300_000),
    "middle.bin": np.random.default_rng(2).bytes(70_000),
    "small.bin": np.random.default_rng(3).bytes(100),
}
LARGE = CONTENTS["large.bin"]
FILES = tuple(data.DataFile(name, len(c), hashlib.md5(c).hexdigest()) for name, c in CONTENTS.items())


@pytest.fixture
def serve(monkeypatch):
    """serve(behave, ...) starts a server for each argument (None: a sound one) and makes them the mirrors, in order."""
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
def surroundings(monkeypatch, tmp_path):
    """A data set called test, an empty cache, no proxy between this process and 127.0.0.1, and no pauses."""
    monkeypatch.setitem(data.DATA_SETS, "test", data.DataSet(("http://mirror.invalid/",), FILES))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(data, "PAUSE_S", 0)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "folder"


def free_port():
    """A port of 127.0.0.1 where nobody listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def assert_complete(folder):
    """The folder holds the data set and nothing else."""
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENTS


def fetch(folder, **options):
    return data.fetch("test", folder, **{"timeout": PATIENCE, "quiet": True, **options})


def failure(folder, **options):
    with pytest.raises(owl.DataError) as caught:
        fetch(folder, **options)
    return str(caught.value)


# ---- All is well ----------------------------------------------------------------------------------------------------


def test_a_complete_download(serve, folder, capsys):
    server = serve(None)
    assert fetch(folder, quiet=False) == folder
    assert_complete(folder)
    assert server.requests == [(name, None) for name in CONTENTS]
    out, err = capsys.readouterr()  # not a terminal: a line for each file
    assert out == "" and "\r" not in err
    assert [line.split(":")[0] for line in err.splitlines()] == list(CONTENTS)
    assert f"large.bin: 300,000 bytes from {server.url}large.bin" in err


def test_nothing_is_asked_for_what_is_there(serve, folder, capsys):
    server = serve(None)
    fetch(folder)
    server.requests.clear()
    fetch(folder, quiet=False)
    assert server.requests == []
    assert capsys.readouterr().err == ""
    (folder / "middle.bin").unlink()
    fetch(folder)
    assert server.requests == [("middle.bin", None)]
    assert_complete(folder)


def test_a_complete_folder_needs_no_mirrors(serve, folder, monkeypatch):
    serve(None)
    fetch(folder)
    for mirrors in ("", "not an address"):
        monkeypatch.setenv("OWL_MIRRORS", mirrors)
        assert fetch(folder) == folder


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c[:9] + b"?" + c[10:], lambda c: b""])
def test_a_damaged_file_is_replaced(serve, folder, damage):
    server = serve(None)
    fetch(folder)
    server.requests.clear()
    (folder / "middle.bin").write_bytes(damage(CONTENTS["middle.bin"]))
    fetch(folder)
    assert server.requests == [("middle.bin", None)]
    assert_complete(folder)


@pytest.mark.parametrize("there", [False, True])
def test_a_symbolic_link_stays_and_a_mode_is_kept(serve, folder, tmp_path, there):
    serve(None)
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "target"
    (folder / "middle.bin").symlink_to(target)
    (folder / "small.bin").write_bytes(b"damaged")
    (folder / "small.bin").chmod(0o600)
    if there:
        target.write_bytes(b"damaged")
        target.chmod(0o640)
    fetch(folder)
    assert_complete(folder)
    assert (folder / "middle.bin").is_symlink() and target.read_bytes() == CONTENTS["middle.bin"]
    assert os.listdir(target.parent) == ["target"]
    assert (folder / "small.bin").stat().st_mode & 0o777 == 0o600
    assert not there or target.stat().st_mode & 0o777 == 0o640


def test_the_default_folder_is_in_the_cache(serve, tmp_path):
    serve(None)
    assert data.fetch("test", quiet=True) == tmp_path / "cache" / "owl" / "test"
    assert_complete(tmp_path / "cache" / "owl" / "test")


def test_a_redirection_is_followed_with_the_range(serve, folder):
    target = serve(None)

    def redirect(request, number):
        request.send_response(302)
        request.send_header("Location", target.url + request.name)
        request.send_header("Content-Length", "0")
        request.end_headers()
        return True

    serve(redirect)
    folder.mkdir()
    (folder / "large.bin.part").write_bytes(LARGE[:1000])
    fetch(folder)
    assert_complete(folder)
    assert target.ranges("large.bin") == ["bytes=1000-"]


def test_chunked_transfer(serve, folder):
    def chunked(request, number):
        request.protocol_version = "HTTP/1.1"
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.send_header("Connection", "close")
        request.end_headers()
        for at in range(0, len(request.content), 7777):
            piece = request.content[at : at + 7777]
            request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        request.wfile.write(b"0\r\n\r\n")
        request.close_connection = True
        return True

    serve(chunked)
    fetch(folder)
    assert_complete(folder)


# ---- Transfers that break off ---------------------------------------------------------------------------------------


def test_a_broken_transfer_goes_on_where_it_ended(serve, folder):
    def cut(request, number):
        if number < 2:
            request.honest(keep=100_000)
            return True

    server = serve(cut)
    fetch(folder)
    assert_complete(folder)
    assert server.ranges("large.bin") == [None, "bytes=100000-", "bytes=200000-"]


def test_another_mirror_goes_on_where_one_ended(serve, folder):
    def once(request, number):
        if number == 0:
            request.honest(keep=150_000)
        else:
            request.send_error(503)
        return True

    first, second = serve(once, None)
    fetch(folder)
    assert_complete(folder)
    assert first.ranges("large.bin") == [None, "bytes=150000-"]
    assert second.ranges("large.bin") == ["bytes=150000-"]
    assert len(first.requests) == 2  # for the later files, the mirror that works is asked first


def test_a_later_run_goes_on_where_one_ended(serve, folder):
    def cut(request, number):
        if number == 0:
            request.honest(keep=120_000)
        else:
            request.send_error(500)
        return True

    serve(cut)
    message = failure(folder)
    assert "large.bin.part keeps the 120,000 bytes that came" in message and "500" in message
    assert (folder / "large.bin.part").read_bytes() == LARGE[:120_000]
    assert os.listdir(folder) == ["large.bin.part"]
    server = serve(None)
    fetch(folder)
    assert_complete(folder)
    assert server.ranges("large.bin") == ["bytes=120000-"]


def test_a_part_that_is_whole_only_needs_its_name(serve, folder):
    server = serve(None)
    folder.mkdir()
    (folder / "large.bin.part").write_bytes(LARGE)
    fetch(folder)
    assert_complete(folder)
    assert server.ranges("large.bin") == []


@pytest.mark.parametrize("part", [b"x" * 1000, b"x" * len(LARGE), b"x" * (len(LARGE) + 1)])
def test_a_part_that_is_wrong_is_started_anew(serve, folder, part):
    server = serve(None)
    folder.mkdir()
    (folder / "large.bin.part").write_bytes(part)
    fetch(folder)
    assert_complete(folder)
    assert server.ranges("large.bin")[-1] is None


def test_a_server_without_ranges_starts_anew(serve, folder):
    def no_ranges(request, number):
        if number == 0:
            request.honest(keep=100_000)
        else:
            request.whole(request.content)
        return True

    server = serve(no_ranges)
    fetch(folder)
    assert_complete(folder)
    assert server.ranges("large.bin") == [None, "bytes=100000-"]


@pytest.mark.parametrize("content_range", [None, "bytes 0-299999/300000", "bytes 5-9/10", "nonsense"])
def test_a_wrong_range_starts_anew(serve, folder, content_range):
    def wrong(request, number):
        if request.headers.get("Range"):
            request.send_response(206)
            request.send_header("Content-Length", "5")
            if content_range is not None:
                request.send_header("Content-Range", content_range)
            request.end_headers()
            request.wfile.write(b"12345")
            return True

    server = serve(wrong)
    folder.mkdir()
    (folder / "large.bin.part").write_bytes(LARGE[:1000])
    fetch(folder)
    assert_complete(folder)
    assert server.ranges("large.bin") == ["bytes=1000-", None]


def test_a_range_that_is_refused_starts_anew(serve, folder):
    def refuse(request, number):
        if request.headers.get("Range"):
            request.send_error(416)
            return True

    server = serve(refuse)
    folder.mkdir()
    (folder / "large.bin.part").write_bytes(LARGE[:1000])
    fetch(folder)
    assert_complete(folder)
    assert server.ranges("large.bin") == ["bytes=1000-", None]


def test_a_server_that_always_breaks_off_is_given_up(serve, folder):
    def byte_by_byte(request, number):
        request.honest(keep=1)
        return True

    server = serve(byte_by_byte)
    assert "broke off" in failure(folder)
    assert len(server.requests) == data.ROUNDS * data.MAX_RESUMES


# ---- Wrong contents -------------------------------------------------------------------------------------------------


def wrong(request, number):
    request.whole(bytes(len(request.content)))
    return True


def test_a_mirror_with_a_wrong_checksum_is_skipped(serve, folder):
    bad, good = serve(wrong, None)
    fetch(folder)
    assert_complete(folder)
    assert bad.requests == [("large.bin", None)]  # it is not asked a second time


def test_a_wrong_checksum_leaves_no_file(serve, folder):
    server = serve(wrong)
    message = failure(folder)
    found = hashlib.md5(bytes(300_000)).hexdigest()
    assert f"wrong checksum: md5 {found} where {FILES[0].md5} is right" in message
    assert os.listdir(folder) == []
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "length, word", [(299_999, "299,999"), (300_001, "300,001"), (0, "offers 0 "), (10**9, "1,000,000,000")]
)
def test_a_wrong_content_length(serve, folder, length, word):
    def lie(request, number):
        request.whole(request.content, Content_Length=length)
        return True

    liar, good = serve(lie, None)
    fetch(folder)
    assert_complete(folder)
    assert liar.requests == [("large.bin", None)]
    shutil.rmtree(folder)
    serve(lie)
    message = failure(folder)
    assert word in message and "300,000 are right" in message
    assert os.listdir(folder) == []


@pytest.mark.parametrize("length", [None, "many"])
def test_no_usable_content_length(serve, folder, length):
    def unknown(request, number):
        request.whole(request.content, Content_Length=length)
        return True

    serve(unknown)
    fetch(folder)
    assert_complete(folder)


def test_a_body_without_end_is_not_read_to_its_end(serve, folder):
    def endless(request, number):
        request.send_response(200)
        request.end_headers()
        while not server.released.is_set():
            request.wfile.write(bytes(1 << 16))

    server = serve(endless)
    assert "wrong checksum" in failure(folder)
    assert os.listdir(folder) == []


def test_a_page_in_place_of_the_file(serve, folder):
    def page(request, number):
        request.whole(b"<html>Log in to this network</html>", Content_Type="text/html")
        return True

    serve(page)
    assert "offers 35 bytes" in failure(folder)
    (folder / "large.bin.part").write_bytes(LARGE[:1000])
    assert "offers 35 bytes" in failure(folder)
    assert (folder / "large.bin.part").read_bytes() == LARGE[:1000]  # which the page does not cost


# ---- Servers that are slow, dead, or say no -------------------------------------------------------------------------


def test_a_silent_server_is_given_up(serve, folder):
    def silent(request, number):
        request.silence()
        return True

    quiet, good = serve(silent, None)
    fetch(folder, timeout=SHORT)
    assert_complete(folder)
    assert quiet.requests == [("large.bin", None)]


def test_a_transfer_that_stands_still_is_given_up(serve, folder):
    def stall(request, number):
        request.honest(keep=50_000)
        request.wfile.flush()
        request.silence()
        return True

    stalling, good = serve(stall, None)
    fetch(folder, timeout=SHORT)
    assert_complete(folder)
    assert stalling.ranges("large.bin") == [None] and good.ranges("large.bin") == ["bytes=50000-"]


def test_a_dribbling_server_is_given_up(serve, folder):
    def dribble(request, number):
        request.honest(keep=0)
        for byte in request.content[request.begin :]:
            if server.released.wait(0.02):
                break
            request.wfile.write(bytes([byte]))
        return True

    server = serve(dribble)
    assert "too slow" in failure(folder, timeout=SHORT)
    assert LARGE.startswith((folder / "large.bin.part").read_bytes())


def test_a_dead_server_is_passed_over(serve, folder, monkeypatch):
    server = serve(None)
    monkeypatch.setenv("OWL_MIRRORS", f"http://127.0.0.1:{free_port()}/,{server.url.rstrip('/')}")
    fetch(folder)
    assert_complete(folder)


def test_a_server_that_hangs_up(serve, folder):
    def hang_up(request, number):
        request.connection.shutdown(socket.SHUT_RDWR)
        return True

    server, good = serve(hang_up, None)
    fetch(folder)
    assert_complete(folder)
    assert len(server.requests) == 1


def test_a_server_that_speaks_no_http(serve, folder):
    def nonsense(request, number):
        request.wfile.write(b"220 ftp.example ready\r\n")
        return True

    serve(nonsense, None)
    fetch(folder)
    assert_complete(folder)


@pytest.mark.parametrize("status, tries", [(403, 1), (404, 1), (410, 1), (429, 2), (500, 2), (503, 2)])
def test_statuses(serve, folder, status, tries):
    """What is likely to stay is not asked again; what may pass is, once."""

    def refuse(request, number):
        request.send_error(status)
        return True

    server = serve(refuse)
    assert f"HTTP status {status}" in failure(folder)
    assert server.requests == [("large.bin", None)] * tries
    assert os.listdir(folder) == []


def test_a_trouble_that_passes(serve, folder):
    def busy(request, number):
        if number == 0:
            request.send_error(503)
            return True

    server = serve(busy)
    fetch(folder)
    assert_complete(folder)
    assert server.ranges("large.bin") == [None, None]


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "self"])
def test_redirections_that_lead_nowhere(serve, folder, location):
    def redirect(request, number):
        request.send_response(302)
        request.send_header("Location", request.path if location == "self" else location)
        request.send_header("Content-Length", "0")
        request.end_headers()
        return True

    serve(redirect)
    assert re.search("302|unknown url type: ftp", failure(folder))
    assert os.listdir(folder) == []


def test_where_all_fail_the_message_lists_all(serve, folder, monkeypatch):
    def missing(request, number):
        request.send_error(404)
        return True

    def silent(request, number):
        request.silence()
        return True

    def cut(request, number):
        request.honest(keep=0)
        return True

    servers = serve(missing, wrong, silent, cut)
    dead = f"http://127.0.0.1:{free_port()}/"
    monkeypatch.setenv("OWL_MIRRORS", f"{os.environ['OWL_MIRRORS']},{dead},http://nowhere.invalid/")
    monkeypatch.setattr(data, "ROUNDS", 1)
    message = failure(folder, timeout=2 * SHORT)
    lines = [line.strip() for line in message.splitlines()]
    for url, words in zip(
        [*(server.url for server in servers), dead, "http://nowhere.invalid/"],
        [r"HTTP status 404", r"wrong checksum", r"no answer within 2 s|silent", r"broke off after 0 of 300,000 bytes",
         r"refused", r"."],
    ):  # fmt: skip
        (line,) = [line for line in lines if line.startswith(f"{url}large.bin: ")]
        assert re.search(words, line.removeprefix(f"{url}large.bin: ")), line
    assert message.startswith("large.bin could not be downloaded. Tried:")
    assert "OWL_MIRRORS" in message


# ---- The time for a first byte --------------------------------------------------------------------------------------


def test_a_first_byte_in_time_lifts_the_limit(serve, folder):
    serve(None)
    fetch(folder, first_byte_within=PATIENCE)
    assert_complete(folder)


def test_no_first_byte_in_time(serve, folder):
    def silent(request, number):
        request.silence()
        return True

    servers = serve(silent, silent, silent)
    message = failure(folder, first_byte_within=SHORT)  # though the time-out is PATIENCE
    assert len(re.findall("no answer within|not asked", message)) == 3
    assert all(len(server.requests) <= 1 for server in servers)


def test_every_mirror_gets_its_share_of_the_time(serve, folder):
    def silent(request, number):
        request.silence()
        return True

    serve(silent, silent, None)
    fetch(folder, first_byte_within=3)
    assert_complete(folder)


# ---- Names, folders, disks ------------------------------------------------------------------------------------------


def test_wrong_arguments(folder):
    with pytest.raises(ValueError, match="no data set 'mnits'; known: mnist"):
        data.fetch("mnits", folder)
    for timeout in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="timeout must be a positive number"):
            data.fetch("test", folder, timeout=timeout)
    with pytest.raises(ValueError, match="first_byte_within"):
        data.fetch("test", folder, first_byte_within=0)
    assert not folder.exists()


def test_mirrors(monkeypatch, folder):
    monkeypatch.delenv("OWL_MIRRORS")
    assert len(data.mirrors("mnist")) >= 3 and all(m.endswith("/mnist/") for m in data.mirrors("mnist"))
    monkeypatch.setenv("OWL_MIRRORS", " http://a/b , HTTPS://c/d/ ,, ")
    assert data.mirrors("mnist") == ["http://a/b/", "HTTPS://c/d/"]
    for wrong in ("ftp://a/b", "/srv/mirror", "http:/x"):
        monkeypatch.setenv("OWL_MIRRORS", f"http://a,{wrong}")
        assert f"found '{wrong}'" in failure(folder)
    monkeypatch.setenv("OWL_MIRRORS", "")
    assert "OWL_MIRRORS is empty" in failure(folder)


def test_the_mnist_table():
    """The four names that mnist_io looks for; checksums that can be some."""
    files = data.DATA_SETS["mnist"].files
    assert [file.name for file in files] == ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
                                             "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]  # fmt: skip
    assert len({file.md5 for file in files}) == 4 and all(re.fullmatch("[0-9a-f]{32}", file.md5) for file in files)


def test_a_full_disk(serve, folder):
    serve(None)
    folder.mkdir()
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    (folder / "large.bin.part").symlink_to("/dev/full")
    message = failure(folder)
    assert "large.bin.part: cannot be written: No space left on device" in message
    assert not (folder / "large.bin").exists()


def test_a_full_disk_keeps_what_came(serve, folder):
    """A limit on the size of files stands for the end of the disk; a later run goes on."""
    server = serve(None)
    script = f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        {RUN}
    """
    done = run_script(script, folder)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"error: {folder}/large.bin.part: cannot be written: File too large" in done.stderr
    assert (folder / "large.bin.part").read_bytes() == LARGE[:100_000]
    fetch(folder)
    assert_complete(folder)
    assert server.ranges("large.bin") == [None, "bytes=100000-"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(serve, folder):
    serve(None)
    folder.mkdir(mode=0o500)
    assert f"{folder}/large.bin.part: cannot be written: Permission denied" in failure(folder)


def test_a_folder_that_cannot_be(serve, tmp_path):
    server = serve(None)
    (tmp_path / "file").write_text("not a folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        message = failure(folder)
        assert f"{tmp_path / 'file'}" in message and "cannot be" in message
    assert server.requests == []


def test_a_folder_in_the_files_place(serve, folder):
    serve(None)
    (folder / "large.bin").mkdir(parents=True)
    assert f"{folder}/large.bin: cannot be read: Is a directory" in failure(folder)
    (folder / "large.bin").rmdir()
    (folder / "large.bin.part").mkdir()
    assert f"{folder}/large.bin.part: cannot be written: Is a directory" in failure(folder)


# ---- Several at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("locks", [True, False])
def test_threads_that_fetch_at_once(serve, folder, locks, monkeypatch):
    if not locks:  # as on some network file systems
        monkeypatch.setattr(data.fcntl, "flock", lambda *args: os.close(-1))
    server = serve(None)
    together = threading.Barrier(6)
    errors = []

    def work():
        together.wait(PATIENCE)
        try:
            fetch(folder)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert errors == []
    assert_complete(folder)
    if locks:
        assert server.requests == [(name, None) for name in CONTENTS]  # once, whoever was first


# The data set of this file, and the command line, in a process of its own.
RUN = f"""
        import sys
        import owl.data
        files = tuple(owl.data.DataFile(*f) for f in {[tuple(f) for f in FILES]!r})
        owl.data.DATA_SETS["test"] = owl.data.DataSet((), files)
        sys.exit(owl.data.main(["fetch", "test", "--folder", sys.argv[1], *sys.argv[2:]]))
"""


def script_command(text, folder, *options):
    return [sys.executable, "-c", "\n".join(line[8:] for line in text.splitlines()), str(folder), *map(str, options)]


def run_script(text, folder, *options):
    return subprocess.run(script_command(text, folder, *options), capture_output=True, text=True, timeout=PATIENCE)


def test_processes_that_fetch_at_once(serve, folder):
    gate = threading.Semaphore(0)

    def wait_for_all(request, number):
        if number == 0:  # The first transfer lasts until every process had time to come across the others' part.
            request.honest(keep=50_000)
            gate.acquire(timeout=1)
            return True

    server = serve(wait_for_all)
    running = [subprocess.Popen(script_command(RUN, folder, "--quiet"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True) for _ in range(3)]  # fmt: skip
    results = [process.communicate(timeout=PATIENCE) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], results
    assert all(out == f"{folder}\n" and err == "" for out, err in results)
    assert_complete(folder)
    assert server.requests == [("large.bin", None), ("large.bin", "bytes=50000-"), ("middle.bin", None),
                               ("small.bin", None)]  # fmt: skip


def test_a_process_that_holds_the_part_and_stands_still(serve, folder):
    import fcntl

    server = serve(None)
    folder.mkdir()
    with open(folder / "large.bin.part", "wb") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        assert "another process is downloading this file but gets no further" in failure(folder, timeout=SHORT)
        assert "another process" in failure(folder, first_byte_within=SHORT)
    assert server.requests == []
    fetch(folder)
    assert_complete(folder)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_download_goes_on(serve, folder, how):
    halfway = threading.Event()

    def stall(request, number):
        if number == 0:
            request.honest(keep=140_000)
            halfway.set()
            request.silence()
            return True

    server = serve(stall)
    process = subprocess.Popen(script_command(RUN, folder, "--timeout", PATIENCE), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        assert halfway.wait(PATIENCE)
        part = folder / "large.bin.part"
        while process.poll() is None and (not part.exists() or part.stat().st_size < 140_000):
            pass
        process.send_signal(how)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    if how == signal.SIGINT:
        assert process.returncode == 130 and "interrupted" in err and "Traceback" not in err
    assert os.listdir(folder) == ["large.bin.part"] and part.read_bytes() == LARGE[:140_000]
    assert run_script(RUN, folder).returncode == 0
    assert_complete(folder)
    assert server.ranges("large.bin") == [None, "bytes=140000-"]


def test_ctrl_c_while_a_server_is_silent(serve, folder):
    asked = threading.Event()

    def silent(request, number):
        asked.set()
        request.silence()
        return True

    serve(silent)
    process = subprocess.Popen(script_command(RUN, folder, "--timeout", PATIENCE), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        assert asked.wait(PATIENCE)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in err


# ---- The command line -----------------------------------------------------------------------------------------------


def command(*options):
    return subprocess.run([sys.executable, "-W", "error", "-m", "owl.data", *map(str, options)], capture_output=True,
                          text=True, timeout=PATIENCE)  # fmt: skip


def test_command_line(serve, folder, monkeypatch):
    done = command("fetch", "--help")
    assert done.returncode == 0
    for word in ("mnist", "--folder", "--timeout", "--quiet", "OWL_MIRRORS"):
        assert word in done.stdout
    for wrong, word in ((["fetch", "x"], "mnist"), ([], "COMMAND"), (["fetch", "mnist", "--timeout=0"], "positive")):
        done = command(*wrong)
        assert done.returncode == 2 and word in done.stderr

    server = serve(None)  # which has no MNIST
    done = command("fetch", "mnist", "--folder", folder, "--timeout", PATIENCE)
    assert done.returncode == 1 and done.stdout == "" and "Traceback" not in done.stderr
    assert f"{server.url}train-images-idx3-ubyte.gz: HTTP status 404" in done.stderr

    done = run_script(RUN, folder)
    assert done.returncode == 0 and done.stdout == f"{folder}\n" and len(done.stderr.splitlines()) == len(FILES)
    done = run_script(RUN, folder, "--quiet")
    assert done.returncode == 0 and done.stderr == ""


def test_progress_bar_on_a_terminal(serve, folder):
    pytest.importorskip("tqdm")
    serve(lambda request, number: number == 0 and (request.honest(keep=100_000) or True))
    code, out, shown = run_on_terminal(script_command(RUN, folder), PATIENCE)
    assert code == 0 and out == f"{folder}\n"
    assert "large.bin" in shown and "%" in shown and "300k" in shown
    assert_complete(folder)


def test_importing_owl_imports_no_downloader():
    def imported_by(code):
        code += "; print(*{'urllib.request', 'http.client', 'ssl', 'tqdm', 'hashlib'} & set(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return set(done.stdout.split())

    by_owl = imported_by("import sys, owl; assert 'owl.data' not in sys.modules; owl.data.fetch")
    assert by_owl <= imported_by("import sys, numpy")
