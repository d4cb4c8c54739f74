"""A session's events as server-sent events. https://html.spec.whatwg.org/multipage/server-sent-events.html

Each event's `id` is its cursor, so that `Last-Event-ID` goes on behind it; previews of an answer have no id, for they are
never replayed. While nothing happens, a comment goes out every KEEPALIVE_S, so that proxies keep the connection.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from starlette.responses import StreamingResponse

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


class EventStreamResponse(StreamingResponse):
    """Not to be buffered or changed on its way."""

    def __init__(self, items: AsyncIterator[bytes]) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(items, media_type="text/event-stream", headers=headers)


async def event_stream(
    sessions: Sessions,
    principal: Principal,
    session_id: str,
    *,
    cursor: tuple[int, int],
    previews: frozenset[str],
    ours: bool,
) -> AsyncIterator[bytes]:
    """Events behind `cursor` (seq, part), without end. A fact whose later parts the client hasn't seen is read again."""
    seq, part = cursor
    previewing = _Previews(session_id, previews)
    queue: asyncio.Queue[Recorded | LiveEvent | FreeholdError] = asyncio.Queue(1)
    reading = asyncio.create_task(
        _read(sessions, principal, session_id, max(0, seq - 1), queue), name=f"events:{session_id}"
    )
    try:
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
                seen = (item.seq, index) <= (seq, part)
                if not seen and (ours or not one.type.startswith("freehold.")):
                    yield _sse(one.type, one.body, one.cursor)
    finally:
        reading.cancel()
        await asyncio.wait([reading])


async def _read(
    sessions: Sessions,
    principal: Principal,
    session_id: str,
    after: int,
    queue: "asyncio.Queue[Recorded | LiveEvent | FreeholdError]",
) -> None:
    try:
        async with sessions.stream(principal, session_id, after=after) as items:
            async for item in items:
                await queue.put(item)
    except FreeholdError as error:
        await queue.put(error)


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
