"""What the runtime's tests stand on: the real store, and small implementations of the ports beside it: a scripted gateway, a
tool kind whose every run is written to a table that outlives the process, declarations in memory.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import asyncpg
from msgspec import Struct
from obstore.store import MemoryStore

from freehold.catalog.catalog import ProviderRow
from freehold.clock import SystemClock
from freehold.core.errors import BrokenOff, FreeholdError, Unauthenticated
from freehold.core.messages import (
    AnswerPart,
    ModelRequest,
    ModelResponse,
    StopReason,
    Text,
    ToolCall,
    ToolResult,
    ToolSpec,
    Usage,
    raw,
)
from freehold.core.policy import ALLOW_ALL, Principal
from freehold.core.ports import ToolFunction, ToolKind, ToolOutcome, ToolRun
from freehold.core.pricing import ModelPrice, TokenPrice
from freehold.core.resources import Agent, Effect, Resource, Tool
from freehold.core.session import Recorded
from freehold.core.session_log import SessionRow
from freehold.core.stream import Finished, StreamEvent, unfold
from freehold.gateway.models import ModelTable
from freehold.gateway.pipeline import Gateway
from freehold.runtime.declared import Declarations
from freehold.runtime.equipment import Equipments
from freehold.runtime.journal import OnPoint, no_points
from freehold.runtime.live import Live
from freehold.runtime.means import Means
from freehold.runtime.model_step import RetryPolicy
from freehold.runtime.offload import Results
from freehold.runtime.sessions import Sessions
from freehold.runtime.subagents import Subagents
from freehold.runtime.tools import ToolSet
from freehold.runtime.worker import Worker, WorkerSettings
from freehold.store.blobs import ObstoreObjects
from freehold.store.log import PostgresSessionLog
from freehold.store.store import Store, open_store
from tests._waiting import within

TENANT = "acme"
OWNER = Principal(TENANT, "service", "key_owner", (ALLOW_ALL,))
SETTINGS = WorkerSettings(lease_s=15, poll_s=0.5, drain_s=2)
ONLY_TOLD = WorkerSettings(lease_s=600, poll_s=600, drain_s=60)
"""A worker that does what it is told of, and nothing for time's sake: no lease runs out, and nothing is looked for."""

QUICK_RETRIES = RetryPolicy(retries_max=3, delay_s=0.001, delay_s_max=0.01)
USAGE = Usage(input_tokens=100, output_tokens=10)
COST_PICO = 5_000_000


def said(*content: AnswerPart | str, stop: StopReason = "end_turn", usage: Usage = USAGE) -> ModelResponse:
    parts = tuple(Text(part) if isinstance(part, str) else part for part in content)
    return ModelResponse(id="resp", model="scripted-1", content=parts, stop_reason=stop, usage=usage)


def calls(*wanted: tuple[str, str], start: int = 1) -> ModelResponse:
    """An answer that calls functions: (name, arguments as JSON)."""
    parts = [ToolCall(f"t{start + place}", name, arguments) for place, (name, arguments) in enumerate(wanted)]
    return said(*parts, stop="tool_use")


@dataclass
class Held:
    """An answer that stops after its first text and goes on when `go` is set. `reached` says that it got there."""

    response: ModelResponse
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: bool = False


@dataclass
class Broken:
    """An answer whose line goes dead in the middle."""

    response: ModelResponse


Scripted = ModelResponse | FreeholdError | Held | Broken
Script = Callable[[ModelRequest], Scripted]


def in_turn(*answers: Scripted) -> Script:
    """One after the other, whatever is asked."""
    left = list(answers)
    return lambda _request: left.pop(0)


class ScriptedModel:
    """A Provider: answers by the script, keeps what it was asked."""

    name, wire, is_language_model = "scripted", None, True

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[ModelRequest] = []

    @asynccontextmanager
    async def call(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[StreamEvent]]:
        self.requests.append(request)
        scripted = self.script(request)
        if isinstance(scripted, FreeholdError):
            raise scripted
        events = _events(scripted)
        try:
            yield events
        finally:
            await events.aclose()
            if isinstance(scripted, Held) and not scripted.go.is_set():
                scripted.hung_up = True


class Prices:
    """One price for everything: a call of USAGE costs COST_PICO."""

    def find(self, _source: str, _model: str) -> "Prices":
        return self

    def price(self, _at: datetime) -> ModelPrice:
        return ModelPrice(input=TokenPrice(10_000), output=TokenPrice(400_000))


def gateway_to(model: ScriptedModel, store: Store, clock: SystemClock) -> Gateway:
    row = ProviderRow(name="scripted", type="scripted", base_url="none", prices="scripted")
    models = ModelTable(
        rows={"scripted": row},
        adapters={"scripted": lambda _row, _key, _headers: model},
        resources=store.resources,
        resolve_secret=lambda reference: reference,
        prices=Prices(),
        rules=lambda _look_up: model,
    )
    return Gateway(models=models, wires={}, records=store.records, clock=clock)


async def _events(scripted: ModelResponse | Held | Broken) -> AsyncIterator[StreamEvent]:
    response = scripted if isinstance(scripted, ModelResponse) else scripted.response
    for event in unfold(response):
        if isinstance(scripted, Broken) and isinstance(event, Finished):
            raise BrokenOff("the line went dead")
        if isinstance(scripted, Held) and isinstance(event, Finished):
            scripted.reached.set()
            await scripted.go.wait()
        yield event


class Everyone:
    """Principals: everybody may do everything, but for the revoked."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()

    async def current(self, tenant: str, principal_id: str) -> Principal:
        if principal_id in self.revoked:
            raise Unauthenticated(f"the key {principal_id} was revoked")
        return Principal(tenant, "service", principal_id, (ALLOW_ALL,))


EFFECTS: dict[str, Effect] = {"look": "pure", "set": "idempotent", "pay": "irreversible"}


class LedgerConfig(Struct, forbid_unknown_fields=True):
    functions: tuple[str, ...] = ("look", "set", "pay")


class LedgerTool:
    """`runs` has a row for every time that a function ran; `effects` one for every key, as an idempotent service has."""

    def __init__(self, config: LedgerConfig, kind: "LedgerKind") -> None:
        self._kind = kind
        anything = raw({"type": "object", "properties": {"n": {"type": "integer"}}})
        self.functions: Sequence[ToolFunction] = tuple(
            ToolFunction(ToolSpec(name, f"{name} it", anything), EFFECTS.get(name, "pure"))
            for name in config.functions
        )

    async def run(self, run: ToolRun) -> ToolOutcome:
        self._kind.running += 1
        self._kind.running_max = max(self._kind.running_max, self._kind.running)
        try:
            return await self._kind.do(run)
        finally:
            self._kind.running -= 1


class LedgerKind:
    """A ToolKind. `do` may be replaced by a test."""

    name = "ledger"
    config = LedgerConfig

    def __init__(self, pool: asyncpg.Pool | None = None) -> None:
        self.pool = pool
        self.do: Callable[[ToolRun], object] = self.write
        self.opened = 0
        self.open_now = 0
        self.running = 0
        self.running_max = 0
        self.fault: FreeholdError | None = None

    @asynccontextmanager
    async def open(self, tool: Tool, config: LedgerConfig, host: object) -> AsyncIterator[LedgerTool]:
        if self.fault is not None:
            raise self.fault
        self.opened += 1
        self.open_now += 1
        try:
            yield LedgerTool(config, self)
        finally:
            self.open_now -= 1

    async def write(self, run: ToolRun) -> ToolOutcome:
        if self.pool is not None:
            await self.pool.execute("INSERT INTO runs VALUES ($1, $2)", run.key, run.function)
            await self.pool.execute(
                "INSERT INTO effects VALUES ($1, $2) ON CONFLICT DO NOTHING", run.key, run.function
            )
        return ToolOutcome((Text(f"{run.function} done: {run.arguments.get('n', '-')}"),))


LEDGER_TABLES = """
CREATE TABLE IF NOT EXISTS runs (key text NOT NULL, function text NOT NULL);
CREATE TABLE IF NOT EXISTS effects (key text PRIMARY KEY, function text NOT NULL);
"""
LEDGER = Tool(name="ledger", type="ledger", timeout_s=60)
AGENT = Agent(name="clerk", model="scripted/scripted-1", instructions="Keep the ledger.", tools=("ledger",))


class Lent:
    """A ToolHost, as far as a tool of these tests asks anything of it."""

    sessions: Subagents


@dataclass
class World:
    """One process's runtime over a real database."""

    store: Store
    log: PostgresSessionLog
    model: ScriptedModel
    principals: Everyone
    kind: LedgerKind
    means: Means
    sessions: Sessions
    settings: WorkerSettings

    async def declare(self, *resources: Resource) -> None:
        await self.store.resources.put(TENANT, resources, by="test")

    async def start(self, text: str = "go", **options) -> SessionRow:
        content = (Text(text),) if text else ()
        return await self.sessions.create(OWNER, "clerk", content=content, **options)

    async def log_of(self, session_id: str) -> list[Recorded]:
        return list(await self.log.read(session_id))

    async def settled(self, session_id: str) -> SessionRow:
        """At rest, if only for a moment: where input waits by then, the next turn begins."""
        return await self.reaches(session_id, lambda row: row.status != "running")

    async def reaches(self, session_id: str, wanted: Callable[[SessionRow], bool]) -> SessionRow:
        """Waits for a state of the row, woken by the log."""
        seen: list[SessionRow] = []
        async with within(f"a state of {session_id}", seen), self.log.follow(session_id) as batches:
            while not wanted(row := await self.log.get(TENANT, session_id)):
                seen[:] = [row]
                await anext(batches)
        return row

    async def seen(self, session_id: str, kind: type, *, count: int = 1) -> Recorded:
        """Waits for the first event of a kind, or a later one."""
        came: list[Recorded] = []
        async with within(f"a {kind.__name__}", came), self.log.follow(session_id) as batches:
            async for batch in batches:
                for recorded in batch:
                    came.append(recorded)
                    count -= isinstance(recorded.event, kind)
                    if not count:
                        return recorded
        raise AssertionError

    def worker(self, settings: WorkerSettings | None = None) -> Worker:
        return Worker(self.means, settings or self.settings)


class Opened(NamedTuple):
    """A process's store on a database, and connections for the ledger. Tests may share one: it costs seven connections, their sessions nothing."""

    store: Store
    pool: asyncpg.Pool


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Opened]:
    objects = ObstoreObjects(MemoryStore(), sorted_listing=True)
    async with asyncpg.create_pool(url, min_size=1, max_size=4) as pool:
        await pool.execute(LEDGER_TABLES)
        async with open_store(url, objects=objects, process_id="test") as store:
            yield Opened(store, pool)


@asynccontextmanager
async def world(
    place: str | Opened,
    script: Script,
    *,
    agent: Agent = AGENT,
    on_point: OnPoint = no_points,
    settings: WorkerSettings = SETTINGS,
    kinds: Mapping[str, ToolKind] = {},
    resources: Sequence[Resource] = (),
) -> AsyncIterator[World]:
    """`place` is a database's URL where a test wants a store of its own. `kinds` come beside the ledger, or in its place; `resources`
    beside the agent and its tool."""
    if isinstance(place, str):
        async with (
            opened(place) as own,
            world(
                own,
                script,
                agent=agent,
                on_point=on_point,
                settings=settings,
                kinds=kinds,
                resources=resources,
            ) as here,
        ):
            yield here
        return
    store, clock = place.store, SystemClock()
    kind, model = LedgerKind(place.pool), ScriptedModel(script)
    principals, live = Everyone(), Live()
    lent = Lent()
    tools = ToolSet({"ledger": kind, **kinds}, host=lent)
    results = Results(store.objects)
    async with tools.running():
        await store.resources.put(TENANT, [LEDGER, *resources, agent], by="test")
        means = Means(
            log=store.log,
            gateway=gateway_to(model, store, clock),
            declarations=Declarations(store.resources),
            equipments=Equipments(store.log),
            places=store.tool_places,
            expecting=store.expected_events,
            tools=tools,
            results=results,
            principals=principals,
            live=live,
            clock=clock,
            retries=QUICK_RETRIES,
            on_point=on_point,
        )
        lent.sessions = Subagents(store.log, store.resources, clock)
        sessions = Sessions(store.log, store.resources, live, clock, results=results)
        yield World(store, store.log, model, principals, kind, means, sessions, settings)


def results_in(request: ModelRequest) -> list[ToolResult]:
    return [part for message in request.messages for part in message.content if isinstance(part, ToolResult)]


def events_of(recorded: Sequence[Recorded], kind: type) -> list:
    return [one.event for one in recorded if isinstance(one.event, kind)]


def kinds_of(recorded: Sequence[Recorded]) -> list[str]:
    return [type(one.event).__name__ for one in recorded]
