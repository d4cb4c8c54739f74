"""Gateway: what is read of a stream whose bytes pass: its usage, its end, how many events it had. Most of it later, or never.

Nobody waits for any of it while the stream runs. Nearly all events are of one mould and differ in a text alone: those are known by
how they begin and what they have behind it, and pass. Of the others, some pieces are read at a time. Not here: what the bytes mean
(a wire's `UsageTap`), what is taken out of them (passing.py), and what is done with it (forwarding.py).
"""

from collections.abc import Callable
from typing import Final

from freehold.core.messages import Usage
from freehold.core.ports import UsageTap
from freehold.gateway.passing import UsageHidden

PIECES_MAX: Final = 8
PIECE_BYTES_MAX: Final = 4096
"""What is not read yet of a stream: so many pieces, none larger but the last."""

EVENT_MARKS: Final = {"text/event-stream": b"\n\n", "application/vnd.amazon.eventstream": b":event-type"}
"""What each event of a stream has once."""

_END: Final = b"\n\n"
_LF: Final = ord("\n")
_NONE: Final = ()
"""What nothing begins with."""


class Tapped:
    """`hidden` takes out what its client is not to see."""

    __slots__ = ("_begins", "_behind", "_event_count", "_hidden", "_mark", "_mould", "_pieces", "_tap",
                 "_text_at")  # fmt: skip

    def __init__(self, tap: UsageTap, content_type: str, hidden: UsageHidden | None = None) -> None:
        self._tap = tap
        self._mark = EVENT_MARKS[content_type]
        self._hidden = hidden
        self._pieces: list[bytes] = []
        self._event_count = 0
        self._mould: bytes | tuple[()] = _NONE
        self._begins: bytes | tuple[()] = _NONE
        """The mould's beginning, between two events."""
        self._behind = b""
        self._text_at = 0

    def before(self, write: Callable[[bytes], bool]) -> Callable[[bytes], bool]:
        """`feed`, then `write` with what may go on. True where nothing may."""

        def pass_on(piece: bytes) -> bool:
            if (
                piece.startswith(self._begins)
                and piece.find(b"\n", self._text_at) == len(piece) - 2
                and piece[-1] == _LF
                and piece.rfind(self._behind) > 0
            ):
                self._event_count += 1
                return write(piece)
            piece = self.feed(piece)
            return not piece or write(piece)

        return pass_on

    def feed(self, piece: bytes) -> bytes:
        """What may go on to the client; may be empty."""
        pieces = self._pieces
        pieces.append(piece)
        if len(pieces) >= PIECES_MAX or len(piece) > PIECE_BYTES_MAX:
            self._read()
            self._take_mould(piece)
        elif self._mould is _NONE:
            self._take_mould(piece)
        self._begins = self._mould if piece.endswith(_END) else _NONE
        return piece if self._hidden is None else self._hidden.feed(piece)

    def _take_mould(self, piece: bytes) -> None:
        """Of a piece that is an event. One mould at a time: a stream goes over from thoughts to text, and rarely back."""
        mould = self._tap.mould(piece)
        if mould is not None and piece.endswith(_END) and piece.count(_END) == 1:
            self._mould, self._behind = mould
            self._text_at = len(mould[0])

    def _read(self) -> None:
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._tap.feed(data)
        self._event_count += data.count(self._mark)

    @property
    def usage(self) -> Usage | None:
        if self._pieces:
            self._read()
        return self._tap.usage

    @property
    def finished(self) -> bool:
        if self._pieces:
            self._read()
        return self._tap.finished

    @property
    def event_count(self) -> int:
        if self._pieces:
            self._read()
        return self._event_count
