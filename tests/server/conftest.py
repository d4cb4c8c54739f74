from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from freehold.config import Server
from freehold.store.embedded import EmbeddedServer
from tests._postgres import MIGRATED, fresh_database
from tests.server._world import World, world


@pytest.fixture(scope="session")
async def shared(
    postgres_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """One server for all tests that only add to it. What they leave at work in the end is waited for by nobody."""
    folder: Path = tmp_path_factory.mktemp("shared")
    at_once = Server(drain_s=0.1)
    async with (
        fresh_database(postgres_server, template=MIGRATED) as url,
        world(url, folder, server=at_once) as opened,
    ):
        yield opened


@pytest.fixture(scope="module")
async def url(postgres_server: EmbeddedServer) -> AsyncIterator[str]:
    """A database of the module's own, for servers that are not shared."""
    async with fresh_database(postgres_server, template=MIGRATED) as made:
        yield made
