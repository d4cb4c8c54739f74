"""What is declared, with every version that ever was: implements core.ports.Resources.

Not here: templates and plans (resources/), or whether a resource makes sense (whoever opens it).
"""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeAlias

import msgspec

from freehold.core.errors import BadRequest, Conflict, Internal
from freehold.core.ports import Resources, Versioned
from freehold.core.resources import KINDS, Agent, Kind, Resource, Tool, check_name, kind_of
from freehold.core.schedules import Deployment
from freehold.core.webhooks import Webhook
from freehold.store import _deployment_statements, _webhook_statements
from freehold.store._gather import Gather
from freehold.store._listen import Listener
from freehold.store._names import missing
from freehold.store.database import Connection, Database, Row

Named: TypeAlias = tuple[str, Kind, str]
"""A tenant's resource."""

PUT_MAX: Final = 1000
READ_TOGETHER_MAX: Final = 100
LIST_MAX: Final = 10_000
CHANNEL: Final = "freehold_resources"

_decoder: msgspec.json.Decoder[Resource] = msgspec.json.Decoder(Resource)

_CURRENT: Final = """
SELECT r.name, r.kind, r.version, r.archived, r.created_at, r.updated_at, v.body, v.created_by
FROM resources r
JOIN resource_versions v ON (v.tenant, v.kind, v.name, v.version) = (r.tenant, r.kind, r.name, r.version)
"""
_GET: Final = """
SELECT w.place, r.name, r.kind, r.version, r.archived, r.created_at, r.updated_at, v.body, v.created_by
FROM unnest($1::int[], $2::text[], $3::text[], $4::text[]) AS w (place, tenant, kind, name)
JOIN resources r ON (r.tenant, r.kind, r.name) = (w.tenant, w.kind, w.name)
JOIN resource_versions v ON (v.tenant, v.kind, v.name, v.version) = (r.tenant, r.kind, r.name, r.version)
WHERE NOT r.archived
"""
_LIST: Final = f"""{_CURRENT}
WHERE r.tenant = $1 AND ($5 OR NOT r.archived) AND r.kind = ANY ($2::text[])
ORDER BY array_position($3::text[], r.kind), r.name LIMIT $4
"""
_VERSIONS: Final = """
SELECT r.name, r.kind, v.version, r.archived, r.created_at, v.created_at AS updated_at, v.body, v.created_by
FROM resources r JOIN resource_versions v ON (v.tenant, v.kind, v.name) = (r.tenant, r.kind, r.name)
WHERE r.tenant = $1 AND r.kind = $2 AND r.name = $3 AND ($4::int IS NULL OR v.version = $4)
ORDER BY v.version DESC LIMIT $5
"""
_SOME: Final = f"""{_CURRENT}
WHERE r.tenant = $1 AND (r.kind, r.name) IN (SELECT * FROM unnest($2::text[], $3::text[]))
"""  # noqa: S608 - our own constants
_KEPT: Final = """
SELECT r.kind, r.name, r.version, r.archived, v.digest
FROM resources r
JOIN resource_versions v ON (v.tenant, v.kind, v.name, v.version) = (r.tenant, r.kind, r.name, r.version)
WHERE r.tenant = $1 AND (r.kind, r.name) IN (SELECT * FROM unnest($2::text[], $3::text[]))
"""
_WRITE: Final = """
WITH given AS (
    SELECT * FROM unnest($2::text[], $3::text[], $4::int[], $5::bytea[], $6::bytea[]) AS g (kind, name, version, body, digest)
), kept AS (
    INSERT INTO resource_versions (tenant, kind, name, version, body, digest, created_by)
    SELECT $1, kind, name, version, body, digest, $7 FROM given
    ON CONFLICT DO NOTHING
)
INSERT INTO resources (tenant, kind, name, version, updated_by) SELECT $1, kind, name, version, $7 FROM given
ON CONFLICT (tenant, kind, name)
DO UPDATE SET version = excluded.version, archived = false, updated_at = now(), updated_by = excluded.updated_by
"""
_ARCHIVE: Final = """
UPDATE resources SET archived = true, updated_at = now(), updated_by = $4
WHERE tenant = $1 AND kind = $2 AND name = $3 AND NOT archived
RETURNING name
"""
_USED_BY: Final = "SELECT id FROM sessions WHERE tenant = $1 AND setup ->> 'environment' = $2 LIMIT 1"
_DELETE: Final = """
WITH gone AS (
    DELETE FROM resources WHERE tenant = $1 AND kind = 'environment' AND name = $2 RETURNING name
), versions AS (
    DELETE FROM resource_versions WHERE tenant = $1 AND kind = 'environment' AND name IN (SELECT name FROM gone)
)
SELECT name FROM gone
"""
# Changes of one tenant's resources go one after the other: what is compared is what is then written, also where nothing is yet.
_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(hashtext('freehold.resources'), hashtext($1))"
# What claims of sessions and of tools' places go by (migrations/0008_queues.sql, 0017_tool_places.sql) is in rows of its own: they can't
# look into declarations.
_UNLIMIT: Final = "DELETE FROM session_limits WHERE tenant = $1 AND agent = ANY ($2::text[])"
_LIMIT: Final = """
INSERT INTO session_limits (tenant, agent, running_max) SELECT $1, * FROM unnest($2::text[], $3::int[])
"""
_UNLIMIT_TOOLS: Final = "DELETE FROM tool_limits WHERE tenant = $1 AND tool = ANY ($2::text[])"
_LIMIT_TOOLS: Final = """
INSERT INTO tool_limits (tenant, tool, concurrency_max) SELECT $1, * FROM unnest($2::text[], $3::int[])
"""
_NOTIFY: Final = f"SELECT pg_notify('{CHANNEL}', '')"


class PostgresResources:
    """`generation` follows other processes' changes once `listener` runs."""

    def __init__(self, database: Database, listener: Listener, current: Gather[Named, Row | None]) -> None:
        self._database = database
        self._current = current
        self._generation = 0
        listener.on(CHANNEL, self._hear)

    def _hear(self, _payload: str | None, _server_pid: int) -> None:
        self._generation += 1

    def generation(self) -> int:
        return self._generation

    async def get(self, tenant: str, kind: Kind, name: str, *, version: int | None = None) -> Versioned:
        """A given version is found also when the resource is archived: sessions pinned to it go on."""
        if version is None:
            row = await self._current((tenant, kind, name))
        else:
            rows = await self._database.fetch(
                f"reading {kind} {name[:80]!r}", _VERSIONS, tenant, kind, name, version, 1
            )
            row = rows[0] if rows else None
        if row is None:
            raise await missing(self._database, tenant, kind, name, version)
        return _versioned(row)

    async def list(
        self, tenant: str, kind: Kind | None = None, *, archived: bool = False
    ) -> Sequence[Versioned]:
        """In the order of KINDS, then by name."""
        kinds = [one for one in KINDS if one != "deployment"] if kind is None else [kind]
        rows = await self._database.fetch(
            "listing resources", _LIST, tenant, kinds, list(KINDS), LIST_MAX, archived
        )
        return [_versioned(row) for row in rows]

    async def versions(self, tenant: str, kind: Kind, name: str) -> Sequence[Versioned]:
        """Newest first, also of an archived resource."""
        rows = await self._database.fetch(
            f"reading versions of {kind} {name[:80]!r}", _VERSIONS, tenant, kind, name, None, LIST_MAX
        )
        if not rows:
            raise await missing(self._database, tenant, kind, name, None)
        return [_versioned(row) for row in rows]

    async def put(
        self,
        tenant: str,
        resources: Sequence[Resource],
        *,
        by: str,
        expected: Mapping[tuple[Kind, str], int] | None = None,
    ) -> Sequence[Versioned]:
        """In the order given. An archived resource counts as absent for `expected`; putting it brings it back."""
        wanted = _by_name(resources)
        unknown = [f"{kind} {name}" for kind, name in expected or {} if (kind, name) not in wanted]
        if unknown:
            raise BadRequest(
                f"expected only resources that are put, got {', '.join(unknown)}", field="expected"
            )

        async def put(connection: Connection) -> tuple[bool, Sequence[Row]]:
            changed = await _put(connection, tenant, wanted, by, expected or {})
            rows = await connection.fetch(_SOME, tenant, *_columns(wanted))
            return changed, rows

        changed, rows = await self._database.in_transaction("putting resources", put)
        self._generation += changed
        current = {(row["kind"], row["name"]): _versioned(row) for row in rows}
        return [current[key] for key in wanted]

    async def archive(self, tenant: str, kind: Kind, name: str, *, by: str) -> None:
        """Its versions stay readable by number. Raises NotFound, also when it is archived already."""

        async def archive(connection: Connection) -> bool:
            await connection.execute(_ONE_AT_A_TIME, tenant)
            if not await connection.fetch(_ARCHIVE, tenant, kind, name, by):
                return False
            if kind == "webhook":
                await _webhook_statements.undeclare(connection, tenant, name)
            if kind == "deployment":
                await _deployment_statements.archive(connection, tenant, name)
            await connection.execute(_NOTIFY)
            return True

        if not await self._database.in_transaction(f"archiving {kind} {name[:80]!r}", archive):
            raise await missing(self._database, tenant, kind, name, None)
        self._generation += 1

    async def delete_environment(self, tenant: str, name: str) -> None:
        """A session that begins in it at this very moment fails its first turn, and says why."""

        async def delete(connection: Connection) -> bool:
            await connection.execute(_ONE_AT_A_TIME, tenant)
            if (session_id := await connection.fetchval(_USED_BY, tenant, name)) is not None:
                raise Conflict(
                    f"environment {name!r} has sessions in it ({session_id}, for one): delete them first, or archive it"
                )
            found = await connection.fetch(_DELETE, tenant, name)
            await connection.execute(_NOTIFY)
            return bool(found)

        if not await self._database.in_transaction(f"deleting environment {name[:80]!r}", delete):
            raise await missing(self._database, tenant, "environment", name, None)
        self._generation += 1


async def _put(
    connection: Connection,
    tenant: str,
    wanted: Mapping[tuple[Kind, str], Resource],
    by: str,
    expected: Mapping[tuple[Kind, str], int],
) -> bool:
    """Whether anything changed."""
    await connection.execute(_ONE_AT_A_TIME, tenant)
    kept = {
        (row["kind"], row["name"]): row for row in await connection.fetch(_KEPT, tenant, *_columns(wanted))
    }
    _check_expected(kept, expected)
    writes = []
    for key, resource in wanted.items():
        row, digest = kept.get(key), _digest(resource)
        same = row is not None and row["digest"] == digest
        if row is None or row["archived"] or not same:
            version = 1 if row is None else row["version"] + (not same)
            writes.append((*key, version, msgspec.json.encode(resource), digest))
    if writes:
        await connection.execute(_WRITE, tenant, *map(list, zip(*writes, strict=True)), by)
        await _limit(connection, tenant, [one for one in wanted.values() if isinstance(one, Agent)])
        changed = {(kind, name) for kind, name, *_ in writes}
        deployments = [one for key, one in wanted.items() if key in changed and isinstance(one, Deployment)]
        await _deployment_statements.declare(connection, tenant, deployments)
        webhooks = [one for key, one in wanted.items() if key in changed and isinstance(one, Webhook)]
        await _webhook_statements.declare(connection, tenant, webhooks)
        await _limit_tools(connection, tenant, [one for one in wanted.values() if isinstance(one, Tool)])
        await connection.execute(_NOTIFY)
    return bool(writes)


async def _limit(connection: Connection, tenant: str, agents: Sequence[Agent]) -> None:
    limited = {
        one.name: one.limits.sessions_running_max
        for one in agents
        if one.limits.sessions_running_max is not None
    }
    if agents:
        await connection.execute(_UNLIMIT, tenant, [one.name for one in agents])
    if limited:
        await connection.execute(_LIMIT, tenant, list(limited), list(limited.values()))


async def _limit_tools(connection: Connection, tenant: str, tools: Sequence[Tool]) -> None:
    limited = {one.name: one.concurrency_max for one in tools if one.concurrency_max is not None}
    if tools:
        await connection.execute(_UNLIMIT_TOOLS, tenant, [one.name for one in tools])
    if limited:
        await connection.execute(_LIMIT_TOOLS, tenant, list(limited), list(limited.values()))


def _check_expected(kept: Mapping[tuple[str, str], Row], expected: Mapping[tuple[Kind, str], int]) -> None:
    for (kind, name), version in expected.items():
        row = kept.get((kind, name))
        found = 0 if row is None or row["archived"] else row["version"]
        if found != version:
            raise Conflict(
                f"{kind} {name} was expected at version {version} and is at {found} (0: does not exist): "
                "look at what changed, then put again"
            )


def _by_name(resources: Sequence[Resource]) -> dict[tuple[Kind, str], Resource]:
    if len(resources) > PUT_MAX:
        raise BadRequest(
            f"expected at most {PUT_MAX} resources at once, got {len(resources)}", field="resources"
        )
    wanted: dict[tuple[Kind, str], Resource] = {}
    for place, resource in enumerate(resources):
        key = (kind_of(resource), check_name(resource.name, field=f"resources[{place}].name"))
        if key in wanted:
            raise BadRequest(f"{key[0]} {key[1]} is given twice", field=f"resources[{place}]")
        wanted[key] = resource
    return wanted


def _columns(wanted: Mapping[tuple[Kind, str], Resource]) -> tuple[list[str], list[str]]:
    return [kind for kind, _ in wanted], [name for _, name in wanted]


def _digest(resource: Resource) -> bytes:
    """Of the canonical form: keys in order, so that only a change of meaning is a change."""
    return hashlib.sha256(msgspec.json.encode(resource, order="deterministic")).digest()


async def _rows(database: Database, named: Sequence[Named]) -> Sequence[Row | None]:
    """Each is asked for once, however many want it."""
    wanted = {one: place for place, one in enumerate(dict.fromkeys(named))}
    rows = await database.fetch(
        "reading declarations", _GET, list(wanted.values()), *zip(*wanted, strict=True)
    )
    found = {row["place"]: row for row in rows}
    return [found.get(wanted[one]) for one in named]


@asynccontextmanager
async def open_resources(database: Database, listener: Listener) -> AsyncIterator[PostgresResources]:
    """`listener` must not run yet."""
    gather: Gather[Named, Row | None] = Gather(
        "reading declarations", partial(_rows, database), most=READ_TOGETHER_MAX
    )
    async with gather.running() as current:
        yield PostgresResources(database, listener, current)


def _versioned(row: Row) -> Versioned:
    try:
        resource = _decoder.decode(row["body"])
    except msgspec.MsgspecError as error:
        raise Internal(
            f"{row['kind']} {row['name']} cannot be read: it was written by a newer Freehold, or damaged",
            detail=str(error),
        ) from error
    return Versioned(
        resource=resource,
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        created_by=row["created_by"],
        archived=row["archived"],
    )


_IMPLEMENTS: type[Resources] = PostgresResources
