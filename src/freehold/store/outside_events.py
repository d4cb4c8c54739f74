"""Events from outside that sessions wait for, on PostgreSQL: implements core.outside.ExpectedEvents."""

from collections.abc import Sequence
from typing import Final

from freehold.core.errors import RateLimited
from freehold.core.outside import (
    EARLY_KEPT_S,
    EARLY_MAX,
    Expectation,
    Expected,
    ExpectedEvents,
    Received,
    Sent,
)
from freehold.store._listen import Changes, Listener
from freehold.store.database import Connection, Database

CHANNEL: Final = "freehold_outside"
KEPT_DAYS: Final = 7
"""Behind their time: so long a late or repeated event is told from one that nobody ever waited for."""

RETRY_S_MAX: Final = 60
EARLY_RETRY_S: Final = 60.0

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
# Nobody begins to wait for an event while it is looked who waits for it.
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended(concat_ws(chr(31), 'event', $1::text, $2::text, $3::text), 0))"
_EARLY: Final = f"""
WITH came AS (
    UPDATE expected_events e SET received_at = now(), payload = k.payload, due_at = now()
    FROM early_events k
    WHERE e.token_digest = $1 AND e.received_at IS NULL AND k.kept_until > now()
      AND (k.tenant, k.event, k.correlation) = (e.tenant, e.event, e.correlation)
      AND NOT EXISTS (
          SELECT FROM expected_events o WHERE o.session_id = e.session_id AND o.received_at IS NOT NULL
          AND (o.event, o.correlation) = (e.event, e.correlation)
      )
    RETURNING e.token_digest
)
SELECT pg_notify('{CHANNEL}', '') FROM came
"""  # noqa: S608 - our own constant
_EARLY_COUNT: Final = "SELECT count(*) FROM early_events WHERE tenant = $1 AND kept_until > now()"
_KEEP_EARLY: Final = f"""
INSERT INTO early_events AS k (tenant, event, correlation, payload, kept_until)
VALUES ($1, $2, $3, $4, now() + interval '{EARLY_KEPT_S} seconds')
ON CONFLICT (tenant, event, correlation) DO UPDATE SET payload = excluded.payload, kept_until = excluded.kept_until
    WHERE k.kept_until <= now()
RETURNING kept_until
"""  # noqa: S608 - our own constant
_KEPT_UNTIL: Final = (
    "SELECT kept_until FROM early_events WHERE tenant = $1 AND event = $2 AND correlation = $3"
)
_FORGET_EARLY: Final = """
DELETE FROM early_events WHERE (tenant, event, correlation) IN (
    SELECT tenant, event, correlation FROM early_events WHERE kept_until <= now() LIMIT $1 FOR UPDATE SKIP LOCKED
) RETURNING 1
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

        async def work(connection: Connection) -> None:
            await connection.execute(_LOCK, one.tenant, one.event, one.correlation)
            await connection.execute(_EXPECT, *given, one.token_digest)
            await connection.execute(_EARLY, one.token_digest)

        await self._database.in_transaction("expecting an event", work)

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
        about = (tenant, event, correlation)

        async def work(connection: Connection) -> Sent:
            await connection.execute(_LOCK, *about)
            received = int(await connection.fetchval(_SEND, payload, *about))
            repeated = int(await connection.fetchval(_REPEATED, *about)) - received
            return (
                Sent(received, repeated) if received or repeated else await _kept(connection, about, payload)
            )

        return await self._database.in_transaction("receiving an event", work)

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


async def _kept(connection: Connection, about: tuple[str, str, str], payload: str) -> Sent:
    """For whoever begins to wait for it."""
    if await connection.fetchval(_EARLY_COUNT, about[0]) >= EARLY_MAX:
        raise RateLimited(
            f"nobody waits for this event yet, and {EARLY_MAX} such are kept already (EARLY_MAX): send it again later",
            retry_after_s=EARLY_RETRY_S,
        )
    kept_until = await connection.fetchval(_KEEP_EARLY, *about, payload)
    if kept_until is not None:
        return Sent(0, 0, kept_until)
    return Sent(0, 1, await connection.fetchval(_KEPT_UNTIL, *about))


async def forget(database: Database, *, at_once: int) -> int:
    """How many were forgotten, long after their time; or when nobody waited for them in time."""
    count = 0
    for statement in (_FORGET, _FORGET_EARLY):
        while deleted := len(await database.fetch("forgetting outside events", statement, at_once)):
            count += deleted
    return count


_IMPLEMENTS: type[ExpectedEvents] = PostgresExpectedEvents
