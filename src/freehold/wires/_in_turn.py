"""Wires: parts of an answer one after the other, for dialects whose clients know no other order.

Vendors interleave parallel parts. Whoever tells them in turn lets the events of later parts wait until the parts before them have
ended; the usual stream, where each part ends before the next begins, passes as it comes.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final, TypeAlias

from freehold.core.stream import ArgumentsAdded, OpaqueSet, PartFinished, PartStarted, TextAdded

PartEvent: TypeAlias = PartStarted | TextAdded | ArgumentsAdded | OpaqueSet | PartFinished

_NOTHING: Final[tuple[PartEvent, ...]] = ()


class InTurn:
    __slots__ = ("_open", "_waiting")

    def __init__(self) -> None:
        self._open: int | None = None
        self._waiting: dict[int, deque[PartEvent]] = {}  # Later parts, in the order in which they began.

    def add(self, event: PartEvent) -> Sequence[PartEvent]:
        """What may be told now."""
        if self._open is None and not self._waiting and isinstance(event, PartStarted):
            self._open = event.index
            return (event,)
        if event.index != self._open:
            self._waiting.setdefault(event.index, deque()).append(event)
            return _NOTHING
        if not isinstance(event, PartFinished):
            return (event,)
        self._open = None
        return [event, *self._next()]

    def rest(self) -> Sequence[PartEvent]:
        """At the end: what waits for parts that nobody finished."""
        told: list[PartEvent] = []
        while self._open is not None:
            told.append(PartFinished(self._open))
            self._open = None
            told += self._next()
        return told

    def _next(self) -> list[PartEvent]:
        told: list[PartEvent] = []
        while self._open is None and self._waiting:
            index = next(iter(self._waiting))
            events = self._waiting.pop(index)
            if isinstance(events[0], PartStarted):
                told += events
                self._open = None if isinstance(events[-1], PartFinished) else index
        return told
