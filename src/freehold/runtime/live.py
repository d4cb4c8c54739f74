"""Runtime: what is only worth seeing while it happens: an answer's text as it comes. Never stored; facts are in the log.

One fan-out per process: a reader sees the deltas of the turns that this process's worker carries out, through `elsewhere`
(relay.py) also those of other processes, and everybody sees the facts. Each reader has a bounded buffer; one that is too slow loses
deltas (and is told so), never facts.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TypeAlias

from msgspec import Struct

BUFFERED_MAX: Final = 1024
"""Deltas per reader. A delta is some bytes to some hundred, so a reader holds well under a megabyte."""


class LiveModelStarted(Struct, frozen=True, tag="model_started"):
    """An answer begins to come. `attempt` > 1: the one before broke off, forget its deltas of this same `seen_seq`."""

    turn: int
    seen_seq: int
    attempt: int
    provider: str
    model: str
    is_language_model: bool


class LiveText(Struct, frozen=True, tag="text"):
    turn: int
    seen_seq: int
    index: int
    text: str


class LiveReasoning(Struct, frozen=True, tag="reasoning"):
    turn: int
    seen_seq: int
    index: int
    text: str


class LiveToolCall(Struct, frozen=True, tag="tool_call"):
    """The model begins to write a call; its arguments follow. The id may be another once it is a fact."""

    turn: int
    seen_seq: int
    index: int
    name: str


class LiveToolArguments(Struct, frozen=True, tag="tool_arguments"):
    turn: int
    seen_seq: int
    index: int
    json: str


class LiveGap(Struct, frozen=True, tag="gap"):
    """Deltas were left out here, because the reader was too slow. The fact that follows has the whole."""

    turn: int
    seen_seq: int


LiveEvent: TypeAlias = (
    LiveModelStarted | LiveText | LiveReasoning | LiveToolCall | LiveToolArguments | LiveGap
)
"""`seen_seq` is that of the ModelAnswered (or ModelFailed) that will end these deltas: they belong before it."""


class LiveReader:
    """One reader's buffer. `wake` is set whenever something is put in; the reader clears it."""

    def __init__(self, wake: asyncio.Event) -> None:
        self._buffer: deque[LiveEvent] = deque()
        self._wake = wake

    def put(self, event: LiveEvent) -> None:
        """Never waits. When full, everything held gives way to one LiveGap: what is shown stays in order and is fresh."""
        if len(self._buffer) >= BUFFERED_MAX:
            self._buffer.clear()
            self._buffer.append(LiveGap(event.turn, event.seen_seq))
        self._buffer.append(event)
        self._wake.set()

    def first(self) -> LiveEvent | None:
        return self._buffer[0] if self._buffer else None

    def drop_first(self) -> None:
        self._buffer.popleft()


class Elsewhere(Protocol):
    """Other processes."""

    def wanted(self, session_id: str) -> bool:
        """Whether somebody reads it there."""
        ...

    def take(self, session_id: str, event: LiveEvent) -> None: ...

    def watching(self, session_id: str, *, now: bool) -> None:
        """Somebody begins to read it here; or nobody does any more."""
        ...


class Live:
    """The fan-out. Publishing to a session that nobody reads costs two look-ups."""

    def __init__(self, elsewhere: Elsewhere | None = None) -> None:
        self._elsewhere = elsewhere
        self._readers: dict[str, set[LiveReader]] = {}

    def heard(self, session_id: str) -> bool:
        return session_id in self._readers or (
            self._elsewhere is not None and self._elsewhere.wanted(session_id)
        )

    def publish(self, session_id: str, event: LiveEvent) -> None:
        """To readers everywhere."""
        self.show(session_id, event)
        if self._elsewhere is not None and self._elsewhere.wanted(session_id):
            self._elsewhere.take(session_id, event)

    def show(self, session_id: str, event: LiveEvent) -> None:
        """To readers in this process."""
        for reader in self._readers.get(session_id, ()):
            reader.put(event)

    @contextmanager
    def reading(self, session_id: str, wake: asyncio.Event) -> Iterator[LiveReader]:
        reader = LiveReader(wake)
        if self._elsewhere is not None and session_id not in self._readers:
            self._elsewhere.watching(session_id, now=True)
        self._readers.setdefault(session_id, set()).add(reader)
        try:
            yield reader
        finally:
            readers = self._readers[session_id]
            readers.discard(reader)
            if not readers:
                del self._readers[session_id]
                if self._elsewhere is not None:
                    self._elsewhere.watching(session_id, now=False)
