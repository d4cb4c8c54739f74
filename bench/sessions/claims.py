"""What a worker's claim costs where very many sessions are due. `python claims.py [--sessions N] [--tenants N]`

Nine tenths of the sessions are one tenant's. Claims of 64 until the worker is full, then of one, as a worker that is full asks.
Shown beside it: how the tenants shared the places, and what the look for the next timer costs.
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

import asyncpg
import uvloop
from _say import percentiles, say

from freehold.store import _leases
from freehold.store.database import open_database
from freehold.store.embedded import embedded
from freehold.store.migrations import migrate

FILL = """
INSERT INTO freehold.sessions (id, tenant, agent, agent_version, status, version, due_at, title, metadata, created_by)
SELECT 'sess_' || n, CASE WHEN n % 10 > 0 THEN 'whale' ELSE 'tenant_' || (n / 10) % $2 END, 'agent', 1, $3, 3,
       now() + $4 + n * interval '1 microsecond', '', '{}', ''
FROM generate_series($5::int, $5 + $1::int - 1) AS n
"""
ROOM = 256


async def timed(label: str, times: int, work) -> list:
    took, results = [], []
    for _ in range(times):
        began = time.perf_counter()
        results.append(await work())
        took.append(1000 * (time.perf_counter() - began))
    percentiles(label, took)
    return results


async def measure(database, *, tenant_max: int | None) -> None:
    said = "" if tenant_max is None else f", at most {tenant_max} a tenant"
    held: list = []

    async def claim(limit: int):
        leases = await _leases.claim(database, "bench", limit=limit, lease_s=3600, tenant_max=tenant_max)
        held.extend(leases)
        return leases

    await timed(f"claim of 64, worker empty{said}", 4, lambda: claim(64))
    share = Counter("whale" if lease.tenant == "whale" else "others" for lease in held)
    await timed(f"claim of 1, worker full{said}", 200, lambda: claim(1))
    say(f"places of the first {sum(share.values())}", **share)
    await _leases.release(database, held)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as folder:
        async with embedded(Path(folder) / "data") as server, open_database(server.dsn()) as database:
            await migrate(database)
            connection = await asyncpg.connect(server.dsn())
            await fill(connection, options, "waiting", "1 hour", 1)
            say("sessions wait for a time", sessions=options.sessions, tenants=options.tenants)
            await timed("look for the next timer", 200, lambda: _leases.due_in_s(database))
            await timed(
                "claim where nothing is due", 200, lambda: _leases.claim(database, "w", limit=64, lease_s=9)
            )
            await fill(connection, options, "running", "-1 hour", options.sessions + 1)
            say("and as many are due", sessions=options.sessions)
            await measure(database, tenant_max=None)
            await measure(database, tenant_max=20)
            await timed("look for the next timer", 200, lambda: _leases.due_in_s(database))
            await connection.close()


async def fill(connection, options, status: str, offset: str, first: int) -> None:
    query = FILL.replace("$4", f"interval '{offset}'")
    await connection.execute(
        query.replace("$5", "$4"), options.sessions, options.tenants, status, first, timeout=600
    )
    await connection.execute("VACUUM ANALYZE freehold.sessions", timeout=600)


if __name__ == "__main__":
    uvloop.run(main())
