"""The processes that chaos plays with: the ledger, and workers, each behind a network of its own: a door that can be shut
(tests/store/_proxy.py), or a network namespace (_namespaces.py).
"""

import asyncio
import json
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from tests.chaos._checker import Found, check_history
from tests.chaos._database import Postgres
from tests.chaos._ledger import ask
from tests.chaos._place import place
from tests.runtime._world import TENANT

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
async def ledger() -> AsyncIterator[str]:
    """Its socket's path."""
    with tempfile.TemporaryDirectory(prefix="freehold-ledger-") as folder:
        process = await spawn("tests.chaos._ledger", f"{folder}/socket")
        try:
            assert await process.stdout.readline() == b"ready\n"
            yield f"{folder}/socket"
        finally:
            await end(process)


class Network(Protocol):
    """Between one worker and the database. `cut` and `freeze` differ in whether anybody is told."""

    url: str

    def goes_to(self, url: str) -> None: ...
    def cut(self) -> None: ...
    def heal(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...


class WorkerProcess:
    """One that is started anew whenever it has ended, behind the same network."""

    def __init__(self, network: Network, outside: str, seed: int, prefix: Sequence[str]) -> None:
        self.network = network
        self.stopped = False
        self.deaths = 0
        self._outside = outside
        self._prefix = prefix
        self._seed = seed
        self._process: asyncio.subprocess.Process | None = None

    def signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def run(self) -> None:
        """For ever."""
        try:
            while True:
                arguments = [self.network.url, self._outside, str(self._seed)]
                self._process = await spawn("tests.chaos._worker", *arguments, prefix=self._prefix)
                await self._process.wait()
                self.deaths += 1
                self._seed += self._seed and 1000
        finally:
            if self._process is not None:
                self.signal(signal.SIGCONT)
                await end(self._process)


@asynccontextmanager
async def workers(
    database: Postgres, outside: str, networks: Sequence[Network]
) -> AsyncIterator[list[WorkerProcess]]:
    """One behind each of the networks."""
    found = []
    for number, network in enumerate(networks, 1):
        network.goes_to(database.url)
        database.moved.append(network.goes_to)
        found.append(WorkerProcess(network, outside, number, getattr(network, "prefix", ())))
    tasks = [asyncio.create_task(one.run()) for one in found]
    try:
        yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def check_all(url: str, outside: str, plans: dict[str, str]) -> Found:
    """All histories, also those of subagents, against their plans and against what the ledger counted."""
    counts = json.loads(await ask(outside, "counts"))
    found = Found()
    accounted: set[str] = set()
    checked: set[str] = set()
    async with place(url, outside) as here:
        left = list(plans.items())
        while left:
            session_id, plan = left.pop()
            row = await here.log.get(TENANT, session_id)
            log = await here.log.read(session_id)
            assert (row.status, row.version) == ("idle", len(log)), (row.status, row.version, len(log))
            children = (await here.log.list(TENANT, parent_id=session_id, limit=1000)).rows
            begun = [(await here.log.read(child.id, limit=2), child.id) for child in children]
            asked_by = Counter(events[0].event.parent.call_id for events, _ in begun)
            accounted |= check_history(log, plan, counts, found, asked_by)
            left += [(child_id, events[1].event.content[0].text) for events, child_id in begun]
            checked.add(session_id)
    strangers = {line for line in counts if line.split(".")[0].split()[1] in checked} - accounted
    assert not strangers, f"done, and in no history: {sorted(strangers)[:5]}"
    return found
