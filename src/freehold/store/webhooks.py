"""Webhooks' rows and deliveries, on PostgreSQL: implements core.webhooks.Webhooks. What writes deliveries: migrations/0015_webhooks.sql.

A webhook's row is written with its declaration (resources.py). Nothing here is asked where an event happens.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, assert_never

from freehold.core.errors import Internal, NotFound
from freehold.core.webhooks import (
    TEST,
    Again,
    Claimed,
    Dead,
    Delivered,
    Delivery,
    DeliveryPage,
    DeliveryStatus,
    Outcome,
    WebhookRow,
    Webhooks,
)
from freehold.store._listen import Changes, Listener
from freehold.store._names import missing
from freehold.store.database import Connection, Database, Row

CHANNEL: Final = "freehold_webhooks"
ERROR_CHARS_MAX: Final = 500
ENDPOINT_AT_ONCE_MAX: Final = 4
TENANT_AT_ONCE_MAX: Final = 16
"""Deliveries under way, by all processes together: who answers slowly, or not at all, takes these places and no others."""

KEPT_DAYS: Final = 30
"""Settled deliveries can be listed, and delivered again, for so long."""

_ENDPOINT: Final = """
SELECT e.*, (
    SELECT count(*) FROM webhook_deliveries d WHERE d.tenant = e.tenant AND d.endpoint = e.name AND d.status = 'pending'
) AS pending_count
FROM webhook_endpoints e
"""
_GET: Final = f"{_ENDPOINT} WHERE e.tenant = $1 AND e.name = $2"
_LIST: Final = f"{_ENDPOINT} WHERE e.tenant = $1 ORDER BY e.name"
_ROTATE: Final = """
UPDATE webhook_endpoints SET secret_number = secret_number + 1, previous_until = now() + $3 WHERE tenant = $1 AND name = $2
"""
_ENABLE: Final = f"""
WITH enabled AS (
    UPDATE webhook_endpoints SET disabled_at = NULL, disabled_reason = NULL, failing_since = NULL WHERE tenant = $1 AND name = $2
)
SELECT pg_notify('{CHANNEL}', '')
"""  # noqa: S608 - our own constant
_TEST: Final = f"""
WITH made AS (
    INSERT INTO webhook_deliveries (tenant, endpoint, event_id, type, object_id)
    SELECT tenant, name, 'wevt_' || replace(gen_random_uuid()::text, '-', ''), $3, name
    FROM webhook_endpoints WHERE tenant = $1 AND name = $2 RETURNING *
)
SELECT made.*, pg_notify('{CHANNEL}', '') FROM made
"""  # noqa: S608 - our own constant
_DELIVERIES: Final = """
SELECT * FROM webhook_deliveries
WHERE tenant = $1 AND endpoint = $2 AND ($3::text IS NULL OR status = $3) AND ($4::bigint IS NULL OR seq < $4)
ORDER BY seq DESC LIMIT $5
"""
_REDELIVER: Final = f"""
WITH again AS (
    UPDATE webhook_deliveries SET status = 'pending', attempts = 0, due_at = now(), owner = NULL, settled_at = NULL
    WHERE tenant = $1 AND endpoint = $2 AND seq = $3 RETURNING *
)
SELECT again.*, pg_notify('{CHANNEL}', '') FROM again
"""  # noqa: S608 - our own constant
_CLAIM: Final = f"""
WITH held AS (
    SELECT tenant, endpoint, count(*) AS count FROM webhook_deliveries
    WHERE status = 'pending' AND owner IS NOT NULL AND due_at > now() GROUP BY tenant, endpoint
), of_tenants AS (
    SELECT tenant, sum(count)::bigint AS count FROM held GROUP BY tenant
), open AS (
    SELECT e.tenant, e.name, e.disabled_at IS NOT NULL AS disabled,
           {ENDPOINT_AT_ONCE_MAX} - coalesce(h.count, 0) AS room, {TENANT_AT_ONCE_MAX} - coalesce(t.count, 0) AS tenant_room
    FROM webhook_endpoints e
    LEFT JOIN held h ON h.tenant = e.tenant AND h.endpoint = e.name
    LEFT JOIN of_tenants t ON t.tenant = e.tenant
), candidates AS (
    SELECT o.tenant_room, d.seq, d.due_at, row_number() OVER (PARTITION BY o.tenant ORDER BY d.place, d.due_at) AS turn
    FROM open o CROSS JOIN LATERAL (
        SELECT w.seq, w.due_at, row_number() OVER (ORDER BY w.due_at) AS place FROM webhook_deliveries w
        WHERE w.tenant = o.tenant AND w.endpoint = o.name AND w.status = 'pending' AND w.due_at <= now()
          AND (w.type = '{TEST}' OR NOT o.disabled)
        ORDER BY w.due_at LIMIT o.room
    ) AS d
    WHERE o.room > 0 AND o.tenant_room > 0
), chosen AS (
    SELECT c.seq FROM candidates c WHERE c.turn <= c.tenant_room ORDER BY c.turn, c.due_at LIMIT $2
), locked AS (
    SELECT d.seq FROM chosen c JOIN webhook_deliveries d ON d.seq = c.seq
    WHERE d.status = 'pending' AND d.due_at <= now() FOR UPDATE OF d SKIP LOCKED
), taken AS (
    UPDATE webhook_deliveries d SET owner = $1, due_at = now() + $3, attempts = d.attempts + 1
    FROM locked l WHERE d.seq = l.seq RETURNING d.*
)
SELECT t.*, e.uid, e.url, e.events, e.secret_number, e.previous_until, e.created_at AS declared_at, e.failing_since
FROM taken t JOIN webhook_endpoints e ON e.tenant = t.tenant AND e.name = t.endpoint
"""  # noqa: S608 - our own constants
_SETTLE: Final = """
UPDATE webhook_deliveries SET status = $3, due_at = now() + $4, owner = NULL, last_at = now(), last_status = $5, last_error = $6,
    settled_at = CASE WHEN $3 = 'pending' THEN NULL ELSE now() END
WHERE seq = $1 AND owner = $2 RETURNING seq
"""
_WELL: Final = """
UPDATE webhook_endpoints SET last_success_at = now(), failing_since = NULL
WHERE tenant = $1 AND name = $2 AND (failing_since IS NOT NULL OR last_success_at IS NULL OR last_success_at < now() - interval '1 minute')
"""
_FAILING: Final = """
UPDATE webhook_endpoints SET failing_since = coalesce(failing_since, now()),
    disabled_at = CASE WHEN $3::text IS NULL THEN disabled_at ELSE coalesce(disabled_at, now()) END,
    disabled_reason = coalesce(disabled_reason, $3)
WHERE tenant = $1 AND name = $2 AND (failing_since IS NULL OR $3::text IS NOT NULL)
"""
_DUE_IN: Final = """
SELECT extract(epoch FROM min(due_at) - now())::float8 AS due_in_s FROM webhook_deliveries WHERE status = 'pending' AND due_at > now()
"""
_FORGET: Final = f"""
DELETE FROM webhook_deliveries WHERE seq = ANY(ARRAY(
    SELECT seq FROM webhook_deliveries WHERE settled_at < now() - interval '{KEPT_DAYS} days' LIMIT $1 FOR UPDATE SKIP LOCKED
)) RETURNING 1
"""  # noqa: S608 - our own constant


class PostgresWebhooks:
    """`wait` hears of other processes once `listener` runs."""

    def __init__(self, database: Database, listener: Listener) -> None:
        self._database = database
        self._changes = Changes(listener, CHANNEL)

    async def get(self, tenant: str, name: str) -> WebhookRow:
        rows = await self._database.fetch("reading a webhook", _GET, tenant, name)
        if not rows:
            raise await missing(self._database, tenant, "webhook", name)
        return _webhook(rows[0])

    async def list(self, tenant: str) -> Sequence[WebhookRow]:
        return [_webhook(row) for row in await self._database.fetch("listing webhooks", _LIST, tenant)]

    async def rotate(self, tenant: str, name: str, *, overlap_s: float) -> WebhookRow:
        await self._database.fetch("rotating a secret", _ROTATE, tenant, name, timedelta(seconds=overlap_s))
        return await self.get(tenant, name)

    async def enable(self, tenant: str, name: str) -> WebhookRow:
        await self._database.fetch("enabling a webhook", _ENABLE, tenant, name)
        return await self.get(tenant, name)

    async def test(self, tenant: str, name: str) -> Delivery:
        rows = await self._database.fetch("testing a webhook", _TEST, tenant, name, TEST)
        if not rows:
            raise await missing(self._database, tenant, "webhook", name)
        return _delivery(rows[0])

    async def deliveries(
        self, tenant: str, name: str, *, status: DeliveryStatus | None, limit: int, before: int | None
    ) -> DeliveryPage:
        wanted = (tenant, name, status, before, limit + 1)
        rows = await self._database.fetch("listing deliveries", _DELIVERIES, *wanted)
        found = tuple(_delivery(row) for row in rows[:limit])
        return DeliveryPage(found, found[-1].seq if len(rows) > limit else None)

    async def redeliver(self, tenant: str, name: str, seq: int) -> Delivery:
        rows = await self._database.fetch("delivering again", _REDELIVER, tenant, name, seq)
        if not rows:
            raise NotFound(
                f"webhook {name[:80]!r} has no such delivery: deliveries are kept for {KEPT_DAYS} days"
            )
        return _delivery(rows[0])

    async def claim(self, owner: str, *, limit: int, lease_s: float) -> Sequence[Claimed]:
        lease = timedelta(seconds=lease_s)
        rows = await self._database.fetch("claiming deliveries", _CLAIM, owner, limit, lease)
        return [_claimed(row) for row in rows]

    async def settle(self, claimed: Claimed, owner: str, outcome: Outcome) -> None:
        one = claimed.delivery

        async def write(connection: Connection) -> None:
            if not await connection.fetch(_SETTLE, one.seq, owner, *_settled(outcome)):
                return
            match outcome:
                case Delivered():
                    await connection.execute(_WELL, one.tenant, one.endpoint)
                case Again():
                    await connection.execute(_FAILING, one.tenant, one.endpoint, None)
                case Dead():
                    await connection.execute(_FAILING, one.tenant, one.endpoint, outcome.disable)

        await self._database.in_transaction("settling a delivery", write)

    async def wait(self, timeout_s: float) -> None:
        await self._changes.wait(timeout_s, self._due_in)

    async def _due_in(self) -> float | None:
        rows = await self._database.fetch("looking when deliveries are due", _DUE_IN)
        due_in_s: float | None = rows[0]["due_in_s"]
        return due_in_s


async def forget(database: Database, *, at_once: int) -> int:
    """How many settled deliveries were forgotten, because their time was over."""
    count = 0
    while deleted := len(await database.fetch("forgetting old deliveries", _FORGET, at_once)):
        count += deleted
    return count


def _settled(outcome: Outcome) -> tuple[str, timedelta, int | None, str | None]:
    """Status, pause, what was answered, what is wrong."""
    match outcome:
        case Delivered(status=status):
            return "delivered", timedelta(0), status, None
        case Again(delay_s=delay_s, why=why, status=status):
            return "pending", timedelta(seconds=delay_s), status, why[:ERROR_CHARS_MAX]
        case Dead(why=why, status=status):
            return "failed", timedelta(0), status, why[:ERROR_CHARS_MAX]
        case _ as unreachable:
            assert_never(unreachable)


def _webhook(row: Row, **instead: Any) -> WebhookRow:
    given = {name: row[name] for name in WebhookRow.__struct_fields__ if name in row.keys()}  # noqa: SIM118 - a Record's `in` is of values
    given["events"] = tuple(row["events"])
    return WebhookRow(**given | instead)


def _delivery(row: Row) -> Delivery:
    return Delivery(**{name: row[name] for name in Delivery.__struct_fields__})


def _claimed(row: Row) -> Claimed:
    if row["endpoint"] is None:
        raise Internal("a delivery has no webhook")
    webhook = _webhook(row, name=row["endpoint"], created_at=row["declared_at"])
    return Claimed(_delivery(row), webhook)


_IMPLEMENTS: type[Webhooks] = PostgresWebhooks
