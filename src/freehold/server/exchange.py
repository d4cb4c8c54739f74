"""Server: one request and its answer on a hot path, without ASGI: the protocol's bytes to a coroutine and back.

It stands in uvicorn's protocol where a cycle of ASGI would, so that pipelining, keep-alive, flow control and a stop stay
uvicorn's. What it spares: a scope, messages, a watching task, and a second write for every head. Not here: limits on what
comes in (listener.py), and what is answered (front.py).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from freehold.server.head import Head
from freehold.server.operations import too_large

Answer: TypeAlias = "Callable[[Exchange], Awaitable[None]]"

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_SIZES: Final = 1024
_SIZE_LINES: Final = tuple(b"%x\r\n" % size for size in range(_SIZES))
"""Of chunks as short as events are."""

_LAST_CHUNK: Final = b"0\r\n\r\n"


class Arrival:
    """That something came: as `asyncio.Event`, for one who waits, and for nothing where nobody does."""

    __slots__ = ("_came", "_waiter")

    def __init__(self) -> None:
        self._came = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._came = True
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def clear(self) -> None:
        self._came = False

    async def wait(self) -> None:
        if self._came:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


_NOT_WAITED_FOR: Final = Arrival()
"""Of requests for whose body nobody waits, as it came with the head."""


class _Own:
    """The header lines that the server adds to every answer. uvicorn makes a new list of them each second."""

    __slots__ = ("lines", "made_of")

    def __init__(self) -> None:
        self.make_of([])

    def make_of(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.made_of, self.lines = headers, b"".join([b"%b: %b\r\n" % pair for pair in headers])


_own: Final = _Own()


class Exchange:
    """Answered once: `respond`, or `begin`, any number of `send` and `end`. A client that goes away cancels the task.

    What the protocol reads and sets besides: uvicorn's names.
    """

    __slots__ = ("_expects", "_flow", "_opening", "_plain", "_protocol", "_put", "body", "disconnected", "gone", "head", "keep_alive",
                 "message_event", "more_body", "response_complete", "started", "task")  # fmt: skip

    direct = True
    """Whether `write` and `answer` are there: exchanges of another kind only `send` and `respond`."""

    def __init__(self, protocol: HttpToolsProtocol, head: Head, body: bytes | None = None) -> None:
        """`body` where all of it is there."""
        self.head = head
        self.keep_alive = head.keep_alive
        self.body: bytes | bytearray = body or b""
        self.more_body = body is None
        self.message_event = _NOT_WAITED_FOR
        self.disconnected = self.response_complete = False
        self.started = False
        """Whether some of the answer may be on its way."""
        self._expects = body is None and head.expects_continue
        self._protocol = protocol
        self._opening = b""
        self.task: asyncio.Task[Any] | None = None
        self.gone: Callable[[], None] | None = None
        """Where no task answers, or none yet: called when the client hangs up before it was answered."""

    @property
    def method(self) -> bytes:
        return self.head.method

    @property
    def path(self) -> bytes:
        return self.head.path

    @property
    def target(self) -> bytes:
        return self.head.target

    @property
    def pairs(self) -> Sequence[tuple[bytes, bytes]]:
        return self.head.pairs

    @property
    def headers(self) -> Mapping[str, str]:
        return self.head.headers

    # What the protocol calls.

    def start(self, answer: Answer) -> None:
        """In a task of its own, which `hang_up` cancels. In a pipeline, once it is its turn."""
        self.task = self._protocol.loop.create_task(self._run(answer))

    async def _run(self, answer: Answer) -> None:
        try:
            if not self._protocol.transport.is_closing():
                await answer(self)
        finally:
            if not self.response_complete:
                self._protocol.transport.close()

    def add_body(self, data: bytes) -> None:
        """Of the request's body. After the answer it is thrown away."""
        if self.response_complete:
            return
        self.hold(data)
        if len(self.body) > HIGH_WATER_LIMIT:
            self._protocol.flow.pause_reading()
        if self.message_event is not _NOT_WAITED_FOR:
            self.message_event.set()

    def hold(self, data: bytes) -> None:
        """Most bodies are one piece, which is not copied."""
        if not self.body:
            self.body = data
        elif isinstance(self.body, bytearray):
            self.body += data
        else:
            self.body = bytearray(self.body)
            self.body += data

    def end_body(self) -> None:
        if not self.response_complete:
            self.more_body = False
            if self.message_event is not _NOT_WAITED_FOR:
                self.message_event.set()

    def hang_up(self) -> None:
        """The connection is gone. Nobody reads the answer, so whoever works at it stops."""
        self.disconnected = True
        if self.response_complete:
            return
        if self.gone is not None:
            self.gone()
        if self.task is not None:
            self.task.cancel()

    # What whoever answers calls.

    async def read(self, size_max: int) -> bytes:
        """The request's body, once. Raises TooLarge before more than `size_max` bytes are held."""
        if not self.more_body and len(self.body) <= size_max:
            return bytes(self.body)
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > size_max:
            raise too_large(size_max)
        pieces: list[bytes] = []
        size = 0
        while True:
            pieces.append(bytes(self.body))
            self.body = b""
            size += len(pieces[-1])
            if size > size_max:
                raise too_large(size_max)
            if not self.more_body:
                return b"".join(pieces)
            await self._more()

    def whole_body(self, size_max: int) -> bytes:
        """The request's body, where all of it is there. Raises as `read` does."""
        if len(self.body) > size_max:
            raise too_large(size_max)
        return bytes(self.body)

    async def _more(self) -> None:
        if self._expects:
            self._expects = False
            self._protocol.transport.write(_CONTINUE)
        self._protocol.flow.resume_reading()
        if self.message_event is _NOT_WAITED_FOR:
            self.message_event = Arrival()
        self.message_event.clear()
        await self.message_event.wait()

    async def respond(self, status: int, lines: bytes, body: bytes) -> None:
        """The whole answer. `lines` are header lines, by `header_lines`."""
        while not self.answer(status, lines, body):
            await self._protocol.flow.drain()

    def answer(self, status: int, lines: bytes, body: bytes) -> bool:
        """As `respond`, but at once. False where much waits already that the client has not read: nothing was done then. Where `direct`."""
        if self._protocol.flow.write_paused:
            return False
        if not self.disconnected:
            shown = b"" if self.head.method == b"HEAD" else body
            framing = b"content-length: %d\r\n\r\n" % len(body)
            self._protocol.transport.write(self._opened(status, lines, framing, shown))
        self._complete()
        return True

    def begin(self, status: int, lines: bytes) -> None:
        """A stream. Its head goes out with its first piece."""
        framing = b"transfer-encoding: chunked\r\n\r\n" if not self.head.old else b"\r\n"
        self._opening = self._opened(status, lines, framing)
        self._plain = False
        self._put, self._flow = self._protocol.transport.write, self._protocol.flow

    async def send(self, data: bytes) -> None:
        """A piece of a stream, not empty. Waits where the client is slow to read."""
        if self._protocol.flow.write_paused:
            await self._protocol.flow.drain()
        if not self.disconnected:
            head, self._opening = self._opening, b""
            self._protocol.transport.write(
                b"%b%x\r\n%b\r\n" % (head, len(data), data) if not self.head.old else head + data
            )

    def write(self, data: bytes) -> bool:
        """As `send`, but at once, whatever waits already. False where that is enough for now: then await `drained`."""
        if self.disconnected:
            return True
        size = len(data)
        if self._plain and size < _SIZES:
            self._put(_SIZE_LINES[size] + data + b"\r\n")
        else:
            head, self._opening = self._opening, b""
            self._put(b"%b%x\r\n%b\r\n" % (head, size, data) if not self.head.old else head + data)
            self._plain = not self.head.old
        return not self._flow.write_paused

    async def drained(self) -> None:
        await self._protocol.flow.drain()

    async def end(self, data: bytes = b"") -> None:
        """The last piece of a stream."""
        head, self._opening = self._opening, b""
        if self.head.old:
            await self._write(head + data)
        elif data:
            await self._write(b"%b%x\r\n%b\r\n%b" % (head, len(data), data, _LAST_CHUNK))
        else:
            await self._write(head + _LAST_CHUNK)
        self._complete()

    def _opened(self, status: int, lines: bytes, framing: bytes, body: bytes = b"") -> bytes:
        self.started = True
        self._expects = False
        headers = self._protocol.server_state.default_headers
        if headers is not _own.made_of:
            _own.make_of(headers)
        closing = b"" if self.keep_alive else b"connection: close\r\n"
        return b"".join((STATUS_LINE[status], _own.lines, lines, closing, framing, body))

    async def _write(self, data: bytes) -> None:
        if self._protocol.flow.write_paused:
            await self._protocol.flow.drain()
        if not self.disconnected:
            self._protocol.transport.write(data)

    def _complete(self) -> None:
        self.response_complete = True
        if self.disconnected:
            return
        if not self.keep_alive:
            self._protocol.transport.close()
        self._protocol.on_response_complete()


def header_lines(headers: Iterable[tuple[str, str]]) -> bytes:
    """Names are ours. In values, which may repeat what a client wrote, nothing can end the line."""
    return "".join(f"{name}: {printable(value)}\r\n" for name, value in headers).encode("latin-1", "replace")


def printable(value: str) -> str:
    if value.isprintable():
        return value
    return "".join(one if one.isprintable() else "?" for one in value)
