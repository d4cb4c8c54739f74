"""Gateway: a request in values, and its answer as events. Not here: who may call what (pipeline.py), a call's course (attempts.py)."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final, TypeAlias

from msgspec import structs

from freehold.catalog.models import ModelFacts
from freehold.core import tokens
from freehold.core.begins import Done, HangUp
from freehold.core.errors import BrokenOff, FreeholdError
from freehold.core.messages import ModelRequest, ModelResponse, Usage
from freehold.core.ports import Wire
from freehold.core.stream import ArgumentsAdded, Finished, StreamEvent, TextAdded, UsageReported
from freehold.gateway.bounds import Most, most_of_request
from freehold.gateway.cache_copies import Copy, EventsCopy, told_again
from freehold.gateway.capabilities import Lack, lack_of, text_bytes
from freehold.gateway.metering import Meter, Metered
from freehold.gateway.routing import Wanted
from freehold.gateway.targets import Target
from freehold.wires import path_in

Pour: TypeAlias = Callable[
    [Callable[[Sequence[StreamEvent]], bool], Callable[[], Awaitable[object]]], Awaitable[None]
]

SAID_PIECES_MAX: Final = 64
"""What was said is counted so many pieces at a time, and forgotten: streams may be long, and many."""


class Answer(Metered):
    """One answer as it comes. `request` is what it answers; `record` is there once its context was left."""

    __slots__ = ("_events", "_first", "_open", "_said", "_tokens", "copy", "error", "finished", "is_language_model", "model",
                 "provider", "request", "usage")  # fmt: skip

    def __init__(
        self,
        target: Target,
        request: ModelRequest,
        opened: AbstractAsyncContextManager[AsyncIterator[StreamEvent]],
        events: AsyncIterator[StreamEvent],
        meter: Meter,
    ) -> None:
        self.provider = target.provider.name
        self.model = target.name
        self.is_language_model = target.provider.is_language_model
        self.request = request
        self.usage: Usage | None = None
        self.finished = False
        self.error: BaseException | None = None
        self._open = opened
        self._events = events
        self.meter = meter
        self._first: StreamEvent | None = None
        self._said: list[str] = []
        self._tokens = 0
        """Of what was said before."""
        self.copy: Copy | None = None
        """Of what has passed, where it is to be kept."""
        if meter.keeping is not None:
            self._events = self.copy = EventsCopy(events)

    @property
    def output_tokens_estimated(self) -> int:
        return self._tokens + tokens.estimate("".join(self._said))

    async def start(self) -> None:
        """Waits for the first event. Raises BrokenOff where there is none."""
        try:
            self._first = await anext(self._events)
        except StopAsyncIteration:
            raise BrokenOff(f"{self.provider} answered without a single event") from None
        self.meter.first_event()

    async def close(self) -> None:
        await self._open.__aexit__(None, None, None)

    def __aiter__(self) -> "Answer":
        return self

    async def __anext__(self) -> StreamEvent:
        event = self._first
        if event is not None:
            self._first = None
        else:
            try:
                event = await anext(self._events)
            except StopAsyncIteration:
                raise
            except BaseException as error:
                self.error = error
                raise
        self._heed(event)
        return event

    async def pour(
        self, take: Callable[[Sequence[StreamEvent]], bool], drained: Callable[[], Awaitable[object]]
    ) -> None:
        """As `core.ports.Pours` has it, instead of iterating: of events that came together."""
        pour: Pour | None = getattr(self._events, "pour", None)
        if pour is None:
            async for event in self:
                if not take((event,)):
                    await drained()
            return

        heed = self._heed

        def taken(events: Sequence[StreamEvent]) -> bool:
            for event in events:
                heed(event)
            return take(events)

        if (first := self._first) is not None:
            self._first = None
            if not taken((first,)):
                await drained()
        try:
            await pour(taken, drained)
        except BaseException as error:
            self.error = error
            raise

    def _heed(self, event: StreamEvent) -> None:
        # Quicker than a match: each class that it is not would cost 0.3 us.
        said = self._said
        if type(event) is TextAdded:
            said.append(event.text)
        elif type(event) is ArgumentsAdded:
            said.append(event.json)
        elif type(event) is UsageReported:
            self.usage = event.usage
        elif type(event) is Finished:
            self.finished = True
        if len(said) >= SAID_PIECES_MAX:
            self._tokens += tokens.estimate("".join(said))
            said.clear()


class Told(Metered):
    """An answer that came whole. `request` is what it answers, but for the messages."""

    __slots__ = ("is_language_model", "model", "provider", "request", "response")

    error = None
    finished = True
    output_tokens_estimated = 0
    copy = None

    def __init__(self, target: Target, request: ModelRequest, response: ModelResponse, meter: Meter) -> None:
        self.meter = meter
        self.provider = target.provider.name
        self.model = target.name
        self.is_language_model = target.provider.is_language_model
        self.request = request
        self.response = response

    @property
    def usage(self) -> Usage | None:
        return self.response.usage

    async def close(self) -> None:
        pass


class Asking:
    """A request on its way to one provider. `body` is what it came as, in `wire`. Raises what cannot be said there.

    Once it was begun, `request` is without its messages, which were told: what calls that are under way hold of them together is more
    than a processor's cache, and each new call would be read into memory that has long left it.
    """

    __slots__ = ("_body", "_opening", "_wire", "request", "target")

    def __init__(self, target: Target, request: ModelRequest, *, wire: Wire | None, body: bytes) -> None:
        self.target = target
        self.request = request
        self._wire = wire
        self._body = body
        try:
            self._opening = target.provider.call(structs.replace(request, model=target.name))
        except FreeholdError as error:
            self._word(error)
            raise

    def begin(self, done: Done[ModelResponse]) -> HangUp | None:
        """As `core.begins.Begins` has it."""
        begin: Callable[[Done[ModelResponse]], HangUp | None] | None = getattr(self._opening, "begin", None)
        if begin is None:
            return None

        def worded(came: ModelResponse | BaseException) -> None:
            if isinstance(came, FreeholdError):
                self._word(came)
            done(came)

        hang_up = begin(worded)
        if hang_up is not None:
            self.request = structs.replace(self.request, messages=())
        return hang_up

    async def answered(self, meter: Meter) -> Answer:
        """Raises before the first event, and has hung up then."""
        try:
            events = await self._opening.__aenter__()
        except FreeholdError as error:
            self._word(error)
            raise
        answer = Answer(self.target, self.request, self._opening, events, meter)
        try:
            await answer.start()
        except BaseException:
            await answer.close()
            raise
        return answer

    def _word(self, error: FreeholdError) -> None:
        _in_callers_words(error, self.target, self._wire, self._body)


async def answered_again(
    target: Target, request: ModelRequest, earlier: ModelResponse, meter: Meter
) -> Answer:
    """In events, which any wire can tell."""
    events = told_again(earlier, in_pieces=request.stream)
    answer = Answer(target, request, nullcontext(events), events, meter)
    await answer.start()
    return answer


def _in_callers_words(error: FreeholdError, target: Target, wire: Wire | None, body: bytes) -> None:
    """A provider's wire refuses in the heart's words, a vendor in its own."""
    if error.field is None or wire is None:
        return
    if not error.field_is_vendors:
        error.field = path_in(wire, body, error.field)
    elif target.provider.wire != wire.name:
        error.message = f"{error.message} (the provider names {error.field})"
        error.field = None


class Values:
    """A request in values; `body` is what it came as, if it did, in the client's wire."""

    __slots__ = ("_request", "_wire", "body")

    def __init__(self, request: ModelRequest, body: bytes, wire: Wire | None) -> None:
        self._request = request
        self._wire = wire if body else None
        self.body = body

    def further_models(self) -> Sequence[str]:
        return ()

    def shorten(self, tokens_max: int) -> None:
        """From here on, no longer an answer than this is asked for."""
        self._request = structs.replace(self._request, tokens_max=tokens_max)

    def lack_of(self, target: Target) -> tuple[Lack, ModelRequest] | None:
        request = self._request
        if target.facts is None:
            return None
        lack = lack_of(target.facts, request, size_bytes=len(self.body) or text_bytes(request))
        return None if lack is None else (lack, request)

    async def ask(self, target: Target, meter: Meter) -> Answer:
        return await Asking(target, self._request, wire=self._wire, body=self.body).answered(meter)

    def most(self, facts: ModelFacts | None) -> Most:
        return most_of_request(self._request, facts)

    def input_tokens(self) -> int:
        return tokens.of_request(self._request)

    def cacheable(self) -> tuple[ModelRequest | None, str | None]:
        return self._request, None

    async def again(self, earlier: ModelResponse, target: Target, meter: Meter) -> Answer:
        return await answered_again(target, self._request, earlier, meter)

    def wanted(self) -> Wanted:
        request = self._request
        return Wanted(
            streamed=request.stream, input_tokens=self.input_tokens(), output_tokens_max=request.tokens_max
        )
