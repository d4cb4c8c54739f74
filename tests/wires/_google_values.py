"""Values of the heart that Google's wire can say, for properties."""

import itertools

from hypothesis import strategies as st

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
    Reasoning,
    ReasoningSetting,
    Text,
    ToolCall,
    ToolChoice,
    ToolResult,
    ToolSpec,
    Usage,
    VendorFile,
    raw,
)
from tests.wires import _values as values
from tests.wires._values import (
    MODEL,
    PROVIDER,
    counts,
    identifiers,
    json_objects,
    json_texts,
    optional,
    tuples,
    words,
)

GOOGLE = "google_generate"

extras = st.dictionaries(
    st.from_regex(r"x[A-Z][a-z]{1,8}", fullmatch=True), values.essentials, max_size=2
).map(lambda fields: {GOOGLE: fields} if fields else {})
signatures = st.text("abcdefghijkXYZ0123456789+/", min_size=1, max_size=20)
texts = st.builds(Text, words, extra=extras)
bytes_ = st.builds(Bytes, st.binary(max_size=20))
media = (
    st.builds(Media, st.just("image"), st.just("image/png"), bytes_, optional(identifiers))
    | st.builds(Media, st.just("audio"), st.just("audio/wav"), bytes_)
    | st.builds(Media, st.just("document"), st.just("application/pdf"), bytes_, extra=extras)
    | st.builds(Media, st.just("image"), st.just("image/png"), st.just(Address("https://example.com/a.png")))
    | st.builds(
        Media, st.just("video"), st.just("video/mp4"), st.just(VendorFile(GOOGLE, "gs://bucket/a.mp4"))
    )
)


def thoughts(provider, model):
    def seals(data, kind):
        return st.builds(Opaque, st.just(GOOGLE), st.just(provider), st.just(model), data, st.just(kind))

    return st.builds(Reasoning, words, seals(signatures, "thought_signature")) | st.builds(
        Reasoning, st.just(""), seals(signatures, "signature")
    )


def calls(provider, model):
    seals = st.builds(Opaque, st.just(GOOGLE), st.just(provider), st.just(model), signatures)
    return st.builds(ToolCall, identifiers, identifiers, json_texts, optional(seals))


blocks = json_objects.map(lambda value: Carried(GOOGLE, "executableCode", raw({"executableCode": value})))
results = st.builds(
    ToolResult,
    identifiers,
    st.tuples(
        tuples(st.builds(Text, words), most=1), tuples(media.filter(lambda one: not one.extra), most=2)
    ).map(lambda groups: groups[0] + groups[1]),
    st.booleans(),
)


@st.composite
def conversations(draw):
    """Results answer calls that were made: their names are said here."""
    messages = []
    for _ in range(draw(st.integers(0, 3))):
        messages.append(Message("user", draw(tuples(texts | media, least=1)), None, draw(extras)))
        asked = draw(tuples(calls("", ""), most=3))
        said = draw(tuples(thoughts("", "") | texts | blocks | media, least=1))
        messages.append(Message("assistant", (*said, *asked), None, draw(extras)))
        unique = {call.id: call for call in asked}
        if len(unique) == len(asked) and asked:
            answers = [draw(results) for _ in asked]
            told = [
                ToolResult(call.id, one.content, one.failed) for call, one in zip(asked, answers, strict=True)
            ]
            messages.append(Message("tool", tuple(told)))
    return tuple(messages)


specs = st.builds(
    ToolSpec, name=identifiers, description=st.text(max_size=10), parameters=values.essentials, extra=extras
)
searches = st.just(CarriedTool(GOOGLE, "googleSearch", raw({"googleSearch": {}})))
choices = st.builds(ToolChoice, mode=st.sampled_from(["auto", "none", "required"])) | st.builds(
    ToolChoice, mode=st.just("named"), name=identifiers
)
requests = st.builds(
    ModelRequest,
    model=st.just(""),
    instructions=tuples(texts, most=2),
    messages=conversations(),
    tools=tuples(specs | searches, most=3),
    tool_choice=optional(choices),
    output=optional(st.just(JsonOutput()) | st.builds(JsonOutput, values.raws)),
    reasoning=optional(
        st.just(ReasoningSetting())
        | st.just(ReasoningSetting(enabled=False))
        | st.builds(ReasoningSetting, budget_tokens=st.integers(1, 10**6))
        | st.builds(ReasoningSetting, effort=st.sampled_from(["minimal", "low", "high", "xhigh"]))
    ),
    tokens_max=optional(counts),
    temperature=optional(values.numbers),
    top_p=optional(values.numbers),
    top_k=optional(counts),
    stop=tuples(words),
    seed=optional(st.integers(-(2**31), 2**31 - 1)),
    extra=extras,
)


@st.composite
def usages(draw):
    given, cached, said, thought = draw(st.tuples(counts, counts, counts, counts))
    return Usage(
        input_tokens=given + cached,
        output_tokens=said + thought,
        cache_read_tokens=cached,
        reasoning_tokens=thought,
        input_audio_tokens=draw(st.integers(0, given)),
        output_audio_tokens=draw(st.integers(0, said)),
    )


def no_two_texts(parts):
    """In a stream, texts side by side are one."""
    return not any(isinstance(one, Text) and isinstance(two, Text) for one, two in itertools.pairwise(parts))


@st.composite
def responses(draw):
    plain = st.builds(Text, words)
    content = draw(
        tuples(plain | thoughts(PROVIDER, MODEL) | calls(PROVIDER, MODEL) | blocks | media, most=4)
    )
    content = content if no_two_texts(content) else content[:1]
    called = any(isinstance(part, ToolCall) for part in content)
    reason = draw(st.sampled_from(["tool_use" if called else "end_turn", "tokens_max", "refusal", "pause"]))
    return ModelResponse(
        id=draw(identifiers),
        model=MODEL,
        content=content,
        stop_reason=reason,
        usage=draw(usages()),
        extra=draw(extras),
    )
