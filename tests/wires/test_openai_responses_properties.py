"""OpenAI's Responses: what the wire says it understands, for generated values, however bytes are cut; hostile bytes raise only our errors."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.errors import FreeholdError
from freehold.core.messages import (
    Address,
    Bytes,
    Carried,
    CarriedTool,
    JsonOutput,
    Media,
    Message,
    ModelRequest,
    ModelResponse,
    Opaque,
    Raw,
    Reasoning,
    ReasoningSetting,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    ToolSpec,
    Usage,
    VendorFile,
    raw,
)
from freehold.core.stream import fold, unfold
from freehold.wires import named
from tests.wires import _values as values
from tests.wires._values import (
    ANTHROPIC,
    MODEL,
    OPENAI,
    PROVIDER,
    counts,
    extras,
    identifiers,
    optional,
    raws,
    tuples,
    words,
)
from tests.wires.test_properties import mutations

RESPONSES = "openai_responses"
WIRE = named(RESPONSES)
EMPTY = ModelRequest(model="m", messages=())

some_id = st.sampled_from(["a", "b", "c"]).map(raw)
phase = {"message.phase": st.just(raw("commentary"))}
riding = st.fixed_dictionaries({}, optional={"message.id": some_id, **phase})
answered = st.fixed_dictionaries({"message.id": some_id}, optional=phase)
_extra = extras(RESPONSES)
_texts = st.builds(Text, words, extra=_extra)


@st.composite
def said_texts(draw, its=riding):
    fields = {**draw(its), **draw(values.carried_fields)}
    return Text(draw(words), extra={RESPONSES: fields} if fields else {})


def carried(kind):
    return st.dictionaries(words, words, max_size=2).map(
        lambda value: Carried(RESPONSES, kind, raw({"type": kind, "x": value}))
    )


_media = (
    st.builds(
        Media,
        st.just("image"),
        st.just("image/png"),
        st.builds(Bytes, st.binary(max_size=20)),
        detail=optional(st.sampled_from(["low", "high"])),
        extra=_extra,
    )
    | st.builds(Media, st.just("image"), st.just(""), st.just(Address("https://example.com/a.png")))
    | st.builds(Media, st.just("image"), st.just(""), st.builds(VendorFile, st.just(OPENAI), identifiers))
    | st.builds(
        Media,
        st.just("document"),
        st.just("application/pdf"),
        st.builds(Bytes, st.binary(max_size=20)),
        optional(identifiers),
    )
    | st.builds(Media, st.just("document"), st.just(""), st.just(Address("https://example.com/a.pdf")))
    | st.builds(
        Media,
        st.just("document"),
        st.just(""),
        st.builds(VendorFile, st.just(OPENAI), identifiers),
        optional(identifiers),
    )
)
_pieces = carried("input_audio").map(lambda one: Carried(RESPONSES, "content.input_audio", one.block))
calls = st.builds(ToolCall, identifiers, identifiers, st.text(max_size=20), extra=_extra)
answered_calls = st.builds(
    ToolCall,
    identifiers,
    identifiers,
    st.text(max_size=20),
    extra=values.carried_fields.map(lambda fields: {RESPONSES: {"id": raw("fc_1"), **fields}}),
)


@st.composite
def thoughts(draw, provider="", model=""):
    pieces = draw(tuples(words, most=2))
    item = {
        "type": "reasoning",
        "id": draw(identifiers),
        "summary": [{"type": "summary_text", "text": piece} for piece in pieces],
        "encrypted_content": draw(identifiers),
    }
    seal = Opaque(RESPONSES, provider, model, bytes(raw(item)).decode(), "item")
    return Reasoning("\n\n".join(pieces), seal)


_messages = (
    st.builds(Message, st.just("user"), tuples(_texts | _media | _pieces), extra=_extra)
    | st.builds(Message, st.just("user"), st.tuples(carried("item_reference") | carried("x_output")))
    | st.builds(
        Message,
        st.just("assistant"),
        tuples(
            thoughts() | said_texts() | st.builds(Refusal, words) | calls | carried("web_search_call"),
            least=1,
        ),
    )
    | st.builds(
        Message,
        st.just("tool"),
        tuples(
            st.builds(ToolResult, identifiers, tuples(_texts | _media | _pieces, most=2), extra=_extra),
            least=1,
        ),
    )
    | st.builds(
        Message,
        st.just("system"),
        tuples(_texts, least=1, most=2),
        extra=st.sampled_from([{}, {RESPONSES: {"role": raw("developer")}}]),
    )
)


def canonical(messages):
    """Turns of one side that stand side by side are one message; and what is said first are instructions."""
    roles = [message.role for message in messages]
    doubled = any(one == other and one in ("tool", "assistant") for one, other in itertools.pairwise(roles))
    return not doubled and roles[:1] != ["system"]


_developer = words.map(lambda text: Text(text, extra={RESPONSES: {"message.role": raw("developer")}}))
requests = st.builds(
    ModelRequest,
    model=identifiers,
    instructions=st.just(())
    | st.tuples(st.builds(Text, words), *[_developer | st.builds(Text, words)] * 2)
    | st.tuples(_developer),
    messages=tuples(_messages, most=4).filter(canonical),
    tools=tuples(
        st.builds(ToolSpec, identifiers, st.text(max_size=9), raws, st.booleans(), extra=_extra)
        | raws.map(
            lambda value: CarriedTool(RESPONSES, "web_search", raw({"type": "web_search", "x": value}))
        ),
        least=1,
        most=2,
    ),
    tool_choice=optional(values.choices),
    output=optional(
        st.just(JsonOutput())
        | st.builds(JsonOutput, raws, identifiers, optional(words), optional(st.booleans()))
    ),
    reasoning=optional(
        st.just(ReasoningSetting(enabled=False))
        | st.builds(ReasoningSetting, effort=st.sampled_from(["minimal", "high"]))
    ),
    tokens_max=optional(counts),
    temperature=optional(values.numbers),
    top_p=optional(values.numbers),
    user=optional(words),
    stream=st.booleans(),
    extra=_extra,
)
usages = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    cache_read_tokens=counts,
    cache_write_tokens=counts,
    reasoning_tokens=counts,
)


@st.composite
def responses(draw):
    content = draw(
        tuples(
            thoughts(PROVIDER, MODEL)
            | said_texts(answered)
            | st.builds(Refusal, words)
            | answered_calls
            | carried("web_search_call")
            | _pieces,
            most=5,
        )
    )
    kinds = {type(part) for part in content}
    reason = "tool_use" if ToolCall in kinds else "refusal" if Refusal in kinds else "end_turn"
    reasons = [reason, "tokens_max"] + ([] if Refusal in kinds else ["refusal"])
    return ModelResponse(
        id=draw(identifiers),
        model=MODEL,
        content=content,
        stop_reason=draw(st.sampled_from(reasons)),
        usage=draw(usages),
        extra={
            RESPONSES: {"created_at": Raw(b"7"), "service_tier": raw("flex"), **draw(values.carried_fields)}
        },
    )


@given(requests)
def test_a_request_survives_its_encoding(request):
    assert WIRE.decode_request(WIRE.encode_request(request, provider=PROVIDER)) == request


@given(responses())
def test_an_answer_survives_its_encoding(response):
    assert WIRE.decode_response(WIRE.encode_response(response), provider=PROVIDER) == response


def streamed(response, draw):
    encoder = WIRE.stream_encoder(EMPTY)
    return b"".join(map(encoder.encode, values.told_in_pieces(response, draw))) + encoder.end()


@given(response=responses(), data=st.data())
def test_a_stream_survives_its_encoding_and_any_cutting(response, data):
    decoder = WIRE.stream_decoder(provider=PROVIDER)
    pieces = values.pieces(streamed(response, data.draw), data.draw)
    events = [event for piece in pieces for event in decoder.feed(piece)]
    assert fold([*events, *decoder.end()]) == response


@given(response=responses(), data=st.data())
def test_a_stream_repeats_at_its_end_what_it_told(response, data):
    *_, last = [line[6:] for line in streamed(response, data.draw).splitlines() if line.startswith(b"data: ")]
    whole = json.loads(last)["response"]
    again = WIRE.decode_response(json.dumps(whole).encode(), provider=PROVIDER)
    assert [type(part) for part in again.content] == [type(part) for part in response.content]
    assert (again.text(), again.stop_reason) == (response.text(), response.stop_reason)


@given(response=responses(), data=st.data())
def test_events_are_numbered_and_named(response, data):
    lines = streamed(response, data.draw).splitlines()
    names = [line[7:].decode() for line in lines if line.startswith(b"event: ")]
    events = [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events] == names
    assert names[:2] == ["response.created", "response.in_progress"]
    added = [event["output_index"] for event in events if event["type"] == "response.output_item.added"]
    done = [event["output_index"] for event in events if event["type"] == "response.output_item.done"]
    assert added == done == list(range(len(events[-1]["response"]["output"])))


@given(response=responses(), data=st.data())
def test_usage_is_read_alike_from_a_whole_answer_a_stream_and_in_passing(response, data):
    tap = WIRE.usage_tap()
    for piece in values.pieces(streamed(response, data.draw), data.draw):
        tap.feed(piece)
    assert tap.usage == response.usage
    assert tap.finished
    assert WIRE.usage_of(WIRE.encode_response(response)) == response.usage


@given(response=values.any_responses)
def test_any_answer_is_told_alike_whole_and_as_a_stream_or_refused(response):
    try:
        whole = WIRE.encode_response(response)
    except FreeholdError:
        return
    encoder, decoder = WIRE.stream_encoder(EMPTY), WIRE.stream_decoder(provider=PROVIDER)
    told = decoder.feed(b"".join(map(encoder.encode, unfold(response))))
    assert fold(told) == WIRE.decode_response(whole, provider=PROVIDER)


# ---------------------------------------------------------------------------------------------- hostile


@given(request=requests, data=st.data())
def test_a_damaged_request_raises_nothing_but_our_errors(request, data):
    body = json.loads(WIRE.encode_request(request, provider=PROVIDER))
    try:
        read = WIRE.decode_request(json.dumps(data.draw(mutations(body))).encode())
    except FreeholdError:
        return
    for other in (RESPONSES, OPENAI, ANTHROPIC):
        try:
            named(other).encode_request(read, provider=PROVIDER)
        except FreeholdError:
            continue


@given(response=responses(), data=st.data())
def test_a_damaged_answer_raises_nothing_but_our_errors(response, data):
    damaged = json.dumps(data.draw(mutations(json.loads(WIRE.encode_response(response))))).encode()
    WIRE.usage_of(damaged)
    try:
        read = WIRE.decode_response(damaged, provider=PROVIDER)
        for other in (RESPONSES, OPENAI, ANTHROPIC):
            named(other).encode_response(read)
    except FreeholdError:
        return


@given(response=responses(), data=st.data())
def test_a_damaged_stream_raises_nothing_but_our_errors(response, data):
    lines = streamed(response, data.draw).split(b"\n")
    places = [place for place, line in enumerate(lines) if line.startswith(b"data: {")]
    place = data.draw(st.sampled_from(places))
    lines[place] = b"data: " + json.dumps(data.draw(mutations(json.loads(lines[place][6:])))).encode()
    tap, decoder = WIRE.usage_tap(), WIRE.stream_decoder(provider=PROVIDER)
    tap.feed(b"\n".join(lines))
    try:
        events = [*decoder.feed(b"\n".join(lines)), *decoder.end()]
    except FreeholdError:
        return
    for other in (RESPONSES, OPENAI, ANTHROPIC):
        again = named(other).stream_encoder(EMPTY)
        try:
            for event in events:
                again.encode(event)
        except FreeholdError:
            continue


def read_stream(data):
    decoder = WIRE.stream_decoder(provider=PROVIDER)
    return [*decoder.feed(data), *decoder.end()]


@given(body=st.binary(max_size=200))
def test_bytes_that_are_nothing_raise_nothing_but_our_errors(body):
    for read in (WIRE.decode_request, lambda data: WIRE.decode_response(data, provider=PROVIDER)):
        with pytest.raises(FreeholdError):
            read(body)
    for framed in (body, b"data: " + body + b"\n\n", b"event: error\ndata: " + body + b"\n\n"):
        with pytest.raises(FreeholdError):
            read_stream(framed)
    assert isinstance(WIRE.decode_error(500, {}, body), FreeholdError)
    WIRE.usage_of(body)
    tap = WIRE.usage_tap()
    tap.feed(body)
    assert tap.usage is None


@pytest.mark.parametrize("depth", [600, 100_000])
def test_nesting_without_end_is_refused(depth):
    deep = b"[" * depth
    for body in (deep, b'{"model":"m","input":' + deep, b'{"output":' + deep):
        with pytest.raises(FreeholdError):
            WIRE.decode_request(body)
        with pytest.raises(FreeholdError):
            WIRE.decode_response(body, provider=PROVIDER)
        with pytest.raises(FreeholdError):
            WIRE.stream_decoder(provider=PROVIDER).feed(b"data: " + body + b"\n\n")
