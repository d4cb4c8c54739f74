"""Gateway: an answer copied while it passes, to be kept; and a kept one told again, as a stream or at once.

A copy stands beside the answer's own course: bytes are gathered where their usage is read, events where they pass. A copy that grows
over what is kept lets go of all that it has. Not here: which answers are kept (cache.py).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Final, Protocol

from freehold.core.errors import FreeholdError
from freehold.core.messages import ModelResponse, Usage
from freehold.core.ports import Pours, UsageTap, Wire
from freehold.core.stream import ArgumentsAdded, Folding, StreamEvent, TextAdded, fold, unfold
from freehold.gateway.cache import ANSWER_BYTES_MAX

PIECE_CHARS: Final = 24
"""Of a text that is told again as a stream: about what vendors send at once."""


class Copy(Protocol):
    def response(self) -> ModelResponse | None:
        """The whole answer; None where there is none to keep."""
        ...


class WholeCopy:
    """Of an answer that came at once."""

    __slots__ = ("_body", "_provider", "_wire")

    def __init__(self, body: bytes, wire: Wire, provider: str) -> None:
        self._body = body
        self._wire = wire
        self._provider = provider

    def response(self) -> ModelResponse | None:
        if len(self._body) > ANSWER_BYTES_MAX:
            return None
        try:
            return self._wire.decode_response(self._body, provider=self._provider)
        except FreeholdError:
            return None  # Its client's to judge: bytes that pass are not ours to refuse.


class StreamCopy:
    """Stands where the usage is read, and reads it too."""

    __slots__ = ("_pieces", "_provider", "_size_bytes", "_tap", "_wire")

    def __init__(self, tap: UsageTap, wire: Wire, provider: str) -> None:
        self._tap = tap
        self._wire = wire
        self._provider = provider
        self._pieces: list[bytes] = []
        self._size_bytes = 0

    def feed(self, data: bytes) -> None:
        self._tap.feed(data)
        self._size_bytes += len(data)
        if self._size_bytes <= ANSWER_BYTES_MAX:
            self._pieces.append(data)
        else:
            self._pieces.clear()

    def mould(self, _: bytes) -> None:
        """A copy wants all of it."""

    @property
    def usage(self) -> Usage | None:
        return self._tap.usage

    @property
    def finished(self) -> bool:
        return self._tap.finished

    def response(self) -> ModelResponse | None:
        if not self._pieces:
            return None
        decoder = self._wire.stream_decoder(provider=self._provider)
        try:
            return fold([*decoder.feed(b"".join(self._pieces)), *decoder.end()])
        except FreeholdError:
            return None


class EventsCopy:
    """Stands between a provider's events and who reads them. Pours where they do."""

    __slots__ = ("_events", "_folding", "_size_chars")

    def __init__(self, events: AsyncIterator[StreamEvent]) -> None:
        self._events = events
        self._folding: Folding | None = Folding()
        self._size_chars = 0

    def __aiter__(self) -> "EventsCopy":
        return self

    async def __anext__(self) -> StreamEvent:
        event = await anext(self._events)
        self._add(event)
        return event

    async def pour(
        self, take: Callable[[Sequence[StreamEvent]], bool], drained: Callable[[], Awaitable[object]]
    ) -> None:
        def taken(events: Sequence[StreamEvent]) -> bool:
            for event in events:
                self._add(event)
            return take(events)

        events = self._events
        if isinstance(events, Pours):
            await events.pour(taken, drained)
            return
        async for event in events:
            if not taken((event,)):
                await drained()

    def _add(self, event: StreamEvent) -> None:
        if self._folding is None:
            return
        if type(event) is TextAdded:
            self._size_chars += len(event.text)
        elif type(event) is ArgumentsAdded:
            self._size_chars += len(event.json)
        if self._size_chars > ANSWER_BYTES_MAX:
            self._folding = None
        else:
            self._folding.add(event)

    def response(self) -> ModelResponse | None:
        folding = self._folding
        return folding.response() if folding is not None and folding.finished else None


async def told_again(response: ModelResponse, *, in_pieces: bool) -> AsyncIterator[StreamEvent]:
    """The stream that folds to `response`."""
    for event in unfold(response):
        if in_pieces and isinstance(event, TextAdded):
            for piece in _pieces(event.text):
                yield TextAdded(event.index, piece)
        elif in_pieces and isinstance(event, ArgumentsAdded):
            for piece in _pieces(event.json):
                yield ArgumentsAdded(event.index, piece)
        else:
            yield event


def _pieces(text: str) -> Iterator[str]:
    """Cut after blanks where there are some."""
    start = 0
    while start < len(text):
        end = start + PIECE_CHARS
        if end < len(text) and (blank := text.rfind(" ", start, end)) > start:
            end = blank + 1
        yield text[start:end]
        start = end
