"""Threads of a session: itself, and the sessions that work for it, however deep. Which one is meant, and how its events look.

A thread's id is its session's with another prefix. Source of the shapes: the `anthropic` SDK's types, beta.sessions.threads.
"""

from collections.abc import Sequence
from typing import Any, Final

from msgspec import structs

from freehold.core.errors import BadRequest, NotFound
from freehold.core.policy import Principal
from freehold.core.session_log import SessionRow
from freehold.runtime.sessions import Sessions
from freehold.server.apis._event_stream import Reshape
from freehold.server.apis._events import (
    Sent,
    UserCustomToolResult,
    UserMessage,
    UserToolConfirmation,
    call_id_at_root,
    thread_id_of,
)

FAMILY_PAGE: Final = 200
FAMILY_MAX: Final = 10_000
"""Threads that are looked through for one; a session that has had more is told by its own id."""

_PREFIX: Final = "sthr_"


async def thread_row(
    sessions: Sessions, principal: Principal, session_id: str, thread_id: str, *, field: str = "thread_id"
) -> SessionRow:
    """Raises NotFound where the session has no such thread."""
    if not thread_id.startswith(_PREFIX):
        raise BadRequest(f"expected a thread's id like {_PREFIX}01j…, got {thread_id[:80]!r}", field=field)
    root = await sessions.get(principal, session_id)
    wanted = row = await sessions.get(principal, f"sess_{thread_id.removeprefix(_PREFIX)}")
    while row.id != root.id:
        if row.parent_id is None:
            raise NotFound(f"session {session_id} has no thread {thread_id[:80]!r}", field=field)
        row = await sessions.get(principal, row.parent_id)
    return wanted


async def addressed(
    sessions: Sessions, principal: Principal, session_id: str, events: Sequence[Sent]
) -> tuple[str, Sequence[Sent]]:
    """The session that the events are for: one of the threads where they or their call's id name it, or a call that only it waits for.
    And the events with the calls' ids as that session has them.

    Raises BadRequest where they are for several: they are taken together or not at all.
    """
    named = [_named(event) for event in events]
    found = [
        await _of(sessions, principal, session_id, event, f"events[{place}]")
        for place, event in enumerate(named)
    ]
    if len(set(found)) > 1:
        raise BadRequest(
            "expected events for one thread; send those for another by themselves", field="events"
        )
    return found[0], named


def _named(event: Sent) -> Sent:
    """A call's id as the session at the top has it is the thread's and the call's own."""
    match event:
        case UserToolConfirmation():
            thread_id, call_id = _split(event.tool_use_id)
            given = thread_id or event.session_thread_id
            return structs.replace(event, tool_use_id=call_id, session_thread_id=given)
        case UserCustomToolResult():
            thread_id, call_id = _split(event.custom_tool_use_id)
            given = thread_id or event.session_thread_id
            return structs.replace(event, custom_tool_use_id=call_id, session_thread_id=given)
        case _:
            return event


def _split(call_id: str) -> tuple[str | None, str]:
    """Calls' own ids are vendors': none begins like a thread's."""
    thread_id, dot, own = call_id.partition(".")
    return (thread_id, own) if dot and thread_id.startswith(_PREFIX) else (None, call_id)


def routed(body: dict[str, Any], session_id: str, thread_of: str) -> dict[str, Any]:
    """What a client sent to `session_id`, and what the log of `thread_of` has of it, as it is answered."""
    if session_id == thread_of:
        return body
    named = {
        name: call_id_at_root(thread_of, body[name])
        for name in ("tool_use_id", "custom_tool_use_id")
        if name in body
    }
    return body | named | {"session_thread_id": thread_id_of(thread_of)}


async def _of(sessions: Sessions, principal: Principal, session_id: str, event: Sent, path: str) -> str:
    if isinstance(event, UserMessage):
        return session_id
    if event.session_thread_id is not None:
        field = f"{path}.session_thread_id"
        return (await thread_row(sessions, principal, session_id, event.session_thread_id, field=field)).id
    match event:
        case UserToolConfirmation():
            return await _waiting_for(sessions, principal, session_id, event.tool_use_id)
        case UserCustomToolResult():
            return await _waiting_for(sessions, principal, session_id, event.custom_tool_use_id)
        case _:
            return session_id


async def _waiting_for(sessions: Sessions, principal: Principal, session_id: str, call_id: str) -> str:
    """The session itself, unless it waits for others and one of these waits for that call."""
    own = await sessions.get(principal, session_id)
    if own.waits is None or call_id in _awaited(own):
        return session_id
    cursor, seen = None, 0
    while seen < FAMILY_MAX:
        page = await sessions.family(
            principal, session_id, statuses=("waiting",), limit=FAMILY_PAGE, cursor=cursor
        )
        for row in page.rows:
            if call_id in _awaited(row):
                return row.id
        cursor, seen = page.next, seen + len(page.rows)
        if cursor is None:
            break
    return session_id


def _awaited(row: SessionRow) -> set[str]:
    return set() if row.waits is None else {one.call_id for one in row.waits.calls}


_OF_THREADS: Final = {
    "session.status_running": "session.thread_status_running",
    "session.status_idle": "session.thread_status_idle",
    "session.status_terminated": "session.thread_status_terminated",
}


def of_thread(row: SessionRow, agent_name: str) -> Reshape:
    """How an event of the session `row` looks on its own thread."""
    thread_id = thread_id_of(row.id)
    parent_id = None if row.parent_id is None else thread_id_of(row.parent_id)

    def shown(body: dict[str, Any]) -> dict[str, Any]:
        kind = body["type"]
        if kind in _OF_THREADS:
            return body | {
                "type": _OF_THREADS[kind],
                "agent_name": agent_name,
                "session_thread_id": thread_id,
            }
        if kind == "user.message" and parent_id is not None:
            return body | {"type": "agent.thread_message_received", "from_session_thread_id": parent_id}
        return body

    return shown
