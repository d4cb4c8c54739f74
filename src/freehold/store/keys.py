"""API keys as kept: implements core.ports.Keys. Not here: secrets, digests and who may do what (governance/)."""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from freehold.core.errors import NotFound
from freehold.core.policy import Policy
from freehold.core.ports import KeyRow, Keys
from freehold.store._listen import Listener
from freehold.store.database import Database, Row

LIST_MAX: Final = 100_000
CHANNEL: Final = "freehold_keys"

_COLUMNS: Final = "id, tenant, name, digest, policy, created_at, expires_at, revoked_at, last_used_at, team, user_name, labels"
_ADD: Final = f"""
INSERT INTO api_keys ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
RETURNING pg_notify('{CHANNEL}', '')
"""  # noqa: S608 - our own constants
_LIST: Final = f"""
SELECT {_COLUMNS} FROM api_keys WHERE $1::text IS NULL OR tenant = $1 ORDER BY id LIMIT $2
"""  # noqa: S608 - our own constants
_REVOKE: Final = f"""
UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE tenant = $1 AND id = $2
RETURNING {_COLUMNS}, pg_notify('{CHANNEL}', '')
"""  # noqa: S608 - our own constants


class PostgresKeys:
    """`changed` hears of other processes once `listener` runs."""

    def __init__(self, database: Database, listener: Listener) -> None:
        self._database = database
        self._change = asyncio.Event()
        listener.on(CHANNEL, self._hear)

    def _hear(self, _payload: str | None, _server_pid: int) -> None:
        self._tell()

    def _tell(self) -> None:
        """Wakes who waits now, and whoever waits later waits for the next change."""
        self._change.set()
        self._change = asyncio.Event()

    async def add(self, key: KeyRow) -> None:
        """Raises Conflict when the id or the digest is there already."""
        await self._database.fetch(
            "adding an API key",
            _ADD,
            key.id,
            key.tenant,
            key.name,
            key.digest,
            msgspec.json.encode(key.policy).decode(),
            key.created_at,
            key.expires_at,
            key.revoked_at,
            key.last_used_at,
            key.team,
            key.user,
            list(key.labels),
        )
        self._tell()

    async def list(self, tenant: str | None) -> Sequence[KeyRow]:
        """Oldest first, the revoked ones too; of all tenants for None."""
        return [_key(row) for row in await self._database.fetch("listing API keys", _LIST, tenant, LIST_MAX)]

    async def revoke(self, tenant: str, key_id: str) -> KeyRow:
        rows = await self._database.fetch("revoking an API key", _REVOKE, tenant, key_id)
        if not rows:
            raise NotFound(f"no API key {key_id[:80]!r}")
        self._tell()
        return _key(rows[0])

    async def changed(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._change.wait()
        except TimeoutError:
            return


def _key(row: Row) -> KeyRow:
    return KeyRow(
        id=row["id"],
        tenant=row["tenant"],
        name=row["name"],
        digest=row["digest"],
        policy=msgspec.json.decode(row["policy"], type=Policy),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
        team=row["team"],
        user=row["user_name"],
        labels=tuple(row["labels"]),
    )


_IMPLEMENTS: type[Keys] = PostgresKeys
