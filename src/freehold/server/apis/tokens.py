"""Counting a request's tokens before it is made, as Anthropic's SDK asks for it (`messages.count_tokens`).

Source: https://docs.anthropic.com/en/api/messages-count-tokens. What is an estimate says so: in the header
`x-freehold-estimated` and under `freehold`.
"""

from typing import Final

import msgspec
from msgspec import Struct
from starlette.responses import Response

from freehold.gateway.passing import Envelope
from freehold.gateway.pipeline import Gateway
from freehold.server.operations import Call, Operation, json_response

WIRE: Final = "anthropic_messages"
ESTIMATED: Final = "x-freehold-estimated"


class CountedBy(Struct, frozen=True):
    """`model` is `provider/name`. `estimated`: its vendor offers no count, so it was we who counted."""

    estimated: bool
    model: str


class TokenCount(Struct, frozen=True):
    input_tokens: int
    freehold: CountedBy


class TokenApi:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def count(self, call: Call) -> Response:
        envelope = Envelope(call.body)
        if "max_tokens" not in envelope.fields:
            # A request must have it, a count's request cannot; it does not count.
            envelope = Envelope(msgspec.json.encode({**envelope.fields, "max_tokens": 1}))
        counted = await self._gateway.count(call.principal, envelope, wire=WIRE, headers=call.headers)
        shown = TokenCount(
            counted.input_tokens, CountedBy(counted.estimated, f"{counted.provider}/{counted.model}")
        )
        response = json_response(shown, request_id=call.request_id)
        if counted.estimated:
            response.headers[ESTIMATED] = "true"
        return response


def operations(gateway: Gateway) -> list[Operation]:
    api = TokenApi(gateway)
    return [
        Operation(method="POST", path="/v1/messages/count_tokens", id="countTokens", tag="models", raw_body=True,
                  summary="How many tokens a Messages request has: its vendor's count, else an estimate that says it is one.",
                  handler=api.count, answer=TokenCount),
    ]  # fmt: skip
