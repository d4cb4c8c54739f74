"""Embeddings the Bedrock way: InvokeModel through boto3 for any model, and Bedrock's own models for clients of other dialects."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import openai
import pytest
from botocore.exceptions import ClientError

from tests.gateway._vendors import Vendor, reply
from tests.server._world import World
from tests.server.test_bedrock_door import client_of
from tests.server.test_bedrock_invoke import invoked
from tests.server.test_embeddings import answer

TITAN = reply(b'{"embedding":[0.5,-1],"inputTextTokenCount":3}')
COHERE = {"texts": ["a", "b"], "input_type": "search_query"}
NOVA = {
    "taskType": "SINGLE_EMBEDDING",
    "singleEmbeddingParams": {"embeddingPurpose": "GENERIC_INDEX", "text": {"value": "Hi"}},
}


@pytest.fixture(scope="module")
async def pair(shared: World) -> dict[str, str]:
    made: dict[str, str] = await shared.json("POST", "/v1/keys", {"name": "aws embeds"})
    return made


@pytest.fixture(scope="module")
def client(shared: World, pair: dict[str, str]) -> Iterator[Any]:
    with closing(client_of(shared, pair)) as opened:
        yield opened


@pytest.fixture
async def aws(shared: World) -> Any:
    """A scripted Bedrock, declared as `aws`."""
    async with Vendor(TITAN) as vendor:
        await shared.apply(f"kind: provider\nname: aws\ntype: bedrock\nbase_url: {vendor.url}\n")
        yield vendor
        # Else what nobody knows goes there in other tests, too, and nobody answers.
        await shared.json("DELETE", "/v1/resources/provider/aws")


@pytest.mark.parametrize(
    ("body", "read"),
    [
        ({"inputText": "Hi", "dimensions": 2}, lambda made: made["embedding"]),
        (NOVA, lambda made: made["embeddings"][0]["embedding"]),
        ({**COHERE, "texts": ["Hi"]}, lambda made: made["embeddings"][0]),
    ],
    ids=["titan", "nova", "cohere"],
)
async def test_any_model_answers_amazons_and_coheres_bodies(
    shared: World, client: Any, body: Any, read: Any
) -> None:
    vendor = shared.script("openai", reply(answer([0.5, -1])))
    made = await invoked(client, "openai/text-embedding-3-small", body)
    assert read(made) == [0.5, -1]
    assert vendor.asked[0].path == "/v1/embeddings"
    assert vendor.asked[0].json["input"] == ["Hi"]
    assert vendor.asked[0].json.get("dimensions") == body.get("dimensions")


async def test_tokens_are_told_in_awss_header(shared: World, client: Any) -> None:
    shared.script("openai", reply(answer([0.5])))
    body = json.dumps({**COHERE, "texts": ["Hi"]})
    made = await asyncio.to_thread(client.invoke_model, modelId="openai/text-embedding-3-small", body=body)
    assert made["ResponseMetadata"]["HTTPHeaders"]["x-amzn-bedrock-input-token-count"] == "3"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"inputText": "Hi", "embeddingTypes": ["binary"]}, "embeddingTypes"),
        ({"inputText": "Hi", "inputImage": "aGk="}, "inputImage"),
        ({"texts": ["Hi"], "input_type": "clustering"}, "input_type"),
        ({"texts": "Hi", "input_type": "clustering"}, "texts"),
    ],
)
async def test_what_cannot_be_carried_is_refused_by_its_path(client: Any, body: Any, said: str) -> None:
    with pytest.raises(ClientError, match=said) as caught:
        await invoked(client, "openai/text-embedding-3-small", body)
    assert caught.value.response["Error"]["Code"] == "ValidationException"


async def test_embeddings_are_not_streamed(client: Any) -> None:
    with pytest.raises(ClientError, match="not streamed"):
        await asyncio.to_thread(
            client.invoke_model_with_response_stream, modelId="openai/x", body=b'{"inputText":"Hi"}'
        )


async def test_titan_is_asked_once_a_text_for_openais_client(shared: World, aws: Vendor) -> None:
    made = await shared.openai.embeddings.create(
        model="aws/amazon.titan-embed-text-v2:0", input=[f"text {at}" for at in range(20)], dimensions=256
    )
    assert [one.embedding for one in made.data] == [[0.5, -1]] * 20
    assert made.usage.prompt_tokens == 60
    assert {one.path for one in aws.asked} == {"/model/amazon.titan-embed-text-v2%3A0/invoke"}
    assert sorted(one.json["inputText"] for one in aws.asked) == sorted(f"text {at}" for at in range(20))
    assert all(one.json["dimensions"] == 256 for one in aws.asked)


async def test_cohere_is_asked_for_96_texts_at_once(shared: World, aws: Vendor) -> None:
    def some(count: int) -> Any:
        body = json.dumps({"id": "x", "embeddings": [[0.25]] * count, "response_type": "embeddings_floats"})
        return reply(body.encode(), headers="X-Amzn-Bedrock-Input-Token-Count: 50\r\n")

    aws.play(some(96))
    made = await shared.openai.embeddings.create(
        model="aws/us.cohere.embed-english-v3", input=["text"] * 96 * 2
    )
    assert (len(made.data), made.usage.prompt_tokens) == (192, 100)
    assert [len(one.json["texts"]) for one in aws.asked] == [96, 96]
    assert {one.json["input_type"] for one in aws.asked} == {"search_document"}


async def test_bytes_in_a_models_own_words_pass(client: Any, aws: Vendor) -> None:
    body = {"inputText": "Hi", "normalize": False}
    made = await invoked(client, "aws/amazon.titan-embed-text-v2:0", body)
    assert made == {"embedding": [0.5, -1], "inputTextTokenCount": 3}
    assert aws.asked[0].json == body


async def test_one_models_words_are_translated_for_another(client: Any, aws: Vendor) -> None:
    made = await invoked(client, "aws/amazon.titan-embed-text-v2:0", COHERE)
    assert made["embeddings"] == [[0.5, -1]] * 2
    assert sorted(one.json["inputText"] for one in aws.asked) == ["a", "b"]


async def test_a_refusal_of_one_text_is_the_answer(shared: World, client: Any, aws: Vendor) -> None:
    aws.play(
        reply(b'{"message":"too long"}', status=400, headers="x-amzn-errortype: ValidationException\r\n")
    )
    with pytest.raises(ClientError, match="too long"):
        await invoked(client, "aws/amazon.titan-embed-text-v2:0", COHERE)


async def test_a_model_that_makes_none_is_named(shared: World, aws: Vendor) -> None:
    with pytest.raises(openai.BadRequestError, match="not known to make embeddings"):
        await shared.openai.embeddings.create(model="aws/anthropic.claude-sonnet-4-v1:0", input="Hi")
    assert not aws.asked


async def test_what_there_is_nothing_of_is_said_in_awss_words(client: Any) -> None:
    def ask() -> None:
        assert client.list_async_invokes()["asyncInvokeSummaries"] == []
        arn = "arn:aws:bedrock:us-east-1:111122223333:async-invoke/abcdefghijkl"
        with pytest.raises(client.exceptions.ValidationException, match="no invocation"):
            client.get_async_invoke(invocationArn=arn)
        with pytest.raises(client.exceptions.ValidationException, match="InvokeModel"):
            client.start_async_invoke(
                modelId="openai/x",
                modelInput={},
                outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://abc"}},
            )
        with pytest.raises(client.exceptions.ResourceNotFoundException, match="guardrail 'g1'"):
            client.apply_guardrail(
                guardrailIdentifier="g1",
                guardrailVersion="1",
                source="INPUT",
                content=[{"text": {"text": "x"}}],
            )

    await asyncio.to_thread(ask)
