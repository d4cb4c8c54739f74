"""Runtime: what is only worth seeing while it happens: an answer's text as it comes. Never stored; facts are in the log.

One fan-out per process: a reader sees the deltas of the turns that this process's worker carries out, and everybody sees the
facts. Each reader has a bounded buffer; one that is too slow loses deltas (and is told so), never facts.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

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


class Live:
    """The fan-out. Publishing to a session that nobody reads costs one look-up."""

    def __init__(self) -> None:
        self._readers: dict[str, set[LiveReader]] = {}

    def heard(self, session_id: str) -> bool:
        return session_id in self._readers

    def publish(self, session_id: str, event: LiveEvent) -> None:
        for reader in self._readers.get(session_id, ()):
            reader.put(event)

    @contextmanager
    def reading(self, session_id: str, wake: asyncio.Event) -> Iterator[LiveReader]:
        reader = LiveReader(wake)
        self._readers.setdefault(session_id, set()).add(reader)
        try:
            yield reader
        finally:
            readers = self._readers[session_id]
            readers.discard(reader)
            if not readers:
                del self._readers[session_id]
