"""One server for all, with a small agent that answers by rules over a table."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli._freehold import Freehold

TEMPLATE = """\
kind: tool
name: stock
type: kv
config: { table: stock }
---
kind: rules
name: clerk
patterns: { sku: 'SKU-[0-9]+' }
rules:
  - name: level
    when: stock|how many|sku
    needs: [sku]
    steps:
      - tool: stock_get
        arguments: { keys: ["{{ sku }}"] }
        save_as: level
    answer: "{{ sku }}: {{ results.level.data['items'][sku].units }} units."
otherwise: I know of stock levels only.
---
kind: agent
name: clerk
rules: clerk
tools: [stock]
"""


@pytest.fixture
def freehold(tmp_path: Path) -> Freehold:
    """On a data folder of the test's own; nothing runs there."""
    return Freehold(tmp_path / "data folder")


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Freehold]:
    """A server runs here, and `clerk` is declared. Tests add to it, and find what others added."""
    here = Freehold(tmp_path_factory.mktemp("served") / "data folder")
    with here.serving():
        here.ok("apply", "-", "--yes", input=TEMPLATE)
        here.ok("data", "put-items", "stock", "-", input='{"key": "SKU-1", "value": {"units": 7}}\n')
        yield here
