"""Gateway: a request as its client's bytes. Where who answers speaks the client's wire, bytes come back; else it is translated.

What is read and what is changed on the way is passing.py's business. Not here: who may call what (pipeline.py), a call's course
(attempts.py).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from msgspec import Struct, structs

from freehold.catalog.models import ModelFacts
from freehold.core import tokens
from freehold.core.begins import Done, HangUp
from freehold.core.errors import BadRequest, BrokenOff, FreeholdError, Internal, TooLarge
from freehold.core.messages import ModelRequest, ModelResponse, Usage
from freehold.core.ports import Chunks, RawAnswer, Wire
from freehold.gateway.attempts import Came
from freehold.gateway.bounds import Most, holds_more, most_of_body
from freehold.gateway.cache_copies import Copy, StreamCopy, WholeCopy
from freehold.gateway.calling import Answer, Asking, Told, answered_again
from freehold.gateway.capabilities import Lack, lack_of
from freehold.gateway.metering import Meter, Metered
from freehold.gateway.passing import OPENAI_CHAT, Envelope, UsageHidden
from freehold.gateway.routing import Wanted
from freehold.gateway.routing_places import Priority
from freehold.gateway.tapping import Tapped
from freehold.gateway.targets import Target
from freehold.wires import holds_packed

BODY_BYTES_MAX: Final = 64 * 1024 * 1024
BYTES_PER_TOKEN: Final = 4
"""Of a body in JSON, about: for comparing prices, not for bills."""

SESSION: Final = "x-freehold-session"
PRIORITY: Final = "x-freehold-priority"
"""Headers by which clients say what a sticky route holds on to, and how urgent a call is among its tenant's."""

CACHE_CONTROL: Final = "cache-control"


class Passed(Metered):
    """An answer's bytes that came whole. `record` is there once its context was left."""

    __slots__ = ("body", "copy", "model", "output_tokens_estimated", "provider", "usage")

    error = None
    finished = True

    def __init__(self, target: Target, body: bytes, wire: Wire, meter: Meter) -> None:
        self.provider = target.provider.name
        self.model = target.name
        self.body = body
        self.meter = meter
        self.usage = usage = wire.usage_of(body)
        self.output_tokens_estimated = 0 if usage is not None else tokens.estimate(body)
        self.copy: Copy | None = None
        """Of what has passed, where it is to be kept."""
        if meter.keeping is not None:
            self.copy = WholeCopy(body, wire, self.provider)

    async def close(self) -> None:
        pass


class Passing(Metered):
    """An answer's bytes as a stream. `record` is there once its context was left."""

    __slots__ = ("_first", "_hidden", "_open", "_raw", "_tap", "copy", "error", "model", "provider")

    def __init__(self, target: Target, opened: AbstractAsyncContextManager[RawAnswer], meter: Meter) -> None:
        self.provider = target.provider.name
        self.model = target.name
        self.error: BaseException | None = None
        self.meter = meter
        self._open = opened
        self._raw: Chunks | None = None
        self._first = b""
        self._tap: Tapped | None = None
        self._hidden: UsageHidden | None = None
        self.copy: Copy | None = None
        """Of what has passed, where it is to be kept."""

    @property
    def finished(self) -> bool:
        """The answer's last event has passed. Clients leave at that, often before its bytes have ended."""
        return self._tap is not None and self._tap.finished

    @property
    def usage(self) -> Usage | None:
        return None if self._tap is None else self._tap.usage

    @property
    def output_tokens_estimated(self) -> int:
        """Its events: vendors send about one a token."""
        return 0 if self._tap is None else self._tap.event_count

    def begin(self, raw: RawAnswer, wire: Wire, *, hidden: bool) -> None:
        """Its first chunk is there. `hidden`: its client did not ask for usage."""
        self._opened(raw, wire, hidden=hidden)
        self.meter.first_event()

    async def start(self, raw: RawAnswer, wire: Wire, *, hidden: bool) -> None:
        """As `begin`, waiting for the first chunk."""
        chunks, tap = self._opened(raw, wire, hidden=hidden)
        try:
            self._first = tap.feed(await anext(chunks))
        except StopAsyncIteration:
            raise BrokenOff(f"{self.provider} answered without a single event") from None
        self.meter.first_event()

    def _opened(self, raw: RawAnswer, wire: Wire, *, hidden: bool) -> tuple[Chunks, Tapped]:
        self._raw = chunks = raw.chunks()
        tap = wire.usage_tap()
        if self.meter.keeping is not None:
            tap = self.copy = StreamCopy(tap, wire, self.provider)
        self._hidden = UsageHidden() if hidden else None
        self._tap = tapped = Tapped(tap, wire.stream_content_type, self._hidden)
        return chunks, tapped

    async def close(self) -> None:
        await self._open.__aexit__(None, None, None)

    def chunks(self) -> AsyncIterator[bytes]:
        return self

    def __aiter__(self) -> "Passing":
        return self

    async def __anext__(self) -> bytes:
        """Never empty. Raises BrokenOff at the end of a stream that was not finished."""
        if self._first:
            return self._begun()
        while self._raw is not None and self._tap is not None:
            try:
                data = self._tap.feed(await anext(self._raw))
            except StopAsyncIteration:
                data = self._ended(self._tap)
            except BrokenOff as error:
                data = self._ended(self._tap, error)
            except BaseException as error:
                self.error = error
                raise
            if data:
                return data
        raise StopAsyncIteration

    async def pour(self, write: Callable[[bytes], bool], drained: Callable[[], Awaitable[object]]) -> None:
        """As `core.ports.Chunks` has it, instead of iterating: a chunk passes from socket to socket in one go."""
        raw, tap = self._raw, self._tap
        if raw is None or tap is None:
            raise Internal("only a stream can be poured")

        if self._first and not write(self._begun()):
            await drained()
        broken: BrokenOff | None = None
        try:
            await raw.pour(tap.before(write), drained)
        except BrokenOff as error:
            broken = error
        except BaseException as error:
            self.error = error
            raise
        if data := self._ended(tap, broken):
            write(data)

    def _begun(self) -> bytes:
        first, self._first = self._first, b""
        return first

    def _ended(self, tap: Tapped, error: BrokenOff | None = None) -> bytes:
        """How a stream ends after its answer was finished doesn't matter."""
        self._raw = None
        if not tap.finished:
            self.error = error or BrokenOff(
                f"{self.provider} ended its stream before the answer was finished"
            )
            raise self.error
        return b"" if self._hidden is None else self._hidden.end()


class _Forwarded(Struct, frozen=True):
    """`hidden`: its client did not ask for usage."""

    target: Target
    opening: AbstractAsyncContextManager[RawAnswer]
    hidden: bool


class Bytes(Struct, eq=False):
    """A request of `wire`, decoded only where it must be: for another wire, or where a model may lack what it asks.

    `headers` are the client's, names lower-cased.
    """

    _envelope: Envelope
    _wire: Wire
    _headers: Mapping[str, str]
    _sealed: bool | None = None
    """Another vendor's seal, in our packing, never passes: the wire takes it out, or opens it for whom it is from.

    Not looked for where nothing would pass anyway.
    """

    _request: ModelRequest | None = None
    _begun: "Asking | _Forwarded | None" = None
    """What `begin` prepared."""

    @property
    def body(self) -> bytes:
        return self._envelope.body

    def further_models(self) -> Sequence[str]:
        return self._envelope.further_models() if "models" in self._envelope.fields else ()

    def lack_of(self, target: Target) -> tuple[Lack, ModelRequest] | None:
        body = self._envelope.body
        if len(body) > BODY_BYTES_MAX:
            raise TooLarge(f"the body has {len(body)} bytes, over BODY_BYTES_MAX = {BODY_BYTES_MAX}")
        if not self._passes_to(target):
            request = self._decoded()
        elif target.suspicion is None or not target.suspicion.falls_on(body, self._envelope.fields):
            return None
        else:
            try:
                request = self._decoded()
            except FreeholdError:
                return None  # What we cannot read, its vendor may: bytes that pass are the vendor's to judge.
        if target.facts is None:
            return None
        lack = lack_of(target.facts, request, size_bytes=len(body))
        return None if lack is None else (lack, request)

    async def ask(self, target: Target, meter: Meter) -> Passing | Passed | Answer:
        begun, self._begun = self._begun, None
        if not self._passes_to(target):
            if not isinstance(begun, Asking) or begun.target is not target:
                begun = self._asking(target)
            return await begun.answered(meter)
        if not isinstance(begun, _Forwarded) or begun.target is not target:
            begun = self._forwarded(target)
        opening, wire = begun.opening, self._wire
        if not self._envelope.stream:
            async with opening as raw:
                return Passed(target, await raw.read(), wire, meter)
        raw = await opening.__aenter__()
        answer = Passing(target, opening, meter)
        try:
            await answer.start(raw, wire, hidden=begun.hidden)
        except BaseException:
            await answer.close()
            raise
        return answer

    def begin(self, target: Target, done: Done[Came]) -> HangUp | None:
        if not self._passes_to(target):
            self._begun = asking = self._asking(target)
            hang_up = asking.begin(done)
            if hang_up is not None:
                self._request = None  # Read again only where the call fails, to be counted.
            return hang_up
        self._begun = forwarded = self._forwarded(target)
        begin: Callable[[Done[bytes | RawAnswer]], HangUp | None] | None = getattr(
            forwarded.opening, "begin", None
        )
        return None if begin is None else begin(done)

    def begun(self, came: Came, target: Target, meter: Meter) -> Passing | Passed | Told:
        if isinstance(came, bytes):
            return Passed(target, came, self._wire, meter)
        if isinstance(came, ModelResponse):
            begun = self._begun
            return Told(target, begun.request if isinstance(begun, Asking) else self._decoded(), came, meter)
        forwarded, self._begun = self._begun, None
        if not isinstance(forwarded, _Forwarded):
            raise Internal("a stream that nobody asked for")
        answer = Passing(target, forwarded.opening, meter)
        answer.begin(came, self._wire, hidden=forwarded.hidden)
        return answer

    def _asking(self, target: Target) -> Asking:
        return Asking(target, self._decoded(), wire=self._wire, body=self.body)

    def _forwarded(self, target: Target) -> "_Forwarded":
        envelope = self._envelope
        hidden = envelope.stream and self._wire.name == OPENAI_CHAT and not envelope.asks_for_usage()
        body = envelope.passed_as(target.name, metered=hidden)
        provider = target.provider
        opening = provider.forward(body, model=target.name, stream=envelope.stream, headers=self._headers)
        return _Forwarded(target, opening, hidden)

    def most(self, facts: ModelFacts | None) -> Most:
        envelope = self._envelope
        return most_of_body(envelope.body, envelope.fields, facts, self._holds_more)

    def _holds_more(self) -> bool:
        """What we cannot read may hold anything."""
        try:
            return holds_more(self._decoded())
        except FreeholdError:
            return True

    def input_tokens(self) -> int:
        """Of what a model reads; of the bytes where only the vendor can read the body."""
        try:
            return tokens.of_request(self._decoded())
        except FreeholdError:
            return tokens.estimate(self._envelope.body)

    def cacheable(self) -> tuple[ModelRequest | None, str | None]:
        given = self._headers.get(CACHE_CONTROL)
        try:
            return self._decoded(), given
        except FreeholdError:
            return None, given  # The vendor's to judge.

    async def again(self, earlier: ModelResponse, target: Target, meter: Meter) -> Answer:
        return await answered_again(target, self._decoded(), earlier, meter)

    def wanted(self) -> Wanted:
        envelope, headers = self._envelope, self._headers
        return Wanted(
            streamed=envelope.stream,
            input_tokens=len(envelope.body) // BYTES_PER_TOKEN,
            output_tokens_max=envelope.output_tokens_max(),
            affinity=headers.get(SESSION) or envelope.cache_key(),
            priority=_priority(headers.get(PRIORITY)),
        )

    def _passes_to(self, target: Target) -> bool:
        if target.provider.wire != self._wire.name:
            return False
        if (sealed := self._sealed) is None:
            self._sealed = sealed = holds_packed(self._envelope.body)
        return not sealed

    def _decoded(self) -> ModelRequest:
        request = self._request
        if request is None:
            envelope = self._envelope
            request = self._wire.decode_request(envelope.body)
            if envelope.addressed:
                request = structs.replace(request, model=envelope.model, stream=envelope.stream)
            self._request = request
        return request


def _priority(given: str | None) -> Priority:
    match given:
        case None:
            return "normal"
        case "high" | "normal" | "low":
            return given
        case _:
            raise BadRequest(f"expected high, normal or low, got {given[:40]!r}", field=PRIORITY)
