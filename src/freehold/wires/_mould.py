"""Wires: one more event like the last, but for its text: how nearly all of a stream comes.

Vendors repeat everything around the few words that are new. Once an event was read that told a text and nothing else, the bytes
before and after that text are a mould: another event between the same bytes is the same event with another text, since all that
can stand there is one JSON string. Not here: what an event says (each wire's decoder, which also says what tells a text alone).
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from freehold.core.stream import PartStarted, StreamEvent, TextAdded
from freehold.wires._fields import UNREADABLE

UNFIT_MAX: Final = 4
"""Of moulds in a row that nothing fitted into: then the stream is of another kind, and none is made any more."""

_PROBE: Final = "another text"
_PROBE_JSON: Final = _PROBE.encode()
_SAID_OF_A_TEXT: Final = (TextAdded, PartStarted)
"""A text may be the first of its part, whose beginning it tells by that alone."""

_text: Final = msgspec.json.Decoder(str)
_encode: Final = msgspec.json.Encoder().encode


class Mould:
    __slots__ = ("_after", "_before", "_index", "_start", "_tail", "_unfit_count")

    def __init__(self) -> None:
        self._before: bytes | tuple[()] = ()
        self._after = b""
        self._index = self._start = self._tail = self._unfit_count = 0

    def event_in(self, data: bytes) -> TextAdded | None:
        """Where `data` fits. Between two events only."""
        if not data.startswith(self._before) or not data.endswith(self._after):
            return None
        try:
            text = _text.decode(data[self._start : len(data) - self._tail])
        except UNREADABLE:
            return None
        self._unfit_count = 0
        return TextAdded(self._index, text) if text else None

    def learn(
        self, data: bytes, events: Sequence[StreamEvent], told_alone: Callable[[bytes], str | None]
    ) -> None:
        """Of what did not fit. `told_alone` reads an event's bytes: the text that it tells if it tells nothing else.

        That it tells the probe says that what stands around it is no part of the text: so it is with the text itself.
        """
        self._before = ()
        if self._unfit_count >= UNFIT_MAX or not events or type(event := events[-1]) is not TextAdded:
            return
        if len(events) > 2 or type(events[0]) not in _SAID_OF_A_TEXT:
            return
        if b"\r" in data or data.find(b"\n\n") != len(data) - 2:
            return
        quoted = _encode(event.text)
        start = data.find(quoted)
        before, after = data[: start + 1], data[start + len(quoted) - 1 :]
        if start < 0 or told_alone(b"%b%b%b" % (before, _PROBE_JSON, after)) != _PROBE:
            return
        self._before, self._after = before, after
        self._index, self._start, self._tail = event.index, start, len(after) - 1
        self._unfit_count += 1
