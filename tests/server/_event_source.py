"""A client of event streams that does as a browser's EventSource does, on a socket of its own, and hangs up whenever it is told to.

It comes back to the address that it began with and says what it saw last in `Last-Event-ID`; of an event that was cut off in the middle
it knows nothing. https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import asyncio
from urllib.parse import urlsplit

from tests._waiting import within

RETRY_S = 0.02
QUIET_S = 0.05
"""So long it waits for more before it hangs up all the same."""


class EventSource:
    def __init__(self, url: str, path: str, key: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self.path, self._key = path, key
        self.ids: list[str] = []
        self.connects = 0
        self.refused = 0

    async def read(self, bytes_max: int, *, quiet_s: float | None = QUIET_S) -> None:
        """One connection: until it has so many bytes, or the server ends it, or nothing comes any more for so long."""
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            self.refused += 1
            await asyncio.sleep(RETRY_S)
            return
        try:
            writer.write(self._request())
            await self._head(reader)
            self.connects += 1
            await self._events(reader, bytes_max, quiet_s)
        except (OSError, asyncio.IncompleteReadError):
            self.refused += 1
            await asyncio.sleep(RETRY_S)
        finally:
            writer.transport.abort()

    def _request(self) -> bytes:
        last = f"last-event-id: {self.ids[-1]}\r\n" if self.ids else ""
        return (
            f"GET {self.path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\naccept: text/event-stream\r\n"
            f"authorization: Bearer {self._key}\r\n{last}\r\n"
        ).encode()

    async def _head(self, reader: asyncio.StreamReader) -> None:
        async with within("the head of the answer"):
            head = await reader.readuntil(b"\r\n\r\n")
        if b" 503 " in head.split(b"\r\n")[0]:
            raise ConnectionResetError("the server is stopping")
        assert b" 200 " in head.split(b"\r\n")[0], head
        assert b"text/event-stream" in head

    async def _events(self, reader: asyncio.StreamReader, bytes_max: int, quiet_s: float | None) -> None:
        """The chunks of HTTP/1.1 have lines of their own, which are no fields of an event and pass unseen."""
        found, left = b"", bytes_max
        while left > 0:
            try:
                async with asyncio.timeout(quiet_s):
                    piece = await reader.read(min(left, 65536))
            except TimeoutError:
                return
            if not piece:
                return
            left -= len(piece)
            found += piece
            *whole, found = found.split(b"\n\n")
            for event in whole:
                for line in event.split(b"\n"):
                    if line.startswith(b"id: "):
                        self.ids.append(line[4:].decode().strip())
