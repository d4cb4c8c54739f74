"""How models have gone: quantiles, breakers, and places with their queues; the clock is moved by hand."""

import asyncio
import random

import pytest

from freehold.core.errors import Overloaded
from freehold.gateway import health
from freehold.gateway.health import Breaker, Health, Quantiles
from freehold.gateway.routing_places import Places, Priority


def test_quantiles_are_right_to_a_fifth_and_forget_what_is_old() -> None:
    chance, quantiles = random.Random(7), Quantiles()
    values = [chance.lognormvariate(0, 1) for _ in range(5000)]
    for value in values:
        quantiles.add(value, 10.0)
    for share in (0.5, 0.95, 0.99):
        exact = sorted(values)[int(share * len(values))]
        found = quantiles.at(share, 10.0)
        assert found is not None
        assert 0.8 < found / exact < 1.25
    quantiles.add(100.0, 10.0 + health.WINDOW_S)
    assert (quantiles.at(0.5, 11.0 + health.WINDOW_S) or 0) < 10
    assert (quantiles.at(0.5, 12.0 + 2 * health.WINDOW_S) or 0) > 80
    assert quantiles.at(0.5, 10.0 + 5 * health.WINDOW_S) is None


@pytest.mark.parametrize("value", [0.0, 1e-9, 1e9])
def test_a_quantile_takes_any_duration(value: float) -> None:
    quantiles = Quantiles()
    quantiles.add(value, 0.0)
    assert (quantiles.at(0.5, 0.0) or 0) > 0


def opened(breaker: Breaker, now_s: float) -> None:
    for _ in range(health.FAILURES_MAX):
        breaker.failed(now_s, "overloaded")


def test_a_breaker_opens_after_failures_in_a_row_and_closes_by_a_probe() -> None:
    breaker = Breaker()
    for _ in range(health.FAILURES_MAX - 1):
        breaker.failed(0.0, "overloaded")
    breaker.succeeded(0.0)
    assert breaker.state(0.0) == "closed"
    opened(breaker, 1.0)
    assert (breaker.state(1.0), breaker.admits(1.0)) == ("open", False)
    assert breaker.opens_in_s(2.0) == health.OPEN_S_MIN - 1
    later = 1.0 + health.OPEN_S_MIN
    assert breaker.state(later) == "half_open"
    assert breaker.began(later)
    assert not breaker.admits(later), "one probe at a time"
    breaker.left()
    assert breaker.began(later), "a probe whose client went away tells nothing"
    breaker.succeeded(later)
    assert breaker.state(later) == "closed"


def test_a_breaker_stays_open_longer_after_each_probe_that_fails() -> None:
    breaker, now_s, waits = Breaker(), 0.0, []
    opened(breaker, now_s)
    for _ in range(8):
        waits.append(breaker.opens_in_s(now_s))
        now_s += waits[-1]
        assert breaker.began(now_s)
        breaker.failed(now_s, "timed_out")
    assert waits == [5, 10, 20, 40, 80, 120, 120, 120]


def test_a_breaker_opens_where_half_of_many_calls_fail() -> None:
    breaker = Breaker()
    for _ in range(health.FAILED_AMONG_MIN // 2):
        breaker.succeeded(0.0)
        breaker.failed(0.0, "unavailable")
    assert breaker.state(0.0) == "open"


def test_an_old_success_does_not_close_an_open_breaker() -> None:
    breaker = Breaker()
    opened(breaker, 0.0)
    breaker.succeeded(1.0)
    assert breaker.state(1.0) == "open"


def test_a_retry_after_is_believed_up_to_its_limit() -> None:
    one = Health()
    one.failed(0.0, "rate_limited", retry_after_s=1e9)
    assert one.rests_for_s(0.0) == health.REST_S_MAX
    assert one.barred(0.0) is not None
    assert one.barred(health.REST_S_MAX) is None


async def taken(places: Places, tenant: str, priority: Priority, told: list[str]) -> None:
    await places.take("a/m", tenant, priority, waiting_max=100, wait_s=10)
    told.append(f"{tenant} {priority}")


async def test_tenants_take_turns_and_urgent_calls_go_before_the_others_of_their_tenant() -> None:
    places = Places(1)
    told: list[str] = []
    assert places.take_now()
    async with asyncio.TaskGroup() as group:
        for tenant, priority in [("a", "low"), ("a", "normal"), ("a", "high"), ("b", "low"), ("c", "normal")]:
            group.create_task(taken(places, tenant, priority, told))  # type: ignore[arg-type]
        while places.waiting_count < 5:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for _ in range(5):
            places.give_back()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    assert told == ["a high", "b low", "c normal", "a normal", "a low"]
    places.give_back()
    assert (places.taken_count, places.waiting_count) == (0, 0)


async def test_who_waits_too_long_or_goes_away_gives_up_its_turn() -> None:
    places = Places(1)
    assert places.take_now()
    with pytest.raises(Overloaded, match=r"queue.wait_s = 0.01"):
        await places.take("a/m", "a", "normal", waiting_max=1, wait_s=0.01)
    gone = asyncio.create_task(places.take("a/m", "a", "normal", waiting_max=1, wait_s=10))
    while not places.waiting_count:  # noqa: ASYNC110
        await asyncio.sleep(0)
    with pytest.raises(Overloaded, match=r"queue.waiting_max = 1"):
        await places.take("a/m", "b", "high", waiting_max=1, wait_s=10)
    gone.cancel()
    await asyncio.wait([gone])
    assert places.waiting_count == 0
    given = asyncio.create_task(places.take("a/m", "a", "normal", waiting_max=1, wait_s=10))
    while not places.waiting_count:  # noqa: ASYNC110
        await asyncio.sleep(0)
    places.give_back()  # Its turn has come, and in the same moment it goes away.
    given.cancel()
    await asyncio.wait([given])
    assert places.taken_count == 0


async def test_more_places_let_more_in_at_once() -> None:
    places = Places(1)
    told: list[str] = []
    assert places.take_now()
    waiting = [asyncio.create_task(taken(places, "a", "normal", told)) for _ in range(3)]
    while places.waiting_count < 3:  # noqa: ASYNC110
        await asyncio.sleep(0)
    places.resize(3)
    await asyncio.wait(waiting[:2])
    assert (len(told), places.taken_count) == (2, 3)
    places.resize(1)
    for _ in range(3):
        places.give_back()
    await asyncio.wait(waiting)
    assert places.taken_count == 1
