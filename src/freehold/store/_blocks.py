"""Store: the large texts of events, kept once a tenant: an event's bytes name them by their SHA-256.

A text that is sent, called with and answered a thousand times is stored once, so a log takes about as many bytes as there are
different ones in it. Works on bytes: what is cut out of an event's JSON is put back there as it was. Not here: which texts an
event has (_events.py), who deletes a block (_deletions.py).

A reference is a JSON text of a NUL, the block's size and its digest. Who says such a text himself has it kept as a block, too:
so what looks like a reference is one, and nobody can name somebody else's block.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from freehold.core.errors import Internal
from freehold.store.database import Connection, Database, Row

BLOCK_BYTES_MIN: Final = 4096
"""Smaller texts stay where they are: a row, its index entry and its use cost about 300 bytes, and a look-up on reading."""

_MARK: Final = b'"\\u0000'
_REFERENCE: Final = re.compile(rb'"\\u0000([0-9a-f]{8})([0-9a-f]{64})"')

_MISSING: Final = """
SELECT d.digest FROM unnest($2::text[]) AS d (digest)
WHERE NOT EXISTS (SELECT FROM blocks b WHERE b.tenant = $1 AND b.digest = d.digest)
"""
# In one order everywhere, as the writer does: no deadlocks.
_KEEP: Final = """
INSERT INTO blocks (tenant, digest, body)
SELECT $1, b.digest, b.body FROM unnest($2::text[], $3::bytea[]) AS b (digest, body) ORDER BY b.digest
ON CONFLICT DO NOTHING
"""
_USE: Final = """
INSERT INTO block_uses (session_id, tenant, digest) SELECT $1, $2, unnest($3::text[]) ON CONFLICT DO NOTHING
"""
_READ: Final = """
SELECT b.digest, b.body
FROM (SELECT DISTINCT tenant FROM sessions WHERE id = ANY($1::text[])) AS s
JOIN blocks b ON b.tenant = s.tenant AND b.digest = ANY($2::text[])
"""


def taken_out(body: bytes, texts: Iterable[bytes]) -> tuple[bytes, dict[str, bytes]]:
    """`body` with references in place of `texts` (JSON, as it stands in there) that are large, and these by digest."""
    blocks: dict[str, bytes] = {}

    def reference(text: bytes) -> bytes:
        digest = hashlib.sha256(text).hexdigest()
        blocks[digest] = text
        return b'"\\u0000%08x%s"' % (len(text), digest.encode())

    if _MARK in body:
        body = _REFERENCE.sub(lambda found: reference(found[0]), body)
    for text in texts:
        if len(text) >= BLOCK_BYTES_MIN:
            body = body.replace(text, reference(text))
    return body, blocks


def put_back(body: bytes, blocks: Mapping[str, bytes]) -> bytes:
    """The inverse. Raises Internal where a block is missing."""
    if _MARK not in body:
        return body
    try:
        return _REFERENCE.sub(lambda found: blocks[found[2].decode()], body)
    except KeyError as error:
        raise Internal(
            "a part of it is missing in the database: its table blocks is damaged", detail=str(error)
        ) from error


def named_in(body: bytes) -> Sequence[str]:
    """Digests."""
    return [found[2].decode() for found in _REFERENCE.finditer(body)] if _MARK in body else ()


def whole_bytes(body: bytes) -> int:
    """How large it will be with its blocks."""
    named = _REFERENCE.finditer(body) if _MARK in body else ()
    return len(body) + sum(int(found[1], 16) for found in named)


async def named_by(
    database: Database, session_ids: Sequence[str], rows: Iterable[Row]
) -> Mapping[str, bytes]:
    """The blocks that these rows' bodies name, by digest. Mostly there are none, and nobody is asked."""
    digests = {digest for row in rows for digest in named_in(row["body"])}
    if not digests:
        return {}
    found = await database.fetch("reading blocks", _READ, list(set(session_ids)), sorted(digests))
    return {row["digest"]: row["body"] for row in found}


async def keep(connection: Connection, session_id: str, tenant: str, blocks: Mapping[str, bytes]) -> None:
    """In a transaction of the caller's. Sends only what is not there yet."""
    if not blocks:
        return
    missing = sorted(row["digest"] for row in await connection.fetch(_MISSING, tenant, list(blocks)))
    if missing:
        await connection.execute(_KEEP, tenant, missing, [blocks[digest] for digest in missing])
    await connection.execute(_USE, session_id, tenant, list(blocks))
