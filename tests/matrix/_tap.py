"""A relay in front of the server that notes what it answers, byte by byte, so that no SDK's leniency stands in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import httptools

from tests.matrix._tap_h2 import FramedAnswers

READ_BYTES = 65_536


class Answered:
    """One HTTP answer, as far as it came."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    @property
    def kind(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]


class Tap:
    """`url` stands for the server. One call after the other: `taken` gives what was answered since it was last asked."""

    def __init__(self) -> None:
        self.url = ""
        self._answers: list[Answered] = []

    def taken(self) -> list[Answered]:
        told, self._answers = self._answers, []
        return told

    def begun(self) -> Answered:
        self._answers.append(Answered())
        return self._answers[-1]


class _Answers:
    """What httptools calls back while it reads one connection's answers; in HTTP/2 they begin with a frame."""

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        self._parser = httptools.HttpResponseParser(self)
        self._framed: FramedAnswers | None = None
        self._any = False

    def feed(self, data: bytes) -> None:
        if not self._any:
            self._any = True
            self._framed = None if data.startswith(b"H") else FramedAnswers(self._tap)
        (self._parser.feed_data if self._framed is None else self._framed.feed)(data)

    def on_message_begin(self) -> None:
        self._now = self._tap.begun()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._now.headers[name.decode().lower()] = value.decode()

    def on_headers_complete(self) -> None:
        self._now.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self._now.body += data


@asynccontextmanager
async def tapped(url: str) -> AsyncIterator[Tap]:
    """A Tap before the server at `url`."""
    tap, there = Tap(), urlsplit(url)
    tasks: set[asyncio.Task[None]] = set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(ConnectionError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_connection(there.hostname, there.port)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(_pump(reader, far_writer, None))
                    both.create_task(_pump(far_reader, writer, _Answers(tap)))
            except* ConnectionError:
                pass  # Whoever hung up hangs up on the other.
            finally:
                far_writer.close()
        writer.close()
        tasks.discard(task)

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    tap.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield tap
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: _Answers | None) -> None:
    while data := await reader.read(READ_BYTES):
        if answers is not None:
            answers.feed(data)
        writer.write(data)
        await writer.drain()
    writer.close()
