"""Data sets from the net: ``python -m owl.data fetch mnist``, or ``owl.data.fetch("mnist")``.

A data set is a few files with known sizes and checksums, held by several mirrors. A file is written to ``NAME.part``,
taken up again where an earlier try ended, and gets its name when its checksum is right: whoever finds ``NAME`` finds
the whole file. ``OWL_MIRRORS``, a comma-separated list of ``http://`` or ``https://`` folders, replaces the mirrors;
where it is set but empty, nothing is downloaded.
"""

import contextlib
import fcntl
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from owl._owl import DataError
from owl._replace import keep_mode_and_owner

# What only a download needs (urllib, hashlib, tqdm) is imported there: programs that find their data on disk
# import this module too.

__all__ = ["DATA_SETS", "DataFile", "DataSet", "cache_folder", "fetch", "main", "mirrors"]


class DataFile(NamedTuple):
    """A file of a data set: its name on the mirrors and on disk, its length in bytes and its md5 checksum."""

    name: str
    size: int
    md5: str


class DataSet(NamedTuple):
    """Files, and the addresses of the folders that hold all of them, the preferred one first."""

    mirrors: tuple[str, ...]
    files: tuple[DataFile, ...]


DATA_SETS = {
    "mnist": DataSet(
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "http://yann.lecun.com/exdb/mnist/",
        ),
        files=(
            DataFile("train-images-idx3-ubyte.gz", 9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            DataFile("train-labels-idx1-ubyte.gz", 28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
            DataFile("t10k-images-idx3-ubyte.gz", 1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
            DataFile("t10k-labels-idx1-ubyte.gz", 4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
        ),
    )
}

TIMEOUT_S = 10.0
ROUNDS = 2  # passes over the mirrors, for troubles that may be over soon
PAUSE_S = 0.5  # between the passes
MAX_RESUMES = 20  # transfers from one mirror for one file; each but the last has to bring something
SLOWEST = 1024  # bytes that have to come within the time-out
PIECE = 1 << 16
UPDATES_PER_SECOND = 4  # of the progress bar, at most

EXIT_FAILED = 1  # argparse's own 2 is for wrong options
EXIT_INTERRUPTED = 130  # what shells report for SIGINT


def fetch(
    name: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    timeout: float = TIMEOUT_S,
    first_byte_within: float | None = None,
    quiet: bool = False,
) -> Path:
    """Downloads what is missing of the data set `name`; gives the folder that then holds all of it.

    `folder` is made where it does not exist; by default it is `cache_folder() / name`. Files that are there and sound
    are kept, without any request; others of their names are replaced.

    `timeout` is how long, in seconds, a mirror may take to answer and then be silent. `first_byte_within` bounds the
    time until data comes at all, over all mirrors, for callers that can do without. Progress goes to stderr, unless
    `quiet`: a bar on a terminal where tqdm is installed, otherwise a line for each file.

    Raises `DataError` where no mirror gives a file, with the addresses and what each of them said, and where the
    folder cannot be written; `ValueError` for a name or a time that makes no sense.
    """
    if name not in DATA_SETS:
        raise ValueError(f"there is no data set {name!r}; known: {', '.join(DATA_SETS)}")
    for what, seconds in (("timeout", timeout), ("first_byte_within", first_byte_within)):
        if seconds is not None and not 0 < seconds < math.inf:
            raise ValueError(f"{what} must be a positive number of seconds, not {seconds!r}")
    if folder is None:
        cache = cache_folder()
        if cache is None:
            raise DataError(f"{name} cannot be cached: there is no home folder; set XDG_CACHE_HOME or name a folder")
        folder = cache / name
    download = _Download(name, Path(folder).expanduser(), timeout, first_byte_within, quiet)
    for file in DATA_SETS[name].files:
        download.get(file)
    return download.folder


def mirrors(name: str) -> list[str]:
    """The addresses that `fetch(name)` tries, in order: OWL_MIRRORS where it is set, else the data set's own."""
    text = os.environ.get("OWL_MIRRORS")
    if text is None:
        return list(DATA_SETS[name].mirrors)
    found = [address.strip() for address in text.split(",") if address.strip()]
    for address in found:
        if not address.lower().startswith(("http://", "https://")):
            raise DataError(f"OWL_MIRRORS: expected addresses that begin with http:// or https://, found {address!r}")
    return [address if address.endswith("/") else address + "/" for address in found]


def cache_folder() -> Path | None:
    """The user's cache folder for owl, which need not exist; None where the user has no home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # The XDG rules say to ignore a relative path.
        return Path(base) / "owl"
    try:
        return Path.home() / ".cache" / "owl"
    except RuntimeError:
        return None


# ---- One download ---------------------------------------------------------------------------------------------------


class _MirrorError(Exception):
    """What a mirror did wrong. `final`: it would do so again; `slow`: it took a whole time-out to do it."""

    def __init__(self, message: str, final: bool = False, slow: bool = False) -> None:
        super().__init__(message)
        self.final = final
        self.slow = slow


class _NoLocksError(Exception):
    """The file system locks no files."""


class _Download:
    """One call of `fetch`."""

    def __init__(self, name: str, folder: Path, timeout: float, patience: float | None, quiet: bool) -> None:
        self.name = name
        self.folder = folder
        self.timeout = timeout
        self.quiet = quiet
        self.mirrors: list[str] | None = None  # not known, nor needed, before a file is missing
        self.rounds = ROUNDS if patience is None else 1
        self.deadline = None if patience is None else time.monotonic() + patience  # for the first byte

    def get(self, file: DataFile) -> None:
        """Sees to it that the folder holds `file`."""
        final = Path(os.path.realpath(self.folder / file.name))  # a symbolic link stays
        if _is_sound(final, file):
            return
        if self.mirrors is None:
            self.mirrors = mirrors(self.name)
        if not self.mirrors:
            raise DataError(f"{file.name} cannot be downloaded: OWL_MIRRORS is empty, so there is nowhere to ask")
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        part = final.with_name(f"{final.name}.part")
        try:
            self._make(part, final, file)
        except _NoLocksError:  # as on some network file systems: each process downloads for itself
            private = part.with_name(f"{part.name}.{os.getpid()}-{threading.get_ident()}")
            try:
                self._make(private, final, file, lock=False)
            finally:
                private.unlink(missing_ok=True)

    def _make(self, path: Path, final: Path, file: DataFile, lock: bool = True) -> None:
        """Makes `final` by way of the part at `path`, which other processes may be about to do too."""
        while not _is_sound(final, file):
            with _writing(path), open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0) as stream:
                if lock:
                    self._lock(stream, path)
                # Another process may have completed or removed the file while this one waited for the lock.
                if not _is_at(path, stream):
                    continue
                if _is_sound(final, file):
                    path.unlink()
                    return
                self._complete(stream, path, file, keep=lock)
                os.fsync(stream.fileno())
                with contextlib.suppress(FileNotFoundError):
                    keep_mode_and_owner(stream.fileno(), os.stat(final))
                os.replace(path, final)

    def _lock(self, stream: Any, path: Path) -> None:
        """Waits for a process that writes the same part, as long as the part grows."""
        size, until = -1, 0.0
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                pass
            except OSError as error:
                if not _size(stream):
                    path.unlink(missing_ok=True)
                raise _NoLocksError from error
            now, found = time.monotonic(), _size(stream)
            if found != size:
                if size >= 0:
                    self.deadline = None
                size, until = found, now + self.rounds * len(self.mirrors or ()) * self.timeout
            elif now > until or (self.deadline is not None and now > self.deadline):
                raise DataError(f"{path}: another process is downloading this file but gets no further")
            time.sleep(0.05)

    def _complete(self, stream: Any, path: Path, file: DataFile, keep: bool) -> None:
        """Completes the part from whichever mirror does it; a mirror that did is the first to be asked next time."""
        assert self.mirrors is not None
        said: dict[str, str] = {}
        asked = list(self.mirrors)
        with _Progress(file, self.quiet) as progress:
            for round in range(self.rounds):
                if round and asked:
                    time.sleep(PAUSE_S)
                for i, mirror in enumerate(list(asked)):
                    url = mirror + file.name
                    try:
                        self._complete_from(url, len(self.mirrors) - i, stream, file, progress)
                    except _MirrorError as error:
                        said[url] = str(error)
                        if error.final:
                            asked.remove(mirror)
                        continue
                    progress.done(url)
                    self.mirrors.sort(key=lambda m: m != mirror)
                    return
        kept = _size(stream) if keep else 0
        if not kept:
            path.unlink(missing_ok=True)
        raise DataError(
            f"{file.name} could not be downloaded. Tried:\n"
            + "".join(f"  {url}: {problem}\n" for url, problem in said.items())
            + (f"{path} keeps the {kept:,} bytes that came; the next try goes on from there. " if kept else "")
            + "OWL_MIRRORS can name other addresses."
        )

    def _complete_from(self, url: str, left: int, stream: Any, file: DataFile, progress: "_Progress") -> None:
        """Completes the part from one address, in several transfers where they break off."""
        inherited = _size(stream) > 0  # bytes of another mirror or an earlier run, which may be what is wrong
        for resume in range(MAX_RESUMES):
            have = _size(stream)
            if have > file.size:
                _rewind(stream)
                have = 0
            if have < file.size:
                try:
                    self._transfer(url, left, stream, file, have, progress)
                except _MirrorError as error:
                    if error.final or error.slow or _size(stream) == have or resume == MAX_RESUMES - 1:
                        raise
                    continue
            found = _md5(stream)
            if found == file.md5:
                return
            _rewind(stream)
            if not inherited:
                raise _MirrorError(f"wrong checksum: md5 {found} where {file.md5} is right", final=True)
            inherited = False
        raise _MirrorError(f"the transfer broke off {MAX_RESUMES} times")

    def _transfer(self, url: str, left: int, stream: Any, file: DataFile, have: int, progress: "_Progress") -> None:
        """One request for what comes after the first `have` bytes."""
        import http.client

        with self._answer(url, left, have) as response:
            sent = response.headers.get("Content-Range", "")
            if response.status == 416 or (response.status == 206 and not _fits(sent, have, file.size)):
                _rewind(stream)  # The next request is for the whole file.
                raise _MirrorError(f"asked for the bytes from {have:,}, it sent the range {sent!r}")
            if response.status not in (200, 206):
                raise _MirrorError(f"HTTP status {response.status}", final=True)
            begin = have if response.status == 206 else 0  # A server may know no ranges.
            length = response.headers.get("Content-Length", "")
            if length.isdigit() and begin + int(length) != file.size:
                raise _MirrorError(f"offers {begin + int(length):,} bytes where {file.size:,} are right", final=True)
            if not begin:
                _rewind(stream)
            have = begin

            stream.seek(have)
            recent, until = 0, time.monotonic() + self.timeout
            while have < file.size:
                progress.at(have)
                try:
                    piece = response.read1(min(PIECE, file.size - have))
                except (OSError, http.client.HTTPException, ValueError) as error:
                    words = f"after {have:,} of {file.size:,} bytes: {self._words(error)}"
                    raise _MirrorError(words, slow=isinstance(error, TimeoutError)) from error
                if not piece:
                    raise _MirrorError(f"the transfer broke off after {have:,} of {file.size:,} bytes")
                self.deadline = None
                stream.write(piece)
                have += len(piece)
                recent += len(piece)
                if time.monotonic() > until:
                    if recent < SLOWEST and have < file.size:
                        raise _MirrorError(f"too slow: {recent} bytes in {self.timeout:g} s", slow=True)
                    recent, until = 0, time.monotonic() + self.timeout
            progress.at(have)

    def _answer(self, url: str, left: int, have: int) -> Any:
        """The response to a request for the bytes from `have`; its body is still to be read.

        `left` mirrors share what is left of the time for a first byte.
        """
        import http.client
        import socket
        import urllib.error
        import urllib.request

        from owl import __version__

        opener = urllib.request.OpenerDirector()  # of HTTP alone: a redirection may not lead to a file
        for handler in (
            urllib.request.ProxyHandler,
            urllib.request.HTTPHandler,
            urllib.request.HTTPSHandler,
            urllib.request.HTTPRedirectHandler,
            urllib.request.HTTPDefaultErrorHandler,
            urllib.request.HTTPErrorProcessor,
            urllib.request.UnknownHandler,
        ):
            opener.add_handler(handler())
        request = urllib.request.Request(url, headers={"User-Agent": f"owl/{__version__}"})
        if have:
            request.add_header("Range", f"bytes={have}-")
        limit = self.timeout
        if self.deadline is not None:
            limit = min(limit, (self.deadline - time.monotonic()) / left)
            if limit <= 0:
                raise _MirrorError("not asked: the time for a first answer was up")

        # Looking up a name has no time-out of its own, so a thread does it, which can be left to itself.
        outcome: list[Any] = []
        abandoned = threading.Event()

        def ask() -> None:
            try:
                response = opener.open(request, timeout=self.timeout)
            except BaseException as error:
                outcome.append(error)
            else:
                outcome.append(response)
                if abandoned.is_set():
                    response.close()

        thread = threading.Thread(target=ask, name="owl.data", daemon=True)
        thread.start()
        thread.join(limit)
        if thread.is_alive():
            abandoned.set()
            raise _MirrorError(f"no answer within {round(limit, 1):g} s")
        answer = outcome[0]
        if isinstance(answer, urllib.error.HTTPError):
            if answer.code == 416 and have:
                return answer
            answer.close()
            passing = answer.code >= 500 or answer.code in (408, 425, 429)
            raise _MirrorError(f"HTTP status {answer.code} ({answer.reason})", final=not passing) from answer
        if isinstance(answer, (OSError, http.client.HTTPException, ValueError)):
            reason = answer.reason if isinstance(answer, urllib.error.URLError) else answer
            final = isinstance(reason, (str, socket.gaierror, ConnectionRefusedError, http.client.InvalidURL))
            raise _MirrorError(self._words(reason), final) from answer
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _words(self, error: Any) -> str:
        """What an exception says, for the list of what was tried."""
        if isinstance(error, TimeoutError):
            return f"silent for {self.timeout:g} s"
        return str(getattr(error, "strerror", None) or error) or type(error).__name__


# ---- Files ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns what the file system refuses into a DataError that names the path."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot be written: {error.strerror or error}") from error


def _is_sound(path: Path, file: DataFile) -> bool:
    """Whether `path` holds `file`, to the last bit."""
    try:
        with open(path, "rb") as stream:
            return _size(stream) == file.size and _md5(stream) == file.md5
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _is_at(path: Path, stream: Any) -> bool:
    """Whether an open file still has the name `path`."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _size(stream: Any) -> int:
    return os.fstat(stream.fileno()).st_size


def _rewind(stream: Any) -> None:
    """Empties an open file."""
    if _size(stream):
        stream.truncate(0)
    stream.seek(0)


def _md5(stream: Any) -> str:
    import hashlib

    digest = hashlib.md5(usedforsecurity=False)  # to find accidents, not attacks
    stream.seek(0)
    while piece := stream.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def _fits(content_range: str, begin: int, size: int) -> bool:
    """Whether a Content-Range is the rest of the file from `begin` (its length may be left open, as `*`)."""
    return content_range.strip() in (f"bytes {begin}-{size - 1}/{size}", f"bytes {begin}-{size - 1}/*")


# ---- Progress -------------------------------------------------------------------------------------------------------


class _Progress:
    """The progress of one file on stderr: a bar on a terminal, otherwise one line when it is complete."""

    def __init__(self, file: DataFile, quiet: bool) -> None:
        self.file = file
        self.quiet = quiet
        self.bar: Any = None

    def __enter__(self) -> "_Progress":
        if not self.quiet and sys.stderr.isatty():
            with contextlib.suppress(ImportError):
                import importlib
                import shutil

                tqdm: Any = importlib.import_module("tqdm")  # which may be installed without its types
                tqdm.tqdm.monitor_interval = 0  # no thread that redraws a bar which waits
                # Asked for here because tqdm shows nothing on a terminal that does not know its size.
                columns, lines = shutil.get_terminal_size()
                self.bar = tqdm.tqdm(total=self.file.size, desc=self.file.name, unit="B", unit_scale=True, leave=False,
                                     ncols=columns, nrows=lines, mininterval=1 / UPDATES_PER_SECOND)  # fmt: skip
        return self

    def at(self, position: int) -> None:
        """So many bytes are there."""
        if self.bar is not None:
            if position < self.bar.n:  # The transfer began anew; what a bar has counted, it cannot take back.
                self.bar.reset()
            self.bar.update(position - self.bar.n)

    def done(self, url: str) -> None:
        """The file is complete."""
        self._close()
        if not self.quiet:
            print(f"{self.file.name}: {self.file.size:,} bytes from {url}", file=sys.stderr, flush=True)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def __exit__(self, *error: object) -> None:
        self._close()


# ---- Command line ---------------------------------------------------------------------------------------------------


def _seconds(text: str) -> float:
    """argparse's type for a time span."""
    import argparse

    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number of seconds, not {text!r}")
    return value


def main(arguments: list[str] | None = None) -> int:
    """``python -m owl.data``. Gives the exit code."""
    import argparse

    from owl.__main__ import print_any_path

    parser = argparse.ArgumentParser(prog="python -m owl.data", description="Data sets for owl's programs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser(
        "fetch",
        help="download a data set",
        description="Downloads what is missing of a data set and prints the folder that holds it.",
        epilog="OWL_MIRRORS, a comma-separated list of addresses, replaces the mirrors. An interrupted download goes "
        "on where it ended. Exit codes: 0 complete, 1 failed, 130 interrupted.",
    )
    command.add_argument("name", choices=sorted(DATA_SETS), help="the data set")
    command.add_argument("--folder", metavar="FOLDER", help="where to (default: the user's cache for owl)")
    command.add_argument("--timeout", type=_seconds, default=TIMEOUT_S, metavar="SECONDS",
                         help="how long a mirror may be silent (default: %(default)g)")  # fmt: skip
    command.add_argument("--quiet", action="store_true", help="no progress on stderr")
    options = parser.parse_args(arguments)
    print_any_path()
    try:
        print(fetch(options.name, options.folder, timeout=options.timeout, quiet=options.quiet))
    except DataError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
