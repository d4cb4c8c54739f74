"""Agents that work for agents, when somebody asks for more than there is: the parent's rights, its money, its end hold for all below it."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from msgspec import structs

from freehold.core.messages import Text, Usage, text_of
from freehold.core.policy import Policy
from freehold.core.ports import ToolOutcome, ToolRun
from freehold.core.resources import Agent, Approval, Limits, Tool
from freehold.core.session import (
    CallAwaited,
    CancelRequested,
    ModelAnswered,
    ResultGiven,
    SessionWaits,
    ThreadAsks,
    ToolFinished,
    TurnFinished,
    asked_of,
    asks,
)
from freehold.core.session_log import Lease, SessionRow
from freehold.core.validation import convert
from freehold.runtime.turn import SessionRun
from freehold.runtime.worker import WorkerSettings
from freehold.tools.agent import KIND
from tests._waiting import within
from tests.runtime._world import (
    AGENT,
    COST_PICO,
    LEDGER,
    OWNER,
    SETTINGS,
    TENANT,
    World,
    calls,
    events_of,
    results_in,
    said,
    world,
)

HELPER = Tool(name="helper", type="agent", config={"agent": "clerk", "children_max": 4})
DELEGATE = ("helper_delegate", '{"task": "Look."}')
KINDS = {"agent": KIND}
DEAR_PICO = 10 * COST_PICO


def dear(*wanted: tuple[str, str]):
    """Calls, by an answer that costs DEAR_PICO."""
    return structs.replace(calls(*wanted), usage=Usage(input_tokens=1000, output_tokens=100))


def boss(**limits) -> Agent:
    return Agent(
        name="boss",
        model="scripted/scripted-1",
        instructions="Boss.",
        tools=("helper",),
        limits=Limits(**limits),
    )


def is_boss(request) -> bool:
    return text_of(request.instructions) == "Boss."


async def start(place: World) -> SessionRow:
    return await place.sessions.create(OWNER, "boss", content=(Text("go"),))


async def children(place: World, parent_id: str) -> list[SessionRow]:
    return list((await place.log.list(TENANT, parent_id=parent_id)).rows)


def end_of(log) -> TurnFinished:
    return events_of(log, TurnFinished)[-1]


def one_deep(request):
    """Of a boss, who delegates once, to a helper, who is done at once."""
    return said("done") if request.messages[-1].role == "tool" or not is_boss(request) else calls(DELEGATE)


def three_deep(request):
    """Of a boss, who delegates to the middle, who delegates to a clerk, who pays."""
    if request.messages[-1].role == "tool":
        return said("done")
    who = text_of(request.instructions)
    if who == "Middle.":
        return calls(("deeper_delegate", '{"task": "Pay."}'))
    return calls(DELEGATE) if who == "Boss." else calls(("ledger_pay", "{}"))


async def test_a_parents_budget_covers_its_subagents(database_url: str) -> None:
    def script(request):
        if not is_boss(request):
            return dear(("ledger_look", "{}"))
        return dear(DELEGATE)

    async with world(
        database_url, script, kinds=KINDS, resources=[HELPER, boss(cost_max_usd="0.0005")]
    ) as place:
        async with place.worker().running():
            parent = await start(place)
            await place.reaches(parent.id, lambda row: row.status == "idle")
        [child] = await children(place, parent.id)
        told = end_of(await place.log_of(child.id))
        assert (told.outcome, told.limit) == ("limit_reached", "session_cost_max_usd")
        log = await place.log_of(parent.id)
        assert (end_of(log).outcome, end_of(log).limit) == ("limit_reached", "cost_max_usd")
        assert "of it by subagents" in end_of(log).message
        [given] = events_of(log, ResultGiven)
        answered = len(events_of(await place.log_of(child.id), ModelAnswered))
        assert given.elsewhere_pico == answered * DEAR_PICO
        assert given.failed
        assert 500_000_000 - 4 * DEAR_PICO < (answered + 1) * DEAR_PICO <= 500_000_000
        assert (await place.log.get(TENANT, parent.id)).cost_pico == DEAR_PICO, "each on its own bill"


@pytest.mark.slow
async def test_subagents_side_by_side_share_what_is_left(database_url: str) -> None:
    def script(request):
        if not is_boss(request):
            return dear(("ledger_look", "{}"))
        return dear(DELEGATE, DELEGATE, DELEGATE)

    async with world(
        database_url, script, kinds=KINDS, resources=[HELPER, boss(cost_max_usd="0.0008")]
    ) as place:
        async with place.worker().running():
            parent = await start(place)
            await place.reaches(parent.id, lambda row: row.status == "idle")
        rows = await children(place, parent.id)
        first = rows[-3:]
        assert [row.setup.cost_max_usd for row in first] == ["0.00025"] * 3
        assert all(0 < row.cost_pico <= 250_000_000 for row in first)
        assert sum(row.cost_pico for row in rows) < 800_000_000
        assert end_of(await place.log_of(parent.id)).limit == "cost_max_usd"


@pytest.mark.slow
async def test_what_a_subagent_is_told_stands_in_its_parents_log_once(database_url: str) -> None:
    async with world(database_url, one_deep, kinds=KINDS, resources=[HELPER, boss()]) as place:
        async with place.worker().running():
            parent = await start(place)
            await place.reaches(parent.id, lambda row: row.status == "idle")
        log = await place.log_of(parent.id)
    assert [event.awaits.task for event in events_of(log, CallAwaited)] == ["Look."]
    repeated = [call.awaits.task for event in events_of(log, SessionWaits) for call in event.calls]
    assert set(repeated) <= {""}


async def test_without_budget_nothing_is_set_aside(database_url: str) -> None:
    async with world(database_url, one_deep, kinds=KINDS, resources=[HELPER, boss()]) as place:
        async with place.worker().running():
            parent = await start(place)
            await place.reaches(parent.id, lambda row: row.status == "idle")
        [child] = await children(place, parent.id)
        assert child.setup is None
        assert end_of(await place.log_of(parent.id)).outcome == "completed"


async def test_a_cancelled_parent_ends_a_child_that_another_worker_carries(database_url: str) -> None:
    began = asyncio.Event()

    async def stands_still(run: ToolRun) -> ToolOutcome:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError

    def script(request):
        return calls(DELEGATE) if is_boss(request) else calls(("ledger_look", "{}"))

    one_each = structs.replace(SETTINGS, sessions_max=1)
    async with world(database_url, script, kinds=KINDS, resources=[HELPER, boss()]) as place:
        place.kind.do = stands_still
        async with AsyncExitStack() as workers:
            carrying = [place.worker(one_each), place.worker(one_each)]
            for worker in carrying:
                await workers.enter_async_context(worker.running())
            parent = await start(place)
            async with within("the child to begin"):
                await began.wait()
            await place.reaches(parent.id, lambda row: row.status == "waiting")
            assert sum(worker.busy_count for worker in carrying) <= 2
            [child] = await children(place, parent.id)
            await place.sessions.cancel(OWNER, parent.id, for_good=True)
            assert (
                await place.reaches(parent.id, lambda row: row.status == "cancelled")
            ).status == "cancelled"
            assert (
                await place.reaches(child.id, lambda row: row.status == "cancelled")
            ).status == "cancelled"
        [asked] = events_of(await place.log_of(child.id), CancelRequested)
        assert asked.by == parent.id
        assert place.kind.running == 0
        assert events_of(await place.log_of(parent.id), ResultGiven) == [], "nobody waits for it any more"


async def test_a_child_begun_by_a_worker_that_died_is_the_same_child(database_url: str) -> None:
    """Also where there may be no other: it takes no second place beside itself."""
    only_one = structs.replace(HELPER, config={"agent": "clerk", "children_max": 1})

    async with world(database_url, one_deep, kinds=KINDS, resources=[only_one, boss()]) as place:
        starts: list[str] = []
        begin = place.means.tools._host.sessions.start

        async def dies_once(run, wanted):
            starts.append(await begin(run, wanted))
            if len(starts) == 1:
                raise asyncio.CancelledError
            return starts[-1]

        place.means.tools._host.sessions.start = dies_once
        parent = await start(place)
        [lease] = await place.log.claim("dead", limit=1, lease_s=0.1)
        await _ended(place, lease)
        async with place.worker().running():
            await place.reaches(parent.id, lambda row: row.status == "idle")
        assert len(set(starts)) == 1
        assert len(await children(place, parent.id)) == 1
        assert [one.code for one in events_of(await place.log_of(parent.id), ToolFinished)] == []


async def test_a_child_may_be_done_before_its_parent_knows_that_it_waits(database_url: str) -> None:
    async with world(database_url, one_deep, kinds=KINDS, resources=[HELPER, boss()]) as place:
        begin = place.means.tools._host.sessions.start

        async def slowly(run, wanted):
            made = await begin(run, wanted)
            await place.reaches(made, lambda row: row.status == "idle")
            return made

        place.means.tools._host.sessions.start = slowly
        async with place.worker().running():
            parent = await start(place)
            await place.reaches(parent.id, lambda row: row.status == "idle")
        log = await place.log_of(parent.id)
        assert end_of(log).outcome == "completed"
        kinds = [type(one.event).__name__ for one in log]
        assert kinds.index("ResultGiven") < kinds.index("CallAwaited"), "or this shows nothing"


async def test_a_result_that_comes_while_a_worker_is_replaced_is_taken_and_the_call_not_begun_again(
    database_url: str,
) -> None:
    """The new worker has read the log, and is about to begin the call's second attempt, when the subagent of the first is done."""

    async with world(database_url, one_deep, kinds=KINDS, resources=[HELPER, boss()]) as place:
        delegate, find_rights = place.means.tools._host.sessions.start, place.principals.current

        async def dies(run, wanted):
            await delegate(run, wanted)
            raise asyncio.CancelledError

        place.means.tools._host.sessions.start = dies
        parent = await start(place)
        [lease] = await place.log.claim("dead", limit=1, lease_s=0.1)
        await _ended(place, lease)
        place.means.tools._host.sessions.start = delegate
        [child] = await children(place, parent.id)
        leases = await _claimed(place, {parent.id, child.id})

        async def meanwhile(tenant, principal_id):
            if (lease := leases.pop(child.id, None)) is not None:
                await SessionRun(place.means, lease, asyncio.Event()).run()
            return await find_rights(tenant, principal_id)

        place.principals.current = meanwhile
        await SessionRun(place.means, leases[parent.id], asyncio.Event()).run()
        log = await place.log_of(parent.id)
        kinds = [type(one.event).__name__ for one in log]
        assert "ResultGiven" in kinds
        assert kinds.count("ToolStarted") == 1
        assert end_of(log).outcome == "completed"
        assert await children(place, parent.id) == [await place.log.get(TENANT, child.id)]
    [result] = results_in(place.model.requests[-1])
    assert text_of(result.content) == "done"


async def _claimed(place: World, wanted: set[str]) -> dict[str, Lease]:
    """By another worker, once the one before is known to be gone."""
    leases: dict[str, Lease] = {}
    async with within("all leases"):
        while set(leases) != wanted:
            found = await place.log.claim("next", limit=len(wanted), lease_s=60)
            leases |= {lease.session_id: lease for lease in found}
    return leases


async def _ended(place: World, lease) -> None:
    try:
        await SessionRun(place.means, lease, asyncio.Event()).run()
    except asyncio.CancelledError:
        return


@pytest.mark.slow
async def test_what_a_subagent_asks_is_known_at_the_top_also_where_its_worker_dies(database_url: str) -> None:
    middle = Agent(name="middle", model="scripted/scripted-1", instructions="Middle.", tools=("deeper",))
    deeper = Tool(name="deeper", type="agent", config={"agent": "clerk"})
    helper = structs.replace(HELPER, config={"agent": "middle"})
    asks_first = structs.replace(LEDGER, approval=Approval(functions=("pay",)))

    async with world(
        database_url, three_deep, kinds=KINDS, resources=[helper, deeper, middle, boss()]
    ) as place:
        await place.declare(asks_first)
        append, died = place.log.append, []

        async def dies_once(session_id, events, **options):
            if not died and any(isinstance(one, SessionWaits) and asked_of(one) for one in events):
                died.append(session_id)
                raise asyncio.CancelledError
            return await append(session_id, events, **options)

        place.log.append = dies_once
        soon_over = WorkerSettings(lease_s=3, poll_s=0.2, drain_s=2)
        async with place.worker(soon_over).running():
            parent = await start(place)
            asking = await place.reaches(parent.id, lambda row: asks(row.waits))
            [child] = await children(place, parent.id)
            [grandchild] = await children(place, child.id)
            assert died == [grandchild.id]
            assert [one.session_id for one in asking.waits.threads] == [grandchild.id]
            waiting = await place.reaches(grandchild.id, lambda row: row.waits is not None)
            [call_id] = asking.waits.threads[0].call_ids
            assert call_id == waiting.waits.calls[0].call_id
            assert not asks((await place.log.get(TENANT, child.id)).waits)
            allow = await place.sessions.decide(OWNER, grandchild.id, call_id=call_id, allow=True)
            await place.sessions.tell(OWNER, grandchild.id, [allow])
            await place.reaches(parent.id, lambda row: row.status == "idle")
        told = events_of(await place.log_of(parent.id), ThreadAsks)
        assert [[call.name for call in one.calls] for one in told] == [["ledger_pay"], []]


@pytest.mark.slow
async def test_rights_of_all_above_hold_three_levels_down(database_url: str) -> None:
    denies = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"},
              {"Effect": "Deny", "Action": "tool:Run", "Resource": "tool/ledger/pay"}]}  # fmt: skip
    greedy = convert(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]},
        Policy,
        root="policy",
    )
    top = structs.replace(boss(), policy=convert(denies, Policy, root="policy"))
    middle = Agent(
        name="middle", model="scripted/scripted-1", instructions="Middle.", tools=("deeper",), policy=greedy
    )
    deeper = Tool(name="deeper", type="agent", config={"agent": "clerk"})
    helper = structs.replace(HELPER, config={"agent": "middle"})
    clerk = structs.replace(AGENT, policy=greedy)

    async with world(
        database_url, three_deep, agent=clerk, kinds=KINDS, resources=[helper, deeper, middle, top]
    ) as place:
        async with place.worker().running():
            parent = await start(place)
            await place.reaches(parent.id, lambda row: row.status == "idle")
        [child] = await children(place, parent.id)
        [grandchild] = await children(place, child.id)
        [result] = events_of(await place.log_of(grandchild.id), ToolFinished)
        assert (result.failed, result.code) == (True, "forbidden")
        assert "tool/ledger/pay" in text_of(result.content)
