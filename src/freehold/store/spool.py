"""Records of calls on disk before the answer's last byte leaves, until PostgreSQL has them. Not here: SQL, and what a record is.

An owner (one process's open store) appends to segments of its own, `OWNER.NUMBER.records`, with one `write` an entry: the page
cache has it when `append` returns, so it outlives SIGKILL of this process. `sync` asks the disk for the rest, which outlives the
loss of power too. Whose owner has ended is told by the lock on `OWNER.lock` (flock, which the kernel lets go of however a
process ends), never by a process's number; `leftovers` gives such segments to whoever asks first.

A segment is SEGMENT_MARK, then entries: length and CRC-32 of the payload (little-endian, four bytes each), then the payload. An
entry that was cut short by the end of its writer ends its segment; one that says something else than was written is damage.
"""

import errno
import logging
import os
import secrets
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from zlib import crc32

from msgspec import Struct

from freehold.store.data_folder import folder_error

if sys.platform != "win32":  # There, data_folder.py refuses before anybody comes here.
    import fcntl

SEGMENT_MARK: Final = b"FHSPOOL1"
SEGMENT_BYTES: Final = 1024 * 1024
SPOOL_BYTES_MAX: Final = 1024 * 1024 * 1024
"""On disk, of one owner: about three million records, an hour at 800 a second without a database."""

EMPTIED_BYTES_MAX: Final = 64 * 1024
"""Larger segments are removed, in a thread: a file system takes milliseconds to give back megabytes."""

ENTRY_BYTES_MAX: Final = 64 * 1024
OWNERS_MAX: Final = 1000
"""Looked at in one go; those of further ended processes wait for the next."""

_HEAD: Final = struct.Struct("<II")
_pack: Final = _HEAD.pack
_write: Final = os.write
_FOLDER_LOCK: Final = "spool.lock"
_FOLDER_NAME: Final = "spool.id"

log = logging.getLogger(__name__)


class Segment:
    """One file. `waiting_count` are its entries that PostgreSQL isn't known to have; `unheld_count` of these, nobody holds in memory."""

    __slots__ = ("descriptor", "gone", "path", "size_bytes", "synced", "unheld_count", "waiting_count")

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size_bytes = len(SEGMENT_MARK)
        self.waiting_count = 0
        self.unheld_count = 0
        self.gone = False
        self.synced = True


class Entries(Struct, frozen=True):
    """What a segment holds. `torn_bytes` at its end are of an entry that was never finished; `damaged_count` were, and differ now."""

    payloads: tuple[bytes, ...]
    torn_bytes: int = 0
    damaged_count: int = 0


class Leftover(Struct, frozen=True):
    """Segments whose owner has ended, held by us until `release`."""

    owner: str
    segments: tuple[Path, ...]
    lock: int


class Spool:
    """Opened with `open_spool`. For one thread, but for `leftovers` and `release`, which block and may run in another."""

    def __init__(self, folder: Path, owner: str, place: str) -> None:
        self.folder = folder
        self.owner = owner
        self.place = place
        """The folder's own name, the same for all owners in it, wherever it is moved."""
        self.fault: str | None = None
        """Why entries cannot be written now; None while they can."""
        self._number = 0
        self._current: Segment | None = None
        self._sealed: list[Segment] = []
        self._sealed_bytes = 0
        self._new_files = False
        self._done: list[Path] = []

    @property
    def size_bytes(self) -> int:
        return self._sealed_bytes + (0 if self._current is None else self._current.size_bytes)

    def append(self, payload: bytes) -> Segment | None:
        """None where the disk doesn't take it (see `fault`): nothing of it is then in the segment."""
        entry = _pack(len(payload), crc32(payload)) + payload
        size_bytes = len(entry)
        segment = self._current
        try:
            if segment is None or segment.size_bytes + size_bytes > SEGMENT_BYTES:
                segment = self._next_segment()
            written = _write(segment.descriptor, entry)
            if written != size_bytes:
                os.ftruncate(segment.descriptor, segment.size_bytes)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._fail(error.strerror or str(error))
            return None
        segment.size_bytes += written
        segment.waiting_count += 1
        segment.synced = False
        if self.fault is not None:
            log.warning("store.spool.writing_again", extra={"folder": str(self.folder)})
            self.fault = None
        return segment

    def settle(self, segment: Segment, count: int = 1) -> None:
        """PostgreSQL has so many more of its entries. A segment of which it has all is emptied, or removed if it is full."""
        segment.waiting_count -= count
        if segment.waiting_count > 0 or segment.unheld_count or segment.gone:
            return
        if segment is self._current:
            if segment.size_bytes > EMPTIED_BYTES_MAX:
                self._seal()
                return
            os.ftruncate(segment.descriptor, len(SEGMENT_MARK))
            segment.size_bytes = len(SEGMENT_MARK)
        else:
            self._remove(segment)

    def to_read_back(self) -> list[Segment]:
        """Segments with entries that nobody holds in memory, oldest first. None of them is appended to any more."""
        if self._current is not None and self._current.unheld_count:
            self._seal()
        return [segment for segment in self._sealed if segment.unheld_count]

    def settle_whole(self, segment: Segment) -> None:
        """PostgreSQL has all of it."""
        segment.unheld_count = 0
        if not segment.gone:
            self._remove(segment)

    def unsynced(self) -> Sequence[Path]:
        """What the disk may not have yet; asked for once. For `sync`."""
        paths = []
        for segment in self._segments():
            if not segment.synced and segment.waiting_count:
                paths.append(segment.path)
            segment.synced = True
        if self._new_files:
            paths.append(self.folder)
        self._new_files = False
        return paths

    def leftovers(self) -> list[Leftover]:
        """Blocks. Of owners that have ended, with their locks held: `release` each."""
        found = []
        with _folder_locked(self.folder):
            for lock in sorted(self.folder.glob("*.lock"))[:OWNERS_MAX]:
                owner = lock.name.removesuffix(".lock")
                if lock.name == _FOLDER_LOCK or owner == self.owner:
                    continue
                descriptor = _try_lock(lock)
                if descriptor is None:
                    continue
                segments = tuple(sorted(self.folder.glob(f"{owner}.*.records")))
                if segments:
                    found.append(Leftover(owner, segments, descriptor))
                else:
                    lock.unlink(missing_ok=True)
                    os.close(descriptor)
        return found

    def ended(self, owners: Sequence[str]) -> list[str]:
        """Blocks. Those that are gone, and of whom nothing waits here any more."""
        return [owner for owner in owners if not (self.folder / f"{owner}.lock").exists()]

    def release(self, leftover: Leftover) -> None:
        """What is left of it waits for whoever looks next; an owner without segments is forgotten."""
        with _folder_locked(self.folder):
            if not any(segment.exists() for segment in leftover.segments):
                (self.folder / f"{leftover.owner}.lock").unlink(missing_ok=True)
            os.close(leftover.lock)

    def done(self) -> Sequence[Path]:
        """Segments of which PostgreSQL has all; asked for once. For `remove`."""
        paths, self._done = self._done, []
        return paths

    def close(self) -> None:
        """Segments with entries that PostgreSQL isn't known to have stay for the next process."""
        if self._current is not None:
            self._seal()
        remove(self.done())

    def _segments(self) -> Sequence[Segment]:
        return self._sealed if self._current is None else [*self._sealed, self._current]

    def _next_segment(self) -> Segment:
        self._seal()
        if self._sealed_bytes + SEGMENT_BYTES > SPOOL_BYTES_MAX:
            raise OSError(errno.EDQUOT, f"its {SPOOL_BYTES_MAX} bytes (SPOOL_BYTES_MAX) are full")
        path = self.folder / f"{self.owner}.{self._number + 1:08}.records"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            if os.write(descriptor, SEGMENT_MARK) != len(SEGMENT_MARK):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        self._number += 1
        self._new_files = True
        self._current = segment = Segment(path, descriptor)
        return segment

    def _seal(self) -> None:
        segment, self._current = self._current, None
        if segment is None:
            return
        os.close(segment.descriptor)
        self._sealed.append(segment)
        self._sealed_bytes += segment.size_bytes
        if segment.waiting_count == 0 and segment.unheld_count == 0:
            self._remove(segment)

    def _remove(self, segment: Segment) -> None:
        self._sealed.remove(segment)
        self._sealed_bytes -= segment.size_bytes
        segment.gone = True
        self._done.append(segment.path)

    def _fail(self, why: str) -> None:
        if self.fault is None:
            log.error("store.spool.not_written", extra={"folder": str(self.folder), "why": why})
        self.fault = why


def read_entries(path: Path) -> Entries:
    """Blocks. Never raises for what the file holds."""
    data = path.read_bytes()
    if not data.startswith(SEGMENT_MARK):
        # Cut short before its first entry, or nothing that we wrote.
        return Entries((), torn_bytes=len(data)) if SEGMENT_MARK.startswith(data) else Entries((), 0, 1)
    payloads: list[bytes] = []
    damaged_count, place = 0, len(SEGMENT_MARK)
    while place + _HEAD.size <= len(data):
        length, check = _HEAD.unpack_from(data, place)
        end = place + _HEAD.size + length
        if not 0 < length <= ENTRY_BYTES_MAX or end > len(data):
            break
        payload = data[place + _HEAD.size : end]
        if crc32(payload) == check:
            payloads.append(payload)
        elif end == len(data) or not data[end:].strip(b"\0"):
            break
        else:
            damaged_count += 1
        place = end
    return Entries(tuple(payloads), len(data) - place, damaged_count)


@contextmanager
def open_spool(folder: Path) -> Iterator[Spool]:
    """An owner of its own in the folder. Raises Unavailable where the folder cannot be had or written."""
    owner = f"{time.time_ns():x}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _folder_locked(folder):
            place = _place(folder)
            lock = os.open(folder / f"{owner}.lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise folder_error(folder, error) from error
    spool = Spool(folder, owner, place)
    try:
        yield spool
    finally:
        spool.close()
        with _folder_locked(folder):
            if not any(folder.glob(f"{owner}.*.records")):
                (folder / f"{owner}.lock").unlink(missing_ok=True)
            os.close(lock)


def _place(folder: Path) -> str:
    """Made once, with the folder locked."""
    path = folder / _FOLDER_NAME
    if not path.exists():
        staged = path.with_suffix(".new")
        staged.write_text(secrets.token_hex(8))
        staged.replace(path)
    return path.read_text()


@contextmanager
def _folder_locked(folder: Path) -> Iterator[None]:
    """Held for microseconds, by whoever makes an owner's lock or looks for ended owners: so none is taken for ended too early."""
    descriptor = os.open(folder / _FOLDER_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def remove(paths: Sequence[Path]) -> None:
    """Blocks. What is not removed for a crash is written once more, and counts once."""
    for path in paths:
        path.unlink(missing_ok=True)


def sync(paths: Sequence[Path]) -> None:
    """Blocks until the disk has them. What was removed meanwhile needs none. Raises OSError."""
    for path in paths:
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
