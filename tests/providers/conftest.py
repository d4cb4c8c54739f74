"""A server on a socket that does exactly what a test's script says, byte for byte."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import pytest
from tests._waiting import eventually, within


class Call:
    """One request as the server read it, and the means to answer it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int, number: int
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.connection = connection
        """From 1, in the order of arrival."""
        self.number = number
        """Of this request on its connection, from 1."""
        self.head = self.body = b""

    async def read(self) -> None:
        self.head = await self.reader.readuntil(b"\r\n\r\n")
        for line in self.head.lower().split(b"\r\n"):
            if line.startswith(b"content-length: "):
                self.body = await self.reader.readexactly(int(line[16:]))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def dribble(self, data: bytes, size: int = 1) -> None:
        for start in range(0, len(data), size):
            await self.send(data[start : start + size])
            await asyncio.sleep(0)

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Closes with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def client_gone(self) -> None:
        """Returns once the client has closed the connection."""
        async with within("the client to hang up"):
            try:
                while await self.reader.read(65536):
                    pass
            except ConnectionError:
                pass


Script = Callable[[Call], Awaitable[None]]


class ScriptedServer:
    """`script` answers each request; bytes are sent as they are. An async context manager, on a free loopback port.

    With `unread` the script is called once a connection and reads for itself.
    """

    def __init__(
        self, script: Script | bytes, *, tls: ssl.SSLContext | None = None, unread: bool = False
    ) -> None:
        self._script = script
        self._unread = unread
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self.calls: list[Call] = []
        self.connection_count = 0
        self.open_count = 0
        self.open_count_most = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connection_count += 1
        self.open_count += 1
        self.open_count_most = max(self.open_count, self.open_count_most)
        try:
            await self._converse(reader, writer, self.connection_count)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            self.open_count -= 1
            writer.close()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int
    ) -> None:
        number = 0
        while not writer.is_closing():
            number += 1
            call = Call(reader, writer, connection, number)
            if not self._unread:
                await call.read()
            self.calls.append(call)
            if isinstance(self._script, bytes):
                await call.send(self._script)
            else:
                await self._script(call)
            if self._unread:
                return


@pytest.fixture
def scripted() -> type[ScriptedServer]:
    return ScriptedServer


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[bool]]:
    """Waits until a fact holds, with a limit."""
    return eventually
