"""Webhooks' rows beside their declarations, written with them in one transaction. How they do: webhooks.py."""

from collections.abc import Sequence
from typing import Final

from freehold.core.errors import LimitReached
from freehold.core.webhooks import WEBHOOKS_MAX, Webhook
from freehold.store.database import Connection

# One that was disabled is tried again at another address.
_DECLARE: Final = """
INSERT INTO webhook_endpoints AS e (tenant, name, url, events) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant, name) DO UPDATE SET url = excluded.url, events = excluded.events,
    disabled_at = CASE WHEN e.url = excluded.url THEN e.disabled_at END,
    disabled_reason = CASE WHEN e.url = excluded.url THEN e.disabled_reason END,
    failing_since = CASE WHEN e.url = excluded.url THEN e.failing_since END
"""
_COUNT: Final = "SELECT count(*) FROM webhook_endpoints WHERE tenant = $1"
_WATCH: Final = "SELECT watch_sessions_for_webhooks()"
_UNDECLARE: Final = "DELETE FROM webhook_endpoints WHERE tenant = $1 AND name = $2"


async def declare(connection: Connection, tenant: str, webhooks: Sequence[Webhook]) -> None:
    """Raises LimitReached where the tenant would have too many."""
    for one in webhooks:
        await connection.execute(_DECLARE, tenant, one.name, one.url, list(one.events))
    if webhooks:
        count = await connection.fetchval(_COUNT, tenant)
        if count > WEBHOOKS_MAX:
            raise LimitReached(f"expected {WEBHOOKS_MAX} webhooks at most, these would be {count}")
        await connection.execute(_WATCH)


async def undeclare(connection: Connection, tenant: str, name: str) -> None:
    """With what was still to be delivered to it."""
    await connection.execute(_UNDECLARE, tenant, name)
