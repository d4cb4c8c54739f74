"""Threads of a session, in Claude Managed Agents' shapes: /v1/sessions/{session_id}/threads; and the files that a session has: none.

A subagent is a session of its own, with its own log; here it is a thread of the one that it works for. The first thread is the session itself.
"""

from datetime import datetime
from typing import Any, Final

from msgspec import Struct
from starlette.responses import Response

from freehold.core.errors import BadRequest, NotFound, Unsupported
from freehold.core.session import Recorded
from freehold.core.session_log import SessionRow
from freehold.runtime.declared import Declarations, set_up
from freehold.runtime.sessions import Sessions
from freehold.server.apis._agent_shapes import view
from freehold.server.apis._event_pages import EVENTS_PAGE_MAX, EventPage, EventPages, ListEvents, check_page
from freehold.server.apis._event_stream import EventStreamResponse, Reshape, event_stream
from freehold.server.apis._events import shown, thread_id_of
from freehold.server.apis._session_shapes import Status, duration_s, status_of, usage_shown, wanted_statuses
from freehold.server.apis._stream_tokens import Tokens, by_token, to_any_page
from freehold.server.apis._threads import of_thread, thread_row
from freehold.server.apis.sessions import StreamEvents, first_cursor
from freehold.server.operations import Call, Operation

THREADS_PAGE_MAX: Final = 200


class ThreadShown(Struct, frozen=True, kw_only=True):
    id: str
    type: str = "session_thread"
    session_id: str
    parent_thread_id: str | None
    agent: dict[str, Any]
    status: str
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None
    stats: dict[str, Any]
    usage: dict[str, Any]
    workflow_run_id: None = None
    freehold: dict[str, Any]


class ThreadPage(Struct, frozen=True):
    data: tuple[ThreadShown, ...]
    next_page: str | None


class ListThreads(Struct, frozen=True, forbid_unknown_fields=True):
    limit: int = THREADS_PAGE_MAX
    page: str | None = None
    statuses: tuple[Status, ...] = ()


class ListThreadEvents(Struct, frozen=True, forbid_unknown_fields=True):
    limit: int = EVENTS_PAGE_MAX
    page: str | None = None


class ResourcePage(Struct, frozen=True):
    data: tuple[dict[str, Any], ...] = ()
    next_page: str | None = None


class ListResources(Struct, frozen=True, forbid_unknown_fields=True):
    limit: int = 100
    page: str | None = None


class ThreadApi:
    def __init__(self, sessions: Sessions, declarations: Declarations) -> None:
        self._sessions = sessions
        self._declarations = declarations

    async def list(self, call: Call) -> ThreadPage:
        query: ListThreads = call.query
        session_id = call.path["session_id"]
        if query.limit < 1:
            raise BadRequest(f"expected 1 or more, got {query.limit}", field="limit")
        statuses = wanted_statuses(query.statuses)
        if statuses is None:
            await self._sessions.get(call.principal, session_id)
            return ThreadPage((), None)
        page = await self._sessions.family(
            call.principal,
            session_id,
            statuses=statuses,
            limit=min(query.limit, THREADS_PAGE_MAX),
            cursor=query.page,
        )
        return ThreadPage(tuple([await self._shown(session_id, row) for row in page.rows]), page.next)

    async def get(self, call: Call) -> ThreadShown:
        return await self._shown(call.path["session_id"], await self._row(call))

    async def archive(self, call: Call) -> ThreadShown:
        row = await self._row(call)
        return await self._shown(
            call.path["session_id"], await self._sessions.archive(call.principal, row.id)
        )

    async def events(self, call: Call) -> EventPage:
        query = ListEvents(limit=call.query.limit, page=call.query.page)
        check_page(query)
        row = await self._row(call)
        reshaped = await self._reshaping(row)

        def bodies(fact: Recorded) -> list[dict[str, Any]]:
            return [reshaped(one.body) for one in shown(row.id, fact, ours=False)]

        pages = EventPages(self._sessions, call.principal, row.id, row.version)
        return await pages.page(query, bodies)

    async def stream(self, call: Call) -> Response:
        query: StreamEvents = call.query
        row = await self._row(call)
        events = event_stream(
            self._sessions,
            call.principal,
            row.id,
            cursor=first_cursor(row, query, call.headers.get("last-event-id")),
            previews=frozenset(query.event_deltas),
            ours=query.include == "freehold",
            reshaped=await self._reshaping(row),
        )
        return to_any_page(EventStreamResponse(events, call.leaving), query.token)

    async def files(self, call: Call) -> ResourcePage:
        await self._sessions.get(call.principal, call.path["session_id"])
        return ResourcePage()

    async def no_file(self, call: Call) -> None:
        session_id = call.path["session_id"]
        await self._sessions.get(call.principal, session_id)
        raise NotFound(f"session {session_id} has no resource {call.path['resource_id'][:80]!r}")

    async def add_file(self, call: Call) -> None:
        raise Unsupported(
            "sessions take no files, repositories or memory stores yet: put data where tools can read it"
        )

    async def _row(self, call: Call) -> SessionRow:
        return await thread_row(
            self._sessions, call.principal, call.path["session_id"], call.path["thread_id"]
        )

    async def _reshaping(self, row: SessionRow) -> Reshape:
        agent = await self._declarations.agent(row.tenant, row.agent, row.agent_version)
        return of_thread(row, agent.title or agent.name)

    async def _shown(self, session_id: str, row: SessionRow) -> ThreadShown:
        agent = set_up(await self._declarations.agent(row.tenant, row.agent, row.agent_version), row.setup)
        told = view(agent, row.agent_version, model=row.model)
        del told["multiagent"]
        root = row.id == session_id
        return ThreadShown(
            id=thread_id_of(row.id),
            session_id=session_id,
            parent_thread_id=None if root or row.parent_id is None else thread_id_of(row.parent_id),
            agent=told,
            status=status_of(row),
            created_at=row.created_at,
            updated_at=row.updated_at,
            archived_at=row.archived_at,
            stats={"duration_seconds": duration_s(row)},
            usage=usage_shown(row.usage, row.cost_pico),
            freehold={"session_id": row.id, "status": row.status, "title": row.title},
        )


def operations(sessions: Sessions, declarations: Declarations, tokens: Tokens) -> list[Operation]:
    api = ThreadApi(sessions, declarations)
    session = "/v1/sessions/{session_id}"
    threads, files = f"{session}/threads", f"{session}/resources"
    one, file = f"{threads}/{{thread_id}}", f"{files}/{{resource_id}}"
    return [
        Operation(method="GET", path=threads, id="listThreads", tag="threads",
                  summary="A session and its subagents' sessions, as threads, oldest first.", handler=api.list, query=ListThreads,
                  answer=ThreadPage),
        Operation(method="GET", path=one, id="getThread", tag="threads", summary="A thread.", handler=api.get, answer=ThreadShown),
        Operation(method="POST", path=f"{one}/archive", id="archiveThread", tag="threads",
                  summary="Let a thread at rest be only read; idempotent.", handler=api.archive, answer=ThreadShown),
        Operation(method="GET", path=f"{one}/events", id="listThreadEvents", tag="threads", summary="A thread's events, oldest first.",
                  handler=api.events, query=ListThreadEvents, answer=EventPage),
        Operation(method="GET", path=f"{one}/stream", id="streamThreadEvents", tag="threads",
                  summary="A thread's events as they come (server-sent events); resumes from Last-Event-ID or ?after=.",
                  handler=api.stream, query=StreamEvents, media_type="text/event-stream", by_token=by_token(tokens)),
        Operation(method="GET", path=files, id="listSessionResources", tag="sessions", summary="What is mounted: nothing.",
                  handler=api.files, query=ListResources, answer=ResourcePage),
        Operation(method="POST", path=files, id="addSessionResource", tag="sessions", summary="Not served.", handler=api.add_file),
        Operation(method="GET", path=file, id="getSessionResource", tag="sessions", summary="There is none.", handler=api.no_file),
        Operation(method="POST", path=file, id="updateSessionResource", tag="sessions", summary="There is none.", handler=api.no_file),
        Operation(method="DELETE", path=file, id="deleteSessionResource", tag="sessions", summary="There is none.", handler=api.no_file),
    ]  # fmt: skip
