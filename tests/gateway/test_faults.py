"""Providers that fail and clients that leave: every outcome is an error that says what to do, and exactly one record."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import pytest
from msgspec import structs

from freehold.catalog import catalog
from freehold.core.errors import (
    BrokenOff,
    Forbidden,
    FreeholdError,
    NotFound,
    Overloaded,
    RateLimited,
    TimedOut,
    Unavailable,
)
from freehold.core.messages import Usage
from freehold.core.policy import Policy, Principal, Statement
from freehold.core.records import CallRecord
from freehold.gateway.forwarding import Passed
from freehold.gateway.passing import Envelope
from freehold.providers import _upstream
from freehold.providers._http import Timeouts
from tests._waiting import eventually, within
from tests.gateway._vendors import (
    ANTHROPIC_STREAM,
    CUT,
    HOLD,
    OPENAI_STREAM,
    OPENAI_TEXT,
    Step,
    Vendor,
    openai_request,
    reply,
    sse,
    stream,
)
from tests.gateway.conftest import ANN, WIRES, House, open_house
from tests.gateway.test_pairs import KEYS, MODELS, REQUESTS, rows_at

HTML = b"<html><h1>Bad Gateway</h1>sk-openai</html>"
OPENAI_429 = (
    b'{"error":{"message":"slow down","type":"rate_limit","param":null,"code":"rate_limit_exceeded"}}'
)
ANTHROPIC_529 = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
STREAMS = {"openai_chat": OPENAI_STREAM, "anthropic_messages": ANTHROPIC_STREAM}
MODES = ["call", "forward"]
TOKENS_MAX = 100


def opened(
    house: House, wire: str, mode: str, *, streamed: bool, principal: Principal = ANN
) -> AbstractAsyncContextManager[Any]:
    body = REQUESTS[wire](MODELS[wire], stream=streamed, max_tokens=TOKENS_MAX)
    if mode == "forward":
        return house.gateway.forward(principal, Envelope(body), wire=WIRES[wire])
    return house.gateway.call(principal, WIRES[wire].decode_request(body), wire=wire)


async def fails(
    script: Sequence[Step],
    *,
    wire: str = "openai_chat",
    mode: str = "call",
    streamed: bool = False,
    timeouts: Timeouts | None = None,
) -> tuple[FreeholdError, CallRecord, int]:
    """The error, the record, and how many pieces of the answer came before it."""
    came = 0
    async with Vendor(script) as vendor:
        given = {"timeouts": timeouts} if timeouts else {}
        async with open_house(rows=rows_at(vendor), environment=KEYS, **given) as house:
            with pytest.raises(FreeholdError) as error:  # noqa: PT012 - it may come at any of these
                async with opened(house, wire, mode, streamed=streamed) as answer:
                    async for _ in answer:
                        came += 1
                        vendor.heard.set()
            assert len(vendor.asked) <= 1, "a provider never retries by itself"
            return error.value, house.spool.only, came


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("wire", "script", "kind", "says"),
    [
        ("openai_chat", reply(OPENAI_429, status=429, headers="retry-after: 7\r\n"), RateLimited, "no more calls"),
        ("openai_chat", reply(HTML, status=429, kind="text/html", headers="retry-after: 7\r\n"), RateLimited, "429"),
        ("openai_chat", reply(HTML, status=500, kind="text/html"), Unavailable, "500"),
        ("openai_chat", reply(HTML, status=502, kind="text/html"), Unavailable, "502"),
        ("openai_chat", reply(b"", status=503), Overloaded, "503"),
        ("openai_chat", reply(HTML, status=504, kind="text/html"), TimedOut, "504"),
        ("openai_chat", reply(b"", status=302, headers="location: /x\r\n"), Unavailable, "redirects"),
        ("openai_chat", reply(HTML, status=404, kind="text/html"), NotFound, "no such model"),
        ("openai_chat", reply(HTML, status=401, kind="text/html"), Forbidden, "OPENAI_API_KEY"),
        ("openai_chat", reply(b'{"error":{"message":"no","code":"invalid_api_key"}}', status=401), Forbidden, "OPENAI_API_KEY"),
        ("anthropic_messages", reply(ANTHROPIC_529, status=529), Overloaded, "overloaded"),
        ("anthropic_messages", reply(HTML, status=529, kind="text/html"), Overloaded, "529"),
        ("openai_chat", reply(HTML, kind="text/html"), Unavailable, "not its protocol (text/html)"),
        ("openai_chat", reply(b""), Unavailable, "empty body"),
        ("openai_chat", reply(b"garbage"), Unavailable, "not its protocol"),
        ("openai_chat", reply(b'{"error":{"message":"no capacity","code":429}}'), RateLimited, "no more calls"),
        ("openai_chat", reply(b"\n" * 100_000, kind="text/event-stream"), Unavailable, "answered 200 with"),
        ("openai_chat", [CUT], Unavailable, ""),
        ("openai_chat", [b"nonsense\r\n\r\n", CUT], Unavailable, ""),
        ("openai_chat", [b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n" + OPENAI_TEXT[:100], CUT], BrokenOff, ""),
    ],
)  # fmt: skip
async def test_what_a_provider_refuses_or_garbles_is_an_error_before_any_event(
    wire: str, script: list[Step], kind: type[FreeholdError], says: str, mode: str, streamed: bool
) -> None:
    error, record, came = await fails(script, wire=wire, mode=mode, streamed=streamed)
    assert type(error) is kind
    assert says in error.message
    assert came == 0
    assert record.outcome == kind.code
    assert record.cost_pico == 0 or record.usage.estimated
    assert "sk-openai" not in error.message
    assert HTML.decode() not in error.message
    if kind is RateLimited and "retry-after" in str(script):
        assert error.retry_after_s == 7


@pytest.mark.parametrize("mode", MODES)
async def test_an_error_as_the_first_event_of_a_stream_comes_before_the_answer(mode: str) -> None:
    said = sse({"error": {"message": "overloaded", "type": "server_error", "code": 503}})
    error, record, came = await fails(stream(said), mode=mode, streamed=True)
    assert came == 0
    assert "overloaded" in error.message
    assert record.outcome == error.code


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wire", list(STREAMS))
@pytest.mark.parametrize("end", [[CUT], []])
async def test_a_stream_that_ends_in_the_middle_is_broken_off_and_metered_by_estimate(
    wire: str, mode: str, end: list[Step]
) -> None:
    error, record, came = await fails(stream(*STREAMS[wire][:2], *end), wire=wire, mode=mode, streamed=True)
    assert type(error) is BrokenOff
    assert came > 0
    assert record.outcome == "broken_off"
    assert record.usage.estimated
    assert record.usage.input_tokens > 0
    assert record.usage.output_tokens > 0
    assert record.cost_pico > 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wire", list(STREAMS))
async def test_of_what_is_broken_off_no_estimate_passes_what_the_request_allows(wire: str, mode: str) -> None:
    """What was taken from budgets beforehand is all that may be settled: a talkative upstream cannot overshoot one."""
    opening, word = STREAMS[wire][0], STREAMS[wire][1]
    error, record, _ = await fails(stream(opening, *[word] * 300, CUT), wire=wire, mode=mode, streamed=True)
    assert type(error) is BrokenOff
    assert (record.usage.estimated, record.usage.output_tokens) == (True, TOKENS_MAX)


async def test_garbage_in_the_middle_breaks_the_answer_off() -> None:
    error, record, _ = await fails(
        stream(OPENAI_STREAM[0], OPENAI_STREAM[1], b"data: {gar bage\n\n"), streamed=True
    )
    assert type(error) is BrokenOff
    assert record.outcome == "broken_off"
    assert record.usage.estimated


@pytest.mark.parametrize("mode", MODES)
async def test_a_provider_that_does_not_begin_in_time_is_timed_out(mode: str) -> None:
    error, record, _ = await fails([HOLD], mode=mode, streamed=True, timeouts=Timeouts(first_byte_s=0.05))
    assert type(error) is TimedOut
    assert record.outcome == "timed_out"
    assert record.first_event_ms is None
    assert record.usage.estimated


@pytest.mark.parametrize("mode", MODES)
async def test_a_provider_that_falls_silent_is_timed_out(mode: str) -> None:
    error, record, came = await fails(
        stream(OPENAI_STREAM[0], OPENAI_STREAM[1], HOLD),
        mode=mode,
        streamed=True,
        timeouts=Timeouts(idle_s=0.05),
    )
    assert type(error) is TimedOut
    assert came > 0
    assert record.outcome == "timed_out"


@pytest.mark.parametrize("mode", MODES)
async def test_nobody_at_the_address_is_unavailable(mode: str) -> None:
    row = structs.replace(catalog.providers()["openai"], base_url="http://127.0.0.1:1/v1")
    async with open_house(rows={"openai": row}, environment=KEYS) as house:
        with pytest.raises(Unavailable):
            async with opened(house, "openai_chat", mode, streamed=False):
                pass
        assert house.spool.only.outcome == "unavailable"
        assert house.spool.only.cost_pico == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wire", list(STREAMS))
async def test_a_client_that_leaves_in_the_middle_hangs_up_on_the_provider(mode: str, wire: str) -> None:
    async with (
        Vendor(stream(*STREAMS[wire][:2], HOLD)) as vendor,
        open_house(rows=rows_at(vendor), environment=KEYS) as house,
    ):
        async with opened(house, wire, mode, streamed=True) as answer:
            async for _ in answer:
                break
        async with within("the vendor to be hung up on"):
            await vendor.hung_up.wait()
        record = house.spool.only
    assert record.outcome == "client_gone"
    assert record.usage.estimated
    assert record.usage.input_tokens > 0


@pytest.mark.parametrize("mode", MODES)
async def test_a_client_that_is_cancelled_while_the_model_thinks_hangs_up_too(mode: str) -> None:
    async with Vendor([HOLD]) as vendor, open_house(rows=rows_at(vendor), environment=KEYS) as house:

        async def ask() -> None:
            async with opened(house, "openai_chat", mode, streamed=True):
                pass

        task = asyncio.create_task(ask())
        await eventually(lambda: vendor.asked)
        task.cancel()
        async with within("the vendor to be hung up on"):
            await vendor.hung_up.wait()
        with pytest.raises(asyncio.CancelledError):
            await task
        record = house.spool.only
    assert record.outcome == "client_gone"
    assert record.usage.estimated


@pytest.mark.parametrize("mode", MODES)
async def test_a_client_that_leaves_after_the_last_event_was_answered(mode: str) -> None:
    async with (
        Vendor(reply(OPENAI_TEXT)) as vendor,
        open_house(rows=rows_at(vendor), environment=KEYS) as house,
    ):
        with pytest.raises(ConnectionResetError):  # noqa: PT012 - raised while the context is open
            async with opened(house, "openai_chat", mode, streamed=False) as answer:
                if not isinstance(answer, Passed):
                    async for _ in answer:
                        pass
                raise ConnectionResetError
        assert house.spool.only.outcome == "ok"
        assert house.spool.only.usage.output_tokens == 7


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wire", list(STREAMS))
@pytest.mark.parametrize("end", [CUT, HOLD])
async def test_how_a_connection_ends_after_a_finished_answer_does_not_matter(
    mode: str, wire: str, end: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_upstream, "RUN_OUT_S", 0.05)
    async with (
        Vendor(stream(*STREAMS[wire], end)) as vendor,
        open_house(rows=rows_at(vendor), environment=KEYS) as house,
    ):
        async with opened(house, wire, mode, streamed=True) as answer:
            async for _ in answer:
                if mode == "forward" and end is HOLD and answer.finished and answer.usage:
                    break  # As clients do, at the last event.
        record = house.spool.only
    assert record.outcome == "ok"
    assert record.usage == Usage(input_tokens=120, output_tokens=7, cache_read_tokens=100)


@pytest.mark.parametrize("mode", MODES)
async def test_who_may_not_is_refused_before_the_provider_hears_of_it(mode: str) -> None:
    only = Policy(statement=(Statement("Allow", "model:Call", "model/anthropic/*"),))
    bob = Principal("acme", "service", "key_bob", (only,))
    async with (
        Vendor(reply(OPENAI_TEXT)) as vendor,
        open_house(rows=rows_at(vendor), environment=KEYS) as house,
    ):
        with pytest.raises(Forbidden, match="model/openai/gpt-4o"):
            async with opened(house, "openai_chat", mode, streamed=False, principal=bob):
                pass
        assert not vendor.asked
        record = house.spool.only
    assert (record.outcome, record.principal, record.cost_pico) == ("forbidden", "key_bob", 0)


async def test_an_unknown_model_leaves_a_record_too() -> None:
    async with open_house(environment=KEYS) as house:
        with pytest.raises(NotFound):
            async with house.gateway.forward(
                ANN, Envelope(openai_request("openia/gpt")), wire=WIRES["openai_chat"]
            ):
                pass
        record = house.spool.only
    assert (record.outcome, record.model_requested, record.provider) == ("not_found", "openia/gpt", "")


async def test_an_answer_without_usage_is_estimated_and_a_model_without_price_says_so() -> None:
    bare = msgspec.json.decode(OPENAI_TEXT)
    del bare["usage"]
    async with (
        Vendor(reply(msgspec.json.encode(bare))) as vendor,
        open_house(rows=rows_at(vendor), environment=KEYS) as house,
    ):
        body = openai_request("openai/model-of-tomorrow")
        async with house.gateway.forward(ANN, Envelope(body), wire=WIRES["openai_chat"]):
            pass
        record = house.spool.only
    assert record.usage.estimated
    assert record.usage.output_tokens > 0
    assert not record.priced
    assert record.cost_pico == 0
