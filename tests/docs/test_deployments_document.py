"""What docs/deployments.md tells to type and to run works, on a server."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.cli._freehold import Freehold
from tests.docs.test_documents import ROOT, SHOP, blocks

PAGE = ROOT / "docs" / "deployments.md"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Freehold]:
    here = Freehold(tmp_path_factory.mktemp("deployments") / "data folder")
    (template,) = blocks(PAGE, "yaml")
    with here.serving():
        here.ok("apply", "-", "--yes", input=f"{SHOP}---\n{template}")
        yield here


@pytest.mark.slow
def test_the_documented_commands_and_program_do_what_they_say(shop: Freehold) -> None:
    (commands,) = blocks(PAGE, "sh")
    for line in commands.splitlines():
        _, *words = shlex.split(line, comments=True)
        if words[0] == "deployments":
            shop.ok(*words)
    (program,) = blocks(PAGE, "python")
    told = json.loads((shop.folder / "server.json").read_bytes())
    environment = shop.environment() | {"FREEHOLD_URL": told["url"], "FREEHOLD_API_KEY": told["api_key"]}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith(" manual")
