"""Runtime: one attempt of one tool call, to one fact. When and whether it runs is decide.py's matter.

A failure is an answer for the model. Where the effect can't be repeated and nobody knows whether it happened (time ran out,
the connection broke), the fact says just that.
"""

import logging
from datetime import timedelta
from typing import Final

from freehold.core.errors import (
    BadRequest,
    Forbidden,
    FreeholdError,
    Internal,
    NotFound,
    RateLimited,
    TimedOut,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from freehold.core.messages import Text
from freehold.core.outside import ExpectedEvents
from freehold.core.policy import Principal, authorize
from freehold.core.ports import Clock, OpenTool, ToolOutcome, ToolRun
from freehold.core.session import AwaitsEvent, CallAwaited, ToolFinished, ToolOutcomeUnknown
from freehold.runtime import offload
from freehold.runtime.alarms import Alarms
from freehold.runtime.calls import Claim
from freehold.runtime.decide import REPEATABLE, outcome_unknown
from freehold.runtime.offload import Fitted, SessionResults
from freehold.runtime.outside import expected
from freehold.runtime.tools import Toolbox
from freehold.runtime.watch import Stoppable

log = logging.getLogger(__name__)

EVENT_S_MAX: Final = 366 * 86_400.0
"""How long an outside event is waited for where its tool says nothing."""

HAPPENED_NOT: Final = (BadRequest, Unsupported, Unauthenticated, Forbidden, NotFound, RateLimited)
"""Errors that say that nothing was done. Any other leaves it open."""


async def run_tool(
    claim: Claim,
    toolbox: Toolbox,
    principal: Principal,
    *,
    session_id: str,
    clock: Clock,
    results: SessionResults,
    expecting: ExpectedEvents,
    alarms: Alarms,
    hosts: tuple[str, ...] | None = None,
    cost_left_pico: int | None = None,
) -> ToolFinished | ToolOutcomeUnknown | CallAwaited:
    """Raises nothing but CancelledError."""
    began_s = clock.monotonic_s()
    try:
        if claim.started.tool == offload.TOOL:
            outcome = await results.read(claim.arguments)
            fitted = Fitted(outcome.content)
        else:
            tool, timeout_s = toolbox.find(claim.started.tool)
            run = ToolRun(
                function=claim.started.function,
                arguments=claim.arguments,
                key=claim.started.key,
                timeout_s=timeout_s,
                principal=principal,
                session_id=session_id,
                call_id=claim.started.call_id,
                hosts=hosts,
                cost_left_pico=cost_left_pico,
            )
            authorize(principal, "tool:Run", f"tool/{claim.started.tool}/{run.function}")
            outcome = await _run(tool, run, alarms)
            if type(outcome.awaits) is AwaitsEvent:
                wait_s = outcome.awaits_s or EVENT_S_MAX
                return await expected(
                    expecting, clock, outcome.awaits, run, tool=claim.started.tool, wait_s=wait_s
                )
            fitted = await results.fitted(outcome.content)
    except TooLarge as error:
        return _failure(claim, error, _ms_since(began_s, clock))
    except FreeholdError as error:
        if isinstance(error, Unavailable):
            toolbox.distrust(claim.started.tool)
        if claim.started.effect not in REPEATABLE and not isinstance(error, HAPPENED_NOT):
            return outcome_unknown(claim.started, str(error))
        return _failure(claim, error, _ms_since(began_s, clock))
    except Exception:
        log.exception("tool.crashed", extra={"session": session_id, "tool": claim.started.tool})
        if claim.started.effect not in REPEATABLE:
            return outcome_unknown(claim.started, "it failed inside Freehold")
        inside = Internal("the tool failed inside Freehold; its log has the details")
        return _failure(claim, inside, _ms_since(began_s, clock))
    if outcome.awaits is not None:
        wait = None if outcome.awaits_s is None else timedelta(seconds=outcome.awaits_s)
        until = None if wait is None else clock.now() + wait
        return CallAwaited(call_id=claim.started.call_id, awaits=outcome.awaits, until=until)
    return ToolFinished(
        call_id=claim.started.call_id,
        content=fitted.content,
        failed=outcome.failed,
        duration_ms=_ms_since(began_s, clock),
        cost_pico=outcome.cost_pico,
        kept=fitted.kept,
    )


async def _run(tool: OpenTool, run: ToolRun, alarms: Alarms) -> ToolOutcome:
    try:
        with Stoppable() as running:
            alarm = alarms.after(run.timeout_s, running.stop)
            try:
                return await tool.run(run)
            finally:
                alarm.cancel()
    except TimeoutError as error:
        raise _late(run.timeout_s) from error
    raise _late(run.timeout_s)


def _late(timeout_s: float) -> TimedOut:
    return TimedOut(f"no result within {timeout_s:g} s (the tool's timeout_s)")


def _failure(claim: Claim, error: FreeholdError, duration_ms: float) -> ToolFinished:
    return ToolFinished(
        call_id=claim.started.call_id,
        content=(Text(f"{error.code}: {error}"),),
        failed=True,
        code=error.code,
        duration_ms=duration_ms,
    )


def _ms_since(began_s: float, clock: Clock) -> float:
    return round((clock.monotonic_s() - began_s) * 1000, 3)
