"""Google's wire: what it says it understands, for generated values, however the bytes are cut; hostile bytes raise only our errors."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.errors import FreeholdError
from freehold.core.messages import ModelRequest
from freehold.core.stream import fold
from freehold.wires import named
from tests.wires import _google_values as google
from tests.wires import _values as values
from tests.wires._google_values import GOOGLE
from tests.wires._values import PROVIDER
from tests.wires.test_properties import mutations

WIRE = named(GOOGLE)
OTHERS = ("anthropic_messages", "bedrock_converse", GOOGLE, "openai_chat", "openai_responses")
EMPTY = ModelRequest(model="m", messages=())


def streamed(response, draw):
    encoder = WIRE.stream_encoder(EMPTY)
    return b"".join(map(encoder.encode, values.told_in_pieces(response, draw))) + encoder.end()


def decoded(body):
    decoder = WIRE.stream_decoder(provider=PROVIDER)
    return [*decoder.feed(body), *decoder.end()]


@given(request=google.requests)
def test_a_request_survives_its_encoding(request):
    assert WIRE.decode_request(WIRE.encode_request(request, provider=PROVIDER)) == request


@given(response=google.responses())
def test_an_answer_survives_its_encoding(response):
    assert WIRE.decode_response(WIRE.encode_response(response), provider=PROVIDER) == response


@given(response=google.responses(), data=st.data())
def test_a_stream_survives_its_encoding_and_any_cutting(response, data):
    decoder = WIRE.stream_decoder(provider=PROVIDER)
    encoded = streamed(response, data.draw)
    events = [event for piece in values.pieces(encoded, data.draw) for event in decoder.feed(piece)]
    assert fold([*events, *decoder.end()]) == response


@given(response=google.responses(), data=st.data())
def test_usage_is_read_alike_from_a_whole_answer_a_stream_and_in_passing(response, data):
    tap = WIRE.usage_tap()
    for piece in values.pieces(streamed(response, data.draw), data.draw):
        tap.feed(piece)
    assert tap.usage == response.usage
    assert tap.finished
    assert WIRE.usage_of(WIRE.encode_response(response)) == response.usage


@given(request=google.requests)
def test_snake_case_and_a_field_to_come_are_read_too(request):
    body = json.loads(WIRE.encode_request(request, provider=PROVIDER))
    body["system_instruction"] = body.pop("systemInstruction", None)
    body["generation_config"] = body.pop("generationConfig", None)
    body["a_field_to_come"] = {"x": 1}
    read = WIRE.decode_request(json.dumps(body).encode())
    assert "aFieldToCome" in read.extra[GOOGLE]
    assert [text.text for text in read.instructions] == [text.text for text in request.instructions]
    assert [message.role for message in read.messages] == [message.role for message in request.messages]
    assert (read.temperature, read.reasoning) == (request.temperature, request.reasoning)


@given(response=values.any_responses, data=st.data())
def test_any_answer_reaches_the_client_or_is_refused(response, data):
    try:
        whole = WIRE.encode_response(response)
        stream = streamed(response, data.draw)
    except FreeholdError:
        return
    decoder = WIRE.stream_decoder(provider=PROVIDER)
    read = fold([*decoder.feed(stream), *decoder.end()])
    assert read.text() == WIRE.decode_response(whole, provider=PROVIDER).text()
    assert [call.id for call in read.tool_calls()] == [call.id for call in response.tool_calls()]


@given(request=google.requests, data=st.data())
def test_a_damaged_request_raises_nothing_but_our_errors(request, data):
    body = json.loads(WIRE.encode_request(request, provider=PROVIDER))
    try:
        read = WIRE.decode_request(json.dumps(data.draw(mutations(body))).encode())
    except FreeholdError:
        return
    for other in OTHERS:
        try:
            named(other).encode_request(read, provider=PROVIDER)
        except FreeholdError:
            continue


@given(response=google.responses(), data=st.data())
def test_a_damaged_answer_raises_nothing_but_our_errors(response, data):
    body = json.dumps(data.draw(mutations(json.loads(WIRE.encode_response(response))))).encode()
    decoder, tap = WIRE.stream_decoder(provider=PROVIDER), WIRE.usage_tap()
    tap.feed(b"data: " + body + b"\n\n")
    WIRE.usage_of(body)
    assert tap.finished in (True, False)
    with contextlib.suppress(FreeholdError):
        WIRE.decode_response(body, provider=PROVIDER)
    try:
        events = [*decoder.feed(b"data: " + body + b"\n\n"), *decoder.end()]
    except FreeholdError:
        return
    for other in OTHERS:
        encoder = named(other).stream_encoder(EMPTY)
        try:
            for event in events:
                encoder.encode(event)
        except FreeholdError:
            continue


@given(body=st.binary(max_size=200))
def test_bytes_that_are_nothing_raise_nothing_but_our_errors(body):
    for read in (WIRE.decode_request, lambda data: WIRE.decode_response(data, provider=PROVIDER)):
        with pytest.raises(FreeholdError):
            read(body)
    for framed in (body, b"data: " + body + b"\n\n", body + b'{"error":{}}'):
        with pytest.raises(FreeholdError):
            decoded(framed)
    assert isinstance(WIRE.decode_error(500, {}, body), FreeholdError)
    WIRE.usage_of(body)
    tap = WIRE.usage_tap()
    tap.feed(body)
    assert tap.usage is None


@pytest.mark.parametrize("depth", [600, 100_000])
@pytest.mark.parametrize(
    "start",
    [
        b"",
        b'{"contents":',
        b'{"tools":[{"functionDeclarations":[{"name":"f","parameters":',
        b'{"generationConfig":{"responseSchema":',
        b'{"candidates":',
        b'{"error":',
    ],
)
def test_nesting_without_end_is_refused(start, depth):
    for body in (start + b"[" * depth, start + b'{"items":' * depth):
        with pytest.raises(FreeholdError):
            WIRE.decode_request(body)
        with pytest.raises(FreeholdError):
            WIRE.decode_response(body, provider=PROVIDER)
        with pytest.raises(FreeholdError):
            decoded(b"data: " + body + b"\n\n")
