"""What docs/sessions.md tells to type about forks, replays and comparisons works, on a session of one's own."""

import re
import shlex
from collections.abc import Iterator

import pytest

from tests.cli._freehold import Freehold
from tests.docs.test_documents import ROOT, SHOP, blocks

PAGE = ROOT / "docs" / "sessions.md"
RUN = re.compile(r"^freehold sessions (list|show|fork|replay|export|diff|pause|resume|approvals)\b")


def lines() -> list[str]:
    found = [line for block in blocks(PAGE, "sh") for line in block.splitlines()]
    return [line for line in found if RUN.match(line)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Freehold]:
    here = Freehold(tmp_path_factory.mktemp("sessions") / "data folder")
    with here.serving():
        here.ok("apply", "-", "--yes", input=SHOP)
        here.ok("data", "put-items", "stock", "-", input='{"key": "SKU-1", "value": {"units": 7}}\n')
        yield here


@pytest.fixture(scope="module")
def session(shop: Freehold) -> str:
    shop.ok("chat", "shop", "How many SKU-1 are there?")
    return str(shop.ok("sessions", "list", "--limit", "1", "--json").json[0]["id"])


@pytest.mark.slow
@pytest.mark.parametrize("line", lines())
def test_a_documented_command_does_what_it_says(
    shop: Freehold, session: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop.folder.parent)
    words = shlex.split(line, comments=True)[1:]
    shop.ok(*(session if word.startswith("sess_") else word for word in words))


def test_every_status_is_in_the_picture() -> None:
    [picture] = blocks(PAGE, "mermaid")
    assert set(re.findall(r"^\s+(\w+) -->", picture, re.MULTILINE)) == {
        "idle",
        "running",
        "waiting",
        "paused",
        "cancelled",
    }
