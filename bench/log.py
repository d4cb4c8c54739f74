"""What a durable step costs: appends a second, and CPU-us per append in this process and in PostgreSQL's.

    python bench/log.py postgresql://... [--seconds 4] [--sessions 1,64,256]

A caller is a session that runs ten-step turns one after the other: each step is one append under a lease with its expected
version, and is over when it is on disk. The server's CPU is read from /proc, so it must run on this machine; the database
`freehold_bench` is made on it and dropped afterwards. Ratios within one run hold; absolute figures only on a quiet machine.
"""

import argparse
import asyncio
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import uvloop

from freehold.clock import SystemClock
from freehold.core import ids
from freehold.core.messages import Text, ToolCall, Usage
from freehold.core.session import ModelAnswered, SessionStarted, ToolFinished, UserSpoke
from freehold.core.session_log import Lease, SessionRow
from freehold.store.blobs import open_objects
from freehold.store.store import Store, open_store

DATABASE = "freehold_bench"
WARM_UP_S = 1.0
CLOCK = SystemClock()
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
STEP_BYTES = 300


def own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def tree_cpu_s(root: int) -> float:
    """CPU of a process, of its living children, and of those that it has buried."""
    fields: dict[int, list[str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            fields[int(entry.name)] = text[text.rindex(")") + 2 :].split()
    tree = [root, *(pid for pid, stat in fields.items() if int(stat[1]) == root)]
    return sum(int(ticks) for pid in tree for ticks in fields[pid][11:15]) / TICKS_PER_S


def parent_pid(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat[stat.rindex(")") + 2 :].split()[1])


async def postmaster_pid(url: str) -> int:
    """The parent of the backend that answers us."""
    connection = await asyncpg.connect(url)
    try:
        return parent_pid(connection.get_server_pid())
    finally:
        await connection.close()


async def caller(store: Store, deadline_s: float, latencies_s: list[float], number: int) -> None:
    now = CLOCK.now()
    row = SessionRow(
        id=ids.new("sess", CLOCK),
        tenant="default",
        agent="bench",
        agent_version=1,
        status="idle",
        version=0,
        created_at=now,
        updated_at=now,
    )
    await store.log.create(
        row, [SessionStarted(agent="bench", agent_version=1), UserSpoke(content=(Text("go"),))]
    )
    leases: list[Lease] = []
    while not leases:
        leases = [*await store.log.claim(f"worker-{number}", limit=1, lease_s=600)]
    lease = leases[0]
    answer = ModelAnswered(
        seen_seq=2,
        model="m",
        served_by="p/m",
        content=(ToolCall("call_1", "lookup", '{"sku":"SKU-4482"}'),),
        stop_reason="tool_use",
        usage=Usage(input_tokens=100, output_tokens=20),
        cost_pico=1234,
    )
    result = ToolFinished(call_id="call_1", content=(Text("x" * STEP_BYTES),))
    version = 2
    while time.perf_counter() < deadline_s:
        started_s = time.perf_counter()
        version = await store.log.append(
            lease.session_id, [result if version % 2 else answer], expected_version=version, lease=lease
        )
        latencies_s.append(time.perf_counter() - started_s)


async def measure(store: Store, postmaster: int, sessions: int, seconds: float) -> dict[str, float]:
    async def run(seconds: float) -> list[float]:
        latencies_s: list[float] = []
        deadline_s = time.perf_counter() + seconds
        await asyncio.gather(*(caller(store, deadline_s, latencies_s, number) for number in range(sessions)))
        return latencies_s

    await run(WARM_UP_S)
    before = store.log.counters.transactions
    own, server, began_s = own_cpu_s(), tree_cpu_s(postmaster), time.perf_counter()
    latencies_s = sorted(await run(seconds))
    wall_s = time.perf_counter() - began_s
    own, server = own_cpu_s() - own, tree_cpu_s(postmaster) - server
    count = len(latencies_s)
    return {
        "sessions": sessions,
        "appends_per_s": round(count / wall_s),
        "application_us": round(own / count * 1e6, 1),
        "postgresql_us": round(server / count * 1e6, 1),
        "total_us": round((own + server) / count * 1e6, 1),
        "p50_ms": round(latencies_s[count // 2] * 1e3, 2),
        "p99_ms": round(latencies_s[int(count * 0.99)] * 1e3, 2),
        "appends_per_transaction": round(count / (store.log.counters.transactions - before), 1),
    }


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", help="a PostgreSQL server on this machine, with the right to create databases")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--sessions", default="1,64,256")
    options = parser.parse_args()
    address = urlsplit(options.url)
    url = urlunsplit(address._replace(path=f"/{DATABASE}"))
    admin = await asyncpg.connect(options.url)
    await admin.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
    await admin.execute(f"CREATE DATABASE {DATABASE}")
    try:
        postmaster = await postmaster_pid(options.url)
        with tempfile.TemporaryDirectory() as folder:
            async with open_store(url, objects=open_objects(folder), process_id="bench") as store:
                for sessions in options.sessions.split(","):
                    print(
                        json.dumps(await measure(store, postmaster, int(sessions), options.seconds)),
                        flush=True,
                    )
    finally:
        await admin.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        await admin.close()


if __name__ == "__main__":
    uvloop.run(main())
