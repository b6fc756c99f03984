"""Atomic replacement of files: the content is written to a new file beside the old one, which it then replaces."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def replacing(path: str) -> Iterator[IO[bytes]]:
    """A file for the new content of ``path``, which it replaces when the block ends, unless by an exception.

    A reader always finds either the whole old file or the whole new one, and of two concurrent writers one wins. A
    symbolic link stays and its target is replaced; the new file gets the mode and owner of the old one, or the
    defaults. A pipe or a device is written directly. OSError: the file cannot be written. (cpp/base/replace_file.h does
    the same in C++.)
    """
    try:
        old = os.stat(path)
    except FileNotFoundError:
        old = None
    if old is not None and not stat.S_ISREG(old.st_mode):
        with open(path, "wb") as file:  # raises for a folder
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

    If the group cannot be kept, the group's permissions are removed: they would apply to another group.
    """
    now, mode = os.fstat(handle), stat.S_IMODE(old.st_mode)
    if now.st_gid != old.st_gid and not _changed_owner(handle, -1, old.st_gid):
        mode &= ~0o070
    if now.st_uid != old.st_uid and not _changed_owner(handle, old.st_uid, -1):
        mode &= 0o777
    if stat.S_IMODE(now.st_mode) != mode:
        with contextlib.suppress(OSError):  # the file system has no modes
            os.fchmod(handle, mode)


def _changed_owner(handle: int, user: int, group: int) -> bool:
    try:
        os.fchown(handle, user, group)
    except OSError:  # not permitted, or the container does not map this user
        return False
    return True


def _open_beside(target: str, path: str) -> tuple[str, int]:
    """Creates a new file in the same folder, with the process's default mode, and opens it for writing."""
    while True:
        part = os.path.join(os.path.dirname(target), f".owl-{os.urandom(8).hex()}.part")
        try:
            return part, os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            continue
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
