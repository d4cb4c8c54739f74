"""Store: what the logs of kept responses say, read without what their clients were told, and chains of them by one statement.

Large items stand beside a log as blocks, so a chain is measured before they are read: an event says how large what it names is.
"""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final

import msgspec

from freehold.core.errors import Internal, NotFound, TooLarge
from freehold.core.responses import KeptResponse, PastResponse, folded
from freehold.core.session import SessionEvent
from freehold.store._blocks import named_by, put_back, whole_bytes
from freehold.store._events import decode
from freehold.store.database import Database, Row

CHAIN_MAX: Final = 1_000
CHAIN_BYTES_MAX: Final = 64 * 1024 * 1024
CHAIN_READ_BYTES_MAX: Final = 128 * 1024 * 1024
"""With all else that the events say."""
REFERRED_MAX: Final = 200
"""Responses that one request's references may lie in."""

_GET: Final = """
SELECT e.seq, e.at, e.body, s.version
FROM sessions s JOIN events e ON e.session_id = s.id AND e.type <> 'response_told'
WHERE s.tenant = $1 AND s.id = $2 AND s.kind = 'response' ORDER BY e.seq
"""
_CHAIN: Final = """
WITH RECURSIVE chain AS (
    SELECT id, origin_id, 1 AS depth FROM sessions WHERE tenant = $1 AND id = $2 AND kind = 'response'
    UNION ALL
    SELECT s.id, s.origin_id, chain.depth + 1
    FROM chain JOIN sessions s ON s.id = chain.origin_id
    WHERE s.tenant = $1 AND s.kind = 'response' AND chain.depth < $3
), said AS (
    SELECT c.id, c.origin_id, c.depth, e.seq, e.body FROM chain c JOIN events e ON e.session_id = c.id AND e.type <> 'response_told'
), total AS (
    SELECT sum(octet_length(body))::bigint AS size_bytes FROM said
)
SELECT said.id, said.origin_id, said.seq, total.size_bytes, CASE WHEN total.size_bytes <= $4 THEN said.body END AS body
FROM said, total ORDER BY said.depth DESC, said.seq
"""
_WITH_ITEMS: Final = """
SELECT f.id, e.seq, e.body
FROM (
    SELECT DISTINCT s.id FROM items i JOIN sessions s ON s.id = i.session_id
    WHERE i.tenant = $1 AND i.item_id = ANY ($2::text[]) AND s.kind = 'response'
    ORDER BY s.id DESC LIMIT $3
) AS f JOIN events e ON e.session_id = f.id AND e.type <> 'response_told'
ORDER BY f.id DESC, e.seq
"""

_decoder: Final[msgspec.json.Decoder[SessionEvent]] = msgspec.json.Decoder(SessionEvent)


async def get(database: Database, tenant: str, response_id: str) -> tuple[KeptResponse, int]:
    """And its log's length. Raises NotFound."""
    rows = await database.fetch("reading a response", _GET, tenant, response_id)
    if not rows:
        raise not_found(response_id)
    events = decode(response_id, rows, await named_by(database, [response_id], rows))
    return folded(response_id, tenant, [recorded.event for recorded in events]), rows[0]["version"]


async def history(database: Database, tenant: str, response_id: str) -> Sequence[PastResponse]:
    rows = await database.fetch(
        "reading a chain of responses", _CHAIN, tenant, response_id, CHAIN_MAX, CHAIN_READ_BYTES_MAX
    )
    if not rows:
        raise not_found(response_id)
    if (size_bytes := rows[0]["size_bytes"]) > CHAIN_READ_BYTES_MAX:
        raise _too_large(response_id, size_bytes)
    chain = _parted(tenant, rows)
    if (size_bytes := sum(_said_bytes(one) for one in chain)) > CHAIN_BYTES_MAX:
        raise _too_large(response_id, size_bytes)
    if (before := rows[0]["origin_id"]) is not None:
        if len(chain) >= CHAIN_MAX:
            raise TooLarge(
                f"the conversation before {response_id} has more than CHAIN_MAX = {CHAIN_MAX} responses: begin a new "
                "one with what still matters"
            )
        raise not_found(before)
    return await _whole(database, chain)


async def with_items(database: Database, tenant: str, item_ids: Sequence[str]) -> Sequence[PastResponse]:
    rows = await database.fetch(
        "finding items of responses", _WITH_ITEMS, tenant, list(item_ids), REFERRED_MAX
    )
    return await _whole(database, _parted(tenant, rows))


def _parted(tenant: str, rows: Sequence[Row]) -> list[KeptResponse]:
    """Each as its rows say, with references in the place of blocks."""
    found = []
    for response_id, own in groupby(rows, itemgetter("id")):
        try:
            events = [_decoder.decode(row["body"]) for row in own]
        except msgspec.MsgspecError as error:
            raise Internal(f"the log of {response_id} cannot be read", detail=str(error)) from error
        found.append(folded(response_id, tenant, events))
    return found


async def _whole(database: Database, parted: Sequence[KeptResponse]) -> Sequence[PastResponse]:
    said = [{"body": part} for one in parted for part in (one.input, one.output)]
    blocks = await named_by(database, [one.id for one in parted[:1]], said)
    return [
        PastResponse(
            one.id, one.status, put_back(one.input, blocks), put_back(one.output, blocks), one.labels
        )
        for one in parted
    ]


def _said_bytes(one: KeptResponse) -> int:
    return whole_bytes(one.input) + whole_bytes(one.output)


def _too_large(response_id: str, size_bytes: int) -> TooLarge:
    return TooLarge(
        f"the conversation before {response_id} has {size_bytes} bytes, over CHAIN_BYTES_MAX = {CHAIN_BYTES_MAX}: "
        "begin a new one with what still matters"
    )


def not_found(response_id: str) -> NotFound:
    return NotFound(f"Response with id '{response_id[:80]}' not found.")
