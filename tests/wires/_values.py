"""Values of the heart that each wire can say, for properties; and bytes cut anywhere."""

import itertools
import json

from hypothesis import strategies as st

from freehold.core.messages import (
    Address,
    Bytes,
    Carried,
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
from freehold.core.stream import ArgumentsAdded, StreamEvent, TextAdded, unfold

OPENAI, ANTHROPIC = "openai_chat", "anthropic_messages"
PROVIDER, MODEL = "here", "model-1"

words = st.text(min_size=1, max_size=20)
identifiers = st.from_regex(r"[a-zA-Z0-9_-]{1,20}", fullmatch=True)
counts = st.integers(0, 10**9)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | words
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(words, json_values, max_size=3)
json_texts = json_objects.map(lambda value: json.dumps(value, ensure_ascii=False))
raws = json_objects.map(raw)
essentials = json_objects.filter(bool).map(raw)
carried_fields = st.dictionaries(st.from_regex(r"x_[a-z]{1,8}", fullmatch=True), essentials, max_size=2)


def tuples(items, least=0, most=3):
    return st.lists(items, min_size=least, max_size=most).map(tuple)


def optional(items):
    return st.none() | items


def extras(wire):
    return carried_fields.map(lambda fields: {wire: fields} if fields else {})


numbers = st.floats(0, 2, allow_nan=False)
specs = st.builds(
    ToolSpec,
    name=identifiers,
    description=st.text(max_size=10),
    parameters=raws,
    strict=optional(st.booleans()),
)
choices = st.builds(
    ToolChoice, mode=st.sampled_from(["auto", "none", "required"]), parallel=optional(st.booleans())
) | st.builds(ToolChoice, mode=st.just("named"), name=identifiers)


def no_two_tool_turns(messages):
    return not any(first.role == second.role == "tool" for first, second in itertools.pairwise(messages))


# ------------------------------------------------------------------------------------------- openai_chat

_openai_texts = st.builds(Text, words, extra=extras(OPENAI))
_openai_media = (
    st.builds(
        Media,
        st.just("image"),
        st.just("image/png"),
        st.builds(Bytes, st.binary(max_size=20)),
        detail=optional(st.sampled_from(["low", "auto"])),
    )
    | st.builds(Media, st.just("image"), st.just(""), st.just(Address("https://example.com/a.png")))
    | st.builds(
        Media,
        st.just("audio"),
        st.sampled_from(["audio/wav", "audio/mpeg"]),
        st.builds(Bytes, st.binary(max_size=20)),
    )
    | st.builds(
        Media,
        st.just("document"),
        st.just("application/pdf"),
        st.builds(Bytes, st.binary(max_size=20)),
        optional(identifiers),
    )
    | st.builds(Media, st.just("document"), st.just(""), st.builds(VendorFile, st.just(OPENAI), identifiers))
)
openai_calls = st.builds(ToolCall, identifiers, identifiers, st.text(max_size=20), extra=extras(OPENAI))
_openai_assistant = st.tuples(
    tuples(st.builds(Reasoning, words), most=1),
    tuples(st.builds(Text, words), most=2),
    tuples(st.builds(Refusal, words), most=1),
    tuples(openai_calls, most=2),
).map(lambda groups: sum(groups, ()))
_openai_messages = (
    st.builds(
        Message, st.just("user"), tuples(_openai_texts | _openai_media), optional(identifiers), extras(OPENAI)
    )
    | st.builds(Message, st.just("assistant"), _openai_assistant, optional(identifiers), extras(OPENAI))
    | st.builds(
        Message,
        st.just("tool"),
        tuples(st.builds(ToolResult, identifiers, tuples(st.builds(Text, words), most=2)), least=1),
    )
    | st.builds(Message, st.just("system"), tuples(_openai_texts, least=1, most=2), optional(identifiers))
)
openai_requests = st.builds(
    ModelRequest,
    model=identifiers,
    instructions=tuples(st.builds(Text, words), most=2),
    messages=tuples(_openai_messages, most=4)
    .filter(no_two_tool_turns)
    .filter(lambda messages: not messages or messages[0].role != "system"),
    tools=tuples(specs, least=1, most=2),
    tool_choice=optional(choices),
    output=optional(
        st.just(JsonOutput())
        | st.builds(JsonOutput, raws, identifiers, optional(words), optional(st.booleans()))
    ),
    reasoning=optional(
        st.just(ReasoningSetting(enabled=False))
        | st.builds(ReasoningSetting, effort=st.sampled_from(["minimal", "high"]))
    ),
    tokens_max=optional(counts),
    temperature=optional(numbers),
    top_p=optional(numbers),
    top_k=optional(counts),
    stop=tuples(words),
    seed=optional(st.integers(-(2**63), 2**63 - 1)),
    user=optional(words),
    extra=extras(OPENAI),
)

openai_usage = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    cache_read_tokens=counts,
    cache_write_tokens=counts,
    reasoning_tokens=counts,
    input_audio_tokens=counts,
    output_audio_tokens=counts,
)


@st.composite
def openai_responses(draw):
    texts = draw(tuples(st.builds(Text, words), most=1))
    refusals = draw(tuples(st.builds(Refusal, words), most=1))
    calls = draw(tuples(st.builds(ToolCall, identifiers, identifiers, st.text(max_size=20)), most=3))
    reasons = ["tool_use"] if calls else ["refusal"] if refusals else ["end_turn", "refusal", "stop_sequence"]
    reason = draw(st.sampled_from([*reasons, "tokens_max"]))
    return ModelResponse(
        id=draw(identifiers),
        model=MODEL,
        content=(*texts, *refusals, *calls),
        stop_reason=reason,
        stop_sequence=draw(words) if reason == "stop_sequence" else None,
        usage=draw(openai_usage),
        extra={OPENAI: {"created": Raw(b"7"), **draw(carried_fields)}},
    )


# ------------------------------------------------------------------------------------ anthropic_messages

_cache = st.sampled_from([None, "5m", "1h"])
_anthropic_texts = st.builds(Text, words, _cache, extras(ANTHROPIC))
_anthropic_media = (
    st.builds(
        Media, st.just("image"), st.just("image/png"), st.builds(Bytes, st.binary(max_size=20)), cache=_cache
    )
    | st.builds(
        Media,
        st.just("image"),
        st.just(""),
        st.just(Address("https://example.com/a.png")),
        extra=extras(ANTHROPIC),
    )
    | st.builds(Media, st.just("image"), st.just(""), st.builds(VendorFile, st.just(ANTHROPIC), identifiers))
    | st.builds(
        Media,
        st.just("document"),
        st.just("application/pdf"),
        st.builds(Bytes, st.binary(max_size=20)),
        optional(words),
        cache=_cache,
    )
    | st.builds(
        Media,
        st.just("document"),
        st.just("text/plain"),
        st.builds(Bytes, st.text(max_size=9).map(str.encode)),
        optional(words),
    )
)


def anthropic_thoughts(provider, model):
    seals = st.builds(Opaque, st.just(ANTHROPIC), st.just(provider), st.just(model), words)
    hidden = st.builds(
        Opaque, st.just(ANTHROPIC), st.just(provider), st.just(model), words, st.just("redacted_thinking")
    )
    return st.builds(Reasoning, st.text(max_size=9), seals) | st.builds(Reasoning, st.just(""), hidden)


def anthropic_blocks(kind):
    return json_objects.map(lambda value: Carried(ANTHROPIC, kind, raw({"type": kind, "content": value})))


anthropic_calls = st.builds(
    ToolCall, identifiers, identifiers, json_texts, st.none(), _cache, extras(ANTHROPIC)
)
_anthropic_results = st.builds(
    ToolResult,
    identifiers,
    tuples(_anthropic_texts | _anthropic_media | anthropic_blocks("search_result")),
    st.booleans(),
    _cache,
    extras(ANTHROPIC),
)
_anthropic_messages = (
    st.builds(Message, st.just("user"), tuples(_anthropic_texts | _anthropic_media, least=1))
    | st.builds(
        Message,
        st.just("assistant"),
        tuples(
            anthropic_thoughts("", "")
            | _anthropic_texts
            | anthropic_calls
            | anthropic_blocks("server_tool_use"),
            least=1,
        ),
        st.none(),
        extras(ANTHROPIC),
    )
    | st.builds(Message, st.just("tool"), tuples(_anthropic_results, least=1))
    | st.builds(Message, st.just("system"), tuples(_anthropic_texts, least=1), st.none(), extras(ANTHROPIC))
)
anthropic_requests = st.builds(
    ModelRequest,
    model=identifiers,
    instructions=tuples(_anthropic_texts, most=2),
    messages=tuples(_anthropic_messages, most=4).filter(no_two_tool_turns),
    tools=tuples(specs, least=1, most=2),
    tool_choice=optional(choices.filter(lambda choice: choice.mode != "none")),
    output=optional(st.builds(JsonOutput, raws)),
    reasoning=optional(
        st.just(ReasoningSetting(enabled=False))
        | st.builds(ReasoningSetting, budget_tokens=counts)
        | st.builds(ReasoningSetting, effort=st.sampled_from(["low", "max"]))
    ),
    tokens_max=counts,
    temperature=optional(numbers),
    top_p=optional(numbers),
    top_k=optional(counts),
    stop=tuples(words),
    user=optional(words),
    stream=st.booleans(),
    extra=extras(ANTHROPIC),
)


@st.composite
def anthropic_usage(draw):
    plain, read, written, written_1h = draw(st.tuples(counts, counts, counts, counts))
    return Usage(
        input_tokens=plain + read + written + written_1h,
        output_tokens=draw(counts),
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=written_1h,
        reasoning_tokens=draw(counts),
    )


_cited = st.builds(
    Text,
    words,
    extra=st.lists(essentials, min_size=1, max_size=2).map(
        lambda cited: {ANTHROPIC: {"citations": raw(cited)}}
    ),
)
anthropic_responses = st.builds(
    ModelResponse,
    id=identifiers,
    model=st.just(MODEL),
    content=tuples(
        st.builds(Text, words)
        | _cited
        | anthropic_thoughts(PROVIDER, MODEL)
        | st.builds(ToolCall, identifiers, identifiers, json_texts)
        | anthropic_blocks("web_search_tool_result")
    ),
    stop_reason=st.sampled_from([
        "end_turn",
        "tokens_max",
        "stop_sequence",
        "tool_use",
        "refusal",
        "pause",
        "context_full",
    ]),
    usage=anthropic_usage(),
    stop_sequence=optional(words),
    extra=extras(ANTHROPIC),
)


# --------------------------------------------------------------------------------------------------- any

any_opaque = optional(st.builds(Opaque, identifiers, identifiers, identifiers, words, identifiers))
any_parts = (
    st.builds(Text, st.text(max_size=9), _cache, extras(ANTHROPIC))
    | st.builds(Refusal, st.text(max_size=9))
    | st.builds(Reasoning, st.text(max_size=9), any_opaque)
    | st.builds(ToolCall, identifiers, identifiers, st.text(max_size=9), any_opaque)
    | _openai_media
    | anthropic_blocks("x")
)
any_responses = st.builds(
    ModelResponse,
    id=identifiers,
    model=identifiers,
    content=tuples(any_parts, most=5),
    stop_reason=st.sampled_from(["end_turn", "tokens_max", "tool_use"]),
    usage=openai_usage,
    stop_sequence=optional(words),
    extra=extras(OPENAI),
)


def pieces(data, draw):
    """`data` cut at random places."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def told_in_pieces(response, draw) -> list[StreamEvent]:
    """The response's stream, its texts and arguments cut at random places."""
    events: list[StreamEvent] = []
    for event in unfold(response):
        if isinstance(event, TextAdded):
            events += [TextAdded(event.index, text) for text in pieces(event.text, draw) if text]
        elif isinstance(event, ArgumentsAdded):
            events += [ArgumentsAdded(event.index, text) for text in pieces(event.json, draw) if text]
        else:
            events.append(event)
    return events
