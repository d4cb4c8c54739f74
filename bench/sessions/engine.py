"""Ours, as one process that is measured: `python engine.py turn|log URL AT_ONCE`.

`turn`: whole turns of an agent, each in a session of its own: it is created with its input, leased by a worker, and five times asked
for by the model and answered by the tool; then the model says its last word, and the turn is finished and the lease given back.
These answers and tool runs are 11 durable steps, in 20 events: what peers do in a run of ten steps, and more.
`log`: ten appends of one event under a lease to a session of its own, which is what the log itself costs.
"""

import asyncio
import sys
import tempfile

import uvloop
from _loop import served
from _parts import DONE, OWNER, TENANT, TrivialGateway, runtime

from freehold.cli._running import collect_seldom
from freehold.clock import SystemClock
from freehold.core import ids
from freehold.core.messages import ModelRequest, ModelResponse, Text, ToolCall, Usage
from freehold.core.session import ModelAnswered, SessionStarted, ToolFinished, TurnStarted, UserSpoke
from freehold.core.session_log import Lease, SessionRow
from freehold.runtime.worker import Worker
from freehold.store.blobs import open_objects
from freehold.store.store import Store, open_store

ROUNDS = 5
STEPS_OF_A_TURN = 2 * ROUNDS + 1
EVENTS_OF_A_TURN = 3 + 3 * ROUNDS + 2
UNFINISHED = "SELECT id FROM sessions WHERE tenant = 'bench' AND agent = 'bench' AND (status <> 'idle' OR version <> $1)"
APPENDS = 10
LEASE_S = 600
ANSWER = ModelAnswered(
    seen_seq=2,
    model="m",
    served_by="p/m",
    content=(ToolCall("call_1", "lookup", '{"sku":"SKU-4482"}'),),
    stop_reason="tool_use",
    usage=Usage(input_tokens=100, output_tokens=20),
    cost_pico=1234,
)
RESULT = ToolFinished(call_id="call_1", content=(Text("x" * 300),))


class Counting(TrivialGateway):
    """Tells of each last word: its session is as good as over, and the next may begin."""

    def __init__(self, rounds: int) -> None:
        super().__init__(rounds)
        self.finished: asyncio.Queue[None] = asyncio.Queue()

    def answer(self, request: ModelRequest) -> ModelResponse:
        answer = super().answer(request)
        if answer is DONE:
            self.finished.put_nowait(None)
        return answer


async def turns(store: Store, at_once: int) -> None:
    gateway = Counting(ROUNDS)
    runs = 0
    async with runtime(store, gateway) as (means, sessions), Worker(means).running():

        async def run() -> int:
            """Whose session it is that has finished does not matter: as many are at it at any time."""
            nonlocal runs
            await sessions.create(OWNER, "bench", content=[Text("go")])
            await gateway.finished.get()
            runs += 1
            return STEPS_OF_A_TURN

        await served(run, at_once)
    wrong = await store.database.fetch("checking", UNFINISHED, EVENTS_OF_A_TURN)
    assert not wrong, f"{len(wrong)} of {runs} sessions did not come to the end that they should"


async def appends(store: Store, at_once: int) -> None:
    clock = SystemClock()
    worker = ids.new("worker", clock)
    leased: asyncio.Queue[Lease] = asyncio.Queue()
    wanted = asyncio.Event()

    async def lease() -> None:
        while True:
            await wanted.wait()
            wanted.clear()
            for one in await store.log.claim(worker, limit=64, lease_s=LEASE_S):
                leased.put_nowait(one)

    async def run() -> int:
        now = clock.now()
        row = SessionRow(
            id=ids.new("sess", clock), tenant=TENANT, agent="bench", agent_version=1, status="running", version=3,
            created_at=now, updated_at=now,
        )  # fmt: skip
        begun = [
            SessionStarted(agent="bench", agent_version=1),
            UserSpoke(content=(Text("go"),)),
            TurnStarted(turn=1),
        ]
        await store.log.create(row, begun)
        wanted.set()
        one = await leased.get()
        version = len(begun)
        for number in range(APPENDS):
            event = RESULT if number % 2 else ANSWER
            version = await store.log.append(one.session_id, [event], expected_version=version, lease=one)
        return APPENDS

    claiming = asyncio.create_task(lease())
    try:
        await served(run, at_once)
    finally:
        claiming.cancel()


async def main(what: str, url: str, at_once: int) -> None:
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as folder:
        async with open_store(url, objects=open_objects(folder), process_id="bench") as store:
            collect_seldom()  # As `freehold worker` does.
            await {"turn": turns, "log": appends}[what](store, at_once)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
