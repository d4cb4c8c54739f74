"""Gateway: batches of model calls, as their owners see them: create, look, cancel, delete, read results. What makes the calls is
batch_worker.py.

Every door authorizes: `batch:Create` and `batch:List` on `batch/*`, `batch:Get` (results too), `batch:Cancel` and `batch:Delete` on
`batch/<id>`; and each request's model, as a call would. Another tenant's batch is not found. Not here: any dialect's answers (server/).

Limits and states: https://platform.claude.com/docs/en/build-with-claude/batch-processing
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

import msgspec
from msgspec import Raw, Struct

from freehold.core import ids
from freehold.core.errors import BadRequest, Forbidden, FreeholdError, Internal, NotFound, TooLarge
from freehold.core.message_batches import BatchPage, BatchRequest, BatchResult, MessageBatch, MessageBatches
from freehold.core.policy import Principal, authorize
from freehold.core.ports import Clock, Wire
from freehold.core.validation import decode
from freehold.gateway.passing import Envelope
from freehold.gateway.pipeline import ACTION, Gateway
from freehold.gateway.residency import HEADER, hold_here, within_reach

REQUESTS_MAX: Final = 100_000
CUSTOM_ID_CHARS_MAX: Final = 64
EXPIRES_AFTER: Final = timedelta(hours=24)
RESULTS_KEPT: Final = timedelta(days=29)
"""Both from the batch's creation, as Anthropic has it."""

ALL: Final = "batch/*"
_KEPT_HEADERS: Final = ("anthropic-beta", "anthropic-version", HEADER)
HEADER_CHARS_MAX: Final = 2_000


class _Request(Struct, forbid_unknown_fields=True):
    custom_id: str
    params: Raw


class _Create(Struct, forbid_unknown_fields=True):
    requests: list[_Request]


_CREATE: Final = msgspec.json.Decoder(_Create)


class Wanted(Struct, frozen=True):
    """A creation's requests, each a whole one of the wire. `models`: each that they name, and the number of the first that does."""

    requests: Sequence[BatchRequest]
    models: Mapping[str, int]


def read_requests(body: bytes, wire: Wire) -> Wanted:
    """Pure; 30 us a request and more, so in a thread. Raises BadRequest or Unsupported with the path, TooLarge for too many."""
    given = decode(body, _CREATE).requests
    if not given:
        raise BadRequest(f"expected 1 to {REQUESTS_MAX} requests, got none", field="requests")
    if len(given) > REQUESTS_MAX:
        raise TooLarge(
            f"a batch may have REQUESTS_MAX = {REQUESTS_MAX} requests, this has {len(given)}: send several batches",
            field="requests",
        )
    places: dict[str, int] = {}
    models: dict[str, int] = {}
    requests: list[BatchRequest] = []
    for number, one in enumerate(given):
        _check_custom_id(one.custom_id, number, places)
        params = bytes(one.params)
        models.setdefault(_model_of(params, number, wire), number)
        requests.append(BatchRequest(one.custom_id, params))
    return Wanted(requests, models)


def _check_custom_id(custom_id: str, number: int, places: dict[str, int]) -> None:
    field = f"requests[{number}].custom_id"
    if not 1 <= len(custom_id) <= CUSTOM_ID_CHARS_MAX:
        raise BadRequest(f"expected 1 to {CUSTOM_ID_CHARS_MAX} characters, got {len(custom_id)}", field=field)
    if not custom_id.isprintable():
        raise BadRequest(f"expected printable characters, got {custom_id!r}", field=field)
    first = places.setdefault(custom_id, number)
    if first != number:
        raise BadRequest(
            f"expected one of its own, {custom_id!r} is that of requests[{first}] too", field=field
        )


def _model_of(params: bytes, number: int, wire: Wire) -> str:
    try:
        envelope = Envelope(params)
        wire.decode_request(params)
    except FreeholdError as error:
        raise _within(error, number) from error
    if envelope.stream:
        raise BadRequest(
            "expected false or nothing: the answers of a batch are whole",
            field=f"requests[{number}].params.stream",
        )
    return envelope.model


def _within(error: FreeholdError, number: int, inner: str | None = None) -> FreeholdError:
    """The same, with the path from the batch's own root."""
    inner = error.field or inner
    error.field = f"requests[{number}].params" + (f".{inner}" if inner else "")
    return error


class Batches:
    """`wire` is what the requests are written in."""

    def __init__(self, kept: MessageBatches, gateway: Gateway, wire: Wire, clock: Clock) -> None:
        self._kept = kept
        self._gateway = gateway
        self._wire = wire
        self._clock = clock

    async def create(
        self,
        principal: Principal,
        body: bytes,
        *,
        headers: Mapping[str, str],
        idempotency_key: str | None = None,
    ) -> MessageBatch:
        """`headers` are the client's, names lower-cased: those of the wire go along with each call."""
        authorize(principal, "batch:Create", ALL)
        hold_here(principal, self._gateway.models.home, "the batch")
        wanted = await asyncio.to_thread(read_requests, body, self._wire)
        await self._check_models(principal, wanted.models)
        now = self._clock.now()
        batch = MessageBatch(
            id=ids.new("msgbatch", self._clock),
            tenant=principal.tenant,
            created_by=principal.id,
            created_at=now,
            expires_at=now + EXPIRES_AFTER,
            request_count=len(wanted.requests),
            headers=_headers(headers),
        )
        return await self._kept.create(batch, wanted.requests, idempotency_key=idempotency_key)

    async def get(self, principal: Principal, batch_id: str) -> MessageBatch:
        self._authorize(principal, "batch:Get", batch_id)
        return await self._kept.get(principal.tenant, batch_id)

    async def list(
        self, principal: Principal, *, after_id: str | None, before_id: str | None, limit: int
    ) -> BatchPage:
        authorize(principal, "batch:List", ALL)
        if after_id is not None and before_id is not None:
            raise BadRequest("expected either after_id or before_id, got both", field="before_id")
        for field, cursor in (("after_id", after_id), ("before_id", before_id)):
            if cursor is not None:
                ids.check("msgbatch", cursor, field=field)
        return await self._kept.list(principal.tenant, after_id=after_id, before_id=before_id, limit=limit)

    async def cancel(self, principal: Principal, batch_id: str) -> MessageBatch:
        """Idempotent. What runs may finish; what has ended is left as it is."""
        self._authorize(principal, "batch:Cancel", batch_id)
        return await self._kept.cancel(principal.tenant, batch_id, at=self._clock.now())

    async def delete(self, principal: Principal, batch_id: str) -> None:
        """Raises BadRequest unless it has ended."""
        self._authorize(principal, "batch:Delete", batch_id)
        await self._kept.delete(principal.tenant, batch_id)

    async def results(self, principal: Principal, batch_id: str) -> AsyncIterator[Sequence[BatchResult]]:
        """In the order of the requests, a bounded piece at a time. Iterating raises Internal where the batch goes away meanwhile."""
        batch = await self.get(principal, batch_id)
        if batch.status != "ended":
            raise BadRequest(f"the batch {batch.id} is {batch.status}: it has results once it has ended")
        if batch.archived_at is not None:
            raise NotFound(
                f"the results of batch {batch.id} were kept for {RESULTS_KEPT.days} days, and are gone"
            )
        return self._pieces(batch)

    async def _pieces(self, batch: MessageBatch) -> AsyncIterator[Sequence[BatchResult]]:
        count, last = 0, -1
        while piece := await self._kept.results(batch.tenant, batch.id, after=last):
            count, last = count + len(piece), piece[-1].number
            yield piece
        if count != batch.request_count:
            raise Internal(f"the batch {batch.id} was deleted while its results were read")

    async def _check_models(self, principal: Principal, models: Mapping[str, int]) -> None:
        """What is wrong with a model is told now and not, a thousand times, in the results."""
        for model, number in models.items():
            try:
                target = await self._gateway.models.resolve(principal.tenant, model, wire=self._wire.name)
                authorize(principal, ACTION, target.resource)
                within_reach(principal, target)
            except (NotFound, BadRequest, Forbidden) as error:
                raise _within(error, number, "model") from error

    def _authorize(self, principal: Principal, action: str, batch_id: str) -> None:
        ids.check("msgbatch", batch_id, field="message_batch_id")
        authorize(principal, action, f"batch/{batch_id}")


def _headers(given: Mapping[str, str]) -> dict[str, str]:
    kept = {name: given[name] for name in _KEPT_HEADERS if name in given}
    for name, value in kept.items():
        if len(value) > HEADER_CHARS_MAX:
            raise BadRequest(f"expected {HEADER_CHARS_MAX} characters at most, got {len(value)}", field=name)
    return kept
