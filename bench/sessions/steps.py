"""CPU of a durable step, 64 sessions at once, and steps a second; with `--peers` other engines' beside it, in turn on the same PostgreSQL.

Everybody runs the same loop (_loop.py): as many callers as sessions at once, each of which begins a run, waits for its end and begins the
next. Ours are whole turns of an agent (engine.py), and ten trivial steps, which is the log alone; theirs likewise, and each is set beside the one
of ours that does the same. Every step is on disk before the next one begins. CPU is that of the processes and of PostgreSQL's (/proc). `two`: two processes of a kind, which
fill two cores. Rounds are interleaved; shown is each one's least. `call` says how quick the machine was: 60 ns on an idle core of 2.5 GHz.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import peers
import uvloop
from _cpu import call_ns, postmaster, tree_cpu_s
from _say import say

from freehold.store.embedded import EmbeddedServer, embedded

HERE = Path(__file__).parent
OURS = {"turn": "Freehold, an agent's turn", "log": "Freehold, the log alone, ten trivial steps"}


def command_of(kind: str, url: str, at_once: int) -> list[str]:
    if kind in OURS:
        return [sys.executable, str(HERE / "engine.py"), kind, url, str(at_once)]
    return [peers.python(), str(HERE / f"peer_{kind}.py"), url, str(at_once)]


@asynccontextmanager
async def started(command: list[str]):
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        line = await process.stdout.readline()
        assert line == b"ready\n", f"{command}: {line!r}"
        yield process
    finally:
        process.stdin.close()
        await process.wait()


async def round_of(kind: str, urls: list[str], server: int, options, processes: int) -> dict[str, float]:
    at_once = options.at_once // processes
    async with AsyncExitStack() as stack:
        running = [
            await stack.enter_async_context(started(command_of(kind, url, at_once)))
            for url in urls[:processes]
        ]
        before_s, quick_ns = tree_cpu_s(server), call_ns()
        for one in running:
            one.stdin.write(f"{options.seconds}\n".encode())
        told = [json.loads(await one.stdout.readline()) for one in running]
        server_s = tree_cpu_s(server) - before_s
    steps = sum(one["steps"] for one in told)
    application = 1e6 * sum(one["cpu_s"] for one in told) / steps
    return {
        "application_us": application,
        "postgresql_us": 1e6 * server_s / steps,
        "total_us": application + 1e6 * server_s / steps,
        "steps_a_second": sum(one["steps"] / one["wall_s"] for one in told),
        "call_ns": quick_ns,
    }


async def fresh(server: EmbeddedServer, name: str) -> str:
    connection = await asyncpg.connect(server.dsn())
    await connection.execute(f"CREATE DATABASE bench_{name}")
    await connection.close()
    return server.dsn(f"bench_{name}")


async def measure(server: EmbeddedServer, data: Path, options) -> None:
    kinds = [*OURS, *(peers.NAMES if options.peers else ())]
    places = [(kind, count) for kind in kinds for count in (1, 2)]
    # Each process works on a database of its own, or one would carry what the other waits for.
    urls = {kind: [await fresh(server, f"{kind}_{number}") for number in (1, 2)] for kind in kinds}
    found: dict[tuple[str, int], list[dict[str, float]]] = {place: [] for place in places}
    for _ in range(options.rounds):
        for kind, count in places:
            one = await round_of(kind, urls[kind], postmaster(data), options, count)
            found[kind, count].append(one)
            print(f"{kind}, {count} processes: {one['total_us']:.0f} us a step", file=sys.stderr, flush=True)
    least = {place: min(rounds, key=lambda one: one["total_us"]) for place, rounds in found.items()}
    for (kind, count), one in least.items():
        ratio = {}
        if (like := peers.LIKE.get(kind)) is not None:
            ours, most = least[like, count], max(r["steps_a_second"] for r in found[like, count])
            ratio = {
                "cpu_of_ours": round(one["total_us"] / ours["total_us"], 1),
                "steps_of_ours": round(most / max(r["steps_a_second"] for r in found[kind, count]), 1),
            }
        name = {**OURS, **peers.NAMES}[kind] + (", two processes" if count == 2 else "")
        say(name, **{key: round(value, 1) for key, value in one.items()}, **ratio)


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as folder:
        data = Path(folder) / "data"
        async with embedded(data) as server:
            await measure(server, data, options)


if __name__ == "__main__":
    uvloop.run(main())
