"""Everything that is kept, opened together: what app.py holds. Each part implements a port of core/ports.py.

Not here: which database and which object store (config.py), and the embedded server's life (embedded.py).
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec import Struct

from freehold.store._listen import Listener
from freehold.store.database import Database, open_database
from freehold.store.log import PostgresSessionLog, open_log
from freehold.store.migrations import migrate


class Store(Struct, frozen=True):
    database: Database
    log: PostgresSessionLog


@asynccontextmanager
async def open_store(url: str, *, process_id: str) -> AsyncIterator[Store]:
    """Migrates the schema first. Raises Unavailable when the database is away, Conflict when it is newer than this code."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(url, process_id=process_id))
        await migrate(database)
        listener = Listener(database)
        log = await stack.enter_async_context(open_log(database, listener))
        await stack.enter_async_context(listener.running())
        yield Store(database, log)
