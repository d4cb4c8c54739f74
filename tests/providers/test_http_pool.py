"""The HTTP client's connections: reuse, the race with a server that closes, queueing, cancellation, shutdown, TLS, proxy."""

import asyncio
import math
import ssl
import subprocess

import pytest
import uvloop

from freehold.core.errors import BadRequest, BrokenOff, Internal, Overloaded, TimedOut, Unavailable
from freehold.providers._http import HttpPool, PoolUse, Target, Timeouts

HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
NOBODY = PoolUse(open_count=0, idle_count=0, queue_count=0)
SOON = Timeouts(queue_s=60, connect_s=60, first_byte_s=60, idle_s=60, total_s=60)


async def ask(pool, target, body=b"", timeouts=SOON):
    return await (await pool.request(target, body, path="/", timeouts=timeouts)).read(1_000_000)


@pytest.fixture(autouse=True)
def wide_stale_window(monkeypatch):
    """However slow the machine, a close that crosses a request crosses it in time."""
    monkeypatch.setattr("freehold.providers._http_connection.STALE_WINDOW_S", 60.0)


def closing_while_idle(*, calls_before_close):
    """Closes instead of answering the last request of a connection, as a server does whose idle limit is just over."""

    async def script(call):
        if call.number > calls_before_close:
            call.close()
        else:
            await call.send(HELLO)

    return script


# Reuse.


async def test_one_connection_serves_one_request_after_another(scripted):
    async with scripted(HELLO) as server, HttpPool() as pool:
        target = Target(server.url)
        for _ in range(20):
            assert await ask(pool, target) == b"hello"
        assert server.connection_count == 1
        assert pool.use(Target(server.url + "/other/base")) == PoolUse(1, 1, 0)


@pytest.mark.parametrize(
    "answer",
    [
        HELLO.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"),
        HELLO.replace(b"HTTP/1.1", b"HTTP/1.0"),
        HELLO + b"and more",
        HELLO + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        HELLO + b"HTT",
        b"HTTP/1.1 204 No Content\r\n\r\nevil",
    ],
)
async def test_a_connection_whose_answer_leaves_doubt_is_not_used_again(scripted, answer):
    async with scripted(answer) as server, HttpPool() as pool:
        target = Target(server.url)
        for _ in range(2):
            assert await ask(pool, target) in {b"hello", b""}
            assert pool.use(target) == NOBODY
        assert server.connection_count == 2


async def test_an_answer_that_nobody_asked_for_is_nobodys_answer(scripted, until):
    async with scripted(HELLO) as server, HttpPool() as pool:
        target = Target(server.url)
        await ask(pool, target)
        await server.calls[0].send(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
        await until(lambda: pool.use(target) == NOBODY)
        assert await ask(pool, target) == b"hello"


async def test_a_connection_that_the_server_closed_is_forgotten(scripted, until):
    async def script(call):
        await call.send(HELLO)
        call.close()

    async with scripted(script) as server, HttpPool() as pool:
        target = Target(server.url)
        await ask(pool, target)
        await until(lambda: pool.use(target) == NOBODY)


@pytest.mark.parametrize("body", [b"{}", bytes(5_000_000)])
async def test_a_request_that_crossed_the_servers_close_is_sent_again(scripted, body):
    async with scripted(closing_while_idle(calls_before_close=1)) as server, HttpPool() as pool:
        target = Target(server.url)
        for _ in range(3):
            assert await ask(pool, target, body) == b"hello"
        assert server.connection_count == 3
        assert pool.use(target).open_count == 1


async def test_all_idle_connections_may_be_stale_at_once(scripted):
    closing = False

    async def script(call):
        if closing and call.number > 1:
            call.reset()
        else:
            await call.send(HELLO)

    async with scripted(script) as server, HttpPool(connections_max=10) as pool:
        target = Target(server.url)
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(ask(pool, target))
        closing = True
        for _ in range(10):
            assert await ask(pool, target) == b"hello"
        assert pool.use(target).open_count <= 10


async def test_a_fresh_connection_that_closes_without_an_answer_is_not_tried_again(scripted):
    async with scripted(closing_while_idle(calls_before_close=0)) as server, HttpPool() as pool:
        with pytest.raises(Unavailable, match="closed the connection without an answer"):
            await ask(pool, Target(server.url))
        assert len(server.calls) == 1


async def test_a_request_is_sent_again_only_once(scripted):
    async def script(call):
        if len(server.calls) == 1:
            await call.send(HELLO)
        else:
            call.close()

    async with scripted(script) as server, HttpPool() as pool:
        target = Target(server.url)
        await ask(pool, target)
        with pytest.raises(Unavailable):
            await ask(pool, target)
        assert len(server.calls) == 3


@pytest.mark.parametrize("start", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", HELLO[:-1]])
async def test_a_request_that_was_answered_with_one_byte_is_never_sent_again(scripted, start):
    async def script(call):
        await call.send(start if call.number > 1 else HELLO)
        if call.number > 1:
            call.close()

    async with scripted(script) as server, HttpPool() as pool:
        target = Target(server.url)
        await ask(pool, target)
        with pytest.raises((Unavailable, BrokenOff)):
            await ask(pool, target)
        assert len(server.calls) == 2


async def test_a_server_that_dies_over_its_work_does_not_get_the_work_again(scripted, monkeypatch):
    monkeypatch.setattr("freehold.providers._http_connection.STALE_WINDOW_S", 0.02)

    async def script(call):
        if call.number == 1:
            await call.send(HELLO)
        else:
            await asyncio.sleep(0.1)  # The work.
            call.close()

    async with scripted(script) as server, HttpPool() as pool:
        target = Target(server.url)
        await ask(pool, target)
        with pytest.raises(Unavailable):
            await ask(pool, target)
        assert len(server.calls) == 2


async def test_an_idle_connection_is_closed_after_its_time(scripted, until):
    async with scripted(HELLO) as server, HttpPool(idle_timeout_s=0.05) as pool:
        target = Target(server.url)
        await ask(pool, target)
        await until(lambda: pool.use(target) == NOBODY and server.open_count == 0)


async def test_a_server_that_states_its_idle_limit_is_believed(scripted):
    hasty = HELLO.replace(b"\r\n\r\n", b"\r\nKeep-Alive: timeout=1, max=9\r\n\r\n")
    async with scripted(hasty) as server, HttpPool() as pool:
        target = Target(server.url)
        for _ in range(2):
            await ask(pool, target)
        assert server.connection_count == 2


# Limits.


async def test_five_hundred_requests_share_fifty_connections(scripted):
    async def script(call):
        await asyncio.sleep(0.001)
        await call.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(call.body), call.body))

    async with scripted(script) as server, HttpPool(connections_max=50) as pool:
        target = Target(server.url)
        bodies = [b"request %d" % number for number in range(500)]
        assert await asyncio.gather(*(ask(pool, target, body) for body in bodies)) == bodies
        assert server.open_count_most == 50
        assert pool.use(target) == PoolUse(50, 50, 0)


@pytest.mark.parametrize("answer", [HELLO, HELLO.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")])
async def test_who_waits_longest_is_served_first(scripted, answer):
    async with scripted(answer) as server, HttpPool(connections_max=1) as pool:
        target = Target(server.url)
        await asyncio.gather(*(ask(pool, target, b"%d" % number) for number in range(30)))
        assert [call.body for call in server.calls] == [b"%d" % number for number in range(30)]


async def test_a_full_queue_and_a_long_wait_are_overload(scripted, until):
    async with (
        scripted(lambda call: call.client_gone()) as server,
        HttpPool(connections_max=1, queue_max=1) as pool,
    ):
        target = Target(server.url)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(ask(pool, target))
            await until(lambda: len(server.calls) == 1)
            second = group.create_task(ask(pool, target))
            await until(lambda: pool.use(target).queue_count == 1)
            with pytest.raises(Overloaded, match="queue_max = 1"):
                await ask(pool, target)
            second.cancel()
            await until(lambda: pool.use(target).queue_count == 0)
            with pytest.raises(Overloaded, match=r"queue_s = 0\.01"):
                await ask(pool, target, timeouts=Timeouts(queue_s=0.01))
            with pytest.raises(TimedOut, match=r"total_s = 0\.01"):
                await ask(pool, target, timeouts=Timeouts(total_s=0.01))
            assert pool.use(target) == PoolUse(open_count=1, idle_count=0, queue_count=0)
            first.cancel()
        assert pool.use(target) == NOBODY


async def test_cancelling_at_any_moment_leaves_nothing_behind(scripted, until):
    """Each request is cancelled after another number of loop iterations, with few connections and a queue."""

    async def script(call):
        await call.dribble(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n", 7
        )

    async with scripted(script) as server, HttpPool(connections_max=3) as pool:
        target = Target(server.url)

        async def cancelled_after(turns):
            task = asyncio.ensure_future(ask(pool, target, b"x" * (turns % 3) * 100_000))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            return await asyncio.gather(task, return_exceptions=True)

        outcomes = await asyncio.gather(*(cancelled_after(turns) for turns in range(200)))
        assert any(isinstance(outcome, asyncio.CancelledError) for (outcome,) in outcomes)
        use = pool.use(target)
        assert use.open_count == use.idle_count <= 3
        assert use.queue_count == 0
        assert await asyncio.gather(*(ask(pool, target) for _ in range(10))) == [b"ab"] * 10
        await until(lambda: server.open_count == pool.use(target).open_count)


async def test_a_request_cancelled_just_when_its_answer_began_hangs_up(scripted, until):
    """Cancelled in each of the loop's turns around the one in which the head is there and the request does not know."""
    go = asyncio.Semaphore(0)

    async def script(call):
        await go.acquire()
        await call.send(b"HTTP/1.1 200 OK\r\n\r\nbegun")
        await call.client_gone()

    async with scripted(script) as server, HttpPool() as pool:
        target = Target(server.url)
        for turns in range(12):
            task = asyncio.ensure_future(pool.request(target, path="/"))
            await until(lambda: len(server.calls) == turns + 1)  # noqa: B023 - awaited at once
            go.release()
            for _ in range(turns):
                await asyncio.sleep(0)
            if not task.cancel():
                (await task).close()
            await asyncio.gather(task, return_exceptions=True)
            assert pool.use(target) == NOBODY
        await until(lambda: server.open_count == 0)


async def test_a_place_given_to_a_request_that_was_just_cancelled_is_given_on(scripted, until):
    async def script(call):
        await call.send(HELLO[:-1] if call.body == b"long" else HELLO)

    async with scripted(script) as server, HttpPool(connections_max=1) as pool:
        target = Target(server.url)
        first = await pool.request(target, b"long", path="/")
        waiting = asyncio.ensure_future(ask(pool, target))
        await until(lambda: pool.use(target).queue_count == 1)
        first.close()
        waiting.cancel()
        assert await ask(pool, target) == b"hello"
        assert waiting.cancelled()
        assert pool.use(target) == PoolUse(1, 1, 0)


async def test_nobody_queues_while_a_connection_is_idle(scripted):
    """A request that is sent again asks for a fresh connection; at the limit an idle one makes room."""
    async with scripted(HELLO) as server, HttpPool(connections_max=1) as pool:
        target = Target(server.url)
        await ask(pool, target)
        fresh = await pool._origins[target.key].acquire(Timeouts(queue_s=1), total_at=math.inf)
        assert server.connection_count == 2
        fresh.abort()
        assert pool.use(target) == NOBODY


# The end.


async def test_closing_the_pool_lets_answers_end_and_refuses_what_waits(scripted, until):
    go = asyncio.Event()

    async def script(call):
        await call.send(HELLO[:-2])
        await go.wait()
        await call.send(HELLO[-2:])

    async with scripted(script) as server:
        pool = HttpPool(connections_max=1)
        target = Target(server.url)
        async with asyncio.TaskGroup() as group:
            await pool.__aenter__()
            running = group.create_task(ask(pool, target))
            await until(lambda: len(server.calls) == 1)
            waiting = asyncio.gather(ask(pool, target), return_exceptions=True)
            await until(lambda: pool.use(target).queue_count == 1)
            closing = group.create_task(pool.__aexit__(None, None, None))
            (refused,) = await waiting
            assert isinstance(refused, Unavailable)
            assert not closing.done()
            go.set()
        assert running.result() == b"hello"
        with pytest.raises(Internal, match="not open"):
            await ask(pool, target)


async def test_what_does_not_end_in_time_is_hung_up(scripted, until):
    async def script(call):
        await call.send(HELLO[:-2])
        await call.client_gone()

    async with scripted(script) as server:
        async with HttpPool(drain_s=0.01) as pool:
            reply = await pool.request(Target(server.url), path="/")
        with pytest.raises(BrokenOff):
            await reply.read(5)
        await until(lambda: server.open_count == 0)


# Where nobody answers.


async def test_a_refused_connection_says_so(scripted):
    async with scripted(HELLO) as server:
        pass
    async with HttpPool() as pool:
        target = Target(server.url)
        with pytest.raises(Unavailable, match=f"127.0.0.1:{server.port} refused the connection"):
            await ask(pool, target)
        assert pool.use(target) == NOBODY


async def test_an_unknown_host_says_so():
    async with HttpPool() as pool:
        with pytest.raises(Unavailable, match="is the host name right"):
            await ask(pool, Target("http://no-such-host.invalid"))


async def test_one_dead_address_of_several_does_not_matter(scripted):
    """localhost is ::1 and 127.0.0.1 on most machines; the server listens on the second only."""
    async with scripted(HELLO) as server, HttpPool() as pool:
        assert await ask(pool, Target(f"http://localhost:{server.port}")) == b"hello"


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    key, pem = folder / "key.pem", folder / "cert.pem"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout {key} -out {pem}"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return key, pem


@pytest.fixture
def tls(certificate):
    key, pem = certificate
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem, key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def talk_tls(scripted, tls, ca_file):
    async def script(call):
        assert call.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        await call.dribble(
            b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(call.body), call.body), 50_000
        )

    async with scripted(script, tls=tls) as server, HttpPool() as pool:
        target = Target(f"https://localhost:{server.port}", ca_file=ca_file)
        for body in (b"hello", bytes(999_999)):
            assert await ask(pool, target, body) == body
        assert server.connection_count == 1


async def test_tls_is_spoken_with_a_trusted_server(scripted, tls, certificate):
    await talk_tls(scripted, tls, str(certificate[1]))


def test_tls_is_spoken_on_uvloop_too(scripted, tls, certificate):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(talk_tls(scripted, tls, str(certificate[1])))


@pytest.mark.parametrize(
    ("host", "trusted", "reason"),
    [("localhost", False, "self-signed certificate"), ("127.0.0.1", True, "IP address mismatch")],
)
async def test_a_certificate_that_does_not_fit_is_refused_with_the_reason(
    scripted, tls, certificate, host, trusted, reason
):
    async with scripted(HELLO, tls=tls) as server, HttpPool() as pool:
        target = Target(f"https://{host}:{server.port}", ca_file=str(certificate[1]) if trusted else None)
        with pytest.raises(Unavailable, match=f"certificate of .* is not trusted: .*{reason}"):
            await ask(pool, target)
        assert pool.use(target) == NOBODY


async def test_tls_with_a_server_that_speaks_plainly_is_an_error(scripted):
    async def script(call):
        await call.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with scripted(script, unread=True) as server, HttpPool() as pool:
        with pytest.raises(Unavailable, match="TLS with"):
            await ask(pool, Target(f"https://localhost:{server.port}"))


async def test_a_server_that_never_greets_runs_into_the_connect_limit(scripted):
    async with scripted(lambda call: call.client_gone(), unread=True) as server, HttpPool() as pool:
        target = Target(f"https://localhost:{server.port}")
        with pytest.raises(TimedOut, match=r"connect_s = 0\.05"):
            await ask(pool, target, timeouts=Timeouts(connect_s=0.05))
        assert pool.use(target) == NOBODY


async def test_a_missing_file_of_authorities_is_named_by_its_setting(tmp_path):
    async with HttpPool() as pool:
        with pytest.raises(Unavailable) as caught:
            await ask(pool, Target("https://localhost", ca_file=str(tmp_path / "none.pem")))
        assert caught.value.field == "ca_file"


# Proxies.


def tunnel(port, heads):
    """A proxy that speaks CONNECT, for clients that know the password."""

    async def script(call):
        await call.read()
        heads.append(call.head)
        if b"proxy-authorization: Basic dXNlcjpwQHNz\r\n" not in call.head:
            await call.send(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await call.send(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def pump(source, sink):
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(call.reader, writer), pump(reader, call.writer), return_exceptions=True)

    return script


async def test_https_goes_through_a_proxys_tunnel(scripted, tls, certificate):
    heads = []
    async with scripted(HELLO, tls=tls) as server, scripted(tunnel(server.port, heads), unread=True) as proxy:
        async with HttpPool() as pool:
            url, ca_file = f"https://localhost:{server.port}", str(certificate[1])
            target = Target(url, ca_file=ca_file, proxy=f"http://user:p%40ss@127.0.0.1:{proxy.port}")
            assert await ask(pool, target) == b"hello"
            assert heads[0].startswith(b"CONNECT localhost:%d HTTP/1.1\r\n" % server.port)
            with pytest.raises(Unavailable, match="other credentials"):
                await ask(pool, Target(url, ca_file=ca_file, proxy=f"http://127.0.0.1:{proxy.port}"))
        assert b"proxy-authorization" not in server.calls[0].head


async def test_plain_http_goes_through_a_proxy_with_the_whole_address(scripted):
    async with scripted(HELLO) as proxy, HttpPool() as pool:
        target = Target("http://models.internal/base", proxy=f"http://user:p%40ss@127.0.0.1:{proxy.port}")
        assert await ask(pool, target) == b"hello"
        assert proxy.calls[0].head.startswith(
            b"POST http://models.internal:80/base/ HTTP/1.1\r\nhost: models.internal\r\n"
        )
        assert b"\r\nproxy-authorization: Basic dXNlcjpwQHNz\r\n" in proxy.calls[0].head


def test_a_proxy_of_another_kind_is_refused():
    with pytest.raises(BadRequest) as caught:
        Target("http://h", proxy="socks5://p:1")
    assert caught.value.field == "proxy"
