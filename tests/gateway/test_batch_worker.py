"""The worker of batches on a real store and a real gateway: time, retries, a stop in the middle. Its clock is the test's."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from freehold.clock import SystemClock
from freehold.core.errors import BadRequest, NotFound
from freehold.core.message_batches import BatchResult, MessageBatch
from freehold.core.policy import Principal
from freehold.gateway import batch_worker
from freehold.gateway.batch_worker import BatchMeans, BatchSettings, BatchWorker
from freehold.gateway.batches import Batches
from freehold.store.blobs import open_objects
from freehold.store.store import Store, open_store
from freehold.wires.anthropic_messages import WIRE
from tests._waiting import within
from tests.gateway._vendors import ANTHROPIC_TEXT, CUT, HOLD, Vendor, reply
from tests.gateway.conftest import ANN, House, open_house

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
QUICK = BatchSettings(calls_max=4, poll_s=0.05, pause_s=0.01, attempts_max=3, drain_s=5)
BUSY = reply(b'{"type":"error","error":{"type":"overloaded_error","message":"later"}}', status=529)
OK = reply(ANTHROPIC_TEXT)


class TestsClock(SystemClock):
    """Stands still until it is moved."""

    __test__ = False

    def __init__(self) -> None:
        self.at = NOON

    def now(self) -> datetime:
        return self.at


class Everybody:
    async def current(self, tenant: str, principal_id: str) -> Principal:
        assert (tenant, principal_id) == (ANN.tenant, ANN.id)
        return ANN


class Place:
    def __init__(self, house: House, store: Store, vendor: Vendor) -> None:
        self.vendor = vendor
        self.clock = TestsClock()
        self.house = house
        self.means = BatchMeans(
            kept=store.message_batches,
            gateway=house.gateway,
            principals=Everybody(),
            wire=WIRE,
            clock=self.clock,
        )
        self.batches = Batches(store.message_batches, house.gateway, WIRE, self.clock)

    async def create(self, count: int) -> MessageBatch:
        params = {"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
        requests = [{"custom_id": f"r{number}", "params": params} for number in range(count)]
        return await self.batches.create(ANN, msgspec.json.encode({"requests": requests}), headers={})

    @asynccontextmanager
    async def working(self, settings: BatchSettings = QUICK) -> AsyncIterator[None]:
        async with BatchWorker(self.means, settings).running():
            yield

    async def until(self, batch: MessageBatch, true: Callable[[MessageBatch], bool]) -> MessageBatch:
        async with within("the batch to get there"):
            while True:
                found = await self.batches.get(ANN, batch.id)
                if true(found):
                    return found
                await asyncio.sleep(0.01)

    async def ended(self, batch: MessageBatch) -> list[BatchResult]:
        await self.until(batch, lambda found: found.status == "ended")
        return [one async for piece in await self.batches.results(ANN, batch.id) for one in piece]

    async def asked(self, count: int) -> None:
        async with within(f"{count} calls"):
            while len(self.vendor.asked) < count:  # noqa: ASYNC110 - the vendor tells nobody when it is asked
                await asyncio.sleep(0.01)


@pytest.fixture
async def place(database_url: str, tmp_path: Path) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        vendor = await stack.enter_async_context(Vendor(OK))
        upstreams = {"anthropic_messages": vendor.url}
        house = await stack.enter_async_context(open_house(upstreams=upstreams))
        objects = open_objects(str(tmp_path / "objects"))
        store = await stack.enter_async_context(open_store(database_url, objects=objects, process_id="t"))
        yield Place(house, store, vendor)


def error_of(result: BatchResult) -> Any:
    return msgspec.json.decode(result.body)["error"]


async def test_after_24_hours_what_has_no_result_is_expired(place: Place) -> None:
    place.vendor.play(OK, OK, BUSY)
    batch = await place.create(6)
    patient = BatchSettings(calls_max=1, poll_s=0.05, pause_s=60)
    async with place.working(patient):
        await place.asked(6)
        place.clock.at = NOON + timedelta(hours=23, minutes=59)
        await place.until(batch, lambda found: found.succeeded_count == 2 and found.status == "in_progress")
        place.clock.at = NOON + timedelta(hours=24)
        results = await place.ended(batch)
    assert sorted(one.outcome for one in results) == ["expired"] * 4 + ["succeeded"] * 2
    ended = await place.batches.get(ANN, batch.id)
    assert (ended.expired_count, ended.ended_at) == (4, NOON + timedelta(hours=24))


@pytest.mark.slow
async def test_results_are_kept_for_29_days(place: Place) -> None:
    batch = await place.create(1)
    async with place.working():
        await place.ended(batch)
        place.clock.at = NOON + timedelta(days=28, hours=23)
        other = await place.create(1)
        await place.ended(other)
        place.clock.at = NOON + timedelta(days=29)
        await place.until(batch, lambda found: found.archived_at is not None)
    with pytest.raises(NotFound, match="were kept for 29 days, and are gone"):
        await place.batches.results(ANN, batch.id)
    assert len(await place.ended(other)) == 1


async def test_what_may_pass_is_tried_so_often_and_no_more(place: Place) -> None:
    place.vendor.play(BUSY, [CUT], OK)
    first = await place.create(1)
    async with place.working():
        (one,) = await place.ended(first)
        assert one.outcome == "succeeded"
        place.vendor.play(BUSY)
        (one,) = await place.ended(await place.create(1))
    assert (one.outcome, error_of(one)["type"]) == ("errored", "overloaded_error")
    assert len(place.vendor.asked) == QUICK.attempts_max
    outcomes = [record.outcome for record in place.house.spool.records]
    assert outcomes[-3:] == ["overloaded"] * 3, "each try left its record"


@pytest.mark.slow
async def test_no_more_calls_run_at_once_than_allowed(place: Place) -> None:
    place.vendor.play([HOLD])
    await place.create(20)
    async with place.working(BatchSettings(calls_max=3, poll_s=0.02, drain_s=0)):
        await place.asked(3)
        await asyncio.sleep(0.2)  # Nothing tells that nothing more comes.
        assert len(place.vendor.asked) == 3


async def test_a_stop_hands_back_what_runs_and_the_next_start_goes_on_at_once(place: Place) -> None:
    place.vendor.play([HOLD])
    batch = await place.create(3)
    async with place.working(BatchSettings(drain_s=0, lease_s=600)):
        await place.asked(3)
    assert (await place.batches.get(ANN, batch.id)).status == "in_progress"
    place.vendor.play(OK)
    async with place.working(BatchSettings(lease_s=600)):
        assert [one.outcome for one in await place.ended(batch)] == ["succeeded"] * 3


@pytest.mark.slow
async def test_a_request_that_kills_its_workers_is_given_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_worker, "CLAIMS_MAX", 2)
    batch = await place.create(1)
    for _ in range(2):
        (claim,) = await place.means.kept.claim("dead", limit=1, lease_s=60, now=NOON)
        await place.means.kept.release("dead", [claim])
    async with place.working():
        (one,) = await place.ended(batch)
    assert error_of(one) == {"type": "api_error", "message": "given up: begun 2 times, and never finished"}
    assert place.vendor.asked == []


@pytest.mark.slow
async def test_a_call_that_takes_too_long_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_worker, "CALL_S_MAX", 0.05)
    place.vendor.play([HOLD])
    batch = await place.create(1)
    async with place.working():
        (one,) = await place.ended(batch)
    assert error_of(one)["type"] == "timeout_error"


@pytest.mark.slow
async def test_an_answer_that_is_no_json_is_no_result(place: Place) -> None:
    place.vendor.play(reply(b"{oops\n"))
    batch = await place.create(1)
    async with place.working():
        (one,) = await place.ended(batch)
    assert one.outcome == "errored"
    assert error_of(one)["type"] == "api_error"


@pytest.mark.slow
async def test_results_of_what_runs_are_not_there(place: Place) -> None:
    batch = await place.create(1)
    with pytest.raises(BadRequest, match="is in_progress: it has results once it has ended"):
        await place.batches.results(ANN, batch.id)
