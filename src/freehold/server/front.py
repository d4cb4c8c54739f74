"""The hot path: model calls. One coroutine a request, past ASGI (exchange.py); nothing here waits for the database.

Same wire on both sides: bytes pass through. Otherwise the client's wire decodes the request and encodes the answer. A client
that hangs up hangs up the provider.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Final, Protocol, TypeAlias

from msgspec import Struct, field

from freehold.core import ids
from freehold.core.errors import BadRequest, FreeholdError
from freehold.core.messages import ModelRequest
from freehold.core.policy import Principal
from freehold.core.ports import StreamEncoder, Wire
from freehold.core.stream import Folding, StreamEvent, TextAdded, identified, identified_whole
from freehold.gateway.attempts import PromptCall
from freehold.gateway.cache import Note
from freehold.gateway.calling import Answer, Told
from freehold.gateway.forwarding import Passed, Passing
from freehold.gateway.passing import Envelope
from freehold.gateway.pipeline import Gateway
from freehold.server.edge import tell
from freehold.server.exchange import Answer as Answering
from freehold.server.exchange import Exchange, header_lines, printable
from freehold.server.limit_lines import limit_lines, lines_after
from freehold.server.operations import Door, stopping, told_in

log = logging.getLogger(__name__)

_NO_REQUEST: Final = ModelRequest(model="", messages=())
_WHOLE_KIND: Final = "application/json"
MODELS_TOLD_MAX: Final = 1024


_Begun: TypeAlias = Passing | Passed | Told
_Answer: TypeAlias = Passing | Passed | Answer | Told
_Asked: TypeAlias = PromptCall[Passing | Passed | Answer, _Begun]

Ask: TypeAlias = Callable[[], Awaitable[tuple[Principal, Envelope]]]
"""Who asks, and what. Raises what is wrong with it."""


MoreLines: TypeAlias = Callable[[], bytes]
"""Header lines."""


def cache_lines(note: Note) -> bytes:
    """Whether an earlier answer is given again, and since when it is kept."""
    if not note.hit:
        return b"x-freehold-cache: miss\r\n"
    similarity = "" if note.similarity is None else f"x-freehold-cache-similarity: {note.similarity:.4f}\r\n"
    return f"x-freehold-cache: hit\r\nage: {note.age_s}\r\n{similarity}".encode()


class StreamForm(Protocol):
    """Of one answer: other bytes for the same stream, where a wire has two ways to tell it."""

    @property
    def content_type(self) -> str: ...

    def feed(self, data: bytes) -> bytes:
        """May be empty."""
        ...

    def end(self, data: bytes) -> bytes: ...


class Keeper(Protocol):
    """Of a wire whose clients may leave their conversation with us."""

    async def taken(
        self, principal: Principal, envelope: Envelope, exchange: Exchange, request_id: str
    ) -> tuple[Principal, Envelope, Exchange] | None:
        """What to ask instead and for whom, and where to answer it; None where it answered by itself."""
        ...


@lru_cache(MODELS_TOLD_MAX)
def _model_line(provider: str, model: str) -> str:
    """Tells which model answered."""
    named = printable(f"{provider}/{model}").encode("ascii", "replace").decode()
    return f"x-freehold-model: {named}\r\n"


def route_line(reason: str) -> bytes:
    """Tells a route's client why this model answered."""
    return f"x-freehold-route-reason: {printable(reason)}\r\n".encode("ascii", "replace")


class Front(Struct, frozen=True, kw_only=True):
    """`paths` maps a raw path to the wire that is spoken there. POST only. Of the door, the dialect is not used.

    `keepers` are by the wire's name.
    """

    paths: dict[bytes, Wire]
    gateway: Gateway
    door: Door
    keepers: Mapping[str, Keeper] = {}
    begun: set["_Call"] = field(default_factory=set)
    """Calls that began without a task, until they are over."""

    def begin(self, exchange: Exchange) -> "Answering | None":
        """At one of `paths`, with its body whole. Returns what is still to be awaited; mostly nothing is."""
        head = exchange.head
        wire = self.paths[head.path]
        plain = exchange.direct and head.method == b"POST" and wire.name not in self.keepers
        if not plain or self.door.leaving.is_set():
            return self.serve
        call = _Call(self, wire, exchange, ids.new("req", self.door.clock))
        try:
            principal = self.door.authenticate.of(head)
            envelope = Envelope(exchange.whole_body(self.door.body_bytes_max))
            return call.begin(principal, envelope)
        except Exception as error:  # noqa: BLE001 - told at the outermost edge of a task
            return partial(call.tell, error)

    def ends(self) -> "Sequence[asyncio.Future[None]]":
        """Of each call that began without a task, when it is over."""
        return [call.end() for call in self.begun]

    def stop(self) -> "Sequence[asyncio.Task[None]]":
        """Tells the clients of such calls that the server stops. Gives what they are told by."""
        return [task for call in list(self.begun) if (task := call.stop()) is not None]

    async def serve(self, exchange: Exchange) -> None:
        """At one of `paths`."""
        await self.answer(self.paths[exchange.path], partial(self._ask, exchange), exchange)

    async def _ask(self, exchange: Exchange) -> tuple[Principal, Envelope]:
        principal = self.door.authenticate(exchange.headers)
        return principal, Envelope(await exchange.read(self.door.body_bytes_max))

    async def answer(
        self,
        wire: Wire,
        ask: Ask,
        exchange: Exchange,
        *,
        request_id_as: str = "x-request-id",
        form: StreamForm | None = None,
        more_lines: MoreLines | None = None,
    ) -> None:
        """A call in `wire`, wherever it came in; `ask` authenticates and reads it. `request_id_as` is the vendor's header.

        `form` is for this answer alone, should it be a stream; `more_lines` are asked for when it is whole and goes out.
        """
        door = self.door
        call = _Call(self, wire, exchange, ids.new("req", door.clock), request_id_as, form, more_lines)
        try:
            if exchange.method != b"POST":
                await call.refuse_method()
                return
            if door.leaving.is_set():
                raise stopping()
            principal, envelope = await ask()
            await call.answer(principal, envelope)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the outermost edge of the task
            await tell(error, call.refuse, exchange=exchange, door=door, request_id=call.request_id)


class _Call(Struct, eq=False):
    """One call on its way through. Holds what its parts share."""

    _front: Front
    _wire: Wire
    _exchange: Exchange
    request_id: str
    _request_id_as: str = "x-request-id"
    _form: StreamForm | None = None
    more_lines: MoreLines | None = None
    _encoder: StreamEncoder | None = None
    _begun: _Asked | None = None
    _over: "asyncio.Future[None] | None" = None

    def begin(self, principal: Principal, envelope: Envelope) -> "Answering | None":
        """Without a task, where nothing is to be waited for but the answer. Else returns what is to be awaited."""
        exchange = self._exchange
        asked = self._asked(principal, envelope)
        if not asked.begin(self._ready):
            return partial(self._follow_at_edge, asked, stream=envelope.stream)
        self._begun = asked
        exchange.gone = self._leave
        self._front.begun.add(self)
        return None

    def _asked(self, principal: Principal, envelope: Envelope) -> "_Asked":
        """The call's id is the request's, so that either leads to the other."""
        return self._front.gateway.forward(
            principal,
            envelope,
            wire=self._wire,
            headers=self._exchange.head.headers,
            call_id=ids.alike("call", self.request_id),
        )

    def _ready(self, answer: _Begun | BaseException) -> None:
        """The call is over: all that is left is to say so. Or it is a stream, which goes on in a task."""
        exchange = self._exchange
        if isinstance(answer, Passing):
            exchange.start(self._stream)
            return
        self._ended()
        try:
            if isinstance(answer, BaseException):
                raise answer
            body = answer.body if isinstance(answer, Passed) else self._encoded(answer)
            lines = self._head(answer, _WHOLE_KIND)
            if answer.meter.taken is not None:
                lines += self._limits(answer)
            if not exchange.answer(200, lines, body):
                exchange.start(lambda exchange: exchange.respond(200, lines, body))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - told at the outermost edge of a task
            exchange.start(partial(self.tell, error))

    def _encoded(self, told: Told) -> bytes:
        created = self._front.door.clock.now_ms() // 1000
        response = identified_whole(told.response, self.request_id)
        return self._wire.encode_response(response, created=created, request=told.request)

    async def _stream(self, exchange: Exchange) -> None:
        asked, self._begun, exchange.gone = self._begun, None, None
        try:
            if asked is not None:
                await self._follow_at_edge(asked, exchange, stream=True)
        finally:
            self._ended()

    def _leave(self) -> None:
        """The client has gone."""
        begun = self._begun
        self._ended()
        if begun is not None:
            begun.leave()

    def _ended(self) -> None:
        self._begun = None
        self._exchange.gone = None
        self._front.begun.discard(self)
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def end(self) -> "asyncio.Future[None]":
        """When a call that was begun is over."""
        self._over = asyncio.get_running_loop().create_future()
        return self._over

    def stop(self) -> "asyncio.Task[None] | None":
        self._leave()
        exchange = self._exchange
        if exchange.task is None:
            exchange.start(partial(self.tell, stopping()))
        else:
            exchange.task.cancel()
        return exchange.task

    async def _follow_at_edge(self, asked: "_Asked", exchange: Exchange, *, stream: bool) -> None:
        try:
            await self._follow(asked, stream)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the outermost edge of the task
            await self.tell(error, exchange)

    async def tell(self, error: BaseException, exchange: Exchange) -> None:
        await tell(error, self.refuse, exchange=exchange, door=self._front.door, request_id=self.request_id)

    async def answer(self, principal: Principal, envelope: Envelope) -> None:
        """The last piece goes out when the gateway is done: whoever has the whole answer finds its record."""
        if (keeper := self._front.keepers.get(self._wire.name)) is not None:
            taken = await keeper.taken(principal, envelope, self._exchange, self.request_id)
            if taken is None:
                return
            principal, envelope, self._exchange = taken
        await self._follow(self._asked(principal, envelope), envelope.stream)

    async def _follow(self, asked: "_Asked", stream: bool) -> None:  # noqa: FBT001
        exchange = self._exchange
        async with asked as answer:
            lines = self._head(answer, self._stream_kind() if stream else _WHOLE_KIND)
            if stream:
                exchange.begin(200, lines + self._limits(answer))
            if isinstance(answer, Passed):
                last = answer.body
            else:
                last = await (self._passed(answer) if isinstance(answer, Passing) else self._told(answer))
        if stream:
            await self._end(last)
        else:
            more = b"" if self.more_lines is None else self.more_lines()
            await exchange.respond(200, lines + self._limits(answer) + more, last)

    def _stream_kind(self) -> str:
        told_as = self._wire.stream_content_type if self._form is None else self._form.content_type
        return f"{told_as}\r\ncache-control: no-store\r\nx-accel-buffering: no"

    def _head(self, answer: _Answer, kind: str) -> bytes:
        """Header lines, but for those that depend on what the answer used. `kind` is its content type, and what goes with that."""
        request_id, meter = self.request_id, answer.meter
        lines = (
            f"content-type: {kind}\r\nrequest-id: {request_id}\r\n{self._request_id_as}: {request_id}\r\n"
            f"{_model_line(answer.provider, answer.model)}x-freehold-call-id: {meter.id}\r\n"
        ).encode()
        if (reason := meter.choice.reason) is not None:
            lines += route_line(reason)
        return lines if meter.cache is None else lines + cache_lines(meter.cache)

    async def _passed(self, answer: Passing) -> bytes:
        exchange = self._exchange
        if self._form is None and exchange.direct:
            await answer.pour(exchange.write, exchange.drained)
            return b""
        send = exchange.send if self._form is None else self._formed
        async for chunk in answer.chunks():
            await send(chunk)
        return b""

    async def _told(self, answer: Answer) -> bytes:
        """In the client's wire, by which it was not answered."""
        request, created = answer.request, self._front.door.clock.now_ms() // 1000
        if not request.stream:
            folding = Folding()
            async for event in answer:
                folding.add(identified(event, self.request_id))
            return self._wire.encode_response(folding.response(), created=created, request=request)
        exchange = self._exchange
        self._encoder = encoder = self._wire.stream_encoder(request, created=created)
        if self._form is None and exchange.direct:
            encode, write = encoder.encode, exchange.write

            def told(events: Sequence[StreamEvent]) -> bool:
                if len(events) == 1 and type(event := events[0]) is TextAdded:
                    data = encode(event)
                else:
                    data = self._told_together(events, encoder)
                return not data or write(data)

            await answer.pour(told, exchange.drained)
            return encoder.end()
        send = exchange.send if self._form is None else self._formed
        async for event in answer:
            if data := encoder.encode(identified(event, self.request_id)):
                await send(data)
        return encoder.end()

    def _told_together(self, events: Sequence[StreamEvent], encoder: StreamEncoder) -> bytes:
        """Written at once. What was told before an event that cannot be told is written anyhow."""
        told = b""
        try:
            for event in events:
                told += encoder.encode(identified(event, self.request_id))
        except FreeholdError:
            if told:
                self._exchange.write(told)
            raise
        return told

    async def _formed(self, data: bytes) -> None:
        if self._form is not None and (told := self._form.feed(data)):
            await self._exchange.send(told)

    async def _end(self, data: bytes) -> None:
        await self._exchange.end(data if self._form is None else self._form.end(data))

    def _limits(self, answer: _Answer) -> bytes:
        """Of a whole answer with what it used, of a stream with what it may use."""
        taken = answer.meter.taken
        return b"" if taken is None else lines_after(self._wire.name, taken, self._front.door.clock)

    async def refuse(self, error: FreeholdError) -> None:
        """In the client's dialect; also in the middle of a stream, which ends here."""
        if self._exchange.started:
            encoder = self._encoder or self._wire.stream_encoder(_NO_REQUEST)
            if error.detail is not None:
                extra = {"request_id": self.request_id, "code": error.code, "detail": error.detail}
                log.warning("stream.broken", extra=extra)
            await self._end(encoder.error(error, self.request_id))
        else:
            told = told_in(self._wire, error, self.request_id)
            limits = limit_lines(self._wire.name, error.standings, self._front.door.clock.now_ms())
            await self._exchange.respond(told.status, header_lines(told.headers.items()) + limits, told.body)

    async def refuse_method(self) -> None:
        error = BadRequest(f"expected POST, got {self._exchange.method.decode('ascii', 'replace')}")
        told = told_in(self._wire, error, self.request_id)
        lines = header_lines([*told.headers.items(), ("allow", "POST")])
        await self._exchange.respond(405, lines, told.body)
