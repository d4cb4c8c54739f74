"""Everything that is kept, opened together: what app.py holds. Each part implements a port of core/ports.py.

Not here: which database and which object store (config.py), and the embedded server's life (embedded.py).
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

from freehold.core.ports import Objects
from freehold.store._housekeeping import housekeeping
from freehold.store._listen import Listener
from freehold.store.allowances import PostgresAllowances
from freehold.store.answers import PostgresAnswers, open_answers
from freehold.store.conversations import PostgresConversations
from freehold.store.costs import PostgresCosts
from freehold.store.database import Database, open_database
from freehold.store.deployments import PostgresDeployments
from freehold.store.experiments import PostgresExperiments
from freehold.store.figures import PostgresFigures
from freehold.store.key_values import PostgresKeyValues
from freehold.store.keys import PostgresKeys
from freehold.store.live import PostgresLiveChannel
from freehold.store.log import PostgresSessionLog, open_log
from freehold.store.message_batches import PostgresMessageBatches
from freehold.store.migrations import migrate
from freehold.store.outside_events import PostgresExpectedEvents
from freehold.store.records import PostgresCallRecords, open_records
from freehold.store.resources import PostgresResources, open_resources
from freehold.store.responses import PostgresResponses
from freehold.store.retention import RESPONSES_DAYS, PostgresRetention
from freehold.store.tool_places import PostgresToolPlaces
from freehold.store.webhooks import PostgresWebhooks

PROCESS_BYTES: Final = 8
"""Of chance: process ids come again."""


class Store(Struct, frozen=True):
    database: Database
    log: PostgresSessionLog
    live: PostgresLiveChannel
    resources: PostgresResources
    records: PostgresCallRecords
    costs: PostgresCosts
    keys: PostgresKeys
    key_values: PostgresKeyValues
    objects: Objects
    responses: PostgresResponses
    conversations: PostgresConversations
    message_batches: PostgresMessageBatches
    allowances: PostgresAllowances
    answers: PostgresAnswers
    experiments: PostgresExperiments
    figures: PostgresFigures
    tool_places: PostgresToolPlaces
    retention: PostgresRetention
    deployments: PostgresDeployments
    webhooks: PostgresWebhooks
    expected_events: PostgresExpectedEvents


@asynccontextmanager
async def open_store(
    url: str,
    *,
    objects: Objects,
    process_id: str,
    spool_folder: Path | None = None,
    responses_days: float = RESPONSES_DAYS,
) -> AsyncIterator[Store]:
    """Migrates the schema first. `process_id` shows in pg_stat_activity. All times are the database's own.

    `spool_folder` keeps records of calls until the database has them; processes may share one. Without, a process that is killed
    takes with it what it had not written.

    `responses_days`: how long answers of the Responses API are kept.

    Raises Unavailable when the database is away, Conflict when its schema is newer than this code. Leaving writes what waits.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(url, process_id=process_id))
        await migrate(database)
        listener = Listener(database)
        log = await stack.enter_async_context(open_log(database, listener, objects))
        records = await stack.enter_async_context(open_records(database, spool_folder))
        resources = await stack.enter_async_context(open_resources(database, listener))
        keys = PostgresKeys(database, listener)
        allowances = PostgresAllowances(database, listener, records.spool, owner=process_id)
        batches = PostgresMessageBatches(database, listener)
        answers = await stack.enter_async_context(open_answers(database))
        live = PostgresLiveChannel(database, listener)
        deployments = PostgresDeployments(database, listener)
        webhooks = PostgresWebhooks(database, listener)
        expected_events = PostgresExpectedEvents(database, listener)
        await stack.enter_async_context(listener.running())
        await stack.enter_async_context(housekeeping(database, objects))
        yield Store(
            database,
            log,
            live,
            resources,
            records,
            PostgresCosts(database),
            keys,
            PostgresKeyValues(database),
            objects,
            PostgresResponses(database, log),
            PostgresConversations(database, log),
            batches,
            allowances,
            answers,
            PostgresExperiments(database),
            PostgresFigures(database, process=f"{process_id} {secrets.token_hex(PROCESS_BYTES)}"),
            PostgresToolPlaces(database),
            PostgresRetention(database, objects, responses_days=responses_days),
            deployments,
            webhooks,
            expected_events,
        )
