"""A worker that dies with a hundred tool runs in flight: others finish them soon after its leases have run out, and nothing twice."""

import asyncio
import time
from functools import partial

import pytest

from freehold.core.messages import Text
from tests._waiting import eventually
from tests.chaos._ledger import ask
from tests.chaos._place import LEASE_S, place
from tests.chaos._processes import check_all, end, ledger, spawn
from tests.runtime._world import OWNER, World

IN_FLIGHT = 100
FINISHED_S_MAX = 5.0
"""On a machine that does as many in half of it."""

KINDS = ("ledger_look", "ledger_set", "ledger_pay")


async def begun(here: World) -> dict[str, str]:
    plans = {}
    for number in range(IN_FLIGHT):
        plan = f"{KINDS[number % 3]} ledger_set"
        plans[(await here.sessions.create(OWNER, "clerk", content=[Text(plan)])).id] = plan
    return plans


async def all_held(outside: str) -> bool:
    return int(await ask(outside, "held")) >= IN_FLIGHT


async def undisturbed_s(here: World) -> float:
    """What as many take where nobody is killed."""
    began_s = time.monotonic()
    await asyncio.gather(*(here.settled(one) for one in await begun(here)))
    return time.monotonic() - began_s


@pytest.mark.slow
async def test_what_a_killed_worker_was_doing_is_finished_elsewhere_within_its_lease_and_five_seconds(
    database_url,
):
    async with ledger() as outside, place(database_url, outside) as here:
        await ask(outside, "hold")
        first = await spawn("tests.chaos._worker", database_url, outside)
        plans = await begun(here)
        await eventually(partial(all_held, outside))
        second = await spawn("tests.chaos._worker", database_url, outside)
        try:
            assert await second.stdout.readline() == b"ready\n"
            await end(first)
            await ask(outside, "free")
            killed_s = time.monotonic()
            await asyncio.gather(*(here.settled(one) for one in plans))
            took_s = time.monotonic() - killed_s
            usual_s = await undisturbed_s(here)
        finally:
            await end(second)
            await end(first)
        found = await check_all(database_url, outside, plans)
        print(
            f"{IN_FLIGHT} runs in flight, all finished elsewhere {took_s:.1f} s after SIGKILL (lease {LEASE_S:g} s): {dict(found)}"
        )
        assert took_s <= LEASE_S + max(FINISHED_S_MAX, 2 * usual_s)
        assert found["unknown"] == len([one for one in plans.values() if one.startswith("ledger_pay")])
