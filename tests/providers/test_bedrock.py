"""Bedrock over a socket: where calls go and how they are signed, what comes back, and every fault as its cause."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from freehold.catalog import catalog
from freehold.catalog.catalog import ProviderRow
from freehold.core.errors import (
    BadRequest,
    BrokenOff,
    Forbidden,
    FreeholdError,
    NotFound,
    RateLimited,
    Unavailable,
)
from freehold.core.messages import Message, ModelRequest, Text, Usage
from freehold.core.stream import StreamEvent, fold
from freehold.providers._http import HttpPool
from freehold.providers.bedrock import create, signing
from freehold.wires import _aws_sigv4_verify as verifying
from freehold.wires._aws_eventstream import encode_event, encode_exception

KEY, SECRET, TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "FwoGZXIvYXdz=="
ARN = "arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.anthropic.claude-sonnet-4-v1:0"
WHOLE = json.dumps({
    "output": {"message": {"role": "assistant", "content": [{"text": "Hello there"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 20, "outputTokens": 7, "totalTokens": 27},
    "metrics": {"latencyMs": 12},
}).encode()  # fmt: skip
STREAM = [
    encode_event("messageStart", b'{"role":"assistant"}'),
    encode_event("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"Hello"}}'),
    encode_event("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":" there"}}'),
    encode_event("contentBlockStop", b'{"contentBlockIndex":0}'),
    encode_event("messageStop", b'{"stopReason":"end_turn"}'),
    encode_event("metadata", b'{"usage":{"inputTokens":20,"outputTokens":7,"totalTokens":27},"metrics":{"latencyMs":12}}'),
]  # fmt: skip


def answer(body: bytes, *, status: int = 200, kind: str = "application/json", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\nx-amzn-requestid: r-1\r\n{headers}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def streamed(*frames: bytes) -> bytes:
    return answer(b"".join(frames), kind="application/vnd.amazon.eventstream")


def asking(*, stream: bool = False, model: str = ARN) -> ModelRequest:
    return ModelRequest(model=model, messages=(Message("user", (Text("Hi"),)),), stream=stream)


def opened(url: str, pool: HttpPool, key: str | None = f"{KEY}:{SECRET}:{TOKEN}", **row: Any) -> Any:
    return create(
        ProviderRow(name="bedrock", type="bedrock", base_url=url, **row), key, headers={}, pool=pool
    )


@pytest.fixture
async def pool() -> AsyncIterator[HttpPool]:
    async with HttpPool() as opened_pool:
        yield opened_pool


async def events_of(provider: Any, request: ModelRequest) -> list[StreamEvent]:
    async with provider.call(request) as events:
        return [event async for event in events]


def head_of(call: Any) -> verifying.Head:
    line, *lines = call.head.decode().strip().split("\r\n")
    method, target, _ = line.split(" ")
    return verifying.Head(method, target, [tuple(one.split(": ", 1)) for one in lines])


def signed_by(call: Any) -> verifying.Claim:
    return verifying.verify(
        head_of(call), call.body, lambda key, _: SECRET if key == KEY else None, now_s=time.time()
    )[0]


async def test_a_call_is_signed_and_goes_to_the_models_own_address(scripted: Any, pool: HttpPool) -> None:
    async with scripted(answer(WHOLE)) as server:
        response = fold(await events_of(opened(server.url, pool), asking()))
    (call,) = server.calls
    assert head_of(call).target == (
        "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A111122223333%3Ainference-profile%2Fus.anthropic.claude-sonnet-4-v1%3A0/converse"
    )
    claim = signed_by(call)
    assert (claim.access_key_id, claim.session_token, claim.scope.region, claim.scope.service) == (
        KEY,
        TOKEN,
        "us-east-1",
        "bedrock",
    )
    assert json.loads(call.body) == {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}
    assert (response.id, response.model, response.text()) == ("r-1", ARN, "Hello there")
    assert response.usage == Usage(input_tokens=20, output_tokens=7)


async def test_a_stream_is_read_as_it_comes(scripted: Any, pool: HttpPool) -> None:
    async with scripted(streamed(*STREAM)) as server:
        response = fold(await events_of(opened(server.url, pool), asking(stream=True)))
    assert head_of(server.calls[0]).target.endswith("/converse-stream")
    assert (response.id, response.model, response.text()) == ("r-1", ARN, "Hello there")


async def test_a_base_path_is_signed_too(scripted: Any, pool: HttpPool) -> None:
    async with scripted(answer(WHOLE)) as server:
        await events_of(opened(f"{server.url}/aws", pool), asking(model="m"))
    assert head_of(server.calls[0]).target == "/aws/model/m/converse"
    signed_by(server.calls[0])


async def test_a_bearer_key_is_sent_as_one(scripted: Any, pool: HttpPool) -> None:
    async with scripted(answer(WHOLE)) as server:
        await events_of(opened(server.url, pool, key="ABSKexample"), asking())
    headers = {name.lower(): value for name, value in head_of(server.calls[0]).headers}
    assert headers["authorization"] == "Bearer ABSKexample"
    assert "x-amz-date" not in headers


async def test_bytes_pass_through_signed(scripted: Any, pool: HttpPool) -> None:
    async with scripted(streamed(*STREAM)) as server:
        passing = opened(server.url, pool).forward(b'{"new":1}', model="m", stream=True, headers={"x": "y"})
        async with passing as raw:
            body = b"".join([chunk async for chunk in raw.chunks()])
    assert (raw.content_type, body) == ("application/vnd.amazon.eventstream", b"".join(STREAM))
    assert server.calls[0].body == b'{"new":1}'
    signed_by(server.calls[0])


@pytest.mark.parametrize(
    ("reply", "stream", "cause", "said"),
    [
        (answer(b'{"message":"Bad role"}', status=400, headers="x-amzn-errortype: ValidationException\r\n"), False, BadRequest, "Bad role"),
        (answer(b'{"message":"Too many"}', status=429, headers="x-amzn-errortype: ThrottlingException\r\n"), True, RateLimited, "429"),
        (answer(b'{"message":"no model"}', status=404), False, NotFound, "no model"),
        (answer(b'{"message":"bad token"}', status=403, headers="x-amzn-errortype: UnrecognizedClientException\r\n"), False, Forbidden, "AWS_KEY"),
        (streamed(encode_exception("throttlingException", b'{"message":"slow"}')), True, RateLimited, "bedrock"),
        (streamed(*STREAM[:2], encode_exception("modelStreamErrorException", b"{}")), True, BrokenOff, "bedrock"),
        (streamed(*STREAM[:3]), True, BrokenOff, "bedrock"),
        (streamed(STREAM[0], STREAM[1][:-1] + b"x"), True, BrokenOff, "checksum"),
        (answer(b"<html>", kind="text/html"), True, Unavailable, "not its protocol"),
        (answer(b"[]"), False, Unavailable, "not its protocol"),
        (answer(b'{"output":{}}'), False, Unavailable, "Converse"),
    ],
)  # fmt: skip
async def test_faults_are_their_cause_and_name_the_provider(
    scripted: Any, pool: HttpPool, reply: bytes, stream: bool, cause: type[FreeholdError], said: str
) -> None:
    async with scripted(reply) as server:
        with pytest.raises(cause, match=said) as caught:
            await events_of(opened(server.url, pool, api_key=("AWS_KEY",)), asking(stream=stream))
    assert SECRET not in str(caught.value) + (caught.value.detail or "")


async def test_an_exception_before_anything_else_refuses_a_passing_stream(
    scripted: Any, pool: HttpPool
) -> None:
    async with scripted(streamed(encode_exception("throttlingException", b'{"message":"slow"}'))) as server:
        with pytest.raises(RateLimited):
            await opened(server.url, pool).forward(b"{}", model="m", stream=True, headers={}).__aenter__()


async def test_models_that_write_text_or_make_embeddings_are_listed_once(
    scripted: Any, pool: HttpPool
) -> None:
    listed = {"modelSummaries": [
        {"modelId": "anthropic.claude", "modelName": "Claude", "inputModalities": ["TEXT", "IMAGE"], "outputModalities": ["TEXT"]},
        {"modelId": "amazon.canvas", "outputModalities": ["IMAGE"]},
        {"modelId": "amazon.vectors-1", "inputModalities": ["TEXT"], "outputModalities": ["EMBEDDING"]},
    ]}  # fmt: skip
    async with scripted(answer(json.dumps(listed).encode())) as server:
        provider = opened(server.url, pool, models_path="/foundation-models")
        models = await provider.models()
        assert await provider.models() == models
    assert [(one.name, one.display_name, one.images, one.embeds) for one in models] == [
        ("anthropic.claude", "Claude", True, False),
        ("amazon.vectors-1", "", False, True),
    ]
    (call,) = server.calls
    assert head_of(call).target == "/foundation-models"
    signed_by(call)


@pytest.mark.parametrize("key", [":secret", "id:", ":"])
def test_half_a_credential_is_refused(key: str) -> None:
    with pytest.raises(BadRequest, match="ACCESS_KEY_ID:SECRET_ACCESS_KEY") as caught:
        opened("http://localhost", HttpPool(), key=key)
    assert caught.value.field == "api_key"


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://bedrock-runtime.eu-west-1.amazonaws.com", "eu-west-1"),
        ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("https://vpce-1.bedrock-runtime.ap-southeast-2.vpce.amazonaws.com", "ap-southeast-2"),
        ("http://localhost:9", "us-east-1"),
    ],
)
def test_the_region_is_read_off_the_address(url: str, region: str) -> None:
    signed = signing(url, f"{KEY}:{SECRET}", lambda: 0.0).headers("POST", "/", b"{}")
    assert f"/19700101/{region}/bedrock/" in signed.decode()


def test_the_catalog_has_it() -> None:
    row = catalog.providers()["bedrock"]
    assert row.base_url.startswith("https://bedrock-runtime.{AWS_REGION|")


async def test_tokens_are_counted_by_the_vendor(scripted: Any, pool: HttpPool) -> None:
    async with scripted(answer(b'{"inputTokens":7}')) as server:
        provider = opened(server.url, pool)
        assert await provider.count(asking()) == 7
        passed = b'{"messages":[],"inferenceConfig":{"maxTokens":9},"system":[{"text":"x"}]}'
        assert await provider.count_passed(passed, model="m", headers={}) == 7
    first, second = server.calls
    assert head_of(first).target.endswith("/count-tokens")
    assert json.loads(first.body) == {
        "input": {"converse": {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}}
    }
    assert json.loads(second.body) == {"input": {"converse": {"messages": [], "system": [{"text": "x"}]}}}
    signed_by(second)


async def test_a_model_without_a_counter_is_not_found_to_have_one(scripted: Any, pool: HttpPool) -> None:
    said = b'{"message":"The provided model doesn\'t support counting tokens. Try another model."}'
    refused = answer(said, status=400, headers="x-amzn-errortype: ValidationException\r\n")
    async with scripted(refused) as server:
        with pytest.raises(NotFound, match="counting"):
            await opened(server.url, pool).count(asking())
