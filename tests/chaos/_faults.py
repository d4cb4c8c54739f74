"""What goes wrong, one thing at a time or several together, as chance has it. Each fault is over by itself."""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import asyncpg

from tests.chaos._database import Postgres
from tests.chaos._place import LEASE_S
from tests.chaos._processes import WorkerProcess

PAUSE_S = (0.05, 0.6)
LATE_S = 2.5 * LEASE_S

_BACKENDS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


class Chaos:
    """Asks the database itself, past all networks."""

    def __init__(self, database: Postgres, workers: Sequence[WorkerProcess], seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._database = database
        self._restarting = asyncio.Lock()
        self._workers = workers
        self._chance = random.Random(seed)
        self._kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "worker killed": self._kill,
            "worker frozen past its lease": self._freeze,
            "network cut": self._cut,
            "network stalled": self._stall,
            "connections terminated": self._terminate,
            "database crashed": self._crash,
            "database restarted": self._restart,
        }

    async def run(self) -> None:
        """For ever. When it is cancelled, what is broken is mended."""
        try:
            async with asyncio.TaskGroup() as under_way:
                while True:
                    await asyncio.sleep(self._chance.uniform(*PAUSE_S))
                    name = self._chance.choice(list(self._kinds))
                    self.counts[name] += 1
                    under_way.create_task(self._kinds[name]())
        finally:
            for worker in self._workers:
                worker.signal(signal.SIGCONT)
                worker.network.heal()
                worker.network.thaw()

    def _one(self) -> WorkerProcess:
        return self._chance.choice(self._workers)

    async def _kill(self) -> None:
        self._one().signal(signal.SIGKILL)

    async def _freeze(self) -> None:
        """SIGSTOP, and SIGCONT when others have its sessions: the late one must not write."""
        worker = self._one()
        worker.signal(signal.SIGSTOP)
        await asyncio.sleep(self._chance.uniform(0.2, 1) * LATE_S)
        worker.signal(signal.SIGCONT)

    async def _cut(self) -> None:
        network = self._one().network
        network.cut()
        await asyncio.sleep(self._chance.uniform(0.1, 1) * LATE_S)
        network.heal()

    async def _stall(self) -> None:
        """Nothing comes through, and nobody is told."""
        network = self._one().network
        network.freeze()
        await asyncio.sleep(self._chance.uniform(0.1, 1) * LATE_S)
        network.thaw()

    async def _terminate(self) -> None:
        for pid in await self._backends():
            if self._chance.random() < 0.5:
                await self._asked(f"SELECT pg_terminate_backend({pid})")

    async def _crash(self) -> None:
        """A backend that dies takes the server down with it, which then recovers from its log."""
        if pids := await self._backends():
            os.kill(self._chance.choice(pids), signal.SIGKILL)

    async def _restart(self) -> None:
        """One that is being restarted already is left alone."""
        if not self._restarting.locked():
            async with self._restarting:
                await self._database.restart()

    async def _backends(self) -> list[int]:
        return [row["pid"] for row in await self._asked(_BACKENDS)]

    async def _asked(self, query: str) -> list:
        try:
            connection = await asyncpg.connect(self._database.url, timeout=5)
            try:
                return await connection.fetch(query)
            finally:
                await connection.close()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return []  # Down already.
