"""Server: the application on a socket, by uvicorn, with the limits that uvicorn leaves open. Not here: signals (cli/serve.py)."""

import asyncio
import contextlib
import socket
from typing import Any, Final, cast

import httptools
import uvicorn
from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from freehold.server.app import Server
from freehold.server.certificates import Certificate
from freehold.server.exchange import Exchange
from freehold.server.head import Head, Headers, Repeated, repeated
from freehold.server.listener_h2 import ALPN, PREFACE, Http2

STREAMS_END_S: Final = 2.0
"""At a stop, answers that are under way have this long to be finished."""

BACKLOG: Final = 2048
CONNECTIONS_MAX: Final = 10_000
KEEP_ALIVE_S: Final = 75
"""Longer than clients keep idle connections (5 s and up), so that it is they who close them: no request meets a closed one."""

TIMER_EARLY_S: Final = 0.001
"""uvloop's timers count whole milliseconds, so one may ring this much too soon."""

HEAD_S_MAX: Final = 20.0
REQUEST_S_MAX: Final = 300.0
HEAD_BYTES_MAX: Final = 65_536
HEADERS_MAX: Final = 200
REQUEST_BYTES_MAX: Final = 1 << 30
"""As it comes, also what is read and thrown away after a refusal."""

REPEATED_TRIED_MAX: Final = 8
"""Of a connection whose heads are no two the same, so many are kept to be known again."""


class _TooMuch(Exception):
    """Raised out of a parser's callback: uvicorn answers 400 and closes."""


class Protocol(HttpToolsProtocol):
    """A request is bounded in size and time while it comes: of its head there is no key to look at before it is whole.

    Model calls are answered past ASGI, as an `Exchange`.
    """

    cycle: Any
    """What of a connection is being answered: uvicorn's cycle, or an Exchange in its place."""

    _opening: bytes | None = b""
    """What came of a first word that may still become HTTP/2's preface; None once it is known."""

    _in_head = False
    _in_request = False
    _came_bytes = 0
    _slow: asyncio.TimerHandle | None = None
    _idle_since: float | None = None
    _exchange: Exchange | None = None
    """The one that is being answered; later ones of a pipeline wait."""

    _begun: Exchange | None = None
    """It begins to be answered once what came with its head was read."""

    _repeated: Repeated | None = None
    """What a whole request is known by, without parsing it."""

    _repeated_tried = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.access_log = False
        self._server = cast("Server", self.config.app)
        self._slow = self.loop.call_later(HEAD_S_MAX, self._hang_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        super().connection_lost(exc)
        if self._exchange is not None:
            self._exchange.hang_up()

    def data_received(self, data: bytes) -> None:
        if self._opening is not None:
            data, self._opening = self._opening + data, None
            if PREFACE.startswith(data[: len(PREFACE)]):
                self._speak_http2(data)
                return
        self._idle_since = None
        between, again = not self._in_request, self._repeated
        if again is not None and between and self.cycle.response_complete:
            body = again.body(data)
            if body is not None and len(self.connections) < CONNECTIONS_MAX:
                self.cycle = self._exchange = exchange = Exchange(self, again.head, body)
                self._server.begin(exchange)
                return
        try:
            self.parser.feed_data(data)
        except (
            httptools.HttpParserUpgrade
        ):  # Nothing here is spoken but HTTP: the request is answered as if it had not asked.
            pass
        except httptools.HttpParserError:
            self._begun = None
            self.send_400_response("Invalid HTTP request received.")
            return
        begun = self._begun
        if begun is not None:
            self._begun = None
            if between and not begun.more_body and self._repeated_tried < REPEATED_TRIED_MAX:
                self._repeated, self._repeated_tried = repeated(begun.head, data), self._repeated_tried + 1
            self._server.begin(begun)
        if self._in_request and not self.transport.is_closing():
            self._watch(data)

    def _watch(self, data: bytes) -> None:
        """What has not come whole is bounded."""
        self._came_bytes += len(data)
        if self._slow is None:
            self._slow = self.loop.call_later(HEAD_S_MAX if self._in_head else REQUEST_S_MAX, self._hang_up)
        if self._in_head and self._came_bytes > HEAD_BYTES_MAX:
            self.send_400_response(f"A request's head may have {HEAD_BYTES_MAX} bytes at most.")
        elif self._came_bytes > REQUEST_BYTES_MAX:
            self._hang_up()

    def _speak_http2(self, data: bytes) -> None:
        """The connection is handed over, once the whole preface is there."""
        if len(data) < len(PREFACE):
            self._opening = data
            return
        self._in_time()
        self.connections.discard(self)
        Http2(self, self._server, tasks_max=CONNECTIONS_MAX).take_over(data)

    def on_message_begin(self) -> None:
        self._in_head = self._in_request = True
        self._came_bytes = 0
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if len(self.headers) > HEADERS_MAX:
            raise _TooMuch
        self._in_head = False
        if self._slow is not None:
            self._in_time()
        head = self._judged()
        if self._server.takes(head.path) and len(self.connections) < CONNECTIONS_MAX:
            self._take(Exchange(self, head))
        else:
            super().on_message_begin()  # Makes a scope, which only ASGI wants, and begins anew.
            self.url, self.headers, self.expect_100_continue = (
                head.target,
                list(head.pairs),
                head.expects_continue,
            )
            self.scope["headers"] = self.headers
            super().on_headers_complete()

    def _judged(self) -> Head:
        parser, url, pairs = self.parser, self.url, self.headers
        old = parser.get_http_version() == "1.0"
        return Head(
            parser.get_method(),
            url,
            url.partition(b"?")[0],
            pairs,
            Headers(pairs),
            keep_alive=not old and parser.should_keep_alive(),
            old=old,
        )

    def _take(self, exchange: Exchange) -> None:
        """As uvicorn does with a cycle of its own."""
        before: RequestResponseCycle | None = self.cycle
        self.cycle = exchange
        if before is None or before.response_complete:
            self._exchange = self._begun = exchange
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, cast("Any", self._server)))

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Of what waited in a pipeline, too."""
        if isinstance(cycle, Exchange):
            self._exchange = cycle
            self._server.begin(cycle)
        else:
            self._exchange = None
            super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        cycle: Any = self.cycle
        if isinstance(cycle, Exchange):
            cycle.add_body(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_request = False
        if self._slow is not None:
            self._in_time()
        cycle: Any = self.cycle
        if isinstance(cycle, Exchange):
            cycle.end_body()
        else:
            super().on_message_complete()

    # uvicorn sets a timer after each answer and takes it back at each request. Ours stays, and looks when it rings.

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._exchange = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_later(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_since is None or self.transport.is_closing():
            return
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s > TIMER_EARLY_S:
            self._look_later(left_s)
        else:
            self.transport.close()

    def _look_later(self, after_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(after_s, self.timeout_keep_alive_handler)

    def _in_time(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _hang_up(self) -> None:
        self._slow = None
        if not self.transport.is_closing():
            self.transport.close()


class Tls(Struct, frozen=True):
    """HTTPS beside HTTP: a socket of its own, and what it is served with (certificates.check has seen it)."""

    listening: socket.socket
    certificate: Certificate


async def serve(
    app: Server, listening: socket.socket, stop: asyncio.Event, *, tls: Tls | None = None
) -> None:
    """Until `stop` is set, and everything is answered or told to come again. Closes the sockets."""
    sockets = [(listening, None)] if tls is None else [(listening, None), (tls.listening, tls.certificate)]
    servers = [(_Server(_settings(app, certificate)), one) for one, certificate in sockets]
    for _, one in servers:
        # Taken over by every connection. asyncio leaves it to who brings the socket, and without it a short answer in two
        # writes waits 40 ms for the client's delayed ACK.
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    serving = [asyncio.create_task(server.serve(sockets=[one]), name="http") for server, one in servers]
    wanted = asyncio.create_task(stop.wait(), name="http:stop")
    try:
        await asyncio.wait({*serving, wanted}, return_when=asyncio.FIRST_COMPLETED)
        for server, _ in servers:
            for connection in list(server.server_state.connections):
                if isinstance(connection, Http2):
                    connection.shutdown()  # Says at once that no more requests are taken.
        await app.leave(STREAMS_END_S)
    finally:
        wanted.cancel()
        for server, _ in servers:
            server.should_exit = True
        await asyncio.gather(*serving)


def _settings(app: Server, certificate: Certificate | None) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=Protocol,
        loop="none",
        ws="none",
        lifespan="off",
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(STREAMS_END_S),
        ssl_certfile=None if certificate is None else certificate.chain,
        ssl_keyfile=None if certificate is None else certificate.key,
    )
    config.load()
    if config.ssl is not None:
        config.ssl.set_alpn_protocols([ALPN, "http/1.1"])
    return config


class _Server(uvicorn.Server):
    """Leaves signals to whoever started it, and raises none again at its end."""

    def capture_signals(self) -> Any:
        return contextlib.nullcontext()
