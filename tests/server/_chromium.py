"""Chromium, without a window, with a page of ours; and a TCP door in front of a server that cuts what passes through it."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
)


def chromium() -> str:
    """Its program. Skips the test where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"needs Chromium ({', '.join(NAMES)}): a real browser's EventSource is not tested here")
    return found


@asynccontextmanager
async def showing(url: str) -> AsyncIterator[None]:
    """A browser with that page open."""
    profile = await asyncio.to_thread(tempfile.mkdtemp, prefix="chromium-")
    process = await asyncio.create_subprocess_exec(
        chromium(),
        *FLAGS,
        f"--user-data-dir={profile}",
        url,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await asyncio.to_thread(shutil.rmtree, profile, ignore_errors=True)


class Page:
    """Our page's own server: gives it out, gives it addresses of streams, and takes what it has seen."""

    def __init__(self, html: str) -> None:
        self.url = ""
        self.stream_url = ""
        self.seen: list[str] = []
        self.asked = 0
        self._html = html
        self._changed = asyncio.Condition()

    async def until_seen(self, wanted: list[str], timeout_s: float) -> None:
        """All of these and nothing else, in this order. What is wrong already is not waited for."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(
                    lambda: self.seen != wanted[: len(self.seen)] or self.seen == wanted
                )
        except TimeoutError:
            pass
        assert self.seen == wanted

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next(
                (int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0
            )
            body = await reader.readexactly(length)
            kind, answer = "text/html", self._html.encode()
            if head.startswith("get /address"):
                self.asked += 1
                kind, answer = "application/json", msgspec.json.encode(self.stream_url)
            elif head.startswith("post /seen"):
                async with self._changed:
                    self.seen += msgspec.json.decode(body, type=list[str])
                    self._changed.notify_all()
                answer = b""
            elif not head.startswith("get / "):
                answer = b""
            writer.write(
                f"HTTP/1.1 200 OK\r\ncontent-type: {kind}; charset=utf-8\r\ncontent-length: {len(answer)}\r\nconnection: close\r\n\r\n".encode()
                + answer
            )
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def page(html: str) -> AsyncIterator[Page]:
    opened = Page(html)
    server = await asyncio.start_server(opened.serve, "127.0.0.1", 0)
    opened.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        yield opened
    finally:
        server.close()


class Cutter:
    """Hangs up on both sides of each connection once `bytes_max` bytes went to the client."""

    def __init__(self, port: int, bytes_max: int) -> None:
        self.port = 0
        self.cuts = 0
        self._bytes_max = bytes_max
        self._to = port

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        asking = asyncio.create_task(self._pass(reader, ours))
        try:
            await self._answer(theirs, writer)
        finally:
            asking.cancel()
            await asyncio.wait([asking])
            for end in (writer, ours):
                end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
        except ConnectionError:
            return

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self._bytes_max
        try:
            while piece := await reader.read(left):
                writer.write(piece)
                await writer.drain()
                left -= len(piece)
                if not left:
                    self.cuts += 1
                    return
        except ConnectionError:
            return


@asynccontextmanager
async def cutter(port: int, bytes_max: int) -> AsyncIterator[Cutter]:
    opened = Cutter(port, bytes_max)
    server = await asyncio.start_server(opened.accept, "127.0.0.1", 0)
    opened.port = server.sockets[0].getsockname()[1]
    try:
        yield opened
    finally:
        server.close()
