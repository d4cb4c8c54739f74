"""Store: places of tools that may only run so many times at once: implements core/places.py. What is fair stands in the database
(migrations/0017_tool_places.sql): it alone sees all workers.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from freehold.core.places import ToolPlaces, ToolQueue
from freehold.store.database import Database

QUEUES_MAX: Final = 1000

_TAKE: Final = "SELECT take_tool_places($1, $2, $3::text[], $4::text[]) AS call_id"
_KEEP: Final = "SELECT keep_tool_places($1, $2, $3::text[])"
_LOOK: Final = "SELECT look_for_tool_places($1, $2)"
_LOOK_AFTER: Final = "SELECT look_after_tool_places()"
_QUEUES: Final = """
SELECT coalesce(l.tool, p.tool) AS tool, l.concurrency_max, coalesce(p.running, 0) AS running, coalesce(p.waiting, 0) AS waiting,
       p.waiting_since
FROM (SELECT tool, concurrency_max FROM tool_limits WHERE tenant = $1) AS l
FULL JOIN (
    SELECT tool, count(taken_at) AS running, count(*) - count(taken_at) AS waiting,
           min(queued_at) FILTER (WHERE taken_at IS NULL) AS waiting_since
    FROM tool_places WHERE tenant = $1 GROUP BY tool
) AS p ON p.tool = l.tool
ORDER BY 1 LIMIT $2
"""


class PostgresToolPlaces:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, tenant: str, session_id: str, wanted: Mapping[str, str]) -> frozenset[str]:
        rows = await self._database.fetch(
            "taking tools' places", _TAKE, tenant, session_id, list(wanted), list(wanted.values())
        )
        return frozenset(row["call_id"] for row in rows)

    async def keep(self, tenant: str, session_id: str, call_ids: Collection[str]) -> None:
        await self._database.fetch("giving back tools' places", _KEEP, tenant, session_id, list(call_ids))

    async def look(self, tenant: str, session_id: str) -> None:
        await self._database.fetch("looking for tools' places", _LOOK, tenant, session_id)

    async def look_after(self) -> None:
        await self._database.fetch("looking after tools' places", _LOOK_AFTER)

    async def queues(self, tenant: str) -> Sequence[ToolQueue]:
        rows = await self._database.fetch("looking at tools' queues", _QUEUES, tenant, QUEUES_MAX)
        return [ToolQueue(**row) for row in rows]


_IMPLEMENTS: type[ToolPlaces] = PostgresToolPlaces
