"""HTTP by hand, for what clients' libraries would not send."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from tests._waiting import within


class Answer(Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        async with within("the head of an answer"):
            line, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (one.split(": ", 1) for one in lines if one)
        return int(line.split()[1]), {name.lower(): value for name, value in pairs}

    async def answer(self) -> Answer:
        """One with a length."""
        status, headers = await self.head()
        async with within("the body of an answer", (status, headers)):
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(status, headers, body)

    async def closed(self) -> bytes:
        """What came until the other side hung up."""
        async with within("the other side to hang up"):
            return await self.reader.read()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()


def request(method: str, target: str, *lines: str, key: str = "", body: bytes | None = None) -> bytes:
    head = [f"{method} {target} HTTP/1.1", "host: test", *lines]
    if key:
        head.append(f"authorization: Bearer {key}")
    if body is not None:
        head.append(f"content-length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + (body or b"")
