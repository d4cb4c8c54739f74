"""What the measurements here run: the real store, worker and turns; a model and a tool that cost nothing."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from msgspec import Struct

from freehold.clock import SystemClock
from freehold.core import ids
from freehold.core.context import Reach
from freehold.core.messages import ModelRequest, ModelResponse, Text, ToolCall, ToolSpec, Usage
from freehold.core.policy import ALLOW_ALL, Principal
from freehold.core.ports import ToolFunction, ToolKind, ToolOutcome, ToolRun
from freehold.core.records import CallRecord
from freehold.core.resources import Agent, Limits, Tool
from freehold.core.stream import unfold
from freehold.runtime.declared import Declarations
from freehold.runtime.equipment import Equipments
from freehold.runtime.journal import OnPoint, no_points
from freehold.runtime.live import Live
from freehold.runtime.means import Means
from freehold.runtime.offload import Results
from freehold.runtime.sessions import Sessions
from freehold.runtime.tools import ToolSet
from freehold.store.store import Store

TENANT = "bench"
OWNER = Principal(TENANT, "service", "key_bench", (ALLOW_ALL,))
LIMITS = Limits(steps_max=10**6, tokens_max=10**12, wall_time_s_max=1e6)
NOOP = Tool(name="noop", type="noop")
AGENT = Agent(name="bench", model="bench/m", tools=("noop",), limits=LIMITS)
CALLED = ModelResponse(
    id="r", model="m", content=(ToolCall("t", "noop", '{"n":1}'),), stop_reason="tool_use", usage=Usage(10, 1)
)
DONE = ModelResponse(id="r", model="m", content=(Text("done"),), stop_reason="end_turn", usage=Usage(10, 1))


class TrivialAnswer:
    """One call's, with all that it needs made before: what a model's answer costs is another figure."""

    provider, model, is_language_model, shortened = "bench", "m", True, False

    def __init__(self, response: ModelResponse) -> None:
        told, self.record = TOLD.get(id(response)) or told_of(response)
        self._told = iter(told)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def __aiter__(self):
        return self

    async def __anext__(self):
        for event in self._told:
            return event
        raise StopAsyncIteration


def told_of(response: ModelResponse) -> tuple[tuple, CallRecord]:
    clock = SystemClock()
    return tuple(unfold(response)), CallRecord(
        id=ids.new("call", clock), at=clock.now(), tenant=TENANT, principal=OWNER.id, wire="session",
        model_requested="bench/m", provider="bench", model="m", outcome="ok", usage=response.usage,
    )  # fmt: skip


TOLD = {id(answer): told_of(answer) for answer in (CALLED, DONE)}


class TrivialGateway:
    """Answers at once: a call as long as there are rounds left, then text."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds

    def answer(self, request: ModelRequest) -> ModelResponse:
        """Each round adds an answer and a result to what the user said."""
        return CALLED if len(request.messages) // 2 < self._rounds else DONE

    async def reach(self, principal, model, *, rules=None):
        return Reach()

    def call(
        self, principal, request, *, wire="session", session_id=None, agent=None, rules=None, spending=None
    ):
        return TrivialAnswer(self.answer(request))


class NoConfig(Struct):
    pass


class NoopTool:
    functions = (ToolFunction(ToolSpec("noop"), "pure"),)

    async def run(self, run: ToolRun) -> ToolOutcome:
        return ToolOutcome((Text("ok"),))


class NoopKind:
    name, config = "noop", NoConfig

    def __init__(self, tool: Callable[[], object] = NoopTool) -> None:
        self._tool = tool

    @asynccontextmanager
    async def open(self, tool: Tool, config: NoConfig, host: object) -> AsyncIterator[object]:
        yield self._tool()


class Everyone:
    async def current(self, tenant: str, principal_id: str) -> Principal:
        return OWNER


@asynccontextmanager
async def runtime(
    store: Store,
    gateway: TrivialGateway,
    *,
    agent: Agent = AGENT,
    tools: tuple[Tool, ...] = (NOOP,),
    kinds: Mapping[str, ToolKind] | None = None,
    on_point: OnPoint = no_points,
) -> AsyncIterator[tuple[Means, Sessions]]:
    """What a worker needs, and what clients ask."""
    await store.resources.put(TENANT, [*tools, agent], by="bench")
    live, clock = Live(), SystemClock()
    opened = ToolSet(kinds or {"noop": NoopKind()}, host=None)
    async with opened.running():
        means = Means(
            log=store.log, gateway=gateway, declarations=Declarations(store.resources), equipments=Equipments(store.log),
            tools=opened, results=Results(store.objects), principals=Everyone(), live=live, clock=clock,
            places=store.tool_places, expecting=store.expected_events, on_point=on_point,
        )  # fmt: skip
        yield means, Sessions(store.log, store.resources, live, clock, results=means.results)
