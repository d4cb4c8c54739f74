"""DBOS: a workflow of ten trivial steps. `python peer_dbos.py URL AT_ONCE`. Runs in an environment of its own (peers.py), as shipped."""

import asyncio
import sys
import uuid

from _loop import served
from dbos import DBOS, SetWorkflowID

STEPS = 10


@DBOS.step()
async def step(number: int) -> int:
    return number


@DBOS.workflow()
async def workflow() -> int:
    return sum([await step(number) for number in range(STEPS)])


async def run() -> int:
    with SetWorkflowID(uuid.uuid4().hex):
        result = await workflow()
    assert result == sum(range(STEPS)), result
    return STEPS


async def main(url: str, at_once: int) -> None:
    DBOS(
        config={
            "name": "bench",
            "system_database_url": url,
            "log_level": "ERROR",
            "application_version": "1",
            "executor_id": uuid.uuid4().hex,
            "run_admin_server": False,
        }
    )
    DBOS.launch()
    try:
        await served(run, at_once)
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
