"""What the HTTP client costs: CPU-us of its process per 1 KB exchange and per streamed chunk, over loopback.

    python bench/http_client.py [--requests 20000] [--streams 32] [--chunks 200]

The server runs in a process of its own. "floor" is a bare asyncio.Protocol that writes the same request and counts the
bytes of the answer: what event loop and kernel take anyway. Rounds are interleaved, the median is printed with the least.
"""

import argparse
import asyncio
import multiprocessing
import multiprocessing.connection
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import cast

import httpx2
import uvloop

from freehold.providers._http import HttpPool, Target, header_block

BODY = b'{"model":"m","messages":[{"role":"user","content":"' + b"x" * 550 + b'"}]}'
ANSWER_BODY = b'{"id":"chatcmpl-1","choices":[{"message":{"content":"' + b"y" * 940 + b'"}}]}'
# As many headers as a large provider sends.
FIELDS = b"".join(b"x-header-%d: some value of a usual length\r\n" % n for n in range(18))
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n%b" % (
    FIELDS,
    len(ANSWER_BODY),
    ANSWER_BODY,
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%btransfer-encoding: chunked\r\n\r\n" % FIELDS
)
EVENT = b'data: {"choices":[{"delta":{"content":"' + b"z" * 250 + b'"}}]}\n\n'
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
CHUNK_GAP_S = 0.005
ROUNDS = 5
BENCH_S_MAX = 240
HEADERS = [(b"content-type", b"application/json"), (b"authorization", b"Bearer " + b"k" * 40)]


class Server(asyncio.Protocol):
    """Answers each whole request; /stream gets its chunks apart in time, so that each is a wake-up of its own."""

    def __init__(self, chunk_count: int) -> None:
        self.chunk_count = chunk_count
        self.held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by class.

    def data_received(self, data: bytes) -> None:
        self.held += data
        end = self.held.find(b"\r\n\r\n") + 4
        if end < 4 or len(self.held) < end + len(BODY):
            return
        stream, self.held = self.held.startswith(b"POST /stream"), b""
        if stream:
            self.transport.write(STREAM_HEAD)
            self.send_chunk(self.chunk_count)
        else:
            self.transport.write(ANSWER)

    def send_chunk(self, left: int) -> None:
        self.transport.write(CHUNK if left else b"0\r\n\r\n")
        if left:
            asyncio.get_running_loop().call_later(CHUNK_GAP_S, self.send_chunk, left - 1)


def serve(chunk_count: int, pipe: multiprocessing.connection.Connection) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Server(chunk_count), "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.to_thread(pipe.poll, None)

    uvloop.run(run())


class Floor(asyncio.Protocol):
    """One connection that only counts bytes."""

    def __init__(self) -> None:
        self.waiter: asyncio.Future[None] | None = None
        self.missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by class.

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def exchange(self, path: bytes, missing: int) -> None:
        self.missing += missing
        head = b"POST %b HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (path, len(BODY))
        self.transport.write(head + BODY)
        while self.missing:
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter


Work = Callable[[int], Awaitable[None]]


async def cpu_us(worker_count: int, per_worker: int, work: Work) -> float:
    """CPU-us of this process for each of the calls."""
    await asyncio.gather(*(work(1) for _ in range(worker_count)))
    start = time.process_time()
    await asyncio.gather(*(work(per_worker) for _ in range(worker_count)))
    return (time.process_time() - start) * 1e6 / (worker_count * per_worker)


def floor_work(port: int, path: bytes, answer_bytes: int) -> Work:
    async def work(count: int) -> None:
        transport, floor = await asyncio.get_running_loop().create_connection(Floor, "127.0.0.1", port)
        for _ in range(count):
            await floor.exchange(path, answer_bytes)
        transport.close()

    return work


def pool_work(pool: HttpPool, port: int, path: str) -> Work:
    target = Target(f"http://127.0.0.1:{port}")
    block = header_block(HEADERS)

    async def whole(count: int) -> None:
        for _ in range(count):
            await (await pool.request(target, BODY, path=path, headers=block)).read(1_000_000)

    async def streamed(count: int) -> None:
        for _ in range(count):
            async with await pool.request(target, BODY, path=path, headers=block) as reply:
                async for _piece in reply:
                    pass

    return streamed if path == "/stream" else whole


def httpx2_work(client: httpx2.AsyncClient, port: int, path: str) -> Work:
    url = f"http://127.0.0.1:{port}{path}"

    async def whole(count: int) -> None:
        for _ in range(count):
            await client.post(url, content=BODY, headers=HEADERS)

    async def streamed(count: int) -> None:
        for _ in range(count):
            async with client.stream("POST", url, content=BODY, headers=HEADERS) as reply:
                async for _piece in reply.aiter_raw():
                    pass

    return streamed if path == "/stream" else whole


async def measured_in_time(port: int, arguments: argparse.Namespace) -> None:
    async with asyncio.timeout(BENCH_S_MAX):
        await measure(port, arguments)


async def measure(port: int, arguments: argparse.Namespace) -> None:
    stream_bytes = len(STREAM_HEAD) + arguments.chunks * len(CHUNK) + 5
    async with HttpPool() as pool, httpx2.AsyncClient(limits=httpx2.Limits(max_connections=512)) as client:
        await compare(
            f"1 KB exchange, 16 at once ({arguments.requests} a round)",
            {
                "floor": floor_work(port, b"/", len(ANSWER)),
                "freehold": pool_work(pool, port, "/"),
                "httpx2": httpx2_work(client, port, "/"),
            },
            {"httpx2": 10},
            lambda work, share: cpu_us(16, arguments.requests // 16 // share, work),
        )

        async def per_chunk(work: Work, share: int) -> float:
            return await cpu_us(arguments.streams, 1, work) / arguments.chunks

        await compare(
            f"chunk of {len(EVENT)} bytes, {arguments.streams} streams at once",
            {
                "floor": floor_work(port, b"/stream", stream_bytes),
                "freehold": pool_work(pool, port, "/stream"),
                "httpx2": httpx2_work(client, port, "/stream"),
            },
            {},
            per_chunk,
        )


async def compare(
    title: str, works: dict[str, Work], shares: dict[str, int], run: Callable[[Work, int], Awaitable[float]]
) -> None:
    figures: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            figures[name].append(await run(work, shares.get(name, 1)))
    print(f"\nCPU-us per {title}")
    ours = statistics.median(figures["freehold"])
    for name, values in figures.items():
        median = statistics.median(values)
        print(f"  {name:9} {median:8.1f}  (least {min(values):.1f}, {median / ours:.1f} x freehold)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--chunks", type=int, default=200)
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    arguments = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=(arguments.chunks, theirs), daemon=True
    )
    process.start()
    try:
        factory = uvloop.new_event_loop if arguments.loop == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(measured_in_time(ours.recv(), arguments))
    finally:
        process.terminate()


if __name__ == "__main__":
    main()
