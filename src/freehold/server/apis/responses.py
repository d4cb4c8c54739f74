"""Kept responses, in OpenAI's shapes: /v1/responses/{id}. Source: https://platform.openai.com/docs/api-reference/responses.

Not here: making one (front.py, by way of responses_keeping.py). A client's `compact` is refused: what comes of it is sealed by its
vendor and read by no other.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from starlette.responses import Response

from freehold.core.errors import BadRequest, NotFound, Unsupported
from freehold.core.policy import authorize
from freehold.core.ports import Wire
from freehold.core.responses import KeptResponse, Responses
from freehold.core.validation import check_limit
from freehold.gateway.passing import Envelope
from freehold.gateway.pipeline import Gateway
from freehold.gateway.residency import with_labels
from freehold.server.apis import _response_items as items
from freehold.server.apis._event_stream import EventStreamResponse
from freehold.server.apis._response_answers import is_background, shown
from freehold.server.apis._response_stream import followed
from freehold.server.apis.responses_keeping import GET, WIRE, Keeper, asked_in
from freehold.server.operations import Call, Operation, json_response

ITEMS_PAGE_MAX: Final = 100
DELETE: Final = "response:Delete"
CANCEL: Final = "response:Cancel"
ESTIMATED: Final = "x-freehold-estimated"

_encode: Final = msgspec.json.Encoder().encode
_NO_INPUT: Final = Raw(items.EMPTY)


class RetrieveQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`starting_after`: with `stream`, only events with a higher number. All of a response is shown, whatever `include` says."""

    stream: bool = False
    starting_after: int = -1
    include: tuple[str, ...] = ()
    include_obfuscation: bool = False


class ItemsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`after` is an item's id. All of an item is shown, whatever `include` says."""

    after: str | None = None
    limit: int = 20
    order: str = "desc"
    include: tuple[str, ...] = ()


class DeletedShown(Struct, frozen=True):
    id: str
    object: str
    deleted: bool = True


class CountedBy(Struct, frozen=True):
    """`estimated`: its vendor offers no count, so it was we who counted."""

    estimated: bool
    model: str


class InputTokensShown(Struct, frozen=True):
    input_tokens: int
    freehold: CountedBy
    object: str = "response.input_tokens"


class ResponseApi:
    def __init__(self, responses: Responses, keeper: Keeper, gateway: Gateway) -> None:
        self._responses = responses
        self._keeper = keeper
        self._gateway = gateway

    async def get(self, call: Call) -> Response:
        query: RetrieveQuery = call.query
        kept = await self._found(call, GET)
        if not query.stream:
            return _whole(kept, call)
        if not kept.streamed:
            raise BadRequest(
                "only a response that was made with background: true and stream: true can be streamed again",
                field="stream",
            )
        events = followed(self._responses, kept.tenant, kept.id, after=query.starting_after)
        return EventStreamResponse(events, call.leaving)

    async def delete(self, call: Call) -> DeletedShown:
        response_id = call.path["response_id"]
        authorize(call.principal, DELETE, f"response/{response_id}")
        await self._responses.delete(call.principal.tenant, response_id)
        return DeletedShown(response_id, "response")

    async def cancel(self, call: Call) -> Response:
        kept = await self._found(call, CANCEL)
        if not is_background(kept):
            raise BadRequest(
                "Cannot cancel a synchronous response: only those made with background: true can be."
            )
        return _whole(await self._responses.cancel(kept.tenant, kept.id), call)

    async def input_items(self, call: Call) -> items.ItemPage:
        """All that its model was given, also of the responses before; of a conversation, only what came with the request."""
        query: ItemsQuery = call.query
        check_limit(query.limit, ITEMS_PAGE_MAX)
        newest_first = items.is_newest_first(query.order)
        response_id = call.path["response_id"]
        authorize(call.principal, GET, f"response/{response_id}")
        chain = await self._responses.history(call.principal.tenant, response_id)
        found = [item for one in chain[:-1] for item in items.said_in(one)]
        found += items.identified(chain[-1].input, chain[-1].id)
        if newest_first:
            found.reverse()
        start = 0
        if query.after is not None:
            places = [place for place, item in enumerate(found) if item.id == query.after]
            if not places:
                raise NotFound(f"Item with id '{query.after[:80]}' not found.", field="after")
            start = places[-1] + 1
        shown_items = found[start : start + query.limit]
        return items.page(shown_items, more=len(found) > start + query.limit)

    async def input_tokens(self, call: Call) -> Response:
        given = Envelope(call.body)
        asked = asked_in({**given.fields, "store": Raw(b"true"), "background": Raw(b"false")})
        envelope, principal = given, call.principal
        if asked is not None:
            asked = await self._keeper.resolved(principal, asked)
            before = await self._keeper.before(principal, asked)
            fields = {"input": _NO_INPUT, **given.fields}
            envelope = await self._keeper.expanded(principal, Envelope(_encode(fields)), asked, before)
            principal = with_labels(principal, (*asked.labels, *before.labels))
        counted = await self._gateway.count(principal, envelope, wire=WIRE, headers=call.headers)
        by = CountedBy(counted.estimated, f"{counted.provider}/{counted.model}")
        response = json_response(InputTokensShown(counted.input_tokens, by), request_id=call.request_id)
        if counted.estimated:
            response.headers[ESTIMATED] = "true"
        return response

    async def compact(self, call: Call) -> Any:
        raise Unsupported(
            "conversations are not compacted here: go on with previous_response_id, or begin anew with what still matters"
        )

    async def _found(self, call: Call, action: str) -> KeptResponse:
        response_id = call.path["response_id"]
        authorize(call.principal, action, f"response/{response_id}")
        return await self._responses.get(call.principal.tenant, response_id)


def _whole(kept: KeptResponse, call: Call) -> Response:
    headers = {"cache-control": "no-store", "request-id": call.request_id}
    return Response(shown(kept), headers=headers, media_type="application/json")


def operations(responses: Responses, keeper: Keeper, gateway: Gateway, *, dialect: Wire) -> list[Operation]:
    api = ResponseApi(responses, keeper, gateway)
    one = "/v1/responses/{response_id}"
    return [
        Operation(method="GET", path=one, id="getResponse", tag="responses", dialect=dialect, query=RetrieveQuery,
                  summary="A kept response; with `stream`, the events of one in the background from any number on.",
                  handler=api.get),
        Operation(method="DELETE", path=one, id="deleteResponse", tag="responses", dialect=dialect,
                  summary="Forget a response. What builds on it cannot be continued any more.", handler=api.delete,
                  answer=DeletedShown),
        Operation(method="POST", path=f"{one}/cancel", id="cancelResponse", tag="responses", dialect=dialect,
                  summary="Stop a response in the background; idempotent.", handler=api.cancel),
        Operation(method="GET", path=f"{one}/input_items", id="listInputItems", tag="responses", dialect=dialect,
                  query=ItemsQuery, summary="What its model was given, item by item.", handler=api.input_items,
                  answer=items.ItemPage),
        Operation(method="POST", path="/v1/responses/input_tokens", id="countInputTokens", tag="responses", dialect=dialect,
                  raw_body=True, handler=api.input_tokens, answer=InputTokensShown,
                  summary="How many tokens a request has: its vendor's count, else an estimate that says it is one."),
        Operation(method="POST", path="/v1/responses/compact", id="compactResponses", tag="responses", dialect=dialect,
                  raw_body=True, handler=api.compact, summary="Refused: conversations are not compacted here."),
    ]  # fmt: skip
