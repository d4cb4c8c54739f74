"""Sessions and events for the store's tests."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from freehold.clock import SystemClock
from freehold.core import ids
from freehold.core.messages import Text, Usage
from freehold.core.session import (
    CancelRequested,
    ModelAnswered,
    Recorded,
    SessionStarted,
    TurnFinished,
    UserSpoke,
)
from freehold.core.session_log import Lease, SessionLog, SessionRow

CLOCK = SystemClock()
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
STARTED = SessionStarted(agent="retail", agent_version=1)
IDLE = TurnFinished(outcome="completed")
CANCELLED = TurnFinished(outcome="cancelled", code="session")
CANCEL = CancelRequested(scope="session")


def new_row(**changes: Any) -> SessionRow:
    row = {
        "id": ids.new("sess", CLOCK),
        "tenant": "default",
        "agent": "retail",
        "agent_version": 1,
        "status": "idle",
        "version": 0,
        "created_at": LONG_AGO,
        "updated_at": LONG_AGO,
    }
    return SessionRow(**{**row, **changes})


def said(text: str) -> UserSpoke:
    return UserSpoke(content=(Text(text),))


def answered(text: str, *, tokens: int = 0, cost_pico: int = 0) -> ModelAnswered:
    return ModelAnswered(
        seen_seq=1,
        model="auto",
        served_by="p/m",
        content=(Text(text),),
        stop_reason="end_turn",
        usage=Usage(input_tokens=tokens, output_tokens=tokens),
        cost_pico=cost_pico,
    )


def texts(recorded: Sequence[Recorded]) -> list[str]:
    """What users said and models answered, in order."""
    return [
        part.text
        for one in recorded
        if isinstance(one.event, UserSpoke | ModelAnswered)
        for part in one.event.content
        if isinstance(part, Text)
    ]


async def begun(log: SessionLog, *events: Any, **changes: Any) -> SessionRow:
    """A session with one event, or with `events` after it."""
    return await log.create(new_row(**changes), [STARTED, *events])


async def claimed(log: SessionLog, owner: str = "worker-1", *, lease_s: float = 60.0) -> Lease:
    leases = await log.claim(owner, limit=1, lease_s=lease_s)
    assert len(leases) == 1
    return leases[0]
