"""The log's facts as events of the sessions API, and the events that a client may send.

One fact may be several events (an answer with text and two tool calls); each has an id that never changes and a cursor
(`seq.part`) to resume from. Facts without a counterpart in Claude Managed Agents are `freehold.*` events, which a client
gets when it asks with `include=freehold`. Source of the other shapes: the types of the `anthropic` SDK, beta.sessions.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final, Literal, assert_never

import msgspec
from msgspec import Struct

from freehold.core import pricing
from freehold.core.errors import BadRequest
from freehold.core.messages import Carried, Media, Reasoning, Refusal, Text, ToolCall, Usage
from freehold.core.resources import WhenBusy
from freehold.core.session import (
    ApprovalDecided,
    AwaitsSession,
    CallAwaited,
    CancelRequested,
    Compacted,
    ModelAnswered,
    ModelFailed,
    PauseRequested,
    Recorded,
    ResultGiven,
    ResumeRequested,
    SessionForked,
    SessionStarted,
    SessionWaits,
    ThreadAsks,
    ToolFinished,
    ToolOutcomeUnknown,
    ToolStarted,
    TurnFinished,
    TurnStarted,
    UserSpoke,
    asked_of,
)
from freehold.server.apis._content import Block, TextBlock, arguments_of, block_of, part_of
from freehold.server.apis._kept_events import kept_bodies

EVENTS_SENT_MAX: Final = 50


class UserMessage(Struct, frozen=True, tag="user.message", forbid_unknown_fields=True):
    content: tuple[Block, ...] | str
    id: str | None = None


class UserInterrupt(Struct, frozen=True, tag="user.interrupt", forbid_unknown_fields=True):
    id: str | None = None
    session_thread_id: str | None = None


class Decision(Struct, frozen=True, forbid_unknown_fields=True):
    """Ours: `binding` as the event that asked said it, so that nothing else is approved; `input` to be used in place of the model's."""

    binding: str | None = None
    input: dict[str, Any] | None = None


class UserToolConfirmation(Struct, frozen=True, tag="user.tool_confirmation", forbid_unknown_fields=True):
    tool_use_id: str
    result: Literal["allow", "deny"]
    deny_message: str | None = None
    session_thread_id: str | None = None
    freehold: Decision = Decision()


class UserCustomToolResult(Struct, frozen=True, tag="user.custom_tool_result", forbid_unknown_fields=True):
    custom_tool_use_id: str
    content: tuple[Block, ...] | str = ()
    is_error: bool | None = None
    session_thread_id: str | None = None


Sent = UserMessage | UserInterrupt | UserToolConfirmation | UserCustomToolResult


class SendExtra(Struct, frozen=True, forbid_unknown_fields=True):
    """Ours: instead of the session's own."""

    when_busy: WhenBusy | None = None


class SendEvents(Struct, frozen=True, forbid_unknown_fields=True):
    events: tuple[Sent, ...]
    freehold: SendExtra = SendExtra()


def check_count(events: Sequence[Sent], *, field: str = "events") -> None:
    if not events:
        raise BadRequest("expected at least one event, got none", field=field)
    if len(events) > EVENTS_SENT_MAX:
        raise BadRequest(f"expected {EVENTS_SENT_MAX} events at most, got {len(events)}", field=field)


def spoken(event: UserMessage, field: str, *, by: str) -> UserSpoke:
    parts = parts_of(event.content, field)
    if not parts or all(isinstance(part, Text) and not part.text.strip() for part in parts):
        raise BadRequest("expected some content, got none", field=f"{field}.content")
    return UserSpoke(content=parts, by=by)


def parts_of(content: tuple[Block, ...] | str, field: str) -> tuple[Text | Media, ...]:
    blocks = (TextBlock(content),) if isinstance(content, str) else content
    return tuple(part_of(block, f"{field}.content[{index}]") for index, block in enumerate(blocks))


class Shown(Struct, frozen=True):
    """`cursor` is what `Last-Event-ID` and `?after=` take to go on behind this event."""

    cursor: str
    type: str
    body: dict[str, Any]


def read_cursor(text: str, *, field: str) -> tuple[int, int]:
    """`12.1` or `12` (all of fact 12) as (seq, part)."""
    seq, _, part = text.partition(".")
    if not seq.isdecimal() or (part and not part.isdecimal()) or len(text) > 40:
        raise BadRequest(f"expected an event's cursor like 12.0, got {text[:40]!r}", field=field)
    return int(seq), int(part) if part else 1_000_000


def shown(session_id: str, recorded: Recorded, *, ours: bool) -> list[Shown]:
    """`ours`: with the `freehold.*` events. The parts of a fact are numbered the same either way."""
    found = []
    for part, body in enumerate(_bodies(session_id, recorded)):
        if ours or not body["type"].startswith("freehold."):
            cursor = f"{recorded.seq}.{part}"
            extra = {**(body.get("freehold") or {}), "cursor": cursor}
            found.append(Shown(cursor, body["type"], body | {"freehold": extra}))
    return found


def thread_id_of(session_id: str) -> str:
    """Each session is a thread of the session that it works for, and its own first one."""
    return f"sthr_{session_id.removeprefix('sess_')}"


def call_id_at_root(session_id: str, call_id: str) -> str:
    """A subagent's call, as the session at the top names it: calls' ids are unique within their own session alone."""
    return f"{thread_id_of(session_id)}.{call_id}"


def answer_event_id(session_id: str, seen_seq: int) -> str:
    """The id of the `agent.message` that a model's answer will be: known while the answer is still coming."""
    return f"evt_{session_id.removeprefix('sess_')}_answer_{seen_seq}"


def _bodies(session_id: str, recorded: Recorded) -> Iterator[dict[str, Any]]:
    at = _at(recorded.at)
    base = session_id.removeprefix("sess_")

    def made(kind: str, part: int, **fields: Any) -> dict[str, Any]:
        return {"id": f"evt_{base}_{recorded.seq}_{part}", "type": kind, "processed_at": at} | fields

    match recorded.event:
        case SessionStarted() as event:
            agent = {"name": event.agent, "version": event.agent_version}
            yield made("freehold.session_started", 0, agent=agent, model=event.model, title=event.title)
        case SessionForked() as event:
            origin = {"session_id": event.origin, "seq": event.origin_seq, "edited_seq": event.edited_seq}
            yield made(
                "freehold.session_forked", 0, origin=origin, model=event.model, freehold={"by": event.by}
            )
        case PauseRequested() as event:
            yield made("freehold.pause_requested", 0, freehold={"by": event.by, "reason": event.reason})
        case ResumeRequested() as event:
            yield made("freehold.resume_requested", 0, freehold={"by": event.by})
        case UserSpoke() as event:
            yield made("user.message", 0, content=[block_of(part) for part in event.content])
        case CancelRequested() as event:
            yield made(
                "user.interrupt", 0, freehold={"scope": event.scope, "by": event.by, "reason": event.reason}
            )
        case TurnStarted() as event:
            yield made("session.status_running", 0, freehold={"turn": event.turn})
        case ModelAnswered() as event:
            yield from _answer(session_id, event, made)
        case ModelFailed() as event:
            yield from _model_failure(event, made)
        case ToolStarted() as event:
            yield made("freehold.tool_started", 0, **_tool_started(event))
        case ToolFinished() as event:
            extra = {"duration_ms": event.duration_ms, "cost": money(event.cost_pico), "code": event.code}
            content = [block_of(part) for part in event.content]
            yield made(
                "agent.tool_result",
                0,
                tool_use_id=event.call_id,
                content=content,
                is_error=event.failed,
                freehold=extra,
            )
        case ToolOutcomeUnknown() as event:
            content = [{"type": "text", "text": event.message}]
            extra = {"outcome": "unknown"}
            yield made(
                "agent.tool_result",
                0,
                tool_use_id=event.call_id,
                content=content,
                is_error=True,
                freehold=extra,
            )
        case CallAwaited() as event:
            yield from _awaited(event, made)
        case ApprovalDecided() as event:
            yield _decision(event, made)
            yield made("session.status_running", 1)
        case ResultGiven() as event:
            yield from _given(event, made)
        case ThreadAsks() as event:
            yield from _thread_asks(event, made)
        case SessionWaits() as event:
            yield _waits(event, made)
        case Compacted() as event:
            extra = msgspec.to_builtins(event) | {"cost": money(event.cost_pico)}
            yield made("agent.thread_context_compacted", 0, freehold=extra)
        case TurnFinished() as event:
            yield from _turn_end(event, made)
        case _ as event:
            yield from kept_bodies(event, made)


_Made = Callable[..., dict[str, Any]]


def _answer(session_id: str, event: ModelAnswered, made: _Made) -> Iterator[dict[str, Any]]:
    start = made("span.model_request_start", 0)
    yield start
    part = 1
    text: list[dict[str, Any]] = []
    calls: list[ToolCall] = []
    for answered in event.content:
        match answered:
            case Text() | Refusal():
                text.append({"type": "text", "text": answered.text})
            case ToolCall():
                calls.append(answered)
            case Reasoning():
                yield made("agent.thinking", part, freehold={"text": answered.text})
                part += 1
            case Media():
                yield made("freehold.media", part, content=[block_of(answered)])
                part += 1
            case Carried():
                carried = {"type": answered.type, "wire": answered.wire, "block": answered.block}
                yield made("freehold.carried", part, content=[carried])
                part += 1
            case _ as unreachable:
                assert_never(unreachable)
    if text:
        yield made("agent.message", part, content=text) | {"id": answer_event_id(session_id, event.seen_seq)}
        part += 1
    for call in calls:
        if call.id in event.client_calls:
            use = made("agent.custom_tool_use", part)
        else:
            asked = call.id in event.ask_calls
            use = made("agent.tool_use", part, evaluated_permission="ask" if asked else "allow")
        yield use | {"id": call.id, "name": call.name, "input": arguments_of(call.arguments)}
        part += 1
    extra = {
        "model": event.model,
        "served_by": event.served_by,
        "cost": money(event.cost_pico) if event.priced else None,
        "duration_ms": event.duration_ms,
        "first_event_ms": event.first_event_ms,
        "stop_reason": event.stop_reason,
        "call_id": event.call_id,
    }
    yield _model_end(made, part, start["id"], event.usage, extra)


def _decision(event: ApprovalDecided, made: _Made) -> dict[str, Any]:
    body = made(
        "user.tool_confirmation",
        0,
        tool_use_id=event.call_id,
        result="allow" if event.allow else "deny",
        freehold={
            "by": event.by,
            "person": event.person or None,
            "reason": event.reason,
            "binding": event.binding,
        },
    )
    if event.reason and not event.allow:
        body["deny_message"] = event.reason
    if event.arguments is not None:
        body["freehold"]["input"] = arguments_of(event.arguments)
    return body


def _awaited(event: CallAwaited, made: _Made) -> Iterator[dict[str, Any]]:
    awaits, until = msgspec.to_builtins(event.awaits), event.until and _at(event.until)
    yield made("freehold.call_awaited", 0, tool_use_id=event.call_id, awaits=awaits, until=until)
    if isinstance(event.awaits, AwaitsSession):
        thread = {
            "agent_name": event.awaits.agent,
            "session_thread_id": thread_id_of(event.awaits.session_id),
        }
        yield made("session.thread_created", 1, **thread)
        yield made("session.thread_status_running", 2, **thread)
        if event.awaits.task:
            content = [{"type": "text", "text": event.awaits.task}]
            to = {"to_agent_name": event.awaits.agent, "to_session_thread_id": thread["session_thread_id"]}
            yield made("agent.thread_message_sent", 3, content=content, **to)


def _given(event: ResultGiven, made: _Made) -> Iterator[dict[str, Any]]:
    result = {
        "content": [block_of(part) for part in event.content],
        "is_error": event.failed,
        "freehold": {"by": event.by, "source": event.source},
    }
    if event.source == "client":
        yield made("user.custom_tool_result", 0, custom_tool_use_id=event.call_id, **result)
    else:
        yield made("agent.tool_result", 0, tool_use_id=event.call_id, **result)
    yield made("session.status_running", 1)
    if event.source == "session":
        thread_id = thread_id_of(event.by)
        thread = {"agent_name": event.agent, "session_thread_id": thread_id}
        yield made("session.thread_status_idle", 2, stop_reason={"type": "end_turn"}, **thread)
        sender = {"from_agent_name": event.agent, "from_session_thread_id": thread_id}
        yield made("agent.thread_message_received", 3, content=result["content"], **sender)


def _thread_asks(event: ThreadAsks, made: _Made) -> Iterator[dict[str, Any]]:
    """Told once of each call, and of the thread's status each time."""
    thread_id = thread_id_of(event.session_id)
    part = 0
    for call in event.calls:
        if call.known:
            continue
        kind = "agent.custom_tool_use" if call.client else "agent.tool_use"
        permission = {} if call.client else {"evaluated_permission": "ask"}
        body = made(kind, part, name=call.name, input=arguments_of(call.arguments), **permission)
        yield body | {"id": call_id_at_root(event.session_id, call.call_id), "session_thread_id": thread_id}
        part += 1
    thread = {"agent_name": event.agent, "session_thread_id": thread_id}
    if event.calls:
        ids = [call_id_at_root(event.session_id, call.call_id) for call in event.calls]
        reason = {"type": "requires_action", "event_ids": ids}
        yield made("session.thread_status_idle", part, stop_reason=reason, **thread)
        return
    yield made("session.thread_status_running", part, **thread)
    yield made("session.status_running", part + 1)


def _waits(event: SessionWaits, made: _Made) -> dict[str, Any]:
    """Idle, in the words of this dialect, only where its client has to act; a timer or a subagent goes on by itself."""
    extra = msgspec.to_builtins(event) | {"until": event.until and _at(event.until)}
    of_threads = [
        call_id_at_root(one.session_id, call_id) for one in event.threads for call_id in one.call_ids
    ]
    acting = [*asked_of(event), *of_threads]
    if not acting:
        return made("freehold.session_waits", 0, freehold=extra)
    return made(
        "session.status_idle", 0, stop_reason={"type": "requires_action", "event_ids": acting}, freehold=extra
    )


def _model_failure(event: ModelFailed, made: _Made) -> Iterator[dict[str, Any]]:
    start = made("span.model_request_start", 0)
    yield start
    extra = {
        "model": event.model,
        "code": event.code,
        "attempts": event.attempts,
        "cost": money(event.cost_pico),
        "duration_ms": event.duration_ms,
    }
    yield _model_end(made, 1, start["id"], event.usage, extra) | {"is_error": True}


def _model_end(made: _Made, part: int, start_id: str, usage: Usage, extra: dict[str, Any]) -> dict[str, Any]:
    return made(
        "span.model_request_end",
        part,
        model_request_start_id=start_id,
        is_error=False,
        model_usage={
            "input_tokens": usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens,
            "output_tokens": usage.output_tokens,
            "cache_read_input_tokens": usage.cache_read_tokens,
            "cache_creation_input_tokens": usage.cache_write_tokens,
        },
        freehold=extra,
    )


def _tool_started(event: ToolStarted) -> dict[str, Any]:
    return {
        "tool_use_id": event.call_id,
        "tool": event.tool,
        "function": event.function,
        "input": arguments_of(event.arguments),
        "effect": event.effect,
        "idempotency_key": event.key,
        "attempt": event.attempt,
    }


_ERROR_TYPES: Final = {"rate_limited": "model_rate_limited_error", "overloaded": "model_overloaded_error"}


def _turn_end(event: TurnFinished, made: _Made) -> Iterator[dict[str, Any]]:
    part = 0
    if event.outcome == "failed":
        kind = _ERROR_TYPES.get(event.code or "", "unknown_error")
        error = {"type": kind, "message": event.message, "retry_status": {"type": "exhausted"}}
        yield made("session.error", part, error=error, freehold={"code": event.code})
        part = 1
    extra = {"outcome": event.outcome, "message": event.message, "limit": event.limit, "code": event.code}
    if event.outcome == "cancelled" and event.code == "session":
        yield made("session.status_terminated", part, freehold=extra)
        return
    yield made("session.status_idle", part, stop_reason={"type": _stop_type(event)}, freehold=extra)


_BUDGETS: Final = frozenset({"cost_max_usd", "session_cost_max_usd"})


def _stop_type(event: TurnFinished) -> str:
    match event.outcome:
        case "completed" | "cancelled":
            return "end_turn"
        case "refused":
            return "refusal"
        case "failed":
            return "retries_exhausted"
        case "limit_reached":
            return "budget_reached" if event.limit in _BUDGETS else "end_turn"


def _at(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def money(pico: int) -> dict[str, Any]:
    """Exact, and readable."""
    return {"pico": pico, "currency": "USD", "shown": pricing.show(pico)}
