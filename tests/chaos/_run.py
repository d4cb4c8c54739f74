"""One run of chaos: sessions on several workers while everything fails, then the check. `python -m tests.chaos._run --minutes N`

(`scripts/chaos` does it.) On a PostgreSQL of its own that keeps what it promised: it is crashed and restarted, too. With `--namespaces`
each worker is in a network namespace, and its network is cut by the kernel. Prints what was done and found.
"""

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec import Struct, structs

from freehold.core.errors import FreeholdError
from freehold.core.messages import Text
from tests.chaos._checker import Found
from tests.chaos._database import Postgres, postgres
from tests.chaos._faults import Chaos
from tests.chaos._ledger import ask
from tests.chaos._namespaces import namespaces, why_not
from tests.chaos._place import Deeds, person, place, plan_of
from tests.chaos._processes import Network, check_all, ledger, workers
from tests.runtime._world import OWNER, TENANT, World
from tests.store._proxy import proxied

WORKERS = 3
AT_ONCE_MAX = 60
SETTLED_S_MAX = 300.0
FAULTS_MIN = 10
SESSIONS_MIN = 5
MORE_S_MAX = 240.0
"""So much longer than was wanted it may go on until there was enough to look at: a slow machine starts fewer sessions in a second."""


class Report(Struct):
    seconds: float
    faults: dict[str, int]
    deaths: int
    deeds: dict[str, int]
    found: Found

    def __str__(self) -> str:
        lines = [
            f"{self.found['sessions']} sessions in {self.seconds:.0f} s, {sum(self.faults.values())} faults, {self.deaths} deaths of workers",
            "  faults: " + ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items())),
            "  people: " + ", ".join(f"{count} {name}" for name, count in self.deeds.items()),
            "  histories: " + ", ".join(f"{count} {name}" for name, count in sorted(self.found.items())),
        ]
        return "\n".join(lines)


async def chaos(seconds: float, seed: int, *, apart: bool = False) -> Report:
    """`apart`: each worker in a network namespace."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="freehold-chaos-")))
        outside = await stack.enter_async_context(ledger())
        made = stack.enter_context(namespaces(WORKERS)) if apart else []
        database = await stack.enter_async_context(postgres(folder, [one.address for one in made]))
        networks: Sequence[Network] = made or [
            await stack.enter_async_context(proxied(database.url)) for _ in range(WORKERS)
        ]
        # Whoever asks and looks here finds the database again after a restart, and is never cut off.
        door = await stack.enter_async_context(proxied(database.url))
        database.moved.append(door.goes_to)
        return await _on(database, door.url, outside, networks, seconds=seconds, seed=seed, apart=apart)


async def _on(
    database: Postgres,
    url: str,
    outside: str,
    networks: Sequence[Network],
    *,
    seconds: float,
    seed: int,
    apart: bool,
) -> Report:
    plans: dict[str, str] = {}
    deeds = Deeds()
    await ask(outside, "slow")
    began_s = time.monotonic()
    async with workers(database, outside, networks) as found, place(url, outside) as here:
        faults = Chaos(database, found, seed)
        helper = asyncio.create_task(person(here, deeds, seed=seed, pauses=True))
        wild = asyncio.create_task(faults.run())
        try:

            def enough() -> bool:
                networks_fell = not apart or faults.counts["network cut"] + faults.counts["network stalled"]
                killed = any(one.deaths for one in found)
                count = sum(faults.counts.values())
                return bool(killed and networks_fell and count >= FAULTS_MIN and len(plans) >= SESSIONS_MIN)

            await _feed(here, plans, random.Random(seed), until_s=began_s + seconds, enough=enough)
            wild.cancel()
            await asyncio.wait([wild])
            await database.up()
            await _settled(here)
        finally:
            for task in (wild, helper):
                task.cancel()
            await asyncio.wait([wild, helper])
        deaths = sum(one.deaths for one in found)
    result = await check_all(url, outside, plans)
    return Report(time.monotonic() - began_s, dict(faults.counts), deaths, structs.asdict(deeds), result)


async def _feed(
    here: World,
    plans: dict[str, str],
    chance: random.Random,
    *,
    until_s: float,
    enough: Callable[[], bool],
) -> None:
    """New sessions as long as it lasts, and until there are enough. A key lets one that may have been made be asked for again."""
    number = 0
    while time.monotonic() < until_s or (not enough() and time.monotonic() < until_s + MORE_S_MAX):
        await asyncio.sleep(chance.uniform(0.02, 0.1))
        with contextlib.suppress(FreeholdError):
            page = await here.log.list(TENANT, statuses=["running", "waiting", "paused"], limit=AT_ONCE_MAX)
            if len(page.rows) < AT_ONCE_MAX:
                plan = plan_of(number)
                row = await here.sessions.create(
                    OWNER, "clerk", content=[Text(plan)], idempotency_key=f"chaos-{number}"
                )
                plans[row.id] = plan
                number += 1


async def _settled(here: World) -> None:
    async with asyncio.timeout(SETTLED_S_MAX):
        while True:
            with contextlib.suppress(FreeholdError):
                page = await here.log.list(TENANT, statuses=["running", "waiting", "paused"], limit=1)
                if not page.rows:
                    return
            await asyncio.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description="Sessions while everything fails.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument(
        "--namespaces", action="store_true", help="cut networks in the kernel (root, iproute2)"
    )
    options = parser.parse_args()
    if options.namespaces and (missing := why_not()):
        parser.exit(2, f"{missing}\n")
    print(f"seed {options.seed}", flush=True)
    print(asyncio.run(chaos(60 * options.minutes, options.seed, apart=options.namespaces)))


if __name__ == "__main__":
    main()
