"""What only time decides: idempotency keys are forgotten two days after their use, kept responses when theirs is over. Sessions: retention.py.

Each process tries; the rows decide.
"""

import asyncio
import logging
import random
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Final

from freehold.background import background
from freehold.core.errors import FreeholdError
from freehold.core.ports import Objects
from freehold.store import _deletions, _responses_statements, deployments, outside_events, webhooks
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


async def forget_responses(database: Database, *, days: float) -> int:
    """How many were forgotten: those that are older, and that no later one refers to."""
    count = 0
    kept = timedelta(days=days)
    while deleted := len(
        await database.fetch("forgetting old responses", _responses_statements.FORGET, kept, DELETED_MAX)
    ):
        count += deleted
    return count


def housekeeping(
    database: Database, objects: Objects, *, responses_days: float
) -> AbstractAsyncContextManager["asyncio.Task[None]"]:
    return background(_run(database, objects, responses_days), "housekeeping")


async def _run(database: Database, objects: Objects, responses_days: float) -> None:
    while True:
        await asyncio.sleep(EVERY_S * random.uniform(0.5, 1.0))
        try:
            keys_count = await forget_keys(database)
            responses_count = await forget_responses(database, days=responses_days)
            await deployments.forget_runs(database, at_once=DELETED_MAX)
            await webhooks.forget(database, at_once=DELETED_MAX)
            await outside_events.forget(database, at_once=DELETED_MAX)
            await _deletions.sweep(database, objects)
        except FreeholdError as error:
            log.warning("store.housekeeping.failed", extra={"detail": error.detail})
        else:
            log.debug(
                "store.housekeeping.done",
                extra={"keys": keys_count, "responses": responses_count},
            )
