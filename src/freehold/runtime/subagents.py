"""Runtime: agents that work for other agents. Each is a session of its own, with its own log, usage and limits.

A tool run of the parent begins it (tools/agent.py) and the parent waits in its row; when the child's turn ends, its result is
told to the parent; when the parent's turn ends first, the child is cancelled. Both are told before the fact that makes them
true is written, under a key: a worker that dies in between tells again, and nothing is heard twice.
"""

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from typing import Final
from weakref import WeakValueDictionary

from freehold.core import ids
from freehold.core.errors import Conflict, Internal, LimitReached, NotFound, TooLarge
from freehold.core.messages import Text, text_of
from freehold.core.policy import Policy
from freehold.core.ports import Clock, Delegation, Resources, ToolRun
from freehold.core.pricing import PICO
from freehold.core.resources import Agent
from freehold.core.session import (
    AwaitsSession,
    CancelRequested,
    Parent,
    ResultGiven,
    SessionSetup,
    SessionStarted,
    TurnFinished,
    UserSpoke,
)
from freehold.core.session_log import Lease, SessionLog, SessionRow
from freehold.core.session_state import SessionState
from freehold.runtime.declared import Declarations
from freehold.runtime.offload import Fitted, Results, SessionResults

TITLE_CHARS: Final = 120
AT_WORK: Final = ("running", "waiting", "paused")


class Subagents:
    """Implements core.ports.ChildSessions."""

    def __init__(self, log: SessionLog, resources: Resources, clock: Clock) -> None:
        self._log = log
        self._resources = resources
        self._clock = clock
        self._starting: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def start(self, run: ToolRun, wanted: Delegation) -> str:
        parent_id = run.session_id
        if parent_id is None:
            raise Internal("a subagent was asked for outside of a session")
        # One at a time for a parent, or calls side by side would all find room for one. Its lease keeps other processes out.
        async with self._starting.setdefault(parent_id, asyncio.Lock()):
            return await self._start(run, parent_id, wanted)

    async def _start(self, run: ToolRun, parent_id: str, wanted: Delegation) -> str:
        tenant = run.principal.tenant
        parent = await _started(self._log, parent_id)
        if parent.depth >= wanted.depth_max:
            raise LimitReached(
                f"subagents may be {wanted.depth_max} deep (the tool's depth_max), this would be one more"
            )
        at_work = await self._log.list(
            tenant, statuses=AT_WORK, parent_id=parent_id, limit=wanted.children_max
        )
        if len(at_work.rows) >= wanted.children_max:
            for one in at_work.rows:
                # Begun by an earlier attempt of this very run, whose worker died before it could say so.
                child = await _started(self._log, one.id)
                if child.parent is not None and child.parent.call_id == run.call_id:
                    return one.id
            raise LimitReached(
                f"{len(at_work.rows)} subagents are at work, which is children_max of the tool; wait for one of them"
            )
        if run.cost_left_pico == 0:
            raise LimitReached(
                "the budget is used up, or set aside for subagents at work: do without this one, or wait for them"
            )
        found = await self._resources.get(tenant, "agent", wanted.agent)
        started = SessionStarted(
            agent=wanted.agent,
            agent_version=found.version,
            model=wanted.model,
            title=" ".join(wanted.task.split())[:TITLE_CHARS],
            by=parent.by,
            parent=Parent(parent_id, run.call_id),
            depth=parent.depth + 1,
            labels=run.principal.residency,
            setup=_setup_of(parent, run.cost_left_pico),
            when_busy=found.resource.when_busy if isinstance(found.resource, Agent) else "queue",
        )
        row = SessionRow(
            id=ids.new("sess", self._clock),
            tenant=tenant,
            agent=wanted.agent,
            agent_version=found.version,
            status="running",
            version=2,
            created_at=(now := self._clock.now()),
            updated_at=now,
            title=started.title,
            model=wanted.model,
            created_by=parent.by,
            parent_id=parent_id,
            setup=started.setup,
            when_busy=started.when_busy,
        )
        spoken = UserSpoke(content=(Text(wanted.task),), by=parent_id)
        made = await self._log.create(row, [started, spoken], idempotency_key=f"subagent.{run.key}")
        return made.id


def _setup_of(parent: SessionStarted, cost_max_pico: int | None) -> SessionSetup | None:
    """The environment: whoever works for a session sees no other network than it. And its share of the budget, where there is one."""
    inherited = parent.setup or SessionSetup()
    if inherited.environment is None and cost_max_pico is None:
        return None
    return SessionSetup(
        environment=inherited.environment,
        environment_version=inherited.environment_version,
        cost_max_usd=None if cost_max_pico is None else f"{Decimal(cost_max_pico) / PICO:f}",
    )


async def inherited(
    log: SessionLog, declarations: Declarations, tenant: str, started: SessionStarted
) -> Sequence[tuple[str, Policy]]:
    """The policies of the agents that this session works for, with their names: it may do nothing that one of them may not."""
    found: list[tuple[str, Policy]] = []
    while started.parent is not None:
        started = await _started(log, started.parent.session_id)
        agent: Agent = await declarations.agent(tenant, started.agent, started.agent_version)
        if agent.policy is not None:
            found.append((agent.name, agent.policy))
    return found


async def root_of(log: SessionLog, parent: Parent) -> str:
    """The session at the top of those that one with this parent works for. Raises NotFound where one of them is gone."""
    while (above := (await _started(log, parent.session_id)).parent) is not None:
        parent = above
    return parent.session_id


async def tell_parent(
    log: SessionLog,
    lease: Lease,
    state: SessionState,
    finished: TurnFinished,
    *,
    declarations: Declarations,
    results: Results,
) -> None:
    """The child's last answer, or why there is none; what is too large to be shown whole is kept among the parent's results. A parent that is
    gone or does not wait any more hears nothing."""
    if state.started is None or state.started.parent is None:
        return
    parent = state.started.parent
    answer = state.last_answer
    said = text_of(answer.content) if answer is not None and finished.outcome != "failed" else ""
    ended = "" if finished.outcome == "completed" else f"{finished.outcome}: {finished.message}"
    text = "\n".join(part for part in (said, ended) if part) or "it ended without an answer"
    try:
        asked = await _started(log, parent.session_id)
        agent = await declarations.agent(lease.tenant, asked.agent, asked.agent_version)
        kept_by = results.of(lease.tenant, [parent.session_id], bytes_max=agent.context.tool_result_bytes_max)
        fitted = await _fitted(kept_by, text)
        given = ResultGiven(
            call_id=parent.call_id,
            source="session",
            content=fitted.content,
            failed=finished.outcome != "completed",
            by=lease.session_id,
            agent=state.started.agent,
            kept=fitted.kept,
            elsewhere_pico=state.turn_cost_pico + state.turn_elsewhere_pico,
        )
        await log.append(
            parent.session_id, [given], idempotency_key=f"result.{lease.session_id}.{state.turn}"
        )
    except (Conflict, NotFound):
        return


async def _fitted(results: SessionResults, text: str) -> Fitted:
    """Whole, where nothing can be put aside: an answer is not lost for that."""
    try:
        return await results.fitted((Text(text),))
    except TooLarge:
        return Fitted((Text(text),))


async def cancel_children(log: SessionLog, state: SessionState, session_id: str) -> None:
    """Those whose results the turn that ends was waiting for."""
    for call in state.open_calls.values():
        if call.awaited is None or not isinstance(call.awaited.awaits, AwaitsSession):
            continue
        request = CancelRequested(
            scope="session", by=session_id, reason="the session that it worked for went on without it"
        )
        try:
            await log.append(
                call.awaited.awaits.session_id, [request], idempotency_key=f"cancel.{session_id}"
            )
        except (Conflict, NotFound):
            continue


async def _started(log: SessionLog, session_id: str) -> SessionStarted:
    events = await log.read(session_id, limit=1)
    if not events or not isinstance(events[0].event, SessionStarted):
        raise NotFound(f"no session {session_id[:80]!r}")
    return events[0].event
