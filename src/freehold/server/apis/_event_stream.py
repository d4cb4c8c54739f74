"""A session's events as server-sent events. https://html.spec.whatwg.org/multipage/server-sent-events.html

Each event's `id` is its cursor, so that `Last-Event-ID` goes on behind it; previews of an answer have no id, for they are
never replayed. While nothing happens, a comment goes out every KEEPALIVE_S, so that proxies keep the connection.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import msgspec
from starlette.responses import Response

from freehold.core.errors import FreeholdError
from freehold.core.policy import Principal
from freehold.core.session import Recorded
from freehold.runtime.live import (
    LiveEvent,
    LiveGap,
    LiveModelStarted,
    LiveReasoning,
    LiveText,
    LiveToolArguments,
    LiveToolCall,
)
from freehold.runtime.sessions import Sessions
from freehold.server.apis._events import answer_event_id, shown

KEEPALIVE_S: Final = 15.0
_ENCODER: Final = msgspec.json.Encoder()


Reshape = Callable[[dict[str, Any]], dict[str, Any]]
"""An event as another endpoint tells it."""


def _as_they_are(body: dict[str, Any]) -> dict[str, Any]:
    return body


class EventStreamResponse(Response):
    """Until the client hangs up or the server stops; then the stream ends as if it were whole, and the client comes back."""

    def __init__(
        self, events: AbstractAsyncContextManager[AsyncIterator[bytes]], leaving: asyncio.Event
    ) -> None:
        # Not to be buffered or changed on its way.
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self.headers["content-type"] = "text/event-stream; charset=utf-8"
        self._events = events
        self._leaving = leaving

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            sending = asyncio.create_task(self._send_all(send), name="events:send")
            ends = [asyncio.create_task(one) for one in (_hung_up(receive), self._leaving.wait())]
            try:
                await asyncio.wait([sending, *ends], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sending, *ends):
                    task.cancel()
                await asyncio.wait([sending, *ends])
            if not sending.cancelled() and (error := sending.exception()):
                raise error
        await send({"type": "http.response.body", "body": b""})

    async def _send_all(self, send: Any) -> None:
        async with self._events as chunks:
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _hung_up(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@asynccontextmanager
async def event_stream(
    sessions: Sessions,
    principal: Principal,
    session_id: str,
    *,
    cursor: tuple[int, int],
    previews: frozenset[str],
    ours: bool,
    reshaped: Reshape = _as_they_are,
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Events behind `cursor` (seq, part), without end. A fact whose later parts the client hasn't seen is read again."""
    async with sessions.stream(principal, session_id, after=max(0, cursor[0] - 1)) as items:
        queue: asyncio.Queue[Recorded | LiveEvent | FreeholdError] = asyncio.Queue(1)
        reading = asyncio.create_task(_read(items, queue), name=f"events:{session_id}")
        try:
            previewing = _Previews(session_id, previews)
            yield _encoded(queue, session_id, cursor, previewing, ours=ours, reshaped=reshaped)
        finally:
            reading.cancel()
            await asyncio.wait([reading])


async def _read(
    items: AsyncIterator[Recorded | LiveEvent],
    queue: "asyncio.Queue[Recorded | LiveEvent | FreeholdError]",
) -> None:
    try:
        async for item in items:
            await queue.put(item)
    except FreeholdError as error:
        await queue.put(error)


async def _encoded(
    queue: "asyncio.Queue[Recorded | LiveEvent | FreeholdError]",
    session_id: str,
    cursor: tuple[int, int],
    previewing: "_Previews",
    *,
    ours: bool,
    reshaped: Reshape,
) -> AsyncIterator[bytes]:
    yield b": connected\n\n"
    while True:
        try:
            async with asyncio.timeout(KEEPALIVE_S):
                item = await queue.get()
        except TimeoutError:
            yield b": waiting\n\n"
            continue
        if isinstance(item, FreeholdError):
            yield _sse("error", {"type": "error", "error": {"type": item.code, "message": item.message}})
            return
        if not isinstance(item, Recorded):
            for body in previewing.of(item):
                yield _sse(body["type"], body)
            continue
        for index, one in enumerate(shown(session_id, item, ours=True)):
            seen = (item.seq, index) <= cursor
            if not seen and (ours or not one.type.startswith("freehold.")):
                body = reshaped(one.body)
                yield _sse(body["type"], body, one.cursor)


class _Previews:
    """Live deltas as `event_start` and `event_delta`, for the kinds that the client asked for."""

    def __init__(self, session_id: str, wanted: frozenset[str]) -> None:
        self._session_id = session_id
        self._wanted = wanted
        self._open: str | None = None

    def of(self, event: LiveEvent) -> list[dict[str, Any]]:
        if "agent.message" not in self._wanted:
            return []
        event_id = answer_event_id(self._session_id, event.seen_seq)
        match event:
            case LiveModelStarted():
                again = self._open == event_id
                self._open = None
                return self._start(event_id) if again else []
            case LiveText():
                delta = {"type": "content_delta", "index": 0, "content": {"type": "text", "text": event.text}}
                start = [] if self._open == event_id else self._start(event_id)
                return [*start, {"type": "event_delta", "event_id": event_id, "delta": delta}]
            case LiveReasoning() | LiveToolCall() | LiveToolArguments() | LiveGap():
                return []

    def _start(self, event_id: str) -> list[dict[str, Any]]:
        self._open = event_id
        return [{"type": "event_start", "event": {"type": "agent.message", "id": event_id}}]


def _sse(kind: str, body: dict[str, Any], cursor: str | None = None) -> bytes:
    head = f"id: {cursor}\n" if cursor else ""
    return f"{head}event: {kind}\ndata: ".encode() + _ENCODER.encode(body) + b"\n\n"
