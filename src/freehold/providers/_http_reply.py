"""Providers: one answer as its reader sees it: status, headers, and a body that is read at the reader's pace.

Not here: sockets and framing (`_http_connection`). An answer is asked for without compression, but a server or a box in
between may compress all the same: gzip and deflate are undone here, a bounded piece at a time.
"""

import asyncio
import sys
import zlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self

from freehold.core.errors import BrokenOff, FreeholdError, Internal, TooLarge, Unavailable

INFLATED_PIECE_BYTES_MAX = 64 * 1024
"""The most that one step of reading inflates to, so that a small bomb cannot become a large piece of memory."""

ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS


class Source(Protocol):
    """The connection that an unfinished answer comes from."""

    def resume(self) -> None: ...

    def abort(self) -> None: ...


class Reply:
    """Read it to its end or close it (`async with`): an unfinished answer holds its connection.

    Iterating gives pieces of the body as they come; pieces that came while the reader was busy are joined. One reader
    at a time. A reader that is cancelled may go on reading; only closing hangs up.
    """

    __slots__ = ("_ended", "_failure", "_first", "_head", "_headers", "_inflate", "_left_bytes", "_limit_bytes", "_name", "_parts",
                 "_source", "_stopped", "_waiter", "_write", "size", "status", "told")  # fmt: skip

    def __init__(self, status: int, head: bytes, name: str, source: Source) -> None:
        self.status = status
        self._head = head
        self._name = name
        self._source: Source | None = source
        self.told: Callable[[Reply], None] | None = None
        """Called once, when the body has ended or must be read before more of it comes. For whoever waits for nothing before."""
        self.size = 0
        """Bytes that wait for the reader."""
        self._headers: dict[str, str] | None = None
        self._parts: list[bytes] = []
        self._ended = False
        self._failure: FreeholdError | None = None
        self._inflate: _Inflate | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._write: Callable[[bytes], bool] | None = None
        """Of whoever pours, until it has enough for now."""
        self._stopped: FreeholdError | None = None
        """What it raised."""
        self._first = b""
        self._limit_bytes = self._left_bytes = sys.maxsize

    @property
    def headers(self) -> dict[str, str]:
        """Names are lower case. A repeated header's values are joined with a comma."""
        if self._headers is None:
            self._headers = _parse_headers(self._head)
        return self._headers

    def __aiter__(self) -> Self:
        return self

    def again_from(self, first: bytes, *, limit_bytes: int) -> Self:
        """Iterates from `first` on, which was taken already. Raises TooLarge once more than `limit_bytes` came after it."""
        self._first = first
        self._limit_bytes = self._left_bytes = limit_bytes
        return self

    async def __anext__(self) -> bytes:
        while True:
            if self._first:
                first, self._first = self._first, b""
                return first
            if self._inflate is not None and (piece := self._inflate.pull()):
                return self._counted(piece)
            if self._parts:
                taken = self._take()
                if self._inflate is None:
                    return self._counted(taken)
                self._inflate.push(taken)
            elif not self._ended:
                await self._more()
            elif self._failure is not None:
                raise self._failure
            else:
                if self._inflate is not None:
                    self._inflate.finish()
                raise StopAsyncIteration

    async def _more(self) -> None:
        if self._waiter is not None:
            raise Internal("two readers of one answer")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def pour(self, write: Callable[[bytes], bool], drained: Callable[[], Awaitable[object]]) -> None:
        """As `core.ports.Chunks` has it. What comes goes to `write` straight from the socket."""
        while True:
            while self._first or self._parts or self._ended or self._inflate is not None:
                try:
                    piece = await self.__anext__()
                except StopAsyncIteration:
                    return
                if not write(piece):
                    await drained()
            self._write = write
            try:
                await self._more()
            finally:
                behind, self._write = self._write is None, None
                stopped, self._stopped = self._stopped, None
            if stopped is not None:
                raise stopped
            if behind:
                await drained()

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body. Raises TooLarge over `limit_bytes` (counted after decompression). Closes in any case."""
        if self._ended and self._failure is None and self._inflate is None and self.size <= limit_bytes:
            return self._take()  # Most answers to short requests are here before their reader.
        parts: list[bytes] = []
        size = 0
        try:
            async for part in self:
                size += len(part)
                if size > limit_bytes:
                    raise TooLarge(f"the answer of {self._name} is over limit_bytes = {limit_bytes}")
                parts.append(part)
        finally:
            self.close()
        return b"".join(parts)

    def close(self) -> None:
        """Hangs up if the answer has not ended. Idempotent; reading on then raises BrokenOff."""
        if self._source is None:
            return
        source = self._source
        self._parts.clear()
        self.end(BrokenOff(f"the answer of {self._name} was closed before its end"))
        source.abort()

    async def aclose(self) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def whole(self) -> bytes | None:
        """As `read`, at once: None where it has not ended well, is empty or compressed."""
        if not self._ended or self._failure is not None or self._inflate is not None:
            return None
        return b"".join(self._parts) or None

    def beginning(self, expected: tuple[bytes, ...]) -> bytes:
        """What of the body is here, at once, where it begins in one of these ways; else nothing is taken."""
        if self._inflate is not None or not b"".join(self._parts).startswith(expected):
            return b""
        return self._take()

    @property
    def ended(self) -> bool:
        """Its connection is done with it, however that came."""
        return self._ended

    # What the connection calls.

    def tell(self) -> None:
        told, self.told = self.told, None
        if told is not None:
            told(self)

    def inflate(self, encoding: str) -> None:
        """The body is compressed. Raises Unavailable for an encoding that nobody asked for and we cannot undo."""
        if encoding not in {"gzip", "x-gzip", "deflate"}:
            raise Unavailable(
                f"{self._name} compressed its answer with {encoding[:40]!r}, although accept-encoding was identity"
            )
        self._inflate = _Inflate(self._name)

    def add(self, piece: bytes) -> int:
        """How many bytes wait for the reader now."""
        write = self._write
        if write is None:
            self._parts.append(piece)
            self.size += len(piece)
        else:
            self._left_bytes -= len(piece)
            try:
                if self._left_bytes < 0:
                    raise self._too_large()
                if write(piece):
                    return 0
            except FreeholdError as error:  # For whoever pours: the event loop has no use for it.
                self._stopped = error
            self._write = None
        if self._waiter is not None:
            self._wake()
        return self.size

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def end(self, failure: FreeholdError | None, last: bytes = b"") -> None:
        """After its last piece."""
        if last:
            if self._write is None:
                self._parts.append(last)
                self.size += len(last)
            else:
                self.add(last)
        self._ended = True
        self._failure = failure
        self._source = None
        told = self.told
        if told is not None:
            self.told = None
            told(self)
        elif self._waiter is not None:
            self._wake()

    def _take(self) -> bytes:
        parts = self._parts
        taken = b"".join(parts)
        parts.clear()
        self.size = 0
        if self._source is not None:
            self._source.resume()
        return taken

    def _counted(self, piece: bytes) -> bytes:
        self._left_bytes -= len(piece)
        if self._left_bytes < 0:
            raise self._too_large()
        return piece

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the answer of {self._name} is over limit_bytes = {self._limit_bytes}")


class _Inflate:
    """Incremental gzip or zlib, several members allowed. What is pushed is held until it has been pulled."""

    __slots__ = ("_held", "_more", "_name", "_stream", "_within")

    def __init__(self, name: str) -> None:
        self._name = name
        self._stream = zlib.decompressobj(ZLIB_OR_GZIP)
        self._held = b""
        self._more = False
        self._within = False

    def push(self, data: bytes) -> None:
        self._held += data

    def pull(self) -> bytes:
        """Empty when more input is needed."""
        while self._held or self._more:
            self._within = True
            try:
                piece = self._stream.decompress(self._held, INFLATED_PIECE_BYTES_MAX)
            except zlib.error as error:
                raise BrokenOff(
                    f"the compressed answer of {self._name} is damaged", detail=str(error)
                ) from error
            self._held = self._stream.unconsumed_tail
            # zlib may keep finished output back at the limit although all input is consumed.
            self._more = len(piece) == INFLATED_PIECE_BYTES_MAX and not self._stream.eof
            if self._stream.eof:
                self._held = self._stream.unused_data
                self._stream = zlib.decompressobj(ZLIB_OR_GZIP)
                self._within = False
            if piece:
                return piece
        return b""

    def finish(self) -> None:
        if self._within:
            raise BrokenOff(f"the compressed answer of {self._name} ended before its end mark")


def _parse_headers(head: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n")[1:-2]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
