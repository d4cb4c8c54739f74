"""A small client of the native API over httpx2: requests, pages, and event streams that go on after a cut."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self

import httpx2
import msgspec
from msgspec import Struct

from freehold.client.errors import ApiError, ServerAway

CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 120.0
RECONNECTS_MAX: Final = 8
RECONNECT_WAIT_S: Final = 0.25
STREAM_SILENCE_S_MAX: Final = 60.0


def encrypted(url: str) -> bool:
    """For httpx2's `verify`: it reads the certificate authorities (40 ms of CPU) also where plain HTTP has nothing to hold against them."""
    return not url.startswith("http://")


class StreamedEvent(Struct, frozen=True):
    """`cursor` is None for a live preview, which can't be resumed from."""

    cursor: str | None
    type: str
    body: dict[str, Any]


class Client:
    """Use as a context manager. Safe for one thread."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self.base_url = base_url.rstrip("/")
        timeout = httpx2.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        self._http = httpx2.Client(
            base_url=self.base_url,
            headers={"authorization": f"Bearer {api_key}"},
            timeout=timeout,
            trust_env=False,
            verify=encrypted(base_url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        content: bytes | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, bytes] | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """The answer's JSON, or its bytes where it isn't JSON. Raises ApiError, ServerAway."""
        sent = {b"content-type": b"application/json"}
        sent |= {name.encode(): value for name, value in (headers or {}).items()}
        if idempotency_key:
            sent[b"idempotency-key"] = idempotency_key.encode()
        data = content if content is not None else (msgspec.json.encode(body) if body is not None else None)
        given = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            answer = self._http.request(method, path, content=data, params=given, headers=sent)
        except httpx2.HTTPError as error:
            raise ServerAway(f"no answer from {self.base_url}: {error}") from error
        if answer.status_code >= 400:
            raise _api_error(answer.status_code, answer.content)
        if answer.headers.get("content-type", "").startswith("application/json"):
            return msgspec.json.decode(answer.content)
        return answer.content

    def lines(self, method: str, path: str, *, body: object = None) -> Iterator[bytes]:
        """The answer's lines as they come. Raises ApiError, ServerAway, this in the middle too."""
        headers = {"content-type": "application/json"}
        data = None if body is None else msgspec.json.encode(body)
        timeout = httpx2.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        try:
            with self._http.stream(method, path, content=data, headers=headers, timeout=timeout) as answer:
                if answer.status_code >= 400:
                    raise _api_error(answer.status_code, answer.read())
                held = b""
                for piece in answer.iter_bytes():
                    *whole, held = (held + piece).split(b"\n")
                    yield from whole
                if held:
                    yield held
        except httpx2.HTTPError as error:
            raise ServerAway(f"no answer from {self.base_url}: {error}") from error

    def pages(
        self, path: str, *, query: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> Iterator[Any]:
        """Every item of a list, page after page; `limit` items at most."""
        asked = dict(query or {})
        count = 0
        while True:
            page = self.request("GET", path, query=asked)
            for item in page["data"]:
                yield item
                count += 1
                if limit is not None and count >= limit:
                    return
            if not page.get("next_page"):
                return
            asked["page"] = page["next_page"]

    def stream(
        self, path: str, *, query: Mapping[str, Any] | None = None, after: str | None = None
    ) -> Iterator[StreamedEvent]:
        """Server-sent events, each once: after a cut it goes on behind the last one seen. Ends when the caller stops.

        Raises ServerAway when RECONNECTS_MAX tries in a row got nothing.
        """
        failures = 0
        while True:
            try:
                for event in self._stream_once(path, query or {}, after):
                    failures = 0
                    if event.cursor is not None:
                        after = event.cursor
                    yield event
            except httpx2.HTTPError as error:
                failures += 1
                if failures > RECONNECTS_MAX:
                    raise ServerAway(f"no answer from {self.base_url}: {error}") from error
                time.sleep(RECONNECT_WAIT_S * failures)

    def _stream_once(self, path: str, query: Mapping[str, Any], after: str | None) -> Iterator[StreamedEvent]:
        headers = {"accept": "text/event-stream"} | ({"last-event-id": after} if after else {})
        timeout = httpx2.Timeout(STREAM_SILENCE_S_MAX, connect=CONNECT_TIMEOUT_S)
        with self._http.stream("GET", path, params=dict(query), headers=headers, timeout=timeout) as answer:
            if answer.status_code >= 400:
                raise _api_error(answer.status_code, answer.read())
            yield from _events(answer.iter_lines())
        raise httpx2.RemoteProtocolError("the stream ended")


def _events(lines: Iterator[str]) -> Iterator[StreamedEvent]:
    """https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation"""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            if name:
                value = value.removeprefix(" ")
                fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value
        elif "data" in fields:
            body = msgspec.json.decode(fields["data"])
            kind = fields.get("event", "message")
            if kind == "error":
                raise _api_error(500, fields["data"].encode())
            yield StreamedEvent(fields.get("id"), kind, body)
            fields = {}
        else:
            fields = {}


def _api_error(status: int, body: bytes) -> ApiError:
    try:
        told = msgspec.json.decode(body)
        error = told["error"]
        return ApiError(status, str(error["type"]), str(error["message"]), told.get("request_id"))
    except (msgspec.DecodeError, KeyError, TypeError):
        return ApiError(status, "unknown", f"HTTP {status}: {body[:200].decode('utf-8', 'replace')}", None)
