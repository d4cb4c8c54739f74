"""Arguments to an HTTP request, and an HTTP answer to an outcome. Pure.

Parameters are written as their `style` says: https://spec.openapis.org/oas/v3.1.0#style-values.
"""

import http
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct

from freehold.core.errors import BadRequest, Overloaded, RateLimited, Unavailable
from freehold.core.messages import Text
from freehold.core.ports import ToolOutcome
from freehold.tools._functions import answer
from freehold.tools.http._guard import Answer
from freehold.tools.http._openapi import IDEMPOTENCY_HEADER, Operation, Parameter

EXCERPT_CHARS: Final = 2_000
SAID_CHARS: Final = 300
RETRY_AFTER_S_MAX: Final = 3_600.0

_SEPARATORS: Final = {"spaceDelimited": " ", "pipeDelimited": "|"}
_PLACEHOLDER: Final = re.compile(r"\{([^{}]+)\}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Outgoing(Struct, frozen=True):
    """`target` is path and query."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes | None


def outgoing(operation: Operation, arguments: Mapping[str, Any], *, base_path: str, key: str) -> Outgoing:
    """The arguments were checked against the operation's schema before."""
    places: dict[str, str] = {}
    query: list[tuple[str, str]] = []
    headers = {"accept": "application/json, text/plain;q=0.9, */*;q=0.1"}
    for parameter in operation.parameters:
        value = arguments.get(parameter.argument)
        if value is None:
            continue
        match parameter.location:
            case "path":
                places[parameter.name] = _path_text(parameter, value)
            case "query":
                query += _query_pairs(parameter, value)
            case "header":
                headers[parameter.name.lower()] = _header_text(parameter, value)
    body = None
    if operation.body is not None and "body" in arguments:
        body = msgspec.json.encode(arguments["body"])
        headers["content-type"] = operation.body
    if operation.method not in {"GET", "HEAD"}:
        headers[IDEMPOTENCY_HEADER] = key
    path = base_path + _PLACEHOLDER.sub(lambda found: places.get(found[1], ""), operation.path)
    target = path + ("?" + urlencode(query, quote_via=quote) if query else "")
    return Outgoing(operation.method, target, headers, body)


def _path_text(parameter: Parameter, value: Any) -> str:
    """One segment. An empty one, or `.` and `..`, would name another path than the document's."""
    text = ",".join(map(_text, value)) if isinstance(value, list) else _text(value)
    if text in {"", ".", ".."}:
        raise BadRequest(f"expected a value that can stand in a path, got {text!r}", field=parameter.argument)
    return quote(text, safe=",")


def _query_pairs(parameter: Parameter, value: Any) -> Iterator[tuple[str, str]]:
    name = parameter.name
    match value:
        case list() if parameter.explode and parameter.style == "form":
            yield from ((name, _text(one)) for one in value)
        case list():
            yield name, _SEPARATORS.get(parameter.style, ",").join(map(_text, value))
        case dict() if parameter.style == "deepObject":
            yield from ((f"{name}[{inner}]", _text(one)) for inner, one in value.items())
        case dict() if parameter.explode:
            yield from ((inner, _text(one)) for inner, one in value.items())
        case dict():
            yield name, ",".join(f"{inner},{_text(one)}" for inner, one in value.items())
        case _:
            yield name, _text(value)


def _header_text(parameter: Parameter, value: Any) -> str:
    text = ",".join(map(_text, value)) if isinstance(value, list) else _text(value)
    if _CONTROL.search(text) or not text.isascii():
        raise BadRequest("expected printable ASCII text, as it goes into a header", field=parameter.argument)
    return text


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def outcome(tool: str, received: Answer) -> ToolOutcome:
    """Below 300: what came. 4xx: the service's own "no". Raises RateLimited, Overloaded and Unavailable for the rest."""
    status = received.status
    detail = received.body[:EXCERPT_CHARS].decode("utf-8", "replace")
    if status == http.HTTPStatus.TOO_MANY_REQUESTS:
        raise RateLimited(
            f"tool {tool}: its service asks to wait", retry_after_s=_retry_after(received), detail=detail
        )
    if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        raise Overloaded(
            f"tool {tool}: its service cannot serve now (503)",
            retry_after_s=_retry_after(received),
            detail=detail,
        )
    if status >= 500:
        raise Unavailable(
            f"tool {tool}: its service failed with {_status(status)}; see the service's log", detail=detail
        )
    if 300 <= status < 400:
        said = "the service redirects to a place that is not followed; correct the tool's `base_url`"
        return answer({"error": said, "status": status}, failed=True)
    if status >= 400:
        body = _excerpt(received)
        return answer({"error": _status(status) + _said(body), "status": status, "body": body}, failed=True)
    return ToolOutcome((Text(_success_text(tool, received)),))


def _success_text(tool: str, received: Answer) -> str:
    media = received.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not received.body:
        return msgspec.json.encode({"status": received.status}).decode()
    if media == "application/json" or media.endswith("+json") or not media:
        try:
            return msgspec.json.encode(msgspec.json.decode(received.body)).decode()
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise Unavailable(
                f"tool {tool}: its service answered with something that is not JSON, though it should be",
                detail=received.body[:EXCERPT_CHARS].decode("utf-8", "replace"),
            ) from error
    if media.startswith("text/") or media.endswith("xml"):
        return received.body.decode("utf-8", "replace")
    return msgspec.json.encode({"note": f"{len(received.body)} bytes of {media}, which is no text"}).decode()


def _excerpt(received: Answer) -> Any:
    if len(received.body) <= EXCERPT_CHARS:
        try:
            return msgspec.json.decode(received.body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            pass
    return received.body[:EXCERPT_CHARS].decode("utf-8", "replace")


def _said(body: Any) -> str:
    """In the service's words, where they stand in a usual place (https://www.rfc-editor.org/rfc/rfc9457)."""
    if not isinstance(body, dict):
        return ""
    found = next(
        (body[name] for name in ("detail", "message", "title") if isinstance(body.get(name), str)), ""
    )
    return f": {found[:SAID_CHARS]}" if found else ""


def _status(status: int) -> str:
    try:
        return f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _retry_after(received: Answer) -> float | None:
    text = received.headers.get("retry-after", "")
    return min(float(text), RETRY_AFTER_S_MAX) if text.isdecimal() and len(text) < 10 else None
