"""Batches of model calls in Anthropic's shape, as its SDKs ask for them (`messages.batches`), for any model.

Source: https://platform.claude.com/docs/en/api/messages/batches. The counts are all `processing` until the whole batch has ended, as
there; how far it is, is told under `freehold`.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec
from msgspec import Struct
from starlette.responses import StreamingResponse

from freehold.core.message_batches import BatchResult, BatchStatus, MessageBatch
from freehold.gateway.batches import Batches
from freehold.runtime.inputs import check_idempotency_key, check_limit
from freehold.server.operations import Call, Operation

PATH: Final = "/v1/messages/batches"
ONE: Final = PATH + "/{message_batch_id}"
LIST_LIMIT_MAX: Final = 1000
JSONL: Final = "application/x-jsonl"

_encode: Final = msgspec.json.Encoder().encode


class RequestCounts(Struct, frozen=True, kw_only=True):
    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0


class BatchShown(Struct, frozen=True, kw_only=True):
    """`results_url` is relative to wherever the client reaches this server. `freehold` counts as of now."""

    id: str
    type: Literal["message_batch"] = "message_batch"
    processing_status: BatchStatus
    request_counts: RequestCounts
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    cancel_initiated_at: datetime | None
    archived_at: datetime | None
    results_url: str | None
    freehold: RequestCounts


class BatchList(Struct, frozen=True, kw_only=True):
    data: tuple[BatchShown, ...]
    has_more: bool
    first_id: str | None
    last_id: str | None


class BatchDeleted(Struct, frozen=True):
    id: str
    type: Literal["message_batch_deleted"] = "message_batch_deleted"


class ListQuery(Struct, frozen=True, forbid_unknown_fields=True):
    after_id: str | None = None
    before_id: str | None = None
    limit: int = 20


class BatchApi:
    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    async def create(self, call: Call) -> BatchShown:
        key = call.headers.get("idempotency-key")
        check_idempotency_key(key)
        made = await self._batches.create(
            call.principal, call.body, headers=call.headers, idempotency_key=key
        )
        return _shown(made)

    async def get(self, call: Call) -> BatchShown:
        return _shown(await self._batches.get(call.principal, _id(call)))

    async def list(self, call: Call) -> BatchList:
        query: ListQuery = call.query
        check_limit(query.limit, LIST_LIMIT_MAX)
        page = await self._batches.list(
            call.principal, after_id=query.after_id, before_id=query.before_id, limit=query.limit
        )
        shown = tuple(_shown(one) for one in page.batches)
        return BatchList(
            data=shown,
            has_more=page.more,
            first_id=shown[0].id if shown else None,
            last_id=shown[-1].id if shown else None,
        )

    async def cancel(self, call: Call) -> BatchShown:
        return _shown(await self._batches.cancel(call.principal, _id(call)))

    async def delete(self, call: Call) -> BatchDeleted:
        await self._batches.delete(call.principal, _id(call))
        return BatchDeleted(_id(call))

    async def results(self, call: Call) -> StreamingResponse:
        """A line a request, in the requests' order, read from the store as the client takes them."""
        pieces = await self._batches.results(call.principal, _id(call))
        return StreamingResponse(_lines(pieces), media_type=JSONL, headers={"cache-control": "no-store"})


def _id(call: Call) -> str:
    return call.path["message_batch_id"]


async def _lines(pieces: AsyncIterator[Sequence[BatchResult]]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield b"".join(_line(one) for one in piece)


def _line(result: BatchResult) -> bytes:
    """What came from a vendor stays as it came."""
    match result.outcome:
        case "succeeded":
            more = b',"message":' + result.body
        case "errored":
            more = b',"error":' + result.body
        case "canceled" | "expired":
            more = b""
    custom_id = _encode(result.custom_id)
    return b'{"custom_id":%b,"result":{"type":"%b"%b}}\n' % (custom_id, result.outcome.encode(), more)


def _shown(batch: MessageBatch) -> BatchShown:
    ended = batch.status == "ended"
    now = RequestCounts(
        succeeded=batch.succeeded_count,
        errored=batch.errored_count,
        canceled=batch.canceled_count,
        expired=batch.expired_count,
        processing=batch.request_count
        - batch.succeeded_count
        - batch.errored_count
        - batch.canceled_count
        - batch.expired_count,
    )
    return BatchShown(
        id=batch.id,
        processing_status=batch.status,
        request_counts=now if ended else RequestCounts(processing=batch.request_count),
        created_at=batch.created_at,
        expires_at=batch.expires_at,
        ended_at=batch.ended_at,
        cancel_initiated_at=batch.cancel_initiated_at,
        archived_at=batch.archived_at,
        results_url=f"{PATH}/{batch.id}/results" if ended and batch.archived_at is None else None,
        freehold=now,
    )


def operations(batches: Batches) -> list[Operation]:
    api = BatchApi(batches)
    return [
        Operation(method="POST", path=PATH, id="createMessageBatch", tag="batches", raw_body=True,
                  summary="Make many calls in the background: `requests`, each with a `custom_id` and a call's `params`.",
                  handler=api.create, answer=BatchShown),
        Operation(method="GET", path=PATH, id="listMessageBatches", tag="batches", summary="Batches, newest first.",
                  handler=api.list, query=ListQuery, answer=BatchList),
        Operation(method="GET", path=ONE, id="getMessageBatch", tag="batches", summary="One batch.",
                  handler=api.get, answer=BatchShown),
        Operation(method="DELETE", path=ONE, id="deleteMessageBatch", tag="batches", summary="Delete a batch that has ended.",
                  handler=api.delete, answer=BatchDeleted),
        Operation(method="POST", path=ONE + "/cancel", id="cancelMessageBatch", tag="batches",
                  summary="End a batch early; what runs may finish. Idempotent.", handler=api.cancel, answer=BatchShown),
        Operation(method="GET", path=ONE + "/results", id="getMessageBatchResults", tag="batches",
                  summary="The results of a batch that has ended, one JSON object a line.",
                  handler=api.results, media_type=JSONL),
    ]  # fmt: skip
