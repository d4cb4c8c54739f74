"""What only time decides: idempotency keys are forgotten two days after their use. Each process tries; the rows decide."""

import asyncio
import logging
import random
from contextlib import AbstractAsyncContextManager
from typing import Final

from freehold.core.errors import FreeholdError
from freehold.store._tasks import background
from freehold.store.database import Database

EVERY_S: Final = 3600.0
DELETED_MAX: Final = 10_000
"""In one statement, so that none takes long; the rest waits for the next one."""

log = logging.getLogger(__name__)

_FORGET: Final = tuple(
    f"""
    DELETE FROM {table} WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM {table} WHERE at < now() - interval '2 days' LIMIT $1 FOR UPDATE SKIP LOCKED
    )) RETURNING 1
    """  # noqa: S608 - our own two tables
    for table in ("append_keys", "create_keys")
)


async def forget_keys(database: Database) -> int:
    """How many were forgotten."""
    count = 0
    for statement in _FORGET:
        while deleted := len(await database.fetch("forgetting old idempotency keys", statement, DELETED_MAX)):
            count += deleted
    return count


def housekeeping(database: Database) -> AbstractAsyncContextManager["asyncio.Task[None]"]:
    return background(_run(database), "housekeeping")


async def _run(database: Database) -> None:
    while True:
        await asyncio.sleep(EVERY_S * random.uniform(0.5, 1.0))
        try:
            count = await forget_keys(database)
        except FreeholdError as error:
            log.warning("store.housekeeping.failed", extra={"detail": error.detail})
        else:
            log.debug("store.housekeeping.done", extra={"keys_forgotten": count})
