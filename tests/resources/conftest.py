from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from freehold.store.blobs import open_objects
from freehold.store.embedded import EmbeddedServer
from freehold.store.store import Store, open_store
from tests._postgres import MIGRATED, fresh_database


@pytest.fixture(scope="module")
async def store(
    postgres_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Store]:
    """One for all tests of a file: each has a tenant of its own."""
    folder: Path = tmp_path_factory.mktemp("objects")
    async with (
        fresh_database(postgres_server, template=MIGRATED) as url,
        open_store(url, objects=open_objects(str(folder)), process_id="tests") as opened,
    ):
        yield opened
