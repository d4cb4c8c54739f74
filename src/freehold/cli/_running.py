"""What `serve` and `worker` have alike: processes that run until they are told to stop. Not here: what they run."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any, Final

from freehold.core.errors import Unavailable

STDIN_BYTES: Final = 1024
CLOSING_S_MAX: Final = 20.0
"""Beside what turns get to finish their steps."""

CUT_EVERY_S: Final = 3.0

COLLECT_AT_OBJECTS: Final = 10_000
"""Python's own default is 700, which the parts of a long request are already."""


FILES: Final = 65_536
"""Each stream that passes takes two."""


def open_many() -> None:
    """Soft limits of open files are mostly 1024, for programs that still `select`: ours goes up to the hard one."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - does not exist on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def collect_seldom() -> None:
    """What was opened by now lives as long as the server: the collector need not walk it again, 90 ms each time.

    What a call makes is mostly freed without it, so it may come seldom: a translated call of 60 messages costs a fifth less.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AT_OBJECTS, *gc.get_threshold()[1:])


def loop_factory() -> Any:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - does not exist on Windows

    return uvloop.new_event_loop


def listen(host: str, port: int, option: str, *, backlog: int = 100) -> socket.socket:
    """Bound before anything else is opened, so that a taken port costs nothing. Raises Unavailable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(backlog)
    except OSError as error:
        listening.close()
        raise Unavailable(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another with {option} (0 takes a free one)"
        ) from error
    return listening


class Stop:
    """A stop may be asked for at any time: it breaks off the start, or ends the serving; all that was opened is closed.

    Asked for a second time, or when it takes longer than it may, it does not wait for turns to finish their steps or for a
    database that hangs: the next start takes them up.
    """

    def __init__(self, closing_s_max: float) -> None:
        self._closing_s_max = closing_s_max
        self.asked = asyncio.Event()
        self.ready = False
        self._mine = asyncio.current_task()

    @contextlib.contextmanager
    def heard(self, *, stdin: bool) -> Iterator[None]:
        """SIGINT and SIGTERM ask for it, and with `stdin` the end of standard input: whoever started us is gone."""
        loop = asyncio.get_running_loop()
        for kind in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(kind, self._ask)
        if stdin:
            loop.add_reader(sys.stdin.fileno(), self._read_stdin)
        try:
            yield
        except asyncio.CancelledError:
            if not self.asked.is_set():
                raise
        finally:
            if stdin:
                loop.remove_reader(sys.stdin.fileno())
            for kind in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(kind)

    def _ask(self) -> None:
        if self.asked.is_set() or not self.ready:
            self._cut_short()
        else:
            asyncio.get_running_loop().call_later(self._closing_s_max, self._cut_short)
        self.asked.set()

    def _cut_short(self) -> None:
        """Again and again: every part that is closed may have something of its own to wait for."""
        if self._mine is not None and not self._mine.done():
            self._mine.cancel()
            asyncio.get_running_loop().call_later(CUT_EVERY_S, self._cut_short)

    def _read_stdin(self) -> None:
        if not os.read(sys.stdin.fileno(), STDIN_BYTES):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._ask()
