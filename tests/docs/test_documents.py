"""What the documents say is so: command lines parse, settings and templates are taken, programs run, the transcript is a run's."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import msgspec
import pytest
import yaml

from freehold.catalog.catalog import decode
from freehold.cli.main import cli
from freehold.config import Companion, Config, read_config
from freehold.core.policy import ALLOW_ALL, Policy, Principal
from freehold.core.ports import ToolRun
from freehold.core.resources import KINDS, Tool
from freehold.core.validation import convert
from tests.cli._freehold import Freehold

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text()) if kind == language]


def command_lines() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    return sorted({line.strip() for line in lines if line.startswith("freehold ")})


@pytest.mark.parametrize("line", command_lines())
def test_a_documented_command_line_is_taken(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "papers").mkdir()
    (tmp_path / "items.ndjson").touch()
    words = shlex.split(line, comments=True)[1:]
    group: click.Command = cli
    context: click.Context | None = None
    while True:
        context = group.make_context(group.name or "freehold", words, parent=context)
        if not isinstance(group, click.Group):
            return
        if group.invoke_without_command and not (context._protected_args or context.args):
            return
        _, found, words = group.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        group = found


def test_every_key_of_the_configuration_is_documented() -> None:
    section = (ROOT / "docs" / "configuration.md").read_text().partition("## Keys\n")[2].partition("\n## ")[0]
    told = set(re.findall(r"^\| `([a-z_.]+)` \|", section, re.MULTILINE))
    assert told == {*keys_of(Config), *(f"companions.{name}" for name in Companion.__struct_fields__)}


def keys_of(shape: type[msgspec.Struct]) -> Iterator[str]:
    for field in msgspec.structs.fields(shape):
        if field.name in {"data_folder", "environment"}:
            continue
        inner = field.type
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            yield from (f"{field.name}.{name}" for name in keys_of(inner))
        else:
            yield field.name


def test_documented_settings_are_taken(tmp_path: Path) -> None:
    (example,) = blocks(ROOT / "docs" / "configuration.md", "toml")
    (tmp_path / "freehold.toml").write_text(example)
    config = read_config(data_folder=tmp_path, environment={})
    assert (config.server.port, config.databases, config.companions[0].name) == (9000, ("sales",), "pricing")


def test_every_kind_of_resource_and_tool_is_documented() -> None:
    text = (ROOT / "docs" / "templates.md").read_text()
    assert [kind for kind in KINDS if f"\n## {kind}\n" not in text] == []
    tools = {path.stem for path in (ROOT / "src/freehold/tools").iterdir() if not path.name.startswith("_")}
    assert [kind for kind in sorted(tools) if f"| `{kind}` |" not in text] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/templates.md",
        "docs/google.md",
        "docs/limits.md",
        "docs/routes.md",
        "docs/workers.md",
        "docs/webhooks.md",
        "docs/deployments.md",
    ],
)
def test_documented_templates_are_taken(shop: Freehold, page: str) -> None:
    examples = blocks(ROOT / page, "yaml")
    assert examples
    for example in examples:
        shop.ok("apply", "-", "--dry-run", "--allow-unknown-models", input=example)


@pytest.mark.slow
def test_documented_programs_run_against_a_server(shop: Freehold) -> None:
    told = json.loads((shop.folder / "server.json").read_bytes())
    environment = shop.environment() | {"FREEHOLD_URL": told["url"], "FREEHOLD_API_KEY": told["api_key"]}
    said = []
    *asking, filling = blocks(ROOT / "docs" / "api.md", "python")
    for program in (filling, *asking):
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    _, chat, session = said
    assert "stock levels only" in chat
    assert session.splitlines()[-1].endswith("session.status_idle")


def test_the_documented_look_at_the_interpreter_says_how_it_was_configured() -> None:
    (line,) = [
        line
        for block in blocks(ROOT / "docs" / "cli.md", "sh")
        for line in block.splitlines()
        if line.startswith("python ")
    ]
    asked = [sys.executable, *shlex.split(line)[1:]]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.strip() == str("--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""))


def test_a_documented_policy_is_taken() -> None:
    (example,) = blocks(ROOT / "docs" / "api.md", "json")
    policy = msgspec.json.decode(example, type=Policy)
    assert policy.statement[0].action == "model:Call"


SHOP = """\
kind: tool
name: stock
type: kv
config: { table: stock }
---
kind: rules
name: shop
patterns: { sku: 'SKU-[0-9]+' }
rules:
  - name: level
    when: stock|how many
    needs: [sku]
    steps: [{ tool: stock_get, arguments: { keys: ["{{ sku }}"] }, save_as: level }]
    answer: "{{ sku }}: {{ results.level.data['items'][sku].units }}"
otherwise: I know of stock levels only.
---
kind: agent
name: shop
rules: shop
tools: [stock]
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Freehold]:
    """A server runs here: without, every `apply` would start a database of its own."""
    here = Freehold(tmp_path_factory.mktemp("documents") / "data folder")
    with here.serving():
        here.ok("apply", "-", "--yes", input=SHOP)
        yield here


# -- extending


def extending(language: str) -> str:
    (example,) = blocks(ROOT / "docs" / "extending.md", language)
    return example


@pytest.fixture
def calendar(tmp_path: Path) -> ModuleType:
    path = tmp_path / "calendar.py"
    path.write_text(extending("python"))
    spec = importlib.util.spec_from_file_location("documented_calendar", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


async def test_the_documented_kind_of_tool_works(calendar: ModuleType) -> None:
    tool = msgspec.convert(yaml.safe_load(extending("yaml")), Tool)
    assert tool.type == calendar.KIND.name
    config: Any = convert(tool.config, calendar.KIND.config)
    assert config.holidays == (date(2026, 12, 25),)
    principal = Principal("t", "user", "tests", (ALLOW_ALL,))
    async with calendar.KIND.open(tool, config, None) as opened:
        arguments = {"start": "2026-12-21", "end": "2026-12-27"}
        run = ToolRun(function="working_days", arguments=arguments, key="k", timeout_s=5, principal=principal)
        outcome = await opened.run(run)
    assert outcome.content[0].text == '{"days":4}'


def test_the_documented_row_of_the_catalog_is_taken() -> None:
    assert decode(extending("toml").encode())["example"].base_url == "https://api.example.com/v1"


def test_the_readmes_python_is_python() -> None:
    for program in blocks(ROOT / "README.md", "python"):
        compile(program, "README.md", "exec")
    assert os.access(ROOT / "scripts" / "demo", os.X_OK)
