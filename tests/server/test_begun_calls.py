"""Calls that are answered without a task, over a provider's idle connection: what goes wrong there ends as it does elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from freehold.server import listener
from freehold.server.exchange import Answer, Exchange
from tests._waiting import PATIENCE_S, eventually, within
from tests.gateway._vendors import (
    ANTHROPIC_TEXT,
    CUT,
    HEARD,
    HOLD,
    OPENAI_STREAM,
    OPENAI_TEXT,
    Vendor,
    anthropic_request,
    openai_request,
    reply,
    stream,
)
from tests.server._raw import Connection, connected, request
from tests.server._world import World, world

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
BODY = openai_request("openai/gpt-4o")
TRANSLATED = anthropic_request("openai/gpt-4o")
STREAMED = openai_request("openai/gpt-4o", stream=True)
LAST_CHUNK = b"0\r\n\r\n"


async def warm(shared: World, *vendors: str) -> None:
    """So that there is an idle connection to each."""
    for vendor, body in (("openai", OPENAI_TEXT), ("anthropic", ANTHROPIC_TEXT)):
        if vendor in vendors:
            shared.script(vendor, reply(body))
            sent = openai_request("openai/gpt-4o" if vendor == "openai" else "anthropic/claude-sonnet-4-5")
            answer = await shared.http.post(CHAT, content=sent)
            assert answer.status_code == 200, answer.text


async def calls(shared: World, outcome: str) -> int:
    """So many are on the bill."""
    bill = await shared.json("GET", "/v1/costs?by=outcome")
    return sum(int(line["calls"]) for line in bill["lines"] if line["group"]["outcome"] == outcome)


@pytest.mark.parametrize(("path", "body"), [(CHAT, BODY), (MESSAGES, TRANSLATED)])
async def test_a_second_call_takes_no_task(
    shared: World, path: str, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    await warm(shared, "openai")
    async with connected(shared.url) as raw:
        await raw.send(request("POST", path, key=shared.key, body=body))  # So that the name is known.
        assert (await raw.answer()).status == 200
    started: list[object] = []
    start = Exchange.start

    def noted(exchange: Exchange, answer: Answer) -> None:
        started.append(answer)
        start(exchange, answer)

    monkeypatch.setattr(Exchange, "start", noted)
    shared.script("openai", reply(OPENAI_TEXT))
    async with connected(shared.url) as raw:
        await raw.send(request("POST", path, key=shared.key, body=body))
        assert (await raw.answer()).status == 200
    assert not started


@pytest.mark.parametrize(("path", "body"), [(CHAT, BODY), (MESSAGES, TRANSLATED)])
async def test_a_connection_that_was_closed_meanwhile_is_tried_again_on_a_fresh_one(
    shared: World, path: str, body: bytes
) -> None:
    await warm(shared, "openai")
    asked = shared.script("openai", [CUT], reply(OPENAI_TEXT))
    async with connected(shared.url) as raw:
        await raw.send(request("POST", path, key=shared.key, body=body))
        answer = await raw.answer()
    assert answer.status == 200
    assert len(asked.asked) == 2


@pytest.mark.parametrize(("path", "body"), [(CHAT, BODY), (MESSAGES, TRANSLATED), (CHAT, STREAMED)])
async def test_what_the_provider_refuses_is_told_in_the_clients_words(
    shared: World, path: str, body: bytes
) -> None:
    await warm(shared, "openai")
    said = b'{"error":{"message":"too fast","type":"rate_limit","code":null,"param":null}}'
    shared.script("openai", reply(said, status=429, headers="retry-after: 7\r\n"))
    async with connected(shared.url) as raw:
        await raw.send(request("POST", path, key=shared.key, body=body))
        answer = await raw.answer()
    assert answer.status == 429
    assert "takes no more calls" in answer.json()["error"]["message"]
    assert answer.headers["retry-after"] == "7"


async def test_a_stream_takes_a_task_only_from_its_first_piece_on(
    shared: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await warm(shared, "openai")
    started: list[object] = []
    start = Exchange.start

    def noted(exchange: Exchange, answer: Answer) -> None:
        started.append(answer)
        start(exchange, answer)

    monkeypatch.setattr(Exchange, "start", noted)
    asked = shared.script("openai", [HEARD, *stream(*OPENAI_STREAM)])
    async with connected(shared.url) as raw:
        await raw.send(request("POST", CHAT, key=shared.key, body=STREAMED))
        await eventually(lambda: bool(asked.asked))
        assert not started
        asked.heard.set()
        told = await streamed(raw)
    assert len(started) == 1
    assert b"Hello" in told
    assert b"[DONE]" in told


@pytest.mark.parametrize("together", [True, False])
async def test_a_stream_passes_however_its_beginning_comes(shared: World, together: bool) -> None:
    await warm(shared, "openai")
    pieces = stream(*OPENAI_STREAM)
    asked = shared.script("openai", [b"".join(pieces)] if together else [pieces[0], HEARD, *pieces[1:]])  # type: ignore[arg-type]
    async with connected(shared.url) as raw:
        await raw.send(request("POST", CHAT, key=shared.key, body=STREAMED))
        await eventually(lambda: bool(asked.asked))
        asked.heard.set()
        told = await streamed(raw)
    assert b" there" in told
    assert b"[DONE]" in told


async def test_a_stream_over_a_connection_that_was_closed_meanwhile_is_asked_for_again(shared: World) -> None:
    await warm(shared, "openai")
    asked = shared.script("openai", [CUT], stream(*OPENAI_STREAM))
    async with connected(shared.url) as raw:
        await raw.send(request("POST", CHAT, key=shared.key, body=STREAMED))
        told = await streamed(raw)
    assert b"[DONE]" in told
    assert len(asked.asked) == 2


async def test_a_whole_answer_to_who_wants_a_stream_is_told_as_one(shared: World) -> None:
    await warm(shared, "openai")
    shared.script("openai", reply(OPENAI_TEXT))
    async with connected(shared.url) as raw:
        await raw.send(request("POST", CHAT, key=shared.key, body=STREAMED))
        told = await streamed(raw)
    assert b"[DONE]" in told


async def test_an_error_in_place_of_a_streams_first_event_is_told_as_a_refusal(shared: World) -> None:
    await warm(shared, "openai")
    said = b'data: {"error":{"message":"too busy","type":"server_error","code":null,"param":null}}\n\n'
    shared.script("openai", stream(said, HOLD))
    async with connected(shared.url) as raw:
        await raw.send(request("POST", CHAT, key=shared.key, body=STREAMED))
        answer = await raw.answer()
    assert answer.status >= 500
    assert "openai" in answer.json()["error"]["message"]


async def test_a_client_that_is_gone_when_its_stream_begins_leaves_a_record(
    shared: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task never comes to answer."""
    await warm(shared, "openai")
    start = Exchange.start

    def lost(exchange: Exchange, answer: Answer) -> None:
        exchange._protocol.transport.abort()
        start(exchange, answer)

    monkeypatch.setattr(Exchange, "start", lost)
    asked = shared.script("openai", [HEARD, *stream(*OPENAI_STREAM[:1], HOLD)])
    before = await calls(shared, "client_gone")
    async with connected(shared.url) as raw:
        await raw.send(request("POST", CHAT, key=shared.key, body=STREAMED))
        await eventually(lambda: bool(asked.asked))
        asked.heard.set()
        async with within("the vendor to be hung up on"):
            await asked.hung_up.wait()
    monkeypatch.undo()

    async def recorded() -> bool:
        return await calls(shared, "client_gone") == before + 1

    await eventually(recorded)


async def streamed(raw: Connection) -> bytes:
    """The body of a stream, as it came."""
    status, headers = await raw.head()
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    async with within("the end of a stream"):
        return await raw.reader.readuntil(LAST_CHUNK)


async def test_a_long_answer_passes_whole(shared: World) -> None:
    """Over what a connection holds for its reader."""
    await warm(shared, "openai")
    long = OPENAI_TEXT.replace(b'"content":"', b'"content":"' + b"y" * 1_000_000, 1)
    assert len(long) > 1_000_000
    shared.script("openai", reply(long))
    async with connected(shared.url) as raw:
        await raw.send(request("POST", CHAT, key=shared.key, body=BODY))
        answer = await raw.answer()
    assert answer.status == 200
    assert answer.body == long


@pytest.mark.parametrize("said", [b"", b"<html>", b'{"id":"x"'])
async def test_an_answer_that_is_none_or_breaks_off_is_told(shared: World, said: bytes) -> None:
    await warm(shared, "openai")
    script = reply(said) if said != b'{"id":"x"' else [reply(said + b" " * 20)[0][:-20], CUT]  # type: ignore[index]
    shared.script("openai", script)
    async with connected(shared.url) as raw:
        await raw.send(request("POST", CHAT, key=shared.key, body=BODY))
        answer = await raw.answer()
    assert answer.status in {502, 503}
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(("path", "body"), [(CHAT, BODY), (MESSAGES, TRANSLATED), (CHAT, STREAMED)])
async def test_a_client_that_hangs_up_hangs_up_the_provider_and_leaves_a_record(
    shared: World, path: str, body: bytes
) -> None:
    await warm(shared, "openai")
    asked = shared.script("openai", [HOLD])
    before = await calls(shared, "client_gone")
    async with connected(shared.url) as raw:
        await raw.send(request("POST", path, key=shared.key, body=body))
        await eventually(lambda: bool(asked.asked))
    async with within("the vendor to be hung up on"):
        await asked.hung_up.wait()

    async def recorded() -> bool:
        return await calls(shared, "client_gone") == before + 1

    await eventually(recorded)


async def test_what_was_said_is_counted_of_a_translated_call_that_was_hung_up_on(shared: World) -> None:
    """Its messages were let go when they were told."""
    words = 1_000
    said = [{"role": "user", "content": "word " * words}]
    shared.script("openai", reply(OPENAI_TEXT))
    async with connected(shared.url) as raw:
        await raw.send(
            request("POST", MESSAGES, key=shared.key, body=TRANSLATED)
        )  # So that the name is known.
        assert (await raw.answer()).status == 200
    asked = shared.script("openai", [HOLD])

    async def read() -> int:
        bill = await shared.json("GET", "/v1/costs?by=outcome")
        lines = [line for line in bill["lines"] if line["group"]["outcome"] == "client_gone"]
        return sum(int(line["input_tokens"]) for line in lines)

    before = await read()
    async with connected(shared.url) as raw:
        body = anthropic_request("openai/gpt-4o", messages=said)
        await raw.send(request("POST", MESSAGES, key=shared.key, body=body))
        await eventually(lambda: bool(asked.asked))

    async def counted() -> bool:
        return await read() - before > words / 2

    await eventually(counted)


async def test_requests_of_a_pipeline_are_answered_in_their_order(shared: World) -> None:
    await warm(shared, "openai")
    answers = [OPENAI_TEXT.replace(b"gpt-4o", b"model-%d" % number) for number in range(3)]
    shared.script("openai", *map(reply, answers))
    async with connected(shared.url) as raw:
        await raw.send(b"".join([request("POST", CHAT, key=shared.key, body=BODY)] * 3))
        got = [(await raw.answer()).body for _ in answers]
    assert got == answers


@pytest.fixture
async def own(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A server of the test's own, to be stopped."""
    monkeypatch.setattr(listener, "STREAMS_END_S", 0.3)
    async with world(database_url, tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("in_time", [True, False])
async def test_a_stop_waits_for_it_as_for_any(
    own: World, in_time: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_time:
        monkeypatch.setattr(listener, "STREAMS_END_S", PATIENCE_S)
    await warm(own, "openai")
    asked: Vendor = own.script("openai", [HEARD, *reply(OPENAI_TEXT)])
    async with connected(own.url) as raw:
        await raw.send(request("POST", CHAT, key=own.key, body=BODY))
        await eventually(lambda: bool(asked.asked))
        own.stop.set()
        if in_time:
            asked.heard.set()
        answer = await raw.answer()
        async with within("the server to stop"):
            await asyncio.wait([own.stopped])
    assert answer.status == (200 if in_time else 503)


@pytest.mark.parametrize("in_time", [True, False])
@pytest.mark.parametrize("begun", [True, False])
async def test_a_stop_waits_for_a_stream_as_for_any(
    own: World, begun: bool, in_time: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_time:
        monkeypatch.setattr(listener, "STREAMS_END_S", PATIENCE_S)
    await warm(own, "openai")
    head, first, *rest = stream(*OPENAI_STREAM)
    asked: Vendor = own.script("openai", [*([head, first, HEARD] if begun else [HEARD, head, first]), *rest])
    async with connected(own.url) as raw:
        await raw.send(request("POST", CHAT, key=own.key, body=STREAMED))
        await eventually(lambda: bool(asked.asked))
        status = (await raw.head())[0] if begun else 0
        own.stop.set()
        if in_time:
            asked.heard.set()
        if not begun:
            status = (await raw.head())[0]
        told = await raw.closed()
        async with within("the server to stop"):
            await asyncio.wait([own.stopped])
    assert status == (200 if begun or in_time else 503)
    assert (b"[DONE]" in told) == in_time
    assert (b"the server is stopping" in told) == (not in_time)
