"""A stop, in the middle of things: streams end, answers are finished or told to come again, and nothing is waited for long."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anthropic
import openai
import pytest

from freehold.server import listener
from tests._waiting import eventually, within
from tests.gateway._vendors import HOLD, OPENAI_STREAM, OPENAI_TEXT, reply, stream
from tests.server._raw import Answer, Connection, connected, request
from tests.server._world import ECHO, World, world

LONG_S = 30.0
"""For what is waited for where it should not be."""

CHAT = b'{"model":"openai/gpt-4o","messages":[]}'


@pytest.fixture
async def own(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A server of the test's own, to be stopped."""
    monkeypatch.setattr(listener, "STREAMS_END_S", 0.3)
    async with world(database_url, tmp_path) as opened:
        yield opened


async def stopped_in_s(own: World) -> float:
    started = time.monotonic()
    own.stop.set()
    async with within("the server to stop"):
        await asyncio.wait([own.stopped])
    own.stopped.result()
    return time.monotonic() - started


async def refused(raw: Connection, sent: bytes) -> Answer:
    """Once the stop has reached the door."""
    while True:
        await raw.send(sent)
        answer = await raw.answer()
        if answer.status not in {200, 400}:
            assert answer.status == 503
            return answer


async def test_an_idle_server_stops_at_once_also_with_connections_kept(
    own: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "STREAMS_END_S", LONG_S)
    assert (await own.http.get("/healthz")).status_code == 200
    assert await stopped_in_s(own) < LONG_S


@pytest.mark.slow
async def test_event_streams_end_at_once_and_whole_and_go_on_elsewhere(
    own: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "STREAMS_END_S", LONG_S)
    await own.apply(ECHO)
    session_id = await own.session("echo", "hello")
    log = await own.until_idle(session_id)
    async with own.stream(session_id, after="0") as events:
        seen = [await anext(events) for _ in range(3)]
        took_s = await stopped_in_s(own)
        seen += [event async for event in events]
    assert took_s < LONG_S
    assert [event.cursor for event in seen] == [event["freehold"]["cursor"] for event in log][: len(seen)]


@pytest.mark.slow
async def test_an_answer_that_comes_in_time_is_finished(own: World) -> None:
    asked = own.script("openai", stream(*OPENAI_STREAM[:2], HOLD))
    async with connected(own.url) as raw:
        await raw.send(request("POST", "/v1/chat/completions", key=own.key, body=CHAT))
        await eventually(lambda: asked.asked)
        own.script("openai", reply(OPENAI_TEXT))
        stopping = asyncio.create_task(stopped_in_s(own))
        status, _ = await raw.head()
        assert status == 503, "asked of a vendor that never answers"
        assert await stopping < LONG_S


@pytest.mark.slow
@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
async def test_a_streaming_answer_that_does_not_end_is_broken_off_in_the_clients_dialect(
    own: World, vendor: str
) -> None:
    asked = own.script("openai", stream(*OPENAI_STREAM[:3], HOLD))
    messages: list[dict[str, str]] = [{"role": "user", "content": "Hello"}]

    async def read() -> None:
        if vendor == "openai":
            chunks = await own.openai.chat.completions.create(
                model="openai/gpt-4o",
                messages=messages,
                stream=True,  # type: ignore[arg-type]
            )
            begun.set()
            async for _ in chunks:
                pass
        else:
            events = await own.anthropic.messages.create(
                model="openai/gpt-4o",
                max_tokens=9,
                messages=messages,
                stream=True,  # type: ignore[arg-type]
            )
            begun.set()
            async for _ in events:
                pass

    begun = asyncio.Event()
    reading = asyncio.create_task(read())
    await begun.wait()
    assert await stopped_in_s(own) < LONG_S
    with pytest.raises((openai.APIError, anthropic.APIError), match="the server is stopping"):
        await reading
    async with within("the vendor to be hung up on"):
        await asked.hung_up.wait()


@pytest.mark.slow
async def test_who_comes_while_it_stops_is_told_to_come_again(
    own: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops for as long as somebody listens."""
    monkeypatch.setattr(listener, "STREAMS_END_S", LONG_S)
    own.script("openai", stream(*OPENAI_STREAM[:3], HOLD))
    body = CHAT[:-1] + b',"stream":true}'
    async with connected(own.url) as busy, connected(own.url) as late, connected(own.url) as later:
        await busy.send(request("POST", "/v1/chat/completions", key=own.key, body=body))
        await busy.head()
        await late.send(request("GET", "/healthz"))
        assert (await late.answer()).status == 200
        await later.send(request("GET", "/healthz"))
        assert (await later.answer()).status == 200
        stopping = asyncio.create_task(stopped_in_s(own))
        for raw, sent in (
            (late, request("GET", "/v1/models", key=own.key)),
            (later, request("POST", "/v1/chat/completions", key=own.key, body=b"{}")),
        ):
            answer = await refused(raw, sent)
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["message"] == "the server is stopping: send the request again"
        busy.writer.transport.abort()
        assert await stopping < LONG_S
