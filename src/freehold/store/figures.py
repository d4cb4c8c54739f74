"""How calls went lately, as processes tell each other: implements core.figures.SharedFigures.

One row a process, minute and subject, which only its process writes. Not here: what is in it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from freehold.core.figures import Heard, SharedFigures, Subject, Told
from freehold.store.database import Database, Row

OVERLAP: Final = timedelta(seconds=5)
"""What was written so shortly before the last look may have been committed after it."""

HEARD_MAX: Final = 100_000
FORGOTTEN_MAX: Final = 10_000

_TELL: Final = """
INSERT INTO live_figures (tenant, subject, minute, process, body, written_at, expires_at)
SELECT tenant, subject, minute, $1, body, now(), now() + make_interval(secs => keep_s)
FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::float8[]) AS told (tenant, subject, minute, body, keep_s)
ORDER BY tenant, subject, minute
ON CONFLICT (tenant, subject, minute, process) DO UPDATE
    SET body = excluded.body, written_at = excluded.written_at, expires_at = excluded.expires_at
"""
_HEARD: Final = """
SELECT f.tenant, f.subject, f.minute, array_agg(f.body) AS bodies
FROM wanted JOIN live_figures AS f USING (tenant, subject, minute)
WHERE f.process <> $1 AND f.expires_at > now()
GROUP BY f.tenant, f.subject, f.minute
ORDER BY f.minute DESC LIMIT $2
"""
_CHANGED: Final = f"""
WITH wanted AS (
    SELECT DISTINCT tenant, subject, minute FROM live_figures
    WHERE written_at > $3 AND process <> $1 AND tenant = ANY($4)
)
SELECT now() AS at, heard.* FROM (SELECT) AS always LEFT JOIN ({_HEARD}) AS heard ON true
"""  # noqa: S608 - our own constants
_ALL: Final = f"""
WITH wanted AS (
    SELECT DISTINCT tenant, subject, minute
    FROM unnest($3::text[], $4::text[]) AS asked (tenant, subject) JOIN live_figures USING (tenant, subject)
)
{_HEARD}
"""  # noqa: S608 - our own constants
_FORGET: Final = """
DELETE FROM live_figures WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM live_figures WHERE expires_at < now() LIMIT $1 FOR UPDATE SKIP LOCKED
)) RETURNING 1
"""


class PostgresFigures:
    """`process` is this one's alone, also among those that were before it."""

    def __init__(self, database: Database, *, process: str) -> None:
        self._database = database
        self._process = process

    async def tell(self, told: Sequence[Told]) -> None:
        if not told:
            return
        await self._database.fetch(
            "telling how calls went", _TELL, self._process,
            [one.subject[0] for one in told], [one.subject[1] for one in told], [one.minute for one in told],
            [one.body.decode() for one in told], [one.keep_s for one in told],
        )  # fmt: skip

    async def changed(
        self, tenants: Sequence[str], since: datetime | None
    ) -> tuple[Sequence[Heard], datetime]:
        if since is None:
            rows = await self._database.fetch("hearing how calls went", "SELECT now() AS at")
            return [], rows[0]["at"] - OVERLAP
        rows = await self._database.fetch(
            "hearing how calls went", _CHANGED, self._process, HEARD_MAX, since, tenants
        )
        return [_heard(row) for row in rows if row["tenant"] is not None], rows[0]["at"] - OVERLAP

    async def all_of(self, subjects: Sequence[Subject]) -> Sequence[Heard]:
        rows = await self._database.fetch(
            "hearing how calls went", _ALL, self._process, HEARD_MAX,
            [tenant for tenant, _ in subjects], [name for _, name in subjects],
        )  # fmt: skip
        return [_heard(row) for row in rows]

    async def forget(self) -> int:
        return len(await self._database.fetch("forgetting how calls went", _FORGET, FORGOTTEN_MAX))


def _heard(row: Row) -> Heard:
    bodies = tuple(body.encode() for body in row["bodies"])
    return Heard((row["tenant"], row["subject"]), row["minute"], bodies)


_IMPLEMENTS: type[SharedFigures] = PostgresFigures
