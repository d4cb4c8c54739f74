"""Vertex AI's older form of embeddings: what survives its encoding, and what becomes of what only it can say."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.embeddings import EmbeddingRequest, EmbeddingResponse
from freehold.core.errors import BadRequest, FreeholdError, Unavailable, Unsupported
from freehold.core.messages import Usage
from freehold.wires._google_names import TASKS
from freehold.wires.google_predict import EMBEDDINGS, INPUTS_MAX
from freehold.wires.openai_embeddings import EMBEDDINGS as OPENAI
from tests.wires._values import counts, optional, words

requests = st.builds(
    EmbeddingRequest,
    model=st.just(""),
    inputs=st.lists(words, min_size=1, max_size=3).map(tuple),
    dimensions=optional(counts),
    task=optional(st.sampled_from(sorted(TASKS))),
)


@given(requests)
def test_a_request_survives_its_encoding(request):
    assert EMBEDDINGS.decode_request(EMBEDDINGS.encode_request(request)) == request


def test_an_answer_survives_its_encoding():
    answer = EmbeddingResponse(model="", vectors=(struct.pack("<f", 1),) * 2, usage=Usage(input_tokens=5))
    encoded = EMBEDDINGS.encode_response(answer, request=EmbeddingRequest(model="", inputs=("a", "b")))
    assert EMBEDDINGS.decode_response(encoded) == answer
    assert EMBEDDINGS.usage_of(encoded) == answer.usage


@given(st.binary(max_size=100))
def test_bytes_that_are_nothing_raise_nothing_but_our_errors(body):
    for read in (EMBEDDINGS.decode_request, EMBEDDINGS.decode_response):
        with pytest.raises(FreeholdError):
            read(body)
    assert EMBEDDINGS.usage_of(body) is None


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"instances": [{"content": "a", "title": "A"}]}, "instances[0].title"),
        ({"instances": [{"content": "a", "task_type": "NEW"}]}, "instances[0].task_type"),
        ({"instances": [{"content": "a"}, {"content": "b", "task_type": "CLUSTERING"}]}, "instances[1].task_type"),
        ({"instances": [{"content": "a"}], "parameters": {"autoTruncate": False}}, "parameters.autoTruncate"),
    ],
)  # fmt: skip
def test_what_only_it_can_say_is_refused_elsewhere(body, path):
    request = EMBEDDINGS.decode_request(json.dumps(body).encode())
    with pytest.raises(Unsupported) as raised:
        OPENAI.encode_request(request)
    assert raised.value.field == path
    assert json.loads(EMBEDDINGS.encode_request(request)) == body


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "instances"),
        ({"instances": []}, "instances"),
        ({"instances": [{"content": "a"}] * (INPUTS_MAX + 1)}, "instances"),
        ({"instances": [{}]}, "instances[0].content"),
        ({"instances": [{"content": "a"}], "parameters": {"outputDimensionality": "x"}}, "parameters.outputDimensionality"),
    ],
)  # fmt: skip
def test_wrong_input_is_named_with_its_path(body, field):
    with pytest.raises(BadRequest) as raised:
        EMBEDDINGS.decode_request(json.dumps(body).encode())
    assert raised.value.field == field


def test_refusals_name_its_own_fields():
    with pytest.raises(Unsupported) as raised:
        EMBEDDINGS.encode_request(EmbeddingRequest(model="", inputs=("a", (1,))))
    assert b'"instances[1].content"' in EMBEDDINGS.encode_error(raised.value, "r").body
    refused = Unsupported("no", field="dimensions")
    assert b'"parameters.outputDimensionality"' in EMBEDDINGS.encode_error(refused, "r").body


def test_an_answer_that_is_none_is_the_providers_fault():
    with pytest.raises(Unavailable):
        EMBEDDINGS.decode_response(b'{"predictions":[{}]}')
