"""Store: the data folder on disk, and who may use it now. Not here: what lies in it (see `embedded`, blobs).

The lock is a BSD file lock (flock): the kernel lets go of it when its holder ends, however it ends, so that a lock never
outlives a crash. A pid file alone would.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from freehold.core.errors import Conflict, FreeholdError, Unavailable, Unsupported

if sys.platform != "win32":
    import fcntl

LOCK_NAME = "freehold.lock"
_FULL = (errno.ENOSPC, errno.EDQUOT)


def data_folder(folder: Path) -> Path:
    """The folder as an absolute path, made (readable by its owner only) where it is missing.

    Raises Unavailable when it cannot be made or written. An existing folder keeps its mode.
    """
    folder = folder.expanduser().absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise folder_error(folder, error) from error
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise Unavailable(
            f"The data folder {folder} cannot be written by this user (uid {_uid()}). "
            "Choose another data folder, or give it to this user."
        )
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the data folder for this process. Raises Conflict, naming the holder, when another process has it.

    Not reentrant: a second `locked` on the same folder is refused, from this process too.
    """
    if sys.platform == "win32":
        raise Unsupported(
            "A data folder cannot be locked on Windows. Run Freehold under WSL or in a container."
        )
    path = folder / LOCK_NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise folder_error(folder, error) from error
    try:
        _take(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
        raise Conflict(
            f"Another Freehold server (process {holder}) is using the data folder {folder}. "
            "Stop it, or choose another data folder."
        ) from error
    except OSError as error:
        raise Unavailable(
            f"The file system of {folder} has no file locks ({error.strerror}). Choose a data folder on a local disk."
        ) from error
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
    except OSError as error:
        raise folder_error(folder, error) from error


def folder_error(folder: Path, error: OSError) -> FreeholdError:
    """What an operating system's error about the data folder means, and what to do about it."""
    match error:
        case PermissionError():
            remedy = f"this user (uid {_uid()}) may not write there. Choose another data folder, or give it to this user."
        case FileExistsError() | NotADirectoryError():
            remedy = "a part of that path is a file. Choose another data folder."
        case _ if error.errno in _FULL:
            remedy = "the disk is full. Free some space, or choose a data folder on another disk."
        case _:
            remedy = f"{error.strerror}. Mend that, or choose another data folder."
    return Unavailable(f"The data folder {folder} cannot be used: {remedy}", detail=str(error))


def _uid() -> int:
    return os.geteuid() if sys.platform != "win32" else -1
