"""Sessions and their events, in Claude Managed Agents' shapes: /v1/sessions. What is ours stands under `freehold`."""

from typing import Any, Final, Literal, assert_never

from msgspec import UNSET, Struct, UnsetType, field
from starlette.responses import Response

from freehold.core.environments import DEFAULT
from freehold.core.errors import BadRequest, Unsupported
from freehold.core.messages import Media, Text
from freehold.core.policy import Principal
from freehold.core.resources import WhenBusy
from freehold.core.response_facts import SessionKind
from freehold.core.session import CancelRequested, Input, Recorded, SessionSetup
from freehold.core.session_log import Created, SessionRow
from freehold.core.validation import check_limit
from freehold.runtime.declared import Declarations
from freehold.runtime.forks import Edit
from freehold.runtime.sessions import Sessions
from freehold.server.apis._agent_shapes import Model, custom_tools_of, model_of, refuse_unserved
from freehold.server.apis._content import Block
from freehold.server.apis._event_pages import EventPage, EventPages, ListEvents, Moment, check_page
from freehold.server.apis._event_stream import EventStreamResponse, event_stream
from freehold.server.apis._events import (
    SendEvents,
    Sent,
    UserCustomToolResult,
    UserInterrupt,
    UserMessage,
    UserToolConfirmation,
    check_count,
    parts_of,
    read_cursor,
    shown,
    spoken,
)
from freehold.server.apis._session_shapes import (
    BudgetLimit,
    SessionShown,
    Status,
    cost_max_usd,
    session_shown,
    wanted_statuses,
)
from freehold.server.apis._stream_tokens import CreateStreamToken, StreamToken, Tokens, by_token, to_any_page
from freehold.server.apis._threads import addressed, routed
from freehold.server.operations import Call, Operation

SESSIONS_PAGE_MAX: Final = 100


class AgentRef(Struct, frozen=True, forbid_unknown_fields=True):
    """With the type `agent_with_overrides`, what is given besides takes the place of the agent's own in this session."""

    id: str
    type: Literal["agent", "agent_with_overrides"] = "agent"
    version: int | None = None
    model: Model | UnsetType = UNSET
    system: str | UnsetType | None = UNSET
    tools: tuple[dict[str, Any], ...] | UnsetType = UNSET
    mcp_servers: tuple[Any, ...] = ()
    skills: tuple[Any, ...] = ()


class SessionExtra(Struct, frozen=True, forbid_unknown_fields=True):
    """Ours: `model` and `when_busy` instead of the agent's own."""

    model: str | None = None
    when_busy: WhenBusy | None = None


class CreateSession(Struct, frozen=True, forbid_unknown_fields=True):
    """Without `environment_id`, or with `default`, in none that limits anything."""

    agent: str | AgentRef
    environment_id: str | None = None
    title: str | None = None
    metadata: dict[str, str] = {}
    initial_events: tuple[Sent, ...] = ()
    resources: tuple[Any, ...] = ()
    vault_ids: tuple[str, ...] = ()
    budget: BudgetLimit | None = None
    freehold: SessionExtra = SessionExtra()


class UpdateSession(Struct, frozen=True, forbid_unknown_fields=True):
    """`metadata` is a patch: null takes a key out."""

    title: str | UnsetType | None = UNSET
    metadata: dict[str, str | None] | None = None
    agent: dict[str, Any] | UnsetType = UNSET
    budget: Any | UnsetType = UNSET
    vault_ids: tuple[str, ...] = ()


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


class SessionDeleted(Struct, frozen=True):
    id: str
    type: str = "session_deleted"


class SessionPageShown(Struct, frozen=True):
    data: tuple[SessionShown, ...]
    next_page: str | None
    prev_page: str | None = None


class SentEvents(Struct, frozen=True):
    data: tuple[dict[str, Any], ...]


class ListSessions(Struct, frozen=True, forbid_unknown_fields=True):
    """`kind` is ours: kept responses and conversations are sessions, too."""

    limit: int = 50
    page: str | None = None
    agent_id: str | None = None
    deployment_id: str | None = None
    agent_version: int | None = None
    statuses: tuple[Status, ...] = ()
    kind: SessionKind = "agent"
    sort: Literal["newest", "cost"] = "newest"
    order: Literal["asc", "desc"] = "desc"
    include_archived: bool = False
    created_at_gt: Moment | None = field(default=None, name="created_at[gt]")
    created_at_gte: Moment | None = field(default=None, name="created_at[gte]")
    created_at_lt: Moment | None = field(default=None, name="created_at[lt]")
    created_at_lte: Moment | None = field(default=None, name="created_at[lte]")


class StreamEvents(Struct, frozen=True, forbid_unknown_fields=True):
    """`after` (or the header `Last-Event-ID`) is a cursor: `0` for all; without one, what comes from now on. `token` stands for a key."""

    after: str | None = None
    token: str | None = None
    event_deltas: tuple[Literal["agent.message", "agent.thinking"], ...] = ()
    include: Literal["freehold"] | None = None


class SessionApi:
    def __init__(self, sessions: Sessions, declarations: Declarations, tokens: Tokens) -> None:
        self._sessions = sessions
        self._declarations = declarations
        self._tokens = tokens

    async def _shown(self, row: SessionRow) -> SessionShown:
        return await session_shown(row, self._declarations)

    async def create(self, call: Call) -> SessionShown:
        body: CreateSession = call.body
        for name in ("resources", "vault_ids"):
            if getattr(body, name):
                raise Unsupported("sessions cannot take these yet", field=name)
        agent = body.agent if isinstance(body.agent, AgentRef) else AgentRef(body.agent)
        first, *further = _first_inputs(body, call.principal.id) or [()]
        row = await self._sessions.create(
            call.principal,
            agent.id,
            version=agent.version,
            model=body.freehold.model or _overriding_model(agent),
            when_busy=body.freehold.when_busy,
            title=body.title or "",
            metadata=body.metadata,
            content=first,
            further=further,
            setup=_setup(body, agent),
            idempotency_key=call.headers.get("idempotency-key"),
        )
        return await self._shown(row)

    async def get(self, call: Call) -> SessionShown:
        return await self._shown(await self._sessions.get(call.principal, call.path["session_id"]))

    async def update(self, call: Call) -> SessionShown:
        body: UpdateSession = call.body
        if body.agent is not UNSET:
            raise Unsupported("a session keeps the tools that it began with; fork it instead", field="agent")
        if body.budget is not UNSET:
            raise Unsupported("a session keeps the budget that it began with", field="budget")
        if body.vault_ids:
            raise Unsupported("sessions cannot take these yet", field="vault_ids")
        row = await self._sessions.update(
            call.principal,
            call.path["session_id"],
            title=None if isinstance(body.title, UnsetType) else body.title or "",
            metadata=body.metadata,
        )
        return await self._shown(row)

    async def list(self, call: Call) -> SessionPageShown:
        query: ListSessions = call.query
        check_limit(query.limit, SESSIONS_PAGE_MAX)
        if query.sort == "cost" and query.order == "asc":
            raise Unsupported("the dearest come first", field="order")
        if query.kind != "agent" and (query.agent_id or query.deployment_id):
            raise BadRequest(
                f"expected none of agent_id and deployment_id: no agent acts in a {query.kind}", field="kind"
            )
        statuses = wanted_statuses(query.statuses)
        if statuses is None:
            return SessionPageShown((), None)
        times = (query.created_at_gt, query.created_at_gte, query.created_at_lt, query.created_at_lte)
        page = await self._sessions.list(
            call.principal,
            kind=query.kind,
            statuses=statuses,
            agent=query.agent_id,
            deployment=query.deployment_id,
            agent_version=query.agent_version,
            created=Created(*times),
            by_cost=query.sort == "cost",
            oldest_first=query.order == "asc",
            archived=query.include_archived,
            limit=query.limit,
            cursor=query.page,
        )
        return SessionPageShown(tuple([await self._shown(row) for row in page.rows]), page.next)

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
        return await self._shown(row)

    async def cancel(self, call: Call) -> SessionShown:
        body: CancelSession = call.body
        session_id = call.path["session_id"]
        await self._sessions.cancel(
            call.principal, session_id, for_good=body.scope == "session", reason=body.reason
        )
        return await self._shown(await self._sessions.get(call.principal, session_id))

    async def delete(self, call: Call) -> SessionDeleted:
        session_id = call.path["session_id"]
        await self._sessions.delete(call.principal, session_id)
        return SessionDeleted(session_id)

    async def archive(self, call: Call) -> SessionShown:
        return await self._shown(await self._sessions.archive(call.principal, call.path["session_id"]))

    async def send(self, call: Call) -> SentEvents:
        """Answers with the events as they stand in the log; with an Idempotency-Key, as they did the first time."""
        body: SendEvents = call.body
        check_count(body.events)
        root = call.path["session_id"]
        session_id, events = await addressed(self._sessions, call.principal, root, body.events)
        facts = [
            await self._fact(call.principal, session_id, event, f"events[{index}]")
            for index, event in enumerate(events)
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
        given = [one for one in sent if one["type"].startswith("user.")]
        return SentEvents(tuple(routed(one, root, session_id) for one in given))

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
        return await self._shown(await self._sessions.get(call.principal, session_id))

    async def resume(self, call: Call) -> SessionShown:
        session_id = call.path["session_id"]
        await self._sessions.resume(call.principal, session_id)
        return await self._shown(await self._sessions.get(call.principal, session_id))

    async def events(self, call: Call) -> EventPage:
        query: ListEvents = call.query
        check_page(query)
        row = await self._sessions.get(call.principal, call.path["session_id"])

        def bodies(fact: Recorded) -> list[dict[str, Any]]:
            events = shown(row.id, fact, ours=query.include == "freehold")
            return [one.body for one in events if not query.types or one.type in query.types]

        return await EventPages(self._sessions, call.principal, row.id, row.version).page(query, bodies)

    async def stream(self, call: Call) -> Response:
        query: StreamEvents = call.query
        session_id = call.path["session_id"]
        row = await self._sessions.get(call.principal, session_id)
        events = event_stream(
            self._sessions,
            call.principal,
            session_id,
            cursor=first_cursor(row, query, call.headers.get("last-event-id")),
            previews=frozenset(query.event_deltas),
            ours=query.include == "freehold",
        )
        return to_any_page(EventStreamResponse(events, call.leaving), query.token)

    async def stream_token(self, call: Call) -> StreamToken:
        body: CreateStreamToken = call.body
        row = await self._sessions.get(call.principal, call.path["session_id"])
        token, expires_at = self._tokens.issue(call.principal, row.id, good_s=body.expires_in_s)
        url = f"/v1/sessions/{row.id}/events/stream?token={token}"
        return StreamToken(token=token, url=url, expires_at=expires_at)


def first_cursor(row: SessionRow, query: StreamEvents, last_event_id: str | None) -> tuple[int, int]:
    """Behind what a stream goes on: behind what there is now, where nothing is said.

    A browser comes back to the address that it began with, `?after=` and all: what it has seen since goes first.
    """
    if last_event_id:
        return read_cursor(last_event_id, field="Last-Event-ID")
    if query.after is not None:
        return read_cursor(query.after, field="after")
    return row.version, 1_000_000


def _overriding_model(agent: AgentRef) -> str | None:
    found = model_of(agent.model, field="agent.model")
    if "reasoning_effort" in found:
        raise Unsupported("a session asks with its agent's effort", field="agent.model.effort")
    return found.get("model")


def _setup(body: CreateSession, agent: AgentRef) -> SessionSetup | None:
    """None where nothing is other than the agent's own."""
    refuse_unserved(agent, field="agent.")
    overrides = (agent.model, agent.system, agent.tools)
    if agent.type == "agent" and any(one is not UNSET for one in overrides):
        raise BadRequest(
            "expected agent_with_overrides where there is more than an id and a version", field="agent.type"
        )
    setup = SessionSetup(
        environment=None if body.environment_id == DEFAULT else body.environment_id,
        instructions=None if isinstance(agent.system, UnsetType) else agent.system or "",
        custom_tools=None
        if isinstance(agent.tools, UnsetType)
        else custom_tools_of(agent.tools, field="agent.tools"),
        cost_max_usd=cost_max_usd(body.budget),
    )
    return None if setup == SessionSetup() else setup


def _first_inputs(body: CreateSession, by: str) -> list[tuple[Text | Media, ...]]:
    if body.initial_events:
        check_count(body.initial_events, field="initial_events")
    found: list[tuple[Text | Media, ...]] = []
    for place, event in enumerate(body.initial_events):
        if not isinstance(event, UserMessage):
            raise BadRequest(
                "expected a user.message: there is nothing else to say to a session that begins",
                field=f"initial_events[{place}].type",
            )
        found.append(spoken(event, f"initial_events[{place}]", by=by).content)
    return found


def operations(sessions: Sessions, declarations: Declarations, tokens: Tokens) -> list[Operation]:
    api = SessionApi(sessions, declarations, tokens)
    one, events = "/v1/sessions/{session_id}", "/v1/sessions/{session_id}/events"
    return [
        Operation(method="POST", path="/v1/sessions", id="createSession", tag="sessions",
                  summary="Begin a session with an agent. Honours Idempotency-Key.", handler=api.create, body=CreateSession,
                  answer=SessionShown),
        Operation(method="GET", path="/v1/sessions", id="listSessions", tag="sessions", summary="Sessions, newest first.",
                  handler=api.list, query=ListSessions, answer=SessionPageShown),
        Operation(method="GET", path=one, id="getSession", tag="sessions", summary="A session.", handler=api.get,
                  answer=SessionShown),
        Operation(method="POST", path=one, id="updateSession", tag="sessions", summary="Change a session's title or metadata.",
                  handler=api.update, body=UpdateSession, answer=SessionShown),
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
        Operation(method="GET", path=events, id="listEvents", tag="sessions", summary="The log, as events, in either direction.",
                  handler=api.events, query=ListEvents, answer=EventPage),
        Operation(method="GET", path=f"{events}/stream", id="streamEvents", tag="sessions",
                  summary="Events as they come (server-sent events); resumes from Last-Event-ID or ?after=.",
                  handler=api.stream, query=StreamEvents, media_type="text/event-stream", by_token=by_token(tokens)),
        Operation(method="POST", path=f"{one}/stream_tokens", id="createStreamToken", tag="sessions",
                  summary="A token that opens the session's event streams for a while, for browsers.", handler=api.stream_token,
                  body=CreateStreamToken, answer=StreamToken),
    ]  # fmt: skip
