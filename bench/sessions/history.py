"""What a session of thousands of tool calls costs: its 10,000th step against its 100th, bytes stored, and going on with it.

    python history.py [--calls 10000] [--policies none,window,summary]

One session, one turn, one worker, a model that answers at once; every call gives a result of 300 bytes, and every tenth one of twenty
texts of 20 KB. CPU is this process's, over 200 calls each; a call is two steps and two appends. Bytes are those of the tables' columns, not of
their pages: events, blocks and the snapshot. `unique` counts each text of 4 KB or more once; `copied` is what it would be without blocks.
Ratios within one run hold; absolute figures only on a quiet machine.
"""

import argparse
import asyncio
import random
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import msgspec
import uvloop
from _parts import LIMITS, NOOP, OWNER, TENANT, NoopKind, TrivialAnswer, runtime
from _say import say

from freehold.clock import SystemClock
from freehold.core import ids, tokens
from freehold.core.context import Context, Reach
from freehold.core.messages import ModelRequest, ModelResponse, Text, ToolCall, ToolResult, ToolSpec, Usage
from freehold.core.ports import ToolFunction, ToolOutcome
from freehold.core.records import CallRecord
from freehold.core.resources import Agent
from freehold.core.session import Compacted, ToolFinished
from freehold.runtime.resuming import resumed
from freehold.runtime.worker import Worker
from freehold.store.blobs import open_objects
from freehold.store.embedded import EmbeddedServer, embedded
from freehold.store.store import Store, open_store

WINDOW = 200
EARLY = 100
LARGE_COUNT = 20
LARGE_EVERY = 10
TOKENS_MAX = 40_000
RESUMED_TIMES = 5


class CountingGateway:
    """Calls on until `calls` were made. Notes this process's CPU time at every one; how long what it was shown is costs nothing here."""

    def __init__(self, calls: int, policy: str) -> None:
        self._calls = calls
        self._policy = policy
        self._clock = SystemClock()
        self.cpu_s: list[float] = []
        self.messages_max = 0

    async def reach(self, principal, model, *, rules=None):
        return Reach()

    @asynccontextmanager
    async def call(
        self, principal, request, *, wire="session", session_id=None, agent=None, rules=None, spending=None
    ):
        number = len(self.cpu_s)
        done = number >= self._calls
        content = (
            Text("done") if done else ToolCall(f"call_{number:06}_{number}", "noop", f'{{"n":{number}}}')
        )
        if not request.tools:
            content = Text("What was done so far, in short. " * 20)
        else:
            self.cpu_s.append(time.process_time())
        self.messages_max = max(self.messages_max, len(request.messages))
        usage = Usage() if self._policy == "none" else Usage(input_tokens=counted(request), output_tokens=20)
        stop = "tool_use" if isinstance(content, ToolCall) else "end_turn"
        yield (
            answer := TrivialAnswer(
                ModelResponse(id="r", model="m", content=(content,), stop_reason=stop, usage=usage)
            )
        )
        answer.record = CallRecord(
            id=ids.new("call", self._clock), at=self._clock.now(), tenant=TENANT, principal=principal.id, wire=wire,
            model_requested=request.model, provider="bench", model="m", outcome="ok", usage=usage,
        )  # fmt: skip


def counted(request: ModelRequest) -> int:
    """As a vendor would: hexadecimal text has a token for every two characters."""
    said = [
        len(inner.text)
        for message in request.messages
        for part in message.content
        for inner in (part.content if isinstance(part, ToolResult) else (part,))
        if isinstance(inner, Text)
    ]
    return 20 * len(request.messages) + sum(said) // 2


class TextsTool:
    functions = (ToolFunction(ToolSpec("noop"), "pure"),)

    def __init__(self) -> None:
        chance = random.Random(1)
        self._large = [chance.randbytes(10_000).hex() for _ in range(LARGE_COUNT)]

    async def run(self, run) -> ToolOutcome:
        number = run.arguments["n"]
        if number % LARGE_EVERY == 0:
            return ToolOutcome((Text(self._large[number // LARGE_EVERY % LARGE_COUNT]),))
        return ToolOutcome((Text(f"result {number} ".ljust(300, "x")),))


async def run_session(store: Store, gateway: CountingGateway, agent: Agent) -> str:
    kinds = {"noop": NoopKind(TextsTool)}
    async with (
        runtime(store, gateway, agent=agent, kinds=kinds) as (means, sessions),
        Worker(means).running(),
    ):
        row = await sessions.create(OWNER, "bench", content=[Text("go")])
        while (await store.log.get(TENANT, row.id)).status == "running":  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    return row.id


def cpu_us_a_call(cpu_s: list[float], first: int) -> float:
    return (cpu_s[first + WINDOW] - cpu_s[first]) / WINDOW * 1e6


async def bytes_of(url: str, store: Store, session_id: str) -> tuple[int, int, int, int]:
    """Stored without the snapshot, the snapshot, unique, copied."""
    connection = await asyncpg.connect(url)
    stored, snapshot = await connection.fetchrow(
        """
        SELECT (SELECT sum(octet_length(body)) FROM freehold.events WHERE session_id = $1)
             + (SELECT coalesce(sum(octet_length(b.body)), 0) FROM freehold.blocks b JOIN freehold.block_uses u USING (tenant, digest)
                WHERE u.session_id = $1),
               (SELECT coalesce(sum(octet_length(body)), 0) FROM freehold.snapshots WHERE session_id = $1)
        """,
        session_id,
    )
    await connection.close()
    unique = copied = after = 0
    seen: set[str] = set()
    while page := await store.log.read(session_id, after=after):
        after = page[-1].seq
        for one in page:
            size = len(msgspec.json.encode(one.event))
            copied += size
            if isinstance(one.event, ToolFinished) and len(text := one.event.content[0].text) >= 4096:
                size -= len(text) if text in seen else 0
                seen.add(text)
            unique += size
    return stored, snapshot, unique, copied


async def measure(server: EmbeddedServer, folder: Path, policy: str, calls: int) -> None:
    async with open_store(
        server.dsn(), objects=open_objects(str(folder / "objects")), process_id="bench"
    ) as store:
        context = Context(strategy=policy, tokens_max=TOKENS_MAX)
        agent = Agent(name="bench", model="bench/m", tools=(NOOP.name,), limits=LIMITS, context=context)
        gateway = CountingGateway(calls, policy)
        session_id = await run_session(store, gateway, agent)
        early, late = cpu_us_a_call(gateway.cpu_s, EARLY), cpu_us_a_call(gateway.cpu_s, calls - WINDOW)
        stored, snapshot, unique, copied = await bytes_of(server.dsn(), store, session_id)
        times = []
        for _ in range(RESUMED_TIMES):
            began = time.perf_counter()
            found = await resumed(store.log, session_id)
            times.append(time.perf_counter() - began)
        events = [one.event for one in await whole(store, session_id) if isinstance(one.event, Compacted)]
        shown = sum(tokens.of_message(message) for message in found.state.messages)
        say(
            f"context {policy}",
            early_call_us=early,
            late_call_us=late,
            late_to_early=late / early,
            stored_to_unique=round(stored / unique, 3),
            with_snapshot=round((stored + snapshot) / unique, 3),
            without_blocks=round(copied / unique, 2),
            unique_mb=unique / 1e6,
            resume_ms=1000 * min(times),
            resume_most_ms=1000 * max(times),
            compactions=len(events),
            messages_most=gateway.messages_max,
            tokens_last=shown,
        )


async def whole(store: Store, session_id: str) -> list:
    events: list = []
    while page := await store.log.read(session_id, after=len(events)):
        events += page
    return events


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--policies", default="none,window,summary")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as folder:
        async with embedded(Path(folder) / "data") as server:
            for policy in options.policies.split(","):
                await measure(server, Path(folder), policy, options.calls)


if __name__ == "__main__":
    uvloop.run(main())
