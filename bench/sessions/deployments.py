"""What very many deployments cost, and how late their slots begin. `python deployments.py [--deployments N] [--burst N]`

The deployments wait for a time that is far away; one process begins what is due, no worker carries the sessions on. Shown: memory with none and
with all of them; how late slots are that come at random times; a burst of slots at one instant, of one tenant, and how late another
tenant's single one is that comes in the middle of it. The deployments are copies of a real one, made by SQL.
"""

import argparse
import asyncio
import os
import random
import resource
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import uvloop
from _cpu import memory_mb
from _parts import OWNER, TENANT, Everyone
from _say import percentiles, say

from freehold.clock import SystemClock
from freehold.core.resources import Agent
from freehold.core.schedules import Cron, Deployment, Once
from freehold.runtime.declared import Declarations
from freehold.runtime.live import Live
from freehold.runtime.offload import Results
from freehold.runtime.schedules_worker import ScheduleMeans, Scheduler
from freehold.runtime.sessions import Sessions
from freehold.store.embedded import embedded
from freehold.store.store import Store, open_store

COPY = """
WITH r AS (
    INSERT INTO freehold.resources SELECT tenant, kind, name || n, version, archived, created_at, updated_at, updated_by
    FROM freehold.resources, generate_series(1, $1::int) AS n WHERE kind = 'deployment' AND name = 'yearly'
), v AS (
    INSERT INTO freehold.resource_versions SELECT tenant, kind, name || n, version, body, digest, created_at, created_by
    FROM freehold.resource_versions, generate_series(1, $1::int) AS n WHERE kind = 'deployment' AND name = 'yearly'
)
INSERT INTO freehold.deployments (tenant, name, agent, schedule, done_until, due_at)
SELECT tenant, name || n, agent, schedule, done_until, due_at FROM freehold.deployments, generate_series(1, $1::int) AS n
WHERE name = 'yearly'
"""
LATE = """
SELECT extract(epoch FROM created_at - slot)::float8 * 1000 AS late_ms FROM freehold.deployment_runs
WHERE starts_with(deployment, $1) AND session_id IS NOT NULL
"""
FAR = Cron(expression="0 0 1 1 *", timezone="Europe/Berlin")


def cpu_s(postgres: int) -> tuple[float, float]:
    """Of this process, and of PostgreSQL with all of its children."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == postgres or path.parent.name == str(postgres):
            ticks += sum(map(int, fields[11:15]))
    return own.ru_utime + own.ru_stime, ticks / os.sysconf("SC_CLK_TCK")


def postmaster(folder: Path) -> int:
    return int(next(folder.rglob("postmaster.pid")).read_text().splitlines()[0])


def deployment(name: str, schedule: Cron | Once) -> Deployment:
    return Deployment(name=name, agent="bench", messages=("go",), schedule=schedule)


async def declare(store: Store, tenant: str, names: list[str], ats: list[datetime]) -> None:
    for start in range(0, len(names), 500):
        some = zip(names[start : start + 500], ats[start : start + 500], strict=True)
        await store.resources.put(tenant, [deployment(name, Once(at=at)) for name, at in some], by=OWNER.id)


async def begun(connection: asyncpg.Connection, prefix: str, count: int) -> list[float]:
    async with asyncio.timeout(300):
        while len(rows := await connection.fetch(LATE, prefix)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return [row["late_ms"] for row in rows]


async def bench(url: str, postgres: int, count: int, burst: int) -> None:
    clock = SystemClock()
    connection = await asyncpg.connect(url)
    async with open_store(url, objects=None, process_id="bench") as store:
        for tenant in (TENANT, "other"):
            await store.resources.put(tenant, [Agent(name="bench", model="bench/m")], by=OWNER.id)
        sessions = Sessions(store.log, store.resources, Live(), clock, results=Results(None))
        means = ScheduleMeans(
            kept=store.deployments, sessions=sessions, declarations=Declarations(store.resources), principals=Everyone(), clock=clock
        )  # fmt: skip
        async with Scheduler(means).running():
            await store.resources.put(TENANT, [deployment("yearly", FAR)], by=OWNER.id)
            await declare(store, TENANT, ["warm-1", "warm-2"], [datetime.now(UTC) + timedelta(seconds=1)] * 2)
            await begun(connection, "warm-", 2)
            before = memory_mb()
            await connection.execute(COPY, count, timeout=900)
            await connection.execute("VACUUM ANALYZE freehold.deployments", timeout=900)
            await asyncio.sleep(6)
            say("memory of the process", with_none_mb=before, with_all_waiting_mb=memory_mb(), waiting=count)

            used, started = cpu_s(postgres), time.perf_counter()
            await asyncio.sleep(10)
            idle = [now - then for now, then in zip(cpu_s(postgres), used, strict=True)]
            share = [100 * one / (time.perf_counter() - started) for one in idle]
            say("while nothing is due, of a core", here_percent=share[0], postgresql_percent=share[1])

            at = datetime.now(UTC) + timedelta(seconds=3)
            ats = [at + timedelta(seconds=random.uniform(0, 10)) for _ in range(500)]
            await declare(store, TENANT, [f"spread-{number}" for number in range(500)], ats)
            percentiles("slots at random times: how late", await begun(connection, "spread-", 500))

            at = datetime.now(UTC) + timedelta(seconds=8 + burst / 1000)
            await declare(store, TENANT, [f"burst-{number}" for number in range(burst)], [at] * burst)
            await declare(store, "other", ["lone-1"], [at + timedelta(milliseconds=200)])
            await asyncio.sleep(max(0.0, (at - datetime.now(UTC)).total_seconds() - 0.2))
            used = cpu_s(postgres)
            late = await begun(connection, "burst-", burst)
            now = cpu_s(postgres)
            percentiles(f"{burst} slots of one tenant at one instant: how late", late)
            here_us, server_us = ((one - then) / burst * 1e6 for one, then in zip(now, used, strict=True))
            say(
                "CPU a slot",
                slots_a_second=burst / max(late) * 1000,
                here_us=here_us,
                postgresql_us=server_us,
            )
            percentiles(
                "another tenant's one, in the middle of that: how late", await begun(connection, "lone-", 1)
            )
    await connection.close()


async def main(arguments: argparse.Namespace) -> None:
    settings = {"fsync": "on", "synchronous_commit": "on"}
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as folder:
        async with embedded(Path(folder) / "data", settings=settings) as server:
            await bench(server.dsn(), postmaster(Path(folder)), arguments.deployments, arguments.burst)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployments", type=int, default=100_000)
    parser.add_argument("--burst", type=int, default=5_000)
    parser.add_argument("--json", action="store_true")
    uvloop.run(main(parser.parse_args()))
