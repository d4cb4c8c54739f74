"""A connection that sends the same head again: it is known without being parsed, and means neither more nor less than the first time."""

import pytest

from freehold.server.head import Head, Headers, Repeated, repeated
from tests.gateway._vendors import OPENAI_TEXT, openai_request, reply
from tests.server._raw import connected, request
from tests.server._world import World

PATH = "/v1/chat/completions"
BODY = openai_request("openai/gpt-4o")


def known(*lines: bytes, body: bytes = b"{}", **changes: bool) -> Repeated | None:
    pairs = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines)]
    head = Head(b"POST", b"/x", b"/x", pairs, Headers(pairs), **changes)
    return repeated(head, b"\r\n".join([b"POST /x HTTP/1.1", *lines, b"", b""]) + body)


@pytest.mark.parametrize("name", [b"content-length", b"Content-Length", b"CONTENT-LENGTH"])
@pytest.mark.parametrize("after", [(), (b"accept: */*",)])
def test_the_same_head_is_known_with_a_body_of_any_length(name: bytes, after: tuple[bytes, ...]) -> None:
    again = known(b"host: here", name + b": 2", *after)
    assert again is not None
    for body in (b"", b"{}", b"x" * 12345):
        data = again.before + b"%d" % len(body) + again.after + body
        assert again.body(data) == body


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data + data,
        lambda data: data.replace(b": 2", b": +2"),
        lambda data: data.replace(b": 2", b":  2"),
        lambda data: data.replace(b": 2", b": 0x2"),
        lambda data: data.replace(b": 2", b": "),
        lambda data: data.replace(b": 2", b": 2\r\nx: 1"),
        lambda data: data.replace(b"host", b"hosT"),
        lambda data: data.replace(b"POST", b"GET"),
        lambda data: b"\r\n" + data,
    ],
)
def test_whatever_differs_is_left_to_the_parser(change: object) -> None:
    again = known(b"host: here", b"content-length: 2")
    assert again is not None
    assert callable(change)
    data = again.before + b"2" + again.after + b"{}"
    assert again.body(data) == b"{}"
    assert again.body(change(data)) is None


@pytest.mark.parametrize(
    "lines",
    [
        (b"host: here",),
        (b"content-length: 2", b"content-length: 2"),
        (b"content-length: 2", b"transfer-encoding: chunked"),
        (b"content-length: 2", b"expect: 100-continue"),
        (b"content-length: 2", b"upgrade: h2c"),
        (b"content-length: 3",),
        (b"content-length: 2", b"x: " + b"y" * 5000),
    ],
)
def test_a_head_that_says_more_is_not_kept(lines: tuple[bytes, ...]) -> None:
    assert known(*lines) is None


def test_a_head_after_which_the_connection_closes_is_not_kept() -> None:
    assert known(b"content-length: 2", keep_alive=False) is None


async def test_a_repeated_head_is_answered_as_the_first_one(shared: World) -> None:
    asked = shared.script("openai", *[reply(OPENAI_TEXT)] * 4)
    longer = BODY.replace(b'"messages"', b'"temperature":0.5,"messages"')
    async with connected(shared.url) as raw:
        for body in (BODY, BODY, longer):
            await raw.send(request("POST", PATH, key=shared.key, body=body))
            answer = await raw.answer()
            assert answer.status == 200
        sent = request("POST", PATH, key=shared.key, body=longer)
        for piece in (sent[:50], sent[50:300], sent[300:]):
            await raw.send(piece)
        assert (await raw.answer()).status == 200
    assert b"temperature" not in asked.asked[1].body
    assert b"temperature" in asked.asked[2].body
    assert asked.asked[2].body == asked.asked[3].body


async def test_repeated_heads_in_a_pipeline_are_answered_in_order(shared: World) -> None:
    shared.script("openai", *[reply(OPENAI_TEXT)] * 4)
    good = request("POST", PATH, key=shared.key, body=BODY)
    bad = request("POST", PATH, key=shared.key, body=b"{]")
    async with connected(shared.url) as raw:
        await raw.send(good)
        assert (await raw.answer()).status == 200
        await raw.send(good + bad + good)
        assert [(await raw.answer()).status for _ in range(3)] == [200, 400, 200]
        await raw.send(good)
        assert (await raw.answer()).status == 200


async def test_a_key_that_is_revoked_opens_nothing_more_on_its_connection(shared: World) -> None:
    shared.script("openai", *[reply(OPENAI_TEXT)] * 3)
    key = await shared.json("POST", "/v1/keys", {"name": "soon revoked"})
    sent = request("POST", PATH, key=key["key"], body=BODY)
    async with connected(shared.url) as raw:
        for _ in range(2):
            await raw.send(sent)
            assert (await raw.answer()).status == 200
        revoked = await shared.http.delete(f"/v1/keys/{key['id']}")
        assert revoked.status_code < 300
        await raw.send(sent)
        refused = await raw.answer()
    assert refused.status == 401
    assert "was revoked" in refused.json()["error"]["message"]


async def test_labels_of_a_repeated_head_hold_each_time(shared: World) -> None:
    sent = request("POST", PATH, "x-freehold-labels: mars", key=shared.key, body=BODY)
    async with connected(shared.url) as raw:
        for _ in range(3):
            await raw.send(sent)
            assert (await raw.answer()).status == 403
