"""Events from outside that sessions wait for, on PostgreSQL: implements core.outside.ExpectedEvents."""

from collections.abc import Sequence
from typing import Final

from freehold.core.outside import Expectation, Expected, ExpectedEvents, Received, Sent
from freehold.store._listen import Changes, Listener
from freehold.store.database import Database

CHANNEL: Final = "freehold_outside"
KEPT_DAYS: Final = 7
"""Behind their time: so long a late or repeated event is told from one that nobody ever waited for."""

RETRY_S_MAX: Final = 60

_ALIVE: Final = """
EXISTS (SELECT FROM sessions s WHERE s.id = e.session_id AND s.status IN ('running', 'waiting', 'paused'))
"""
_EXPECT: Final = """
INSERT INTO expected_events AS e (tenant, session_id, call_id, tool, event, correlation, until, token_digest)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (session_id, call_id) DO UPDATE SET token_digest = excluded.token_digest, until = greatest(e.until, excluded.until)
"""
_FIND: Final = f"""
SELECT e.tenant, e.tool, e.received_at IS NOT NULL AS received, e.until <= now() OR NOT {_ALIVE} AS over
FROM expected_events e WHERE e.token_digest = $1
"""  # noqa: S608 - our own constant
_CAME: Final = f"""
WITH came AS (
    UPDATE expected_events e SET received_at = now(), payload = $1, due_at = now()
    WHERE e.received_at IS NULL AND e.until > now() AND {_ALIVE} AND {{}} RETURNING e.token_digest
)
SELECT count(*) AS count, (SELECT pg_notify('{CHANNEL}', '') FROM came LIMIT 1) AS called FROM came
"""  # noqa: S608 - our own constants
_RECEIVE: Final = _CAME.format("e.token_digest = $2")
_SEND: Final = _CAME.format("e.tenant = $2 AND e.event = $3 AND e.correlation = $4")
_REPEATED: Final = """
SELECT count(*) AS count FROM expected_events
WHERE tenant = $1 AND event = $2 AND correlation = $3 AND received_at IS NOT NULL
"""
_UNTOLD: Final = f"""
WITH chosen AS (
    SELECT token_digest FROM expected_events WHERE received_at IS NOT NULL AND told_at IS NULL AND due_at <= now()
    ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
UPDATE expected_events e SET tries = e.tries + 1,
    due_at = now() + make_interval(secs => least(power(2, least(e.tries, 10)) / 2, {RETRY_S_MAX}))
FROM chosen c WHERE e.token_digest = c.token_digest
RETURNING e.tenant, e.session_id, e.call_id, e.event, e.token_digest, e.payload
"""  # noqa: S608 - our own constant
_TOLD: Final = "UPDATE expected_events SET told_at = now() WHERE token_digest = $1"
_DUE_IN: Final = """
SELECT extract(epoch FROM min(due_at) - now())::float8 AS due_in_s FROM expected_events WHERE received_at IS NOT NULL AND told_at IS NULL
"""
_FORGET: Final = f"""
DELETE FROM expected_events WHERE token_digest = ANY(ARRAY(
    SELECT token_digest FROM expected_events WHERE until < now() - interval '{KEPT_DAYS} days' LIMIT $1 FOR UPDATE SKIP LOCKED
)) RETURNING 1
"""  # noqa: S608 - our own constant


class PostgresExpectedEvents:
    """`wait` hears of other processes once `listener` runs."""

    def __init__(self, database: Database, listener: Listener) -> None:
        self._database = database
        self._changes = Changes(listener, CHANNEL)

    async def expect(self, expectation: Expectation) -> None:
        """What came under an earlier token of the call stays."""
        one = expectation
        given = (one.tenant, one.session_id, one.call_id, one.tool, one.event, one.correlation, one.until)
        await self._database.fetch("expecting an event", _EXPECT, *given, one.token_digest)

    async def find(self, token_digest: str) -> Expected | None:
        rows = await self._database.fetch("looking for a token", _FIND, token_digest)
        if not rows:
            return None
        [row] = rows
        return Expected(tenant=row["tenant"], tool=row["tool"], received=row["received"], over=row["over"])

    async def receive(self, token_digest: str, payload: str) -> bool:
        rows = await self._database.fetch("receiving an event", _RECEIVE, payload, token_digest)
        return bool(rows[0]["count"])

    async def send(self, tenant: str, event: str, correlation: str, payload: str) -> Sent:
        rows = await self._database.fetch("receiving an event", _SEND, payload, tenant, event, correlation)
        received = int(rows[0]["count"])
        rows = await self._database.fetch("looking for earlier events", _REPEATED, tenant, event, correlation)
        return Sent(received, int(rows[0]["count"]) - received)

    async def untold(self, *, limit: int) -> Sequence[Received]:
        rows = await self._database.fetch("looking for events to tell", _UNTOLD, limit)
        return [Received(**{name: row[name] for name in Received.__struct_fields__}) for row in rows]

    async def told(self, token_digest: str) -> None:
        await self._database.fetch("settling an event", _TOLD, token_digest)

    async def wait(self, timeout_s: float) -> None:
        await self._changes.wait(timeout_s, self._due_in)

    async def _due_in(self) -> float | None:
        rows = await self._database.fetch("looking when events are due", _DUE_IN)
        due_in_s: float | None = rows[0]["due_in_s"]
        return due_in_s


async def forget(database: Database, *, at_once: int) -> int:
    """How many were forgotten, long after their time."""
    count = 0
    while deleted := len(await database.fetch("forgetting expected events", _FORGET, at_once)):
        count += deleted
    return count


_IMPLEMENTS: type[ExpectedEvents] = PostgresExpectedEvents
