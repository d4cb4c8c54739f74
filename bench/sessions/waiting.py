"""What very many waiting sessions cost, and how quickly any one of them wakes. `python waiting.py [--sessions N]`

The sessions wait in the middle of a turn, half of them for their client, half for a time that is far away. One worker runs. Shown: the
process's memory with none and with all of them; from a client's result to the session's rest, one after the other; and how late
timers are. The sessions are copies of two real ones, made by SQL.
"""

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path

import asyncpg
import uvloop
from _cpu import memory_mb
from _parts import LIMITS, OWNER, TENANT, TrivialGateway, runtime
from _say import percentiles, say

from freehold.core.messages import ModelResponse, Text, ToolCall, ToolResult, Usage
from freehold.core.resources import Agent, Tool
from freehold.runtime.sessions import Sessions
from freehold.runtime.worker import Worker
from freehold.store.embedded import embedded
from freehold.store.store import open_store
from freehold.tools import client, timer

COPY_SESSIONS = """
INSERT INTO freehold.sessions (id, tenant, agent, agent_version, status, version, due_at, title, metadata, created_by, waits, wake_at)
SELECT left(s.id, -8) || lpad(n::text, 8, '0'), s.tenant, s.agent, s.agent_version, s.status, s.version, s.due_at, '', '{}', s.created_by, s.waits, s.wake_at
FROM freehold.sessions s, generate_series(1, $2::int) AS n WHERE s.id = $1
"""
COPY_EVENTS = """
INSERT INTO freehold.events (session_id, seq, tenant, at, type, body)
SELECT left(e.session_id, -8) || lpad(n::text, 8, '0'), e.seq, e.tenant, e.at, e.type, e.body
FROM freehold.events e, generate_series(1, $2::int) AS n WHERE e.session_id = $1
"""
LATE = """
SELECT extract(epoch FROM e.at - s.until)::float8 * 1000 AS late_ms
FROM unnest($1::text[], $2::timestamptz[]) AS s (id, until)
CROSS JOIN LATERAL (SELECT at FROM freehold.events WHERE session_id = s.id AND type = 'tool_finished' ORDER BY seq LIMIT 1) AS e
"""


class Gateway(TrivialGateway):
    """First calls the tool that the user names, then is done."""

    def answer(self, request):
        parts = [part for message in request.messages for part in message.content]
        name, _, arguments = parts[0].text.partition(" ")
        done = any(isinstance(part, ToolResult) for part in parts)
        return ModelResponse(
            id="r",
            model="m",
            content=(Text("done"),) if done else (ToolCall("t", name, arguments or "{}"),),
            stop_reason="end_turn" if done else "tool_use",
            usage=Usage(10, 1),
        )


async def rests(log, session_id: str) -> None:
    async with log.follow(session_id) as batches:
        while (await log.get(TENANT, session_id)).status != "idle":
            await anext(batches)


async def wake(log, sessions: Sessions, waiting: list[str], times: int) -> None:
    took = []
    for session_id in random.sample(waiting, times):
        began = time.perf_counter()
        result = await sessions.give_result(OWNER, session_id, call_id="t", content=[Text("here")])
        await sessions.tell(OWNER, session_id, [result])
        await rests(log, session_id)
        took.append(1000 * (time.perf_counter() - began))
    percentiles("from a client's result to rest (two steps, a model call)", took)


async def timers(log, url: str, sessions: Sessions, times: int) -> None:
    rows = [
        await sessions.create(
            OWNER, "bench", content=[Text(f'clock_wait {{"seconds": {random.uniform(1, 6)}}}')]
        )
        for _ in range(times)
    ]
    async with asyncio.timeout(60):
        while (await log.list(TENANT, statuses=["running"], limit=1)).rows:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    until = {row.id: waits.until for row in rows if (waits := (await log.get(TENANT, row.id)).waits)}
    await asyncio.gather(*(rests(log, one) for one in until))
    connection = await asyncpg.connect(url)
    late = await connection.fetch(LATE, list(until), list(until.values()))
    await connection.close()
    percentiles(f"timers: how late ({len(late)} of them, within 5 s)", [row["late_ms"] for row in late])


async def copies(url: str, session_id: str, count: int) -> list[str]:
    connection = await asyncpg.connect(url)
    await connection.execute(COPY_SESSIONS, session_id, count, timeout=900)
    await connection.execute(COPY_EVENTS, session_id, count, timeout=900)
    await connection.execute("VACUUM ANALYZE freehold.sessions", timeout=900)
    await connection.close()
    return [f"{session_id[:-8]}{number:08}" for number in range(1, count + 1)]


async def bench(url: str, count: int, times: int) -> None:
    desk = Tool(name="desk", type="client", config={"functions": [{"name": "pick"}]})
    clock = Tool(name="clock", type="timer")
    agent = Agent(name="bench", model="bench/m", tools=("desk", "clock"), limits=LIMITS)
    kinds = {"timer": timer.KIND, "client": client.KIND}
    async with (
        open_store(url, objects=None, process_id="bench") as store,
        runtime(store, Gateway(1), agent=agent, tools=(desk, clock), kinds=kinds) as (means, sessions),
        Worker(means).running(),
    ):
        originals = []
        for text in ("desk_pick", 'clock_wait {"seconds": 86400}'):
            row = await sessions.create(OWNER, "bench", content=[Text(text)])
            async with store.log.follow(row.id) as batches:
                while (await store.log.get(TENANT, row.id)).status != "waiting":
                    async with asyncio.timeout(20):
                        await anext(batches)
            originals.append(row.id)
        await timers(store.log, url, sessions, times)  # warm, and to compare
        before = memory_mb()
        waiting = await copies(url, originals[0], count // 2)
        await copies(url, originals[1], count // 2)
        await asyncio.sleep(12)
        say("memory of the process", with_none_mb=before, with_all_waiting_mb=memory_mb(), waiting=count)
        await wake(store.log, sessions, waiting, times)
        await timers(store.log, url, sessions, times)
        say("memory of the process in the end", memory_mb=memory_mb())


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as folder:
        async with embedded(Path(folder) / "data") as server:
            await bench(server.dsn(), options.sessions, options.times)


if __name__ == "__main__":
    uvloop.run(main())
