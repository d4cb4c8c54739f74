"""Chunks of a body that pass the parser by: whatever a server sends, and however it is cut, is read as the parser alone reads it."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests._waiting import within

from freehold.core.errors import TimedOut
from freehold.providers._http_chunk import CHUNK_BYTES_MAX
from freehold.providers._http_connection import Connection, Timeouts
from freehold.providers._http_reply import Reply

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
EVENT = b'data: {"choices":[]}\n\n'


def framed(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


class Socket:
    """What a connection sees of one, and its keeper."""

    aborted = False
    released_count = 0

    def write(self, data: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True

    def release(self, connection: Connection) -> None:
        self.released_count += 1

    def freed(self, connection: Connection) -> None: ...
    def closed(self, connection: Connection) -> None: ...


async def opened(timeouts: Timeouts | None = None) -> tuple[Connection, Socket, Reply]:
    socket: Any = Socket()
    connection = Connection(socket, "vendor")
    connection.connection_made(socket)
    asked = asyncio.create_task(
        connection.exchange(
            b"GET / HTTP/1.1\r\n\r\n", b"", timeouts or Timeouts(), bodiless=False, total_at=1e9
        )
    )
    await asyncio.sleep(0)
    connection.data_received(HEAD)
    return connection, socket, await asked


async def told(pieces: list[bytes], *, poured: bool = False) -> tuple[bytes, str, int, bool]:
    """The body as it came, how it ended, and what became of the connection."""
    connection, socket, reply = await opened()
    taken: list[bytes] = []

    def take(piece: bytes) -> bool:
        taken.append(piece)
        return True

    async def never() -> None:
        raise AssertionError("nobody is behind")

    async def read() -> None:
        if poured:
            await reply.pour(take, never)
            return
        async for piece in reply:
            take(piece)

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    for piece in pieces:
        if not socket.aborted:
            connection.data_received(piece)
    for _ in range(3):
        await asyncio.sleep(0)
    reply.close()
    (ended,) = await asyncio.gather(reading, return_exceptions=True)
    return b"".join(taken), str(ended), socket.released_count, socket.aborted


def bytewise(data: bytes) -> list[bytes]:
    """No single byte is a chunk: all of it is the parser's."""
    return [data[at : at + 1] for at in range(len(data))]


bodies = st.one_of(
    st.binary(min_size=1, max_size=20),
    st.sampled_from([
        EVENT,
        EVENT * 20,
        b"x" * (CHUNK_BYTES_MAX + 1),
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"\r\n",
    ]),
)
odd = st.sampled_from([
    b"5;name=value\r\nhello\r\n", b"005\r\nhello\r\n", b"5 \r\nhello\r\n", b"5\nhello\n", b"0x5\r\nhello\r\n", b"+5\r\nhello\r\n",
    b"5\r\nhell\r\n", b"5\r\nhelloo\r\n", b"-1\r\n\r\n", b"\r\n", b"A\r\n0123456789\r\n", b"1_0\r\n0123456789abcdef\r\n", END,
    b"0\r\nx-trailer: yes\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"ffffffffffffffffff\r\n",
])  # fmt: skip


@st.composite
def answers(draw: st.DrawFn) -> list[bytes]:
    """Reads of a body: mostly one chunk each, some in halves or together, and some of it is wrong."""
    chunks = draw(st.lists(st.one_of(bodies.map(framed), bodies.map(framed), odd), max_size=8))
    chunks += [END] if draw(st.booleans()) else []
    data = b"".join(chunks)
    ends = {sum(map(len, chunks[:count])) for count in range(len(chunks) + 1)}
    left_out = draw(st.sets(st.sampled_from(sorted(ends)), max_size=2))
    added = draw(st.sets(st.integers(0, len(data)), max_size=2))
    cuts = sorted((ends - left_out) | added | {0, len(data)})
    return [data[start:end] for start, end in pairwise(cuts)]


@given(answers(), st.booleans())
@example([framed(EVENT), framed(EVENT), END], True)
@example([framed(EVENT), b"16\r\nabc\r\n", framed(EVENT)], True)
@example([framed(EVENT) + b"5", framed(EVENT)], True)
def test_a_body_is_read_as_the_parser_reads_it(pieces: list[bytes], poured: bool) -> None:
    async def both() -> None:
        assert await told(pieces, poured=poured) == await told(bytewise(b"".join(pieces)))

    asyncio.run(both())


@pytest.mark.parametrize(
    "data",
    [END, b"5\r\nhello", b"5\r\nhello\n\n", b"05\r\nhello\r\n", b"5;a\r\nhello\r\n", b"5\r\nhello\r\n" * 2, b"6\r\nhello\r\n"],
)  # fmt: skip
async def test_what_is_not_plainly_one_chunk_is_left_to_the_parser(data: bytes) -> None:
    before, after = framed(EVENT), framed(EVENT) + END
    assert await told([before, before, data, after]) == await told(bytewise(before * 2 + data + after))


@pytest.mark.parametrize("line", [b"%x", b"%X"])
@pytest.mark.parametrize("size", [1, 9, 10, 15, 16, 255, 256, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1])
async def test_a_chunk_of_any_size_is_read_whole(size: int, line: bytes) -> None:
    body = b"\n" * size
    chunk = line % size + b"\r\n" + body + b"\r\n"
    assert await told([framed(EVENT), chunk, chunk, END], poured=True) == (
        EVENT + body + body,
        "None",
        1,
        False,
    )


async def test_silence_after_single_chunks_runs_into_the_idle_limit() -> None:
    connection, socket, reply = await opened(Timeouts(idle_s=0.5))
    for _ in range(5):
        connection.data_received(framed(EVENT))
    assert await anext(reply) == EVENT * 5
    async with within("the silence is told"):
        with pytest.raises(TimedOut, match=r"idle_s = 0\.5"):
            await anext(reply)
    assert socket.aborted


async def test_a_reader_that_is_far_behind_has_the_server_wait() -> None:
    connection, socket, reply = await opened()
    paused = []
    socket.pause_reading = lambda: paused.append(reply.size)  # type: ignore[method-assign]
    while not paused and reply.size < 1_000_000:
        connection.data_received(framed(EVENT * 20))
    assert paused
    reply.close()
