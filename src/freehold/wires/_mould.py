"""Wires: one more event like the last, but for its text: how nearly all of a stream comes.

Vendors repeat everything around the few words that are new. Once an event was read that told a text and nothing else, the bytes
before and after that text are a mould: another event between the same bytes is the same event with another text, since all that
can stand there is one JSON string. The last string of an event may be another, too, where it says nothing (OpenAI's `obfuscation`,
which pads events so that their sizes don't tell the texts). Not here: what an event says (each wire's decoder, which also says what tells a text alone).
"""

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from freehold.core.stream import PartStarted, StreamEvent, TextAdded
from freehold.wires._fields import UNREADABLE

UNFIT_MAX: Final = 4
"""Of moulds in a row that nothing fitted into: then the stream is of another kind, and none is made any more."""

_PROBE: Final = "another text"
_PROBE_JSON: Final = _PROBE.encode()
_LAST_STRING: Final = re.compile(rb':"([^"\\]*)"\}\n\n\Z')
"""Of an event, where it ends with one."""

_SAID_OF_A_TEXT: Final = (TextAdded, PartStarted)
"""A text may be the first of its part, whose beginning it tells by that alone."""

_text: Final = msgspec.json.Decoder(str)
_encode: Final = msgspec.json.Encoder().encode


class Mould:
    __slots__ = ("_after", "_before", "_between", "_end", "_index", "_start", "_unfit_count")

    def __init__(self) -> None:
        self._before: bytes | tuple[()] = ()
        self._between = self._after = b""
        """What stands between the text and the padding, where there is one."""
        self._index = self._start = self._end = self._unfit_count = 0

    def event_in(self, data: bytes) -> TextAdded | None:
        """Where `data` fits. Between two events only."""
        if not data.startswith(self._before) or not data.endswith(self._after):
            return None
        end = self._end
        try:
            if between := self._between:
                at = data.find(between, self._start) + 1
                _text.decode(data[at + len(between) - 2 : end])
                end = at
            text = _text.decode(data[self._start : end])
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
        if len(events) > 1 and data.endswith(b"\n\n") and all(map(self._goes_on, events)):
            return  # Several of its texts came together: the next may come alone again.
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
        between = b""
        if (padding := _LAST_STRING.search(after)) is not None:
            upto, rest = after[: padding.start(1)], after[padding.end(1) :]
            if told_alone(b"".join((before, _PROBE_JSON, upto, _PROBE_JSON, rest))) == _PROBE:
                between, after = upto, rest
        self._before, self._between, self._after = before, between, after
        self._index, self._start, self._end = event.index, start, 1 - len(after)
        self._unfit_count += 1

    def _goes_on(self, event: StreamEvent) -> bool:
        return type(event) is TextAdded and event.index == self._index
