"""CPU of the whole server per model call, driven from outside over loopback: the full pipeline, one process.

    python bench/gateway.py [--seconds 5] [--connections 16] [--json]

A stub upstream and a load generator run in processes of their own (pinned to the last core where there are two), the server
in another (pinned to the first). CPU is what the server's process used between two moments, over the answers in between; its
PostgreSQL's CPU is told apart. Where nginx is installed it passes the same calls through, in turn with the server and on the
same core: the floor, without keys, models, prices or records. Read ratios within one run: machines are noisy. Linux only (CPU
is read from /proc); loopback only, bounded in time. What came out: README.md beside this.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import httptools

ANSWER_TEXT = "x" * 700
CHUNKS = 50
CHUNK_GAP_S = 0.01
ROUNDS = 3
TICKS = os.sysconf("SC_CLK_TCK")
SAME_WIRE = "same wire"
NGINX = " (nginx)"

OPENAI_ANSWER = {
    "id": "chatcmpl-bench",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "bench",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": ANSWER_TEXT, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 250, "completion_tokens": 180, "total_tokens": 430},
}


class Stub(asyncio.Protocol):
    """Answers every POST: a whole answer, or CHUNKS server-sent events CHUNK_GAP_S apart where the body asks for a stream."""

    def __init__(self) -> None:
        body = json.dumps(OPENAI_ANSWER).encode()
        self._whole = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
            len(body),
            body,
        )
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        body, self._body = self._body, b""
        if b'"stream":true' in body.replace(b" ", b""):
            asyncio.get_running_loop().create_task(self._stream())
        else:
            self._transport.write(self._whole)

    async def _stream(self) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        self._transport.write(head)
        for index in range(CHUNKS):
            if self._transport.is_closing():
                return
            delta: dict[str, Any] = (
                {"content": "word " * 4} if index else {"role": "assistant", "content": ""}
            )
            self._send(_chunk([{"index": 0, "delta": delta, "finish_reason": None}]))
            await asyncio.sleep(CHUNK_GAP_S)
        self._send(_chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}]))
        self._send(_chunk([], usage=OPENAI_ANSWER["usage"]))
        self._send(b"data: [DONE]\n\n")
        self._transport.write(b"0\r\n\r\n")

    def _send(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))


def _chunk(choices: list[Any], **more: Any) -> bytes:
    value = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "bench",
        "choices": choices,
    } | more
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def stub(ready: Connection) -> None:
    pin(-1)

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


class Load(asyncio.Protocol):
    """One connection in a closed loop: the next request goes out when the last answer is whole."""

    def __init__(self, request: bytes, answers: list[float]) -> None:
        self._request = request
        self._answers = answers
        self.chunks = 0
        self.failed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._parser = httptools.HttpResponseParser(self)
        self._send()

    def _send(self) -> None:
        self._at = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.chunks += body.count(b"data: ")

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() != 200:
            self.failed += 1
        self._answers.append(time.perf_counter() - self._at)
        self._parser = httptools.HttpResponseParser(self)
        self._send()


def cpu_s(pid: int) -> float:
    """Of all its threads, by the scheduler's nanoseconds: clock ticks are 10 ms."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((one / "schedstat").read_text().split()[0]) for one in threads) / 1e9


NGINX_CONF = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_buffer_size 256k;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  upstream stub {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://stub; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


class Target(NamedTuple):
    port: int
    pid: int


@contextmanager
def nginx(upstream: int) -> Iterator[Target | None]:
    """One worker on the server's core. None where nginx is not installed."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        print("nginx is not installed: no floor to compare with", file=sys.stderr)
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as folder:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        conf = Path(folder) / "nginx.conf"
        conf.write_text(NGINX_CONF.format(folder=folder, upstream=upstream, port=port))
        running = subprocess.Popen([program, "-c", str(conf), "-p", folder], stderr=subprocess.DEVNULL)
        try:
            worker = worker_of(running.pid)
            pin(0, worker)
            yield Target(port, worker)
        finally:
            running.terminate()
            running.wait(10)


def worker_of(pid: int) -> int:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            return int(children[0])
        time.sleep(0.05)
    raise TimeoutError("nginx started no worker")


def postgres_cpu_s(parent: int) -> float:
    """Of every process below `parent` (the embedded PostgreSQL and its guard)."""
    below = {parent}
    total = 0.0
    stats = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            stats[int(entry.name)] = (int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS)
    for _ in range(4):
        below |= {pid for pid, (up, _) in stats.items() if up in below}
    for pid in below - {parent}:
        total += stats[pid][1] if pid in stats else 0.0
    return total


def pin(core: int, pid: int = 0) -> None:
    cores = sorted(range(os.cpu_count() or 1))
    if len(cores) > 1:
        os.sched_setaffinity(pid, {cores[core]})


def post(path: str, key: str, body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


async def measure(port: int, pid: int, request: bytes, connections: int, seconds: float) -> dict[str, float]:
    answers: list[float] = []
    loads = [Load(request, answers) for _ in range(connections)]
    loop = asyncio.get_running_loop()
    for load in loads:
        await loop.create_connection(lambda load=load: load, "127.0.0.1", port)
    await asyncio.sleep(0.5)
    before, postgres_before, count, chunks = (
        cpu_s(pid),
        postgres_cpu_s(pid),
        len(answers),
        sum(one.chunks for one in loads),
    )
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    used, postgres_used = cpu_s(pid) - before, postgres_cpu_s(pid) - postgres_before
    done = len(answers) - count
    events = sum(one.chunks for one in loads) - chunks
    times = sorted(answers[count:])
    for load in loads:
        load._transport.abort()
    return {
        "answers": done,
        "failed": sum(load.failed for load in loads),
        "cpu_us": 1e6 * used / max(1, done),
        "postgres_cpu_us": 1e6 * postgres_used / max(1, done),
        "cpu_us_per_event": 1e6 * used / events if events else 0.0,
        "per_s": done / took,
        "p50_ms": 1e3 * times[len(times) // 2] if times else 0.0,
        "p99_ms": 1e3 * times[int(len(times) * 0.99)] if times else 0.0,
    }


def cases(key: str) -> dict[str, tuple[bytes, int | None]]:
    """Name to the request and, where it isn't the default, how many connections."""
    short = [{"role": "user", "content": "y" * 900}]
    long = [{"role": "assistant" if index % 2 else "user", "content": "z" * 480} for index in range(60)]
    messages = {"model": "openai/bench", "max_tokens": 500, "messages": short}
    return {
        "same wire, 1 KB": (
            post("/v1/chat/completions", key, {"model": "openai/bench", "messages": short}),
            None,
        ),
        "same wire, 30 KB, 60 messages": (
            post("/v1/chat/completions", key, {"model": "openai/bench", "messages": long}),
            None,
        ),
        "translated, 1 KB": (post("/v1/messages", key, messages), None),
        "translated, 30 KB, 60 messages": (
            post("/v1/messages", key, messages | {"messages": long[:-1]}),
            None,
        ),
        "same wire, one connection": (
            post("/v1/chat/completions", key, {"model": "openai/bench", "messages": short}),
            1,
        ),
        "same wire, stream": (
            post("/v1/chat/completions", key, {"model": "openai/bench", "stream": True, "messages": short}),
            64,
        ),
        "translated, stream": (post("/v1/messages", key, messages | {"stream": True}), 64),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="per case and round")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = run(options.seconds, options.connections)
    medians = {
        name: {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        for name, rounds in found.items()
    }
    if options.json:
        print(json.dumps(medians, indent=1))
    else:
        show(medians)


def run(seconds: float, connections: int) -> dict[str, list[dict[str, float]]]:
    receiving, sending = multiprocessing.Pipe(duplex=False)
    upstream = multiprocessing.Process(target=stub, args=(sending,), daemon=True)
    upstream.start()
    upstream_port = receiving.recv()
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "freehold.cli.main",
            "dev",
            "--upstream",
            f"openai=http://127.0.0.1:{upstream_port}/v1",
        ],
        stdout=subprocess.PIPE,
    )
    found: dict[str, list[dict[str, float]]] = {}
    try:
        pin(0, server.pid)
        assert server.stdout is not None
        told = json.loads(server.stdout.readline())
        ours = Target(int(told["base_url"].rsplit(":", 1)[1].split("/")[0]), server.pid)
        with nginx(upstream_port) as floor:
            pin(-1)
            for _ in range(ROUNDS):
                for name, (request, wanted) in cases(told["api_key"]).items():
                    for target in (ours, floor):
                        if target is None or (target is floor and not name.startswith(SAME_WIRE)):
                            continue
                        result = asyncio.run(measure(*target, request, wanted or connections, seconds))
                        found.setdefault(name + (NGINX if target is floor else ""), []).append(result)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)
        upstream.terminate()
    return found


def show(medians: dict[str, dict[str, float]]) -> None:
    print(
        f"{'case':38}{'CPU us':>8}{'x nginx':>9}{'pg us':>7}{'us/event':>10}{'per s':>8}{'p50 ms':>8}{'p99 ms':>8}{'failed':>8}"
    )
    for name, one in medians.items():
        floor = medians.get(name + NGINX)
        ratio = f"{one['cpu_us'] / floor['cpu_us']:9.1f}" if floor else " " * 9
        print(
            f"{name:38}{one['cpu_us']:8.1f}{ratio}{one['postgres_cpu_us']:7.1f}{one['cpu_us_per_event']:10.1f}"
            f"{one['per_s']:8.0f}{one['p50_ms']:8.2f}{one['p99_ms']:8.2f}{one['failed']:8.0f}"
        )


if __name__ == "__main__":
    main()
