"""The client against a scripted server: errors, pages, and streams that go on behind the last event after a cut."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.client.client import Client, _events
from freehold.client.errors import ApiError, ServerAway

Answer = Callable[["_Handler"], None]


class _Handler(BaseHTTPRequestHandler):
    answers: list[Answer]
    seen: list[dict[str, str]]

    def do_GET(self) -> None:
        self.seen.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
        self.answers.pop(0)(self)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        pass

    def whole(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def cut(self, text: str) -> None:
        """A stream without a length, closed at the end of `text`."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(text.encode())
        self.close_connection = True


class Scripted:
    def __init__(self, url: str, handler: type[_Handler]) -> None:
        self.url = url
        self.seen = handler.seen
        self.answers = handler.answers


@pytest.fixture
def server() -> Iterator[Scripted]:
    handler = type("_Scripted", (_Handler,), {"answers": [], "seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield Scripted(f"http://127.0.0.1:{listening.server_port}", handler)
        listening.shutdown()
        thread.join()


def test_an_error_of_the_api_keeps_its_type_message_and_request(server: Scripted) -> None:
    body = {
        "type": "error",
        "error": {"type": "not_found_error", "message": "no agent x"},
        "request_id": "req_1",
    }
    server.answers.append(lambda handler: handler.whole(404, json.dumps(body).encode()))
    with Client(server.url, "key") as client, pytest.raises(ApiError) as caught:
        client.request("GET", "/v1/agents/x")
    error = caught.value
    assert (error.status, error.type, error.message, error.request_id) == (
        404,
        "not_found_error",
        "no agent x",
        "req_1",
    )


def test_what_is_not_freehold_is_told_as_it_came(server: Scripted) -> None:
    server.answers.append(lambda handler: handler.whole(502, b"<html>bad gateway</html>", "text/html"))
    with Client(server.url, "key") as client, pytest.raises(ApiError, match="HTTP 502: <html>bad gateway"):
        client.request("GET", "/v1/agents")


def test_nobody_there_is_told_as_such() -> None:
    with Client("http://127.0.0.1:9", "key") as client, pytest.raises(ServerAway, match="no answer from"):
        client.request("GET", "/v1/agents")


def test_the_key_goes_along(server: Scripted) -> None:
    server.answers.append(lambda handler: handler.whole(200, b"{}"))
    with Client(server.url, "the-key") as client:
        client.request("GET", "/v1/agents")
    assert server.seen[0]["authorization"] == "Bearer the-key"


def test_pages_are_followed_up_to_the_limit(server: Scripted) -> None:
    pages = [{"data": [1, 2], "next_page": "p2"}, {"data": [3, 4], "next_page": None}]
    for page in [*pages, *pages]:
        server.answers.append(lambda handler, page=page: handler.whole(200, json.dumps(page).encode()))  # type: ignore[misc]
    with Client(server.url, "key") as client:
        assert list(client.pages("/v1/things")) == [1, 2, 3, 4]
        assert list(client.pages("/v1/things", limit=3)) == [1, 2, 3]
    assert [one["path"] for one in server.seen[:2]] == ["/v1/things", "/v1/things?page=p2"]


@pytest.mark.slow
def test_a_cut_stream_goes_on_behind_the_last_event(server: Scripted) -> None:
    server.answers += [
        lambda handler: handler.cut('id: 1.0\nevent: a\ndata: {"n": 1}\n\nid: 2.0\nevent: a\ndata: {"n": 2}\n\nid: 3.0\nevent: a\nda'),
        lambda handler: handler.cut(": waiting\n\n"),
        lambda handler: handler.cut('id: 3.0\nevent: a\ndata: {"n": 3}\n\nevent: preview\ndata: {"n": 4}\n\n'),
    ]  # fmt: skip
    seen = []
    with Client(server.url, "key") as client:
        for event in client.stream("/v1/stream", after="0"):
            seen.append((event.cursor, event.body["n"]))
            if event.type == "preview":
                break
    assert seen == [("1.0", 1), ("2.0", 2), ("3.0", 3), (None, 4)]
    assert [one["last-event-id"] for one in server.seen] == ["0", "2.0", "2.0"]


def test_an_error_in_the_stream_ends_it(server: Scripted) -> None:
    body = {"type": "error", "error": {"type": "unavailable", "message": "the database is away"}}
    server.answers.append(lambda handler: handler.cut(f"event: error\ndata: {json.dumps(body)}\n\n"))
    with Client(server.url, "key") as client, pytest.raises(ApiError, match="the database is away"):
        list(client.stream("/v1/stream"))


NAMES = st.text("abc.", min_size=1, max_size=8)


@given(
    st.lists(st.tuples(st.none() | st.from_regex(r"[0-9]{1,4}\.[0-9]", fullmatch=True), NAMES, st.integers()))
)
def test_every_event_of_a_stream_is_read(events: list[tuple[str | None, str, int]]) -> None:
    lines: list[str] = [": connected", ""]
    for cursor, kind, number in events:
        lines += [
            *([f"id: {cursor}"] if cursor else []),
            f"event: {kind}",
            'data: {"n":',
            f"data: {number}}}",
            "",
            ": waiting",
            "",
        ]
    read = [(event.cursor, event.type, event.body["n"]) for event in _events(iter(lines))]
    assert read == events
