"""The HTTP door itself: paths, methods, limits on what comes in, clients that hang up, pipelines, and nothing secret in logs."""

import asyncio
import logging
from contextlib import suppress

import msgspec
import pytest

from freehold.server import listener
from freehold.telemetry.logging import Json
from tests._waiting import eventually, within
from tests.gateway._vendors import HOLD, OPENAI_STREAM, OPENAI_TEXT, reply, stream
from tests.server._raw import connected, request
from tests.server._world import World

CHAT = b'{"model":"openai/gpt-4o","messages":[]}'
STREAMED = b'{"model":"openai/gpt-4o","messages":[],"stream":true}'


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("HEAD", "/v1/messages", "POST"),
        ("DELETE", "/v1/agents", "GET, HEAD, POST"),
        ("PUT", "/v1/sessions/x/events", "GET, HEAD, POST"),
        ("OPTIONS", "/v1/models", "GET, HEAD"),
        ("POST", "/v1/objects/a/b", "DELETE, GET, HEAD, PUT"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(
    shared: World, method: str, path: str, allowed: str
) -> None:
    answer = await shared.http.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/agents/", "/v1//agents", "//v1/agents", "/v1/chat%2Fcompletions", "/v1/objects/", "/V1/agents",
     "/v1/agents/x/nothing", "/" + "a/" * 5000, "/docs", "/v1/./agents", "*"],
)  # fmt: skip
async def test_what_is_not_there_is_not_found(shared: World, path: str) -> None:
    async with connected(shared.url) as raw:
        await raw.send(request("GET", path, key=shared.key))
        answer = await raw.answer()
    assert answer.status == 404
    assert "/openapi.json lists what there is" in answer.json()["error"]["message"]


async def test_head_answers_as_get_without_a_body(shared: World) -> None:
    async with connected(shared.url) as raw:
        await raw.send(request("HEAD", "/v1/models", key=shared.key))
        status, headers = await raw.head()
        await raw.send(request("GET", "/v1/models", key=shared.key))
        whole = await raw.answer()
    assert (status, headers["content-length"]) == (200, str(len(whole.body)))
    session = await shared.json("POST", "/v1/agents", {"name": "headed", "model": "auto"})
    assert session["id"] == "headed"


@pytest.mark.parametrize(
    ("written", "key"),
    [("a/b", "a/b"), ("a%2Fb", "a/b"), ("100%25", "100%"), ("%252F", "%2F"), ("%C3%BC%20x", "ü x"), ("a+b", "a+b"),
     ("a%3Fb=c%23d", "a?b=c#d"), ("%E2%82%AC", "€")],
)  # fmt: skip
async def test_keys_are_percent_decoded_once(shared: World, written: str, key: str) -> None:
    line = msgspec.json.encode({"key": key, "value": {"it": key}})
    put = await shared.http.put("/v1/tables/encoded/items", content=line)
    assert put.status_code == 200
    async with connected(shared.url) as raw:
        await raw.send(request("GET", f"/v1/tables/encoded/items/{written}", key=shared.key))
        answer = await raw.answer()
    assert (answer.status, answer.json()) == (200, {"key": key, "value": {"it": key}})


async def test_an_encoded_slash_stays_within_its_segment(shared: World) -> None:
    await shared.json("POST", "/v1/agents", {"name": "plain", "model": "auto"})
    assert (await shared.http.get("/v1/agents/plain/versions")).status_code == 200
    async with connected(shared.url) as raw:
        await raw.send(request("GET", "/v1/agents/plain%2Fversions", key=shared.key))
        answer = await raw.answer()
    assert answer.status == 404
    assert "plain/versions" in answer.json()["error"]["message"]


async def test_too_large_a_head_is_refused(shared: World) -> None:
    async with connected(shared.url) as raw:
        await raw.send(b"GET / HTTP/1.1\r\nx-large: " + b"x" * (listener.HEAD_BYTES_MAX + 1))
        assert b"head may have 65536 bytes at most" in await raw.closed()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: x\r\n" % n for n in range(300)) + b"\r\n",
        b"nonsense\r\n\r\n",
        b"GET /v1/\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
    ids=range(7),
)
async def test_what_is_no_http_is_hung_up_on(shared: World, sent: bytes) -> None:
    async with connected(shared.url) as raw:
        await raw.send(sent)
        assert (await raw.closed()).startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_a_request_that_does_not_come_on_is_hung_up_on(
    shared: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HEAD_S_MAX", 0.05)
    monkeypatch.setattr(listener, "REQUEST_S_MAX", 0.05)
    for sent in (
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nhost: x\r\n",
        request("POST", "/v1/messages", "content-length: 10", key=shared.key) + b"half",
        request("GET", "/healthz") + b"POST /v1/mess",
    ):
        async with connected(shared.url) as raw:
            with suppress(ConnectionError):  # Where the machine is late, before all was sent.
                await raw.send(sent)
                await raw.closed()


@pytest.mark.slow
async def test_a_connection_that_was_answered_is_kept_longer_than_a_request_may_take(
    shared: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HEAD_S_MAX", 1.0)
    monkeypatch.setattr(listener, "REQUEST_S_MAX", 1.0)
    async with connected(shared.url) as raw:
        await raw.send(request("GET", "/healthz"))
        assert (await raw.answer()).status == 200
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.2):
                await raw.reader.read(1)


async def test_pipelined_requests_are_answered_in_order(shared: World) -> None:
    """The second arrives while the first is asked of the vendor: it is no sign that the client is gone."""
    asked = shared.script("openai", stream(*OPENAI_STREAM), reply(OPENAI_TEXT))
    async with connected(shared.url) as raw:
        await raw.send(
            request("POST", "/v1/chat/completions", key=shared.key, body=STREAMED)
            + request("GET", "/v1/agents/nobody", key=shared.key)
            + request("POST", "/v1/chat/completions", "connection: close", key=shared.key, body=CHAT)
        )
        said = await raw.closed()
    assert said.count(b"HTTP/1.1 200 OK") == 2
    assert said.index(b"[DONE]") < said.index(b"HTTP/1.1 404 Not Found") < said.index(b'"chat.completion"')
    assert len(asked.asked) == 2


async def test_whoever_hangs_up_before_the_answer_begins_hangs_up_the_vendor(shared: World) -> None:
    asked = shared.script("openai", [HOLD])
    for body in (CHAT, STREAMED):
        asked.hung_up.clear()
        async with connected(shared.url) as raw:
            await raw.send(request("POST", "/v1/chat/completions", key=shared.key, body=body))
            await eventually(lambda: asked.asked)
        async with within("the vendor to be hung up on"):
            await asked.hung_up.wait()
        asked.asked.clear()


async def test_whoever_hangs_up_while_sending_asks_nothing(
    shared: World, caplog: pytest.LogCaptureFixture
) -> None:
    asked = shared.script("openai", reply(OPENAI_TEXT))
    for path in ("/v1/chat/completions", "/v1/agents"):
        async with connected(shared.url) as raw:
            await raw.send(request("POST", path, "content-length: 60", key=shared.key) + CHAT)
        async with connected(shared.url) as raw:
            await raw.send(request("GET", "/healthz"))
            await raw.answer()
    assert asked.asked == []
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_client_may_ask_to_be_told_to_go_on(shared: World) -> None:
    shared.script("openai", reply(OPENAI_TEXT))
    async with connected(shared.url) as raw:
        lines = ("expect: 100-continue", f"content-length: {len(CHAT)}")
        await raw.send(request("POST", "/v1/chat/completions", *lines, key=shared.key))
        assert (await raw.head())[0] == 100
        await raw.send(CHAT)
        assert (await raw.answer()).status == 200


async def test_every_answer_names_its_request(shared: World) -> None:
    shared.script("openai", reply(OPENAI_TEXT))
    answers = [
        await shared.http.get("/v1/models"),
        await shared.http.get("/healthz"),
        await shared.http.get("/nowhere"),
        await shared.http.post("/v1/chat/completions", content=CHAT),
        await shared.http.post("/v1/messages", content=b""),
    ]
    ids = {answer.headers["request-id"] for answer in answers}
    assert len(ids) == len(answers)
    assert all(one.startswith("req_") for one in ids)


async def test_no_secret_reaches_the_logs(shared: World, caplog: pytest.LogCaptureFixture) -> None:
    """A prompt, keys of ours that are right and wrong, a vendor's key, and a vendor that repeats them in its error."""
    caplog.set_level(logging.DEBUG)
    wrong_key = f"fh_{'canary0000' * 2}canary_{'Canary' * 7}"
    canaries = ["CANARY-prompt", wrong_key, "sk-test-openai", shared.key]
    error = {"error": {"message": f"Incorrect API key provided: {wrong_key} sk-test-openai"}}
    shared.script("openai", reply(msgspec.json.encode(error), status=401))
    messages = [{"role": "user", "content": canaries[0]}]
    prompt = msgspec.json.encode({"model": "openai/gpt-4o", "messages": messages})
    for key in (wrong_key, shared.key):
        headers = {"authorization": f"Bearer {key}"}
        for path in ("/v1/chat/completions", "/v1/keys", "/v1/sessions"):
            answer = await shared.http.post(f"{path}?key={wrong_key}", content=prompt, headers=headers)
            assert answer.status_code >= 400
            assert "sk-test" not in answer.text
    formatted = [
        Json(shared.house.redact).format(record)
        for record in caplog.records
        if record.name.split(".")[0] in {"freehold", "uvicorn", "asyncio"}
    ]
    assert any("request.refused" in line for line in formatted)
    assert [(canary, line) for canary in canaries for line in formatted if canary in line] == []
