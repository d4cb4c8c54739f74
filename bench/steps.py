"""CPU-us per durable step: decide, perform something trivial, record. `python bench/steps.py [--sessions N] [--rounds N]`

Many sessions at once, each a turn of model calls and tool runs that cost nothing, by one worker on a PostgreSQL with durable
commits. A step is a model's answer or a tool's run; two steps are two appends: an answer with the claim of its tool, and the
tool's result. CPU of this process is the application's, that of the cluster's processes the server's (from /proc, so Linux).
Beside it: as many appends by as many tasks without any runtime, which is what the log itself costs.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop
from msgspec import Struct

from freehold.clock import SystemClock
from freehold.core import ids
from freehold.core.context import Reach
from freehold.core.messages import ModelRequest, ModelResponse, Text, ToolCall, ToolResult, ToolSpec, Usage
from freehold.core.policy import ALLOW_ALL, Principal
from freehold.core.ports import ToolFunction, ToolOutcome, ToolRun
from freehold.core.records import CallRecord
from freehold.core.resources import Agent, Limits, Tool
from freehold.core.session import SessionStarted, ToolFinished
from freehold.core.session_log import SessionRow
from freehold.core.stream import unfold
from freehold.runtime.declared import Declarations
from freehold.runtime.equipment import Equipments
from freehold.runtime.live import Live
from freehold.runtime.offload import Results
from freehold.runtime.sessions import Sessions
from freehold.runtime.tools import ToolSet
from freehold.runtime.turn import Means
from freehold.runtime.worker import Worker, WorkerSettings
from freehold.store.blobs import open_objects
from freehold.store.embedded import EmbeddedServer, embedded
from freehold.store.store import Store, open_store

TENANT = "bench"
OWNER = Principal(TENANT, "service", "key_bench", (ALLOW_ALL,))


def cpu_s_of_server(data: Path) -> float:
    """User and system time of the postmaster, its children, and those that have ended."""
    postmaster = int((data / "postmaster.pid").read_text().split()[0])
    pids = [postmaster, *_children(postmaster)]
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
        if pid == postmaster:
            ticks += int(fields[13]) + int(fields[14])
    return ticks / os.sysconf("SC_CLK_TCK")


def _children(parent: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


class TrivialGateway:
    """Answers at once: a call as long as there are rounds left, then text."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._clock = SystemClock()

    def _answer(self, request: ModelRequest) -> ModelResponse:
        done = sum(isinstance(part, ToolResult) for message in request.messages for part in message.content)
        content = (ToolCall("t", "noop", '{"n":1}'),) if done < self._rounds else (Text("done"),)
        return ModelResponse(
            id="r",
            model="m",
            content=content,
            stop_reason="tool_use" if done < self._rounds else "end_turn",
            usage=Usage(10, 1),
        )

    async def reach(self, principal, model, *, rules=None):
        return Reach()

    @asynccontextmanager
    async def call(self, principal, request, *, wire="session", session_id=None, agent=None, rules=None):
        answer = TrivialAnswer(self._answer(request))
        yield answer
        answer.record = CallRecord(
            id=ids.new("call", self._clock),
            at=self._clock.now(),
            tenant=TENANT,
            principal=principal.id,
            wire=wire,
            model_requested=request.model,
            provider="bench",
            model="m",
            outcome="ok",
        )


class TrivialAnswer:
    provider, model, is_language_model = "bench", "m", True
    record: CallRecord | None = None

    def __init__(self, response: ModelResponse) -> None:
        self._response = response

    async def __aiter__(self):
        for event in unfold(self._response):
            yield event


class NoConfig(Struct):
    pass


class NoopTool:
    functions = (ToolFunction(ToolSpec("noop"), "pure"),)

    async def run(self, run: ToolRun) -> ToolOutcome:
        return ToolOutcome((Text("ok"),))


class NoopKind:
    name, config = "noop", NoConfig

    @asynccontextmanager
    async def open(self, tool: Tool, config: NoConfig, host: object) -> AsyncIterator[NoopTool]:
        yield NoopTool()


class Everyone:
    async def current(self, tenant: str, principal_id: str) -> Principal:
        return OWNER


async def measured(label: str, data: Path, steps: int, work: Callable[[], object]) -> None:
    app_before, server_before, began = time.process_time(), cpu_s_of_server(data), time.perf_counter()
    await work()
    wall = time.perf_counter() - began
    app, server = time.process_time() - app_before, cpu_s_of_server(data) - server_before
    print(
        f"{label:<34} {1e6 * app / steps:8.1f} + {1e6 * server / steps:6.1f} CPU-us a step"
        f" {steps / wall:9.0f} steps/s  ({steps} steps in {wall:.2f} s)"
    )


async def run_sessions(store: Store, sessions: int, rounds: int) -> None:
    """All sessions, from their input to their rest, by one worker that already runs."""
    live, clock = Live(), SystemClock()
    service = Sessions(store.log, store.resources, live, clock, results=Results(store.objects))
    tools = ToolSet({"noop": NoopKind()}, host=None)
    async with tools.running():
        means = Means(
            log=store.log,
            gateway=TrivialGateway(rounds),
            declarations=Declarations(store.resources),
            equipments=Equipments(store.log),
            places=store.tool_places,
            tools=tools,
            results=Results(store.objects),
            principals=Everyone(),
            live=live,
            clock=clock,
        )
        async with Worker(means, WorkerSettings(sessions_max=sessions)).running():
            await asyncio.gather(
                *(service.create(OWNER, "bench", content=[Text("go")]) for _ in range(sessions))
            )
            while (await store.log.list(TENANT, status="running", limit=1)).rows:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # Not following: what a session's readers cost is another figure.


async def run_log_alone(store: Store, sessions: int, appends: int) -> None:
    """As many appends of one event, by as many tasks, under no lease."""
    clock = SystemClock()

    async def one() -> None:
        now = clock.now()
        row = SessionRow(
            id=ids.new("sess", clock), tenant=TENANT, agent="bench", agent_version=1, status="idle", version=1,
            created_at=now, updated_at=now,
        )  # fmt: skip
        await store.log.create(row, [SessionStarted(agent="bench", agent_version=1)])
        for _ in range(appends):
            await store.log.append(row.id, [ToolFinished(call_id="t", content=(Text("ok"),))])

    await asyncio.gather(*(one() for _ in range(sessions)))


async def bench(server: EmbeddedServer, data: Path, sessions: int, rounds: int) -> None:
    async with open_store(
        server.dsn(), objects=open_objects(str(data / "objects")), process_id="bench"
    ) as store:
        agent = Agent(
            name="bench", model="bench/m", tools=("noop",), limits=Limits(steps_max=10**6, tokens_max=10**9)
        )
        await store.resources.put(TENANT, [Tool(name="noop", type="noop"), agent], by="bench")
        steps = sessions * (2 * rounds + 1)
        await run_sessions(store, sessions, 2)  # warm
        for _ in range(2):
            await measured(
                f"runtime, {sessions} sessions at once",
                data,
                steps,
                lambda: run_sessions(store, sessions, rounds),
            )
            await measured(
                "the log alone, one append a step",
                data,
                steps,
                lambda: run_log_alone(store, sessions, 2 * rounds + 1),
            )


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as folder:
        data = Path(folder) / "data"
        async with embedded(data) as server:
            await bench(server, _cluster_folder(data), options.sessions, options.rounds)


def _cluster_folder(data: Path) -> Path:
    return next(data.rglob("postmaster.pid")).parent


if __name__ == "__main__":
    uvloop.run(main())
