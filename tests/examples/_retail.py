"""The retailer as the demo has it, over real parts: its database, tables, objects, service, tools and rules.

`ask` does what a session does: asks the `rules` model, runs the tools that it calls, and asks again until it answers.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from freehold.core.errors import FreeholdError
from freehold.core.messages import Message, ModelRequest, Text, ToolCall, ToolResult, ToolSpec, text_of
from freehold.core.ports import KeyValues, Objects, OpenTool, ToolKind, ToolRun
from freehold.core.resources import Agent, Rules, Tool
from freehold.core.stream import fold
from freehold.core.validation import convert
from freehold.providers.rules import RulesProvider
from freehold.resources.template import read_template
from freehold.tools import function, http, kv, objects, sql
from tests._waiting import within
from tests.tools._host import PRINCIPAL, Host

EXAMPLE = Path(__file__).parents[2] / "examples" / "retail"
TEMPLATE = EXAMPLE / "retail.yaml"
KINDS: dict[str, ToolKind] = {one.KIND.name: one.KIND for one in (function, http, kv, objects, sql)}
TURN_STEPS_MAX = 12


def declared(supply_chain_url: str) -> tuple[list[Tool], Rules, Agent]:
    read = read_template(
        TEMPLATE.read_text(), source="retail.yaml", variables={"SUPPLY_CHAIN_URL": supply_chain_url}
    )
    resources = [one.resource for one in read]
    (rules,) = [one for one in resources if isinstance(one, Rules)]
    (agent,) = [one for one in resources if isinstance(one, Agent)]
    return [one for one in resources if isinstance(one, Tool)], rules, agent


class Turn(Struct):
    answer: str
    calls: list[tuple[str, str]]
    """Function and arguments, in order."""
    failures: list[str]
    messages: list[Message]


class Retailer:
    def __init__(self, rules: Rules, tools: dict[str, OpenTool]) -> None:
        self.tools = tools
        self._provider = RulesProvider(lambda _: _given(rules))

    @contextmanager
    def without(self, name: str, *, instead: OpenTool | None = None) -> Iterator[None]:
        """For a while: to see what an answer says when a tool is missing, or another is in its place."""
        whole = dict(self.tools)
        del self.tools[name]
        if instead is not None:
            self.tools[name] = instead
        try:
            yield
        finally:
            self.tools.update(whole)

    def specs(self) -> dict[str, tuple[OpenTool, str, ToolSpec]]:
        found = {}
        for name, tool in self.tools.items():
            for one in tool.functions:
                full = f"{name}_{one.spec.name}" if one.spec.name else name
                found[full] = (tool, one.spec.name, structs.replace(one.spec, name=full))
        return found

    async def ask(self, question: str, *, after: Sequence[Message] = ()) -> Turn:
        specs = self.specs()
        turn = Turn("", [], [], [*after, Message("user", (Text(question),))])
        for _ in range(TURN_STEPS_MAX):
            request = ModelRequest(
                model="rules/retail",
                messages=tuple(turn.messages),
                tools=tuple(spec for _, _, spec in specs.values()),
            )
            async with self._provider.call(request) as events:
                response = fold([event async for event in events])
            turn.messages.append(Message("assistant", response.content))
            calls = response.tool_calls()
            if not calls:
                turn.answer = text_of(response.content)
                return turn
            results = await asyncio.gather(*(self._run(specs[call.name], call) for call in calls))
            turn.calls += [(call.name, call.arguments) for call in calls]
            turn.failures += [
                f"{call.name}: {text_of(one.content)}"
                for call, one in zip(calls, results, strict=True)
                if one.failed
            ]
            turn.messages.append(Message("tool", tuple(results)))
        raise AssertionError(f"no answer after {TURN_STEPS_MAX} steps: {turn.calls}")

    async def _run(self, found: tuple[OpenTool, str, ToolSpec], call: ToolCall) -> ToolResult:
        tool, name, _ = found
        run = ToolRun(
            function=name,
            arguments=msgspec.json.decode(call.arguments),
            key=call.id,
            timeout_s=60,
            principal=PRINCIPAL,
        )
        try:
            outcome = await tool.run(run)
        except FreeholdError as error:
            return ToolResult(call.id, (Text(str(error)),), failed=True)
        return ToolResult(call.id, outcome.content, outcome.failed)


async def _given(rules: Rules) -> Rules:
    return rules


@asynccontextmanager
async def supply_chain(folder: Path) -> AsyncIterator[str]:
    """The service as a process, on a port of its own choosing; the line that it prints first holds its URL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLE / "supply_chain.py"),
        "--data",
        str(folder),
        "--port",
        "0",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with within("the first line"):
            line = (await process.stdout.readline()).decode()
        yield next(word for word in line.split() if word.startswith("http://")).rstrip("/.,")
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def retailer(
    service_url: str, database_url: str, key_values: KeyValues, objects: Objects
) -> AsyncIterator[Retailer]:
    tools, rules, _ = declared(service_url)
    host = Host(
        databases={"retail": database_url},
        key_values=key_values,
        objects=objects,
        function_folders=[EXAMPLE / "functions"],
    )
    async with AsyncExitStack() as stack:
        opened = {}
        for tool in tools:
            kind = KINDS[tool.type]
            config = convert(tool.config, kind.config, root="config")
            opened[tool.name] = await stack.enter_async_context(kind.open(tool, config, host))
        yield Retailer(rules, opened)


async def fill(folder: Path, key_values: KeyValues, objects: Objects) -> None:
    """Stock levels into the table, papers into the object store, as the demo does."""
    lines = [msgspec.json.decode(line) for line in (folder / "inventory.ndjson").read_bytes().splitlines()]
    await key_values.put(PRINCIPAL.tenant, "inventory", {line["key"]: line["value"] for line in lines})
    root = folder / "objects"
    for path in root.rglob("*.*"):
        await objects.put(PRINCIPAL.tenant, f"retail/{path.relative_to(root).as_posix()}", path.read_bytes())
