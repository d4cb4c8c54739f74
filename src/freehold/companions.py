"""Companions: small processes that start and stop with the server, as its configuration lists them; part of app.py's work.

They get none of the server's secrets: of its environment only what PASSED_ON names. A companion that ends is
started again, a little later each time. Their output goes to `companion-<name>.log` in the data folder.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx2

from freehold.config import Companion
from freehold.core.errors import Unavailable

READY_S: Final = 20.0
POLL_S: Final = 0.05
STOP_S: Final = 5.0
RESTART_S: Final = 1.0
RESTART_S_MAX: Final = 30.0
LOG_BYTES_MAX: Final = 8_000_000
PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV")

_DIES_WITH: Final = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
os.getppid() == int(sys.argv[1]) or sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""PR_SET_PDEATHSIG (prctl(2)): a server that is killed takes its companions along, or they would keep their ports."""

log = logging.getLogger(__name__)


@asynccontextmanager
async def companions(declared: Sequence[Companion], *, log_folder: Path) -> AsyncIterator[None]:
    """Started side by side, and ready, before it yields. Raises Unavailable naming the one that did not come up."""
    running = [_Running(one, log_folder) for one in declared]
    try:
        for started in await asyncio.gather(*(one.start() for one in running), return_exceptions=True):
            if isinstance(started, BaseException):
                raise started
        yield
    finally:
        await _stop(running)


async def _stop(running: Sequence["_Running"]) -> None:
    await asyncio.gather(*(one.stop() for one in running))


class _Running:
    def __init__(self, declared: Companion, log_folder: Path) -> None:
        self._declared = declared
        self._log_path = log_folder / f"companion-{declared.name}.log"
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._process = await self._spawn()
        await self._ready(self._process)
        self._watch = asyncio.create_task(self._keep(), name=f"companion:{self._declared.name}")

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def _spawn(self) -> asyncio.subprocess.Process:
        name = self._declared.name
        environment = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
        mode = "wb" if self._log_path.exists() and self._log_path.stat().st_size > LOG_BYTES_MAX else "ab"
        try:
            with self._log_path.open(mode) as output:
                return await asyncio.create_subprocess_exec(
                    *_command(self._declared),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise Unavailable(
                f"the companion {name} cannot be started: {error.strerror} ({self._declared.command[0]})"
            ) from error

    async def _ready(self, process: asyncio.subprocess.Process) -> None:
        url, name = self._declared.ready_url, self._declared.name
        if url is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S), httpx2.AsyncClient(trust_env=False, timeout=2.0) as client:
                while process.returncode is None:
                    with contextlib.suppress(httpx2.HTTPError):
                        if (await client.get(url)).status_code < 500:
                            return
                    await asyncio.sleep(POLL_S)
        raise Unavailable(
            f"the companion {name} did not come up (its output: {self._log_path}); is its port taken? {url}",
        )

    async def _keep(self) -> None:
        wait_s = RESTART_S
        while self._process is not None:
            code = await self._process.wait()
            log.warning(
                "companion.ended",
                extra={"companion": self._declared.name, "exit_code": code, "again_in_s": wait_s},
            )
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, RESTART_S_MAX)
            try:
                self._process = await self._spawn()
            except Unavailable as error:
                log.warning(
                    "companion.not_started", extra={"companion": self._declared.name, "error": error.message}
                )


def _command(declared: Companion) -> tuple[str, ...]:
    if sys.platform != "linux":
        return declared.command
    return (sys.executable, "-ISc", _DIES_WITH, str(os.getpid()), *declared.command)
