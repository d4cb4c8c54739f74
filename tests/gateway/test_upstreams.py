"""Upstreams that behave oddly, through the gateway: what is odd but an answer is answered, the rest is one clear error and record."""

import gzip
from typing import Any

import pytest

from freehold.core.errors import BrokenOff, FreeholdError, TooLarge, Unavailable
from freehold.core.records import CallRecord
from freehold.providers import _upstream
from tests.gateway._vendors import (
    ANTHROPIC_TOOLS_STREAM,
    CUT,
    OPENAI_STREAM,
    OPENAI_TEXT,
    OPENAI_TOOLS_STREAM,
    Step,
    Vendor,
    openai_chunk,
    reply,
    sse,
    stream,
)
from tests.gateway.conftest import open_house
from tests.gateway.test_faults import MODES, fails, opened
from tests.gateway.test_pairs import KEYS, rows_at

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"


async def answers(script: list[Step], mode: str, *, streamed: bool) -> CallRecord:
    async with Vendor(script) as vendor, open_house(rows=rows_at(vendor), environment=KEYS) as house:
        async with opened(house, "openai_chat", mode, streamed=streamed) as answer:
            _ = [one async for one in answer]
        return house.spool.only


@pytest.mark.parametrize("mode", MODES)
async def test_interim_answers_are_passed_over(mode: str) -> None:
    (whole,) = reply(OPENAI_TEXT)
    assert isinstance(whole, bytes)
    record = await answers([INTERIM + whole], mode, streamed=False)
    assert (record.outcome, record.usage.output_tokens) == ("ok", 7)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("script", [[INTERIM * 50, CUT], [b"HTTP/1.1 101 Switching Protocols\r\n\r\n", CUT]])
async def test_interim_answers_and_nothing_else_are_no_answer(script: list[Step], mode: str) -> None:
    error, record, _ = await fails(script, mode=mode)
    assert type(error) is Unavailable
    assert record.outcome == "unavailable"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_that_comes_packed_is_unpacked(mode: str, streamed: bool) -> None:
    packed = reply(gzip.compress(OPENAI_TEXT), headers="content-encoding: gzip\r\n")
    record = await answers(packed, mode, streamed=streamed)
    assert (record.outcome, record.usage.output_tokens) == ("ok", 7)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("wire", "events"), [("openai_chat", OPENAI_TOOLS_STREAM), ("anthropic_messages", ANTHROPIC_TOOLS_STREAM)]
)
async def test_a_tool_call_that_stops_in_the_middle_is_broken_off(
    wire: str, events: list[Any], mode: str
) -> None:
    error, record, came = await fails(stream(*events[:-2]), wire=wire, mode=mode, streamed=True)
    assert type(error) is BrokenOff
    assert came > 0
    assert (record.outcome, record.usage.estimated) == ("broken_off", True)


@pytest.mark.parametrize("mode", MODES)
async def test_half_a_chunk_and_a_cut_is_broken_off(mode: str) -> None:
    script = [*stream(OPENAI_STREAM[0], OPENAI_STREAM[1])[:-1], b"ff\r\ndata: {", CUT]
    error, _, came = await fails(script, mode=mode, streamed=True)
    assert type(error) is BrokenOff
    assert came > 0


@pytest.mark.parametrize("mode", MODES)
async def test_an_endless_stream_ends_at_its_limit(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_upstream, "ANSWER_BYTES_MAX", 20_000)
    piece = sse(openai_chunk({"content": "again "}))
    error, record, came = await fails(stream(*[piece] * 400), mode=mode, streamed=True)
    assert isinstance(error, (TooLarge, BrokenOff))
    assert 0 < came < 400
    assert record.outcome == error.code


@pytest.mark.parametrize("mode", MODES)
async def test_an_endless_whole_answer_ends_at_its_limit(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_upstream, "ANSWER_BYTES_MAX", 20_000)
    error, record, came = await fails(reply(b'{"id":"' + b"x" * 50_000), mode=mode)
    assert isinstance(error, FreeholdError)
    assert came == 0
    assert record.outcome == error.code
