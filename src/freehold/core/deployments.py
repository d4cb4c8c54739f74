"""Deployments as kept: how far a schedule is, what its runs came to, and the port of what keeps them.

Not here: what is declared (core/schedules.py), which slots there are and what becomes of them (runtime/).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from freehold.core.schedules import Deployment
from freehold.core.session_log import ANY_TIME, Created, NewSession

DeploymentStatus: TypeAlias = Literal["active", "paused"]
Trigger: TypeAlias = Literal["schedule", "manual"]


class DeploymentRow(Struct, frozen=True, kw_only=True):
    """A deployment's newest version, declared by `by`, whose rights it runs with. Slots up to `done_until` are dealt with."""

    tenant: str
    deployment: Deployment
    version: int
    by: str
    created_at: datetime
    updated_at: datetime
    done_until: datetime
    archived_at: datetime | None = None
    paused_at: datetime | None = None
    last_run_at: datetime | None = None


class DeploymentRun(Struct, frozen=True, kw_only=True):
    """Began `session_id`, or failed for the cause `error_code`. `slot` is the time that the schedule said; None: begun by hand, by
    `run_by`. `created_at` is when it really began. `missed_count` slots before this one were passed over."""

    id: str
    tenant: str
    deployment: str
    agent: str
    agent_version: int
    created_at: datetime
    run_by: str
    slot: datetime | None = None
    session_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    missed_count: int = 0


class DeploymentClaim(Struct, frozen=True, kw_only=True):
    """The right to deal with a deployment's slots; `epoch` fences. `at_work`: a session of one of its runs runs, waits or is paused.

    `queued_at` is when a slot was last seen to wait for that.
    """

    row: DeploymentRow
    epoch: int
    at_work: bool
    queued_at: datetime | None = None


class Dealt(Struct, frozen=True, kw_only=True):
    """What became of a claim. `due_at`: when to look again, None is never."""

    claim: DeploymentClaim
    done_until: datetime
    due_at: datetime | None
    queued_at: datetime | None = None
    run: DeploymentRun | None = None
    session: NewSession | None = None


class DeploymentPage(Struct, frozen=True):
    rows: tuple[DeploymentRow, ...]
    next: str | None


class RunPage(Struct, frozen=True):
    rows: tuple[DeploymentRun, ...]
    next: str | None


class Deployments(Protocol):
    """Declaring and archiving is done by core.ports.Resources, which keeps these rows in step."""

    async def get(self, tenant: str, name: str) -> DeploymentRow:
        """Also an archived one. Raises NotFound."""
        ...

    async def list(
        self,
        tenant: str,
        *,
        agent: str | None = None,
        status: DeploymentStatus | None = None,
        archived: bool = False,
        created: Created = ANY_TIME,
        limit: int = 20,
        cursor: str | None = None,
    ) -> DeploymentPage:
        """Newest first; with `archived`, those too."""
        ...

    async def pause(self, tenant: str, name: str, *, at: datetime) -> None:
        """When this returns, no slot is begun any more. Idempotent. Raises NotFound, Conflict where it is archived."""
        ...

    async def unpause(self, tenant: str, name: str) -> None:
        """Idempotent. Raises as `pause`."""
        ...

    async def run(self, run: DeploymentRun, session: NewSession | None, *, key: str | None) -> DeploymentRun:
        """One that was begun by hand. With a `key` that was used before for its deployment: the run of that time, nothing new."""
        ...

    async def get_run(self, tenant: str, run_id: str) -> DeploymentRun:
        """Raises NotFound."""
        ...

    async def runs(
        self,
        tenant: str,
        *,
        deployment: str | None = None,
        trigger: Trigger | None = None,
        failed: bool | None = None,
        created: Created = ANY_TIME,
        limit: int = 20,
        cursor: str | None = None,
    ) -> RunPage:
        """Newest first."""
        ...

    async def claim(
        self, now: datetime, *, limit: int, lease_s: float, after_tenant: str | None = None
    ) -> Sequence[DeploymentClaim]:
        """Deployments that are due and that nobody holds: those that wait longest; or, with `after_tenant`, tenants share alike: those
        that wait longest, and the next ones after that one. Level-triggered: none come only where none are due."""
        ...

    async def deal(self, dealt: Sequence[Dealt]) -> frozenset[tuple[str, str]]:
        """All or nothing, runs and sessions included; but claims that are void are left out, and a slot that has its run gets no other.
        The (tenant, name) of claims that held."""
        ...

    async def wait_until_due(self, now: datetime, timeout_s: float) -> None:
        """Returns when some deployment may be due, or after `timeout_s`."""
        ...
