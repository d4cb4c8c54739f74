"""Server: HTTP/2 on a connection that began as one (its preface came, in clear text or over TLS), by the library `h2`.

Each stream is an exchange as over HTTP/1 (listener_h2_exchange.py) and is answered by the same code. What the library leaves
open is bounded here: streams, resets, frames that ask for nothing, what is held for whoever doesn't read, idleness.
Source: https://www.rfc-editor.org/rfc/rfc9113. Not here: telling the two versions apart (listener.py), server push, priorities.
"""

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error, ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from freehold.server.app import Server
from freehold.server.exchange import Exchange
from freehold.server.listener_h2_asgi import Asgi
from freehold.server.listener_h2_exchange import StreamExchange

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ALPN: Final = "h2"

STREAMS_MAX: Final = 100
"""At once on one connection. Those whose answer is still being put an end to after a reset count, too."""

REQUESTS_MAX: Final = 10_000
"""On one connection; then the client is asked for a new one. What the library remembers of each stream is bounded by it."""

HEADER_LIST_BYTES_MAX: Final = 65_536
"""Unpacked, as RFC 9113 counts. How many CONTINUATION frames may bring it, the library bounds (64)."""

HEADERS_MAX: Final = 200
STREAM_WINDOW_BYTES: Final = 1 << 20
CONNECTION_WINDOW_BYTES: Final = 4 << 20
"""Of bodies that came and that nobody has read yet: no more is held."""

REQUEST_S_MAX: Final = 300.0
IDLE_S: Final = 75.0
RATE_S: Final = 10.0
RESETS_MAX: Final = 200
"""In RATE_S: more is an attack (CVE-2023-44487) and no change of mind."""

FRAMES_MAX: Final = 1_000
"""In RATE_S, of frames that ask for nothing: PING, SETTINGS, DATA without data or an end."""

UNREAD_BYTES_MAX: Final = 1 << 20
"""Of frames that wait for a client which sends, but reads nothing. Answers alone stay far below: they wait themselves."""

_TARGET: Final = re.compile(rb"/[!-~]*")
_DEFAULT_WINDOW_BYTES: Final = 65_535


class Http2(asyncio.Protocol):
    """One connection. uvicorn sees it among its `connections`, and asks it for a `shutdown` like the others."""

    def __init__(self, before: HttpToolsProtocol, app: Server, *, tasks_max: int) -> None:
        """`tasks_max` is the server's, over all connections."""
        self.loop = before.loop
        self.before = before
        self.app = app
        self.server_state = before.server_state
        self.exchanges: dict[int, StreamExchange] = {}
        """Streams that are open in either direction."""

        self.h2 = H2Connection(H2Configuration(client_side=False, validate_outbound_headers=False))
        self.h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
                SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_LIST_BYTES_MAX,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
            },
        )
        self.transport: asyncio.Transport = before.transport
        self.flow = FlowControl(before.transport)
        self._running: set[asyncio.Task[Any]] = set()
        self._tasks_max = tasks_max
        self._last_stream = 0
        self._requests = 0
        self._resets = _Rate(RESETS_MAX)
        self._frames = _Rate(FRAMES_MAX)
        self._draining = False
        self._idle: asyncio.TimerHandle | None = None

    # What the event loop and uvicorn call.

    def take_over(self, data: bytes) -> None:
        """From `before`, whose connection turned out to speak this. `data` is all that came."""
        self.server_state.connections.add(self)  # type: ignore[arg-type]  # uvicorn lists its own protocols.
        self.transport.set_protocol(self)
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(CONNECTION_WINDOW_BYTES - _DEFAULT_WINDOW_BYTES)
        self._rest()
        self.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        try:
            events = self.h2.receive_data(data)
            for event in events:
                self._happened(event)
        except H2Error:
            self._break_off()  # The library has put into words what was wrong.
            return
        self.flush()
        if self.transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            self.transport.abort()

    def eof_received(self) -> None:
        """Nobody is left to answer: HTTP/2 knows no half-closed connections."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.server_state.connections.discard(self)
        self._wake()
        self._hang_up_all()
        self.flow.resume_writing()

    def pause_writing(self) -> None:
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()

    def shutdown(self) -> None:
        """No new requests; the connection ends with the last answer. Idempotent."""
        if not self._draining and not self.transport.is_closing():
            self._draining = True
            self.flush()
            # By hand, since the library takes a GOAWAY for the end of answers that are under way, too.
            frame = GoAwayFrame(0, last_stream_id=self._last_stream, error_code=ErrorCodes.NO_ERROR)
            self.transport.write(frame.serialize())
        self._close_when_done()

    def flush(self) -> None:
        if (data := self.h2.data_to_send()) and not self.transport.is_closing():
            self.transport.write(data)

    # What came.

    def _happened(self, event: Event) -> None:
        match event:
            case RequestReceived(stream_id=int(stream_id), headers=list(headers)):
                self._requested(stream_id, headers)
            case DataReceived():
                self._data(event)
            case StreamEnded(stream_id=int(stream_id)):
                self._whole(stream_id)
            case StreamReset(stream_id=int(stream_id)):
                self._reset(stream_id)
            case WindowUpdated(stream_id=stream_id):
                self._widened(stream_id)
            case RemoteSettingsChanged():
                self._count(self._frames)
                self._widened(0)
            case PingReceived():
                self._count(self._frames)
            case ConnectionTerminated():
                self._hang_up_all()
                self.transport.close()
            case _:
                pass  # Trailers, acknowledgements, upgrades to other services: nothing that we act on.

    def _requested(self, stream_id: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._last_stream = stream_id
        self._requests += 1
        if self._refuses():
            self._refuse(stream_id, ErrorCodes.REFUSED_STREAM)  # Safe to send again, elsewhere.
            self._count(self._resets)
            return
        said = {name: value for name, value in headers if name.startswith(b":")}
        target = said.get(b":path", b"")
        if not _TARGET.fullmatch(target) or len(headers) > HEADERS_MAX:
            self._refuse(stream_id, ErrorCodes.PROTOCOL_ERROR)
            return
        self._awake()
        self.exchanges[stream_id] = exchange = StreamExchange(self, stream_id, said, headers)
        self._start(exchange, stream_id)
        if self._requests >= REQUESTS_MAX:
            self.shutdown()

    def _start(self, exchange: StreamExchange, stream_id: int) -> None:
        app = self.app
        calls_model = app.takes(exchange.path)

        async def operate(_: Exchange) -> None:
            asgi = Asgi(exchange, self.before)
            await app(asgi.scope, asgi.receive, asgi.send)

        exchange.start(app.answer if calls_model else operate)
        exchange.watch(request_s_max=REQUEST_S_MAX, told_by_event=not calls_model)
        if (task := exchange.task) is not None:
            self._running.add(task)
            self.server_state.tasks.add(task)
            task.add_done_callback(partial(self._ended, exchange, stream_id))

    def _refuses(self) -> bool:
        busy = len(self._running) >= STREAMS_MAX
        return busy or self._draining or len(self.server_state.tasks) >= self._tasks_max

    def _refuse(self, stream_id: int, code: ErrorCodes) -> None:
        with contextlib.suppress(StreamClosedError):  # By a reset that came along with the request.
            self.h2.reset_stream(stream_id, code)

    def _data(self, event: DataReceived) -> None:
        if not event.data and event.stream_ended is None:
            self._count(self._frames)
        exchange = self.exchanges.get(event.stream_id)
        if exchange is None:
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        else:
            exchange.came(event.data, event.flow_controlled_length)

    def _whole(self, stream_id: int) -> None:
        if (exchange := self.exchanges.get(stream_id)) is not None:
            exchange.whole()
            self._forget_closed(exchange, stream_id)

    def _reset(self, stream_id: int) -> None:
        """The client hung up on this one."""
        self._count(self._resets)
        if (exchange := self.exchanges.get(stream_id)) is not None:
            exchange.hang_up()
            self._forget_closed(exchange, stream_id)

    def _forget_closed(self, exchange: StreamExchange, stream_id: int) -> None:
        if exchange.closed:
            self.exchanges.pop(stream_id, None)

    def _widened(self, stream_id: int | None) -> None:
        if stream_id:
            if (exchange := self.exchanges.get(stream_id)) is not None:
                exchange.widened.set()
        else:
            self._wake()

    def _wake(self) -> None:
        for exchange in self.exchanges.values():
            exchange.widened.set()

    def _count(self, rate: "_Rate") -> None:
        if rate.exceeded(self.loop.time()):
            self.h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            raise ProtocolError

    # How it ends.

    def _break_off(self) -> None:
        self.flush()
        self._hang_up_all()
        self.transport.close()

    def _hang_up_all(self) -> None:
        self._awake()
        for exchange in list(self.exchanges.values()):
            exchange.hang_up()

    def _ended(self, exchange: StreamExchange, stream_id: int, task: "asyncio.Task[Any]") -> None:
        """Also of what was cancelled before it began."""
        self._running.discard(task)
        self.server_state.tasks.discard(task)
        self.server_state.total_requests += 1
        exchange.over()
        self._forget_closed(exchange, stream_id)
        self._close_when_done()
        self._rest()

    def _close_when_done(self) -> None:
        if self._draining and not self._running:
            self._awake()
            self.transport.close()

    def _rest(self) -> None:
        if not self._running and not self.transport.is_closing():
            self._awake()
            self._idle = self.loop.call_later(IDLE_S, self.shutdown)

    def _awake(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None


class _Rate:
    """So many within RATE_S and no more."""

    __slots__ = ("_at", "_count_max")

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._at: deque[float] = deque()

    def exceeded(self, now_s: float) -> bool:
        at = self._at
        at.append(now_s)
        while at[0] < now_s - RATE_S:
            at.popleft()
        return len(at) > self._count_max
