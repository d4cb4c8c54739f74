"""What runs under chaos: sessions whose model asks for every class of effect, for people, clients, timers, approvals and subagents.

What the model says follows from the conversation alone, so that any process can go on. The tools' effects are counted by the
ledger (_ledger.py), out of reach of every fault.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from msgspec import Struct

from freehold.clock import SystemClock
from freehold.core.errors import FreeholdError
from freehold.core.messages import ModelRequest, ModelResponse, Text
from freehold.core.ports import OpenTool, ToolOutcome, ToolRun
from freehold.core.resources import Agent, Approval, Limits, Tool
from freehold.core.session import (
    AwaitsApproval,
    AwaitsClient,
    CallAwaited,
    PauseRequested,
    ResumeRequested,
)
from freehold.core.session_log import SessionRow
from freehold.runtime.journal import OnPoint, no_points
from freehold.runtime.subagents import Subagents
from freehold.runtime.worker import WorkerSettings
from freehold.tools import agent, client, timer
from tests.chaos._ledger import ask
from tests.runtime._world import (
    OWNER,
    TENANT,
    LedgerConfig,
    LedgerKind,
    LedgerTool,
    World,
    calls,
    results_in,
    said,
    world,
)

LEASE_S = 1.0
SETTINGS = WorkerSettings(sessions_max=128, lease_s=LEASE_S, poll_s=0.3, drain_s=1.0)
ROUNDS_MAX = 7
PERSON_LOOKS_S = 0.05
RULE = Approval(deadline_s=3600)
TOOLS = (
    Tool(name="bank", type="ledger", timeout_s=20, approval=RULE, config={"functions": ["pay"]}),
    Tool(name="clock", type="timer"),
    Tool(name="desk", type="client", config={"functions": [{"name": "pick"}]}),
    Tool(name="helper", type="agent", config={"agent": "helper"}),
    Agent(
        name="helper",
        model="scripted/scripted-1",
        tools=("ledger", "clock"),
        limits=Limits(steps_max=200, wall_time_s_max=3600),
    ),
)
DELEGATE = "delegate"
TASKS = ("ledger_set", "ledger_look+ledger_pay clock_wait", "clock_wait ledger_set ledger_pay")
AGENT = Agent(
    name="clerk",
    model="scripted/scripted-1",
    tools=("ledger", "bank", "clock", "desk", "helper"),
    limits=Limits(steps_max=200, wall_time_s_max=3600),
)
FUNCTIONS = (
    ("ledger_look",), ("ledger_set",), ("ledger_pay",), ("bank_pay",), ("clock_wait",), ("desk_pick",),
    ("ledger_look", "ledger_set", "ledger_pay"), ("ledger_pay", "clock_wait"), ("bank_pay", "ledger_set"), ("desk_pick", "ledger_look"),
    ("helper_delegate",), ("helper_delegate", "ledger_pay"),
)  # fmt: skip
EVERYTHING = "ledger_look ledger_set+ledger_pay bank_pay clock_wait desk_pick+ledger_set"


def plan_of(seed: int) -> str:
    """Rounds, each some functions to be called together, as the user says them."""
    chance = random.Random(seed)
    return " ".join("+".join(chance.choice(FUNCTIONS)) for _ in range(chance.randint(2, ROUNDS_MAX)))


def rounds_of(plan: str) -> list[list[str]]:
    return [one.split("+") for one in plan.split()]


def script(request: ModelRequest) -> ModelResponse:
    [first] = [part for part in request.messages[0].content if isinstance(part, Text)]
    done = len(results_in(request))
    before = 0
    for wanted in rounds_of(first.text):
        if before == done:
            return calls(*((name, _arguments(name, before)) for name in wanted), start=before + 1)
        before += len(wanted)
    return said("all done")


def _arguments(function: str, number: int) -> str:
    if function == "helper_delegate":
        return f'{{"task": "{TASKS[number % len(TASKS)]}"}}'
    return f'{{"seconds": {0.05 + number % 3 / 10}}}' if function == "clock_wait" else f'{{"n": {number}}}'


class OutsideKind(LedgerKind):
    """Tools whose every run is counted by the ledger."""

    def __init__(self, outside: str) -> None:
        super().__init__()
        self._outside = outside
        self.do = self._ask

    async def _ask(self, run: ToolRun) -> ToolOutcome:
        await ask(self._outside, f"do {run.key} {run.function}")
        return ToolOutcome((Text(f"{run.function} done"),))

    @asynccontextmanager
    async def open(self, tool: Tool, config: LedgerConfig, host: object) -> AsyncIterator[LedgerTool]:
        yield LedgerTool(config, self)


class HelperKind:
    """Lends its tools what they need of Freehold: `sessions`, once they are there."""

    name, config = agent.KIND.name, agent.KIND.config
    sessions: Subagents

    def open(self, tool: Tool, config: agent.Config, host: object) -> AbstractAsyncContextManager[OpenTool]:
        return agent.KIND.open(tool, config, self)


@asynccontextmanager
async def place(url: str, outside: str, *, on_point: OnPoint = no_points) -> AsyncIterator[World]:
    helpers = HelperKind()
    kinds = {
        "ledger": OutsideKind(outside),
        "timer": timer.KIND,
        "client": client.KIND,
        "agent": helpers,
    }
    options = {"agent": AGENT, "settings": SETTINGS, "kinds": kinds, "resources": TOOLS, "on_point": on_point}
    async with world(url, script, **options) as here:
        helpers.sessions = Subagents(here.log, here.store.resources, SystemClock())
        yield here


class Deeds(Struct):
    """What the person has done, for the report."""

    approved: int = 0
    denied: int = 0
    given: int = 0
    paused: int = 0


async def person(here: World, deeds: Deeds, *, seed: int = 0, pauses: bool = False) -> None:
    """For ever: decides on what waits for approval (denies every fifth), gives clients' results, now and then pauses a session."""
    chance = random.Random(seed)
    while True:
        try:
            page = await here.log.list(TENANT, statuses=["waiting", "paused"], limit=500)
            for row in page.rows:
                await _answer(here, row, deeds)
            if pauses and chance.random() < 0.1:
                running = (await here.log.list(TENANT, statuses=["running"], limit=50)).rows
                if running:
                    pause = PauseRequested(by="person")
                    await here.sessions.tell(OWNER, chance.choice(running).id, [pause])
                    deeds.paused += 1
        except FreeholdError:
            pass  # The database is away, or somebody was quicker: the row tells next time.
        await asyncio.sleep(PERSON_LOOKS_S)


async def _answer(here: World, row: SessionRow, deeds: Deeds) -> None:
    if row.status == "paused":
        await here.sessions.tell(OWNER, row.id, [ResumeRequested(by="person")])
        return
    for awaited in _awaited(row):
        match awaited.awaits:
            case AwaitsApproval():
                allow = hash_of(row.id, awaited.call_id) % 5 > 0
                word = await here.sessions.decide(OWNER, row.id, call_id=awaited.call_id, allow=allow)
                deeds.approved, deeds.denied = deeds.approved + allow, deeds.denied + (not allow)
            case AwaitsClient():
                word = await here.sessions.give_result(
                    OWNER, row.id, call_id=awaited.call_id, content=[Text("picked")]
                )
                deeds.given += 1
            case _:
                continue
        await here.sessions.tell(OWNER, row.id, [word])


def hash_of(*texts: str) -> int:
    return sum(ord(letter) * place for place, letter in enumerate("".join(texts), 1))


def _awaited(row: SessionRow) -> Sequence[CallAwaited]:
    return () if row.waits is None else row.waits.calls
