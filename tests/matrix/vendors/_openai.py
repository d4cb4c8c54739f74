"""How OpenAI says that something went wrong, whichever of its formats was asked. https://platform.openai.com/docs/guides/error-codes."""

import msgspec

from tests.gateway._vendors import Step, reply
from tests.matrix._words import Cause

_ERRORS: dict[Cause, tuple[int, str, str | None]] = {
    "bad_request": (400, "invalid_request_error", None),
    "context_too_long": (400, "invalid_request_error", "context_length_exceeded"),
    "unauthenticated": (401, "invalid_request_error", "invalid_api_key"),
    "not_found": (404, "invalid_request_error", "model_not_found"),
    "too_large": (413, "invalid_request_error", None),
    "rate_limited": (429, "requests", "rate_limit_exceeded"),
    "failed": (500, "server_error", None),
    "overloaded": (503, "server_error", "overloaded"),
}


def fault(cause: Cause, message: str, headers: str) -> list[Step]:
    status, kind, code = _ERRORS[cause]
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return reply(msgspec.json.encode(body), status=status, headers=headers)
