"""Store: the process between Freehold and its PostgreSQL. A program of its own, run by path: it imports no Freehold.

    python -I -S _embedded_guard.py LOG RUN_FOLDER UID GID POSTGRES [ARGUMENT...]

It starts PostgreSQL, keeps its log within bounds, and waits for the end of its standard input. That end comes when Freehold
stops and also when Freehold is killed, so both take the same way: PostgreSQL is shut down, the run folder is removed, nothing
stays behind. (The parent-death signal would come when the *thread* that forked ends, and on Linux only.) When PostgreSQL ends,
its last words go to standard output. `UID` and `GID` are -1 for "as we are". The working directory is PostgreSQL's data.
"""

import fcntl
import os
import select
import signal
import sys
import time

LOG_BYTES_MAX = 8 * 1024 * 1024
"""A log that grows past this becomes LOG.1, in place of the one before."""
TAIL_BYTES_MAX = 8 * 1024
CHUNK_BYTES = 64 * 1024
STOPS = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0))
"""Fast shutdown, then immediate (the next start recovers from the log), then the last resort; seconds granted to each."""
OWN_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ignored: a signal to a whole group of processes must not take the database from a Freehold that is still finishing."""


class Log:
    """The end of what PostgreSQL said, in memory; all of it, up to a size, in a file. A full disk costs lines, no more."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.tail = b""
        self.descriptor = -1
        self.size = 0

    def write(self, text: bytes) -> None:
        self.tail = (self.tail + text)[-TAIL_BYTES_MAX:]
        try:
            if self.descriptor < 0:
                self._open()
            elif self.size + len(text) > LOG_BYTES_MAX:
                os.close(self.descriptor)
                self.descriptor = -1
                os.replace(self.path, self.path + ".1")
                self._open()
            self.size += os.write(self.descriptor, text)
        except OSError:
            return

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self.descriptor = os.open(self.path, flags, 0o600)
        self.size = os.fstat(self.descriptor).st_size


def start(argv: list[str], uid: int, gid: int) -> tuple[int, int]:
    """PostgreSQL's process id, and the reading end of what it says."""
    said, saying = os.pipe()
    process = os.fork()
    if process:
        os.close(saying)
        os.set_blocking(said, False)
        return process, said
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(saying, 1)
        os.dup2(saying, 2)
        os.umask(0o077)
        if uid >= 0:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        os.execve(argv[0], argv, {"LC_ALL": "C", "TZ": "UTC"})  # noqa: S606 - no shell, on purpose
    except OSError as error:
        os.write(2, f"cannot start {argv[0]} as uid {uid}: {error}\n".encode())
    os._exit(127)


def watch(process: int, said: int, log: Log) -> None:
    """Returns when PostgreSQL has ended, which it is told to do once standard input is at its end."""
    woken, waking = os.pipe()
    os.set_blocking(waking, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    poll = select.poll()
    for descriptor in (0, said, woken):
        poll.register(descriptor, select.POLLIN)
    stops = iter(STOPS)
    deadline: float | None = None
    while os.waitpid(process, os.WNOHANG) == (0, 0):
        if deadline is not None and time.monotonic() >= deadline:
            deadline = stop(process, next(stops, STOPS[-1]))
        left_ms = None if deadline is None else max(1.0, (deadline - time.monotonic()) * 1000)
        for descriptor, _event in poll.poll(left_ms):
            if descriptor == said and not drain(said, log):
                poll.unregister(said)
            elif descriptor == woken:
                os.read(woken, CHUNK_BYTES)
            elif descriptor == 0 and not os.read(0, CHUNK_BYTES):
                poll.unregister(0)
                deadline = time.monotonic()
    drain(said, log)


def stop(process: int, how: tuple[signal.Signals, float]) -> float:
    number, granted_s = how
    os.kill(process, number)
    return time.monotonic() + granted_s


def drain(said: int, log: Log) -> bool:
    """Moves to the log what can be read now. False at the end of the stream."""
    try:
        while text := os.read(said, CHUNK_BYTES):
            log.write(text)
    except BlockingIOError:
        return True
    return False


def remove(folder: str) -> None:
    """The run folder and all in it. Walks by descriptor: its owner is a lesser user, who may have put links there."""
    for _path, folders, files, descriptor in os.fwalk(folder, topdown=False, follow_symlinks=False):
        for name in files:
            os.unlink(name, dir_fd=descriptor)
        for name in folders:
            try:
                os.rmdir(name, dir_fd=descriptor)
            except NotADirectoryError:
                os.unlink(name, dir_fd=descriptor)
    os.rmdir(folder)


def main(log_path: str, run_folder: str, uid: str, gid: str, *argv: str) -> None:
    log = Log(log_path)
    # Forked first, ignored after: a process that ignores them until it becomes PostgreSQL would miss an early order to stop.
    for number in OWN_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    process, said = start(list(argv), int(uid), int(gid))
    for number in OWN_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    # Cleaners of /tmp leave a locked folder alone: https://systemd.io/TEMPORARY_DIRECTORIES/
    fcntl.flock(os.open(run_folder, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_SH)
    watch(process, said, log)
    remove(run_folder)
    try:
        os.write(1, log.tail)
    except BrokenPipeError:
        return  # Freehold was killed: nobody is left to read it.


if __name__ == "__main__":
    main(*sys.argv[1:])
