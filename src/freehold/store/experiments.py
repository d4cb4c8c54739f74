"""Canaries' places, feedback, and sums of what records say of arms and models: implements core.ports.Experiments and ModelScores.

A call's error, here, is one that its client saw, or that another model or attempt had to mend: an arm that always fails over is no
good one. Not here: what sums mean (core/confidence.py), and when a canary takes a step (core/experiments.py).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from freehold.core import ids
from freehold.core.experiments import (
    CANARY,
    ArmSums,
    Canary,
    CanaryState,
    CanaryStep,
    Feedback,
    ModelScores,
    Seen,
    Step,
    Sums,
)
from freehold.core.ports import Experiments
from freehold.store.database import Database, Row

STEPS_MAX: Final = 200
ARMS_MAX: Final = 1000
SCORES_MAX: Final = 1000
JUDGED_MAX: Final = 100_000
MODELS_MAX: Final = 1000
MEASURES: Final = ("cost", "first_token_ms", "whole_ms")

_FAILED: Final = "(outcome NOT IN ('ok', 'client_gone') OR attempts > 1)"
_STATE: Final = "SELECT declared, status, step, since, version FROM canaries WHERE tenant = $1 AND route = $2"
_BEGIN: Final = """
WITH begun AS (
    INSERT INTO canaries AS c (tenant, route, declared, status, step, since, version)
    VALUES ($1, $2, $3, 'running', 0, $4, 1)
    ON CONFLICT (tenant, route) DO UPDATE
        SET declared = excluded.declared, status = 'running', step = 0, since = excluded.since, version = c.version + 1
        WHERE c.declared <> excluded.declared
    RETURNING *
)
INSERT INTO canary_steps (tenant, route, version, at, status, percent, reason)
SELECT tenant, route, version, since, status, $5, 'declared' FROM begun
"""
_TAKE: Final = """
WITH taken AS (
    UPDATE canaries SET status = $4, step = $5, since = $6, version = version + 1
    WHERE tenant = $1 AND route = $2 AND version = $3
    RETURNING *
)
INSERT INTO canary_steps (tenant, route, version, at, status, percent, reason)
SELECT tenant, route, version, since, status, $7, $8 FROM taken RETURNING version
"""
_SEEN: Final = f"""
SELECT count(*) AS calls, count(*) FILTER (WHERE {_FAILED}) AS errors,
       count(*) FILTER (WHERE streamed AND first_event_ms IS NOT NULL) AS streamed,
       count(*) FILTER (WHERE streamed AND first_event_ms > $4) AS slow
FROM call_records WHERE tenant = $1 AND route = $2 AND arm = '{CANARY}' AND at >= $3
"""  # noqa: S608 - our own constants
_STEPS: Final = """
SELECT at, status, percent, reason FROM canary_steps WHERE tenant = $1 AND route = $2 ORDER BY version DESC LIMIT $3
"""
_OF: Final = (
    "count({0}) AS {1}_count, coalesce(avg({0}), 0) AS {1}_mean, coalesce(var_pop({0}), 0) AS {1}_variance"
)
_SUMS: Final = f"""
SELECT arm, count(*) AS calls, count(*) FILTER (WHERE failed) AS errors,
       {", ".join(_OF.format(name, name) for name in MEASURES)}
FROM (
    SELECT arm, {_FAILED} AS failed,
           CASE WHEN priced AND currency = $4 THEN cost_pico::float8 / 1e12 END AS cost,
           CASE WHEN outcome = 'ok' AND streamed THEN first_event_ms END AS first_token_ms,
           CASE WHEN outcome = 'ok' THEN duration_ms END AS whole_ms
    FROM call_records WHERE tenant = $1 AND route = $2 AND arm IS NOT NULL AND at >= $3
) AS called
GROUP BY arm ORDER BY arm LIMIT $5
"""  # noqa: S608 - our own constants
_SCORES: Final = f"""
SELECT c.arm, f.name, {_OF.format("f.score", "score")}
FROM feedback AS f JOIN call_records AS c ON c.id = f.call_id AND c.tenant = f.tenant
WHERE f.tenant = $1 AND c.route = $2 AND c.arm IS NOT NULL AND c.at >= $3
GROUP BY c.arm, f.name ORDER BY c.arm, f.name LIMIT $4
"""  # noqa: S608 - our own constants
_BY_MODEL: Final = f"""
SELECT c.provider || '/' || c.model AS served, {_OF.format("f.score", "score")}
FROM (
    SELECT call_id, score FROM feedback WHERE tenant = $1 AND name = $2 AND call_id >= $3
    ORDER BY call_id DESC LIMIT $4
) AS f JOIN call_records AS c ON c.id = f.call_id AND c.tenant = $1
GROUP BY served ORDER BY served LIMIT $5
"""  # noqa: S608 - our own constants
_ADD: Final = """
INSERT INTO feedback (tenant, call_id, name, score, comment, principal)
SELECT $1, $2, $3, $4, $5, $6 WHERE EXISTS (SELECT FROM call_records WHERE id = $2 AND tenant = $1)
ON CONFLICT (tenant, call_id, name) DO UPDATE
    SET score = excluded.score, comment = excluded.comment, principal = excluded.principal, at = now()
RETURNING call_id
"""


class PostgresExperiments:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def state(self, tenant: str, route: str, canary: Canary, now: datetime) -> CanaryState:
        declared = msgspec.json.encode(canary).decode()
        rows = await self._database.fetch("reading a canary's state", _STATE, tenant, route)
        if not rows or rows[0]["declared"] != declared:
            await self._database.fetch(
                "beginning a canary", _BEGIN, tenant, route, declared, now, canary.steps[0]
            )
            rows = await self._database.fetch("reading a canary's state", _STATE, tenant, route)
        row = rows[0]
        return CanaryState(row["status"], row["step"], row["since"], row["version"])

    async def seen(self, tenant: str, route: str, canary: Canary, since: datetime) -> Seen:
        most_s = canary.first_token_p95_s_max
        most_ms = None if most_s is None else most_s * 1000
        rows = await self._database.fetch("looking at a canary", _SEEN, tenant, route, since, most_ms)
        return Seen(**rows[0])

    async def take(
        self, tenant: str, route: str, canary: Canary, before: CanaryState, step: Step, now: datetime
    ) -> bool:
        percent = CanaryState(step.status, step.step, now).percent(canary)
        rows = await self._database.fetch(
            "stepping a canary", _TAKE, tenant, route, before.version, step.status, step.step, now, percent,
            step.reason,
        )  # fmt: skip
        return bool(rows)

    async def steps(self, tenant: str, route: str) -> Sequence[CanaryStep]:
        rows = await self._database.fetch("reading a canary's steps", _STEPS, tenant, route, STEPS_MAX)
        return [CanaryStep(row["at"], row["status"], row["percent"], row["reason"]) for row in rows]

    async def sums(self, tenant: str, route: str, *, since: datetime, currency: str) -> Sequence[ArmSums]:
        rows = await self._database.fetch(
            "adding up an experiment", _SUMS, tenant, route, since, currency, ARMS_MAX
        )
        scored = await self._database.fetch("adding up scores", _SCORES, tenant, route, since, SCORES_MAX)
        scores: dict[str, dict[str, Sums]] = {}
        for row in scored:
            scores.setdefault(row["arm"], {})[row["name"]] = _sums(row, "score")
        return [
            ArmSums(
                arm=row["arm"],
                calls=row["calls"],
                errors=row["errors"],
                measures={name: _sums(row, name) for name in MEASURES},
                scores=scores.get(row["arm"], {}),
            )
            for row in rows
        ]

    async def scores(self, tenant: str, name: str, *, since: datetime) -> Mapping[str, Sums]:
        """Ids of calls sort by time."""
        first = ids.compose("call", int(since.timestamp() * 1000), bytes(ids.CHANCE_BYTES))
        rows = await self._database.fetch(
            "adding up scores of models", _BY_MODEL, tenant, name, first, JUDGED_MAX, MODELS_MAX
        )
        return {row["served"]: _sums(row, "score") for row in rows}

    async def add(self, feedback: Feedback) -> bool:
        rows = await self._database.fetch(
            "keeping feedback", _ADD, feedback.tenant, feedback.call_id, feedback.name, feedback.score,
            feedback.comment, feedback.principal,
        )  # fmt: skip
        return bool(rows)


def _sums(row: Mapping[str, object] | Row, name: str) -> Sums:
    return msgspec.convert(
        {part: row[f"{name}_{part}"] for part in ("count", "mean", "variance")}, Sums, strict=False
    )


_IMPLEMENTS: type[Experiments] = PostgresExperiments
_TELLS_SCORES: type[ModelScores] = PostgresExperiments
