"""A session's family: GET /v1/sessions/{id}/family. All that work for it, however deep, and what was forked from it. Ours alone."""

from typing import Final

from msgspec import Struct

from freehold.runtime.declared import Declarations
from freehold.runtime.sessions import Sessions
from freehold.server.apis._session_shapes import SessionShown, session_shown
from freehold.server.operations import Call, Operation

FAMILY_MAX: Final = 200


class FamilyShown(Struct, frozen=True):
    """Oldest first, at most FAMILY_MAX of each; `more` says where there are more of one."""

    subagents: tuple[SessionShown, ...]
    forks: tuple[SessionShown, ...]
    more: bool


def operations(sessions: Sessions, declarations: Declarations) -> list[Operation]:
    async def family(call: Call) -> FamilyShown:
        session_id = call.path["session_id"]
        found = await sessions.family(call.principal, session_id, limit=FAMILY_MAX)
        forks = await sessions.forks(call.principal, session_id, limit=FAMILY_MAX)
        return FamilyShown(
            tuple([await session_shown(row, declarations) for row in found.rows if row.id != session_id]),
            tuple([await session_shown(row, declarations) for row in forks.rows]),
            more=bool(found.next or forks.next),
        )

    return [
        Operation(method="GET", path="/v1/sessions/{session_id}/family", id="getFamily", tag="sessions",
                  summary="All sessions that work for this one, however deep, and its forks.", handler=family,
                  answer=FamilyShown),
    ]  # fmt: skip
