"""Runtime: what becomes of input that comes while its session is busy: it is queued, breaks off what runs, or is refused.

Which of them holds was declared by the agent, or chosen for the session or for this input. What is found out about a session and
what is written to it are two things, between which others write: so what must hold is made a condition of the append.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from freehold.core.errors import Conflict
from freehold.core.resources import WhenBusy
from freehold.core.session import CancelRequested, Input, SessionStatus, UserSpoke
from freehold.core.session_log import SessionLog, SessionRow

BUSY: Final[tuple[SessionStatus, ...]] = ("running", "waiting", "paused")
TRIES_MAX: Final = 10
"""Somebody else was first, so often in a row."""
INTERRUPTED: Final = "new input came"


def speaks(inputs: Sequence[Input]) -> bool:
    """Whether something is said, and nothing asked to stop before it: who interrupts by himself needs no policy."""
    first = next((one for one in inputs if isinstance(one, UserSpoke | CancelRequested)), None)
    return isinstance(first, UserSpoke)


async def append(
    log: SessionLog,
    row: SessionRow,
    inputs: Sequence[Input],
    *,
    when_busy: WhenBusy,
    by: str,
    idempotency_key: str | None,
) -> int:
    """The session's version. Raises Conflict, naming the session's state, where it is busy and `when_busy` is to reject."""
    if when_busy == "queue" or not speaks(inputs):
        return await log.append(row.id, inputs, idempotency_key=idempotency_key)
    for _ in range(TRIES_MAX):
        if row.status in BUSY and when_busy == "reject":
            return await _as_before(log, row, inputs, idempotency_key)
        if row.status in BUSY:
            cancel = CancelRequested(scope="turn", by=by, reason=INTERRUPTED)
            return await log.append(row.id, [cancel, *inputs], idempotency_key=idempotency_key)
        with suppress(Conflict):
            return await log.append(
                row.id, inputs, expected_version=row.version, idempotency_key=idempotency_key
            )
        row = await log.get(row.tenant, row.id)
    raise _refused(row)


async def _as_before(
    log: SessionLog, row: SessionRow, inputs: Sequence[Input], idempotency_key: str | None
) -> int:
    """What was taken under this key before is not refused now, because of what it began. A log of no events is no log, so nothing new
    can be written here."""
    if idempotency_key is not None:
        with suppress(Conflict):
            return await log.append(row.id, inputs, expected_version=0, idempotency_key=idempotency_key)
    raise _refused(row)


def _refused(row: SessionRow) -> Conflict:
    return Conflict(
        f"session {row.id} is {row.status}, and takes no message meanwhile (when_busy: reject). Send it again once the session is idle, "
        "or with when_busy queue or interrupt"
    )
