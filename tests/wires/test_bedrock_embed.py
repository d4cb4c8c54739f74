"""Bedrock's embeddings by InvokeModel: bodies as AWS documents them, what becomes of each field, and hostile input."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.embeddings import EmbeddingRequest, EmbeddingResponse
from freehold.core.errors import FreeholdError, Unavailable, Unsupported
from freehold.core.messages import Usage
from freehold.core.ports import EmbeddingWire
from freehold.wires import bedrock_cohere_embed, bedrock_nova_embed, bedrock_titan_embed
from freehold.wires._vectors import numbers, packed
from freehold.wires.openai_embeddings import EMBEDDINGS as OPENAI

TITAN, NOVA, COHERE = (
    one.EMBEDDINGS for one in (bedrock_titan_embed, bedrock_nova_embed, bedrock_cohere_embed)
)
WIRES = pytest.mark.parametrize("wire", [TITAN, NOVA, COHERE], ids=lambda wire: wire.name)
VECTOR = packed([3.0, 4.0])
SINGLE = {
    "schemaVersion": "nova-multimodal-embed-v1",
    "taskType": "SINGLE_EMBEDDING",
    "singleEmbeddingParams": {
        "embeddingPurpose": "GENERIC_RETRIEVAL",
        "embeddingDimension": 384,
        "text": {"truncationMode": "END", "value": "Hi"},
    },
}


def read(wire: EmbeddingWire, body: Any) -> EmbeddingRequest:
    return wire.decode_request(json.dumps(body).encode())


def told(wire: EmbeddingWire, body: Any, *vectors: bytes, tokens: int = 0) -> Any:
    made = EmbeddingResponse(model="m", vectors=vectors, usage=Usage(input_tokens=tokens))
    return json.loads(wire.encode_response(made, request=read(wire, body)))


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        (TITAN, {"inputText": "Hi"}),
        (TITAN, {"inputText": "Hi", "dimensions": 256, "normalize": False, "embeddingTypes": ["float"]}),
        (TITAN, {"inputText": "Hi", "inputImage": "aGk=", "embeddingConfig": {"outputEmbeddingLength": 256}}),
        (NOVA, SINGLE),
        (NOVA, {**SINGLE, "new": 1}),
        (COHERE, {"texts": ["a", "b"], "input_type": "search_query"}),
        (COHERE, {"texts": ["a"], "input_type": "clustering", "truncate": "END", "output_dimension": 256, "embedding_types": ["float"]}),
    ],
)  # fmt: skip
def test_a_body_is_the_same_after_it_was_read(wire: EmbeddingWire, body: Any) -> None:
    request = read(wire, body)
    assert json.loads(wire.encode_request(request)) == body
    assert wire.decode_request(wire.encode_request(request)) == request


@pytest.mark.parametrize(
    ("wire", "body", "task", "dimensions"),
    [
        (TITAN, {"inputText": "Hi", "dimensions": 256}, None, 256),
        (NOVA, SINGLE, "search_query", 384),
        (COHERE, {"texts": ["Hi"], "input_type": "search_document", "output_dimension": 8}, "search_document", 8),
    ],
)  # fmt: skip
def test_a_body_is_answered_by_openais_models_too(
    wire: EmbeddingWire, body: Any, task: str | None, dimensions: int
) -> None:
    request = read(wire, body)
    assert (request.inputs, request.task, request.dimensions) == (("Hi",), task, dimensions)
    assert json.loads(OPENAI.encode_request(request))["dimensions"] == dimensions


@pytest.mark.parametrize(
    ("wire", "body", "field"),
    [
        (TITAN, {"inputText": "Hi", "embeddingTypes": ["binary"]}, "embeddingTypes"),
        (COHERE, {"texts": ["a"], "input_type": "search_query", "embedding_types": ["int8"]}, "embedding_types"),
        (COHERE, {"images": ["data:"], "input_type": "image"}, "images"),
        (COHERE, {"texts": ["a"], "input_type": "poem"}, "input_type"),
        (COHERE, {"texts": ["a"] * 97, "input_type": "search_query"}, "texts"),
        (COHERE, {"texts": ["a"]}, "input_type"),
        (NOVA, {**SINGLE, "taskType": "SEGMENTED_EMBEDDING"}, "taskType"),
        (NOVA, {**SINGLE, "singleEmbeddingParams": {"embeddingPurpose": "CLUSTERING"}}, "singleEmbeddingParams.text"),
        (NOVA, {**SINGLE, "singleEmbeddingParams": {"embeddingPurpose": "IMAGE_RETRIEVAL", "text": {"value": "x"}}}, "singleEmbeddingParams.embeddingPurpose"),
        (TITAN, {"inputText": 7}, "inputText"),
    ],
)  # fmt: skip
def test_what_is_not_carried_is_refused_with_its_path(wire: EmbeddingWire, body: Any, field: str) -> None:
    with pytest.raises(FreeholdError) as refused:
        read(wire, body)
    assert refused.value.field == field


def test_what_only_one_vendor_has_goes_to_no_other() -> None:
    request = read(TITAN, {"inputText": "Hi", "inputImage": "aGk="})
    with pytest.raises(Unsupported) as refused:
        COHERE.encode_request(request)
    assert refused.value.field == "inputImage"
    COHERE.encode_request(read(TITAN, {"inputText": "Hi", "normalize": True}))


def test_answers_are_in_the_clients_form() -> None:
    assert told(TITAN, {"inputText": "Hi"}, VECTOR, tokens=2) == {
        "embedding": [3.0, 4.0],
        "inputTextTokenCount": 2,
    }
    by_type = told(TITAN, {"inputText": "Hi", "normalize": True, "embeddingTypes": ["float"]}, VECTOR)
    assert by_type["embedding"] == pytest.approx([0.6, 0.8])
    assert by_type["embeddingsByType"] == {"float": by_type["embedding"]}
    assert told(NOVA, SINGLE, VECTOR) == {"embeddings": [{"embeddingType": "TEXT", "embedding": [3.0, 4.0]}]}
    plain = {"texts": ["a", "b"], "input_type": "clustering"}
    assert told(COHERE, plain, VECTOR, VECTOR)["embeddings"] == [[3.0, 4.0]] * 2
    assert told(COHERE, {**plain, "embedding_types": ["float"]}, VECTOR)["embeddings"] == {
        "float": [[3.0, 4.0]]
    }


@pytest.mark.parametrize(
    ("wire", "body", "tokens"),
    [
        (TITAN, {"embedding": [3, 4], "inputTextTokenCount": 2, "embeddingsByType": {"float": [3, 4]}}, 2),
        (NOVA, {"embeddings": [{"embeddingType": "TEXT", "embedding": [3, 4]}]}, 0),
        (COHERE, {"id": "x", "embeddings": [[3, 4]], "texts": ["a"], "response_type": "embeddings_floats"}, 0),
        (COHERE, {"id": "x", "embeddings": {"float": [[3, 4]]}, "response_type": "embeddings_by_type"}, 0),
    ],
)  # fmt: skip
def test_vendors_answers_are_read(wire: EmbeddingWire, body: Any, tokens: int) -> None:
    made = wire.decode_response(json.dumps(body).encode())
    assert [numbers(one) for one in made.vectors] == [[3.0, 4.0]]
    assert made.usage.input_tokens == tokens


@WIRES
def test_a_strange_answer_is_the_vendors_fault(wire: EmbeddingWire) -> None:
    with pytest.raises(Unavailable):
        wire.decode_response(b'{"message":"?"}')


@WIRES
def test_another_wires_refusal_is_told_in_the_clients_words(wire: EmbeddingWire) -> None:
    word = {TITAN.name: "inputText", NOVA.name: "singleEmbeddingParams.text.value", COHERE.name: "texts"}[
        wire.name
    ]
    said = wire.encode_error(Unsupported("no tokens", field="inputs[0]"), "req_1")
    assert said.status == 400
    assert json.loads(said.body)["message"].startswith(f"{word}[0]: ")


@WIRES
@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from([
                        "inputText",
                        "texts",
                        "input_type",
                        "taskType",
                        "singleEmbeddingParams",
                        "text",
                        "dimensions",
                        "embeddingTypes",
                        "embeddings",
                        "float",
                    ]),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=8,
        ).map(lambda one: json.dumps(one).encode()),
    )
)
def test_hostile_bodies_raise_the_hearts_errors_alone(wire: EmbeddingWire, body: bytes) -> None:
    for read_it in (wire.decode_request, wire.decode_response, wire.usage_of):
        with contextlib.suppress(FreeholdError):
            read_it(body)
