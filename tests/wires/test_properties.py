"""Every wire: what it says it understands, for generated values, however the bytes are cut; and hostile bytes raise only our errors."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from freehold.core.errors import FreeholdError
from freehold.core.messages import ModelRequest
from freehold.core.stream import fold
from freehold.wires import named, names
from tests.wires import _values as values
from tests.wires._values import ANTHROPIC, OPENAI, PROVIDER

REQUESTS = {OPENAI: values.openai_requests, ANTHROPIC: values.anthropic_requests}
RESPONSES = {OPENAI: values.openai_responses(), ANTHROPIC: values.anthropic_responses}
EMPTY = ModelRequest(model="m", messages=())

every_wire = pytest.mark.parametrize("name", sorted(REQUESTS))


@every_wire
@given(data=st.data())
def test_a_request_survives_its_encoding(name, data):
    wire, request = named(name), data.draw(REQUESTS[name])
    assert wire.decode_request(wire.encode_request(request, provider=PROVIDER)) == request


@every_wire
@given(data=st.data())
def test_an_answer_survives_its_encoding(name, data):
    wire, response = named(name), data.draw(RESPONSES[name])
    assert wire.decode_response(wire.encode_response(response), provider=PROVIDER) == response


@every_wire
@given(data=st.data())
def test_a_stream_survives_its_encoding_and_any_cutting(name, data):
    wire, response = named(name), data.draw(RESPONSES[name])
    request = EMPTY
    if name == OPENAI:
        request = wire.decode_request(
            b'{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":true}}'
        )
    encoder, decoder = wire.stream_encoder(request), wire.stream_decoder(provider=PROVIDER)
    encoded = b"".join(map(encoder.encode, values.told_in_pieces(response, data.draw))) + encoder.end()
    events = [event for piece in values.pieces(encoded, data.draw) for event in decoder.feed(piece)]
    assert fold([*events, *decoder.end()]) == response


@every_wire
@given(data=st.data())
def test_usage_is_read_alike_from_a_whole_answer_a_stream_and_in_passing(name, data):
    wire, response = named(name), data.draw(RESPONSES[name])
    request = EMPTY
    if name == OPENAI:
        request = wire.decode_request(
            b'{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":true}}'
        )
    encoder, tap = wire.stream_encoder(request), wire.usage_tap()
    encoded = b"".join(map(encoder.encode, values.told_in_pieces(response, data.draw))) + encoder.end()
    for piece in values.pieces(encoded, data.draw):
        tap.feed(piece)
    assert tap.usage == response.usage
    assert tap.finished
    assert wire.usage_of(wire.encode_response(response)) == response.usage


# ---------------------------------------------------------------------------------------------- hostile


def mutations(value):
    """`value` with one of its nodes replaced, or one of its fields taken away or added."""

    @st.composite
    def mutated(draw, node=value):
        if not isinstance(node, dict | list) or not node or draw(st.integers(0, 3)) == 0:
            return draw(values.json_values)
        if isinstance(node, list):
            place = draw(st.integers(0, len(node) - 1))
            return [*node[:place], draw(mutated(node[place])), *node[place + 1 :]]
        name = draw(st.sampled_from(sorted(node)))
        kind = draw(st.integers(0, 5))
        if kind == 0:
            return {key: item for key, item in node.items() if key != name}
        if kind == 1:
            return {**node, draw(values.words): draw(values.json_values)}
        return {**node, name: draw(mutated(node[name]))}

    return mutated()


@every_wire
@given(data=st.data())
def test_a_damaged_request_raises_nothing_but_our_errors(name, data):
    wire = named(name)
    body = json.loads(wire.encode_request(data.draw(REQUESTS[name]), provider=PROVIDER))
    damaged = json.dumps(data.draw(mutations(body))).encode()
    try:
        request = wire.decode_request(damaged)
    except FreeholdError:
        return
    for other in REQUESTS:
        try:
            named(other).encode_request(request, provider=PROVIDER)
        except FreeholdError:
            continue


@every_wire
@given(data=st.data())
def test_a_damaged_answer_raises_nothing_but_our_errors(name, data):
    wire = named(name)
    body = json.loads(wire.encode_response(data.draw(RESPONSES[name])))
    damaged = json.dumps(data.draw(mutations(body))).encode()
    wire.usage_of(damaged)
    try:
        response = wire.decode_response(damaged, provider=PROVIDER)
        for other in REQUESTS:
            named(other).encode_response(response)
    except FreeholdError:
        return


@every_wire
@given(data=st.data())
def test_a_damaged_stream_raises_nothing_but_our_errors(name, data):
    wire = named(name)
    encoder, decoder, tap = (
        wire.stream_encoder(EMPTY),
        wire.stream_decoder(provider=PROVIDER),
        wire.usage_tap(),
    )
    lines = (
        b"".join(map(encoder.encode, values.told_in_pieces(data.draw(RESPONSES[name]), data.draw)))
        + encoder.end()
    ).split(b"\n")
    places = [place for place, line in enumerate(lines) if line.startswith(b"data: {")]
    place = data.draw(st.sampled_from(places))
    lines[place] = b"data: " + json.dumps(data.draw(mutations(json.loads(lines[place][6:])))).encode()
    tap.feed(b"\n".join(lines))
    try:
        events = [*decoder.feed(b"\n".join(lines)), *decoder.end()]
    except FreeholdError:
        return
    for other in REQUESTS:
        again = named(other).stream_encoder(EMPTY)
        try:
            for event in events:
                again.encode(event)
        except FreeholdError:
            continue


@every_wire
@given(body=st.binary(max_size=200))
def test_bytes_that_are_nothing_raise_nothing_but_our_errors(name, body):
    wire = named(name)
    for read in (wire.decode_request, lambda data: wire.decode_response(data, provider=PROVIDER)):
        with pytest.raises(FreeholdError):
            read(body)
    for framed in (body, b"data: " + body + b"\n\n", b"event: error\ndata: " + body + b"\n\n"):
        decoder = wire.stream_decoder(provider=PROVIDER)
        try:
            decoder.feed(framed)
            decoder.end()
        except FreeholdError:
            continue
    assert isinstance(wire.decode_error(500, {}, body), FreeholdError)
    wire.usage_of(body)
    tap = wire.usage_tap()
    tap.feed(body)
    assert tap.usage is None


@every_wire
@pytest.mark.parametrize("depth", [600, 100_000])
def test_nesting_without_end_is_refused(name, depth):
    wire = named(name)
    deep = b"[" * depth
    for body in (
        deep,
        b'{"model":"m","max_tokens":1,"messages":' + deep,
        b'{"choices":' + deep,
        b'{"content":' + deep,
    ):
        with pytest.raises(FreeholdError):
            wire.decode_request(body)
        with pytest.raises(FreeholdError):
            wire.decode_response(body, provider=PROVIDER)
        with pytest.raises(FreeholdError):
            wire.stream_decoder(provider=PROVIDER).feed(b"data: " + body + b"\n\n")


@pytest.mark.parametrize("name", names())
@given(data=st.data())
def test_an_answer_repeats_nothing_of_its_requests_messages(name, data):
    """The gateway lets go of them once they were told."""
    wire, response = named(name), data.draw(RESPONSES[OPENAI])
    request = data.draw(values.openai_requests)
    whole = wire.encode_response(response, created=1, request=request)
    assert wire.encode_response(response, created=1, request=structs.replace(request, messages=())) == whole
