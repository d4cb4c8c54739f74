"""The retail template end to end without a model: its tools open over the real parts, and its rules answer from data.

Which pairs are in which situation comes from the generator, which writes it down nowhere: an answer can only know it from
what the tools return.
"""

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from freehold.core.messages import ToolSpec
from freehold.providers.rules import check
from freehold.store.blobs import open_objects
from freehold.store.database import open_database
from freehold.store.embedded import EmbeddedServer
from freehold.store.key_values import PostgresKeyValues
from freehold.store.migrations import migrate
from tests._postgres import fresh_database
from tests.examples._retail import EXAMPLE, Retailer, declared, fill, retailer, supply_chain

sys.path.insert(0, str(EXAMPLE))


@pytest.fixture(scope="module")
async def shop(postgres_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Retailer]:
    folder = tmp_path_factory.mktemp("retail")
    async with fresh_database(postgres_server) as url, fresh_database(postgres_server) as own_url:
        seed = [sys.executable, str(EXAMPLE / "seed.py"), "--folder", str(folder), "--database-url", url]
        subprocess.run(seed, check=True, capture_output=True)
        async with open_database(own_url, process_id="test") as database:
            await migrate(database)
            tables, objects = PostgresKeyValues(database), open_objects(str(folder / "store"))
            await fill(folder, tables, objects)
            async with supply_chain(folder) as service_url, retailer(service_url, url, tables, objects) as opened:
                yield opened
