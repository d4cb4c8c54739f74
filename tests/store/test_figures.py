"""Figures that processes share: real ones on one database, by a clock that tests move. What is counted once is counted once by all."""

from collections.abc import Iterator
from datetime import UTC, datetime

import asyncpg
import pytest
from tests.gateway._routes import HandClock
from tests.store._proxy import Proxy
from tests.store.conftest import Opens

from freehold.core.contracts import Capacity
from freehold.core.errors import Unavailable
from freehold.core.figures import Subject, Told
from freehold.core.serving import Slo
from freehold.gateway import health
from freehold.gateway.figures import AWAKE_S, Exchange, Shared
from freehold.gateway.health import Health
from freehold.gateway.qualities import Scores
from freehold.gateway.slo import Served
from freehold.gateway.terms import Fill
from freehold.store.store import Store

ONE_PERCENT = Slo(error_share_max=0.01)
BOUGHT = Capacity(
    name="bought",
    models="a/*",
    tokens_per_minute=100,
    hourly="1",
    valid_from=datetime(2020, 1, 1, tzinfo=UTC),
)


class Process:
    """What one process counts of one tenant, and its exchange."""

    def __init__(self, store: Store, clock: HandClock) -> None:
        self.model, self.route, self.fill = Health(), Served(), Fill(BOUGHT)
        self.clock = clock
        self.scores = Scores("helpful")
        self.exchange = Exchange(store.figures, self, clock, store.experiments)

    async def load(self, _tenant: str) -> None: ...
    def judge(self, _tenant: str, _now_s: float, _at: datetime) -> None: ...

    def scored(self) -> Iterator[tuple[str, Scores]]:
        yield "acme", self.scores

    def shared(self) -> Iterator[tuple[Subject, Shared]]:
        yield ("acme", "model/a/m"), self.model
        yield ("acme", "route/smart"), self.route
        yield ("acme", "capacity/bought"), self.fill

    def answered(self, seconds: float, *, times: int = 1) -> None:
        for _ in range(times):
            self.model.answered(
                self.clock.s, first_s=seconds, whole_s=2 * seconds, output_tokens=100, streamed=True
            )

    def ended(self, outcome: str, *, times: int = 1) -> None:
        for _ in range(times):
            self.route.ended(ONE_PERCENT, outcome, None, self.clock.s)

    @property
    def counted(self) -> tuple[int, int]:
        (one,) = self.route.looks(ONE_PERCENT, self.clock.s)
        return one.counted.ended, one.counted.bad


async def exchanged(*processes: Process) -> None:
    """Twice: who told last was not heard by the others yet."""
    for one in (*processes, *processes):
        await one.exchange.refresh("acme")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def two(store: Store, other: Store, clock: HandClock) -> tuple[Process, Process]:
    return Process(store, clock), Process(other, clock)


async def test_how_quick_a_model_is_is_told_by_all_together_and_counted_once(
    two: tuple[Process, Process], clock: HandClock
) -> None:
    here, there = two
    for _ in range(5):
        here.answered(0.2, times=10)
        await exchanged(here, there)
    there.answered(1.6, times=150)
    await exchanged(here, there)
    for one in two:
        assert one.model.first.at(0.5, clock.s) == pytest.approx(1.6, rel=0.2)
        assert one.model.first.at(0.2, clock.s) == pytest.approx(0.2, rel=0.2)
        assert one.model.first.at(0.27, clock.s) == pytest.approx(1.6, rel=0.2), "50 of 200 are quick"
        assert one.model.typical_output_tokens == pytest.approx(100)
    assert there.model.tokens_per_s(clock.s) == pytest.approx(62.5, rel=0.2)
    assert there.model.tokens_per_s(clock.s, 0.2) == pytest.approx(500, rel=0.2)
    clock.s += 180
    await exchanged(here, there)
    assert here.model.first.at(0.5, clock.s) is None


async def test_who_comes_later_or_again_knows_what_was_counted_before(
    two: tuple[Process, Process], clock: HandClock, opened: Opens
) -> None:
    here, _ = two
    here.ended("ok", times=90)
    clock.s += 3600
    here.ended("unavailable", times=10)
    await here.exchange.refresh("acme")
    async with opened("later") as store:
        later = Process(store, clock)
        await later.exchange.refresh("acme")
        assert later.counted == (100, 10)
        later.ended("ok")
        await exchanged(later, here)
        assert later.counted == here.counted == (101, 10)
        clock.s += 5 * 3600
        await exchanged(later, here)
        assert later.counted == here.counted == (11, 10), "after six hours a minute counts no more"


async def test_a_breaker_that_opened_elsewhere_lets_one_call_find_out(
    two: tuple[Process, Process], clock: HandClock
) -> None:
    here, there = two
    for _ in range(health.FAILURES_MAX):
        here.model.failed(clock.s, "overloaded")
    await exchanged(here, there)
    breaker = there.model.breaker
    assert breaker.state(clock.s) == "half_open"
    assert breaker.began(clock.s)
    assert there.model.barred(clock.s) == (
        "failed too often (overloaded, in another process): a probe is under way"
    )
    clock.s += 1
    breaker.succeeded(clock.s)
    there.answered(0.2)
    await exchanged(there, here)
    assert (breaker.state(clock.s), here.model.breaker.state(clock.s)) == ("closed", "half_open")
    await exchanged(here, there)
    assert breaker.state(clock.s) == "closed", "what is old tells nothing new"


async def test_a_retry_after_holds_for_all(two: tuple[Process, Process], clock: HandClock) -> None:
    here, there = two
    here.model.failed(clock.s, "rate_limited", retry_after_s=30)
    await exchanged(here, there)
    assert there.model.rests_for_s(clock.s) == 30


async def test_bought_capacity_is_filled_by_all_together(
    two: tuple[Process, Process], clock: HandClock
) -> None:
    here, there = two
    assert here.fill.takes(70, clock.now())
    await exchanged(here, there)
    assert there.fill.left(clock.now()) == 30
    assert not there.fill.takes(31, clock.now())
    assert there.fill.takes(30, clock.now())
    began = clock.now()
    clock.s += 60
    assert here.fill.takes(100, clock.now())
    await exchanged(here, there)
    assert (here.fill.left(began), there.fill.left(clock.now())) == (0, 0), "each minute by itself"


async def test_while_the_database_is_away_each_counts_for_itself_and_tells_it_later(
    clock: HandClock, opened: Opens, proxy: Proxy
) -> None:
    async with opened("cut off", url=proxy.url) as cut, opened("there") as store:
        here, there = Process(cut, clock), Process(store, clock)
        await exchanged(here, there)
        proxy.cut()
        for _ in range(3):
            here.ended("unavailable", times=5)
            with pytest.raises(Unavailable):
                await here.exchange.exchange()
            clock.s += 60
        assert (here.counted, there.counted) == ((15, 15), (0, 0))
        proxy.heal()
        await exchanged(here, there)
        assert (here.counted, there.counted) == ((15, 15), (15, 15))


async def test_who_is_not_called_writes_nothing_and_what_is_over_is_forgotten(
    two: tuple[Process, Process], clock: HandClock, store: Store, store_url: str
) -> None:
    here, there = two
    connection = await asyncpg.connect(store_url)
    try:
        for _ in range(3):
            await there.exchange.exchange()
            await here.exchange.refresh("acme")
        assert await connection.fetchval("SELECT count(*) FROM freehold.live_figures") == 0
        here.answered(0.2)
        await here.exchange.exchange()
        written = await connection.fetchval("SELECT max(written_at) FROM freehold.live_figures")
        clock.s += AWAKE_S / 2
        await here.exchange.exchange()
        assert await connection.fetchval("SELECT max(written_at) FROM freehold.live_figures") == written
        await store.figures.tell([Told(("acme", "model/old"), 1, b"{}", -1.0)])
        assert await store.figures.forget() == 1
    finally:
        await connection.close()


async def test_a_clock_that_is_a_little_ahead_counts_and_one_that_is_far_ahead_does_not(
    store: Store, other: Store, clock: HandClock
) -> None:
    here, ahead = Process(store, clock), Process(other, later := HandClock())
    later.s = clock.s + 50
    ahead.ended("ok", times=3)
    await exchanged(ahead, here)
    assert here.counted == (3, 0)
    later.s = clock.s + 7200
    ahead.ended("ok", times=5)
    await exchanged(ahead, here)
    assert here.counted == (3, 0)


async def test_what_another_release_tells_is_left_where_it_is_not_understood(
    two: tuple[Process, Process], clock: HandClock, store: Store
) -> None:
    _, there = two
    minute = int(clock.s / 60)
    told = [
        Told(("acme", name), minute, body, 60.0)
        for name, body in (
            ("model/a/m", b'{"first": "quick"}'),
            ("route/smart", b'{"new": 1}'),
            ("new/x", b"?"),
        )
    ]
    await store.figures.tell(told)
    await there.exchange.refresh("acme")
    assert (there.model.first.at(0.5, clock.s), there.counted) == (None, (0, 0))
