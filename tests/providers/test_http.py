"""The HTTP client against servers that say exactly these bytes: what is an answer, what is none, and what is bounded.
On asyncio's loop, and the tests without parameters again on uvloop's."""

import asyncio
import gzip
import sys
import zlib
from inspect import iscoroutinefunction, signature
from itertools import pairwise

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from tests._waiting import within

from freehold.core.errors import BrokenOff, FreeholdError, TimedOut, TooLarge, Unavailable
from freehold.providers._http import HttpPool, Target, Timeouts, header_block
from freehold.providers._http_reply import _Inflate

HELLO = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'2;name="a;b\\"c"\r\nhe\r\n3;last\r\nllo\r\n0\r\nx-trailer: yes\r\n\r\n'
)
LIMIT = 1_000_000
SOON = Timeouts(connect_s=60, first_byte_s=60, idle_s=60, total_s=60)


async def ask(url, body=b"{}", *, limit_bytes=LIMIT, timeouts=SOON, **options):
    """One request on a pool of its own: status and body."""
    async with HttpPool(drain_s=0) as pool:
        reply = await pool.request(Target(url), body, path="/v1", timeouts=timeouts, **options)
        return reply.status, await reply.read(limit_bytes)


async def refusal(url, kind, **options):
    with pytest.raises(kind) as caught:
        await ask(url, **options)
    return caught.value


# Requests.


async def test_a_request_is_one_head_with_the_targets_and_the_calls_headers(scripted):
    async with scripted(HELLO) as server, HttpPool() as pool:
        target = Target(server.url + "/base/", headers=[(b"authorization", b"Bearer k")])
        block = header_block([(b"content-type", b"application/json")])
        reply = await pool.request(target, b'{"a":1}', path="/v1/x?y=1", headers=block)
        assert await reply.read(5) == b"hello"
    assert server.calls[0].body == b'{"a":1}'
    assert server.calls[0].head.split(b"\r\n") == [
        b"POST /base/v1/x?y=1 HTTP/1.1",
        b"host: 127.0.0.1:%d" % server.port,
        b"accept-encoding: identity",
        b"authorization: Bearer k",
        b"user-agent: freehold",
        b"content-type: application/json",
        b"content-length: 7",
        b"",
        b"",
    ]


async def test_a_hundred_megabytes_go_out_no_faster_than_they_are_read(scripted):
    body = bytes(100_000_000)
    async with scripted(HELLO) as server:
        assert await ask(server.url, body) == (200, b"hello")
        assert len(server.calls[0].body) == len(body)


async def test_a_server_may_answer_before_it_has_read_the_request(scripted):
    async def script(call):
        await call.reader.readuntil(b"\r\n\r\n")
        await call.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await call.client_gone()

    async with scripted(script, unread=True) as server:
        assert await ask(server.url, bytes(50_000_000)) == (413, b"no")


# Answers.


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (HELLO, b"hello"),
        (CHUNKED, b"hello"),
        (b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO, b"hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: </a>\r\n\r\n" + CHUNKED, b"hello"),
        (b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 1\r\n\r\n.", b"."),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nno", b"no"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 1000])
async def test_an_answer_is_understood_however_it_is_cut(scripted, answer, body, size):
    async with scripted(lambda call: call.dribble(answer, size)) as server, HttpPool() as pool:
        target = Target(server.url)
        for _ in range(2):
            reply = await pool.request(target, path="/", timeouts=SOON)
            assert reply.status == int(answer.split(b"HTTP/1.1 ")[-1][:3])
            assert await reply.read(LIMIT) == body
        assert server.connection_count == 1


async def test_headers_are_read_by_lower_case_names_and_repeated_ones_are_joined(scripted):
    answer = b"HTTP/1.1 200 OK\r\nX-One:  a \r\nx-two: 1\r\nX-Two: 2\r\nEmpty:\r\ncontent-length: 0\r\n\r\n"
    async with scripted(answer) as server, HttpPool() as pool:
        reply = await pool.request(Target(server.url), path="/")
        assert reply.headers == {"x-one": "a", "x-two": "1, 2", "empty": "", "content-length": "0"}


async def test_an_answer_to_head_has_no_body(scripted):
    async with scripted(
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\ncontent-encoding: gzip\r\n\r\n"
    ) as server:
        assert await ask(server.url, b"", method="HEAD") == (200, b"")


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
async def test_a_body_without_length_ends_where_the_connection_ends(scripted, version):
    async def script(call):
        await call.dribble(version + b" 200 OK\r\n\r\n" + b"abc" * 100, 50)
        call.close()

    async with scripted(script) as server:
        assert await ask(server.url) == (200, b"abc" * 100)


@pytest.mark.parametrize("answer", [HELLO, CHUNKED])
async def test_a_connection_closed_at_any_position_is_an_error_and_never_a_shorter_answer(scripted, answer):
    position = 0

    async def script(call):
        await call.send(answer[:position])
        call.close()

    async with scripted(script) as server, HttpPool() as pool:
        target = Target(server.url)
        for position in range(len(answer)):
            in_head = position < answer.index(b"\r\n\r\n") + 4
            with pytest.raises(Unavailable if in_head else BrokenOff, match="closed the connection"):
                await (await pool.request(target, path="/", timeouts=SOON)).read(LIMIT)
        assert pool.use(target).open_count == 0


async def test_a_reset_in_an_answer_without_length_is_an_error(scripted):
    async def script(call):
        await call.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        await call.reader.readexactly(1)  # Until the client has the first bytes.
        call.reset()

    async with scripted(script) as server, HttpPool() as pool:
        reply = await pool.request(Target(server.url), path="/", timeouts=SOON)
        assert await anext(reply) == b"abc"
        reply._source._transport.write(b"!")
        with pytest.raises(BrokenOff):
            await anext(reply)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\r\n folded\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 0\n\n\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 1\r\n\r\nx",
    ],
)
async def test_what_is_no_http_answer_is_said_at_once(scripted, answer):
    """The server keeps the connection open: the client must not wait for more."""
    async with scripted(answer) as server:
        error = await refusal(server.url, Unavailable)
        assert f"127.0.0.1:{server.port}" in error.message


@pytest.mark.parametrize("rest", [b"zz\r\n", b"2\r\nheX", b"ffffffffffffffffff\r\n", b"2\r\nhe\r\n-1\r\n"])
async def test_chunks_that_turn_to_garbage_break_the_answer_off(scripted, rest):
    async with scripted(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n" + rest) as server:
        await refusal(server.url, BrokenOff)


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"]
)
async def test_headers_and_trailers_without_end_are_cut_off(scripted, start):
    async def script(call):
        await call.send(start)
        while True:
            await call.send(b"x-more: and more\r\n" * 100)

    async with scripted(script) as server:
        error = await refusal(server.url, FreeholdError)
        assert "HEAD_BYTES_MAX" in error.message


async def test_a_body_without_end_is_read_up_to_the_limit_and_hung_up(scripted):
    gone = asyncio.Event()

    async def script(call):
        await call.send(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                await call.send(bytes(10_000))
        finally:
            gone.set()

    async with scripted(script) as server:
        error = await refusal(server.url, TooLarge, limit_bytes=123_456)
        assert "limit_bytes = 123456" in error.message
        async with within("the server to be hung up on"):
            await gone.wait()


def test_the_limit_of_read_is_exact(scripted):
    async def check():
        async with scripted(HELLO) as server:
            assert await ask(server.url, limit_bytes=5) == (200, b"hello")
            await refusal(server.url, TooLarge, limit_bytes=4)

    asyncio.run(check())


# Compression that nobody asked for.


def compressed(encoding: str, packed: bytes) -> bytes:
    return (
        f"HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\ncontent-length: {len(packed)}\r\n\r\n".encode()
        + packed
    )


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("GZIP", lambda d: gzip.compress(d[:9], mtime=0) + gzip.compress(d[9:], mtime=0)),
    ],
)
async def test_compressed_answers_are_inflated(scripted, encoding, pack, size):
    text = b"some text, again and again; " * 50
    async with scripted(lambda call: call.dribble(compressed(encoding, pack(text)), size)) as server:
        assert await ask(server.url) == (200, text)


async def test_a_compressed_stream_is_readable_as_it_comes(scripted):
    packer = zlib.compressobj(wbits=31)
    heard = asyncio.Semaphore(0)

    async def script(call):
        await call.send(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n")
        for number in range(20):
            await call.send(packer.compress(b"event %d" % number) + packer.flush(zlib.Z_SYNC_FLUSH))
            await heard.acquire()
        await call.send(packer.flush())
        call.close()

    async with scripted(script) as server, HttpPool() as pool:
        reply = await pool.request(Target(server.url), path="/", timeouts=SOON)
        number = 0
        async for piece in reply:
            assert piece == b"event %d" % number
            number += 1
            heard.release()
        assert number == 20


async def test_a_bomb_is_inflated_a_small_piece_at_a_time(scripted):
    bomb = compressed("gzip", gzip.compress(bytes(50_000_000)))
    async with scripted(bomb) as server, HttpPool() as pool:
        reply = await pool.request(Target(server.url), path="/", timeouts=SOON)
        sizes = [len(piece) async for piece in reply]
        assert max(sizes) <= 65536
        assert sum(sizes) == 50_000_000
        await refusal(server.url, TooLarge, limit_bytes=LIMIT)


@pytest.mark.parametrize("size", range(60, 72))
def test_output_that_zlib_holds_back_at_the_limit_is_given_at_once(size):
    """A crumb of about 64 bytes inflates to about the limit; there must be as much output as without one."""
    packed = gzip.compress(bytes(300_000))
    bounded, unbounded = _Inflate("h"), zlib.decompressobj(wbits=31)
    for start in range(0, len(packed), size):
        bounded.push(packed[start : start + size])
        expected = unbounded.decompress(packed[start : start + size])
        assert sum(map(len, iter(bounded.pull, b""))) == len(expected)
    bounded.finish()


@pytest.mark.parametrize(
    "packed",
    [gzip.compress(b"hello", mtime=0)[:-3], b"not gzip at all", gzip.compress(b"hello", mtime=0) + b"tail"],
)
async def test_a_damaged_compressed_answer_is_an_error(scripted, packed):
    async with scripted(compressed("gzip", packed)) as server:
        await refusal(server.url, BrokenOff)


# Streams.


async def test_each_of_a_thousand_events_is_readable_before_the_next_is_sent(scripted):
    heard = asyncio.Semaphore(0)

    async def script(call):
        await call.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for number in range(1000):
            event = b"data: {%d}\n\n" % number
            await call.send(b"%x\r\n%b\r\n" % (len(event), event))
            await heard.acquire()
        await call.send(b"0\r\n\r\n")

    async with scripted(script) as server, HttpPool() as pool:
        target = Target(server.url)
        pieces = []
        async with await pool.request(target, path="/", timeouts=SOON) as reply:
            async for piece in reply:
                pieces.append(piece)
                heard.release()
        assert pieces == [b"data: {%d}\n\n" % number for number in range(1000)]
        assert pool.use(target).idle_count == 1


async def test_a_slow_reader_holds_the_server_back_and_loses_nothing(scripted, until):
    sent = 0
    total = 40_000_000

    async def script(call):
        nonlocal sent
        await call.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        for start in range(0, total, 100_000):
            await call.send(b"%010d" % start * 10_000)
            sent += 100_000

    async with scripted(script) as server, HttpPool() as pool:
        reply = await pool.request(Target(server.url), path="/", timeouts=Timeouts(idle_s=1.0, total_s=300))
        await until(lambda: reply.size > 256 * 1024)
        await asyncio.sleep(1.2)  # Longer than idle_s: a reader that lags is not the server's fault.
        assert sent < 25_000_000  # What the kernel's two buffers hold, at most.
        assert reply.size < 1_000_000
        whole = await reply.read(total)
        assert whole == b"".join(b"%010d" % start * 10_000 for start in range(0, total, 100_000))


async def test_closing_early_hangs_up_the_provider(scripted):
    gone = asyncio.Event()

    async def script(call):
        await call.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await call.client_gone()
        gone.set()

    async with scripted(script) as server, HttpPool() as pool:
        target = Target(server.url)
        async with await pool.request(target, path="/") as reply:
            assert await anext(reply) == b"abc"
        async with within("the server to be hung up on"):
            await gone.wait()
        assert pool.use(target).open_count == 0
        with pytest.raises(BrokenOff, match="was closed"):
            await anext(reply)


async def test_a_reader_that_gave_up_waiting_may_go_on_reading(scripted):
    go = asyncio.Event()

    async def script(call):
        await call.send(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n")
        await go.wait()
        await call.send(b"abc")

    async with scripted(script) as server, HttpPool() as pool:
        reply = await pool.request(Target(server.url), path="/")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await anext(reply)
        go.set()
        assert await reply.read(3) == b"abc"


# Limits of time.


@pytest.mark.parametrize(
    ("start", "timeouts", "name"),
    [
        (b"", Timeouts(first_byte_s=0.05), "first_byte_s = 0.05"),
        (b"HTTP/1.1 200 OK\r\n", Timeouts(first_byte_s=0.05), "first_byte_s = 0.05"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", Timeouts(first_byte_s=0.05), "first_byte_s = 0.05"),
        (HELLO[:-1], Timeouts(idle_s=0.05), "idle_s = 0.05"),
        (b"", Timeouts(total_s=0.05), "total_s = 0.05"),
        (HELLO[:-1], Timeouts(total_s=0.05), "total_s = 0.05"),
    ],
)
async def test_silence_ends_with_the_name_and_size_of_the_limit(scripted, start, timeouts, name):
    async def script(call):
        await call.send(start)
        await call.client_gone()

    async with scripted(script) as server, HttpPool() as pool:
        target = Target(server.url)
        with pytest.raises(TimedOut) as caught:
            await (await pool.request(target, path="/", timeouts=timeouts)).read(LIMIT)
        assert name in caught.value.message
        assert pool.use(target).open_count == 0


async def test_a_request_that_nobody_reads_runs_into_the_idle_limit(scripted):
    deaf = asyncio.Event()

    async with scripted(lambda _: deaf.wait(), unread=True) as server:
        error = await refusal(server.url, TimedOut, body=bytes(50_000_000), timeouts=Timeouts(idle_s=0.1))
        assert "idle_s = 0.1" in error.message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framing", "piece"), [(b"", b"."), (b"transfer-encoding: chunked\r\n", b"1\r\n.\r\n")]
)
async def test_a_steady_stream_may_outlast_the_idle_limit_but_not_the_total(scripted, framing, piece):
    async def script(call):
        await call.send(b"HTTP/1.1 200 OK\r\n%b\r\n" % framing)
        while True:
            await call.send(piece)
            await asyncio.sleep(0.01)

    async with scripted(script) as server:
        error = await refusal(server.url, TimedOut, timeouts=Timeouts(idle_s=1.9, total_s=2.0))
        assert "total_s = 2" in error.message


# The same, cut anywhere; and the same on the other event loop.


@st.composite
def exchanges(draw) -> tuple[bytes, bytes, list[bytes]]:
    """A body, an answer that carries it, and that answer's bytes in arbitrary pieces."""
    body = draw(st.binary(max_size=300))
    if draw(st.booleans()):
        marks = sorted(draw(st.sets(st.integers(0, len(body)), max_size=5)) | {0, len(body)})
        chunks = [body[a:b] for a, b in pairwise(marks)]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n"
        answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + framed
    else:
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    if draw(st.booleans()):
        answer = b"HTTP/1.1 100 Continue\r\n\r\n" + answer
    cuts = sorted(draw(st.sets(st.integers(1, len(answer) - 1), max_size=8)))
    return body, answer, [answer[a:b] for a, b in pairwise([0, *cuts, len(answer)])]


def test_any_cutting_of_an_answer_gives_the_same_body(scripted):
    with asyncio.Runner() as runner:

        @given(exchanges())
        def check(exchange):
            body, _, pieces = exchange

            async def script(call):
                for piece in pieces:
                    await call.send(piece)
                    await asyncio.sleep(0)

            async def twice():
                async with scripted(script) as server, HttpPool() as pool:
                    target = Target(server.url)
                    for _ in range(2):
                        assert await (await pool.request(target, path="/", timeouts=SOON)).read(LIMIT) == body
                    assert server.connection_count == 1

            runner.run(twice())

        check()


PLAIN_BEHAVIOURS = [
    name
    for name, test in list(globals().items())
    if name.startswith("test_") and iscoroutinefunction(test)
    if all(mark.name != "parametrize" for mark in getattr(test, "pytestmark", ()))
]


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", PLAIN_BEHAVIOURS)
def test_it_holds_on_uvloop_too(behaviour, request):
    test = getattr(sys.modules[__name__], behaviour)
    fixtures = {name: request.getfixturevalue(name) for name in signature(test).parameters}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test(**fixtures))
