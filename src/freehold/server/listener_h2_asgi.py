"""Server: ASGI over one stream of HTTP/2, as uvicorn has it over HTTP/1, for whatever is no model call.

A client that goes away is told by `receive` and does not cancel what it asked for. Not here: the stream (listener_h2_exchange.py).
"""

from collections.abc import MutableMapping
from typing import Any, Final
from urllib.parse import unquote

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from freehold.server.listener_h2_exchange import AUTHORITY, StreamExchange

_HOP_BY_HOP: Final = frozenset({
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"transfer-encoding",
    b"upgrade",
})
"""Mean nothing here, and may not be sent: https://www.rfc-editor.org/rfc/rfc9113#section-8.2.2"""

Message = MutableMapping[str, Any]


class Asgi:
    """Scope, `receive` and `send` of one request."""

    __slots__ = ("_ended", "_exchange", "scope")

    def __init__(self, exchange: StreamExchange, connection: HttpToolsProtocol) -> None:
        path = exchange.path.decode("ascii")
        self._exchange = exchange
        self._ended = False
        """Whether the request's end has been received."""
        self.scope: Message = {
            "type": "http",
            "asgi": {"version": connection.asgi_version, "spec_version": "2.3"},
            "http_version": "2",
            "server": connection.server,
            "client": connection.client,
            "scheme": connection.scheme,
            "root_path": "",
            "headers": [pair for pair in exchange.pairs if pair[0] != AUTHORITY],
            "method": exchange.method.decode("ascii"),
            "path": unquote(path) if "%" in path else path,
            "raw_path": exchange.path,
            "query_string": exchange.target.partition(b"?")[2],
            "state": {},
        }

    async def receive(self) -> Message:
        exchange = self._exchange
        while not exchange.disconnected and not exchange.response_complete:
            if not self._ended and (exchange.body or not exchange.more_body):
                body = bytes(exchange.body)
                exchange.body = b""
                self._ended = not exchange.more_body
                return {"type": "http.request", "body": body, "more_body": exchange.more_body}
            await exchange.more()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        exchange = self._exchange
        if message["type"] == "http.response.start":
            exchange.open(
                message["status"],
                [
                    (lower, value)
                    for name, value in message.get("headers", ())
                    if (lower := name.lower()) not in _HOP_BY_HOP
                ],
            )
            return
        body = b"" if exchange.method == b"HEAD" else message.get("body", b"")
        if message.get("more_body", False):
            await exchange.send(body)
        else:
            await exchange.end(body)
            exchange.message_event.set()
