"""A migrated database, empty for every test; stores on it, and a network that can be cut."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import asyncpg
import pytest
from tests._postgres import MIGRATED, fresh_database
from tests.store._proxy import Proxy, proxied

from freehold.store.blobs import open_objects
from freehold.store.embedded import EmbeddedServer
from freehold.store.store import Store, open_store

TABLES = (
    "sessions",
    "events",
    "fork_segments",
    "snapshots",
    "session_deletions",
    "block_uses",
    "blocks",
    "append_keys",
    "create_keys",
    "resources",
    "resource_versions",
    "session_limits",
    "tool_limits",
    "tool_places",
    "approval_evidence",
    "retention_runs",
    "call_records",
    "call_days",
    "api_keys",
    "key_values",
    "items",
    "message_batches",
    "message_batch_requests",
    "allowance_leases",
    "allowances",
    "answer_likenesses",
    "answers",
    "canaries",
    "canary_steps",
    "feedback",
    "deployments",
    "deployment_runs",
    "live_figures",
    "expected_events",
    "early_events",
)

FIRST_TURN = "UPDATE freehold.claim_turn SET tenant = '', agent = ''"
"""Else it would depend on the test before which queue a claim looks at first."""


class Opens(Protocol):
    def __call__(
        self, process_id: str, *, url: str | None = None, spool_folder: Path | None = None
    ) -> AbstractAsyncContextManager[Store]: ...


@pytest.fixture(scope="session")
async def migrated_url(postgres_server: EmbeddedServer) -> AsyncIterator[str]:
    async with fresh_database(postgres_server, template=MIGRATED) as url:
        yield url


@pytest.fixture(scope="session")
async def emptying(migrated_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """One for all tests: a new connection would first have to learn of every table."""
    connection = await asyncpg.connect(migrated_url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def store_url(migrated_url: str, emptying: "asyncpg.Connection[asyncpg.Record]") -> AsyncIterator[str]:
    """Migrated and without rows. Emptied after each test, which takes a fraction of making a database."""
    yield migrated_url
    await emptying.execute("; ".join([*(f"DELETE FROM freehold.{table}" for table in TABLES), FIRST_TURN]))


@pytest.fixture
def opened(store_url: str, tmp_path: Path) -> Opens:
    """Opens one more process's store on the test's database."""

    def open_one(
        process_id: str, *, url: str | None = None, spool_folder: Path | None = None
    ) -> AbstractAsyncContextManager[Store]:
        return open_store(
            url or store_url,
            objects=open_objects(str(tmp_path / "objects")),
            process_id=process_id,
            spool_folder=spool_folder or tmp_path / "spool",
        )

    return open_one


@pytest.fixture
async def store(opened: Opens) -> AsyncIterator[Store]:
    async with opened("here") as one:
        yield one


@pytest.fixture
async def other(opened: Opens) -> AsyncIterator[Store]:
    async with opened("there") as one:
        yield one


@pytest.fixture
async def proxy(store_url: str) -> AsyncIterator[Proxy]:
    async with proxied(store_url) as one:
        yield one
