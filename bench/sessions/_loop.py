"""A closed loop of callers, and what it tells whoever started this process. Only the standard library: peers' environments run it, too.

After one line `ready`, each line `SECONDS` on standard input is answered with a line of JSON: runs and steps done, seconds, and this
process's CPU seconds. The end of standard input ends it.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

WARM_UP_S = 1.5


async def closed_loop(run: Callable[[], Awaitable[int]], at_once: int, seconds: float) -> dict[str, float]:
    """`run` does one run and says how many steps it had. Whoever is at it when the time is over comes to the end."""
    runs = steps = 0
    ends_s = time.perf_counter() + seconds

    async def caller() -> None:
        nonlocal runs, steps
        while time.perf_counter() < ends_s:
            done = await run()
            steps, runs = steps + done, runs + 1

    began_s, cpu_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(at_once)))
    return {
        "runs": runs,
        "steps": steps,
        "wall_s": time.perf_counter() - began_s,
        "cpu_s": time.process_time() - cpu_s,
    }


async def served(run: Callable[[], Awaitable[int]], at_once: int) -> None:
    await closed_loop(run, at_once, WARM_UP_S)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await closed_loop(run, at_once, float(line))), flush=True)
