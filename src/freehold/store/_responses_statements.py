"""SQL of kept responses (responses.py). Nothing here runs anything."""

from typing import Final

CHANNEL: Final = "freehold_responses"
"""Payload: the id of a response to which something happened; empty: one wants to be run."""

ID_BREAK: Final = " "
"""No id has one, and no label."""

COLUMNS: Final = ("id", "tenant", "created_by", "status", "previous_id", "conversation_id", "streamed", "head", "input",
                  "output", "request", "attempts", "epoch", "labels")  # fmt: skip
KEPT: Final = (
    "id",
    "tenant",
    "created_by",
    "status",
    "previous_id",
    "conversation_id",
    "head",
    "input",
    "output",
)
PUT_OFF: Final = (*KEPT, "streamed", "request", "labels")

_BYTES: Final = frozenset({"head", "input", "output"})
_ARRAYS: Final = ", ".join(
    f"${place}::{'bytea' if name in _BYTES else 'text'}[]" for place, name in enumerate(KEPT, 1)
)
_ALL: Final = ", ".join(f"r.{name}" for name in COLUMNS)

_GIVEN: Final = ", ".join(f"given.{name}" for name in KEPT)

INSERT: Final = f"""
INSERT INTO responses ({", ".join(KEPT)}, item_ids, labels)
SELECT {_GIVEN}, string_to_array(given.item_ids, '{ID_BREAK}'), string_to_array(given.labels, '{ID_BREAK}')
FROM unnest({_ARRAYS}, ${len(KEPT) + 1}::text[], ${len(KEPT) + 2}::text[]) AS given ({", ".join(KEPT)}, item_ids, labels)
"""  # noqa: S608 - our own constants
"""The last two arrays have each row's ids and labels in one text: an array of arrays would be unnested too."""

INSERT_LATER: Final = f"""
WITH called AS (SELECT pg_notify('{CHANNEL}', ''))
INSERT INTO responses ({", ".join(PUT_OFF)})
SELECT {", ".join(f"${place}" for place in range(1, len(PUT_OFF) + 1))} FROM called
"""  # noqa: S608 - our own constants

GET: Final = f"SELECT {_ALL} FROM responses r WHERE r.tenant = $1 AND r.id = $2"  # noqa: S608 - our own constants

HISTORY: Final = """
WITH RECURSIVE chain AS (
    SELECT id, previous_id, 1 AS depth, (length(input) + length(output))::bigint AS size_bytes
    FROM responses WHERE tenant = $1 AND id = $2
    UNION ALL
    SELECT r.id, r.previous_id, chain.depth + 1, chain.size_bytes + length(r.input) + length(r.output)
    FROM chain JOIN responses r ON r.id = chain.previous_id
    WHERE r.tenant = $1 AND chain.depth < $3 AND chain.size_bytes <= $4
)
SELECT r.id, r.previous_id, r.status, r.labels, chain.size_bytes,
       CASE WHEN total.size_bytes <= $4 THEN r.input END AS input,
       CASE WHEN total.size_bytes <= $4 THEN r.output END AS output
FROM chain JOIN responses r ON r.id = chain.id, (SELECT max(size_bytes) AS size_bytes FROM chain) total
ORDER BY chain.depth DESC
"""
"""`size_bytes` is that of the row and all newer ones; `length` of what is stored apart does not read it."""

WITH_ITEMS: Final = """
SELECT id, status, input, output, labels FROM responses WHERE tenant = $1 AND item_ids && $2::text[] ORDER BY id DESC LIMIT $3
"""

DELETE: Final = f"""
WITH gone AS (DELETE FROM responses WHERE tenant = $1 AND id = $2 RETURNING id)
SELECT id, pg_notify('{CHANNEL}', id) FROM gone
"""  # noqa: S608 - our own constants

CANCEL: Final = f"""
WITH cancelled AS (
    UPDATE responses SET status = 'cancelled', epoch = epoch + 1, owner = NULL, request = NULL
    WHERE tenant = $1 AND id = $2 AND status IN ('queued', 'in_progress')
    RETURNING id
)
SELECT id, pg_notify('{CHANNEL}', id) FROM cancelled
"""  # noqa: S608 - our own constants

CLAIM: Final = f"""
WITH due AS (
    SELECT id FROM responses
    WHERE status IN ('queued', 'in_progress') AND due_at <= now()
    ORDER BY due_at LIMIT $2
    FOR UPDATE SKIP LOCKED
)
UPDATE responses r
SET owner = $1, epoch = r.epoch + 1, due_at = now() + $3, attempts = r.attempts + 1, status = 'in_progress'
FROM due WHERE r.id = due.id
RETURNING {_ALL}
"""  # noqa: S608 - our own constants

RENEW: Final = """
UPDATE responses r SET due_at = now() + $4
FROM unnest($2::text[], $3::bigint[]) AS held (id, epoch)
WHERE r.id = held.id AND r.epoch = held.epoch AND r.owner = $1 AND r.status = 'in_progress'
RETURNING r.id
"""

RELEASE: Final = f"""
WITH freed AS (
    UPDATE responses SET owner = NULL, epoch = epoch + 1, due_at = now(), attempts = attempts - 1
    WHERE id = $1 AND epoch = $2 AND status = 'in_progress'
    RETURNING id
)
SELECT pg_notify('{CHANNEL}', '') FROM freed
"""  # noqa: S608 - our own constants

FREE_ALL: Final = """
UPDATE responses SET owner = NULL, epoch = epoch + 1, due_at = now()
WHERE owner IS NOT NULL AND status = 'in_progress' RETURNING id
"""

INSERT_EVENTS: Final = "INSERT INTO response_events (response_id, seq, count, body) VALUES ($1, $2, $3, $4)"

ADD_EVENTS: Final = f"""
WITH held AS (
    SELECT id FROM responses WHERE id = $1 AND epoch = $2 AND status = 'in_progress' FOR SHARE
), added AS (
    INSERT INTO response_events (response_id, seq, count, body) SELECT id, $3, $4, $5 FROM held RETURNING response_id
)
SELECT response_id, pg_notify('{CHANNEL}', response_id) FROM added
"""  # noqa: S608 - our own constants

END: Final = f"""
WITH ended AS (
    UPDATE responses SET status = $3, head = $4, output = $5, item_ids = $6, request = NULL, owner = NULL
    WHERE id = $1 AND epoch = $2 AND status = 'in_progress'
    RETURNING id
)
SELECT id, pg_notify('{CHANNEL}', id) FROM ended
"""  # noqa: S608 - our own constants

EVENTS: Final = """
SELECT seq, count, body FROM response_events
WHERE response_id = $1 AND seq + count - 1 > $2 ORDER BY seq LIMIT $3
"""

FORGET: Final = """
DELETE FROM responses WHERE id = ANY(ARRAY(
    SELECT r.id FROM responses r
    WHERE r.created_at < now() - $1::interval
      AND NOT EXISTS (SELECT 1 FROM responses later WHERE later.previous_id = r.id)
    ORDER BY r.created_at DESC LIMIT $2 FOR UPDATE SKIP LOCKED
)) RETURNING id
"""
"""The newest of a conversation first: what a later one still refers to stays until that one goes."""
