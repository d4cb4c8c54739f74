"""Sessions a second with one worker process and with four, on a model that answers after 200 ms. `python workers.py`

Whole `freehold worker` processes on one PostgreSQL, each with PLACES places; the model is a small HTTP service of its own. With so few
places a worker mostly waits for the model, so that four workers should do four times the work of one.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop
from _say import say

from freehold.clock import SystemClock
from freehold.core.messages import Text
from freehold.core.resources import Agent, Provider
from freehold.governance.principals import DEFAULT_TENANT, OPERATOR
from freehold.runtime.live import Live
from freehold.runtime.offload import Results
from freehold.runtime.sessions import Sessions
from freehold.store.embedded import embedded
from freehold.store.store import Store, open_store

PLACES = 4
LATENCY_S = 0.2
MODEL = f"""
import asyncio, json
ANSWER = json.dumps({{"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m",
    "choices": [{{"index": 0, "delta": {{"role": "assistant", "content": "done"}}, "finish_reason": "stop"}}]}})
BODY = f"data: {{ANSWER}}\\n\\ndata: [DONE]\\n\\n".encode()
HEAD = b"HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(BODY)
async def answer(reader, writer):
    try:
        while head := await reader.readuntil(b"\\r\\n\\r\\n"):
            size = next((int(l.split(b":")[1]) for l in head.lower().split(b"\\r\\n") if l.startswith(b"content-length")), 0)
            await reader.readexactly(size)
            await asyncio.sleep({LATENCY_S})
            writer.write(HEAD + BODY)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        writer.close()
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@asynccontextmanager
async def process(*arguments: str, **options) -> AsyncIterator[asyncio.subprocess.Process]:
    started = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, **options
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.terminate()
        await started.wait()


@asynccontextmanager
async def workers(url: str, folder: Path, count: int) -> AsyncIterator[None]:
    environment = {**os.environ, "DATABASE_URL": url, "FREEHOLD_DISCOVER_LOCAL_MODELS": "false"}
    (folder / "freehold.toml").write_text(f"[runtime]\nsessions_max = {PLACES}\n")
    arguments = ["-m", "freehold.cli.main", "--data", str(folder), "worker", "--log-level", "error"]
    running = [process(*arguments, env=environment, stderr=asyncio.subprocess.PIPE) for _ in range(count)]
    try:
        for one in running:
            started = await one.__aenter__()
            while b"carries sessions" not in await started.stderr.readline():
                pass
        yield
    finally:
        await asyncio.gather(*(one.__aexit__(None, None, None) for one in running))


async def measured(store: Store, sessions: Sessions, count: int) -> float:
    """Seconds from the first input to the last rest, with all workers warm."""
    began = time.perf_counter()
    rows = await asyncio.gather(
        *(sessions.create(OPERATOR, "clerk", content=[Text("go")]) for _ in range(count))
    )
    while (await store.log.list(DEFAULT_TENANT, statuses=["running"], limit=1)).rows:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    took = time.perf_counter() - began
    bad = [one.id for one in rows if (await store.log.get(DEFAULT_TENANT, one.id)).version != 5]
    assert not bad, f"{len(bad)} sessions did not come to the end that they should: {bad[:3]}"
    return took


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as folder:
        data = Path(folder) / "worker"
        data.mkdir()
        async with embedded(Path(folder) / "data") as server, process("-c", MODEL) as model:
            port = int(await model.stdout.readline())
            async with open_store(server.dsn(), objects=None, process_id="bench") as store:
                provider = Provider(
                    name="slow", type="openai", base_url=f"http://127.0.0.1:{port}/v1", models=("m",)
                )
                await store.resources.put(
                    DEFAULT_TENANT, [provider, Agent(name="clerk", model="slow/m")], by="b"
                )
                sessions = Sessions(
                    store.log, store.resources, Live(), SystemClock(), results=Results(store.objects)
                )
                rates = {}
                for count in (1, 4, 1, 4):
                    async with workers(server.dsn(), data, count):
                        await measured(store, sessions, PLACES * count * 4)  # warm
                        took = await measured(store, sessions, options.sessions)
                    rates.setdefault(count, []).append(options.sessions / took)
                    bound = count * PLACES / LATENCY_S
                    say(
                        f"{count} workers",
                        sessions_a_second=options.sessions / took,
                        bound_by_the_model=bound,
                    )
                say("four workers to one", ratio=max(rates[4]) / max(rates[1]))


if __name__ == "__main__":
    uvloop.run(main())
