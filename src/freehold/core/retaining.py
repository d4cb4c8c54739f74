"""Which sessions have been kept long enough, what became of them, and what is kept of them: values, and the port of what knows it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from freehold.core.session import Recorded


class PolicySurvey(Struct, frozen=True, kw_only=True):
    """What one policy decides now; an empty `policy` is the configuration. `sessions` at rest whose time it decides; of these `due` would be
    deleted now, but for those `forked` that forks read as their beginning. `waiting_due` would be ended. `oldest_at`: when the
    longest unwritten of `sessions` was last written to."""

    policy: str
    sessions: int
    due: int
    forked: int
    waiting_due: int
    oldest_at: datetime | None = None


class Gone(Struct, frozen=True):
    """What became of sessions under a policy: how many were deleted, and how many events of evidence were kept of them."""

    policy: str
    deleted: int
    evidence: int


class Waiting(Struct, frozen=True):
    """A session that waits too long by a policy, as it was at its `version`."""

    session_id: str
    policy: str
    version: int


class RetentionRun(Struct, frozen=True, kw_only=True):
    """`by` is a principal, or empty for the installation itself."""

    at: datetime
    policy: str
    by: str
    deleted: int
    ended: int
    evidence: int


class Evidence(Struct, frozen=True, kw_only=True):
    """An event of a session that is gone."""

    session_id: str
    agent: str
    recorded: Recorded
    keep_until: datetime


class RetentionStore(Protocol):
    """`default_days` is the configuration's; None: for ever. Raises Unavailable."""

    async def tenants(self) -> Sequence[str]: ...

    async def survey(self, tenant: str, *, default_days: float | None) -> Sequence[PolicySurvey]: ...

    async def due(self, tenant: str, *, default_days: float | None, limit: int) -> Sequence[tuple[str, str]]:
        """Sessions that would be deleted now, the longest unwritten first, with the policies that say so."""
        ...

    async def waiting_due(self, tenant: str, *, limit: int) -> Sequence[Waiting]:
        """Sessions that would be ended now, the longest unwritten first."""
        ...

    async def delete_due(self, tenant: str, *, default_days: float | None) -> Sequence[Gone]:
        """A bounded number; nothing where nothing is due any more."""
        ...

    async def note(self, tenant: str, run: Sequence[RetentionRun]) -> None: ...
    async def runs(self, tenant: str, *, limit: int) -> Sequence[RetentionRun]:
        """Newest first."""
        ...

    async def evidence(self, tenant: str, *, session_id: str | None, limit: int) -> Sequence[Evidence]:
        """By session, in the order of its log; newest sessions first."""
        ...

    async def sweep(self) -> int:
        """What is left of deleted sessions: events, blocks, results. How many of them are gone without a trace now."""
        ...

    async def forget_evidence(self) -> int:
        """What is kept long enough. How many."""
        ...
