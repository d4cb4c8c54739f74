"""CPU of keeping an answer of the Responses API, 64 at once: this process and PostgreSQL, in microseconds an answer.

Each answer has about 1.2 KB of its own and builds on the one before it, so that its caller's chain grows. Rounds; shown is the least.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import uvloop

sys.path.insert(0, str(Path(__file__).parent / "sessions"))

from _cpu import postmaster, tree_cpu_s

from freehold.core.responses import KeptResponse
from freehold.store.blobs import open_objects
from freehold.store.embedded import embedded
from freehold.store.store import Store, open_store

HEAD = msgspec.json.encode({
    "object": "response",
    "model": "gpt-5",
    "status": "completed",
    "instructions": "Answer. " * 40,
    "tools": [],
})
INPUT = msgspec.json.encode([{"role": "user", "content": "How many of SKU-4482 are in Shanghai? " * 6}])


def answer(number: int, before: str | None) -> KeptResponse:
    item = {
        "id": f"msg_{number:020}",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "42. " * 60}],
    }
    return KeptResponse(
        id=f"resp_{number:020}",
        tenant="default",
        created_by="key_1",
        status="completed",
        head=HEAD,
        input=INPUT,
        output=msgspec.json.encode([item]),
        previous_id=before,
        item_ids=(str(item["id"]),),
    )


async def round_of(store: Store, first: int, options: argparse.Namespace) -> None:
    async def caller(place: int) -> None:
        before = None
        for number in range(options.answers // options.at_once):
            one = answer(first + number * options.at_once + place, before)
            await store.responses.keep(one)
            before = one.id

    async with asyncio.TaskGroup() as group:
        for place in range(options.at_once):
            group.create_task(caller(place))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--answers", type=int, default=12_800)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as folder:
        data = Path(folder) / "data"
        async with (
            embedded(data) as server,
            open_store(
                server.dsn(), objects=open_objects(str(Path(folder) / "objects")), process_id="bench"
            ) as store,
        ):
            least = None
            for number in range(options.rounds):
                here_s, there_s = time.process_time(), tree_cpu_s(postmaster(data))
                await round_of(store, number * options.answers, options)
                here_us = 1e6 * (time.process_time() - here_s) / options.answers
                there_us = 1e6 * (tree_cpu_s(postmaster(data)) - there_s) / options.answers
                print(f"{here_us:.0f} here + {there_us:.0f} in PostgreSQL", file=sys.stderr, flush=True)
                least = min(least or (1e9, 0, 0), (here_us + there_us, here_us, there_us))
            print(f"{least[0]:.0f} us an answer: {least[1]:.0f} here + {least[2]:.0f} in PostgreSQL")


if __name__ == "__main__":
    uvloop.run(main())
