"""What a record costs its call and its process: `python bench/spool.py`. CPU, one process, a database on this machine.

`add` is what a call waits for; the other figure is all that this process does for a record until PostgreSQL has it.
"""

import asyncio
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from freehold.clock import SystemClock
from freehold.core import ids
from freehold.core.messages import Usage
from freehold.core.records import CallRecord
from freehold.store import records as recording
from freehold.store.embedded import embedded
from freehold.store.store import Store, open_store

RECORDS = 20_000
ROUNDS = 3


def record(number: int) -> CallRecord:
    return CallRecord(
        id=ids.new("call", SystemClock()),
        at=datetime.now(UTC),
        tenant="default",
        principal="key_01j0000000000000000000000",
        wire="openai_chat",
        model_requested="gpt-4o",
        provider="openai",
        model="gpt-4o",
        outcome="ok",
        usage=Usage(300 + number % 7, 200, 10),
        cost_pico=123_456_789,
        duration_ms=12.5,
        first_event_ms=3.5 + number % 3,
        key_id="key_01j0000000000000000000000",
        team="search",
        price_source="list",
    )


async def added(store: Store) -> tuple[float, float]:
    """CPU us a record: of `add` right after a record was made, as calls do; and of all until it is written."""
    started = time.process_time()
    for number in range(RECORDS):
        record(number)
    before = time.process_time()
    for number in range(RECORDS):
        store.records.add(record(number))
    between = time.process_time()
    await store.records.flush()
    after = time.process_time()
    made = before - started
    return (between - before - made) / RECORDS * 1e6, (after - before - made) / RECORDS * 1e6


async def main() -> None:
    recording.HELD_MAX = RECORDS + 1
    settings = {"fsync": "off", "synchronous_commit": "off"}
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as folder:
        async with embedded(Path(folder) / "data", settings=settings) as server:
            for name, spool in (("memory alone", None), ("with the spool", Path(folder) / "spool")):
                async with open_store(
                    server.dsn(), objects=None, process_id="bench", spool_folder=spool
                ) as store:  # type: ignore[arg-type]
                    rounds = [await added(store) for _ in range(ROUNDS)]
                add, whole = (sorted(column)[ROUNDS // 2] for column in zip(*rounds, strict=True))
                print(f"{name}: add {add:.1f} us, until written {whole:.1f} us of CPU a record")


if __name__ == "__main__":
    asyncio.run(main())
