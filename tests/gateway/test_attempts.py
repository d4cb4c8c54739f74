"""The course of one call: targets in turn until one answers, and one settlement however it ends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from freehold.clock import SystemClock
from freehold.core.errors import BadRequest, BrokenOff, Overloaded
from freehold.gateway.attempts import Call, Plan
from freehold.gateway.forwarding import Bytes
from freehold.gateway.metering import Meter, meter_of
from freehold.gateway.passing import Envelope
from tests.gateway._vendors import (
    CUT,
    OPENAI_STREAM,
    OPENAI_TEXT,
    Step,
    Vendor,
    openai_request,
    reply,
    stream,
)
from tests.gateway.conftest import ANN, WIRES, Spool, open_house
from tests.gateway.test_pairs import KEYS, rows_at

BUSY = reply(b'{"error":{"message":"busy"}}', status=503)
WRONG = reply(b'{"error":{"message":"no such field"}}', status=400)


class Course:
    """A call that may ask two models, and what became of it."""

    def __init__(self, vendor: Vendor, call: "Call[object]", spool: Spool, settled: list[str]) -> None:
        self.vendor, self.call, self.spool, self.settled = vendor, call, spool, settled

    @property
    def asked(self) -> list[str]:
        return [one.json["model"] for one in self.vendor.asked]


@asynccontextmanager
async def course(*scripts: list[Step], streamed: bool = False) -> AsyncIterator[Course]:
    settled: list[str] = []
    async with Vendor(*scripts) as vendor, open_house(rows=rows_at(vendor), environment=KEYS) as house:
        wire = WIRES["openai_chat"]
        targets = [await house.models.resolve("acme", f"openai/{name}") for name in ("gpt-4o", "gpt-4.1")]

        async def plan(_meter: Meter, _asked: object) -> Plan:
            return Plan(tuple(targets))

        def settle(meter: Meter, _asked: object, _answer: object, error: BaseException | None) -> None:
            assert meter.target is not None
            settled.append(f"{meter.target.name} {type(error).__name__ if error else 'ok'}")

        envelope = Envelope(openai_request("either", stream=streamed))
        meter = meter_of(SystemClock(), house.spool, ANN, wire=wire.name, requested="either")  # type: ignore[arg-type]
        call = Call(Bytes(envelope, wire, {}), meter, plan, settle)  # type: ignore[arg-type]
        yield Course(vendor, call, house.spool, settled)  # type: ignore[arg-type]


async def test_the_next_target_is_asked_where_the_first_is_busy() -> None:
    async with course(BUSY, reply(OPENAI_TEXT)) as it:
        async with it.call as answer:
            assert await answer.read() == OPENAI_TEXT  # type: ignore[attr-defined]
        assert it.asked == ["gpt-4o", "gpt-4.1"]
        assert it.settled == ["gpt-4.1 ok"]


async def test_the_last_targets_refusal_is_the_calls() -> None:
    async with course(BUSY, BUSY) as it:
        with pytest.raises(Overloaded):
            await it.call.__aenter__()
        assert it.settled == ["gpt-4.1 Overloaded"]


async def test_what_is_wrong_with_the_request_itself_is_not_tried_again() -> None:
    async with course(WRONG, reply(OPENAI_TEXT)) as it:
        with pytest.raises(BadRequest):
            await it.call.__aenter__()
        assert it.asked == ["gpt-4o"]
        assert it.settled == ["gpt-4o BadRequest"]


async def test_after_the_first_event_nobody_else_is_asked() -> None:
    async with course(stream(OPENAI_STREAM[0], CUT), reply(OPENAI_TEXT), streamed=True) as it:
        with pytest.raises(BrokenOff):
            async with it.call as answer:
                _ = [chunk async for chunk in answer.chunks()]  # type: ignore[attr-defined]
        assert it.asked == ["gpt-4o"]
        assert it.settled == ["gpt-4o BrokenOff"]
