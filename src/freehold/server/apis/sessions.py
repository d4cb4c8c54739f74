"""Sessions and their events, in Claude Managed Agents' shapes: /v1/sessions. What is ours stands under `freehold`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, assert_never

from msgspec import Struct
from starlette.responses import Response

from freehold.core.errors import BadRequest, Unsupported
from freehold.core.messages import Media, Text
from freehold.core.policy import Principal
from freehold.core.resources import WhenBusy
from freehold.core.session import CancelRequested, Input, Recorded, SessionStatus
from freehold.core.session_log import SessionRow
from freehold.runtime.forks import Edit
from freehold.runtime.sessions import Sessions
from freehold.server.apis._content import Block
from freehold.server.apis._event_stream import EventStreamResponse, event_stream
from freehold.server.apis._events import (
    SendEvents,
    Sent,
    Shown,
    UserCustomToolResult,
    UserInterrupt,
    UserMessage,
    UserToolConfirmation,
    check_count,
    money,
    parts_of,
    read_cursor,
    shown,
    spoken,
)
from freehold.server.operations import Call, Operation

SESSIONS_PAGE_MAX: Final = 100
EVENTS_PAGE_MAX: Final = 1_000
_STATUS_OUT: Final[Mapping[SessionStatus, str]] = {
    "idle": "idle",
    "running": "running",
    "waiting": "idle",
    "paused": "idle",
    "cancelled": "terminated",
}
"""What waits for somebody is `idle` in this dialect; `freehold.status` says more."""
_STATUS_IN: Final[Mapping[str, Sequence[SessionStatus]]] = {
    "idle": ("idle", "waiting", "paused"),
    "running": ("running",),
    "terminated": ("cancelled",),
    "waiting": ("waiting",),
    "paused": ("paused",),
}


class AgentRef(Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    type: Literal["agent"] = "agent"
    version: int | None = None


class SessionExtra(Struct, frozen=True, forbid_unknown_fields=True):
    """Ours: `model` and `when_busy` instead of the agent's own."""

    model: str | None = None
    when_busy: WhenBusy | None = None


class CreateSession(Struct, frozen=True, forbid_unknown_fields=True):
    """`environment_id` is taken for compatibility; there are no environments yet, so only `default` is right."""

    agent: str | AgentRef
    environment_id: str | None = None
    title: str | None = None
    metadata: dict[str, str] = {}
    initial_events: tuple[Sent, ...] = ()
    resources: tuple[Any, ...] = ()
    vault_ids: tuple[str, ...] = ()
    freehold: SessionExtra = SessionExtra()


class CancelSession(Struct, frozen=True, forbid_unknown_fields=True):
    scope: Literal["turn", "session"] = "session"
    reason: str = ""


class ForkEdit(Struct, frozen=True, forbid_unknown_fields=True):
    """`of` says what stands at the place: a user's message, or a tool call's result."""

    content: tuple[Block, ...] | str
    of: Literal["message", "result"] = "message"


class ForkSession(Struct, frozen=True, forbid_unknown_fields=True):
    """`at` is an event's seq, cursor or id; the last one, without. With `edit`, that event is the one replaced."""

    at: str | int | None = None
    model: str | None = None
    title: str | None = None
    edit: ForkEdit | None = None


class PauseSession(Struct, frozen=True, forbid_unknown_fields=True):
    reason: str = ""


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class SessionShown(Struct, frozen=True, kw_only=True):
    id: str
    type: str = "session"
    agent: dict[str, Any]
    status: str
    title: str | None
    metadata: dict[str, str]
    environment_id: str = "default"
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None = None
    usage: dict[str, Any]
    stats: dict[str, Any]
    resources: tuple[Any, ...] = ()
    vault_ids: tuple[str, ...] = ()
    outcome_evaluations: tuple[Any, ...] = ()
    deployment_id: str | None = None
    freehold: dict[str, Any]


class SessionDeleted(Struct, frozen=True):
    id: str
    type: str = "session_deleted"


class SessionPageShown(Struct, frozen=True):
    data: tuple[SessionShown, ...]
    next_page: str | None
    prev_page: str | None = None


class EventPage(Struct, frozen=True):
    data: tuple[dict[str, Any], ...]
    next_page: str | None


class SentEvents(Struct, frozen=True):
    data: tuple[dict[str, Any], ...]


class ListSessions(Struct, frozen=True, forbid_unknown_fields=True):
    limit: int = 50
    page: str | None = None
    agent_id: str | None = None
    deployment_id: str | None = None
    statuses: tuple[Literal["idle", "running", "terminated", "waiting", "paused"], ...] = ()
    sort: Literal["newest", "cost"] = "newest"
    include_archived: bool = False


class ListEvents(Struct, frozen=True, forbid_unknown_fields=True):
    """`include=freehold` gives our own events too; `types` only those."""

    limit: int = EVENTS_PAGE_MAX
    page: str | None = None
    order: Literal["asc"] = "asc"
    types: tuple[str, ...] = ()
    include: Literal["freehold"] | None = None


class StreamEvents(Struct, frozen=True, forbid_unknown_fields=True):
    """`after` (or the header `Last-Event-ID`) is a cursor: `0` for all; without one, what comes from now on."""

    after: str | None = None
    event_deltas: tuple[Literal["agent.message", "agent.thinking"], ...] = ()
    include: Literal["freehold"] | None = None


def session_shown(row: SessionRow) -> SessionShown:
    usage = row.usage
    model = row.model or ""
    return SessionShown(
        id=row.id,
        agent={
            "id": row.agent,
            "type": "agent",
            "name": row.agent,
            "version": row.agent_version,
            "model": {"id": model},
            "execution_identity": {"type": "service_account"},
            "tools": [],
            "skills": [],
            "mcp_servers": [],
        },
        status=_STATUS_OUT[row.status],
        title=row.title or None,
        metadata=row.metadata,
        created_at=row.created_at,
        updated_at=row.updated_at,
        archived_at=row.archived_at,
        deployment_id=row.deployment,
        usage={
            "input_tokens": usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens,
            "output_tokens": usage.output_tokens,
            "cache_read_input_tokens": usage.cache_read_tokens,
            "cache_creation": {
                "ephemeral_5m_input_tokens": usage.cache_write_tokens,
                "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
            },
        },
        stats={"duration_seconds": (row.updated_at - row.created_at).total_seconds()},
        freehold={
            "model": row.model,
            "version": row.version,
            "cost": money(row.cost_pico),
            "created_by": row.created_by,
            "status": row.status,
            "waits": row.waits,
            "when_busy": row.when_busy,
            "parent_id": row.parent_id,
            "origin": row.origin_id and {"session_id": row.origin_id, "seq": row.origin_seq},
        },
    )


class SessionApi:
    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def create(self, call: Call) -> SessionShown:
        body: CreateSession = call.body
        for field in ("resources", "vault_ids"):
            if getattr(body, field):
                raise Unsupported("sessions cannot take these yet", field=field)
        if body.environment_id not in {None, "default"}:
            raise BadRequest(
                f"there is no environment {body.environment_id!r}; leave it out or say default",
                field="environment_id",
            )
        agent = body.agent if isinstance(body.agent, AgentRef) else AgentRef(body.agent)
        row = await self._sessions.create(
            call.principal,
            agent.id,
            version=agent.version,
            model=body.freehold.model,
            when_busy=body.freehold.when_busy,
            title=body.title or "",
            metadata=body.metadata,
            content=_first_input(body, call.principal.id),
            idempotency_key=call.headers.get("idempotency-key"),
        )
        return session_shown(row)

    async def get(self, call: Call) -> SessionShown:
        return session_shown(await self._sessions.get(call.principal, call.path["session_id"]))

    async def list(self, call: Call) -> SessionPageShown:
        query: ListSessions = call.query
        _check_limit(query.limit, SESSIONS_PAGE_MAX)
        page = await self._sessions.list(
            call.principal,
            statuses=[one for status in query.statuses for one in _STATUS_IN[status]],
            agent=query.agent_id,
            deployment=query.deployment_id,
            by_cost=query.sort == "cost",
            archived=query.include_archived,
            limit=query.limit,
            cursor=query.page,
        )
        return SessionPageShown(tuple(session_shown(row) for row in page.rows), page.next)

    async def fork(self, call: Call) -> SessionShown:
        body: ForkSession = call.body
        edit = None
        if body.edit is not None:
            edit = Edit(parts_of(body.edit.content, "edit"), result=body.edit.of == "result")
        row = await self._sessions.fork(
            call.principal,
            call.path["session_id"],
            at=None if body.at is None else str(body.at),
            model=body.model,
            title=body.title,
            edit=edit,
            idempotency_key=call.headers.get("idempotency-key"),
        )
        return session_shown(row)

    async def cancel(self, call: Call) -> SessionShown:
        body: CancelSession = call.body
        session_id = call.path["session_id"]
        await self._sessions.cancel(
            call.principal, session_id, for_good=body.scope == "session", reason=body.reason
        )
        return session_shown(await self._sessions.get(call.principal, session_id))

    async def delete(self, call: Call) -> SessionDeleted:
        session_id = call.path["session_id"]
        await self._sessions.delete(call.principal, session_id)
        return SessionDeleted(session_id)

    async def archive(self, call: Call) -> SessionShown:
        return session_shown(await self._sessions.archive(call.principal, call.path["session_id"]))

    async def send(self, call: Call) -> SentEvents:
        """Answers with the events as they stand in the log; with an Idempotency-Key, as they did the first time."""
        session_id = call.path["session_id"]
        body: SendEvents = call.body
        check_count(body.events)
        facts = [
            await self._fact(call.principal, session_id, event, f"events[{index}]")
            for index, event in enumerate(body.events)
        ]
        version = await self._sessions.tell(
            call.principal,
            session_id,
            facts,
            when_busy=body.freehold.when_busy,
            idempotency_key=call.headers.get("idempotency-key"),
        )
        after = max(0, version - len(facts))
        recorded = await self._sessions.events(call.principal, session_id, after=after, limit=len(facts))
        taken = [fact for fact in recorded if isinstance(fact.event, Input)]
        sent = [one.body for fact in taken for one in shown(session_id, fact, ours=False)]
        return SentEvents(tuple(one for one in sent if one["type"].startswith("user.")))

    async def _fact(self, principal: Principal, session_id: str, event: Sent, field: str) -> Input:
        match event:
            case UserMessage():
                return spoken(event, field, by=principal.id)
            case UserInterrupt():
                return CancelRequested(scope="turn", by=principal.id)
            case UserToolConfirmation():
                if event.deny_message is not None and event.result == "allow":
                    raise BadRequest("expected none where the call is allowed", field=f"{field}.deny_message")
                return await self._sessions.decide(
                    principal,
                    session_id,
                    call_id=event.tool_use_id,
                    allow=event.result == "allow",
                    reason=event.deny_message or "",
                    arguments=event.freehold.input,
                    binding=event.freehold.binding,
                )
            case UserCustomToolResult():
                return await self._sessions.give_result(
                    principal,
                    session_id,
                    call_id=event.custom_tool_use_id,
                    content=parts_of(event.content, field),
                    failed=bool(event.is_error),
                )
            case _ as unreachable:
                assert_never(unreachable)

    async def pause(self, call: Call) -> SessionShown:
        body: PauseSession = call.body
        session_id = call.path["session_id"]
        await self._sessions.pause(call.principal, session_id, reason=body.reason)
        return session_shown(await self._sessions.get(call.principal, session_id))

    async def resume(self, call: Call) -> SessionShown:
        session_id = call.path["session_id"]
        await self._sessions.resume(call.principal, session_id)
        return session_shown(await self._sessions.get(call.principal, session_id))

    async def events(self, call: Call) -> EventPage:
        """Pages are cut between facts; a page may be a little longer than `limit` so that a fact stays whole."""
        query: ListEvents = call.query
        session_id = call.path["session_id"]
        _check_limit(query.limit, EVENTS_PAGE_MAX)
        after, _ = read_cursor(query.page, field="page") if query.page else (0, 0)
        found: list[dict[str, Any]] = []
        while len(found) < query.limit:
            recorded = await self._sessions.events(call.principal, session_id, after=after, limit=query.limit)
            for fact in recorded:
                found += [one.body for one in _wanted(session_id, fact, query)]
                after = fact.seq
                if len(found) >= query.limit:
                    break
            else:
                if len(recorded) < query.limit:
                    return EventPage(tuple(found), None)
        more = await self._sessions.events(call.principal, session_id, after=after, limit=1)
        return EventPage(tuple(found), str(after) if more else None)

    async def stream(self, call: Call) -> Response:
        query: StreamEvents = call.query
        session_id = call.path["session_id"]
        row = await self._sessions.get(call.principal, session_id)
        last = call.headers.get("last-event-id")
        if query.after is not None or last:
            cursor = read_cursor(query.after or last or "", field="after" if query.after else "Last-Event-ID")
        else:
            cursor = (row.version, 1_000_000)
        events = event_stream(
            self._sessions,
            call.principal,
            session_id,
            cursor=cursor,
            previews=frozenset(query.event_deltas),
            ours=query.include == "freehold",
        )
        return EventStreamResponse(events, call.leaving)


def _first_input(body: CreateSession, by: str) -> tuple[Text | Media, ...]:
    if not body.initial_events:
        return ()
    if len(body.initial_events) > 1:
        raise Unsupported(
            "expected one event; send the others once the session is there", field="initial_events"
        )
    event = body.initial_events[0]
    if not isinstance(event, UserMessage):
        raise BadRequest(
            "expected a user.message: there is nothing else to say to a session that begins",
            field="initial_events[0].type",
        )
    return spoken(event, "initial_events[0]", by=by).content


def _wanted(session_id: str, fact: Recorded, query: ListEvents) -> list[Shown]:
    events = shown(session_id, fact, ours=query.include == "freehold")
    return [one for one in events if not query.types or one.type in query.types]


def _check_limit(limit: int, limit_max: int) -> None:
    if not 1 <= limit <= limit_max:
        raise BadRequest(f"expected 1 to {limit_max}, got {limit}", field="limit")


def operations(sessions: Sessions) -> list[Operation]:
    api = SessionApi(sessions)
    one, events = "/v1/sessions/{session_id}", "/v1/sessions/{session_id}/events"
    return [
        Operation(method="POST", path="/v1/sessions", id="createSession", tag="sessions",
                  summary="Begin a session with an agent. Honours Idempotency-Key.", handler=api.create, body=CreateSession,
                  answer=SessionShown),
        Operation(method="GET", path="/v1/sessions", id="listSessions", tag="sessions", summary="Sessions, newest first.",
                  handler=api.list, query=ListSessions, answer=SessionPageShown),
        Operation(method="GET", path=one, id="getSession", tag="sessions", summary="A session.", handler=api.get,
                  answer=SessionShown),
        Operation(method="POST", path=f"{one}/fork", id="forkSession", tag="sessions",
                  summary="Begin a session that shares this one's events up to a place. Honours Idempotency-Key.",
                  handler=api.fork, body=ForkSession, answer=SessionShown),
        Operation(method="DELETE", path=one, id="deleteSession", tag="sessions",
                  summary="Delete a session at rest, with its log, for good.", handler=api.delete, answer=SessionDeleted),
        Operation(method="POST", path=f"{one}/archive", id="archiveSession", tag="sessions",
                  summary="Let a session at rest be only read, and left out of lists; idempotent.", handler=api.archive,
                  answer=SessionShown),
        Operation(method="POST", path=f"{one}/cancel", id="cancelSession", tag="sessions",
                  summary="Stop its turn, or the session for good; idempotent.", handler=api.cancel, body=CancelSession,
                  answer=SessionShown),
        Operation(method="POST", path=f"{one}/pause", id="pauseSession", tag="sessions",
                  summary="Finish what runs and begin nothing new; idempotent.", handler=api.pause, body=PauseSession,
                  answer=SessionShown),
        Operation(method="POST", path=f"{one}/resume", id="resumeSession", tag="sessions",
                  summary="Go on after a pause; idempotent.", handler=api.resume, body=Nothing, answer=SessionShown),
        Operation(method="POST", path=events, id="sendEvents", tag="sessions",
                  summary="Say something, interrupt, confirm or deny a tool call, give a tool's result. Honours Idempotency-Key.", handler=api.send, body=SendEvents,
                  answer=SentEvents),
        Operation(method="GET", path=events, id="listEvents", tag="sessions", summary="The log, as events, oldest first.",
                  handler=api.events, query=ListEvents, answer=EventPage),
        Operation(method="GET", path=f"{events}/stream", id="streamEvents", tag="sessions",
                  summary="Events as they come (server-sent events); resumes from Last-Event-ID or ?after=.",
                  handler=api.stream, query=StreamEvents, media_type="text/event-stream"),
    ]  # fmt: skip
