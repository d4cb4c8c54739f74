"""Server: one stream of HTTP/2 as an Exchange, so that the doors answer on it as they do over HTTP/1.

A piece goes out as far as the client's windows and the socket take it, and whoever answers waits for the rest: nothing piles up
here. A reset stream is a client that hung up. Not here: the connection (listener_h2.py), ASGI (listener_h2_asgi.py).
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from h2.errors import ErrorCodes

from freehold.server.exchange import Answer, Arrival, Exchange
from freehold.server.head import Head

if TYPE_CHECKING:
    from freehold.server.listener_h2 import Http2

STALLED_S_MAX: Final = 300.0
"""A client whose windows stay shut for so long reads no more."""

AUTHORITY: Final = b":authority"

Pairs = Sequence[tuple[bytes, bytes]]


class StreamExchange(Exchange):
    __slots__ = ("_connection", "_late", "_stream_id", "_told_by_event", "_unread_bytes", "widened")

    direct = False

    def __init__(
        self, connection: "Http2", stream_id: int, said: Mapping[bytes, bytes], headers: Pairs
    ) -> None:
        target, pairs = said[b":path"], _pairs(said, headers)
        named = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in pairs if name != AUTHORITY
        }
        self.head = Head(said[b":method"], target, target.partition(b"?")[0], pairs, named)
        self.keep_alive = True
        self.body = b""
        self.more_body = True
        self.message_event = Arrival()
        self.widened = asyncio.Event()
        self.disconnected = False
        self.response_complete = False
        self.started = False
        self.task = None
        self._late: asyncio.TimerHandle | None = None
        self._expects = self.head.expects_continue
        self._connection = connection
        self._stream_id = stream_id
        self._unread_bytes = 0
        self._told_by_event = False

    # What the connection calls.

    def start(self, answer: Answer) -> None:
        self.task = self._connection.loop.create_task(self._run(answer))

    async def _run(self, answer: Answer) -> None:
        if not self.disconnected:
            await answer(self)

    def watch(self, *, request_s_max: float, told_by_event: bool) -> None:
        """`told_by_event`: a client that goes is no reason to cancel the task, which looks at `disconnected` itself."""
        self._told_by_event = told_by_event
        if self.more_body:
            self._late = self._connection.loop.call_later(request_s_max, self.give_up)

    def came(self, data: bytes, flow_controlled_bytes: int) -> None:
        """After the answer it is thrown away: many clients read no answer before they have sent everything."""
        self._unread_bytes += flow_controlled_bytes
        if self.response_complete:
            self._taken()
        else:
            self.hold(data)
            self.message_event.set()

    def whole(self) -> None:
        """So is the request."""
        self.more_body = False
        self._in_time()
        self.message_event.set()

    def hang_up(self) -> None:
        self.disconnected = True
        self._in_time()
        self.widened.set()
        self.message_event.set()
        if self.task is not None and not self.response_complete and not self._told_by_event:
            self.task.cancel()

    def give_up(self) -> None:
        """On a client that sends its request, or reads its answer, too slowly."""
        if not self.disconnected:
            self._connection.h2.reset_stream(self._stream_id, ErrorCodes.CANCEL)
            self._connection.flush()
            self.hang_up()
            self._connection.exchanges.pop(self._stream_id, None)

    def over(self) -> None:
        """The task has ended, one way or another."""
        self.body = b""
        self._taken()
        if not self.response_complete:
            self.response_complete = True
            if not self.disconnected:
                self._connection.h2.reset_stream(self._stream_id, ErrorCodes.INTERNAL_ERROR)
                self.hang_up()
        self._connection.flush()

    @property
    def closed(self) -> bool:
        """In both directions."""
        return self.disconnected or (self.response_complete and not self.more_body)

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    # What whoever answers calls.

    async def more(self) -> None:
        """Until more of the request has come, or its end, or the client's. What came before counts as read."""
        if self._expects and not self.disconnected:
            self._expects = False
            self._connection.h2.send_headers(self._stream_id, [(b":status", b"100")])
        self._taken()
        self._connection.flush()
        self.message_event.clear()
        await self.message_event.wait()

    async def _more(self) -> None:
        await self.more()

    def _taken(self) -> None:
        """What came has been read, so as much again may come."""
        unread_bytes, self._unread_bytes = self._unread_bytes, 0
        if unread_bytes and not self._connection.transport.is_closing():
            self._connection.h2.acknowledge_received_data(unread_bytes, self._stream_id)

    async def respond(self, status: int, lines: bytes, body: bytes) -> None:
        self.open(status, [*_parsed(lines), (b"content-length", b"%d" % len(body))])
        await self.end(b"" if self.method == b"HEAD" else body)

    def begin(self, status: int, lines: bytes) -> None:
        self.open(status, _parsed(lines))

    async def send(self, data: bytes) -> None:
        await self._data(data, last=False)

    async def end(self, data: bytes = b"") -> None:
        await self._data(data, last=True)
        self._complete()

    def open(self, status: int, pairs: Pairs) -> None:
        """The head goes out with what is sent next."""
        self.started = True
        self._expects = False
        if self.disconnected:
            return
        own = self._connection.server_state.default_headers
        told = [(b":status", b"%d" % status), *own, *pairs]
        self._connection.h2.send_headers(self._stream_id, told)

    async def _data(self, data: bytes, *, last: bool) -> None:
        """As the client's windows allow, and the socket."""
        connection, stream_id = self._connection, self._stream_id
        while not self.disconnected:
            if connection.flow.write_paused:
                await connection.flow.drain()
                continue
            if not data:
                if last:
                    connection.h2.end_stream(stream_id)
                connection.flush()
                return
            room = min(
                connection.h2.local_flow_control_window(stream_id), connection.h2.max_outbound_frame_size
            )
            if room <= 0:
                await self._wait_for_room()
                continue
            piece, data = data[:room], data[room:]
            connection.h2.send_data(stream_id, piece, end_stream=last and not data)
            connection.flush()
            if not data:
                return

    async def _wait_for_room(self) -> None:
        self._connection.flush()
        self.widened.clear()
        stalled = self._connection.loop.call_later(STALLED_S_MAX, self.give_up)
        try:
            await self.widened.wait()
        finally:
            stalled.cancel()

    def _complete(self) -> None:
        self.response_complete = True


def _pairs(said: Mapping[bytes, bytes], headers: Pairs) -> Pairs:
    """As over HTTP/1: with a host, and one cookie (RFC 9113, 8.2.3). The authority stays besides, since it may be signed."""
    plain = [pair for pair in headers if not pair[0].startswith(b":") and pair[0] != b"cookie"]
    cookies = [value for name, value in headers if name == b"cookie"]
    if cookies:
        plain.append((b"cookie", b"; ".join(cookies)))
    if AUTHORITY in said:
        if all(name != b"host" for name, _ in plain):
            plain.append((b"host", said[AUTHORITY]))
        plain.append((AUTHORITY, said[AUTHORITY]))
    return plain


def _parsed(lines: bytes) -> list[tuple[bytes, bytes]]:
    parts = (line.partition(b":") for line in lines.split(b"\r\n") if line)
    return [(name.lower(), value.strip()) for name, _, value in parts]
