"""The processes that chaos plays with: the ledger, and workers, each behind a network of its own (tests/store/_proxy.py)."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.chaos._checker import Found, check_history
from tests.chaos._ledger import ask
from tests.chaos._place import place
from tests.runtime._world import TENANT
from tests.store._proxy import Proxy, proxied

ROOT = Path(__file__).parents[2]
READY_S_MAX = 60.0


async def spawn(*arguments: str, prefix: Sequence[str] = ()) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *prefix, sys.executable, "-m", *arguments,
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def end(process: asyncio.subprocess.Process, number: int = signal.SIGKILL) -> None:
    if process.returncode is None:
        process.send_signal(number)
    await process.wait()


@asynccontextmanager
async def ledger() -> AsyncIterator[int]:
    """Its port."""
    process = await spawn("tests.chaos._ledger")
    try:
        yield int(await process.stdout.readline())
    finally:
        await end(process)


class WorkerProcess:
    """One that is started anew whenever it has ended, behind the same network."""

    def __init__(self, network: Proxy, ledger_port: int, seed: int) -> None:
        self.network = network
        self.stopped = False
        self.deaths = 0
        self._ledger_port = ledger_port
        self._seed = seed
        self._process: asyncio.subprocess.Process | None = None

    def signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def run(self) -> None:
        """For ever."""
        try:
            while True:
                arguments = [self.network.url, str(self._ledger_port), str(self._seed)]
                self._process = await spawn("tests.chaos._worker", *arguments)
                await self._process.wait()
                self.deaths += 1
                self._seed += self._seed and 1000
        finally:
            if self._process is not None:
                self.signal(signal.SIGCONT)
                await end(self._process)


@asynccontextmanager
async def workers(
    url: str, ledger_port: int, count: int, *, dies: bool = True
) -> AsyncIterator[list[WorkerProcess]]:
    async with AsyncExitStack() as stack:
        found = []
        for number in range(1, count + 1):
            network = await stack.enter_async_context(proxied(url))
            found.append(WorkerProcess(network, ledger_port, number if dies else 0))
        tasks = [asyncio.create_task(one.run()) for one in found]
        try:
            yield found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def check_all(url: str, ledger_port: int, plans: dict[str, str]) -> Found:
    """All histories, against their plans and against what the ledger counted."""
    counts = json.loads(await ask(ledger_port, "counts"))
    found = Found()
    accounted: set[str] = set()
    async with place(url, ledger_port) as here:
        for session_id, plan in plans.items():
            row = await here.log.get(TENANT, session_id)
            log = await here.log.read(session_id)
            assert (row.status, row.version) == ("idle", len(log)), (row.status, row.version, len(log))
            accounted |= check_history(log, plan, counts, found)
    strangers = {line for line in counts if line.split(".")[0].split()[1] in plans} - accounted
    assert not strangers, f"done, and in no history: {sorted(strangers)[:5]}"
    return found
