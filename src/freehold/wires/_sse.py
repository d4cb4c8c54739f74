"""Wires: server-sent events, read from bytes that may be cut anywhere. Source: https://html.spec.whatwg.org/multipage/server-sent-events.html

Speed matters here (every token of every stream passes): the usual event is found with one split and one slice.
Not here: what the data means; `id` and `retry`, which no model API uses.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

from freehold.core.errors import BrokenOff

EVENT_BYTES_MAX: Final = 32 * 1024 * 1024
"""One event. Images and audio come inline, so this is generous; beyond it the stream is broken off."""

SseEvent: TypeAlias = tuple[bytes, bytes]
"""The event's name (empty where it has none) and its data."""

_NOTHING: Final[tuple[SseEvent, ...]] = ()
_BOM: Final = b"\xef\xbb\xbf"
_BEGINNINGS: Final = (b"data: ", b"event: ")


class SseReader:
    """LF, CRLF and CR end lines; comments and unknown fields are skipped; several data lines are joined with LF."""

    __slots__ = ("_after_cr", "_at_start", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._after_cr = False
        self._at_start = True

    def feed(self, data: bytes) -> Sequence[SseEvent]:
        """The events that are complete now. Raises BrokenOff for one over EVENT_BYTES_MAX."""
        if self._after_cr or b"\r" in data:
            data = self._with_lf(data)
        rest = self._rest
        if not rest and data.startswith(_BEGINNINGS) and data.find(b"\n\n") == len(data) - 2:
            self._at_start = False  # One whole event, as most pieces are.
            event = _event(data[:-2])
            return _NOTHING if event is None else (event,)
        if rest or self._at_start:
            searched = max(0, len(rest) - 1)
            rest += data
            if self._at_start and not self._past_bom():
                return _NOTHING
            if rest.find(b"\n\n", searched) < 0:
                self._check_size()
                return _NOTHING
            data = bytes(rest)
            rest.clear()
        blocks = data.split(b"\n\n")
        last = blocks.pop()
        if last:
            rest += last
            self._check_size()
        return [event for event in map(_event, blocks) if event is not None]

    def end(self) -> Sequence[SseEvent]:
        """What came after the last empty line. (Some servers forget the final one.)"""
        event = _event(bytes(self._rest))
        self._rest.clear()
        return _NOTHING if event is None else (event,)

    def _past_bom(self) -> bool:
        rest = self._rest
        if rest.startswith(_BOM):
            del rest[: len(_BOM)]
        elif _BOM.startswith(bytes(rest)):
            return False
        self._at_start = False
        return True

    def _check_size(self) -> None:
        if len(self._rest) > EVENT_BYTES_MAX:
            raise BrokenOff(f"an event of the stream is over EVENT_BYTES_MAX = {EVENT_BYTES_MAX}")

    def _with_lf(self, data: bytes) -> bytes:
        """A CR that ends a piece ends the line at once; an LF that begins the next piece belongs to it."""
        if not data:
            return data
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            if not data:
                self._after_cr = False
                return data
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _event(block: bytes) -> SseEvent | None:
    if block.startswith(b"data: ") and b"\n" not in block:
        return b"", block[6:]
    if block.startswith(b"event: "):
        head, _, tail = block.partition(b"\n")
        if tail.startswith(b"data: ") and b"\n" not in tail:
            return head[7:].strip(), tail[6:]
    name = b""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        if line.startswith(b"data:"):
            data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"event:"):
            name = line[6:].strip()
    return (name, b"\n".join(data)) if data else None


class Lines:
    """Whole lines of bytes that may be cut anywhere, for looking at them without reading them as events."""

    __slots__ = ("rest",)

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """All that is whole by now. A line over EVENT_BYTES_MAX is let go: whatever it is, nobody looks for it."""
        if self.rest:
            data = self.rest + data
            self.rest = b""
        if data.endswith(b"\n"):
            return data
        cut = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        rest = data[cut:]
        self.rest = rest if len(rest) <= EVENT_BYTES_MAX else b""
        return data[:cut]
