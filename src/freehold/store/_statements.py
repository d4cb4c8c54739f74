"""The log's two writing statements: each writes a whole batch of many sessions, in one transaction, in one round trip.

All conditions (version, lease, idempotency key, cancelled) are checked inside the statement, on the row that it locks: a
process that is frozen between two thoughts holds no lock and cannot write late. A refused group leaves no trace.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import cache
from itertools import accumulate
from typing import Any, Final

import msgspec
from msgspec import Struct

from freehold.core.messages import NO_USAGE, Usage
from freehold.core.session_log import SessionRow
from freehold.store._batch import FIRST_EPOCH, Create, Group
from freehold.store._events import Encoded
from freehold.store.database import Connection

USAGE_COLUMNS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
)
_NO_USAGES: Final = ["{}"] * (len(USAGE_COLUMNS) + 1)
_USAGE: Final = ", ".join(USAGE_COLUMNS)
_USAGE_ADDED: Final = ", ".join(f"{name} = s.{name} + coalesce(w.{name}, 0)" for name in USAGE_COLUMNS)
_USAGE_TYPES: Final = ", ".join(f"${place}::text::bigint[]" for place in range(8, 16))

LOG_CHANNEL: Final = "freehold_log"
WORK_CHANNEL: Final = "freehold_work"
NOTIFY_BYTES_MAX: Final = 7999
EVERYTHING: Final = "*"
"""The payload when there are too many ids for one: every follower looks."""

# The writer's own connection plans each statement once, and always walks the batch in its order (by id) with one index look-up
# a session: so rows are locked in the same order in every process.
WRITER_SETTINGS: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_mergejoin": "off",
}

# $1-$20: one element a group; where an array is shorter (see _sparse), unnest fills up with NULL. first: of its events, among all.
# $21: the events' types; $22: their bodies, one after the other; $23 and $24: where each begins, and its size. $25: what to tell.
# Events are found by their number, since a join would compare each with each: the planner expects few.
# Most arrays are sent as their text: the driver takes 0.4 us and some twenty calls of functions for every element of a list.
# Steps that most batches need not: where there are keys; and where there are blocks, $26-$28 being one element a block. Sorted, so that two processes never wait for each
# other. Placeholders, since its numbers and the step that it follows differ.
_BLOCKS: Final = """, offered AS (
    SELECT s.id, s.tenant, b.digest, b.body
    FROM unnest({0}::text[], {1}::text[], {2}::bytea[]) AS b (id, digest, body)
    JOIN {3} s ON s.id = b.id
), kept AS (
    INSERT INTO blocks (tenant, digest, body) SELECT tenant, digest, body FROM offered ORDER BY tenant, digest ON CONFLICT DO NOTHING
), used AS (
    INSERT INTO block_uses (session_id, tenant, digest) SELECT id, tenant, digest FROM offered ON CONFLICT DO NOTHING
)"""

# The same for ids by which clients may refer to what is said: session, id, and the event's place in what is written here. The last
# placeholders are the step that it follows, and how many events its log had before.
_ITEMS: Final = """, named AS (
    INSERT INTO items (tenant, item_id, session_id, seq)
    SELECT s.tenant, i.item_id, s.id, {4} + i.place
    FROM unnest({0}::text::text[], {1}::text::text[], {2}::text::int[]) AS i (id, item_id, place)
    JOIN {3} s ON s.id = i.id
)"""

_WANTED: Final = f"""
WITH wanted AS (
    SELECT * FROM unnest(
        $1::text::text[], $2::text::bigint[], $3::text::bigint[], $4::text[], $5::text::int[], $6::text::text[], $7::text::bigint[],
        {_USAGE_TYPES}, $16::text::boolean[], $17::jsonb[], $18::timestamptz[], $19::text::boolean[], $20::text::int[]
    ) AS w (id, expected, epoch, key, added, status, cost_pico, {_USAGE}, estimated, waits, wake_at, freed, first)
)"""  # noqa: S608 - built from our own constants alone
_REMEMBERED: Final = """, remembered AS (
    SELECT w.id, k.version FROM wanted w JOIN append_keys k ON k.session_id = w.id AND k.key = w.key
)"""
_MOVED: Final = f""", moved AS (
    UPDATE sessions s
    SET version = s.version + w.added,
        status = coalesce(w.status, s.status),
        updated_at = greatest(s.updated_at, now()),
        owner = CASE WHEN w.freed THEN NULL ELSE s.owner END,
        epoch = CASE WHEN w.freed THEN s.epoch + 1 ELSE s.epoch END,
        due_at = CASE
            WHEN w.freed AND coalesce(w.status, s.status) = 'waiting' THEN
                coalesce(CASE WHEN w.status IS NULL THEN s.wake_at ELSE w.wake_at END, 'infinity')
            WHEN w.freed THEN now()
            WHEN w.status = 'running' AND s.status <> 'running' AND s.owner IS NULL THEN now()
            ELSE s.due_at
        END,
        waits = CASE WHEN w.status IS NULL THEN s.waits ELSE w.waits END,
        wake_at = CASE WHEN w.status IS NULL THEN s.wake_at ELSE w.wake_at END,
        cost_pico = s.cost_pico + coalesce(w.cost_pico, 0),
        {_USAGE_ADDED},
        estimated = s.estimated OR coalesce(w.estimated, false)
    FROM wanted w
    WHERE s.id = w.id
      AND s.status <> 'cancelled'
      AND (w.expected IS NULL OR s.version = w.expected)
      AND (w.epoch IS NULL OR s.epoch = w.epoch)"""  # noqa: S608 - built from our own constants alone
_NOT_REMEMBERED: Final = """
      AND NOT EXISTS (SELECT FROM remembered r WHERE r.id = w.id)"""
# Whoever gives back one of an agent's limited places calls the workers, too: another of its sessions may be waiting for it.
_WRITTEN: Final = """
    RETURNING s.id, s.tenant, s.version, s.version - w.added AS base, s.updated_at, w.key, w.first, w.added,
              s.owner IS NULL AND (w.status = 'running' OR w.freed AND (s.status = 'running' OR EXISTS (
                  SELECT FROM session_limits l WHERE l.tenant = s.tenant AND l.agent = s.agent
              ))) AS claimable
), written AS (
    INSERT INTO events (session_id, seq, tenant, at, type, body)
    SELECT m.id, m.base + 1 + m.n - m.first, m.tenant, m.updated_at, ((SELECT $21::text::text[]))[m.n],
           substr($22::bytea, ((SELECT $23::text::int[]))[m.n], ((SELECT $24::text::int[]))[m.n])
    FROM (SELECT *, generate_series(first, first + added - 1) AS n FROM moved) AS m
)"""
_KEYED: Final = """, keyed AS (
    INSERT INTO append_keys (session_id, key, tenant, version) SELECT id, key, tenant, version FROM moved WHERE key IS NOT NULL
)"""
_APPENDED: Final = f"""
SELECT id, version, claimable,
       (SELECT pg_notify('{LOG_CHANNEL}', $25)) AS told,
       (SELECT pg_notify('{WORK_CHANNEL}', '') FROM moved WHERE claimable LIMIT 1) AS called
FROM moved"""  # noqa: S608 - built from our own constants alone
_APPENDED_EARLIER: Final = """
UNION ALL
SELECT id, version, false, NULL, NULL FROM remembered"""


def _places(first: int, count: int) -> list[str]:
    return [f"${place}" for place in range(first, first + count)]


@cache
def append_statement(*, keys: bool, blocks: bool, items: bool) -> str:
    steps = (
        [_WANTED, _REMEMBERED, _MOVED, _NOT_REMEMBERED, _WRITTEN, _KEYED]
        if keys
        else [_WANTED, _MOVED, _WRITTEN]
    )
    if blocks:
        steps.append(_BLOCKS.format(*_places(26, 3), "moved"))
    if items:
        steps.append(_ITEMS.format(*_places(29 if blocks else 26, 3), "moved", "s.base"))
    steps.append(_APPENDED)
    return "".join([*steps, _APPENDED_EARLIER] if keys else steps)


EXPLAIN: Final = "SELECT id, version, status, owner, epoch FROM sessions WHERE id = ANY($1::text[])"

# What no session of a batch has is not in its statement: few have more than a status, a title and who made them.
# $1 and so on: one element a session, as _COLUMNS has them; opening is the number of its last events that are written only where it is
# claimed as it begins: by owner, unless its agent's places are limited. Then, where any may be claimed, for how long; then the
# events, as above; then blocks and items.
_COLUMNS: Final = {
    "id": "text", "tenant": "text", "agent": "text", "agent_version": "int", "status": "text", "version": "int", "title": "text",
    "created_by": "text", "metadata": "jsonb", "model": "text", "parent_id": "text", "setup": "jsonb", "when_busy": "text", "kind": "text",
    "origin_id": "text", "cost_pico": "bigint", **dict.fromkeys(USAGE_COLUMNS, "bigint"), "estimated": "boolean", "key": "text",
    "owner": "text", "opening": "int", "first": "int",
}  # fmt: skip
_UNLESS_SAID: Final = {
    "title": "''",
    "metadata": "'{}'",
    "kind": "'agent'",
    "estimated": "false",
    **dict.fromkeys(("cost_pico", *USAGE_COLUMNS), "0"),
}
_NEEDED: Final = frozenset({"title", "metadata"})
"""Of those that may be left out, what the table has no default for."""

_CLAIMED: Final = """w.owner IS NOT NULL AND NOT EXISTS (
    SELECT FROM session_limits l WHERE l.tenant = w.tenant AND l.agent = w.agent
) AS claimed"""


@cache
def create_statement(columns: tuple[str, ...], *, blocks: bool, items: bool) -> str:
    """`columns` are those that some session of the batch has something in."""
    keyed, born = "key" in columns, "owner" in columns
    given = [f"${place}::text::{_COLUMNS[name]}[]" for place, name in enumerate(columns, 1)]
    place = len(columns) + 1
    said = {
        name: f"coalesce({name}, {_UNLESS_SAID[name]})" if name in _UNLESS_SAID else name for name in columns
    }
    said |= {name: _UNLESS_SAID[name] for name in sorted(_NEEDED - set(columns))}
    said.pop("key", None)
    said.pop("first")
    if born:
        lease = f"${place}::interval"
        place += 1
        said.pop("opening")
        said["version"] = "version + CASE WHEN claimed THEN opening ELSE 0 END"
        said["owner"] = "CASE WHEN claimed THEN owner END"
        said["epoch"] = f"CASE WHEN claimed THEN {FIRST_EPOCH} ELSE 0 END"
        said["due_at"] = f"now() + CASE WHEN claimed THEN {lease} ELSE '0' END"
    types, bodies, begins, sizes = _places(place, 4)
    place += 4
    statement = f"""
WITH wanted AS (
    SELECT w.*{", " + _CLAIMED if born else ""} FROM unnest({", ".join(given)}) AS w ({", ".join(columns)})
){_FOUND_EARLIER if keyed else ""}, made AS (
    INSERT INTO sessions ({", ".join(said)})
    SELECT {", ".join(said.values())}
    FROM wanted w {"WHERE NOT EXISTS (SELECT FROM remembered r WHERE r.id = w.id)" if keyed else ""}
    ON CONFLICT (id) DO NOTHING
    RETURNING id, tenant, version, created_at, owner IS NOT NULL AS claimed, status = 'running' AND owner IS NULL AS claimable
), written AS (
    INSERT INTO events (session_id, seq, tenant, at, type, body)
    SELECT m.id, 1 + m.n - m.first, m.tenant, m.created_at, ((SELECT {types}::text::text[]))[m.n],
           substr({bodies}::bytea, ((SELECT {begins}::text::int[]))[m.n], ((SELECT {sizes}::text::int[]))[m.n])
    FROM (
        SELECT made.*, w.first, generate_series(w.first, w.first + made.version - 1) AS n FROM made JOIN wanted w ON w.id = made.id
    ) AS m
){_KEY_KEPT if keyed else ""}"""  # noqa: S608 - built from our own constants alone
    if blocks:
        statement += _BLOCKS.format(*_places(place, 3), "made")
        place += 3
    if items:
        statement += _ITEMS.format(*_places(place, 3), "made", "0")
    return statement + _CREATED + (_CREATED_EARLIER if keyed else "")


_FOUND_EARLIER: Final = """, remembered AS (
    SELECT w.id, k.session_id FROM wanted w JOIN create_keys k ON k.tenant = w.tenant AND k.key = w.key
)"""
_KEY_KEPT: Final = """, keyed AS (
    INSERT INTO create_keys (tenant, key, session_id)
    SELECT w.tenant, w.key, w.id FROM wanted w JOIN made m ON m.id = w.id WHERE w.key IS NOT NULL
)"""
_CREATED: Final = f"""
SELECT id, version, created_at, NULL AS earlier, claimed, claimable,
       (SELECT pg_notify('{WORK_CHANNEL}', '') FROM made WHERE claimable LIMIT 1) AS called
FROM made"""  # noqa: S608 - built from our own constants alone
_CREATED_EARLIER: Final = """
UNION ALL
SELECT id, NULL, NULL, session_id, false, false, NULL FROM remembered"""


class Written(Struct, frozen=True):
    """What became of a batch, by session id: absent is refused."""

    versions: dict[str, int]
    woken: bool


async def write_appends(connection: Connection, groups: Sequence[Group]) -> Written:
    changes = [group.change for group in groups]
    ids = [group.session_id for group in groups]
    types: list[str] = []
    bodies: list[bytes] = []
    for group in groups:
        for append in group.appends:
            types += append.encoded.types
            bodies += append.encoded.bodies
    keys = _sparse([group.appends[0].key for group in groups])
    blocks = _block_columns([(group.session_id, one.encoded) for group in groups for one in group.appends])
    items = _item_columns((group.session_id, [one.encoded for one in group.appends]) for group in groups)
    rows = await connection.fetch(
        append_statement(keys=bool(keys), blocks=bool(blocks), items=bool(items)),
        _texts(ids),
        _numbers([group.base for group in groups]),
        _numbers([group.lease.epoch if group.lease else None for group in groups]),
        keys,
        _numbers([group.count for group in groups]),
        _words([change.status for change in changes]),
        _amounts([change.cost_pico for change in changes]),
        *_usage_arrays([change.usage for change in changes]),
        _sparse([change.waits and _json(change.waits) for change in changes]),
        _sparse([change.waits and change.waits.until for change in changes]),
        _amounts([group.releases for group in groups]),
        _numbers(_firsts([group.count for group in groups])),
        *_event_columns(types, bodies),
        _payload(ids),
        *blocks,
        *items,
    )
    versions: dict[str, int] = {}
    woken = False
    for session_id, version, claimable, _, _ in rows:
        versions[session_id] = version
        woken = woken or bool(claimable)
    return Written(versions, woken)


class Made(Struct, frozen=True):
    """What became of a batch of new sessions, by the id asked for: absent is refused, a text is the earlier session's id. `taken` are
    those that a worker has from their beginning on."""

    sessions: dict[str, SessionRow | str]
    taken: frozenset[str]
    woken: bool


async def write_creates(connection: Connection, creates: Sequence[Create]) -> Made:
    asked = {create.row.id: create.row for create in creates}
    leases_s = [create.birth.lease_s for create in creates if create.birth is not None]
    counts: list[int] = []
    types: list[str] = []
    bodies: list[bytes] = []
    for create in creates:
        before = len(types)
        for encoded in (create.encoded, *([create.birth.encoded] if create.birth else [])):
            types += encoded.types
            bodies += encoded.bodies
        counts.append(len(types) - before)
    columns = _create_columns(creates) | {"first": _numbers(_firsts(counts))}
    blocks = _block_columns([(create.row.id, create.encoded) for create in creates])
    items = _item_columns((create.row.id, [create.encoded]) for create in creates)
    rows = await connection.fetch(
        create_statement(tuple(columns), blocks=bool(blocks), items=bool(items)),
        *columns.values(),
        *([timedelta(seconds=max(leases_s))] if leases_s else []),
        *_event_columns(types, bodies),
        *blocks,
        *items,
    )
    sessions: dict[str, SessionRow | str] = {}
    for row in rows:
        at = row["created_at"]
        sessions[row["id"]] = row["earlier"] or msgspec.structs.replace(
            asked[row["id"]], version=row["version"], created_at=at, updated_at=at
        )
    taken = frozenset([row["id"] for row in rows if row["claimed"]])
    return Made(sessions, taken, any(row["claimable"] for row in rows))


def _create_columns(creates: Sequence[Create]) -> dict[str, str]:
    """As _COLUMNS has them; those that say nothing of any session are left out."""
    rows = [create.row for create in creates]
    births = [create.birth for create in creates]
    found = {
        "id": _texts([row.id for row in rows]),
        "tenant": _texts([row.tenant for row in rows]),
        "agent": _texts([row.agent for row in rows]),
        "agent_version": _numbers([row.agent_version for row in rows]),
        "status": _words([row.status for row in rows]),
        "version": _numbers([row.version for row in rows]),
        "title": _texts([row.title or None for row in rows]),
        "created_by": _texts([row.created_by for row in rows]),
        "metadata": _texts([_json(row.metadata) if row.metadata else None for row in rows]),
        "model": _texts([row.model for row in rows]),
        "parent_id": _texts([row.parent_id for row in rows]),
        "setup": _texts([None if row.setup is None else _json(row.setup) for row in rows]),
        "when_busy": _texts([None if row.when_busy == "queue" else row.when_busy for row in rows]),
        "kind": _texts([None if row.kind == "agent" else row.kind for row in rows]),
        "origin_id": _texts([row.origin_id for row in rows]),
        "cost_pico": _amounts([row.cost_pico for row in rows]),
        **dict(zip((*USAGE_COLUMNS, "estimated"), _usage_arrays([row.usage for row in rows]), strict=True)),
        "key": _texts([create.key for create in creates]),
        "owner": _texts([None if birth is None else birth.owner for birth in births]),
        "opening": _amounts([len(birth.encoded.types) if birth else 0 for birth in births]),
    }
    return {name: column for name, column in found.items() if column != "{}"}


def _block_columns(written: Sequence[tuple[str, Encoded]]) -> Sequence[Sequence[Any]]:
    """Session, digest and body of every block; none at all where there is none."""
    found = [
        (session_id, digest, body)
        for session_id, encoded in written
        if encoded.blocks
        for digest, body in encoded.blocks.items()
    ]
    return list(zip(*found, strict=True)) if found else ()


def _firsts(counts: Sequence[int]) -> list[int]:
    """Of rows of so many each, one after the other, the number of each one's first, from 1 on."""
    return list(accumulate(counts[:-1], initial=1)) if counts else []


def _event_columns(types: Sequence[str], bodies: Sequence[bytes]) -> tuple[str, bytes, str, str]:
    """The bodies as one: the driver takes its time for every element of a list."""
    sizes = [len(body) for body in bodies]
    return _words(types), b"".join(bodies), _numbers(_firsts(sizes)), _numbers(sizes)


def _item_columns(written: Iterable[tuple[str, Sequence[Encoded]]]) -> Sequence[str]:
    """Session, id and place of every item; none at all where there is none. What goes to one session stands in order."""
    found: list[tuple[str, str, int]] = []
    for session_id, appended in written:
        before = 0
        for encoded in appended:
            if encoded.items:
                found += [(session_id, item_id, before + place) for place, item_id in encoded.items]
            before += len(encoded.types)
    if not found:
        return ()
    ids, item_ids, places = zip(*found, strict=True)
    return (_texts(ids), _texts(item_ids), _numbers(list(places)))


def _usage_arrays(usages: Sequence[Usage]) -> list[str]:
    """In the order of USAGE_COLUMNS, then `estimated`: as Usage has them."""
    if all(usage is NO_USAGE for usage in usages):
        return _NO_USAGES
    return [_amounts([*column]) for column in zip(*map(msgspec.structs.astuple, usages), strict=True)]


def _amounts(column: Sequence[int]) -> str:
    """Nothing at all for a column of zeros."""
    return _numbers(column) if any(column) else "{}"


def _numbers(column: Sequence[int | None]) -> str:
    """Or booleans. As PostgreSQL writes an array: https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO"""
    return f"{{{str(column)[1:-1].replace('None', 'NULL')}}}"


def _words(column: Sequence[str | None]) -> str:
    """Of ours, in which there is nothing to quote."""
    return f"{{{','.join([word or 'NULL' for word in column])}}}"


def _texts(column: Sequence[str | None]) -> str:
    """Anybody's; nothing at all for a column of NULLs."""
    known = [text for text in column if text is not None]
    if not known:
        return "{}"
    # Looked at as a whole, since hardly any has something to escape.
    joined = "".join(known)
    if '"' in joined or "\\" in joined:
        known = [text.replace("\\", "\\\\").replace('"', '\\"') for text in known]
    if len(known) == len(column):
        return '{"' + '","'.join(known) + '"}'
    each = iter(known)
    quoted = ["NULL" if text is None else '"' + next(each) + '"' for text in column]
    return f"{{{','.join(quoted)}}}"


def _sparse(column: list[Any]) -> Sequence[Any]:
    """Nothing at all for a column of NULLs: the driver pays 0.4 us for every element, and unnest fills up with NULL."""
    return column if column.count(None) < len(column) else ()


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _payload(ids: Sequence[str]) -> str:
    joined = ",".join(ids)
    return joined if len(joined.encode()) <= NOTIFY_BYTES_MAX else EVERYTHING
