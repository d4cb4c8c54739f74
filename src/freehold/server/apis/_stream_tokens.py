"""What an endpoint of event streams takes in place of a key: a token in its address, for browsers. Made by /v1/sessions/{id}/stream_tokens."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, Protocol

from msgspec import Meta, Struct
from starlette.responses import Response

from freehold.core.policy import Principal
from freehold.server.operations import ByToken

GOOD_S: Final = 3_600
GOOD_S_MAX: Final = 86_400

ANY_ORIGIN: Final = "access-control-allow-origin"


class Tokens(Protocol):
    def issue(self, principal: Principal, session_id: str, *, good_s: int) -> tuple[str, datetime]:
        """The token, and until when it is good."""
        ...

    def principal(self, token: str, session_id: str) -> Principal:
        """Who reads that session's events. Raises Unauthenticated."""
        ...


class CreateStreamToken(Struct, frozen=True, forbid_unknown_fields=True):
    expires_in_s: Annotated[int, Meta(ge=1, le=GOOD_S_MAX)] = GOOD_S


class StreamToken(Struct, frozen=True, kw_only=True):
    """`url` is the stream's, with the token; `&after=0` is from the first event on."""

    type: str = "stream_token"
    token: str
    url: str
    expires_at: datetime


def by_token(tokens: Tokens) -> ByToken:
    """Who is meant by a token in the query of a session's stream."""

    def found(token: str, path: Mapping[str, str]) -> Principal:
        return tokens.principal(token, path["session_id"])

    return found


def to_any_page(response: Response, token: str | None) -> Response:
    """What a token opens may be read by a page of any origin: nothing that a browser keeps by itself opens it."""
    if token is not None:
        response.headers[ANY_ORIGIN] = "*"
    return response
