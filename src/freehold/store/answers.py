"""Answers that are given again, for all processes of an installation: implements core.ports.KeptAnswers. Written behind.

Nothing waits for a write, and nothing for long for a read: a database that is away, or slow, is a cache without anything in it. What
means the same is found by pgvector, among the answers of one context (all of a request but its last text). Not here: which requests
are the same (gateway/cache.py). Source of `<=>`: https://github.com/pgvector/pgvector#distances
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from freehold.background import background
from freehold.core.answers import KeptAnswer, KeptAnswers, Likeness
from freehold.core.errors import FreeholdError
from freehold.store.database import Database, Row

WAITING_MAX: Final = 1_000
"""Answers that wait to be written. What comes on top is left out."""

WRITTEN_AT_ONCE_MAX: Final = 100
GATHER_S: Final = 0.1
AWAY_PAUSE_S: Final = 5.0
FORGET_EVERY_S: Final = 60.0
FORGOTTEN_MAX: Final = 10_000
READ_S_MAX: Final = 0.1
NEAR_S_MAX: Final = 0.5
LIKENESSES_MAX: Final = 5_000
"""Of one context, among which the nearest is looked for: the latest ones."""

log = logging.getLogger(__name__)

_ADD: Final = """
INSERT INTO answers AS a (tenant, key, model, body, kept_at, expires_at)
SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[], $4::bytea[], $5::timestamptz[], $6::timestamptz[])
         AS given (tenant, key, model, body, kept_at, expires_at)
ORDER BY tenant, key
ON CONFLICT (tenant, key) DO UPDATE
SET model = excluded.model, body = excluded.body, kept_at = excluded.kept_at, expires_at = excluded.expires_at
WHERE a.kept_at < excluded.kept_at
"""
_LIKEN: Final = """
INSERT INTO answer_likenesses (tenant, key, context, dimensions, vector)
SELECT given.tenant, given.key, given.context, given.dimensions, as_vector(given.vector)
FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::integer[], $5::text[]) AS given (tenant, key, context, dimensions, vector)
ORDER BY given.tenant, given.key
ON CONFLICT (tenant, key) DO UPDATE
SET context = excluded.context, dimensions = excluded.dimensions, vector = excluded.vector
"""
_COLUMNS: Final = "a.tenant, a.key, a.model, a.body, a.kept_at, a.expires_at"
_GET: Final = f"SELECT {_COLUMNS} FROM answers AS a WHERE tenant = $1 AND key = $2 AND expires_at > now()"  # noqa: S608 - our own constants
_NEAR: Final = f"""
SELECT {_COLUMNS}, 1 - unlikeness(l.vector, as_vector($3)) AS similarity
FROM (
    SELECT o.* FROM answer_likenesses AS o JOIN answers AS n USING (tenant, key)
    WHERE o.tenant = $1 AND o.context = $2 AND o.dimensions = $4 AND n.expires_at > now()
    ORDER BY n.kept_at DESC LIMIT $5
) AS l JOIN answers AS a USING (tenant, key)
ORDER BY unlikeness(l.vector, as_vector($3)) LIMIT 1
"""  # noqa: S608 - our own constants
_FORGET: Final = """
DELETE FROM answers WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM answers WHERE expires_at < now() LIMIT $1 FOR UPDATE SKIP LOCKED
)) RETURNING 1
"""
_HAS_VECTORS: Final = "SELECT to_regclass('freehold.answer_likenesses') IS NOT NULL AS found"


class PostgresAnswers:
    def __init__(
        self, database: Database, *, read_s_max: float = READ_S_MAX, near_s_max: float = NEAR_S_MAX
    ) -> None:
        self._database = database
        self._read_s_max = read_s_max
        self._near_s_max = near_s_max
        self._waiting: OrderedDict[tuple[str, bytes], tuple[KeptAnswer, Likeness | None]] = OrderedDict()
        self._some = asyncio.Event()
        self._has_vectors: bool | None = None

    def add(self, answer: KeptAnswer, likeness: Likeness | None = None) -> None:
        if len(self._waiting) < WAITING_MAX:
            self._waiting[answer.tenant, answer.key] = (answer, likeness)
            self._some.set()

    async def get(self, tenant: str, key: bytes) -> KeptAnswer | None:
        rows = await self._read(self._read_s_max, "looking for an answer", _GET, tenant, key)
        return _answer(rows[0]) if rows else None

    async def near(
        self, tenant: str, likeness: Likeness, *, similarity_min: float
    ) -> tuple[KeptAnswer, float] | None:
        rows = await self._read(
            self._near_s_max, "looking for a similar answer", _NEAR,
            tenant, likeness.context, _vector(likeness.vector), len(likeness.vector), LIKENESSES_MAX,
        )  # fmt: skip
        if not rows or not (similarity := float(rows[0]["similarity"])) >= similarity_min:
            return None
        return _answer(rows[0]), similarity

    async def finds_likeness(self) -> bool:
        if self._has_vectors is None:
            rows = await self._database.fetch("looking for pgvector", _HAS_VECTORS)
            self._has_vectors = bool(rows[0]["found"])
        return self._has_vectors

    async def flush(self) -> None:
        """Writes what waits. Raises what the database does; then it still waits."""
        while self._waiting:
            batch = list(self._waiting.items())[:WRITTEN_AT_ONCE_MAX]
            await self._write([one for _, one in batch])
            for place, one in batch:
                if self._waiting.get(place) is one:
                    del self._waiting[place]

    async def _read(self, within_s: float, doing: str, query: str, *arguments: object) -> Sequence[Row]:
        try:
            async with asyncio.timeout(within_s):
                return await self._database.fetch(doing, query, *arguments)
        except (FreeholdError, TimeoutError):
            return ()

    async def _write(self, batch: Sequence[tuple[KeptAnswer, Likeness | None]]) -> None:
        answers = [one for one, _ in batch]
        await self._database.fetch(
            "keeping answers", _ADD,
            [one.tenant for one in answers], [one.key for one in answers], [one.model for one in answers],
            [one.body for one in answers], [_time(one.kept_at_ms) for one in answers],
            [_time(one.expires_at_ms) for one in answers],
        )  # fmt: skip
        liked = [(one, likeness) for one, likeness in batch if likeness is not None]
        if liked and await self.finds_likeness():
            await self._database.fetch(
                "keeping what answers mean", _LIKEN,
                [one.tenant for one, _ in liked], [one.key for one, _ in liked],
                [likeness.context for _, likeness in liked], [len(likeness.vector) for _, likeness in liked],
                [_vector(likeness.vector) for _, likeness in liked],
            )  # fmt: skip

    async def write_for_ever(self) -> None:
        while True:
            await self._some.wait()
            await asyncio.sleep(GATHER_S)
            self._some.clear()
            try:
                await self.flush()
            except FreeholdError as error:
                log.warning("answers.not_kept", extra={"reason": str(error), "waiting": len(self._waiting)})
                await asyncio.sleep(AWAY_PAUSE_S)
                self._some.set()

    async def forget_for_ever(self) -> None:
        while True:
            await asyncio.sleep(FORGET_EVERY_S)
            try:
                await self._database.fetch("forgetting answers", _FORGET, FORGOTTEN_MAX)
            except FreeholdError as error:
                log.warning("answers.not_forgotten", extra={"reason": str(error)})


@asynccontextmanager
async def open_answers(database: Database) -> AsyncIterator[PostgresAnswers]:
    """Leaving drops what waits: it is a cache."""
    answers = PostgresAnswers(database)
    async with (
        background(answers.write_for_ever(), "answers:write"),
        background(answers.forget_for_ever(), "answers:forget"),
    ):
        yield answers


def _answer(row: Row) -> KeptAnswer:
    return KeptAnswer(
        tenant=row["tenant"],
        key=row["key"],
        model=row["model"],
        body=row["body"],
        kept_at_ms=_ms(row["kept_at"]),
        expires_at_ms=_ms(row["expires_at"]),
    )


def _vector(values: Sequence[float]) -> str:
    return "[" + ",".join(map(repr, values)) + "]"


def _time(moment_ms: int) -> datetime:
    return datetime.fromtimestamp(moment_ms / 1000, UTC)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


_IMPLEMENTS: type[KeptAnswers] = PostgresAnswers
