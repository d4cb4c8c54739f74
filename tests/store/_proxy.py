"""A TCP door in front of the test's PostgreSQL that can be shut: a network that goes away and comes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit


class Proxy:
    """Keeps its port while it is cut: newcomers are hung up on at once."""

    def __init__(self, url: str) -> None:
        self.goes_to(url)
        self._open: set[asyncio.StreamWriter] = set()
        self._whole = True
        self._passing = asyncio.Event()
        self._passing.set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"postgresql://{self._login}@127.0.0.1:{self.port}{self._database}"

    def goes_to(self, url: str) -> None:
        """From the next connection on."""
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        self._socket = f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"
        self._login = parts.netloc.rpartition("@")[0]
        self._database = parts.path

    def heal(self) -> None:
        self._whole = True

    def cut(self) -> None:
        self._whole = False
        for writer in self._open:
            writer.transport.abort()

    def freeze(self) -> None:
        """Connections stay, but nothing comes through any more."""
        self._passing.clear()

    def thaw(self) -> None:
        self._passing.set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        try:
            server_reader, server_writer = await asyncio.open_unix_connection(self._socket)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, server_writer}
        self._open |= pair
        try:
            if self._whole:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pass(reader, server_writer))
                    both.create_task(self._pass(server_reader, writer))
        finally:
            self._open -= pair
            for one in pair:
                one.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(url)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        proxy.thaw()
        proxy.cut()
        server.close()
