"""Runtime: what a session does next, by its log alone. Pure: no I/O, no clock, no memory; turn.py carries it out.

    decide(state, plan, now, places) -> StartTurn | Compact | CallModel | RunTools | FinishTurn | Wait | Rest

Called whenever nothing of the session runs, so a call that is open and started was cut off: by a crash, a cancel or a limit.
Such a call runs again when that is harmless (pure, idempotent: same key), else its outcome is unknown and is said to be.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeAlias, assert_never

from msgspec import Struct, structs

from freehold.core import pricing
from freehold.core.contracts import money
from freehold.core.errors import BadRequest, ContentRefused, ContextTooLong, LimitReached
from freehold.core.messages import JsonObject, Text, ToolCall
from freehold.core.resources import Effect, Limits
from freehold.core.session import (
    AwaitsApproval,
    AwaitsPlace,
    AwaitsSession,
    CallAwaited,
    ModelAnswered,
    ModelFailed,
    SessionEvent,
    SessionWaits,
    ThreadWaits,
    ToolFinished,
    ToolOutcomeUnknown,
    ToolStarted,
    TurnFinished,
    TurnOutcome,
    TurnStarted,
)
from freehold.core.session_state import OpenCall, SessionState
from freehold.runtime.calls import (
    Claim,
    PlannedFunction,
    begun_here,
    claim,
    claim_again,
    meant,
    parse_arguments,
    refused,
)
from freehold.runtime.context import Compact, ContextPlan, compaction
from freehold.runtime.waiting import (
    Approved,
    Pending,
    approval_outcome,
    approval_wanted,
    asks_approval,
    awaited_outcome,
    client_wanted,
    early_awaited,
    timer_wanted,
)

ATTEMPTS_MAX: Final = 5
"""Of one tool call whose worker died each time: past it, the call is more likely what kills them."""

REPEATABLE: Final[frozenset[Effect]] = frozenset({"pure", "idempotent"})


class Plan(Struct, frozen=True):
    """What holds for the turn: who it is, what the agent may use and how much. `functions` are by the name the model uses,
    `limited` the tools that may only run so many times at once."""

    session_id: str
    limits: Limits
    functions: dict[str, PlannedFunction]
    cost_max_pico: int | None = None
    session_cost_max_pico: int | None = None
    context: ContextPlan | None = None
    limited: frozenset[str] = frozenset()


class StartTurn(Struct, frozen=True):
    turn: int


class CallModel(Struct, frozen=True):
    pass


class RunTools(Struct, frozen=True):
    """Record `facts` and the `claims` in one append, then run the claims side by side."""

    claims: tuple[Claim, ...]
    facts: tuple[ToolFinished | ToolOutcomeUnknown | CallAwaited, ...]


class FinishTurn(Struct, frozen=True):
    """Record `events` in one append, and only if nothing else came in between: the last of them settles the session."""

    events: tuple[SessionEvent, ...]


class Wait(Struct, frozen=True):
    """Record it, and only if nothing else came in between: then the session needs nobody until something happens."""

    waits: SessionWaits


class Rest(Struct, frozen=True):
    """Nothing to do until somebody says something, and the log says so already."""


Step: TypeAlias = StartTurn | Compact | CallModel | RunTools | FinishTurn | Wait | Rest


class Reached(Struct, frozen=True):
    limit: str
    message: str


def decide(state: SessionState, plan: Plan, now: datetime, *, places: Collection[str] | None = None) -> Step:
    """`places`: which calls of limited tools may run now; before anybody asked, they all may."""
    if state.closed:
        return Rest()
    if state.cancel is not None:
        return _cancelled(state)
    if state.paused:
        return _wait(state, SessionWaits(why="paused"))
    if not state.in_turn:
        return StartTurn(state.turn + 1) if state.queued else _idle(state)
    if state.failed is not None:
        return _failed(state, state.failed, plan, now)
    answer = state.last_answer
    if answer is not None and answer.stop_reason == "refusal":
        return finish(state, "refused", message="the model declined to answer")
    if state.open_calls:
        return _run_tools(state, plan, now, places)
    if answer is not None and not _goes_on(answer):
        return _answered(state, plan, answer)
    reached = limit_reached(state, plan, now) or _going_round(state, plan)
    if reached:
        return _stopped(state, reached)
    return compaction(state, plan.context) or CallModel()


def opened(events: Sequence[SessionEvent], now: datetime) -> tuple[SessionState, Sequence[SessionEvent]]:
    """A session that begins with `events`, as far as a worker takes it without a word from anybody: into its first turn, where something
    is said. What it writes for that is given beside."""
    state = SessionState()
    for event in events:
        state.add(event, now)
    step = decide(state, Plan("", Limits(), {}), now)
    if type(step) is not StartTurn:
        return state, ()
    started = TurnStarted(turn=step.turn)
    state.add(started, now)
    return state, (started,)


def finish(
    state: SessionState,
    outcome: TurnOutcome,
    *,
    message: str = "",
    limit: str | None = None,
    code: str | None = None,
) -> FinishTurn:
    """Ends the turn; where input is left over, the next turn begins in the same append, or no worker would look again."""
    finished = TurnFinished(outcome=outcome, message=message, limit=limit, code=code)
    unknown = tuple(
        outcome_unknown(call.started)
        for call in state.open_calls.values()
        if call.started is not None and call.started.effect not in REPEATABLE
    )
    over = outcome == "cancelled" and code == "session"
    if over or not state.input_left(outcome):
        return FinishTurn((*unknown, finished))
    return FinishTurn((*unknown, finished, TurnStarted(turn=state.turn + 1)))


def outcome_unknown(started: ToolStarted, why: str = "it was cut off while it ran") -> ToolOutcomeUnknown:
    """For a call whose effect can't be taken back and of which nobody knows whether it happened."""
    return ToolOutcomeUnknown(
        call_id=started.call_id,
        message=(
            f"outcome unknown: {started.tool}/{started.function} may or may not have taken effect: {why}. It was not tried "
            f"again, because its effect is {started.effect}. Find out what happened before calling it again "
            f"(its idempotency key was {started.key})."
        ),
    )


def _cancelled(state: SessionState) -> FinishTurn:
    assert state.cancel is not None  # noqa: S101 - for the type checker; decide() has looked
    by = f" by {state.cancel.by}" if state.cancel.by else ""
    reason = f": {state.cancel.reason}" if state.cancel.reason else ""
    return finish(state, "cancelled", message=f"cancelled{by}{reason}", code=state.cancel.scope)


def _failed(state: SessionState, failed: ModelFailed, plan: Plan, now: datetime) -> FinishTurn | Compact:
    match failed.code:
        case ContextTooLong.code if (step := compaction(state, plan.context, refused=True)) is not None:
            return step
        case ContentRefused.code:
            return finish(state, "refused", message=failed.message, code=failed.code)
        case LimitReached.code if failed.limit is not None:
            return _stopped(state, _money_reached(state, plan, failed.message))
        case LimitReached.code:
            reached = limit_reached(state, plan, now)
            if reached:
                return _stopped(state, reached)
            return finish(state, "limit_reached", message=failed.message, code=failed.code)
        case _:
            return finish(state, "failed", message=failed.message, code=failed.code)


def _goes_on(answer: ModelAnswered) -> bool:
    """Whether the model is to be asked again: its calls are answered by now, or it only paused."""
    if answer.stop_reason == "pause":
        return True
    for part in answer.content:  # noqa: SIM110 - a generator costs more than the look
        if type(part) is ToolCall:
            return True
    return False


def _answered(state: SessionState, plan: Plan, answer: ModelAnswered) -> FinishTurn:
    match answer.stop_reason:
        case "tokens_max" if answer.limit is not None:
            return _stopped(state, _money_reached(state, plan, "the answer was cut off where it ended"))
        case "tokens_max":
            message = "the answer was cut off at the model's output limit; raise the agent's tokens_max, or ask it to go on"
            return finish(state, "limit_reached", limit="answer_tokens_max", message=message)
        case "context_full":
            message = "the conversation no longer fits the model's context; go on in a new session, or with a larger model"
            return finish(state, "failed", code=ContextTooLong.code, message=message)
        case _:
            return finish(state, "completed")


def _idle(state: SessionState) -> Wait | Rest:
    """Out of turns and with no input. Woken for nothing (resumed after a pause), the session's row has to be told so."""
    woken = state.waits is not None or state.settled
    return Rest() if woken else Wait(SessionWaits(why="input"))


def _known(awaited: CallAwaited) -> CallAwaited:
    """As a wait repeats it: what a subagent was told stands in the fact itself."""
    match awaited.awaits:
        case AwaitsSession(task=task) as awaits if task:
            return structs.replace(awaited, awaits=structs.replace(awaits, task=""))
        case _:
            return awaited


def _wait(state: SessionState, waits: SessionWaits) -> Wait | Rest:
    return Rest() if state.waits == waits else Wait(waits)


def _run_tools(
    state: SessionState, plan: Plan, now: datetime, places: Collection[str] | None
) -> RunTools | FinishTurn | Wait | Rest:
    claims: list[Claim] = []
    facts: list[ToolFinished | ToolOutcomeUnknown | CallAwaited] = []
    pending: list[CallAwaited] = []
    for call in [state.open_calls[call_id] for call_id in state.call_order if call_id in state.open_calls]:
        match _next(state, plan, call, now):
            case Claim(started) if (
                places is not None and started.tool in plan.limited and call.call.id not in places
            ):
                pending.append(CallAwaited(call_id=call.call.id, awaits=AwaitsPlace(tool=started.tool)))
            case Claim() as claimed:
                claims.append(claimed)
            case Pending(awaited):
                pending.append(_known(awaited))
            case fact:
                facts.append(fact)
    if not claims and not facts:
        times = [awaited.until for awaited in pending if awaited.until is not None]
        threads = tuple(ThreadWaits(session_id, asked) for session_id, asked in state.threads.items())
        until = min(times) if times else None
        return _wait(state, SessionWaits(why="calls", calls=tuple(pending), until=until, threads=threads))
    new = len([one for one in claims if one.started.attempt == 1])
    if claims and (reached := limit_reached(state, plan, now, steps=new)):
        return _stopped(state, reached)
    return RunTools(tuple(claims[: max(1, plan.limits.tool_calls_parallel_max)]), tuple(facts))


def _next(
    state: SessionState, plan: Plan, call: OpenCall, now: datetime
) -> Claim | ToolFinished | ToolOutcomeUnknown | CallAwaited | Pending:
    """What becomes of an open call, of which nothing runs now."""
    if call.awaited is not None and not isinstance(call.awaited.awaits, AwaitsApproval):
        return awaited_outcome(call, call.awaited, now)
    if call.started is not None:
        return early_awaited(call) or _next_attempt(plan, call, call.started)
    answer = state.last_answer
    cut = answer is not None and answer.stop_reason == "tokens_max" and call.call.id == state.call_order[-1]
    match meant(call, plan.functions, cut=cut):
        case ToolFinished() as said:
            return said
        case (planned, arguments):
            return _begin(plan, call, planned, arguments, now)


def _begin(
    plan: Plan, call: OpenCall, planned: PlannedFunction, arguments: JsonObject, now: datetime
) -> Claim | ToolFinished | CallAwaited | Pending:
    """A call that makes sense: first people are asked, where they must be; then whoever settles it does."""
    text = call.call.arguments
    if call.awaited is not None and isinstance(call.awaited.awaits, AwaitsApproval):
        outcome = approval_outcome(call, call.awaited, call.awaited.awaits, planned, now)
        if not isinstance(outcome, Approved):
            return outcome
        text, arguments = outcome.arguments, parse_arguments(outcome.arguments, cut=False)
    elif (rule := asks_approval(planned)) is not None:
        return approval_wanted(call.call.id, planned, rule, call.call.arguments, now)
    match planned.settled_by:
        case "run":
            return claim(plan.session_id, call, planned, text, arguments)
        case "client":
            return client_wanted(call.call.id, now)
        case "timer":
            try:
                return timer_wanted(call.call.id, arguments, now)
            except BadRequest as error:
                return refused(call, error.code, error.message)
        case _ as unreachable:
            assert_never(unreachable)


def _next_attempt(
    plan: Plan, call: OpenCall, started: ToolStarted
) -> Claim | ToolFinished | ToolOutcomeUnknown:
    """It was cut off, or is the matter of the session that this one was forked from."""
    if started.effect not in REPEATABLE:
        if begun_here(plan.session_id, started):
            return outcome_unknown(started)
        return outcome_unknown(started, "it was begun before the fork, in the session forked from")
    if started.attempt < ATTEMPTS_MAX:
        return claim_again(plan.session_id, call, started)
    message = (
        f"gave up: {started.tool}/{started.function} was cut off in each of its {ATTEMPTS_MAX} attempts, "
        "because the worker that ran it died or was stopped. Do without it, or try it with other arguments."
    )
    return ToolFinished(call_id=call.call.id, content=(Text(message),), failed=True, code="internal")


def _stopped(state: SessionState, reached: Reached) -> FinishTurn:
    return finish(
        state, "limit_reached", limit=reached.limit, message=reached.message, code=LimitReached.code
    )


def limit_reached(state: SessionState, plan: Plan, now: datetime, *, steps: int = 1) -> Reached | None:
    """Whether the turn's limits leave room for so many further `steps`."""
    limits = plan.limits
    used = state.turn_usage.input_tokens + state.turn_usage.output_tokens
    if state.turn_steps + steps > limits.steps_max:
        return _reached("steps_max", limits.steps_max, f"{state.turn_steps} done, {steps} more wanted")
    if used >= limits.tokens_max:
        return _reached("tokens_max", limits.tokens_max, f"{used} tokens used")
    turn_pico = state.turn_cost_pico + state.turn_elsewhere_pico
    if plan.cost_max_pico is not None and turn_pico >= plan.cost_max_pico:
        return _reached("cost_max_usd", limits.cost_max_usd, _spent(turn_pico, state.turn_elsewhere_pico))
    began_at = state.turn_started_at
    # Most turns have not lasted so long, whatever of it was waiting.
    if began_at is not None and (now - began_at).total_seconds() >= limits.wall_time_s_max:
        ends_at = wall_time_ends_at(state, limits, now)
        if ends_at is not None and now >= ends_at:
            spent_s = limits.wall_time_s_max + (now - ends_at).total_seconds()
            return _reached("wall_time_s_max", limits.wall_time_s_max, f"the turn has lasted {spent_s:.0f} s")
    return _session_limit_reached(state, plan, now, steps=steps)


def _session_limit_reached(state: SessionState, plan: Plan, now: datetime, *, steps: int) -> Reached | None:
    limits = plan.limits
    if limits.session_steps_max is not None and state.steps + steps > limits.session_steps_max:
        return _session_over("session_steps_max", limits.session_steps_max, f"{state.steps} done")
    if limits.session_tokens_max is not None:
        used = state.usage.input_tokens + state.usage.output_tokens
        if used >= limits.session_tokens_max:
            return _session_over("session_tokens_max", limits.session_tokens_max, f"{used} tokens used")
    if (
        plan.session_cost_max_pico is not None
        and state.cost_pico + state.elsewhere_pico >= plan.session_cost_max_pico
    ):
        spent = _spent(state.cost_pico + state.elsewhere_pico, state.elsewhere_pico)
        return _session_over("session_cost_max_usd", limits.session_cost_max_usd, spent)
    if limits.session_wall_time_s_max is not None:
        worked_s = state.worked(now).total_seconds()
        if worked_s >= limits.session_wall_time_s_max:
            worked = f"its turns have lasted {worked_s:.0f} s"
            return _session_over("session_wall_time_s_max", limits.session_wall_time_s_max, worked)
    return None


def _spent(spent_pico: int, elsewhere_pico: int) -> str:
    by_subagents = f", {pricing.show(elsewhere_pico)} of it by subagents" if elsewhere_pico else ""
    return f"{pricing.show(spent_pico)} spent{by_subagents}"


def money_limit(state: SessionState, plan: Plan) -> str | None:
    """The one of which less is left."""
    turn, session = _money_left(state, plan)
    if turn is None and session is None:
        return None
    return (
        "cost_max_usd"
        if session is None or (turn is not None and turn <= session)
        else "session_cost_max_usd"
    )


def _money_left(state: SessionState, plan: Plan) -> tuple[int | None, int | None]:
    """Of the turn's limit, and of the session's."""
    turn, session = plan.cost_max_pico, plan.session_cost_max_pico
    return (
        None if turn is None else turn - state.turn_cost_pico - state.turn_elsewhere_pico,
        None if session is None else session - state.cost_pico - state.elsewhere_pico,
    )


def _money_reached(state: SessionState, plan: Plan, said: str) -> Reached:
    """Not used up, but too little is left."""
    limits = plan.limits
    if money_limit(state, plan) == "cost_max_usd":
        spent = _spent(state.turn_cost_pico + state.turn_elsewhere_pico, state.turn_elsewhere_pico)
        return _reached("cost_max_usd", limits.cost_max_usd, f"{spent}; {said}")
    spent = _spent(state.cost_pico + state.elsewhere_pico, state.elsewhere_pico)
    return _session_over("session_cost_max_usd", limits.session_cost_max_usd, f"{spent}; {said}")


def cost_left_pico(state: SessionState, plan: Plan) -> int | None:
    """What may still be spent in this turn, less what is set aside for subagents at work. None: no limit says."""
    if plan.cost_max_pico is None and plan.session_cost_max_pico is None:
        return None
    left = [one for one in _money_left(state, plan) if one is not None]
    set_aside = sum(
        call.awaited.awaits.cost_max_pico or 0
        for call in state.open_calls.values()
        if call.awaited is not None and isinstance(call.awaited.awaits, AwaitsSession)
    )
    return max(0, min(left) - set_aside)


def _going_round(state: SessionState, plan: Plan) -> Reached | None:
    """The same call, the same arguments, the same result, too often: a loop, however many steps it has left."""
    for one in state.turn_repeats.values():
        if one.count >= plan.limits.repeats_max:
            said = f"{one.name} gave the same result {one.count} times"
            return _reached("repeats_max", plan.limits.repeats_max, said)
    return None


def wall_time_ends_at(state: SessionState, limits: Limits, now: datetime) -> datetime | None:
    """Wall time also runs while no worker is there, but not while the session waits for somebody."""
    if state.turn_started_at is None:
        return None
    return state.turn_started_at + timedelta(seconds=limits.wall_time_s_max) + state.waited(now)


def time_left_s(state: SessionState, limits: Limits, now: datetime) -> float:
    """Until the turn's time is up, or the session's."""
    ends_at = wall_time_ends_at(state, limits, now)
    left_s = 0.0 if ends_at is None else (ends_at - now).total_seconds()
    if limits.session_wall_time_s_max is None:
        return left_s
    return min(left_s, limits.session_wall_time_s_max - state.worked(now).total_seconds())


def _reached(limit: str, size: object, used: str) -> Reached:
    return Reached(
        limit,
        f"the turn reached {limit} = {size} ({used}). "
        f"Send another message to go on in a new turn, or raise limits.{limit} of the agent.",
    )


def _session_over(limit: str, size: object, used: str) -> Reached:
    return Reached(
        limit,
        f"the session reached {limit} = {size} ({used}). Go on in a new session or a fork, or raise limits.{limit} of the agent.",
    )


def money_pico(amount: str | None, *, field: str) -> int | None:
    """Raises BadRequest where the declared text is no amount of money."""
    return None if amount is None else money(amount, field)
