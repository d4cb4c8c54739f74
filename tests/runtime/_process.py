"""A worker in a process of its own, which a point of a turn kills: `python -m tests.runtime._process URL SESSION KILL_AT`.

It carries the session on, kills itself with SIGKILL at the point number KILL_AT (0: never), and exits with 0 once the session
rests. With KILL_AT `count` it prints how many points there were.
"""

import asyncio
import os
import signal
import sys

from msgspec import structs

from freehold.core.messages import ModelRequest, ModelResponse
from freehold.core.resources import Limits
from freehold.runtime.worker import WorkerSettings
from tests.runtime._world import AGENT, calls, results_in, said, world

ROUNDS = ("ledger_look", "ledger_set", "ledger_pay", "ledger_look", "ledger_set", "ledger_pay")
STEPS = 2 * len(ROUNDS) + 1
AGENT_OF_MANY_STEPS = structs.replace(AGENT, limits=Limits(steps_max=STEPS + len(ROUNDS)))
SETTINGS = WorkerSettings(lease_s=600, poll_s=0.1, drain_s=1)
"""No lease runs out while its worker lives, however slow the machine is: of one that was killed, the test ends it."""


def script(request: ModelRequest) -> ModelResponse:
    """The next call follows from the conversation alone, as with a model: no memory that a crash could lose."""
    done = len(results_in(request))
    if done == len(ROUNDS):
        return said("all done")
    return calls((ROUNDS[done], f'{{"n": {done}}}'))


class Points:
    def __init__(self, kill_at: int) -> None:
        self.kill_at = kill_at
        self.count = 0

    def __call__(self, name: str) -> None:
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(url: str, session_id: str, kill_at: str) -> None:
    points = Points(0 if kill_at == "count" else int(kill_at))
    opened = world(url, script, agent=AGENT_OF_MANY_STEPS, on_point=points, settings=SETTINGS)
    async with opened as here, here.worker().running():
        await here.settled(session_id)
    if kill_at == "count":
        print(points.count)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
