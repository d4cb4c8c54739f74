"""OpenAI's embeddings at the door, through OpenAI's unmodified SDK."""

import base64
import struct

import msgspec
import openai
import pytest

from tests.gateway._vendors import reply
from tests.server._world import World

VECTOR = base64.b64encode(struct.pack("<2f", 0.5, -1)).decode()


def answer(embedding: object) -> bytes:
    data = [{"object": "embedding", "index": 0, "embedding": embedding}]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return msgspec.json.encode({
        "object": "list",
        "data": data,
        "model": "text-embedding-3-small",
        "usage": usage,
    })


async def test_vectors_pass_through(shared: World) -> None:
    vendor = shared.script("openai", reply(answer(VECTOR)))
    made = await shared.openai.embeddings.create(
        model="openai/text-embedding-3-small", input=["hi"], dimensions=2
    )
    assert made.data[0].embedding == [0.5, -1]
    assert made.usage.prompt_tokens == 3
    (asked,) = vendor.asked
    assert asked.path == "/v1/embeddings"
    assert asked.headers["authorization"] == "Bearer sk-test-openai"
    assert asked.json == {
        "model": "text-embedding-3-small",
        "input": ["hi"],
        "dimensions": 2,
        "encoding_format": "base64",
    }


@pytest.mark.parametrize("given", [[1, 2, 3], [[1], [2, 3]], "hi"])
async def test_tokens_and_numbers_pass_through(shared: World, given: object) -> None:
    vendor = shared.script("openai", reply(answer([0.25])))
    made = await shared.openai.embeddings.create(
        model="text-embedding-3-small",
        input=given,  # type: ignore[arg-type]
        encoding_format="float",
    )
    assert made.data[0].embedding == [0.25]
    assert vendor.asked[0].json["input"] == given


async def test_a_provider_without_embeddings_is_named(shared: World) -> None:
    vendor = shared.script("anthropic", reply(b"{}"))
    with pytest.raises(openai.BadRequestError, match="anthropic makes no embeddings here") as raised:
        await shared.openai.embeddings.create(model="anthropic/claude-sonnet-4-5", input="hi")
    assert (raised.value.code, raised.value.param) == ("unsupported", "model")
    assert not vendor.asked


async def test_wrong_input_is_named_before_anybody_is_asked(shared: World) -> None:
    vendor = shared.script("openai", reply(b"{}"))
    with pytest.raises(openai.BadRequestError, match="both in one list") as raised:
        await shared.openai.embeddings.create(model="text-embedding-3-small", input=["hi", 1])  # type: ignore[list-item]
    assert raised.value.param == "input"
    assert not vendor.asked


@pytest.mark.parametrize(
    ("status", "kind"), [(429, openai.RateLimitError), (503, openai.InternalServerError)]
)
async def test_a_vendors_refusal_is_told(shared: World, status: int, kind: type[Exception]) -> None:
    shared.script("openai", reply(b'{"error":{"message":"no"}}', status=status))
    with pytest.raises(kind):
        await shared.openai.embeddings.create(model="text-embedding-3-small", input="hi")


async def test_who_has_no_key_is_not_let_in(shared: World) -> None:
    nobody = shared.openai.with_options(api_key="wrong")
    with pytest.raises(openai.AuthenticationError):
        await nobody.embeddings.create(model="text-embedding-3-small", input="hi")


async def test_only_post_is_taken(shared: World) -> None:
    answered = await shared.http.get("/v1/embeddings")
    assert (answered.status_code, answered.headers["allow"]) == (405, "POST")
