"""Providers: one model call over HTTP, for every vendor that takes JSON and answers JSON or server-sent events.

A vendor's adapter says where and with which headers; here is what they share: sending, judging what comes back before it is
believed, and turning every fault into an error that names the provider. Not here: the format itself (a Wire), connections
(`_http`), retries (the gateway's).
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Final, Literal

import msgspec

from freehold.core.begins import Done, HangUp
from freehold.core.errors import (
    BrokenOff,
    Forbidden,
    FreeholdError,
    TimedOut,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from freehold.core.messages import ModelResponse
from freehold.core.ports import Chunks, Wire
from freehold.core.routes import CallTimeouts
from freehold.core.stream import Finished, StreamEvent, identified, unfold
from freehold.providers._begun import Begun
from freehold.providers._http import HeaderBlock, HttpPool, Reply, Target, Timeouts
from freehold.providers._http_connection import Connection, Told
from freehold.providers._token import Bearer

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""A whole answer, and all that a stream may send (media comes inline)."""

ERROR_BYTES_MAX: Final = 64 * 1024
BLANK_BYTES_MAX: Final = 16 * 1024
"""Empty lines before a stream's first event."""

ERROR_PEEK_BYTES: Final = 512
"""Vendors put `error` first where it stands instead of an answer."""

TIMEOUTS: Final = Timeouts(connect_s=10.0, first_byte_s=600.0, idle_s=300.0, total_s=3600.0)
"""First byte: a model may think for ten minutes, as vendors' SDKs allow. Idle: between two events."""

NAME_CHARS: Final = 24
"""Of an answer that its vendor gave no id. Made of the whole conversation, so that no two turns of one have the same."""

RUN_OUT_S: Final = 1.0
"""How long a finished answer's connection may stay open without an end."""

SSE_BEGINNINGS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")


def patience(declared: CallTimeouts | None, otherwise: Timeouts = TIMEOUTS) -> Timeouts:
    """What was declared, and the rest as usual."""
    if declared is None:
        return otherwise
    return msgspec.structs.replace(
        otherwise,
        connect_s=declared.connect_s or otherwise.connect_s,
        first_byte_s=declared.first_event_s or otherwise.first_byte_s,
        idle_s=declared.idle_s or otherwise.idle_s,
        total_s=declared.total_s or otherwise.total_s,
    )


def fixed_headers(
    credential: tuple[bytes, str] | None, headers: Mapping[str, str]
) -> list[tuple[bytes, bytes]]:
    """Of every request. What is declared goes before our own of the same name (a proxy's `authorization`, say)."""
    fixed = {b"content-type": b"application/json"}
    if credential is not None:
        name, value = credential
        fixed[name] = value.encode()
    fixed |= {name.lower().encode(): value.encode() for name, value in headers.items()}
    return list(fixed.items())


class Upstream:
    """`credential` says in an error where the refused key comes from (`OPENAI_API_KEY`), never what it is.

    `path` is where calls go that name none. `beginnings` are what a stream of this vendor may begin with. `bearer` is the
    credential of each call where it runs out.
    """

    __slots__ = (
        "_bearer",
        "_beginnings",
        "_path",
        "_pool",
        "_target",
        "credential",
        "name",
        "timeouts",
        "wire",
    )

    def __init__(
        self,
        name: str,
        wire: Wire,
        pool: HttpPool,
        target: Target,
        *,
        path: str,
        credential: str,
        timeouts: Timeouts = TIMEOUTS,
        beginnings: tuple[bytes, ...] = SSE_BEGINNINGS,
        bearer: Bearer | None = None,
    ) -> None:
        self.name = name
        self.wire = wire
        self.credential = credential
        self.timeouts = timeouts
        self._pool = pool
        self._target = target
        self._path = path
        self._beginnings = beginnings
        self._bearer = bearer

    def begin(
        self, body: bytes, headers: HeaderBlock, path: str | None, told: Told, *, early: bool
    ) -> Connection | None:
        """As `HttpPool.begin`; the reply's status may be any."""
        if self._bearer is not None:
            return None
        target = self._target
        data = target.post(path or self._path, headers, body)
        return self._pool.begin(target, data, self.timeouts, told, early=early)

    async def send(
        self, body: bytes, headers: HeaderBlock, path: str | None = None, *, fresh: bool = False
    ) -> Reply:
        """The reply's status is 200. Raises what was refused, and then has closed the reply."""
        if self._bearer is not None:
            headers = HeaderBlock(headers + await self._bearer.header())
        return await self.accepted(
            await self._pool.request(
                self._target,
                body,
                path=path or self._path,
                headers=headers,
                timeouts=self.timeouts,
                fresh=fresh,
            )
        )

    async def accepted(self, reply: Reply) -> Reply:
        """The same, if its status is 200. Raises as `send` does."""
        if reply.status == 200:
            return reply
        if reply.status == 401 and self._bearer is not None:
            self._bearer.refused()
        raise await self._refusal(reply)

    async def read(self, reply: Reply) -> bytes:
        """A whole JSON answer. Raises Unavailable for anything else, and the error that came in an answer's place."""
        return self.judged(reply, await reply.read(ANSWER_BYTES_MAX))

    def judged(self, reply: Reply, body: bytes) -> bytes:
        """A whole answer that was read. Raises as `read` does."""
        if body[:1] != b"{":
            body = body.strip()
            if not body.startswith(b"{"):
                raise self._strange(reply, body)
        if body.find(b'"error"', 0, ERROR_PEEK_BYTES) >= 0:
            self.raise_inside(body, reply)
        return body

    def first_now(self, reply: Reply) -> bytes:
        """As `first`, where it is here and begins as a stream does; else nothing, and `first` is to be asked."""
        return reply.beginning(self._beginnings)

    async def first(self, reply: Reply) -> bytes:
        """The first piece of a stream of events. Raises as `read` does; a whole answer instead of a stream is `NotStreamed`."""
        piece = b""
        async for more in reply:
            piece += more
            begin = piece.lstrip(b"\xef\xbb\xbf\r\n ")
            if begin.startswith(b"{"):
                raise NotStreamed(piece)
            if begin.startswith(self._beginnings):
                return piece
            if begin and not any(known.startswith(begin) for known in self._beginnings):
                break
            if len(piece) > BLANK_BYTES_MAX:
                break
        reply.close()
        raise self._strange(reply, piece)

    def named(self, error: FreeholdError) -> FreeholdError:
        if not error.message.startswith(self.name):
            error.message = f"{self.name}: {error.message}"
        if isinstance(error, Unauthenticated):
            # Not the caller's credential but ours, so the caller must not be told to mend his; and no retry will help.
            mine = Forbidden(
                f"{self.name} refused the key that Freehold has for it ({self.credential}): replace it",
                detail=error.detail or error.message,
            )
            mine.__cause__ = error
            return mine
        return error

    def raise_inside(self, body: bytes, reply: Reply) -> None:
        """200, and an error inside: OpenRouter and some proxies do that, with the status as `error.code`."""
        try:
            inside = msgspec.json.decode(body, type=_Inside)
        except msgspec.DecodeError:
            return
        if inside.error is None:
            return
        code = inside.error.code if isinstance(inside.error, _Coded) else None
        status = code if isinstance(code, int) and 400 <= code <= 599 else 502
        raise self.named(self.wire.decode_error(status, reply.headers, body))

    def _strange(self, reply: Reply, body: bytes) -> FreeholdError:
        if not body:
            return Unavailable(f"{self.name} answered 200 with an empty body")
        kind = reply.headers.get("content-type", "no content-type")[:80]
        return Unavailable(
            f"{self.name} answered 200 with something that is not its protocol ({kind}): check base_url",
            detail=_excerpt(body),
        )

    async def _refusal(self, reply: Reply) -> FreeholdError:
        try:
            body = await reply.read(ERROR_BYTES_MAX)
        except (TooLarge, BrokenOff, TimedOut):
            body = b""  # The status alone must do.
        if 300 <= reply.status < 400:
            return Unavailable(
                f"{self.name} redirects (status {reply.status}), and model calls don't follow: check base_url",
                detail=reply.headers.get("location"),
            )
        return self.named(self.wire.decode_error(reply.status, reply.headers, body))


class NotStreamed(Exception):
    """A stream was asked for, and a whole answer came (or an error, with status 200). Holds its first bytes."""

    def __init__(self, piece: bytes) -> None:
        super().__init__()
        self.piece = piece


class _Coded(msgspec.Struct):
    code: int | str | None = None


class _Inside(msgspec.Struct):
    error: _Coded | str | None = None


def _excerpt(body: bytes) -> str:
    return body[:ERROR_PEEK_BYTES].decode("utf-8", "replace")


class Call:
    """`Provider.call` over an Upstream: entered once, left once; leaving early hangs up."""

    __slots__ = ("_body", "_headers", "_path", "_reply", "_stream", "_upstream")

    def __init__(
        self,
        upstream: Upstream,
        body: bytes,
        headers: HeaderBlock,
        *,
        stream: bool,
        path: str | None = None,
    ) -> None:
        self._upstream = upstream
        self._body = body
        self._headers = headers
        self._stream = stream
        self._path = path
        self._reply: Reply | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's, once entered; names are lower case."""
        return {} if self._reply is None else self._reply.headers

    def begin(self, done: Done[ModelResponse]) -> HangUp | None:
        """As `core.begins.Begins` has it; None for a stream, too."""
        if self._stream:
            return None
        begun = Begun(self, done)
        begun.connection = connection = self._upstream.begin(
            self._body, self._headers, self._path, begun.told, early=False
        )
        return None if connection is None else begun.hang_up

    def taken_now(self, reply: Reply) -> ModelResponse | None:
        body = reply.whole() if reply.status == 200 else None
        return None if body is None else self._decoded(self._upstream.judged(reply, body))

    async def taken(self, reply: Reply) -> ModelResponse:
        upstream = self._upstream
        return self._decoded(await upstream.read(await upstream.accepted(reply)))

    async def again(self) -> ModelResponse:
        return await self.taken(await self._upstream.send(self._body, self._headers, self._path, fresh=True))

    def _decoded(self, body: bytes) -> ModelResponse:
        return self._upstream.wire.decode_response(body, provider=self._upstream.name)

    async def __aenter__(self) -> AsyncIterator[StreamEvent]:
        upstream = self._upstream
        self._reply = reply = await upstream.send(self._body, self._headers, self._path)
        self._body = b""
        try:
            if self._stream:
                try:
                    return Events(upstream, reply, await upstream.first(reply))
                except NotStreamed as whole:
                    # Some servers don't stream; a whole answer is as good. `read` sees to an error in its place.
                    body = await _rest(upstream, reply, whole.piece)
            else:
                body = await upstream.read(reply)
            return _Whole(unfold(upstream.wire.decode_response(body, provider=upstream.name)))
        except BaseException:
            reply.close()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if self._reply is not None:
            self._reply.close()
        return False


async def _rest(upstream: Upstream, reply: Reply, piece: bytes) -> bytes:
    body = piece + await reply.read(ANSWER_BYTES_MAX)
    if b'"error"' in body[:ERROR_PEEK_BYTES]:
        upstream.raise_inside(body, reply)
    return body


class _Whole:
    """A whole answer's events, without waiting."""

    __slots__ = ("_events",)

    def __init__(self, events: Iterator[StreamEvent]) -> None:
        self._events = events

    def __aiter__(self) -> "_Whole":
        return self

    async def __anext__(self) -> StreamEvent:
        for event in self._events:
            return event
        raise StopAsyncIteration


class Events:
    """A stream's events. Read to its end, the connection can serve the next call."""

    __slots__ = ("_at", "_decoder", "_events", "_finished", "_reply", "_upstream")

    def __init__(self, upstream: Upstream, reply: Reply, first: bytes) -> None:
        self._upstream = upstream
        self._decoder = upstream.wire.stream_decoder(provider=upstream.name)
        self._reply: Reply | None = reply.again_from(first, limit_bytes=ANSWER_BYTES_MAX)
        self._events: Sequence[StreamEvent] = ()
        self._finished = False
        self._at = 0

    def __aiter__(self) -> "Events":
        return self

    async def __anext__(self) -> StreamEvent:
        while self._at >= len(self._events):
            if self._reply is None:
                raise StopAsyncIteration
            await self._more(self._reply)
        event = self._events[self._at]
        self._at += 1
        return event

    async def _more(self, reply: Reply) -> None:
        self._at, self._events = 0, ()
        if self._finished:
            self._reply = None
            await _run_out(reply)
            return
        try:
            self._events = self._decode(await reply.__anext__())
        except StopAsyncIteration:
            self._reply = None
            self._events = self._end()
        except FreeholdError as error:
            raise self._upstream.named(error) from error.__cause__

    async def pour(
        self, take: Callable[[Sequence[StreamEvent]], bool], drained: Callable[[], Awaitable[object]]
    ) -> None:
        """As `core.ports.Pours` has it: what one read of the socket brought, together."""
        if beside := self._events[self._at :]:
            self._at = len(self._events)
            if not take(beside):
                await drained()
        reply, self._reply = self._reply, None
        if reply is None:
            return
        if not self._finished and not await self._poured(reply, take, drained):
            take(self._end())
        else:
            await _run_out(reply)

    async def _poured(
        self,
        reply: Reply,
        take: Callable[[Sequence[StreamEvent]], bool],
        drained: Callable[[], Awaitable[object]],
    ) -> bool:
        """False where the bytes have ended, and the answer was not finished before."""
        decode, taking = self._decode, False

        def fed(piece: bytes) -> bool:
            nonlocal taking
            events = decode(piece)
            taking = True  # From here on, a fault is of whoever takes them.
            ready = take(events)
            taking = False
            return ready and not self._finished

        async def wait() -> None:
            if self._finished:
                raise _Over
            await drained()

        try:
            await reply.pour(fed, wait)
        except _Over:
            return True
        except FreeholdError as error:
            raise (error if taking else self._upstream.named(error)) from error.__cause__
        return False

    def _decode(self, piece: bytes) -> Sequence[StreamEvent]:
        events = self._decoder.feed(piece)
        if events and type(events[-1]) is Finished:
            self._finished = True
        return events

    def _end(self) -> Sequence[StreamEvent]:
        try:
            return self._decoder.end()
        except FreeholdError as error:
            raise self._upstream.named(error) from error.__cause__


class _Over(Exception):
    """The answer is finished, although its bytes may go on."""


async def _run_out(reply: Reply) -> None:
    """The answer is finished; at its proper end the connection can serve again. How it ends otherwise doesn't matter."""
    if reply.ended:
        return
    try:
        async with asyncio.timeout(RUN_OUT_S):
            async for _ in reply:
                pass
    except (FreeholdError, TimeoutError):
        reply.close()


class Forward(msgspec.Struct, eq=False):
    """`Provider.forward` over an Upstream: entered once, left once; leaving early hangs up."""

    upstream: Upstream
    body: bytes
    headers: HeaderBlock
    stream: bool
    path: str | None = None
    _reply: Reply | None = None

    def begin(self, done: "Done[bytes | Passed]") -> HangUp | None:
        """As `core.begins.Begins` has it; of a stream, `done` hears once its first piece is there."""
        begun = Begun(self, done)
        begun.connection = connection = self.upstream.begin(
            self.body, self.headers, self.path, begun.told, early=self.stream
        )
        return None if connection is None else begun.hang_up

    def taken_now(self, reply: Reply) -> "bytes | Passed | None":
        if reply.status != 200:
            return None
        if self.stream:
            first = self.upstream.first_now(reply)
            return self._begins(reply, first) if first else None
        body = reply.whole()
        return None if body is None else self.upstream.judged(reply, body)

    async def taken(self, reply: Reply) -> "bytes | Passed":
        raw = await self._opened(await self.upstream.accepted(reply))
        return raw if self.stream else await raw.read()

    async def again(self) -> "bytes | Passed":
        return await self.taken(await self.upstream.send(self.body, self.headers, self.path, fresh=True))

    async def __aenter__(self) -> "Passed":
        return await self._opened(await self.upstream.send(self.body, self.headers, self.path))

    async def _opened(self, reply: Reply) -> "Passed":
        upstream, body, self.body = self.upstream, self.body, b""
        self._reply = reply
        try:
            if not self.stream:
                return Passed(reply, await upstream.read(reply), "application/json", whole=True)
            try:
                return self._begins(reply, await upstream.first(reply))
            except NotStreamed as whole:
                return await self._not_streamed(reply, body, whole.piece)
        except BaseException:
            reply.close()
            raise

    def _begins(self, reply: Reply, first: bytes) -> "Passed":
        begin = first[:ERROR_PEEK_BYTES]
        if b"error" in begin or b":exception-type" in begin:
            self._raise_first(first)
        self.body, self._reply = b"", reply
        return Passed(reply, first, self.upstream.wire.stream_content_type, whole=False)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if self._reply is not None:
            self._reply.close()
        return False

    async def _not_streamed(self, reply: Reply, body: bytes, piece: bytes) -> "Passed":
        """The client asked for a stream and its provider has none: the whole answer is told as one, in the same wire."""
        wire = self.upstream.wire
        whole = wire.decode_response(await _rest(self.upstream, reply, piece), provider=self.upstream.name)
        encoder = wire.stream_encoder(wire.decode_request(body))
        name = hashlib.sha256(body).hexdigest()[:NAME_CHARS]
        events = (identified(event, name) for event in unfold(whole))
        told = b"".join(map(encoder.encode, events)) + encoder.end()
        return Passed(reply, told, wire.stream_content_type, whole=True)

    def _raise_first(self, first: bytes) -> None:
        """An error as the first event is still before the answer: somebody else may be asked."""
        upstream = self.upstream
        try:
            upstream.wire.stream_decoder(provider=upstream.name).feed(first)
        except FreeholdError as error:
            raise upstream.named(error) from error.__cause__


class Passed:
    """`RawAnswer`. Either the whole body is here, or its first piece and a reply that goes on."""

    __slots__ = ("_first", "_reply", "content_type", "status")

    def __init__(self, reply: Reply, first: bytes, content_type: str, *, whole: bool) -> None:
        self.status = 200
        self.content_type = content_type
        self._reply = None if whole else reply
        self._first = first

    def chunks(self) -> Chunks:
        """Once. The reply itself goes on: a piece of a stream passes through few hands."""
        if self._reply is None:
            return self
        return self._reply.again_from(self._first, limit_bytes=ANSWER_BYTES_MAX)

    def __aiter__(self) -> "Passed":
        return self

    async def __anext__(self) -> bytes:
        if not self._first:
            raise StopAsyncIteration
        return await self.read()

    async def pour(self, write: Callable[[bytes], bool], drained: Callable[[], Awaitable[object]]) -> None:
        """Of a whole answer, which is one chunk."""
        async for piece in self:
            if not write(piece):
                await drained()

    async def read(self) -> bytes:
        """Once."""
        first, self._first = self._first, b""
        return first if self._reply is None else first + await self._reply.read(ANSWER_BYTES_MAX)
