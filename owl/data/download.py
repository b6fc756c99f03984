"""Downloads data sets: ``python -m owl.data fetch mnist``, or ``owl.data.fetch("mnist")``.

A data set is a few files with known sizes and checksums, which several mirrors have. A file gets its final name only
when it is complete and its checksum is right: a reader that finds ``NAME`` finds the whole file, and several processes
may fetch it at once. ``OWL_MIRRORS``, a comma-separated list of ``http://`` or ``https://`` folders, replaces the
mirrors; if it is set but empty, nothing is downloaded. A download needs pooch (``pip install pooch``); files
that exist already need neither pooch nor a network.
"""

import contextlib
import importlib.util
import io
import math
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from owl._owl import DataError
from owl._replace import replacing

# Only the download imports pooch, hashlib and tqdm: programs that find their data on disk import this module too.

__all__ = ["DATA_SETS", "DataFile", "DataSet", "cache_folder", "fetch", "main", "mirrors"]


class DataFile(NamedTuple):
    """A file of a data set: its name on the mirrors and on disk, its length in bytes and its md5 checksum."""

    name: str
    size: int
    md5: str


class DataSet(NamedTuple):
    """Files, and the addresses of the folders that have all of them, the preferred one first."""

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
PIECE = 1 << 16  # bytes of one read

EXIT_FAILED = 1  # argparse exits with 2 for wrong options
EXIT_INTERRUPTED = 130  # what shells report for SIGINT


def fetch(
    name: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    timeout: float = TIMEOUT_S,
    first_byte_within: float | None = None,
    quiet: bool = False,
) -> Path:
    """Downloads the missing files of the data set `name`; returns the folder that then has all of them.

    `folder` is created if it does not exist; by default it is `cache_folder() / name`. Existing files with the right
    checksum are kept, without any request; files with a wrong one are replaced.

    `timeout` is how long, in seconds, a mirror may be silent before `fetch` tries the next. `first_byte_within` bounds
    the time until any of them answers, for callers that can do without the data. Progress goes to stderr, unless
    `quiet`: a bar on a terminal if tqdm is installed, otherwise a line for each file.

    Raises `DataError` if no mirror gives a file, with each address and its answer, if the folder cannot be written, or
    if pooch is not installed; `ValueError` for an unknown name or an invalid time.
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
    folder = Path(folder).expanduser()
    missing = [file for file in DATA_SETS[name].files if not _is_sound(folder / file.name, file)]
    if missing:
        _download(missing, folder, mirrors(name), timeout, first_byte_within, quiet)
    return folder


def mirrors(name: str) -> list[str]:
    """The addresses that `fetch(name)` tries, in order: OWL_MIRRORS if it is set, else the data set's own."""
    text = os.environ.get("OWL_MIRRORS")
    if text is None:
        return list(DATA_SETS[name].mirrors)
    found = [address.strip() for address in text.split(",") if address.strip()]
    for address in found:
        if not address.lower().startswith(("http://", "https://")):
            raise DataError(f"OWL_MIRRORS: expected addresses that begin with http:// or https://, found {address!r}")
    return [address if address.endswith("/") else address + "/" for address in found]


def cache_folder() -> Path | None:
    """The user's cache folder for owl, which need not exist; None if the user has no home folder."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # The XDG specification says to ignore a relative path.
        return Path(base) / "owl"
    try:
        return Path.home() / ".cache" / "owl"
    except RuntimeError:
        return None


# ---- The download ---------------------------------------------------------------------------------------------------


def _download(
    files: list[DataFile], folder: Path, sources: list[str], timeout: float, patience: float | None, quiet: bool
) -> None:
    """Puts `files` into `folder`, each from the first of the mirrors `sources` that gives it."""
    if not sources:
        raise DataError(f"{files[0].name} cannot be downloaded: OWL_MIRRORS is empty, so no mirror is allowed")
    if importlib.util.find_spec("pooch") is None:
        raise DataError(f"{files[0].name} cannot be downloaded: this needs the package pooch, which is not installed "
                        "(pip install pooch)")  # fmt: skip
    bar = not quiet and sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        path = folder / file.name
        with _writing(path), replacing(str(path)) as stream:  # opened first, to fail early if the folder is read-only
            content, source = _ask_in_turn(file, sources, timeout, patience, bar)
            stream.write(content)
        if not quiet:
            print(f"{file.name}: {file.size:,} bytes from {source}{file.name}", file=sys.stderr, flush=True)
        sources = sorted(sources, key=lambda s: s != source)  # The mirror that gave one file comes first for the next.
        patience = None


def _ask_in_turn(
    file: DataFile, sources: list[str], timeout: float, patience: float | None, bar: bool
) -> tuple[bytes, str]:
    """The content of `file`, and the mirror that gave it.

    A thread sends the requests, so that the caller waits no longer than `patience` for the first answer: a name lookup
    has no timeout, and connecting has one for each address of a host.
    """
    answered, abandoned = threading.Event(), threading.Event()
    found: list[tuple[bytes, str]] = []
    tried: list[str] = []

    def ask() -> None:
        try:
            for source in sources:
                limit = timeout if patience is None or answered.is_set() else min(timeout, patience / len(sources))
                try:
                    found.append((_ask(source + file.name, file, limit, bar, answered), source))
                    return
                except Exception as error:
                    tried.append(f"  {source}{file.name}: {_first_cause(error)}\n")
                if abandoned.is_set():
                    return
        finally:
            answered.set()

    thread = threading.Thread(target=ask, name="owl.data", daemon=True)
    thread.start()
    try:
        if answered.wait(patience):
            thread.join()
        else:
            tried.append(f"  no answer within {patience:g} s\n")
    finally:
        abandoned.set()
    if found:
        return found[0]
    raise DataError(f"{file.name} could not be downloaded. Tried:\n{''.join(tried)}OWL_MIRRORS can name other addresses.")


def _ask(url: str, file: DataFile, timeout: float, bar: bool, answered: threading.Event) -> bytes:
    """The content of `file` from one address. Raises an exception that names the fault.

    Not by pooch.retrieve, which creates files with mode 0600 and replaces symbolic links.
    """
    import pooch

    from owl import __version__

    def headers_are_here(response: Any, **_: Any) -> None:
        answered.set()
        # A server may declare a .gz file as compressed content, which requests would unpack; the file must stay packed.
        response.raw.headers.pop("Content-Encoding", None)

    content = _Content(file.size)
    get = pooch.HTTPDownloader(progressbar=bar, chunk_size=PIECE, timeout=timeout,
                               headers={"User-Agent": f"owl/{__version__}", "Accept-Encoding": "identity"},
                               hooks={"response": headers_are_here})  # fmt: skip
    get(url, content, None)
    data = content.getvalue()
    if (len(data), _md5(data)) != (file.size, file.md5):
        raise ValueError(f"wrong content: {len(data):,} bytes with md5 {_md5(data)} where {file.size:,} bytes with md5 "
                         f"{file.md5} are right")  # fmt: skip
    return data


class _Content(io.BytesIO):
    """Accepts at most `limit` bytes: a faulty server may never stop sending."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def write(self, piece: Any) -> int:
        if self.tell() + len(piece) > self.limit:
            raise ValueError(f"wrong content: more than {self.limit:,} bytes")
        return super().write(piece)


def _first_cause(error: BaseException) -> str:
    """The message of the exception that caused `error`, on one line: urllib3 and requests wrap it several times."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return " ".join(str(error).split()) or type(error).__name__


# ---- Files ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns an OSError of the file system into a DataError that names the path."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot be written: {error.strerror or error}") from error


def _is_sound(path: Path, file: DataFile) -> bool:
    """Whether `path` has the size and checksum of `file`."""
    try:
        return path.stat().st_size == file.size and _md5(path.read_bytes()) == file.md5
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _md5(data: bytes) -> str:
    import hashlib

    return hashlib.md5(data, usedforsecurity=False).hexdigest()  # against accidents, not attacks


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
    """``python -m owl.data``. Returns the exit code."""
    import argparse

    from owl.__main__ import print_any_path

    parser = argparse.ArgumentParser(prog="python -m owl.data", description="Data sets for owl's programs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser(
        "fetch",
        help="download a data set",
        description="Downloads the missing files of a data set and prints its folder.",
        epilog="OWL_MIRRORS, a comma-separated list of addresses, replaces the mirrors. Files that are "
        "complete stay if a download is interrupted. Exit codes: 0 complete, 1 failed, 130 interrupted.",
    )
    command.add_argument("name", choices=sorted(DATA_SETS), help="the data set")
    command.add_argument("--folder", metavar="FOLDER", help="folder of the files (default: the user's cache for owl)")
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
        print("interrupted; the same command fetches what is missing", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
