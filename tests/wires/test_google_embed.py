"""Google's embeddings: what survives its encoding, in each of its forms, and what becomes of what only it can say."""

import json
import struct

import pytest
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.embeddings import EmbeddingRequest, EmbeddingResponse
from freehold.core.errors import BadRequest, FreeholdError, Unavailable, Unsupported
from freehold.core.messages import Raw, Usage
from freehold.wires._google_names import TASKS
from freehold.wires.google_embed import ALONE, EMBEDDINGS, INPUTS_MAX, ON_VERTEX
from freehold.wires.openai_embeddings import EMBEDDINGS as OPENAI
from tests.wires._values import counts, identifiers, optional, tuples, words

NAME = "google_embed"

vectors = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=4)
responses = st.builds(
    EmbeddingResponse,
    model=st.just(""),
    vectors=tuples(vectors.map(lambda floats: struct.pack(f"<{len(floats)}f", *floats)), least=1),
    usage=st.builds(Usage, input_tokens=counts),
)


def requests(most=3):
    return st.builds(
        EmbeddingRequest,
        model=identifiers,
        inputs=st.lists(words, min_size=1, max_size=most).map(tuple),
        dimensions=optional(counts),
        task=optional(st.sampled_from(sorted(TASKS))),
    )


def extra(**fields):
    return {NAME: {name: Raw(json.dumps(value).encode()) for name, value in fields.items()}}


@given(requests())
def test_a_request_survives_its_encoding(request):
    for wire in (EMBEDDINGS, ON_VERTEX):
        assert wire.decode_request(wire.encode_request(request)) == request


@given(requests(most=1))
def test_a_request_alone_survives_its_encoding(request):
    assert ALONE.decode_request(ALONE.encode_request(request)) == request


@given(responses)
def test_an_answer_survives_its_encoding(response):
    encoded = EMBEDDINGS.encode_response(response, request=EmbeddingRequest(model="m", inputs=("hi",)))
    assert EMBEDDINGS.decode_response(encoded) == response


@given(
    st.binary(max_size=100) | requests().map(EMBEDDINGS.encode_request).map(lambda body: body[:-3] + b'"]')
)
def test_bytes_that_are_nothing_raise_nothing_but_our_errors(body):
    for read in (EMBEDDINGS.decode_request, EMBEDDINGS.decode_response, ALONE.decode_request):
        with pytest.raises(FreeholdError):
            read(body)
    assert EMBEDDINGS.usage_of(body) is None


def test_what_is_sent_is_what_the_vendors_types_take():
    asked = EmbeddingRequest(
        model="gemini-embedding-2", inputs=("a", "b"), dimensions=64, task="search_query"
    )
    body = json.loads(EMBEDDINGS.encode_request(asked))
    assert [one["model"] for one in body["requests"]] == ["models/gemini-embedding-2"] * 2
    for one in body["requests"]:
        types.Content.model_validate(one.pop("content"))
        one.pop("model")
        types.EmbedContentConfig.model_validate(one)
        assert one == {"taskType": "RETRIEVAL_QUERY", "outputDimensionality": 64}
    nested = json.loads(ON_VERTEX.encode_request(asked))["requests"][0]["embedContentConfig"]
    assert nested == {"taskType": "RETRIEVAL_QUERY", "outputDimensionality": 64}


def test_names_in_snake_case_mean_the_same():
    body = {
        "content": {"parts": {"text": "hi"}, "role": "user"},
        "task_type": "CLUSTERING",
        "output_dimensionality": 8,
    }
    request = ALONE.decode_request(json.dumps(body).encode())
    assert (request.inputs, request.task, request.dimensions, request.extra) == (("hi",), "clustering", 8, {})


TEXT = {"parts": [{"text": "hi"}]}
PICTURE = {"parts": [{"inlineData": {"mimeType": "image/png", "data": "AA=="}}]}


@pytest.mark.parametrize(
    ("requests", "path"),
    [
        ([{"content": TEXT, "title": "A"}], "requests[0].title"),
        ([{"content": TEXT}, {"content": PICTURE}], "requests[1].content"),
        ([{"content": {"parts": [{"text": "a"}, {"text": "b"}]}}], "requests[0].content"),
        ([{"content": TEXT, "taskType": "CLUSTERING"}, {"content": TEXT}], "requests[0].taskType"),
        ([{"content": TEXT}, {"content": TEXT, "outputDimensionality": 3}], "requests[1].outputDimensionality"),
        ([{"content": TEXT, "taskType": "SOMETHING_NEW"}], "requests[0].taskType"),
        ([{"content": TEXT, "embedContentConfig": {"autoTruncate": False}}], "requests[0].embedContentConfig.autoTruncate"),
    ],
)  # fmt: skip
def test_what_only_google_can_say_is_refused_elsewhere_and_said_at_google(requests, path):
    body = json.dumps({"requests": requests}).encode()
    request = EMBEDDINGS.decode_request(body)
    with pytest.raises(Unsupported) as raised:
        OPENAI.encode_request(request)
    assert raised.value.field == path
    assert EMBEDDINGS.decode_request(EMBEDDINGS.encode_request(request)) == request


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "requests"),
        ({"requests": []}, "requests"),
        ({"requests": [{"content": TEXT}] * (INPUTS_MAX + 1)}, "requests"),
        ({"requests": [{"content": TEXT}, {}]}, "requests[1].content"),
        ({"requests": [{"content": TEXT, "outputDimensionality": "x"}]}, "requests[0].outputDimensionality"),
        ({"requests": [5]}, "requests[0]"),
    ],
)
def test_wrong_input_is_named_with_its_path(body, field):
    with pytest.raises(BadRequest) as raised:
        EMBEDDINGS.decode_request(json.dumps(body).encode())
    assert raised.value.field == field


def test_tokens_are_refused_with_their_place():
    with pytest.raises(Unsupported) as raised:
        EMBEDDINGS.encode_request(EmbeddingRequest(model="m", inputs=("a", (1, 2))))
    assert raised.value.field == "inputs[1]"
    assert b"requests[1].content" in EMBEDDINGS.encode_error(raised.value, "r").body


def test_how_an_openai_client_reads_numbers_is_none_of_googles_business():
    asked = OPENAI.decode_request(b'{"model":"m","input":["a"],"encoding_format":"base64","user":"u"}')
    assert EMBEDDINGS.decode_request(EMBEDDINGS.encode_request(asked)).inputs == ("a",)


def test_an_answer_that_is_none_is_the_providers_fault():
    with pytest.raises(Unavailable):
        EMBEDDINGS.decode_response(b'{"embeddings":[{"values":"x"}]}')


def test_an_answer_alone_is_read_and_written():
    answer = ALONE.decode_response(b'{"embedding":{"values":[1.0]},"usageMetadata":{"promptTokenCount":4}}')
    assert (answer.vectors, answer.usage.input_tokens) == ((struct.pack("<f", 1),), 4)
    told = json.loads(ALONE.encode_response(answer, request=EmbeddingRequest(model="m", inputs=("a",))))
    assert told == {"embedding": {"values": [1.0]}, "usageMetadata": {"promptTokenCount": 4}}
