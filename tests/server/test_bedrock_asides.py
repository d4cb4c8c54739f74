"""What Bedrock's door answers without asking a model: counts of tokens, and which models there are."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.gateway import _vendors as vendors
from tests.server._world import World
from tests.server.test_bedrock_door import SESSION, client_of

HI = [{"role": "user", "content": [{"text": "Hi there, how many are we?"}]}]


@pytest.fixture(scope="module")
async def pair(shared: World) -> dict[str, str]:
    made: dict[str, str] = await shared.json("POST", "/v1/keys", {"name": "aws asides"})
    return made


@pytest.fixture(scope="module")
def runtime(shared: World, pair: dict[str, str]) -> Iterator[Any]:
    opened = client_of(shared, pair)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def control(shared: World, pair: dict[str, str]) -> Iterator[Any]:
    opened = SESSION.client(
        "bedrock",
        endpoint_url=shared.url,
        region_name="us-east-1",
        aws_access_key_id=pair["access_key_id"],
        aws_secret_access_key=pair["secret_access_key"],
    )
    yield opened
    opened.close()


async def counted(runtime: Any, model: str, **asked: Any) -> Any:
    return await asyncio.to_thread(runtime.count_tokens, modelId=model, input=asked)


async def test_tokens_are_estimated_where_nobody_counts(runtime: Any) -> None:
    answer = await counted(runtime, "openai/gpt-4o", converse={"messages": HI})
    assert 3 <= answer["inputTokens"] <= 40
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-freehold-estimated"] == "true"


async def test_an_invoked_body_is_counted_too(runtime: Any) -> None:
    body = {"anthropic_version": "bedrock-2023-05-31", "messages": [{"role": "user", "content": "Hi there"}]}
    answer = await counted(runtime, "openai/gpt-4o", invokeModel={"body": json.dumps(body).encode()})
    assert answer["inputTokens"] > 0


async def test_anthropic_counts_itself(shared: World, runtime: Any) -> None:
    behind = shared.script("anthropic", vendors.reply(b'{"input_tokens":4711}'))
    answer = await counted(runtime, "anthropic/claude-sonnet-4-5", converse={"messages": HI})
    assert answer["inputTokens"] == 4711
    assert behind.asked[0].path.endswith("/count_tokens")


async def test_a_count_without_input_is_refused(shared: World, pair: dict[str, str]) -> None:
    answer = await shared.http.post(
        "/model/m/count-tokens", json={"input": {}}, headers={"authorization": f"Bearer {pair['key']}"}
    )
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (400, "ValidationException")


async def test_models_are_listed_in_awss_shape(control: Any) -> None:
    listed = await asyncio.to_thread(control.list_foundation_models)
    ids = {one["modelId"] for one in listed["modelSummaries"]}
    assert any(one.startswith("openai/") for one in ids)
    only = await asyncio.to_thread(control.list_foundation_models, byProvider="anthropic")
    assert {one["providerName"] for one in only["modelSummaries"]} == {"anthropic"}
    none = await asyncio.to_thread(control.list_foundation_models, byOutputModality="IMAGE")
    assert none["modelSummaries"] == []
    made = await asyncio.to_thread(control.list_foundation_models, byOutputModality="EMBEDDING")
    embedding = {one["modelId"]: one for one in made["modelSummaries"]}
    assert embedding["openai/text-embedding-3-small"]["outputModalities"] == ["EMBEDDING"]
    assert not embedding["openai/text-embedding-3-small"]["responseStreamingSupported"]


async def test_one_model_is_shown(control: Any) -> None:
    listed = await asyncio.to_thread(control.list_foundation_models, byProvider="anthropic")
    first = listed["modelSummaries"][0]
    found = await asyncio.to_thread(control.get_foundation_model, modelIdentifier=first["modelId"])
    assert found["modelDetails"] == first
    with pytest.raises(ClientError) as caught:
        await asyncio.to_thread(control.get_foundation_model, modelIdentifier="no/such")
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"


async def test_nobody_unknown_sees_the_list(shared: World) -> None:
    answer = await shared.http.get("/foundation-models", headers={"authorization": "Bearer fh_x"})
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (403, "AccessDeniedException")
    posted = await shared.http.post("/foundation-models")
    assert posted.status_code == 404
