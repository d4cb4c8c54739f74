"""The PostgreSQL that chaos plays with: it keeps what it promised, and is crashed, or stopped cleanly and started again."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from freehold.store.database import open_database
from freehold.store.embedded import embedded
from freehold.store.migrations import migrate

STARTED_S_MAX = 180.0
"""Beside the start, a clean stop, to which the embedded server itself gives more than a minute."""

RULES = "local all all scram-sha-256\n"
"""Who may connect, beside those whom `addresses` lets in."""


class Postgres:
    """`url` changes with each start: it names a socket's folder. `moved` are told of it."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.url = ""
        self.moved: list[Callable[[str], None]] = []
        self._folder = folder
        self._settings = settings
        self._up = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """For ever. What opens a server also closes it, so it has a task of its own."""
        while True:
            async with embedded(self._folder / "data", settings=self._settings) as server:
                self.url = server.dsn()
                for tell in self.moved:
                    tell(self.url)
                self._up.set()
                await self._stop.wait()
                self._stop.clear()
                self._up.clear()

    async def up(self) -> None:
        async with asyncio.timeout(STARTED_S_MAX):
            await self._up.wait()

    async def restart(self) -> None:
        """As for an upgrade: it says goodbye to its clients, and is away for a moment."""
        await self.up()
        self._up.clear()
        self._stop.set()
        await self.up()


def _listening(folder: Path, addresses: Sequence[str]) -> Mapping[str, str]:
    """It may run as another user than we do, who reads the rules."""
    rules = folder / "rules.conf"
    rules.write_text(RULES + "".join(f"host all all {one}/30 scram-sha-256\n" for one in addresses))
    folder.chmod(0o755)
    return {"listen_addresses": ",".join(addresses), "hba_file": str(rules)}


@asynccontextmanager
async def postgres(folder: Path, addresses: Sequence[str] = ()) -> AsyncIterator[Postgres]:
    """Migrated. It listens on `addresses` of this machine as well, for those who come from their network."""
    server = Postgres(folder, _listening(folder, addresses) if addresses else {})
    running = asyncio.create_task(server.run())
    try:
        waiting = asyncio.create_task(server.up())
        await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            waiting.cancel()
            await running
        async with open_database(server.url) as database:
            await migrate(database)
        yield server
    finally:
        running.cancel()
        await asyncio.wait([running])
