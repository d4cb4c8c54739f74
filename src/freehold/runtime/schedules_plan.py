"""Runtime: what becomes of the slots of a deployment that is due. Pure.

Policies: core/schedules.py. Who asks, and what a run is: schedules_worker.py.
"""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, TypeAlias, assert_never

from msgspec import Struct

from freehold.core.deployments import DeploymentClaim
from freehold.core.schedules import ON_TIME_S, SLOTS_KEPT_MAX, Deployment, Schedule
from freehold.runtime.schedules import due, next_after

QUEUE_LOOK: Final = timedelta(seconds=2)
"""How often a slot that waits for the former run looks whether it has ended."""

OVERLAPS: Final = "overlap"
TOO_LATE: Final = "missed"
"""Codes of runs that were not begun, beside those of core/errors.py."""


class Idle(Struct, frozen=True):
    """Nothing to run."""

    done_until: datetime
    due_at: datetime | None


class Wait(Struct, frozen=True):
    """A slot waits for the former run to end. Those up to `done_until` were too late already."""

    done_until: datetime
    due_at: datetime


class Run(Struct, frozen=True):
    """`slot` is run, or passed over with `refused` (a code, and why). `missed_count` slots before it were passed over already."""

    slot: datetime
    due_at: datetime | None
    missed_count: int = 0
    refused: tuple[str, str] | None = None


Decision: TypeAlias = Idle | Wait | Run


def decide(claim: DeploymentClaim, now: datetime) -> Decision:
    """One slot at a time: where more are to be run, it is due again at once."""
    deployment, done_until = claim.row.deployment, claim.row.done_until
    schedule = deployment.schedule
    if schedule is None:
        return Idle(done_until, None)
    slots = due(schedule, done_until, now, limit=SLOTS_KEPT_MAX + 1)
    if not slots:
        return Idle(done_until, next_after(schedule, max(now, done_until)))
    wanted = [slot for slot in _kept(deployment, slots) if _in_time(claim, slot, now)]
    if not wanted:
        last = slots[-1]
        why = f"{_slots(len(slots))} passed, and none may begin so late (missed, starting_deadline_s)"
        return Run(last, next_after(schedule, last), len(slots) - 1, (TOO_LATE, why))
    return _overlapping(claim, schedule, wanted[0], slots, now)


def _overlapping(
    claim: DeploymentClaim, schedule: Schedule, slot: datetime, slots: Sequence[datetime], now: datetime
) -> Decision:
    missed_count = slots.index(slot)
    due_at = next_after(schedule, slot)
    match claim.row.deployment.overlap if claim.at_work else "allow":
        case "allow":
            return Run(slot, due_at, missed_count)
        case "skip":
            why = "a session of this deployment is still at work (overlap: skip)"
            return Run(slot, due_at, missed_count, (OVERLAPS, why))
        case "queue":
            each = claim.row.deployment.missed == "run_all" and missed_count > 0
            return Wait(slots[missed_count - 1] if each else claim.row.done_until, now + QUEUE_LOOK)
        case _ as unreachable:
            assert_never(unreachable)


def _kept(deployment: Deployment, slots: Sequence[datetime]) -> Sequence[datetime]:
    match deployment.missed:
        case "skip" | "run_once":
            return slots[-1:]
        case "run_all":
            return slots[-SLOTS_KEPT_MAX:]
        case _ as unreachable:
            assert_never(unreachable)


def _in_time(claim: DeploymentClaim, slot: datetime, now: datetime) -> bool:
    """A slot that has waited for the former run was in time when it began to."""
    deployment = claim.row.deployment
    deadline_s = deployment.starting_deadline_s
    if deadline_s is None:
        deadline_s = ON_TIME_S if deployment.missed == "skip" else math.inf
    waited = claim.queued_at is not None and slot <= claim.queued_at
    return waited or (now - slot).total_seconds() <= deadline_s


def _slots(count: int) -> str:
    return "1 slot" if count == 1 else f"{count} slots" if count <= SLOTS_KEPT_MAX else "many slots"
