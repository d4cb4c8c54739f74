"""SIGKILL wherever a turn waits for something: the awaited work has begun, its result is never seen. A fresh process goes on."""

import json

import pytest

from tests.chaos._place import EVERYTHING
from tests.chaos._processes import check_all, ledger, spawn


async def _kill_at(url: str, first: int, step: int, last: int) -> str:
    async with ledger() as outside:
        process = await spawn("tests.chaos._every_await", url, outside, str(first), str(step), str(last))
        out, _ = await process.communicate()
        runs = [json.loads(line) for line in out.decode().splitlines()]
        assert process.returncode == 0
        assert all(one["code"] == 0 for one in runs), runs
        found = await check_all(url, outside, {one["session"]: EVERYTHING for one in runs})
    kills = sum(one["killed"] for one in runs)
    return f"{kills} kills at await points {first} to {runs[-1]['at']} by {step}: {dict(found)}"


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_killed_at_some_await_points_of_a_turn_it_reaches_its_end_with_effects_as_promised(
    database_url,
):
    print(await _kill_at(database_url, 3, 17, 90))


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_killed_at_every_await_point_of_a_turn_it_reaches_its_end_with_effects_as_promised(
    database_url,
):
    print(await _kill_at(database_url, 1, 1, 2000))
