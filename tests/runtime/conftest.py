"""One database for each of these files: sessions don't meet, and a fresh database a test would cost more than the tests."""

from collections.abc import AsyncIterator

import pytest

from freehold.store.embedded import EmbeddedServer
from tests._postgres import MIGRATED, fresh_database
from tests.runtime._world import Opened, opened


@pytest.fixture(scope="module")
async def database_url(postgres_server: EmbeddedServer) -> AsyncIterator[str]:
    async with fresh_database(postgres_server, template=MIGRATED) as url:
        yield url


@pytest.fixture(scope="module")
async def place(database_url: str) -> AsyncIterator[Opened]:
    """For `world`: a store that the file's tests share."""
    async with opened(database_url) as shared:
        yield shared
