"""Embeddings for Google's unmodified SDK, and Google's for OpenAI's: through a whole server, with both vendors scripted."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from google import genai
from google.genai import errors, types
from google.oauth2.credentials import Credentials

from tests.gateway._vendors import ANTHROPIC_TEXT, OPENAI_TEXT, Vendor, reply
from tests.server._world import World

DOCUMENT = Path(__file__).parents[2] / "docs" / "google.md"
OPENAIS = "openai/text-embedding-3-small"
GOOGLES = "studio/gemini-embedding-2"
CONFIG = types.EmbedContentConfig(task_type="RETRIEVAL_DOCUMENT", output_dimensionality=2)


def openai_answer(*vectors: list[float]) -> bytes:
    data = [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(vectors)]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return json.dumps({"object": "list", "data": data, "model": "m", "usage": usage}).encode()


def google_answer(*vectors: list[float]) -> bytes:
    return json.dumps({"embeddings": [{"values": one} for one in vectors]}).encode()


class Place:
    def __init__(self, world: World, vendor: Vendor) -> None:
        self.world = world
        self.vendor = vendor
        options = types.HttpOptions(base_url=world.url)
        self.client = genai.Client(api_key=world.key, http_options=options).aio


@pytest.fixture(scope="module")
async def place(shared: World) -> AsyncIterator[Place]:
    async with Vendor([]) as vendor:
        await shared.apply(
            f"kind: provider\nname: studio\ntype: google\nbase_url: {vendor.url}\nmodels: [gemini-embedding-2]\n"
        )
        opened = Place(shared, vendor)
        yield opened
        await opened.client.aclose()


async def test_googles_sdk_gets_openais_vectors(place: Place) -> None:
    vendor = place.world.script("openai", reply(openai_answer([0.5, -1], [0.25, 1])))
    config = types.EmbedContentConfig(output_dimensionality=2)
    made = await place.client.models.embed_content(model=OPENAIS, contents=["a", "b"], config=config)
    assert [one.values for one in made.embeddings or ()] == [[0.5, -1], [0.25, 1]]
    assert vendor.asked[0].json == {"model": "text-embedding-3-small", "input": ["a", "b"], "dimensions": 2}


async def test_the_documents_examples_run(place: Place) -> None:
    """The client of the first, with this server's address and key; the rest as it stands."""
    _, embedding, *_ = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    place.world.script("openai", reply(openai_answer([0.5] * 256, [0.25] * 256)))
    options = types.HttpOptions(base_url=place.world.url)

    def run() -> None:
        with genai.Client(api_key=place.world.key, http_options=options) as client:
            exec(embedding, {"client": client, "print": printed.append})

    printed: list[object] = []
    await asyncio.to_thread(run)
    assert printed == [[256, 256]]


async def test_googles_sdk_gets_googles_vectors_as_they_came(place: Place) -> None:
    place.vendor.play(reply(google_answer([0.5, -1])))
    config = CONFIG.model_copy(update={"title": "A"})
    made = await place.client.models.embed_content(model=GOOGLES, contents="a", config=config)
    assert [one.values for one in made.embeddings or ()] == [[0.5, -1]]
    (asked,) = place.vendor.asked
    assert asked.path == "/v1beta/models/gemini-embedding-2:batchEmbedContents"
    (one,) = asked.json["requests"]
    assert one.pop("content")["parts"] == [{"text": "a"}]
    assert one == {
        "model": "models/gemini-embedding-2",
        "taskType": "RETRIEVAL_DOCUMENT",
        "title": "A",
        "outputDimensionality": 2,
    }


async def test_a_task_that_openais_models_are_not_told_is_refused_with_its_path(place: Place) -> None:
    vendor = place.world.script("openai", reply(openai_answer([1.0])))
    config = types.EmbedContentConfig(task_type="CLUSTERING")
    with pytest.raises(errors.ClientError) as raised:
        await place.client.models.embed_content(model=OPENAIS, contents="a", config=config)
    assert raised.value.code == 400
    assert (
        raised.value.details["error"]["details"][1]["fieldViolations"][0]["field"] == "requests[0].taskType"
    )
    assert not vendor.asked


@pytest.mark.parametrize(
    "prefix", ["/v1beta/models/", "/v1/models/", "/v1beta1/projects/p/locations/l/publishers/google/models/"]
)
async def test_one_content_alone(place: Place, prefix: str) -> None:
    place.world.script("openai", reply(openai_answer([0.5])))
    body = {"content": {"parts": [{"text": "a"}]}}
    made: Any = await place.world.json("POST", f"{prefix}{OPENAIS}:embedContent", body)
    assert made == {"embedding": {"values": [0.5]}, "usageMetadata": {"promptTokenCount": 3}}


async def test_openais_sdk_gets_googles_vectors(place: Place) -> None:
    place.vendor.play(reply(google_answer([0.5, -1])))
    made = await place.world.openai.embeddings.create(model=GOOGLES, input="a", dimensions=2)
    assert (made.data[0].embedding, made.model) == ([0.5, -1], "gemini-embedding-2")
    assert made.usage.prompt_tokens > 0
    (one,) = place.vendor.asked[0].json["requests"]
    assert (one["content"], one["outputDimensionality"]) == ({"parts": [{"text": "a"}]}, 2)


async def test_more_texts_than_a_batch_holds_go_in_several(place: Place) -> None:
    place.vendor.play(reply(google_answer(*[[1.0]] * 100)), reply(google_answer([2.0])))
    made = await place.world.openai.embeddings.create(
        model=GOOGLES, input=["a"] * 101, encoding_format="float"
    )
    assert [len(asked.json["requests"]) for asked in place.vendor.asked] == [100, 1]
    assert (len(made.data), made.data[100].embedding) == (101, [2.0])


async def test_fewer_vectors_than_texts_are_the_providers_fault(place: Place) -> None:
    place.vendor.play(reply(google_answer([1.0])))
    with pytest.raises(openai.InternalServerError, match="answered 2 inputs with 1 vectors"):
        await place.world.openai.embeddings.create(model=GOOGLES, input=["a", "b"])


async def test_tokens_are_refused_in_openais_words(place: Place) -> None:
    place.vendor.play(reply(google_answer([1.0])))
    with pytest.raises(openai.BadRequestError) as raised:
        await place.world.openai.embeddings.create(model=GOOGLES, input=[[1, 2]])
    assert raised.value.param == "input[0]"
    assert not place.vendor.asked


async def test_the_vendors_error_is_told(place: Place) -> None:
    error = {"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}
    place.vendor.play(reply(json.dumps(error).encode(), status=429))
    with pytest.raises(errors.ClientError) as raised:
        await place.client.models.embed_content(model=GOOGLES, contents="a")
    assert raised.value.code == 429


async def test_other_doors_count_as_google_counts(place: Place) -> None:
    place.vendor.play(reply(b'{"totalTokens": 42}'))
    model = "studio/gemini-3.8-flash"
    counted = await place.world.anthropic.messages.count_tokens(
        model=model, system="Be brief.", messages=[{"role": "user", "content": "hi"}]
    )
    assert counted.input_tokens == 42
    (asked,) = place.vendor.asked
    assert asked.path == "/v1beta/models/gemini-3.8-flash:countTokens"
    request = asked.json["generateContentRequest"]
    assert request["model"] == "models/gemini-3.8-flash"
    assert "Be brief." in json.dumps(request["systemInstruction"])
    total = await place.client.models.count_tokens(model=model, contents="hi")
    assert total.total_tokens == 42
    assert place.vendor.asked[1].json["generateContentRequest"]["contents"][0]["parts"] == [{"text": "hi"}]


@pytest.mark.slow
async def test_models_are_listed_page_by_page(place: Place) -> None:
    pager = await place.client.models.list(config={"page_size": 2})
    assert len(pager) == 2
    names = [model.name async for model in pager]
    assert names == sorted(set(names))
    assert f"models/{GOOGLES}" in names
    embedding = await place.client.models.get(model=GOOGLES)
    assert embedding.supported_actions == ["embedContent", "batchEmbedContents"]


async def test_models_have_googles_shape_under_v1_for_who_sends_its_header(place: Place) -> None:
    options = types.HttpOptions(base_url=place.world.url, api_version="v1")
    client = genai.Client(api_key=place.world.key, http_options=options).aio
    names = [model.name async for model in await client.models.list(config={"page_size": 1000})]
    assert f"models/{GOOGLES}" in names
    assert (await client.models.get(model=GOOGLES)).name == f"models/{GOOGLES}"
    await client.aclose()
    plain = await place.world.json("GET", "/v1/models")
    assert plain["object"] == "list"


@pytest.mark.parametrize("query", ["pageSize=x", "pageToken=%25"])
async def test_a_page_that_is_none_is_refused(place: Place, query: str) -> None:
    answer = await place.world.http.get(f"/v1beta/models?{query}")
    assert (answer.status_code, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")


@pytest.fixture(scope="module")
async def on_vertex(place: Place) -> AsyncIterator[Any]:
    """Google's SDK as it speaks to Vertex AI."""
    options = types.HttpOptions(base_url=place.world.url, api_version="v1beta1")
    credentials = Credentials(place.world.key)
    client = genai.Client(
        vertexai=True, project="p", location="global", credentials=credentials, http_options=options
    ).aio
    yield client
    await client.aclose()


async def test_the_sdk_in_vertex_mode_asks_any_model(place: Place, on_vertex: Any) -> None:
    place.world.script("openai", reply(OPENAI_TEXT))
    answer = await on_vertex.models.generate_content(model="openai/gpt-4o", contents="Hello")
    assert answer.text == "Hello there"


@pytest.mark.parametrize("contents", [["a"], ["a", "b"]])
@pytest.mark.parametrize("model", [OPENAIS, "openai/text-embedding-gemini"])
async def test_the_sdk_in_vertex_mode_gets_vectors(
    place: Place, on_vertex: Any, contents: list[str], model: str
) -> None:
    """By `predict`, and for what has Gemini in its name by the two other methods."""
    vendor = place.world.script("openai", reply(openai_answer(*[[0.5]] * len(contents))))
    config = types.EmbedContentConfig(output_dimensionality=1)
    asked = [types.UserContent(parts=[types.Part(text=one)]) for one in contents]
    made = await on_vertex.models.embed_content(model=model, contents=asked, config=config)
    assert [one.values for one in made.embeddings or ()] == [[0.5]] * len(contents)
    assert vendor.asked[0].json["input"] == contents
    assert vendor.asked[0].json["dimensions"] == 1


async def test_vertex_is_declared_by_its_address(place: Place) -> None:
    """One provider, with Google's models, Anthropic's and embeddings, each asked as it wants."""
    async with Vendor([]) as vertex:
        url = f"{vertex.url}/v1/projects/acme/locations/global"
        await place.world.apply(
            f"kind: provider\nname: cloud\ntype: vertex\nbase_url: {url}\nheaders: {{authorization: Bearer t}}\n"
        )
        vertex.play(reply(ANTHROPIC_TEXT))
        said = await place.client.models.generate_content(model="cloud/claude-sonnet-4-5", contents="Hello")
        assert said.text == "Hello there"
        assert vertex.asked[0].path.endswith("/publishers/anthropic/models/claude-sonnet-4-5:rawPredict")
        vertex.play(reply(json.dumps({"embedding": {"values": [0.5]}}).encode()))
        made = await place.client.models.embed_content(
            model="cloud/gemini-embedding-2", contents="a", config=CONFIG
        )
        assert (made.embeddings or [])[0].values == [0.5]
        config = vertex.asked[0].json["embedContentConfig"]
        assert config == {"taskType": "RETRIEVAL_DOCUMENT", "outputDimensionality": 2}
