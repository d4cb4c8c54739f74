"""Batches of model calls, as kept: many requests under one id, each with one result. Values, and the port of what keeps them.

Source of the states: https://platform.claude.com/docs/en/build-with-claude/batch-processing
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

BatchStatus: TypeAlias = Literal["in_progress", "canceling", "ended"]
Outcome: TypeAlias = Literal["succeeded", "errored", "canceled", "expired"]


class MessageBatch(Struct, frozen=True, kw_only=True):
    """`headers` are those of its creation that belong to the wire, names lower-cased. `archived_at`: since when its results are gone."""

    id: str
    tenant: str
    created_by: str
    created_at: datetime
    expires_at: datetime
    request_count: int
    headers: Mapping[str, str] = {}
    status: BatchStatus = "in_progress"
    cancel_initiated_at: datetime | None = None
    ended_at: datetime | None = None
    archived_at: datetime | None = None
    succeeded_count: int = 0
    errored_count: int = 0
    canceled_count: int = 0
    expired_count: int = 0


class BatchRequest(Struct, frozen=True):
    """`params` is a request of the client's wire, as JSON."""

    custom_id: str
    params: bytes


class BatchPage(Struct, frozen=True):
    """`more`: there are others beyond the page, in the direction that was asked for."""

    batches: tuple[MessageBatch, ...]
    more: bool


class BatchClaim(Struct, frozen=True, kw_only=True):
    """The right to settle one request. `epoch` fences, and counts how often it was claimed; `failures` are calls that failed before."""

    batch_id: str
    number: int
    epoch: int
    failures: int
    tenant: str
    created_by: str
    headers: Mapping[str, str]
    params: bytes

    @property
    def place(self) -> tuple[str, int]:
        return self.batch_id, self.number


class BatchResult(Struct, frozen=True):
    """`body` is the message for `succeeded`, the error for `errored` (both JSON on one line), otherwise nothing."""

    number: int
    custom_id: str
    outcome: Outcome
    body: bytes


class Settled(Struct, frozen=True):
    """What became of a claimed request."""

    claim: BatchClaim
    outcome: Literal["succeeded", "errored"]
    body: bytes


class MessageBatches(Protocol):
    """Requests that are made in the background, each with one result. Every door but the worker's raises NotFound."""

    async def create(
        self, batch: MessageBatch, requests: Sequence[BatchRequest], *, idempotency_key: str | None = None
    ) -> MessageBatch:
        """All or nothing. With a key that was used before in the tenant: the batch of that time, nothing new."""
        ...

    async def get(self, tenant: str, batch_id: str) -> MessageBatch: ...

    async def list(
        self, tenant: str, *, after_id: str | None = None, before_id: str | None = None, limit: int = 20
    ) -> BatchPage:
        """Newest first: those right after (older than) one, or right before it; not both."""
        ...

    async def cancel(self, tenant: str, batch_id: str, *, at: datetime) -> MessageBatch:
        """Nothing of it is claimed from now on; `sweep` ends what waits. A batch that has ended stays as it is."""
        ...

    async def delete(self, tenant: str, batch_id: str) -> None:
        """Raises BadRequest unless it has ended."""
        ...

    async def results(self, tenant: str, batch_id: str, *, after: int = -1) -> Sequence[BatchResult]:
        """Of an ended batch, a bounded piece by number; none: that was all."""
        ...

    async def claim(self, owner: str, *, limit: int, lease_s: float, now: datetime) -> Sequence[BatchClaim]:
        """Due requests of one batch, of the one that waits longest; none of batches that are canceled or expired by `now`."""
        ...

    async def renew(
        self, owner: str, claims: Sequence[BatchClaim], *, lease_s: float
    ) -> frozenset[tuple[str, int]]:
        """Places of those still held."""
        ...

    async def release(self, owner: str, claims: Sequence[BatchClaim]) -> None: ...
    async def postpone(self, claim: BatchClaim, *, pause_s: float) -> None: ...

    async def finish(self, settled: Sequence[Settled], *, now: datetime) -> frozenset[tuple[str, int]]:
        """Writes results where the claim still holds, once, and counts them. Returns the places that were written."""
        ...

    async def sweep(self, now: datetime) -> int:
        """Ends what waits in batches that are canceled or expired by `now`. Returns how many requests."""
        ...

    async def archive(self, now: datetime, *, created_before: datetime) -> int:
        """Deletes the results of ended batches that are older. Returns how many batches."""
        ...

    async def wait_for_work(self, timeout_s: float) -> None:
        """Returns when there may be something to claim, or after `timeout_s`."""
        ...
