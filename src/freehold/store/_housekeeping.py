"""What only time decides: idempotency keys are forgotten two days after their use. Sessions, of whatever kind: retention.py.

Each process tries; the rows decide.
"""

import asyncio
import logging
from contextlib import AbstractAsyncContextManager
from typing import Final

from freehold.background import background
from freehold.core.errors import FreeholdError
from freehold.core.jitter import jittered
from freehold.core.ports import Objects
from freehold.store import _deletions, deployments, outside_events, webhooks
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


def housekeeping(database: Database, objects: Objects) -> AbstractAsyncContextManager["asyncio.Task[None]"]:
    return background(_run(database, objects), "housekeeping")


async def _run(database: Database, objects: Objects) -> None:
    while True:
        await asyncio.sleep(jittered(EVERY_S))
        try:
            keys_count = await forget_keys(database)
            await deployments.forget_runs(database, at_once=DELETED_MAX)
            await webhooks.forget(database, at_once=DELETED_MAX)
            await outside_events.forget(database, at_once=DELETED_MAX)
            await _deletions.sweep(database, objects)
        except FreeholdError as error:
            log.warning("store.housekeeping.failed", extra={"detail": error.detail})
        else:
            log.debug("store.housekeeping.done", extra={"keys": keys_count})
