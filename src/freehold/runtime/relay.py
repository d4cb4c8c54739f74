"""Runtime: live deltas from the process that carries a session forward to those in which somebody watches it.

Deltas are no facts: whatever is lost here, the fact that follows has the whole. A process says which sessions are watched in it
(`f`), now and again; who carries such a session says its deltas (`d`) to all, gathered for FLUSH_S, so that a stream costs some
twenty messages a second however many tokens it has. A session that nobody watches elsewhere costs one look into a dict.
Within one process none of this is needed (live.py).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from msgspec import structs

from freehold.background import background
from freehold.core import ids
from freehold.core.errors import FreeholdError
from freehold.core.ports import Clock, LiveChannel
from freehold.runtime.live import (
    Live,
    LiveEvent,
    LiveGap,
    LiveReasoning,
    LiveText,
    LiveToolArguments,
)

log = logging.getLogger(__name__)

FLUSH_S: Final = 0.04
ANNOUNCE_S: Final = 10.0
WATCHED_S: Final = 25.0
"""How long an announcement holds: two may be lost."""
WATCHED_MAX: Final = 100_000
WAITING_EVENTS_MAX: Final = 8192
"""Gathered in one FLUSH_S, of all sessions; past it a session's are replaced by a gap."""
PAYLOAD_BYTES_MAX: Final = 7600
PIECE_CHARS_MAX: Final = 1200
"""A character takes six bytes at most (as an escape)."""
PAYLOADS_AT_ONCE_MAX: Final = 512

_decoder: msgspec.json.Decoder[list[LiveEvent]] = msgspec.json.Decoder(list[LiveEvent])


class Relay:
    """Give it to `Live`, and run it with that."""

    def __init__(self, channel: LiveChannel, clock: Clock) -> None:
        self._me = ids.new("worker", clock)
        self._channel = channel
        self._clock = clock
        self._live: Live | None = None
        self._watched_here: set[str] = set()
        self._unsaid: set[str] = set()
        self._watched_until_s: dict[str, float] = {}
        self._waiting: dict[str, list[LiveEvent]] = {}
        self._waiting_count = 0
        self._some = asyncio.Event()

    def wanted(self, session_id: str) -> bool:
        """Whether somebody watches it in another process."""
        if not self._watched_until_s:
            return False
        return self._watched_until_s.get(session_id, 0.0) > self._clock.monotonic_s()

    def take(self, session_id: str, event: LiveEvent) -> None:
        """Never waits."""
        events = self._waiting.setdefault(session_id, [])
        if self._waiting_count >= WAITING_EVENTS_MAX:
            self._waiting_count -= len(events)
            events[:] = [LiveGap(event.turn, event.seen_seq)]
            self._waiting_count += 1
        events.append(event)
        self._waiting_count += 1
        self._some.set()

    def watching(self, session_id: str, *, now: bool) -> None:
        """Somebody begins to watch it in this process, or (`now` is False) nobody does any more."""
        if now:
            self._watched_here.add(session_id)
            self._unsaid.add(session_id)
            self._some.set()
        else:
            self._watched_here.discard(session_id)
            self._unsaid.discard(session_id)

    @asynccontextmanager
    async def running(self, live: Live) -> AsyncIterator[None]:
        self._live = live
        self._channel.hear(self._hear)
        async with background(self._flush(), "relay"), background(self._announce(), "relay:announce"):
            yield

    def _hear(self, payload: str) -> None:
        kind, sender, said = payload.split(" ", 2)
        if sender == self._me:
            return
        if kind == "f":
            until_s = self._clock.monotonic_s() + WATCHED_S
            for session_id in said.split(","):
                if len(self._watched_until_s) < WATCHED_MAX:
                    self._watched_until_s[session_id] = until_s
        elif kind == "d":
            session_id, _, body = said.partition(" ")
            if self._live is not None and session_id in self._watched_here:
                self._deliver(self._live, session_id, body)

    def _deliver(self, live: Live, session_id: str, body: str) -> None:
        try:
            events = _decoder.decode(body)
        except msgspec.MsgspecError:
            log.warning("relay.not_understood", extra={"session": session_id})  # Of a newer release.
            return
        for event in events:
            live.show(session_id, event)

    async def _flush(self) -> None:
        while True:
            await self._some.wait()
            await asyncio.sleep(FLUSH_S)
            self._some.clear()
            waiting, self._waiting, self._waiting_count = self._waiting, {}, 0
            unsaid, self._unsaid = self._unsaid, set()
            payloads = [f"f {self._me} {names}" for names in _joined(unsaid)]
            for session_id, events in waiting.items():
                payloads += [f"d {self._me} {session_id} [{body}]" for body in _joined(_encoded(events))]
            await self._tell(payloads)

    async def _announce(self) -> None:
        while True:
            await asyncio.sleep(ANNOUNCE_S)
            now_s = self._clock.monotonic_s()
            for session_id in [one for one, until_s in self._watched_until_s.items() if until_s < now_s]:
                del self._watched_until_s[session_id]
            await self._tell([f"f {self._me} {names}" for names in _joined(self._watched_here)])

    async def _tell(self, payloads: Sequence[str]) -> None:
        try:
            for first in range(0, len(payloads), PAYLOADS_AT_ONCE_MAX):
                await self._channel.tell(payloads[first : first + PAYLOADS_AT_ONCE_MAX])
        except FreeholdError as error:
            log.debug("relay.not_told", extra={"error": str(error)})
        except Exception:
            log.exception("relay.crashed")


def _joined(texts: Iterable[str]) -> Iterator[str]:
    """As few texts as possible, joined by commas, none longer than a payload may be."""
    held: list[str] = []
    size = 0
    for text in texts:
        size_of_text = len(text.encode()) + 1
        if held and size + size_of_text > PAYLOAD_BYTES_MAX:
            yield ",".join(held)
            held, size = [], 0
        held.append(text)
        size += size_of_text
    if held:
        yield ",".join(held)


def _encoded(events: Iterable[LiveEvent]) -> Iterator[str]:
    for event in _gathered(events):
        try:
            yield msgspec.json.encode(event).decode()
        except UnicodeEncodeError:  # Half of a surrogate pair, cut in two by the vendor.
            yield msgspec.json.encode(LiveGap(event.turn, event.seen_seq)).decode()


def _gathered(events: Iterable[LiveEvent]) -> Iterator[LiveEvent]:
    """What belongs together in one, up to PIECE_CHARS_MAX."""
    last: LiveEvent | None = None
    for event in events:
        for piece in _pieces(event):
            joined = None if last is None else _together(last, piece)
            if joined is None and last is not None:
                yield last
            last = joined or piece
    if last is not None:
        yield last


def _pieces(event: LiveEvent) -> Iterator[LiveEvent]:
    match event:
        case LiveText(text=text) | LiveReasoning(text=text) if len(text) > PIECE_CHARS_MAX:
            for first in range(0, len(text), PIECE_CHARS_MAX):
                yield structs.replace(event, text=text[first : first + PIECE_CHARS_MAX])
        case LiveToolArguments(json=text) if len(text) > PIECE_CHARS_MAX:
            for first in range(0, len(text), PIECE_CHARS_MAX):
                yield structs.replace(event, json=text[first : first + PIECE_CHARS_MAX])
        case _:
            yield event


def _together(one: LiveEvent, other: LiveEvent) -> LiveEvent | None:
    """None where they don't belong together, or are too long."""
    match one, other:
        case LiveText(), LiveText():
            together: LiveEvent = structs.replace(one, text=one.text + other.text)
            length = len(one.text) + len(other.text)
        case LiveReasoning(), LiveReasoning():
            together = structs.replace(one, text=one.text + other.text)
            length = len(one.text) + len(other.text)
        case LiveToolArguments(), LiveToolArguments():
            together = structs.replace(one, json=one.json + other.json)
            length = len(one.json) + len(other.json)
        case _:
            return None
    alike = (one.seen_seq, one.index) == (other.seen_seq, other.index)
    return together if alike and length <= PIECE_CHARS_MAX else None
