"""Runtime: tool calls that somebody else has to settle: people who approve, clients, timers, outside events, other sessions. Pure.

A call that waits is in the log (CallAwaited), and so is all that is said of it; what that amounts to is found here, by the log
and the time alone. When the session as a whole may rest is decide.py's matter.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, assert_never

import msgspec
from msgspec import Struct

from freehold.core.errors import BadRequest, Forbidden, TimedOut
from freehold.core.messages import JsonObject, Text
from freehold.core.resources import Approval, Escalation
from freehold.core.session import (
    AwaitsApproval,
    AwaitsClient,
    AwaitsEvent,
    AwaitsPlace,
    AwaitsSession,
    AwaitsTimer,
    CallAwaited,
    ToolFinished,
    approval_binding,
)
from freehold.core.session_state import OpenCall
from freehold.runtime.calls import PlannedFunction

TIMER_S_MAX: Final = 366 * 86_400.0
TIMER_SAYS: Final = "the time has come: it is "
CLIENT_DEADLINE_S: Final = 7 * 86_400.0
"""How long a client has for its result where the tool says nothing: a tool's own `timeout_s` is for what runs here."""


class Pending(Struct, frozen=True):
    """Nothing to do for this call until `until`, or until somebody writes."""

    awaited: CallAwaited


class Approved(Struct, frozen=True):
    """Go on with these arguments: the model's, or those that a person put in their place."""

    arguments: str


def asks_approval(planned: PlannedFunction) -> Approval | None:
    """The rule that holds for the function, where there is one."""
    rule = planned.approval
    if rule is None:
        return None
    asked = rule.functions is None or planned.function in rule.functions
    return rule if asked and (rule.effects is None or planned.effect in rule.effects) else None


def approval_wanted(
    call_id: str, planned: PlannedFunction, rule: Approval, arguments: str, now: datetime, *, level: int = 0
) -> CallAwaited:
    """`level` 0 asks the rule's own approvers, 1 its first escalation, and so on."""
    asked = (
        Escalation(approvers=rule.approvers, deadline_s=rule.deadline_s, quorum=rule.quorum)
        if level == 0
        else rule.escalations[level - 1]
    )
    return CallAwaited(
        call_id=call_id,
        awaits=AwaitsApproval(
            tool=planned.tool,
            version=planned.version,
            function=planned.function,
            arguments=arguments,
            binding=approval_binding(planned.tool, planned.version, planned.function, arguments),
            approvers=asked.approvers,
            quorum=quorum_of(rule, asked),
            level=level,
        ),
        until=now + timedelta(seconds=asked.deadline_s),
    )


def people_max(approvers: tuple[str, ...]) -> int | None:
    """How many there may be; None: nobody knows."""
    if not approvers or any(name.startswith("team/") for name in approvers):
        return None
    return len(set(approvers))


def quorum_of(rule: Approval, asked: Escalation) -> int:
    if asked.quorum is not None:
        return asked.quorum
    return min(rule.quorum, people_max(asked.approvers) or rule.quorum)


def approval_outcome(
    call: OpenCall, awaited: CallAwaited, wanted: AwaitsApproval, planned: PlannedFunction, now: datetime
) -> Approved | CallAwaited | ToolFinished | Pending:
    """Where the tool's declaration has changed since it was asked, that question is void: the new rule's is asked, if it has one."""
    rule = asks_approval(planned)
    if rule is None:
        return Approved(wanted.arguments)
    if wanted.binding != approval_binding(planned.tool, planned.version, planned.function, wanted.arguments):
        return approval_wanted(call.call.id, planned, rule, wanted.arguments, now)
    for vote in call.votes.values():
        if not vote.allow:
            return _denied(call, vote.by, vote.reason)
    if len(call.votes) >= wanted.quorum:
        return Approved(wanted.arguments)
    if awaited.until is None or now < awaited.until:
        return Pending(awaited)
    if wanted.level < len(rule.escalations):
        return approval_wanted(call.call.id, planned, rule, wanted.arguments, now, level=wanted.level + 1)
    match rule.on_expiry:
        case "allow":
            return Approved(wanted.arguments)
        case "deny":
            return _denied(call, "", "nobody decided in time")
        case "tell":
            return _expired(
                call,
                "nobody decided in time whether it may run. That is no denial: ask again later, or do without it",
            )
        case _ as unreachable:
            assert_never(unreachable)


def awaited_outcome(call: OpenCall, awaited: CallAwaited, now: datetime) -> ToolFinished | Pending:
    """For what is not an approval. Results that came are in the state already; here is only time."""
    if awaited.until is None or now < awaited.until:
        return Pending(awaited)
    match awaited.awaits:
        case AwaitsTimer():
            return ToolFinished(call_id=call.call.id, content=(Text(timer_says(now)),))
        case AwaitsClient():
            return _expired(call, "the client gave no result in time; whether it has run there is not known")
        case AwaitsEvent():
            return _expired(call, "it began, and nothing was heard of it in time; its outcome is not known")
        case AwaitsSession(session_id=session_id):
            return _expired(call, f"session {session_id} did not finish in time")
        case AwaitsApproval() | AwaitsPlace():
            raise AssertionError("approvals have an outcome of their own, places none")
        case _ as unreachable:
            assert_never(unreachable)


def early_awaited(call: OpenCall) -> CallAwaited | None:
    """What a run that was cut off had begun, where its result has come all the same: the log's word of it takes the result in, and nothing
    is begun again for what is done. Events from outside never come so early (runtime/outside.py)."""
    early = call.early
    if early is None or early.source != "session":
        return None
    return CallAwaited(call_id=early.call_id, awaits=AwaitsSession(session_id=early.by, agent=early.agent))


def client_wanted(call_id: str, now: datetime) -> CallAwaited:
    return CallAwaited(
        call_id=call_id, awaits=AwaitsClient(), until=now + timedelta(seconds=CLIENT_DEADLINE_S)
    )


def timer_wanted(call_id: str, arguments: JsonObject, now: datetime) -> CallAwaited:
    """Raises BadRequest in words for a model."""
    return CallAwaited(call_id=call_id, awaits=AwaitsTimer(), until=timer_end(arguments, now))


def timer_end(arguments: JsonObject, now: datetime) -> datetime:
    """`seconds` from now or `until`, one of them. What has passed already is over at once."""
    match arguments:
        case {"seconds": int() | float() as seconds} if "until" not in arguments and not isinstance(
            seconds, bool
        ):
            wanted_s = float(seconds)
        case {"until": str() as until} if "seconds" not in arguments:
            wanted_s = (_instant(until) - now).total_seconds()
        case _:
            raise BadRequest(
                "expected either `seconds` (a number) or `until` (a time like 2026-11-21T09:00:00Z)"
            )
    if not 0 <= wanted_s <= TIMER_S_MAX and "seconds" in arguments:
        raise BadRequest(f"expected 0 to {TIMER_S_MAX:.0f} seconds, got {wanted_s:g}")
    if wanted_s > TIMER_S_MAX:
        raise BadRequest(f"expected a time within {TIMER_S_MAX / 86_400:.0f} days")
    return now + timedelta(seconds=max(0.0, wanted_s))


def _instant(text: str) -> datetime:
    try:
        found = msgspec.convert(text, datetime)
    except msgspec.ValidationError as error:
        raise BadRequest(f"expected a time like 2026-11-21T09:00:00Z, got {text[:60]!r}") from error
    if found.tzinfo is None:
        raise BadRequest(f"expected a time with its offset from UTC, like {text[:40]}Z, got {text[:60]!r}")
    return found.astimezone(UTC)


def _denied(call: OpenCall, by: str, reason: str) -> ToolFinished:
    who = f" by {by}" if by else ""
    why = f": {reason}" if reason else ""
    return ToolFinished(
        call_id=call.call.id, content=(Text(f"not run: denied{who}{why}"),), failed=True, code=Forbidden.code
    )


def _expired(call: OpenCall, why: str) -> ToolFinished:
    return ToolFinished(call_id=call.call.id, content=(Text(why),), failed=True, code=TimedOut.code)


def timer_says(at: datetime) -> str:
    return TIMER_SAYS + at.isoformat(timespec="seconds").replace("+00:00", "Z")
