"""Gateway: what is read of a stream whose bytes pass: its usage, its end, how many events it had. Some pieces at a time, later.

Nobody waits for any of it while the stream runs, and reading many pieces costs hardly more than reading one. Not here: what the
bytes mean (a wire's `UsageTap`), and what is done with it (forwarding.py).
"""

from typing import Final

from freehold.core.messages import Usage
from freehold.core.ports import UsageTap

PIECES_MAX: Final = 8
PIECE_BYTES_MAX: Final = 4096
"""What is not read yet of a stream: so many pieces, none larger but the last."""

EVENT_MARKS: Final = {"text/event-stream": b"\n\n", "application/vnd.amazon.eventstream": b":event-type"}
"""What each event of a stream has once."""


class Tapped:
    __slots__ = ("_event_count", "_mark", "_pieces", "_tap")

    def __init__(self, tap: UsageTap, content_type: str) -> None:
        self._tap = tap
        self._mark = EVENT_MARKS[content_type]
        self._pieces: list[bytes] = []
        self._event_count = 0

    def feed(self, piece: bytes) -> None:
        pieces = self._pieces
        pieces.append(piece)
        if len(pieces) >= PIECES_MAX or len(piece) > PIECE_BYTES_MAX:
            self._read()

    def _read(self) -> None:
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._tap.feed(data)
            self._event_count += data.count(self._mark)

    @property
    def usage(self) -> Usage | None:
        self._read()
        return self._tap.usage

    @property
    def finished(self) -> bool:
        self._read()
        return self._tap.finished

    @property
    def event_count(self) -> int:
        self._read()
        return self._event_count
