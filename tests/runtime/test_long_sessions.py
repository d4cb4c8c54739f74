"""Sessions of thousands of steps: going on costs what is new in them, not what is old."""

import pytest
from msgspec import structs

from freehold.core.messages import Text
from freehold.core.resources import Agent, Limits
from freehold.runtime.resuming import READ_PAGE, resumed
from tests.runtime._world import AGENT, OWNER, calls, results_in, said, world

pytestmark = pytest.mark.slow

AGENT_OF_MANY: Agent = structs.replace(AGENT, limits=Limits(steps_max=10_000, tokens_max=10**9))
STEPS = READ_PAGE // 3 + 20


def script(request):
    done = len(results_in(request))
    return said("all done") if done >= STEPS else calls(("ledger_look", f'{{"n": {done}}}'), start=done)


async def test_a_long_session_is_carried_on_from_a_snapshot(database_url):
    async with world(database_url, script, agent=AGENT_OF_MANY) as here, here.worker().running():
        row = await here.start()
        await here.settled(row.id)
        snapshot = await here.log.snapshot(row.id)
        assert snapshot is not None
        found = await resumed(here.log, row.id)
        assert found.snapshot_seq == snapshot.seq
        assert found.state.steps == 2 * STEPS + 1

        here.model.script = lambda request: said(f"{len(results_in(request))} results")
        await here.sessions.send(OWNER, row.id, (Text("how many?"),))
        await here.reaches(row.id, lambda row: row.status == "idle" and row.version > found.state.seq + 2)
        state = (await resumed(here.log, row.id)).state
        assert state.messages[-1].content == (Text(f"{STEPS} results"),)
