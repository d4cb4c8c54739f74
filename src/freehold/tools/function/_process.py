"""The process that holds an operator's file, from outside: start it, hand it runs, hang up on those that take too long.

The protocol is told in `_child.py`, which is the other end. One process a tool; a run is a fork of it. It is started again
when it is gone, and when its file has changed.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from freehold.core.errors import BadRequest, TooLarge, Unavailable

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 5.0
LINE_BYTES_MAX: Final = 2_000_000
OUTPUT_LINE_BYTES_MAX: Final = 4_000
OUTPUT_LINES_MAX: Final = 200
"""Of what the code prints, per process; the rest is read and dropped."""

RUNS_MAX: Final = 4
"""At once in one tool: they compete for the same machine."""

_CHILD: Final = Path(__file__).with_name("_child.py")
_PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV")

log = logging.getLogger(__name__)


class Told(Struct, frozen=True):
    """What the process says of the function it loaded."""

    description: str = ""
    schema: dict[str, Any] = {}
    error: str | None = None
    trace: str | None = None


class Result(Struct, frozen=True):
    """How a run ended: one of `result`, `failed` (the code raised) and `refused` (arguments that don't fit)."""

    result: Any = msgspec.UNSET
    failed: str | None = None
    refused: str | None = None
    trace: str | None = None


class FunctionProcess:
    """Open with `open_process`. Runs may overlap, up to RUNS_MAX."""

    def __init__(self, tool: str, path: Path, function: str, bound: tuple[str, ...]) -> None:
        self._tool = tool
        self._path = path
        self._function = function
        self._bound = bound
        self._starting = asyncio.Lock()
        self._places = asyncio.Semaphore(RUNS_MAX)
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._output: asyncio.Task[None] | None = None
        self._stamp = (0, 0)

    async def start(self) -> Told:
        """Raises BadRequest when the file or function can't be loaded, Unavailable when it takes too long."""
        async with self._starting:
            return await self._start()

    async def run(self, request: Mapping[str, Any]) -> Result:
        """Cancelling it kills the run. Raises Unavailable when the run dies without a result."""
        async with self._places:
            async with self._starting:
                if self._gone() or self._stamp != self._stamped():
                    await self._start()
            return await self._run(msgspec.json.encode(request) + b"\n")

    async def stop(self) -> None:
        """Its end of file tells the process to kill its runs and go; one that doesn't is killed."""
        if self._control is not None:
            self._control.close()
            self._control = None
        process, self._process = self._process, None
        if process is None:
            return
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if self._output is not None:
            self._output.cancel()
            await asyncio.gather(self._output, return_exceptions=True)

    def _gone(self) -> bool:
        return self._process is None or self._process.returncode is not None

    def _stamped(self) -> tuple[int, int]:
        try:
            stat = self._path.stat()
        except OSError as error:
            raise Unavailable(f"tool {self._tool}: its file {self._path.name} is gone") from error
        return stat.st_mtime_ns, stat.st_size

    async def _start(self) -> Told:
        await self.stop()
        self._stamp = self._stamped()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._control = ours
        ours.setblocking(False)  # noqa: FBT003 - the standard library's signature
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                str(_CHILD),
                str(self._path),
                self._function,
                ",".join(self._bound),
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=_environment(),
                start_new_session=True,
            )
        self._output = asyncio.create_task(self._drain(self._process))
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                told = msgspec.json.decode(await _first_line(ours), type=Told)
        except TimeoutError as error:
            self._process.kill()
            raise Unavailable(
                f"tool {self._tool}: loading {self._path.name} took over {START_TIMEOUT_S:g} s"
            ) from error
        except msgspec.DecodeError as error:
            raise Unavailable(
                f"tool {self._tool}: the process that loads {self._path.name} died; see the log"
            ) from error
        if told.error is not None:
            raise BadRequest(
                f"tool {self._tool}: {self._path.name} cannot be loaded: {told.error}",
                field="config",
                detail=told.trace,
            )
        return told

    async def _run(self, request: bytes) -> Result:
        if self._control is None:
            raise Unavailable(f"tool {self._tool}: closed")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            try:
                socket.send_fds(self._control, [b"r"], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise Unavailable(
                    f"tool {self._tool}: its process does not take the run; try again"
                ) from error
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LINE_BYTES_MAX)
        try:
            writer.write(request)
            await writer.drain()
            return self._result(await reader.readline())
        except ValueError as error:
            raise TooLarge(f"tool {self._tool}: the result has more than {LINE_BYTES_MAX} bytes") from error
        except ConnectionError as error:
            raise Unavailable(f"tool {self._tool}: its process went away during the run") from error
        finally:
            writer.close()

    def _result(self, line: bytes) -> Result:
        """The first line is the result, or how the run ended where it ended without one."""
        told = msgspec.json.decode(line) if line.endswith(b"\n") else {"exit": None}
        if "exit" in told:
            how = "its process is gone" if told["exit"] is None else _ending(told["exit"])
            raise Unavailable(f"tool {self._tool}: the run died without a result ({how}); see the log")
        return msgspec.convert(told, Result)

    async def _drain(self, process: asyncio.subprocess.Process) -> None:
        """What the code prints goes to the log, and may never fill the pipe."""
        stream = process.stderr
        if stream is None:
            return
        count = 0
        while data := await stream.read(65_536):
            for line in data.splitlines():
                if count < OUTPUT_LINES_MAX and line.strip():
                    count += 1
                    text = line[:OUTPUT_LINE_BYTES_MAX].decode("utf-8", "replace")
                    log.info("tool.printed", extra={"tool": self._tool, "line": text})


@asynccontextmanager
async def open_process(
    tool: str, path: Path, function: str, bound: tuple[str, ...]
) -> AsyncIterator[tuple[FunctionProcess, Told]]:
    process = FunctionProcess(tool, path, function, bound)
    try:
        yield process, await process.start()
    finally:
        await process.stop()


async def _first_line(control: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    line = b""
    while not line.endswith(b"\n") and len(line) < LINE_BYTES_MAX:
        data = await loop.sock_recv(control, 65_536)
        if not data:
            break
        line += data
    return line


def _environment() -> dict[str, str]:
    """No secret of the server's. One thread for each linear algebra library: a fork cannot take threads along."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    threads = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
    )
    return kept | threads | {"PYTHONDONTWRITEBYTECODE": "1"}


def _ending(code: int) -> str:
    if code == -signal.SIGXCPU:
        return "it used up its processor time"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
