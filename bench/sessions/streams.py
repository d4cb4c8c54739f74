"""From an append in one process to the line in a client's stream of another's server: p50 and p99. `python streams.py [--sessions N]`

A whole `freehold serve` (without a worker) streams each session to a client over HTTP; this process appends to them through a store of its
own on the same database, RATE times a second in all, and reads the streams. The time before the append stands in the event.
"""

import argparse
import asyncio
import json
import os
import random
import re
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from _say import percentiles

from freehold.clock import SystemClock
from freehold.core import ids
from freehold.core.messages import Text
from freehold.core.resources import Agent
from freehold.core.session import SessionStarted, UserSpoke
from freehold.core.session_log import SessionRow
from freehold.governance.principals import DEFAULT_TENANT, OPERATOR
from freehold.store.embedded import embedded
from freehold.store.store import Store, open_store

RATE = 400
SENT = re.compile(rb"sent ([0-9.]+)")


@asynccontextmanager
async def server(url: str, folder: Path):
    environment = {**os.environ, "DATABASE_URL": url, "FREEHOLD_DISCOVER_LOCAL_MODELS": "false"}
    arguments = ["-m", "freehold.cli.main", "--data", str(folder), "serve", "--port", "0", "--no-worker"]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        while not (folder / "server.json").exists():  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        yield json.loads((folder / "server.json").read_text())
    finally:
        process.terminate()
        await process.wait()


async def made(store: Store) -> str:
    clock = SystemClock()
    now = clock.now()
    row = SessionRow(
        id=ids.new("sess", clock), tenant=DEFAULT_TENANT, agent="clerk", agent_version=1, status="idle", version=1,
        created_at=now, updated_at=now, created_by=OPERATOR.id,
    )  # fmt: skip
    await store.log.create(row, [SessionStarted(agent="clerk", agent_version=1, by=OPERATOR.id)])
    return row.id


async def read(told: dict[str, str], session_id: str, late_ms: list[float], ready: asyncio.Semaphore) -> None:
    parts = urlsplit(told["url"])
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(
        f"GET /v1/sessions/{session_id}/events/stream?after=0 HTTP/1.1\r\nhost: {parts.netloc}\r\n"
        f"authorization: Bearer {told['api_key']}\r\n\r\n".encode()
    )
    streaming = False
    while line := await reader.readline():
        if line.startswith(b"HTTP/") and b" 200 " not in line:
            raise SystemExit(f"{line!r} {await reader.read(1000)!r}")
        if line == b"\r\n" and not streaming:
            streaming = True
            ready.release()
        if line.startswith(b"data:") and (sent := SENT.search(line)):
            late_ms.append(1000 * (time.time() - float(sent[1])))


async def write(store: Store, sessions: list[str], seconds: float) -> None:
    """Evenly, whatever an append takes."""
    ends_s = time.perf_counter() + seconds
    async with asyncio.TaskGroup() as group:
        while time.perf_counter() < ends_s:
            event = UserSpoke(content=(Text(f"sent {time.time():.6f}"),), by=OPERATOR.id)
            group.create_task(store.log.append(random.choice(sessions), [event]))
            await asyncio.sleep(1 / RATE)


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as folder:
        home = Path(folder) / "server"
        home.mkdir()
        async with (
            embedded(Path(folder) / "data") as postgres,
            open_store(postgres.dsn(), objects=None, process_id="bench") as store,
        ):
            await store.resources.put(DEFAULT_TENANT, [Agent(name="clerk", model="x/m")], by="bench")
            sessions = [await made(store) for _ in range(options.sessions)]
            async with server(postgres.dsn(), home) as told:
                late_ms: list[float] = []
                ready = asyncio.Semaphore(0)
                reading = [asyncio.create_task(read(told, one, late_ms, ready)) for one in sessions]
                for _ in sessions:
                    await ready.acquire()
                await write(store, sessions, 2)
                late_ms.clear()
                await write(store, sessions, options.seconds)
                await asyncio.sleep(1)
                for one in reading:
                    one.cancel()
                percentiles(
                    f"append to another process's stream ({len(sessions)} streams, {RATE}/s)", late_ms
                )


if __name__ == "__main__":
    uvloop.run(main())
