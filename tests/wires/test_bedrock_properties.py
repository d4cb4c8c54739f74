"""Bedrock Converse: what survives a round trip, however bytes are cut; what botocore makes of generated values; hostile input."""

import base64
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from freehold.core.errors import (
    FreeholdError,
    Unsupported,
)
from freehold.core.messages import (
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
    ToolChoice,
    ToolResult,
    ToolSpec,
    Usage,
    VendorFile,
    raw,
)
from freehold.core.stream import (
    fold,
    unfold,
)
from freehold.wires import named
from freehold.wires._aws_eventstream import encode_event
from freehold.wires.bedrock_converse import WIRE
from tests.wires import _values as values
from tests.wires._bedrock_values import EMPTY, NAME, encoded, golden
from tests.wires._botocore import parsed_by_botocore, streamed_to_botocore, valid_for_botocore
from tests.wires._values import PROVIDER, counts, identifiers, optional, tuples, words

# ----------------------------------------------------------------------------------------------- properties


def extras() -> Any:
    return values.extras(NAME)


CACHE = st.sampled_from([None, "5m", "1h"])
TEXTS = st.builds(Text, words, CACHE)
MEDIA = st.builds(
    Media,
    st.sampled_from(["image"]),
    st.sampled_from(["image/png", "image/webp"]),
    st.builds(Bytes, st.binary(min_size=1, max_size=20)) | st.builds(VendorFile, st.just(NAME), words),
    cache=CACHE,
    extra=extras(),
) | st.builds(
    Media,
    st.just("document"),
    st.sampled_from(["application/pdf", "text/markdown", ""]),
    st.builds(Bytes, st.binary(max_size=20)),
    st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True),
    cache=CACHE,
    extra=extras(),
) | st.builds(
    Media, st.just("video"), st.sampled_from(["video/mp4", "video/mpg", "video/3gpp"]), st.builds(Bytes, st.binary(max_size=9))
)  # fmt: skip


def thoughts(provider: str) -> Any:
    seals = st.builds(Opaque, st.just(NAME), st.just(provider), st.just(""), words)
    hidden = st.builds(
        Opaque,
        st.just(NAME),
        st.just(provider),
        st.just(""),
        st.binary(min_size=1, max_size=9).map(lambda data: base64.b64encode(data).decode()),
        st.just("redacted_content"),
    )
    return st.builds(Reasoning, st.text(max_size=9), seals) | st.builds(Reasoning, st.just(""), hidden)


def carried(kind: str) -> Any:
    return values.json_objects.map(lambda value: Carried(NAME, kind, raw({kind: value})))


CALLS = st.builds(ToolCall, identifiers, identifiers, values.json_texts, st.none(), CACHE, extras())
RESULTS = st.builds(
    ToolResult,
    identifiers,
    tuples(
        st.builds(Text, words)
        | MEDIA.filter(lambda media: media.cache is None)
        | carried("searchResult")
        | values.json_objects.map(
            lambda value: Text(bytes(raw(value)).decode(), extra={NAME: {"json": raw(value)}})
        )
    ),
    st.booleans(),
    CACHE,
    extras(),
)
MESSAGES = (
    st.builds(Message, st.just("user"), tuples(TEXTS | MEDIA | carried("searchResult"), least=1))
    | st.builds(
        Message,
        st.just("assistant"),
        tuples(TEXTS | CALLS | thoughts("") | carried("image9"), least=1),
        st.none(),
        extras(),
    )
    | st.builds(Message, st.just("tool"), tuples(RESULTS, least=1))
)


def turns(messages: tuple[Message, ...]) -> bool:
    """Roles take turns, and a user who speaks after results does so in the same message."""
    roles = [message.role for message in messages]
    pairs = itertools.pairwise(roles)
    return not any(pair in {("user", "user"), ("tool", "tool"), ("assistant", "assistant")} for pair in pairs)


REQUESTS = st.builds(
    ModelRequest,
    model=st.just(""),
    instructions=tuples(TEXTS, most=2),
    messages=tuples(MESSAGES, most=4).filter(turns),
    tools=tuples(
        st.builds(ToolSpec, identifiers, st.text(max_size=10), values.raws, optional(st.booleans()), CACHE, extras())
        | values.json_objects.map(lambda value: CarriedTool(NAME, "systemTool", raw({"systemTool": value}))),
        least=1,
        most=2,
    ),
    tool_choice=optional(
        st.builds(ToolChoice, st.sampled_from(["auto", "required"])) | st.builds(ToolChoice, st.just("named"), identifiers)
    ),
    output=optional(st.builds(JsonOutput, values.raws, identifiers, optional(words))),
    reasoning=optional(
        st.just(ReasoningSetting())
        | st.just(ReasoningSetting(enabled=False))
        | st.builds(ReasoningSetting, effort=optional(st.just("high")), budget_tokens=counts)
        | st.builds(ReasoningSetting, effort=st.sampled_from(["low", "max"]))
    ),
    tokens_max=optional(counts),
    temperature=optional(values.numbers),
    top_p=optional(values.numbers),
    top_k=optional(counts),
    stop=tuples(words),
    extra=extras(),
)  # fmt: skip


@st.composite
def usages(draw: Any) -> Usage:
    plain, read, written, written_1h = draw(st.tuples(counts, counts, counts, counts))
    return Usage(
        input_tokens=plain + read + written + written_1h,
        output_tokens=draw(counts),
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=written_1h,
    )


CITED = st.lists(values.essentials, min_size=1, max_size=2).map(
    lambda cited: {NAME: {"citations": raw(cited)}}
)
RESPONSES = st.builds(
    ModelResponse,
    id=st.just(""),
    model=st.just(""),
    content=tuples(
        st.builds(Text, words)
        | st.builds(Text, words, extra=CITED)
        | thoughts(PROVIDER)
        | st.builds(ToolCall, identifiers, identifiers, values.json_texts)
        | carried("newBlock")
    ),
    stop_reason=st.sampled_from(["end_turn", "tokens_max", "tool_use", "refusal", "context_full"]),
    usage=usages(),
    extra=values.carried_fields.map(lambda fields: {NAME: {"metrics": Raw(b'{"latencyMs":7}'), **fields}}),
)


@given(REQUESTS)
def test_a_request_survives_its_encoding(request: ModelRequest) -> None:
    assert WIRE.decode_request(WIRE.encode_request(request, provider=PROVIDER)) == request


@given(RESPONSES)
def test_an_answer_survives_its_encoding(response: ModelResponse) -> None:
    assert WIRE.decode_response(WIRE.encode_response(response), provider=PROVIDER) == response


@given(RESPONSES, st.data())
def test_a_stream_survives_its_encoding_and_any_cutting(response: ModelResponse, data: st.DataObject) -> None:
    encoder, decoder, tap = (
        WIRE.stream_encoder(EMPTY),
        WIRE.stream_decoder(provider=PROVIDER),
        WIRE.usage_tap(),
    )
    told = b"".join(map(encoder.encode, values.told_in_pieces(response, data.draw))) + encoder.end()
    events = []
    for piece in values.pieces(told, data.draw):
        events += decoder.feed(piece)
        tap.feed(piece)
    assert fold([*events, *decoder.end()]) == response
    assert (tap.usage, tap.finished) == (response.usage, True)
    assert WIRE.usage_of(WIRE.encode_response(response)) == response.usage


@given(values.any_responses, st.data())
def test_botocore_reads_whatever_any_vendor_answers(response: ModelResponse, data: st.DataObject) -> None:
    sayable = tuple(part for part in response.content if not isinstance(part, Carried | Media))
    if any(isinstance(part, Carried) for part in response.content):
        with pytest.raises(Unsupported):
            b"".join(map(WIRE.stream_encoder(EMPTY).encode, unfold(response)))
    response = structs.replace(response, content=sayable)
    body, encoder = WIRE.encode_response(response), WIRE.stream_encoder(EMPTY)
    told = b"".join(map(encoder.encode, values.told_in_pieces(response, data.draw)))
    parsed = parsed_by_botocore(body)
    assert parsed["usage"]["outputTokens"] == response.usage.output_tokens
    said = "".join(part.text for part in response.content if isinstance(part, Text | Refusal))
    assert "".join(block.get("text", "") for block in parsed["output"]["message"]["content"]) == said
    events = streamed_to_botocore(told)
    assert [next(iter(event)) for event in (events[0], events[-2], events[-1])] == [
        "messageStart",
        "messageStop",
        "metadata",
    ]
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    assert "".join(delta.get("text", "") for delta in deltas) == said
    stops = [
        event["contentBlockStop"]["contentBlockIndex"] for event in events if "contentBlockStop" in event
    ]
    seals = sum(isinstance(part, ToolCall) and part.opaque is not None for part in sayable)
    assert stops == list(range(len(sayable) + seals))


@given(st.one_of(values.openai_requests, values.anthropic_requests))
def test_botocore_finds_nothing_wrong_with_others_requests(request: ModelRequest) -> None:
    """Apart from what it cannot know: names, schemas and texts are the client's own."""
    try:
        body = encoded(request)
    except Unsupported:
        return
    wrong = [
        line
        for line in valid_for_botocore(body).splitlines()
        if "length" not in line and "min value" not in line and "range" not in line and "document" not in line
    ]
    assert wrong == []


@given(st.binary(max_size=200))
def test_bytes_that_are_nothing_raise_nothing_but_our_errors(body: bytes) -> None:
    with pytest.raises(FreeholdError):
        WIRE.decode_request(b"x" + body)
    with pytest.raises(FreeholdError):
        WIRE.decode_response(body, provider=PROVIDER)
    for kind in (
        "contentBlockDelta",
        "contentBlockStart",
        "contentBlockStop",
        "messageStop",
        "metadata",
        "x",
    ):
        decoder = WIRE.stream_decoder(provider=PROVIDER)
        decoder.feed(encode_event("messageStart", b'{"role":"assistant"}'))
        try:
            decoder.feed(encode_event(kind, body))
            decoder.end()
        except FreeholdError:
            continue
    assert isinstance(WIRE.decode_error(500, {}, body), FreeholdError)
    WIRE.usage_of(body)
    tap = WIRE.usage_tap()
    tap.feed(body)
    assert tap.usage is None


def mutated(value: Any) -> Any:
    """The same JSON with one value replaced by something else."""
    if isinstance(value, dict) and value:
        return st.sampled_from(sorted(value)).flatmap(
            lambda key: mutated(value[key]).map(lambda one: {**value, key: one})
        )
    if isinstance(value, list) and value:
        return st.integers(0, len(value) - 1).flatmap(
            lambda at: mutated(value[at]).map(lambda one: [*value[:at], one, *value[at + 1 :]])
        )
    return values.json_values


@given(st.data())
def test_a_request_with_something_wrong_in_it_raises_nothing_but_our_errors(data: st.DataObject) -> None:
    body = json.dumps(data.draw(mutated(json.loads(golden("request.json"))))).encode()
    try:
        request = WIRE.decode_request(body)
        for wire in (WIRE, named("openai_chat"), named("anthropic_messages")):
            wire.encode_request(request, provider=PROVIDER)
    except FreeholdError:
        pass
