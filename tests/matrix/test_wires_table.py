"""docs/wires.md says what the wires do: every published field of every wire, towards every other, and none is lost."""

import importlib.util
import sys
from types import ModuleType

import pytest

from freehold.server.apis.responses_keeping import DONE_HERE
from tests.matrix._refused import FILE

SCRIPT = FILE.parent.parent.parent / "scripts" / "wires_table.py"


@pytest.fixture(scope="module")
def table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wires_table", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["wires_table"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_wires_do(table: ModuleType) -> None:
    assert table.PAGE.read_text() == table.page(), "run scripts/wires_table.py"


def test_every_field_that_a_vendor_publishes_is_on_it(table: ModuleType) -> None:
    assert {name: missing for name in table.samples() if (missing := table.undocumented(name))} == {}


def test_what_is_done_at_the_door_is_what_the_door_does(table: ModuleType) -> None:
    said = {name: {one.field for one in found.fields if one.door} for name, found in table.samples().items()}
    assert {name: fields for name, fields in said.items() if fields} == {"openai_responses": {*DONE_HERE}}


def test_a_field_that_makes_no_difference_without_a_reason_is_found(table: ModuleType) -> None:
    sample = table.Sample(field="nobody", sets='{"n": 1}')
    with pytest.raises(table.Lost, match="nobody"):
        table.reason("openai_chat", "anthropic_messages", sample)
