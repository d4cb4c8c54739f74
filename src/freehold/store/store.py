"""Everything that is kept, opened together: what app.py holds. Each part implements a port of core/ports.py.

Not here: which database and which object store (config.py), and the embedded server's life (embedded.py).
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec import Struct

from freehold.core.ports import Objects
from freehold.store._housekeeping import housekeeping
from freehold.store._listen import Listener
from freehold.store.database import Database, open_database
from freehold.store.key_values import PostgresKeyValues
from freehold.store.keys import PostgresKeys
from freehold.store.log import PostgresSessionLog, open_log
from freehold.store.migrations import migrate
from freehold.store.records import PostgresCallRecords, open_records
from freehold.store.resources import PostgresResources


class Store(Struct, frozen=True):
    database: Database
    log: PostgresSessionLog
    resources: PostgresResources
    records: PostgresCallRecords
    keys: PostgresKeys
    key_values: PostgresKeyValues
    objects: Objects


@asynccontextmanager
async def open_store(url: str, *, objects: Objects, process_id: str) -> AsyncIterator[Store]:
    """Migrates the schema first. `process_id` shows in pg_stat_activity. All times are the database's own.

    Raises Unavailable when the database is away, Conflict when its schema is newer than this code. Leaving writes what waits.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(url, process_id=process_id))
        await migrate(database)
        listener = Listener(database)
        log = await stack.enter_async_context(open_log(database, listener))
        records = await stack.enter_async_context(open_records(database))
        resources, keys = PostgresResources(database, listener), PostgresKeys(database, listener)
        await stack.enter_async_context(listener.running())
        await stack.enter_async_context(housekeeping(database))
        yield Store(database, log, resources, records, keys, PostgresKeyValues(database), objects)
