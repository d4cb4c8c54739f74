"""Store: a PostgreSQL process over one cluster: start, readiness, stop, and what a killed Freehold left. Blocking.

Not here: making the cluster (`_embedded_cluster`) and keeping PostgreSQL alive and logged (`_embedded_guard`).

Whatever still runs on a cluster when we start is stopped first: the caller holds the data folder's lock, so nobody needs it any
more. (Taking it over would be quicker by 0.2 s, and would bring statements of the dead, and settings and programs of an older
release, into the new life.)

Sources: https://www.postgresql.org/docs/18/server-shutdown.html,
https://www.postgresql.org/docs/18/runtime-config-connection.html
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from freehold.core.errors import Conflict, FreeholdError, Unavailable
from freehold.store import _embedded_guard as guard_program
from freehold.store._embedded_binaries import Binaries, Identity

LOG_NAME = "postgres.log"
PORT = 5432
"""Part of the socket's name, and nothing else: no network address is listened on."""
SOCKET_PATH_BYTES_MAX = 100
"""The kernel's limit is 107 on Linux and 103 on macOS."""
EVICT_FAST_S = 30.0
EVICT_HARD_S = 10.0
STOP_S_MAX = 80.0
"""Longer than the guard needs for all its ways to stop."""
POLL_S = 0.005

_RUN_PREFIX = "freehold-"
_RUN_PARENTS = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - the folders made there are private
_PID_NAME = "postmaster.pid"
_PID_LINES = 8
"""Process, data folder, start time, port, socket folder, addresses, shared memory, status."""

# What holds whatever those say: nobody else gets in, nothing secret gets out, and what is committed is on the disk.
HELD: Mapping[str, str] = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "logging_collector": "off",  # the guard bounds the log's size; PostgreSQL itself cannot
    "log_destination": "stderr",
    "log_line_prefix": "%m [%p] ",
    "log_min_error_statement": "panic",  # statements and details quote the data
    "log_error_verbosity": "terse",
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that exists, is of our version, and has nothing running on it."""

    folder: Path
    path: Path
    binaries: Binaries
    identity: Identity | None

    def start(self, settings: Mapping[str, str]) -> "Process":
        """Returns at once; PostgreSQL is ready when `Process.ready` says so."""
        run = None
        try:
            run = _new_run_folder(self.identity)
            return Process(self, run, self._guarded(run, settings))
        except OSError as error:
            if run:
                shutil.rmtree(run, ignore_errors=True)
            raise Unavailable(f"PostgreSQL could not be started: {error}.", detail=str(error)) from error

    def _guarded(self, run: Path, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
        uid, gid = (self.identity.uid, self.identity.gid) if self.identity else (-1, -1)
        postgres = runnable(self.binaries, run, self.identity).postgres
        # The run folder's name in every process's title is how `evict` knows them.
        named = {"unix_socket_directories": str(run), "cluster_name": run.name}
        arguments = [f"--{name}={value}" for name, value in {**HELD, **settings, **named}.items()]
        guard = [sys.executable, "-I", "-S", guard_program.__file__]
        guard += [str(self.folder / LOG_NAME), str(run), str(uid), str(gid)]
        return subprocess.Popen(  # noqa: S603 - our own programs and options
            [*guard, str(postgres), "-D", data_address(self.path, self.identity), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.path,
            env={},
            start_new_session=True,  # Ctrl-C is for Freehold, which stops PostgreSQL when it is done with it.
        )


class Process:
    """A running guard with its PostgreSQL. Whoever started it calls `stop`."""

    def __init__(self, cluster: Cluster, run: Path, guard: subprocess.Popen[bytes]) -> None:
        self.cluster = cluster
        self.socket_folder = run
        self._guard = guard

    def ready(self) -> bool:
        """Whether connections are accepted. Raises when PostgreSQL has ended instead, with its last words in `detail`."""
        if self._guard.poll() is not None:
            raise start_error(self.cluster.folder, self.stop())
        match _status(self.cluster.path):
            case [_, _, _, _, socket_folder, _, _, status]:
                # A file left by an earlier run names another folder.
                return socket_folder == str(self.socket_folder) and status.strip() == "ready"
            case _:
                return False

    def stop(self) -> str:
        """Shuts PostgreSQL down and waits for it. Returns its last words; idempotent."""
        if self._guard.stdin is None or self._guard.stdin.closed:
            return ""
        said, _ = self._guard.communicate(timeout=STOP_S_MAX)
        # Both are the guard's work, unless somebody killed it.
        evict(self.cluster.path)
        shutil.rmtree(self.socket_folder, ignore_errors=True)
        return said.decode("utf-8", "replace").strip()


def socket_folder_of(path: Path) -> Path | None:
    """Where the PostgreSQL that runs on the cluster, and takes connections, has its socket."""
    match _status(path):
        case [_, _, _, _, socket_folder, _, _, status] if status.strip() == "ready":
            folder = Path(socket_folder)
            return folder if (folder / f".s.PGSQL.{PORT}").is_socket() else None
        case _:
            return None


def data_address(path: Path, identity: Identity | None) -> str:
    """What PostgreSQL is told that its data folder is; see `_embedded_binaries` on why. It starts with `path` as its cwd."""
    return "/proc/self/cwd" if identity else str(path)


def runnable(binaries: Binaries, run: Path, identity: Identity | None) -> Binaries:
    """The programs where the user that shall run them can reach them, which may be a copy in the run folder."""
    return binaries if identity is None or binaries.reachable_by_others() else binaries.copied_to(run)


@contextmanager
def runnable_at_once(binaries: Binaries, identity: Identity | None) -> Iterator[Binaries]:
    """The same for a program that runs before there is a run folder, and ends before the block does."""
    if identity is None or binaries.reachable_by_others():
        yield binaries
        return
    run = _new_run_folder(identity)
    try:
        os.chown(run, identity.init_uid, identity.init_gid)
        yield binaries.copied_to(run)
    finally:
        shutil.rmtree(run, ignore_errors=True)


def start_error(folder: Path, last_words: str) -> FreeholdError:
    if "No space left on device" in last_words:
        text = f"The disk of {folder} is full. Free some space, then start again."
    else:
        text = f"The embedded PostgreSQL did not start. {folder / LOG_NAME} says why; `detail` has the end of it."
    return Unavailable(text, detail=last_words)


def _new_run_folder(identity: Identity | None) -> Path:
    """A private folder with a short path: sockets have narrow limits, and data folders may lie deep."""
    for parent in (Path(tempfile.gettempdir()), *_RUN_PARENTS):
        if _fits(parent, others=identity is not None):
            folder = Path(tempfile.mkdtemp(prefix=_RUN_PREFIX, dir=parent))
            if identity:
                os.chown(folder, identity.uid, identity.gid)
            return folder
    raise Unavailable(
        "PostgreSQL needs a folder for its socket, and there is none with a short path that it can use and that programs may "
        "be run from. Set TMPDIR to such a folder."
    )


def _fits(parent: Path, *, others: bool) -> bool:
    longest = parent / f"{_RUN_PREFIX}xxxxxxxx" / f".s.PGSQL.{PORT}.lock"
    if len(os.fsencode(longest)) > SOCKET_PATH_BYTES_MAX or not os.access(parent, os.W_OK | os.X_OK):
        return False
    if not others:
        return True
    # Another user has to pass through, and perhaps to run programs there.
    places = (parent.resolve(), *parent.resolve().parents)
    return (
        all(place.stat().st_mode & 0o001 for place in places) and not os.statvfs(parent).f_flag & os.ST_NOEXEC
    )


def evict(path: Path) -> None:
    """Stops what a killed Freehold left running on the cluster, and takes away what would mislead the next start."""
    status = _status(path)
    if not status:
        return
    for number, granted_s in ((signal.SIGINT, EVICT_FAST_S), (signal.SIGQUIT, EVICT_HARD_S)):
        running = _occupants(path, status)
        for process in running:
            # A fast shutdown is the postmaster's to lead; to its children alone the signal would mean "cancel".
            if number == signal.SIGQUIT or str(process) == status[0]:
                _signal(process, number)
        deadline = time.monotonic() + granted_s
        while running and time.monotonic() < deadline:
            time.sleep(POLL_S)
            running = _occupants(path, status)
        if not running:
            break
    else:
        raise Conflict(
            f"PostgreSQL still runs on {path} (processes {running}) and does not stop. End it, then start again."
        )
    # Its process id may be another program's by now (in containers it often is), and PostgreSQL would take that for itself.
    (path / _PID_NAME).unlink(missing_ok=True)
    if len(status) > 4:
        _sweep(Path(status[4]), path.stat().st_uid)


def _occupants(path: Path, status: list[str]) -> list[int]:
    """PostgreSQL's processes of the run that `status` tells of, by what every process may read of every other.

    (/proc/PID/cwd would say it directly, but root in a container may not look there.)
    """
    postmaster = int(status[0])
    if not Path(f"/proc/{postmaster}").exists() and _signal(postmaster, 0):
        return [postmaster]  # no /proc, or one that hides others' processes
    run = os.fsencode(Path(status[4]).name) if len(status) > 4 else b""
    return [process for process in _processes_of(path.stat().st_uid) if _belongs(process, run)]


def _processes_of(uid: int) -> Iterator[int]:
    try:
        with os.scandir("/proc") as entries:
            for entry in entries:
                if entry.name.isdigit() and _owner(entry.path) == uid:
                    yield int(entry.name)
    except FileNotFoundError:
        return


def _owner(path: str) -> int:
    try:
        return os.stat(path).st_uid
    except OSError:
        return -1  # It has ended.


def _belongs(process: int, run: bytes) -> bool:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False  # It has ended.
    is_postmaster = (
        words.split(b"\0", 1)[0].endswith(b"/postgres") and b"--cluster_name=" + run + b"\0" in words
    )
    return is_postmaster or words.startswith(b"postgres: " + run + b": ")


def _signal(process: int, number: int) -> bool:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return False
    return True


def _status(path: Path) -> list[str]:
    try:
        lines = (path / _PID_NAME).read_text(errors="replace").splitlines()[:_PID_LINES]
    except FileNotFoundError:
        return []
    return lines if lines and lines[0].isdigit() else []


def _sweep(folder: Path, owner_uid: int) -> None:
    """Removes the run folder of a guard that was killed. Only what is plainly one: its name is PostgreSQL's word, not ours."""
    known = folder.parent in {Path(tempfile.gettempdir()), *_RUN_PARENTS} and folder.name.startswith(
        _RUN_PREFIX
    )
    if known and folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == owner_uid:
        shutil.rmtree(folder, ignore_errors=True)
