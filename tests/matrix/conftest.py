from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from freehold.store.embedded import EmbeddedServer
from tests._postgres import MIGRATED, fresh_database
from tests.matrix._world import MatrixWorld, matrix_world


@pytest.fixture(scope="session")
async def matrix(
    postgres_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[MatrixWorld]:
    folder: Path = tmp_path_factory.mktemp("matrix")
    async with fresh_database(postgres_server, template=MIGRATED) as url, matrix_world(url, folder) as opened:
        yield opened
