"""Slow streams, many at once, for minutes: bench/gateway/run --streams 2000 --minutes 10.

Each gets a chunk every 100 ms, with the time in it (streams.go is both the vendor and the clients). What is told: how late chunks come
out of the server, what a chunk costs, and the server's memory once all streams are open and at the end. Not here: CPU of whole
calls and of short streams (compare.py).
"""

import json
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import memory
from peers import Around, Running

LATE_MS_MAX = 100.0
"""Of the 99th percentile."""


class Slow(NamedTuple):
    """`core` is the share of one that the server used; memory is resident, in KB."""

    streams: int
    broken: int
    sent: int
    chunks: int
    p50_ms: float
    p99_ms: float
    p99_9_ms: float
    most_ms: float
    over_100_ms: int
    cpu_us_per_chunk: float
    core: float
    kb_at_first: int
    kb_at_last: int


def held(
    around: Around,
    start: Callable[[Around], AbstractContextManager[Running]],
    request: Callable[[Running], bytes],
    cpu_s: Callable[[tuple[int, ...]], float],
    *,
    streams: int,
    seconds: float,
) -> Slow:
    command = [str(around.programs / "streams"), str(streams), str(seconds)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load,
        tempfile.NamedTemporaryFile() as file,
    ):
        assert load.stdout is not None
        assert load.stdin is not None
        with start(around._replace(upstream=int(load.stdout.readline()))) as running:
            file.write(request(running))
            file.flush()
            load.stdin.write(f"127.0.0.1:{running.port} {file.name}\n")
            load.stdin.flush()
            load.stdout.readline()
            (pid, *_), used = running.pids, cpu_s(running.pids)
            first = memory.held(pid, 0)
            load.stdout.readline()
            used, last = cpu_s(running.pids) - used, memory.held(pid, 0)
            told = json.loads(load.stdout.readline())
    cost = {"cpu_us_per_chunk": 1e6 * used / max(1, told["chunks"]), "core": used / seconds}
    return Slow(**told, **cost, kb_at_first=first.resident_kb, kb_at_last=last.resident_kb)


def shown(one: Slow) -> str:
    return "\n".join([
        f"{one.streams:,} streams, {one.broken:,} broken off; {one.chunks:,} of {one.sent:,} chunks came",
        f"late by p50 {one.p50_ms:.1f} ms, p99 {one.p99_ms:.1f} ms (wanted {LATE_MS_MAX:.0f} at most)",
        f"p99.9 {one.p99_9_ms:.1f} ms, the latest {one.most_ms:.0f} ms; over 100 ms: {one.over_100_ms:,}",
        f"CPU {one.cpu_us_per_chunk:.1f} us a chunk, {one.core:.0%} of one core",
        f"memory {one.kb_at_first / 1024:.1f} MB with all streams open, {one.kb_at_last / 1024:.1f} MB at the end",
    ])
