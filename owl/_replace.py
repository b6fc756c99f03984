"""A file that appears whole: what is written goes to a new file beside the old one, which then takes its place."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def replacing(path: str) -> Iterator[IO[bytes]]:
    """A file for the new content of ``path``, which is there when the block ends; an exception leaves the old one.

    At every moment a reader finds the old file or the new one, and two writers at once leave one of the two. A symbolic
    link stays, its target is replaced; a new file has the mode and owner of the old one, or those of any new file. A
    pipe or a device is written as it is. OSError: the file cannot be written. (cpp/base/replace_file.h is the same for
    C++.)
    """
    try:
        old = os.stat(path)
    except FileNotFoundError:
        old = None
    if old is not None and not stat.S_ISREG(old.st_mode):
        with open(path, "wb") as file:  # which refuses a folder
            yield file
        return
    if old is not None and not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    target = os.path.realpath(path)
    part, handle = _open_beside(target, path)
    try:
        with open(handle, "wb") as file:
            if old is not None:
                keep_mode_and_owner(handle, old)
            yield file
            file.flush()
            os.fsync(handle)
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)
        raise


def keep_mode_and_owner(handle: int, old: os.stat_result) -> None:
    """Gives an open file the mode, group and owner of another, as far as the system allows.

    A group that cannot be kept loses its access: the file's new group is another one.
    """
    now, mode = os.fstat(handle), stat.S_IMODE(old.st_mode)
    if now.st_gid != old.st_gid and not _changed_owner(handle, -1, old.st_gid):
        mode &= ~0o070
    if now.st_uid != old.st_uid and not _changed_owner(handle, old.st_uid, -1):
        mode &= 0o777
    if stat.S_IMODE(now.st_mode) != mode:
        with contextlib.suppress(OSError):  # a file system without modes
            os.fchmod(handle, mode)


def _changed_owner(handle: int, user: int, group: int) -> bool:
    try:
        os.fchown(handle, user, group)
    except OSError:  # not permitted, or a user that this container does not know
        return False
    return True


def _open_beside(target: str, path: str) -> tuple[str, int]:
    """A file that did not exist, in the same folder, with the mode that the process gives new files; open to write."""
    while True:
        part = os.path.join(os.path.dirname(target), f".owl-{os.urandom(8).hex()}.part")
        try:
            return part, os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            continue
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
