"""Batches of model calls as kept: implements core.message_batches.MessageBatches. Not here: what a request is and who asks it (gateway/batches.py).

A request that wants a call is a row without an outcome whose `due_at` has come. A claim moves `due_at` to its lease's end and begins
a new epoch; a result is written where the epoch is still the claim's, once, together with the batch's counts: whoever writes the last
one ends the batch. Statements lock requests before batches.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from freehold.core.errors import BadRequest, NotFound
from freehold.core.message_batches import (
    BatchClaim,
    BatchPage,
    BatchRequest,
    BatchResult,
    MessageBatch,
    MessageBatches,
    Settled,
)
from freehold.core.validation import check_limit
from freehold.store._listen import Changes, Listener
from freehold.store.database import Connection, Database, Row

CHANNEL: Final = "freehold_message_batches"
LIST_MAX: Final = 1000
CLAIM_MAX: Final = 1000
LEASE_S_MAX: Final = 3600.0
INSERTED_AT_ONCE: Final = 2_000
SWEPT_AT_ONCE: Final = 5_000
"""Rows in one statement, so that none takes long."""

RESULTS_AT_ONCE_MAX: Final = 1_000
RESULTS_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of results read at once; a larger one comes alone."""

_COLUMNS: Final = (
    "id, tenant, created_by, status, headers, created_at, expires_at, cancel_initiated_at, ended_at, archived_at, request_count, "
    "succeeded_count, errored_count, canceled_count, expired_count"
)
_CREATE: Final = """
INSERT INTO message_batches (id, tenant, created_by, headers, idempotency_key, created_at, expires_at, request_count)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING id
"""
_BY_KEY: Final = f"SELECT {_COLUMNS} FROM message_batches WHERE tenant = $1 AND idempotency_key = $2"  # noqa: S608 - our own constants
_INSERT: Final = """
INSERT INTO message_batch_requests (batch_id, tenant, number, custom_id, params)
SELECT $1, $2, given.number, given.custom_id, given.params
FROM unnest($3::integer[], $4::text[], $5::bytea[]) AS given (number, custom_id, params)
"""
_GET: Final = f"SELECT {_COLUMNS} FROM message_batches WHERE tenant = $1 AND id = $2"  # noqa: S608 - our own constants
_OLDER: Final = f"""
SELECT {_COLUMNS} FROM message_batches WHERE tenant = $1 AND ($2::text IS NULL OR id < $2) ORDER BY id DESC LIMIT $3
"""  # noqa: S608 - our own constants
_NEWER: Final = f"""
SELECT {_COLUMNS} FROM message_batches WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3
"""  # noqa: S608 - our own constants
_CANCEL: Final = f"""
UPDATE message_batches SET status = 'canceling', cancel_initiated_at = $3
WHERE tenant = $1 AND id = $2 AND status = 'in_progress'
RETURNING {_COLUMNS}, pg_notify('{CHANNEL}', '')
"""  # noqa: S608 - our own constants
_DELETE: Final = """
WITH gone AS (DELETE FROM message_batches WHERE tenant = $1 AND id = $2 AND status = 'ended' RETURNING id),
requests AS (DELETE FROM message_batch_requests r USING gone WHERE r.batch_id = gone.id)
SELECT id FROM gone
"""
_RESULTS: Final = """
SELECT number, custom_id, outcome, result FROM (
    SELECT number, custom_id, outcome, result, row_number() OVER places AS place,
           sum(coalesce(octet_length(result), 0)) OVER places AS bytes
    FROM message_batch_requests WHERE batch_id = $1 AND tenant = $5 AND number > $2
    WINDOW places AS (ORDER BY number)
    ORDER BY number LIMIT $3
) AS page
WHERE place = 1 OR bytes <= $4
ORDER BY number
"""
_CLAIM: Final = """
WITH batch AS (
    SELECT b.id, b.tenant, b.created_by, b.headers FROM message_batches b
    WHERE b.status = 'in_progress' AND b.expires_at > $4 AND EXISTS (
        SELECT 1 FROM message_batch_requests r WHERE r.batch_id = b.id AND r.outcome IS NULL AND r.due_at <= now()
    )
    ORDER BY b.served_at LIMIT 1
), due AS (
    SELECT r.batch_id, r.number FROM message_batch_requests r
    WHERE r.batch_id = (SELECT id FROM batch) AND r.outcome IS NULL AND r.due_at <= now()
    ORDER BY r.due_at, r.number LIMIT $2
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE message_batch_requests r SET owner = $1, epoch = r.epoch + 1, due_at = now() + $3
    FROM due WHERE r.batch_id = due.batch_id AND r.number = due.number
    RETURNING r.batch_id, r.number, r.epoch, r.failures, r.params
), served AS (
    UPDATE message_batches SET served_at = clock_timestamp() WHERE id IN (SELECT DISTINCT batch_id FROM claimed)
)
SELECT claimed.*, batch.tenant, batch.created_by, batch.headers
FROM claimed JOIN batch ON batch.id = claimed.batch_id ORDER BY claimed.number
"""
_HELD: Final = """
FROM unnest($2::text[], $3::integer[], $4::bigint[]) AS held (batch_id, number, epoch)
WHERE r.batch_id = held.batch_id AND r.number = held.number AND r.epoch = held.epoch AND r.owner = $1 AND r.outcome IS NULL
RETURNING r.batch_id, r.number
"""
_RENEW: Final = f"UPDATE message_batch_requests r SET due_at = now() + $5 {_HELD}"  # noqa: S608 - our own constants
_RELEASE: Final = f"UPDATE message_batch_requests r SET owner = NULL, due_at = now() {_HELD}"  # noqa: S608 - our own constants
_POSTPONE: Final = """
UPDATE message_batch_requests SET owner = NULL, due_at = now() + $4, failures = failures + 1
WHERE batch_id = $1 AND number = $2 AND epoch = $3 AND outcome IS NULL
RETURNING number
"""
_FREE_ALL: Final = """
UPDATE message_batch_requests SET owner = NULL, epoch = epoch + 1, due_at = now()
WHERE owner IS NOT NULL AND outcome IS NULL
RETURNING number
"""
_COUNTED: Final = """
counted AS (
    SELECT batch_id, count(*) AS all_count,
           count(*) FILTER (WHERE outcome = 'succeeded') AS succeeded, count(*) FILTER (WHERE outcome = 'errored') AS errored,
           count(*) FILTER (WHERE outcome = 'canceled') AS canceled, count(*) FILTER (WHERE outcome = 'expired') AS expired
    FROM done GROUP BY batch_id
), told AS (
    UPDATE message_batches b SET
        succeeded_count = b.succeeded_count + c.succeeded, errored_count = b.errored_count + c.errored,
        canceled_count = b.canceled_count + c.canceled, expired_count = b.expired_count + c.expired,
        (status, ended_at) = (
            SELECT CASE WHEN over THEN 'ended' ELSE b.status END, CASE WHEN over THEN $1::timestamptz END
            FROM (SELECT b.succeeded_count + b.errored_count + b.canceled_count + b.expired_count + c.all_count
                         >= b.request_count AS over) AS is_it
        )
    FROM counted c WHERE b.id = c.batch_id
)
SELECT batch_id, number FROM done
"""
_FINISH: Final = f"""
WITH done AS (
    UPDATE message_batch_requests r SET outcome = given.outcome, result = given.result, params = NULL, owner = NULL
    FROM unnest($2::text[], $3::integer[], $4::bigint[], $5::text[], $6::bytea[])
         AS given (batch_id, number, epoch, outcome, result)
    WHERE r.batch_id = given.batch_id AND r.number = given.number AND r.epoch = given.epoch AND r.outcome IS NULL
    RETURNING r.batch_id, r.number, r.outcome
), {_COUNTED}
"""  # noqa: S608 - our own constants
_SWEEP: Final = f"""
WITH over AS (
    SELECT id, CASE WHEN status = 'canceling' THEN 'canceled' ELSE 'expired' END AS outcome FROM message_batches
    WHERE status = 'canceling' OR (status = 'in_progress' AND expires_at <= $1)
), due AS (
    SELECT r.batch_id, r.number, over.outcome FROM message_batch_requests r JOIN over ON r.batch_id = over.id
    WHERE r.outcome IS NULL AND (r.owner IS NULL OR r.due_at <= now())
    LIMIT $2
    FOR UPDATE OF r SKIP LOCKED
), done AS (
    UPDATE message_batch_requests r SET outcome = due.outcome, params = NULL, owner = NULL
    FROM due WHERE r.batch_id = due.batch_id AND r.number = due.number
    RETURNING r.batch_id, r.number, r.outcome
), {_COUNTED}
"""  # noqa: S608 - our own constants
_ARCHIVE: Final = """
WITH old AS (
    SELECT id FROM message_batches WHERE status = 'ended' AND archived_at IS NULL AND created_at <= $2
    ORDER BY created_at LIMIT 1
    FOR UPDATE SKIP LOCKED
), gone AS (DELETE FROM message_batch_requests r USING old WHERE r.batch_id = old.id)
UPDATE message_batches b SET archived_at = $1 FROM old WHERE b.id = old.id
RETURNING b.id
"""


class PostgresMessageBatches:
    """`wait_for_work` hears of other processes once `listener` runs."""

    def __init__(self, database: Database, listener: Listener) -> None:
        self._database = database
        self._changes = Changes(listener, CHANNEL)

    async def wait_for_work(self, timeout_s: float) -> None:
        await self._changes.wait(timeout_s)

    async def create(
        self, batch: MessageBatch, requests: Sequence[BatchRequest], *, idempotency_key: str | None = None
    ) -> MessageBatch:
        async def work(connection: Connection) -> bool:
            made = await connection.fetch(
                _CREATE,
                batch.id,
                batch.tenant,
                batch.created_by,
                msgspec.json.encode(batch.headers).decode(),
                idempotency_key,
                batch.created_at,
                batch.expires_at,
                len(requests),
            )
            if not made:
                return False
            for start in range(0, len(requests), INSERTED_AT_ONCE):
                piece = requests[start : start + INSERTED_AT_ONCE]
                numbers = list(range(start, start + len(piece)))
                names, params = [one.custom_id for one in piece], [one.params for one in piece]
                await connection.execute(_INSERT, batch.id, batch.tenant, numbers, names, params)
            await connection.execute("SELECT pg_notify($1, '')", CHANNEL)
            return True

        if await self._database.in_transaction("creating a batch", work):
            return batch
        rows = await self._database.fetch("reading a batch", _BY_KEY, batch.tenant, idempotency_key)
        if not rows:
            raise NotFound("the batch of this idempotency key was just deleted")
        return _batch(rows[0])

    async def get(self, tenant: str, batch_id: str) -> MessageBatch:
        rows = await self._database.fetch("reading a batch", _GET, tenant, batch_id)
        if not rows:
            raise NotFound(f"no message batch {batch_id[:80]!r}")
        return _batch(rows[0])

    async def list(
        self, tenant: str, *, after_id: str | None = None, before_id: str | None = None, limit: int = 20
    ) -> BatchPage:
        check_limit(limit, LIST_MAX)
        query, cursor = (_OLDER, after_id) if before_id is None else (_NEWER, before_id)
        rows = await self._database.fetch("listing batches", query, tenant, cursor, limit + 1)
        page = [_batch(row) for row in rows[:limit]]
        return BatchPage(tuple(page if before_id is None else reversed(page)), len(rows) > limit)

    async def cancel(self, tenant: str, batch_id: str, *, at: datetime) -> MessageBatch:
        rows = await self._database.fetch("canceling a batch", _CANCEL, tenant, batch_id, at)
        return _batch(rows[0]) if rows else await self.get(tenant, batch_id)

    async def delete(self, tenant: str, batch_id: str) -> None:
        if not await self._database.fetch("deleting a batch", _DELETE, tenant, batch_id):
            found = await self.get(tenant, batch_id)
            raise BadRequest(f"the batch {found.id} is {found.status}: cancel it, or wait until it has ended")

    async def results(self, tenant: str, batch_id: str, *, after: int = -1) -> Sequence[BatchResult]:
        rows = await self._database.fetch(
            "reading a batch's results",
            _RESULTS,
            batch_id,
            after,
            RESULTS_AT_ONCE_MAX,
            RESULTS_BYTES_MAX,
            tenant,
        )
        return [
            BatchResult(row["number"], row["custom_id"], row["outcome"], row["result"] or b"") for row in rows
        ]

    async def claim(self, owner: str, *, limit: int, lease_s: float, now: datetime) -> Sequence[BatchClaim]:
        check_limit(limit, CLAIM_MAX)
        rows = await self._database.fetch(
            "claiming requests of batches", _CLAIM, owner, limit, _duration(lease_s), now
        )
        return [
            BatchClaim(
                batch_id=row["batch_id"],
                number=row["number"],
                epoch=row["epoch"],
                failures=row["failures"],
                tenant=row["tenant"],
                created_by=row["created_by"],
                headers=_headers(row),
                params=row["params"],
            )
            for row in rows
        ]

    async def renew(
        self, owner: str, claims: Sequence[BatchClaim], *, lease_s: float
    ) -> frozenset[tuple[str, int]]:
        if not claims:
            return frozenset()
        rows = await self._database.fetch(
            "renewing leases of requests", _RENEW, owner, *_places(claims), _duration(lease_s)
        )
        return frozenset((row["batch_id"], row["number"]) for row in rows)

    async def release(self, owner: str, claims: Sequence[BatchClaim]) -> None:
        if claims:
            await self._database.fetch("releasing requests of batches", _RELEASE, owner, *_places(claims))

    async def postpone(self, claim: BatchClaim, *, pause_s: float) -> None:
        await self._database.fetch(
            "putting a request off",
            _POSTPONE,
            claim.batch_id,
            claim.number,
            claim.epoch,
            timedelta(seconds=pause_s),
        )

    async def finish(self, settled: Sequence[Settled], *, now: datetime) -> frozenset[tuple[str, int]]:
        in_order = sorted(settled, key=lambda one: one.claim.place)
        places = _places([one.claim for one in in_order])
        outcomes, bodies = [one.outcome for one in in_order], [one.body for one in in_order]
        rows = await self._database.fetch("writing results", _FINISH, now, *places, outcomes, bodies)
        return frozenset((row["batch_id"], row["number"]) for row in rows)

    async def sweep(self, now: datetime) -> int:
        count = 0
        while done := len(await self._database.fetch("ending batches", _SWEEP, now, SWEPT_AT_ONCE)):
            count += done
        return count

    async def archive(self, now: datetime, *, created_before: datetime) -> int:
        count = 0
        while archived := len(await self._database.fetch("archiving a batch", _ARCHIVE, now, created_before)):
            count += archived
        return count

    async def free_leases(self) -> int:
        """Ends every lease: for a start at which it is certain that no worker is alive. Returns how many there were."""
        return len(await self._database.fetch("freeing requests of batches", _FREE_ALL))


def _places(claims: Sequence[BatchClaim]) -> tuple[list[str], list[int], list[int]]:
    return [one.batch_id for one in claims], [one.number for one in claims], [one.epoch for one in claims]


def _duration(lease_s: float) -> timedelta:
    if not 0 < lease_s <= LEASE_S_MAX:
        raise BadRequest(
            f"expected more than 0 and at most {LEASE_S_MAX:g} seconds, got {lease_s}", field="lease_s"
        )
    return timedelta(seconds=lease_s)


def _headers(row: Row) -> Mapping[str, str]:
    return msgspec.json.decode(row["headers"], type=dict[str, str])


def _batch(row: Row) -> MessageBatch:
    names = [name for name in MessageBatch.__struct_fields__ if name != "headers"]
    return MessageBatch(headers=_headers(row), **{name: row[name] for name in names})


_IMPLEMENTS: type[MessageBatches] = PostgresMessageBatches
