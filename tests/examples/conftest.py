"""The examples are programs, not packages: their folders go on the path, as they do when somebody runs them."""

import sys
from pathlib import Path

import pytest

RETAIL = Path(__file__).parents[2] / "examples" / "retail"

for folder in (RETAIL, RETAIL / "functions"):
    sys.path.insert(0, str(folder))

from retail_world.writers import Dataset  # noqa: E402 - once the folders are on the path
from seed import make_dataset  # noqa: E402


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return make_dataset()
