"""Upstreams that behave oddly, through the gateway: what is odd but an answer is answered, the rest is one clear error and record."""

import gzip
import zlib
from typing import Any

import pytest

from freehold.core.errors import BrokenOff, FreeholdError, TooLarge, Unavailable
from freehold.core.records import CallRecord
from freehold.gateway.forwarding import Passed
from freehold.providers import _upstream
from freehold.wires import _sse
from tests.gateway._vendors import (
    ANTHROPIC_TOOLS_STREAM,
    CUT,
    HEARD,
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
from tests.gateway.test_faults import MODES, STREAMS, fails, opened
from tests.gateway.test_pairs import KEYS, rows_at

ERRORS = {
    "openai_chat": sse({"error": {"message": "no capacity left", "type": "server_error", "code": 503}}),
    "anthropic_messages": sse(
        {"type": "error", "error": {"type": "overloaded_error", "message": "no capacity left"}}, name=True
    ),
}
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"


async def answers(script: list[Step], mode: str, *, streamed: bool, wire: str = "openai_chat") -> CallRecord:
    async with Vendor(script) as vendor, open_house(rows=rows_at(vendor), environment=KEYS) as house:
        async with opened(house, wire, mode, streamed=streamed) as answer:
            if not isinstance(answer, Passed):
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
    script = [*stream(OPENAI_STREAM[0], OPENAI_STREAM[1], HEARD)[:-1], b"ff\r\ndata: {", CUT]
    error, _, came = await fails(script, mode=mode, streamed=True)
    assert type(error) is BrokenOff
    assert came > 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wire", list(STREAMS))
async def test_an_error_inside_a_stream_ends_the_answer_and_what_came_is_metered(
    wire: str, mode: str
) -> None:
    script = stream(*STREAMS[wire][:2], HEARD, ERRORS[wire])
    _, record, came = await fails(script, wire=wire, mode=mode, streamed=True)
    assert came > 0
    assert record.outcome != "ok"
    assert (record.usage.estimated, record.cost_pico > 0) == (True, True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wire", list(STREAMS))
@pytest.mark.parametrize(
    "garbage", [b"data: {gar bage\n\n", b"\x00\xff" * 50, b"<html>504</html>\n\n"], ids=range(3)
)
async def test_garbage_between_events_is_no_end_of_an_answer(wire: str, mode: str, garbage: bytes) -> None:
    _, record, came = await fails(
        stream(*STREAMS[wire][:2], HEARD, garbage), wire=wire, mode=mode, streamed=True
    )
    assert came > 0
    assert (record.outcome, record.usage.estimated) == ("broken_off", True)


@pytest.mark.parametrize("mode", MODES)
async def test_garbage_between_chunks_breaks_the_answer_off(mode: str) -> None:
    script = [*stream(*OPENAI_STREAM[:2], HEARD)[:-1], b"no chunk at all\r\n"]
    error, record, came = await fails(script, mode=mode, streamed=True)
    assert type(error) is BrokenOff
    assert came > 0
    assert record.outcome == "broken_off"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wire", list(STREAMS))
async def test_a_stream_that_comes_packed_is_unpacked_as_it_comes(wire: str, mode: str) -> None:
    packing = zlib.compressobj(wbits=31)
    pieces = [packing.compress(piece) + packing.flush(zlib.Z_SYNC_FLUSH) for piece in STREAMS[wire]]
    head, *rest = stream(*pieces, packing.flush())
    assert isinstance(head, bytes)
    packed = [head.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n"), *rest]
    record = await answers(packed, mode, streamed=True, wire=wire)
    assert (record.outcome, record.usage.output_tokens, record.usage.estimated) == ("ok", 7, False)


@pytest.mark.parametrize("mode", MODES)
async def test_what_only_says_that_it_is_packed_is_an_error(mode: str) -> None:
    error, record, came = await fails(reply(OPENAI_TEXT, headers="content-encoding: gzip\r\n"), mode=mode)
    assert isinstance(error, (BrokenOff, Unavailable))
    assert came == 0
    assert record.outcome == error.code


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("status", [301, 303, 307, 308])
async def test_no_redirect_is_followed_and_no_key_is_carried_to_where_it_leads(
    mode: str, status: int
) -> None:
    async with Vendor(reply(OPENAI_TEXT)) as elsewhere:
        away = f"location: {elsewhere.url}/v1/chat/completions\r\n"
        error, record, came = await fails(reply(b"", status=status, headers=away), mode=mode)
        assert not elsewhere.asked
    assert type(error) is Unavailable
    assert (record.outcome, record.cost_pico, came) == ("unavailable", 0, 0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["text/plain", "text/html; charset=utf-8", "application/octet-stream", ""])
async def test_a_wrong_content_type_hides_no_answer(mode: str, kind: str) -> None:
    record = await answers(reply(OPENAI_TEXT, kind=kind), mode, streamed=False)
    assert (record.outcome, record.usage.output_tokens) == ("ok", 7)
    streamed = [
        stream(*OPENAI_STREAM)[0].replace(b"text/event-stream", kind.encode()),
        *stream(*OPENAI_STREAM)[1:],
    ]  # type: ignore[attr-defined]
    record = await answers(streamed, mode, streamed=True)
    assert (record.outcome, record.usage.output_tokens) == ("ok", 7)


@pytest.mark.parametrize("mode", MODES)
async def test_a_whole_answer_to_who_asked_for_a_stream_is_told_as_one(mode: str) -> None:
    record = await answers(reply(OPENAI_TEXT), mode, streamed=True)
    assert (record.outcome, record.usage.output_tokens) == ("ok", 7)


@pytest.mark.parametrize("mode", MODES)
async def test_a_stream_to_who_asked_for_a_whole_answer_is_not_its_protocol(mode: str) -> None:
    error, record, came = await fails(stream(*OPENAI_STREAM), mode=mode)
    assert type(error) is Unavailable
    assert "not its protocol (text/event-stream)" in error.message
    assert (record.outcome, came) == ("unavailable", 0)


@pytest.mark.parametrize("mode", MODES)
async def test_an_event_without_end_ends_at_its_limit(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_upstream, "ANSWER_BYTES_MAX", 20_000)
    monkeypatch.setattr(_sse, "EVENT_BYTES_MAX", 10_000)
    script = stream(OPENAI_STREAM[0], OPENAI_STREAM[1], HEARD, b'data: {"id":"', *[b"x" * 1000] * 100)
    error, record, came = await fails(script, mode=mode, streamed=True)
    assert isinstance(error, (TooLarge, BrokenOff))
    assert 0 < came < 100
    assert (record.outcome, record.usage.estimated) == (error.code, True)


@pytest.mark.parametrize("mode", MODES)
async def test_an_endless_stream_ends_at_its_limit(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_upstream, "ANSWER_BYTES_MAX", 20_000)
    piece = sse(openai_chunk({"content": "again "}))
    error, record, came = await fails(stream(piece, HEARD, *[piece] * 400), mode=mode, streamed=True)
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
