"""Runtime: a subagent that waits for somebody to act says so in the log of the session that it works for, at the top.

People and clients look at that session: there its threads' questions are read, answered and counted as its own. It is told before the fact that
makes it true is written, under a key, as whatever subagents tell (subagents.py): a worker that dies in between tells again.
"""

from typing import assert_never

from freehold.core.errors import Conflict, NotFound
from freehold.core.session import (
    AwaitsApproval,
    AwaitsClient,
    Parent,
    ThreadAsks,
    ThreadCall,
    asked_of,
)
from freehold.core.session_log import SessionLog
from freehold.core.session_state import OpenCall, SessionState
from freehold.runtime.context import Compact
from freehold.runtime.decide import CallModel, FinishTurn, Rest, RunTools, StartTurn, Step, Wait
from freehold.runtime.subagents import root_of


class ThreadVoice:
    """Of one session under one lease; it remembers what it has told."""

    def __init__(self, log: SessionLog, session_id: str) -> None:
        self._log = log
        self._session_id = session_id
        self._told: tuple[str, ...] | None = None

    async def tell(self, agent: str, parent: Parent, state: SessionState, step: Step) -> None:
        """What the session at the top of `parent`'s shall know before `step` is carried out. One that is gone or has ended hears nothing."""
        told = state.asked if self._told is None else self._told
        asked = asked_after(state, step)
        if asked != told:
            calls = tuple(_shown(state.open_calls[one], known=one in told) for one in asked)
            asks = ThreadAsks(session_id=self._session_id, agent=agent, calls=calls)
            try:
                root = await root_of(self._log, parent)
                await self._log.append(root, [asks], idempotency_key=f"asks.{self._session_id}.{state.seq}")
            except (Conflict, NotFound):
                pass
        self._told = asked


def asked_after(state: SessionState, step: Step) -> tuple[str, ...]:
    """The calls that somebody has to act on once the step is carried out. Pure."""
    match step:
        case Wait(waits) if waits.why == "calls":
            return asked_of(waits)
        case Wait() | Rest():
            return state.asked
        case RunTools(claims=claims, facts=facts):
            settled = {one.started.call_id for one in claims} | {one.call_id for one in facts}
            return tuple(one for one in state.asked if one in state.open_calls and one not in settled)
        case StartTurn() | CallModel() | Compact() | FinishTurn():
            return ()
        case _ as unreachable:
            assert_never(unreachable)


def _shown(call: OpenCall, *, known: bool) -> ThreadCall:
    awaits = call.awaited.awaits if call.awaited is not None else None
    return ThreadCall(
        call_id=call.call.id,
        name=call.call.name,
        arguments=awaits.arguments if isinstance(awaits, AwaitsApproval) else call.call.arguments,
        client=isinstance(awaits, AwaitsClient),
        known=known,
    )
