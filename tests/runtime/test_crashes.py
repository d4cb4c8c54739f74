"""SIGKILL at every point of a run: after every append, before and after every effect. A fresh process goes on from the log.

The effects are counted where no crash can reach: in a table, one row for every run of a function.
"""

import asyncio
import signal
import sys
from collections import Counter
from pathlib import Path

import asyncpg
import pytest

from freehold.core.messages import ToolCall, text_of
from freehold.core.session import ModelAnswered, ToolOutcomeUnknown, ToolStarted, TurnFinished, TurnStarted
from tests.runtime._process import AGENT_OF_MANY_STEPS, ROUNDS, STEPS, script
from tests.runtime._world import events_of, kinds_of, results_in, world

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


async def _process(url: str, session_id: str, kill_at: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.runtime._process", url, session_id, kill_at,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode in {0, -signal.SIGKILL}, err.decode()
    if process.returncode:
        await _run_out(url, session_id)
    return process.returncode, out.decode()


async def _run_out(url: str, session_id: str) -> None:
    """The lease that the killed process had."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "UPDATE freehold.sessions SET due_at = now() WHERE id = $1 AND owner IS NOT NULL", session_id
        )
    finally:
        await connection.close()


async def _new_session(url: str) -> str:
    async with world(url, script, agent=AGENT_OF_MANY_STEPS) as here:
        return (await here.start()).id


async def _check(url: str, session_id: str) -> int:
    """The end is the same and each effect happened as its class promises; returns how many outcomes are unknown."""
    async with world(url, script, agent=AGENT_OF_MANY_STEPS) as here:
        log = await here.log_of(session_id)
    end = events_of(log, TurnFinished)
    assert [one.outcome for one in end] == ["completed"]
    assert text_of(events_of(log, ModelAnswered)[-1].content) == "all done"
    assert len(events_of(log, ModelAnswered)) == len(ROUNDS) + 1
    unknown = {one.call_id for one in events_of(log, ToolOutcomeUnknown)}
    claims = {one.key: one for one in events_of(log, ToolStarted)}
    assert len(claims) == len(ROUNDS)
    connection = await asyncpg.connect(url)
    try:
        ran = Counter(row["key"] for row in await connection.fetch("SELECT key FROM runs"))
        effects = {row["key"] for row in await connection.fetch("SELECT key FROM effects")}
    finally:
        await connection.close()
    for key, claim in claims.items():
        if claim.effect == "irreversible":
            assert ran[key] <= 1
            assert key in effects or claim.call_id in unknown
        else:
            assert key in effects
            assert claim.call_id not in unknown
    return len(unknown)


async def test_killed_at_one_point_after_the_other_a_run_reaches_its_end_with_each_effect_once(database_url):
    """One session, killed five times: each process gets a few points further than the one before."""
    session_id = await _new_session(database_url)
    kills = 0
    for kill_at in ("1", "3", "4", "5", "7", "0"):
        code, _ = await _process(database_url, session_id, kill_at)
        kills += code == -signal.SIGKILL
    assert kills == 5
    await _check(database_url, session_id)


@pytest.mark.timeout(1800)
async def test_killed_at_any_point_of_a_run_it_reaches_the_same_end_with_each_effect_once(database_url):
    first = await _new_session(database_url)
    _, out = await _process(database_url, first, "count")
    points = int(out)
    assert points >= STEPS + 2
    async with world(database_url, script, agent=AGENT_OF_MANY_STEPS) as here:
        whole = kinds_of(await here.log_of(first))
    unknown = 0

    async def one(point: int) -> None:
        nonlocal unknown
        session_id = await _new_session(database_url)
        code, _ = await _process(database_url, session_id, str(point))
        assert code == -signal.SIGKILL
        code, _ = await _process(database_url, session_id, "0")
        assert code == 0
        unknown += await _check(database_url, session_id)

    for point in range(1, points + 1):
        await one(point)
    print(f"{points} kills over a log of {len(whole)} events, {unknown} outcomes unknown")
    assert unknown == 3 * ROUNDS.count("ledger_pay"), "killed after its claim, before and after it ran"


async def test_the_model_is_told_of_an_irreversible_call_whose_outcome_nobody_knows(database_url):
    session_id = await _new_session(database_url)
    async with world(database_url, script, agent=AGENT_OF_MANY_STEPS) as here:
        [lease] = await here.log.claim("worker_dead", limit=1, lease_s=0.05)
        answer = script_answer("ledger_pay")
        claim = ToolStarted(
            call_id="t1",
            tool="ledger",
            function="pay",
            arguments="{}",
            effect="irreversible",
            key=f"{session_id}.1.1.0",
        )
        await here.log.append(session_id, [TurnStarted(turn=1), answer, claim], lease=lease)
        async with here.worker().running():
            await here.settled(session_id)
        [result] = results_in(here.model.requests[0])
        assert result.failed
        assert "may or may not have taken effect" in text_of(result.content)
        assert here.kind.running_max == 1


def script_answer(function: str) -> ModelAnswered:
    return ModelAnswered(
        seen_seq=3,
        model="m",
        served_by="p/m",
        content=(ToolCall("t1", function, "{}"),),
        stop_reason="tool_use",
    )
