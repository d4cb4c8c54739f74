"""InvokeModel at Bedrock's door: Anthropic's and OpenAI's bodies through boto3, and Anthropic's own SDK for Bedrock."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import anthropic
import pytest
from botocore.exceptions import ClientError, EventStreamError

from tests.gateway import _vendors as vendors
from tests.server._world import World
from tests.server.test_bedrock_door import client_of

HI = [{"role": "user", "content": "Hi"}]
ANTHROPIC_BODY = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 50, "messages": HI}
METRICS = "amazon-bedrock-invocationMetrics"


@pytest.fixture(scope="module")
async def pair(shared: World) -> dict[str, str]:
    made: dict[str, str] = await shared.json("POST", "/v1/keys", {"name": "aws invokes"})
    return made


@pytest.fixture(scope="module")
def client(shared: World, pair: dict[str, str]) -> Iterator[Any]:
    opened = client_of(shared, pair)
    yield opened
    opened.close()


async def invoked(client: Any, model: str, body: Any) -> Any:
    def ask() -> Any:
        with closing(client.invoke_model(modelId=model, body=json.dumps(body))["body"]) as read:
            return json.loads(read.read())

    return await asyncio.to_thread(ask)


async def streamed(client: Any, model: str, body: Any) -> list[Any]:
    def ask() -> list[Any]:
        answer = client.invoke_model_with_response_stream(modelId=model, body=json.dumps(body))
        with closing(answer["body"]) as stream:
            return [json.loads(event["chunk"]["bytes"]) for event in stream]

    return await asyncio.to_thread(ask)


@pytest.mark.parametrize(
    ("model", "vendor", "reply"),
    [
        ("openai/gpt-4o", "openai", vendors.OPENAI_TEXT),
        ("anthropic/claude-sonnet-4-5", "anthropic", vendors.ANTHROPIC_TEXT),
    ],
)
async def test_anthropics_body_is_answered_by_any_vendor(
    shared: World, client: Any, model: str, vendor: str, reply: bytes
) -> None:
    behind = shared.script(vendor, vendors.reply(reply))
    answer = await invoked(client, model, {**ANTHROPIC_BODY, "anthropic_beta": ["x-2025"]})
    assert answer["content"][0]["text"] == "Hello there"
    assert (answer["type"], answer["stop_reason"]) == ("message", "end_turn")
    asked = behind.asked[0].json
    assert asked["model"] == model.partition("/")[2]
    assert not {"anthropic_version", "anthropic_beta"} & asked.keys()


@pytest.mark.parametrize(
    ("model", "vendor", "steps"),
    [
        ("openai/gpt-4o", "openai", vendors.OPENAI_STREAM),
        ("anthropic/claude-sonnet-4-5", "anthropic", vendors.ANTHROPIC_STREAM),
    ],
)
async def test_anthropics_stream_comes_in_chunks_with_metrics_at_the_end(
    shared: World, client: Any, model: str, vendor: str, steps: Any
) -> None:
    shared.script(vendor, vendors.stream(*steps))
    events = await streamed(client, model, ANTHROPIC_BODY)
    assert [event["type"] for event in events][:2] == ["message_start", "content_block_start"]
    deltas = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(deltas) == "Hello there"
    assert events[-1]["type"] == "message_stop"
    assert events[-1][METRICS]["outputTokenCount"] == 7
    assert events[-1][METRICS]["inputTokenCount"] == 120


async def test_openais_body_is_answered_in_openais_shape(shared: World, client: Any) -> None:
    shared.script(
        "anthropic", vendors.reply(vendors.ANTHROPIC_TEXT), vendors.stream(*vendors.ANTHROPIC_STREAM)
    )
    body = {"messages": HI, "max_completion_tokens": 9}
    answer = await invoked(client, "anthropic/claude-sonnet-4-5", body)
    assert answer["choices"][0]["message"]["content"] == "Hello there"
    events = await streamed(client, "anthropic/claude-sonnet-4-5", body)
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events) == "Hello there"
    assert METRICS in events[-1]


@pytest.mark.parametrize(
    "body",
    [{"inputText": "x", "textGenerationConfig": {}}, {"schemaVersion": "messages-v1", "messages": []}, {}],
)
async def test_bodies_of_other_shapes_are_refused(client: Any, body: Any) -> None:
    with pytest.raises(ClientError, match="Anthropic's shape") as caught:
        await invoked(client, "openai/gpt-4o", body)
    assert caught.value.response["Error"]["Code"] == "ValidationException"


async def test_what_is_wrong_in_a_body_is_named_by_its_path(client: Any) -> None:
    with pytest.raises(ClientError, match=r"max_tokens"):
        await invoked(client, "openai/gpt-4o", {**ANTHROPIC_BODY, "max_tokens": "many"})


async def test_a_cut_stream_ends_in_an_exception_after_all_that_came(shared: World, client: Any) -> None:
    shared.script("anthropic", vendors.stream(*vendors.ANTHROPIC_STREAM[:2], vendors.CUT))
    with pytest.raises(EventStreamError, match="modelStreamErrorException"):
        await streamed(client, "anthropic/claude-sonnet-4-5", ANTHROPIC_BODY)


async def test_anthropics_sdk_for_bedrock(shared: World, pair: dict[str, str]) -> None:
    shared.script("openai", vendors.reply(vendors.OPENAI_TEXT), vendors.stream(*vendors.OPENAI_STREAM))
    async with anthropic.AsyncAnthropicBedrock(
        base_url=shared.url,
        aws_region="us-east-1",
        aws_access_key=pair["access_key_id"],
        aws_secret_key=pair["secret_access_key"],
        max_retries=0,
    ) as client:
        asked: Any = {"model": "openai%2Fgpt-4o", "max_tokens": 9, "messages": HI}
        whole = await client.messages.create(**asked)
        async with client.messages.stream(**asked) as stream:
            final = await stream.get_final_message()
    assert [whole.content[0].text, final.content[0].text] == ["Hello there", "Hello there"]
