"""Providers: one connection that speaks HTTP/1.1, one exchange at a time.

The head is found here and judged by llhttp (through httptools), which also does the framing of bodies. llhttp is left
strict, so it refuses what smuggles: `content-length` beside `transfer-encoding`, two lengths, bare line feeds, folded
headers. Not here: which connection serves which request (`_http_origin`), and dialling (`_http_dial`).
Sources: https://www.rfc-editor.org/rfc/rfc9112#section-6.3 (body length), https://www.rfc-editor.org/rfc/rfc9110#section-15.2
(interim answers).
"""

import asyncio
from collections.abc import Callable
from enum import Enum
from math import inf
from typing import Protocol, TypeAlias, cast

import httptools
import msgspec

from freehold.core.errors import BrokenOff, FreeholdError, TimedOut, Unavailable
from freehold.providers._http_chunk import CRLF, READ_BYTES_MAX, SIZE_LINES
from freehold.providers._http_reply import Reply

HEAD_BYTES_MAX = 64 * 1024
"""An answer's status line and headers; also its trailers, and chunk framing that carries no body."""

HEAD_TOO_LARGE = f"sent more than HEAD_BYTES_MAX = {HEAD_BYTES_MAX} bytes of headers"

INTERIM_HEADS_MAX = 16
UNREAD_BYTES_MAX = 256 * 1024
"""Above this much unread body the socket is no longer read, until the reader has taken what there is."""

WRITE_BYTES_MAX = 64 * 1024
"""A larger request is written in slices of this size, each when the one before has mostly left."""

STALE_WINDOW_S = 1.0
"""See `Stale`."""

_PLAINLY_CHUNKED = b"\r\ntransfer-encoding: chunked\r\n"
"""What most streams say of their framing, and nothing is to be looked at for."""

TIMER_EARLY_S = 0.001
"""uvloop's timers count whole milliseconds, so one may ring this much too soon."""

LOOKS = 8
"""While pieces come one by one no clock is read: so often in each idle_s it is looked whether any came. Silence is told an eighth late at most."""


class Timeouts(msgspec.Struct, frozen=True):
    """Limits of one request, in seconds; None is no limit."""

    queue_s: float | None = 10.0
    """Waiting for one of the origin's connections; reached: Overloaded. All other limits give TimedOut."""
    connect_s: float | None = 10.0
    """DNS, TCP, proxy and TLS together."""
    first_byte_s: float | None = 600.0
    """From the request's last byte to the end of the answer's head. A model may think for minutes."""
    idle_s: float | None = 300.0
    """Between two pieces of the answer (or of a long request). Stands still while our own reader is behind."""
    total_s: float | None = 3600.0
    """From the call of `request` to the answer's last byte."""


class Stale(Unavailable):
    """The peer closed a *reused* connection without one byte of answer, just after we wrote the request.

    A server may close an idle connection at any time, and its close can cross our request on the way. Then the request
    was never read, and sending it again on a fresh connection is right, for a POST too
    (https://www.rfc-editor.org/rfc/rfc9112#section-9.3.1). A server that read the request and died looks the same, except
    that a close that crossed arrives within one round trip: so only a close within STALE_WINDOW_S counts. What is left
    at stake is a second bill for a model call, never a second effect.
    """


Told: TypeAlias = Callable[[Reply | FreeholdError], None]


class Keeper(Protocol):
    """Who owns the connection between two exchanges."""

    def release(self, connection: "Connection") -> None:
        """The exchange is over, the connection can serve the next one."""

    def freed(self, connection: "Connection") -> None:
        """The connection serves nobody any more; its place is free. Comes once."""

    def closed(self, connection: "Connection") -> None:
        """The socket is closed. Comes once, after `freed`."""


class _Phase(Enum):
    IDLE = "idle"
    SENDING = "sending"
    HEAD = "head"
    BODY = "body"
    GONE = "gone"


_IDLE, _SENDING, _HEAD, _BODY, _GONE = _Phase
"""By names of their own: looking for one in its class takes as long as calling a function, and is done six times a call."""


class Connection(asyncio.Protocol):
    """Limits are watched by one timer that is left where it is when its deadline moves away, which is the usual case.

    While the parser stands between two chunks of a body, a read that is one plain chunk passes it by: it stands there still.
    """

    __slots__ = ("_between_chunks", "_bodiless", "_chunk_over", "_complete", "_deadline", "_early", "_fruitless_bytes", "_head",
                 "_heard", "_idle_s", "_interim_count", "_keep", "_keeper", "_loop", "_name", "_parser", "_parts", "_paused", "_phase",
                 "_reply", "_sent_at", "_served_count", "_silent", "_timeouts", "_timer", "_timer_at", "_told", "_total_at", "_transport",
                 "_waiter", "_writable", "expires_at", "idle_s_max")  # fmt: skip

    def __init__(self, keeper: Keeper, name: str) -> None:
        self._keeper = keeper
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._phase = _IDLE
        self._head = bytearray()
        self._parts: list[bytes] = []
        self._reply: Reply | None = None
        self._waiter: asyncio.Future[Reply | FreeholdError] | None = None
        self._told: Told | None = None
        self._writable: asyncio.Future[None] | None = None
        self._between_chunks: Reply | None = None
        self._paused = self._silent = self._chunk_over = self._heard = self._early = False
        self._served_count = 0
        self._sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = self._deadline = self._total_at = inf
        self.idle_s_max = inf
        """How long the server says that it keeps an idle connection, less a second for the way."""
        self.expires_at = inf
        """For the keeper: the loop's time after which this one, idle, is not used again."""

    # One exchange.

    async def exchange(
        self, head: bytes, body: bytes, timeouts: Timeouts, *, bodiless: bool, total_at: float
    ) -> Reply:
        """Sends a request's whole `head` and `body`; returns once the answer's head is there.

        `bodiless` says that the answer to this method has no body (HEAD). `total_at` is the loop's time at which all must
        be over. Any failure, cancellation too, closes the connection. Raises Stale, Unavailable, TimedOut.
        """
        if self._phase is not _IDLE:
            raise Stale(f"{self._name} closed the connection before the request")
        self._expect(timeouts, total_at, self._loop.time())
        self._bodiless = bodiless
        # The answer travels in this future and not in a field: by the time this coroutine runs again, the connection
        # may already serve somebody else.
        waiter = self._waiter = self._loop.create_future()
        try:
            if len(body) <= WRITE_BYTES_MAX:
                self._phase = _HEAD
                self._limit_first_byte(self._sent_at)
                self._transport.write(head + body if body else head)
            else:
                await self._send_slices(head, body, waiter)
            answered = await waiter
        except BaseException:
            self._forsake(waiter)
            raise
        if isinstance(answered, Reply):
            return answered
        raise answered

    def begin(self, data: bytes, timeouts: Timeouts, now: float, told: "Told", *, early: bool) -> None:
        """As `exchange`, without waiting: of a request of up to WRITE_BYTES_MAX, for an answer that may have a body, while `usable`.

        `told` comes once: with the reply when that has ended (well or not) or must be read on (`early`: when some of it is there), or
        with what kept it from beginning.
        """
        self._expect(timeouts, inf if timeouts.total_s is None else now + timeouts.total_s, now)
        self._told, self._early = told, early
        self._phase = _HEAD
        first_byte_s = timeouts.first_byte_s
        deadline = self._total_at
        if first_byte_s is not None and now + first_byte_s < deadline:
            deadline = now + first_byte_s
        self._deadline = deadline
        if deadline < self._timer_at:
            self._limit(deadline)
        self._transport.write(data)

    def _expect(self, timeouts: Timeouts, total_at: float, now: float) -> None:
        self._timeouts = timeouts
        self._total_at = total_at
        self._idle_s = inf if timeouts.idle_s is None else timeouts.idle_s
        self._bodiless = self._complete = self._chunk_over = self._heard = False
        self._silent = self._keep = True
        self._fruitless_bytes = self._interim_count = 0
        self._sent_at = now

    async def _send_slices(
        self, head: bytes, body: bytes, waiter: "asyncio.Future[Reply | FreeholdError]"
    ) -> None:
        """Stops early when the server answers early (401, 413): the rest has no reader."""
        self._phase = _SENDING
        self._transport.write(head)
        view = memoryview(body)
        for start in range(0, len(body), WRITE_BYTES_MAX):
            self._limit(self._loop.time() + self._idle_s)
            while self._writable is not None and not waiter.done():
                await self._writable
            if waiter.done():
                return
            self._transport.write(view[start : start + WRITE_BYTES_MAX])
        self._phase = _HEAD
        self._limit_first_byte(self._loop.time())

    def _forsake(self, waiter: "asyncio.Future[Reply | FreeholdError]") -> None:
        if self._waiter is waiter:
            self.abort()
        elif not waiter.cancelled() and isinstance(answered := waiter.result(), Reply):
            answered.close()

    def abort(self) -> None:
        """Hangs up at once and gives the place back. Idempotent."""
        if self._phase is not _GONE:
            self._lose(BrokenOff(f"the answer of {self._name} was closed before its end"))

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
            self._limit(self._loop.time() + self._idle_s)

    @property
    def usable(self) -> bool:
        return self._phase is _IDLE

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        reply = self._between_chunks
        if reply is not None:
            length = len(data)
            lines = SIZE_LINES[length] if length <= READ_BYTES_MAX else None
            if lines is not None and data.startswith(lines) and data.endswith(CRLF):
                self._heard = True
                if reply.add(data[len(lines[0]) : -2]) > UNREAD_BYTES_MAX:
                    self._pause(reply)
                return
            self._between_chunks = None
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        phase = self._phase
        if phase is not _BODY:
            if phase is _IDLE or phase is _GONE:
                self.abort()  # Nobody asked. A late or second answer must not become the next request's.
                return
            self._silent = False
            end = data.find(b"\r\n\r\n") + 4
            if end > 3 and not self._head and data.startswith(b"HTTP/1.") and data[8:10] != b" 1":
                data = self._open(data[:end], data[end:])
            else:
                data = self._find_head(data)
            if not data:
                return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._keep = False
            if not self._complete:
                self._deliver(len(data))
                self._lose(
                    BrokenOff(f"the answer of {self._name} turned into something else", detail=str(error))
                )
                return
        if self._complete:
            self._finish(self._came())
            return
        self._deliver(len(data))
        # The chunk's end was its last callback, and what comes after it is no half of a size line, which has no line's end.
        if self._chunk_over and self._reply is not None and data.endswith(CRLF):
            self._between_chunks = self._reply
            self._look_by(self._loop.time() + self._idle_s / LOOKS)

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def eof_received(self) -> None:
        if self._phase is _IDLE:
            self.abort()  # Before anybody takes it.

    def connection_lost(self, exc: Exception | None) -> None:
        if self._phase is _BODY:
            self._keep = False
            if exc is None and self._reply is not None and _ends_with_connection(self._reply):
                self._finish()
            else:
                self._lose(
                    BrokenOff(
                        f"{self._name} closed the connection in the middle of its answer", detail=_said(exc)
                    )
                )
        elif self._phase is not _GONE:
            self._lose(self._unanswered(exc))
        del self._parser  # It holds our methods: a cycle.
        self._keeper.closed(self)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep = False  # A second answer to one request.

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._parts.append(body)

    def on_chunk_header(self) -> None:
        self._chunk_over = False

    def on_chunk_complete(self) -> None:
        self._chunk_over = True

    def on_message_complete(self) -> None:
        if not self._complete:
            self._complete = True
            if not self._parser.should_keep_alive():
                self._keep = False

    # Reading.

    def _find_head(self, data: bytes) -> bytes:
        """Opens the answer once its final head is there; interim ones (100, 103) are passed over.

        Returns what follows the head and is still to be parsed.
        """
        while data:
            if not self._head and (end := data.find(b"\r\n\r\n") + 4) > 3 and data.startswith(b"HTTP/1."):
                head, data = data[:end], data[end:]
            else:
                head, data = self._gather_head(data)
            if not head:
                return b""
            if head[8:10] != b" 1":
                return self._open(head, data)
            self._interim_count += 1
            if head[9:12] == b"101" or self._interim_count > INTERIM_HEADS_MAX:
                self._refuse("switched protocols unasked, or sent interim answers without end", head)
                return b""
        return b""

    def _gather_head(self, data: bytes) -> tuple[bytes, bytes]:
        """Holds what comes until a head is whole: then it and what follows, else nothing. Linear in dribbles."""
        held = self._head
        scan_from = max(0, len(held) - 3)
        held += data
        end = held.find(b"\r\n\r\n", scan_from) + 4
        if not b"HTTP/1.".startswith(held[:7]):
            self._refuse("answered with something that is not HTTP/1.1", bytes(held[:80]))
        elif end > 3:
            whole = bytes(held)
            held.clear()
            return whole[:end], whole[end:]
        elif len(held) > HEAD_BYTES_MAX:
            self._refuse(HEAD_TOO_LARGE, b"")
        return b"", b""

    def _open(self, head: bytes, rest: bytes) -> bytes:
        """The answer begins. Returns what of `rest` is to be parsed: nothing if it was refused or is complete."""
        if len(head) > HEAD_BYTES_MAX:
            self._refuse(HEAD_TOO_LARGE, b"")
            return b""
        try:
            self._parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._refuse(f"answered with something that is not HTTP/1.1 ({error})", head)
            return b""
        reply = Reply(self._parser.get_status_code(), head, self._name, self)
        lowered = head.lower()
        if not self._served_count or lowered.replace(_PLAINLY_CHUNKED, b"\r\n", 1).find(b"-encoding:") >= 0:
            try:
                self._read_fields(lowered, reply)
            except Unavailable as error:
                self._lose(error)
                return b""
        if self._bodiless and not self._complete:
            self._complete = True
            self._keep = False  # The parser still waits for a body that never comes.
        if self._complete and rest:
            self._keep = False
        if self._told is None or self._complete or not rest:
            self._begin_reply(reply, rest)
            return b"" if self._complete else rest
        # Nobody waits for its beginning, and what comes next is delivered to whoever is told of its end.
        reply.told, self._told = self._told, None
        self._phase, self._reply = _BODY, reply
        return rest

    def _read_fields(self, lowered: bytes, reply: Reply) -> None:
        """The few headers that are the connection's business."""
        if b"-encoding:" in lowered:
            coding = reply.headers.get("transfer-encoding", "chunked").lower()
            if coding != "chunked":
                raise Unavailable(
                    f"{self._name} answered with transfer-encoding {coding[:40]!r}: only chunked is understood"
                )
            if "content-encoding" in reply.headers and not self._bodiless:
                reply.inflate(reply.headers["content-encoding"].lower())
        if not self._served_count and b"\r\nkeep-alive:" in lowered:
            seconds = reply.headers["keep-alive"].lower().partition("timeout=")[2].partition(",")[0].strip()
            if seconds.isdecimal() and len(seconds) < 7:
                self.idle_s_max = max(0, int(seconds) - 1)

    def _begin_reply(self, reply: Reply, rest: bytes) -> None:
        if self._phase is _SENDING:
            self._keep = False
        self._phase = _BODY
        self._reply = reply
        reply.told, self._told = self._told, None
        waiter = self._waiter
        if waiter is not None and not waiter.done():  # Done: cancelled, and its coroutine will hang up.
            self._waiter = None
            waiter.set_result(reply)
        if self._writable is not None:
            self.resume_writing()
        if self._complete:
            self._finish()
        elif not rest:  # Else its delivery, which comes next, sets the limit.
            self._limit(self._loop.time() + self._idle_s)

    def _came(self) -> bytes:
        """What the parser found of the body in one read."""
        parts = self._parts
        piece = b"".join(parts)  # One piece is not copied.
        parts.clear()
        return piece

    def _deliver(self, received_bytes: int) -> None:
        """To the reader of an answer that goes on."""
        reply = self._reply
        if reply is None:
            return
        if piece := self._came():
            self._fruitless_bytes = 0
            reply.add(piece)
        else:
            self._fruitless_bytes += received_bytes
        if self._fruitless_bytes > HEAD_BYTES_MAX:
            self._lose(
                BrokenOff(
                    f"{self._name} sent over HEAD_BYTES_MAX = {HEAD_BYTES_MAX} bytes of framing with no body"
                )
            )
        elif reply.size > UNREAD_BYTES_MAX:
            self._pause(reply)
        else:
            self._limit(self._loop.time() + self._idle_s)
            if self._early and piece:
                reply.tell()

    def _pause(self, reply: Reply) -> None:
        self._paused = True
        self._heard = False
        self._transport.pause_reading()
        self._deadline = inf
        reply.tell()

    # Endings.

    def _finish(self, last: bytes = b"") -> None:
        """The answer is whole, with its last piece."""
        reply, self._reply = self._reply, None
        self._deadline = self._total_at = inf
        if self._keep:
            if self._paused:
                self._paused = False
                self._transport.resume_reading()
            self._served_count += 1
            self._phase = _IDLE
            self._keeper.release(self)
        else:
            self._lose(BrokenOff(f"{self._name} closed the connection"))
        if reply is not None:
            reply.end(None, last)  # Last: whoever is told of it may go on with another request.

    def _refuse(self, what: str, sample: bytes) -> None:
        self._lose(Unavailable(f"{self._name} {what}", detail=f"began with {sample[:80]!r}"))

    def _lose(self, failure: FreeholdError) -> None:
        """Whoever waits gets `failure`; the socket is closed, and what it still had to say is not read."""
        self._phase = _GONE
        self._between_chunks = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        reply, self._reply = self._reply, None
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            self._waiter = None
            waiter.set_result(failure)
        self.resume_writing()
        self._transport.abort()
        self._keeper.freed(self)
        told, self._told = self._told, None
        if told is not None:
            told(failure)
        elif reply is not None:
            reply.end(failure)

    def _unanswered(self, exc: Exception | None) -> Unavailable:
        crossed = self._loop.time() - self._sent_at <= STALE_WINDOW_S
        kind = Stale if self._silent and self._served_count and crossed else Unavailable
        where = "without an answer" if self._silent else "in the middle of its headers"
        return kind(f"{self._name} closed the connection {where}", detail=_said(exc))

    # Limits.

    def _limit_first_byte(self, now: float) -> None:
        first_byte_s = self._timeouts.first_byte_s
        self._limit(inf if first_byte_s is None else now + first_byte_s)

    def _limit(self, deadline: float) -> None:
        if deadline > self._total_at:
            deadline = self._total_at
        self._deadline = deadline
        self._look_by(deadline)

    def _look_by(self, at: float) -> None:
        if at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_at = inf
        now = self._loop.time()
        if self._heard:
            self._heard = False
            self._deadline = now + self._idle_s
        self._deadline = deadline = min(self._deadline, self._total_at)
        if now + TIMER_EARLY_S >= deadline:
            self._lose(self._timed_out())
        elif self._between_chunks is not None:
            self._look_by(min(deadline, now + self._idle_s / LOOKS))
        elif deadline < inf:
            self._look_by(deadline)

    def _timed_out(self) -> TimedOut:
        limits = self._timeouts
        if self._deadline >= self._total_at:
            return TimedOut(f"no complete answer from {self._name} within total_s = {limits.total_s} s")
        if self._phase is _HEAD:
            return TimedOut(f"no answer from {self._name} within first_byte_s = {limits.first_byte_s} s")
        if self._phase is _SENDING:
            return TimedOut(f"{self._name} read nothing of a long request for idle_s = {limits.idle_s} s")
        return TimedOut(
            f"{self._name} sent nothing for idle_s = {limits.idle_s} s in the middle of its answer"
        )


def _ends_with_connection(reply: Reply) -> bool:
    return "content-length" not in reply.headers and "transfer-encoding" not in reply.headers


def _said(exc: Exception | None) -> str | None:
    return None if exc is None else f"{type(exc).__name__}: {exc}"
