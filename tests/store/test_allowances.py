"""Slices of limits and budgets on PostgreSQL: never more than there is, whoever asks at once; nothing that was spent is forgotten."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests._waiting import eventually
from tests.store.conftest import Opens

from freehold.clock import SystemClock
from freehold.core import ids
from freehold.core.allowances import Allowance, Ask, Measure, Window, window_of
from freehold.core.records import CallRecord
from freehold.store.allowances import PostgresAllowances
from freehold.store.store import Store

NOW = datetime.now(UTC)
CLOCK = SystemClock()


def budget(name: str = "all", *, measure: Measure = "money", **more: Any) -> Allowance:
    window = window_of("month", NOW) if measure == "money" else Window("")
    given_ = {"scope": "organisation", "subject": "", "models": None, **more}
    return Allowance(tenant="default", measure=measure, name=name, window=window, **given_)


class Asker:
    """One process as it counts for itself."""

    def __init__(self, allowances: PostgresAllowances) -> None:
        self.allowances = allowances
        self.granted: dict[str, int] = {}
        self.turn = 0

    async def ask(
        self,
        allowance: Allowance,
        need: int,
        *,
        size: int = 100,
        extra: int = 0,
        waiting: bool = False,
        back: int = 0,
    ) -> int:
        self.turn += 1
        ask = Ask(
            allowance=allowance,
            size=size,
            granted=self.granted.get(allowance.id, 0) - back,
            need=need,
            extra=extra,
            turn=self.turn,
            waiting=waiting,
        )
        (grant,) = await self.allowances.lease([ask], lease_s=60)
        self.granted[allowance.id] = grant.granted
        return grant.granted

    def record(self, allowance: Allowance, cost_pico: int, **more: Any) -> CallRecord:
        lease = self.allowances.lease_id(allowance.id)
        return record(cost_pico, leases=lease, **more)


def record(cost_pico: int, **more: Any) -> CallRecord:
    return CallRecord(
        id=ids.new("call", CLOCK),
        at=NOW,
        tenant="default",
        principal="key_x",
        wire="openai_chat",
        model_requested="m",
        provider="openai",
        model="gpt-4o",
        outcome="ok",
        cost_pico=cost_pico,
        **more,
    )


async def state(store: Store, allowance: Allowance) -> tuple[int, int]:
    (found,) = await store.allowances.states([allowance])
    return found.used, found.held


async def test_no_more_is_given_than_there_is_and_all_of_a_need_or_nothing(opened: Opens) -> None:
    async with opened("a") as one, opened("b") as two:
        first, second, all_ = Asker(one.allowances), Asker(two.allowances), budget()
        assert await first.ask(all_, 60) == 60
        assert await second.ask(all_, 50) == 0
        assert await second.ask(all_, 10, extra=100) == 25, "extra is half of what is free"
        assert await first.ask(all_, 0, back=20) == 40
        assert await second.ask(all_, 35) == 60
        assert await state(one, all_) == (0, 100)


async def test_who_waits_has_others_called(opened: Opens) -> None:
    async with opened("a") as one, opened("b") as two:
        heard: list[str] = []
        one.allowances.on_recall(heard.append)
        first, second, all_ = Asker(one.allowances), Asker(two.allowances), budget()
        await first.ask(all_, 100)
        assert await second.ask(all_, 1, waiting=True) == 0
        await eventually(lambda: heard == [all_.id])


async def test_a_statement_that_comes_late_changes_nothing(opened: Opens) -> None:
    async with opened("a") as one:
        first, all_ = Asker(one.allowances), budget()
        await first.ask(all_, 50)
        await first.ask(all_, 50)
        first.turn = 0
        await first.ask(all_, 0, back=100)
        assert await state(one, all_) == (0, 100)


async def test_what_records_cost_is_taken_out_of_their_lease_once(opened: Opens) -> None:
    async with opened("a") as one:
        first, all_ = Asker(one.allowances), budget()
        await first.ask(all_, 80)
        spent = first.record(all_, 30)
        one.records.add(spent)
        one.records.add(spent)
        one.records.add(record(7))
        await one.records.flush()
        assert await state(one, all_) == (30, 50)
        leases = {kept.leases for kept in await one.records.list("default", limit=3)}
        assert leases == {one.allowances.lease_id(all_.id), None}


async def test_a_new_budget_begins_with_what_its_window_has_cost(opened: Opens) -> None:
    async with opened("a") as one:
        for cost, more in (
            (1, {}),
            (10, {"team": "t"}),
            (100, {"team": "t", "user": "ann", "key_id": "key_1"}),
        ):
            one.records.add(record(cost, **more))
        await one.records.flush()
        scopes: Mapping[str, tuple[str, str, str | None, int]] = {
            "all": ("organisation", "", None, 111),
            "t": ("team/t", "t", None, 110),
            "each": ("team/*", "t", None, 110),
            "ann": ("user/ann", "ann", None, 100),
            "key": ("key/key_1", "key_1", None, 100),
            "keys": ("key/*", "key_1", None, 100),
            "model": ("organisation", "", "openai/gpt*", 111),
            "other": ("organisation", "", "anthropic/*", 0),
            "literal": ("organisation", "", "openai/gpt_4o", 0),
        }
        for name, (scope, subject, models, used) in scopes.items():
            allowance = budget(name, scope=scope, subject=subject, models=models)
            await Asker(one.allowances).ask(allowance, 0)
            assert await state(one, allowance) == (used, 0), name


async def test_what_a_process_held_is_free_again_once_its_records_have_arrived(
    opened: Opens, tmp_path: Path, store_url: str
) -> None:
    """It was killed: its spool still has a record that the database has not."""
    all_, folder = budget(), tmp_path / "here"
    async with opened("a", spool_folder=folder) as one:
        first = Asker(one.allowances)
        await first.ask(all_, 90)
        one.records.add(first.record(all_, 20))
        await one.records.flush()
        one.records.add(first.record(all_, 30))
        kept = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert await one.allowances.end_left() == 0
    connection = await asyncpg.connect(store_url)
    await connection.execute(
        "UPDATE freehold.allowance_leases SET recorded = 20; DELETE FROM freehold.call_records WHERE cost_pico = 30"
    )
    await connection.close()
    for name, data in kept.items():
        (folder / name).write_bytes(data)
    async with opened("b") as elsewhere:
        assert await elsewhere.allowances.end_left() == 0, "another machine knows nothing of that spool"
        assert await Asker(elsewhere.allowances).ask(all_, 20) == 0
    async with opened("c", spool_folder=folder) as two:

        async def ended() -> bool:
            return bool(await two.allowances.end_left())

        await eventually(ended)
        assert await state(two, all_) == (50, 0)
        assert await Asker(two.allowances).ask(all_, 50) == 50


async def test_places_and_minutes_of_a_process_that_is_gone_end_by_themselves(
    opened: Opens, store_url: str
) -> None:
    async with opened("a") as one, opened("b") as two:
        first, second = Asker(one.allowances), Asker(two.allowances)
        requests = budget(measure="requests")
        await first.ask(requests, 100)
        assert await second.ask(requests, 1) == 0
        connection = await asyncpg.connect(store_url)
        await connection.execute("UPDATE freehold.allowance_leases SET expires_at = now()")
        await connection.close()
        assert await second.ask(requests, 1) == 1


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 2), st.integers(0, 1), st.integers(0, 60), st.integers(0, 60), st.booleans()
        ),
        max_size=12,
    )
)
async def test_all_that_is_held_at_once_is_never_more_than_there_is(
    opened: Opens, steps: Sequence[tuple[int, int, int, int, bool]]
) -> None:
    async with opened("a") as one, opened("b") as two, opened("c") as three:
        askers = [Asker(store.allowances) for store in (one, two, three)]
        both = [budget(f"n{ids.new('call', CLOCK)}") for _ in range(2)]

        async def act(who: int, what: int, need: int, extra: int, back: bool) -> None:
            asker, allowance = askers[who], both[what]
            had = asker.granted.get(allowance.id, 0)
            await asker.ask(allowance, need, extra=extra, back=had // 2 if back else 0)

        for batch in (steps[: len(steps) // 2], steps[len(steps) // 2 :]):
            by_asker = [[step for step in batch if step[0] == who] for who in range(3)]
            await asyncio.gather(*(_in_turn([act(*step) for step in own]) for own in by_asker))
            for allowance in both:
                held = sum(asker.granted.get(allowance.id, 0) for asker in askers)
                assert held <= 100
                assert await state(one, allowance) == (0, held)


async def _in_turn(acts: Sequence[Any]) -> None:
    for act in acts:
        await act
