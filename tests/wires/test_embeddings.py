"""OpenAI's embeddings: what survives its encoding, what a wrong body is told, and what OpenAI's unmodified SDK reads."""

import json
import struct

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.embeddings import EmbeddingRequest, EmbeddingResponse
from freehold.core.errors import BadRequest, FreeholdError, Unavailable
from freehold.core.messages import Raw, Usage
from freehold.wires import names
from freehold.wires.openai_embeddings import EMBEDDINGS, INPUTS_MAX
from tests.wires._values import counts, extras, identifiers, optional, tuples, words
from tests.wires.test_sdks import Door

NAME = "openai_embeddings"
WIRE = EMBEDDINGS

tokens = tuples(st.integers(0, 200_000), least=1)
inputs = st.one_of(tuples(words, least=1), tuples(tokens, least=1))
requests = st.builds(
    EmbeddingRequest,
    model=identifiers,
    inputs=inputs,
    dimensions=optional(counts),
    user=optional(words),
    extra=extras(NAME) | st.just({NAME: {"encoding_format": Raw(b'"base64"')}}),
)
vectors = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=4)
responses = st.builds(
    EmbeddingResponse,
    model=identifiers,
    vectors=tuples(vectors.map(lambda floats: struct.pack(f"<{len(floats)}f", *floats)), least=1),
    usage=st.builds(Usage, input_tokens=counts),
)


@given(requests)
def test_a_request_survives_its_encoding(request):
    assert WIRE.decode_request(WIRE.encode_request(request)) == request


@given(responses, requests)
def test_an_answer_survives_its_encoding_as_numbers_and_as_base64(response, request):
    encoded = WIRE.encode_response(response, request=request)
    assert WIRE.decode_response(encoded) == response
    assert WIRE.usage_of(encoded) == response.usage


@given(st.binary(max_size=100))
def test_bytes_that_are_nothing_raise_nothing_but_our_errors(body):
    for read in (WIRE.decode_request, WIRE.decode_response):
        with pytest.raises(FreeholdError):
            read(body)
    assert WIRE.usage_of(body) is None


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("hi", ("hi",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
        ("", ("",)),
    ],
)
def test_an_input_is_a_text_its_tokens_or_a_list_of_either(given, meant):
    body = json.dumps({"model": "m", "input": given, "encoding_format": "float"}).encode()
    request = WIRE.decode_request(body)
    assert (request.inputs, request.extra) == (meant, {})


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({}, "input", "required"),
        ({"input": []}, "input", "expected 1 to INPUTS_MAX"),
        ({"input": ["a"] * (INPUTS_MAX + 1)}, "input", "expected 1 to INPUTS_MAX"),
        ({"input": ["a", 1]}, "input", "both in one list"),
        ({"input": 5}, "input", "expected 'array', got 'int'"),
        ({"input": [["a"]]}, "input[0][0]", "expected 'int', got 'str'"),
        ({"input": "a", "dimensions": "many"}, "dimensions", "expected 'int | null', got 'str'"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "expected float or base64"),
    ],
)
def test_wrong_input_is_named_with_its_path(fields, field, said):
    with pytest.raises(BadRequest) as raised:
        WIRE.decode_request(json.dumps({"model": "m", **fields}).encode())
    assert raised.value.field == field
    assert said in raised.value.message


@pytest.mark.parametrize(
    "data",
    [
        [{"embedding": "abc"}],
        [{"embedding": "!!"}],
        [{"embedding": None}],
        {},
        [5],
    ],
)
def test_an_answer_that_is_none_is_the_providers_fault(data):
    with pytest.raises(Unavailable):
        WIRE.decode_response(json.dumps({"model": "m", "data": data}).encode())


def test_vectors_come_in_the_order_of_their_inputs():
    data = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]
    answer = WIRE.decode_response(json.dumps({"model": "m", "data": data}).encode())
    assert answer.vectors == (struct.pack("<f", 1), struct.pack("<f", 2))


def loosely(door):
    """Its types know no base64, which it takes all the same."""
    client = httpx2.Client(transport=httpx2.MockTransport(door))
    return openai.OpenAI(api_key="k", base_url="http://x/v1", http_client=client, max_retries=0)


@pytest.mark.parametrize("encoding_format", [None, "float", "base64"])
def test_openais_sdk_reads_them(encoding_format):
    """Asked for nothing, it asks for base64 by itself."""
    answer = EmbeddingResponse(model="m", vectors=(struct.pack("<2f", 0.5, -1),), usage=Usage(input_tokens=3))
    asked = {} if encoding_format is None else {"encoding_format": encoding_format}
    heard = Door(headers={"content-type": "application/json"})
    heard.body = WIRE.encode_response(answer, request=EmbeddingRequest(model="m", inputs=("hi",)))
    loosely(heard).embeddings.create(model="m", input="hi", **asked)
    request = WIRE.decode_request(heard.heard)
    door = Door(
        headers={"content-type": "application/json"}, body=WIRE.encode_response(answer, request=request)
    )
    read = loosely(door).embeddings.create(model="m", input="hi", **asked)
    if encoding_format == "base64":
        assert read.data[0].embedding == "AAAAPwAAgL8="
    else:
        assert read.data[0].embedding == [0.5, -1]
    assert (read.usage.prompt_tokens, read.usage.total_tokens) == (3, 3)


def test_it_is_no_wire_of_conversations():
    assert NAME not in names()
