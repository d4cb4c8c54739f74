"""The vendors' unmodified SDKs read what the wires write for clients, and write what the wires read."""

import json

import anthropic
import httpx2
import openai
import pytest

from freehold.core.errors import ContextTooLong, LimitReached, Overloaded, RateLimited, Unsupported
from freehold.core.messages import (
    Bytes,
    Media,
    ModelResponse,
    Opaque,
    Raw,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
)
from freehold.core.stream import (
    ArgumentsAdded,
    Finished,
    OpaqueSet,
    PartFinished,
    PartStarted,
    Started,
    TextAdded,
    UsageReported,
    unfold,
)
from freehold.wires import named
from tests.wires._values import ANTHROPIC, OPENAI

SEAL = Opaque(ANTHROPIC, "anthropic", "claude", "c2VhbA==")
ANSWER = ModelResponse(
    id="answer-1",
    model="claude",
    content=(
        Reasoning("Hm.", SEAL),
        Reasoning("", Opaque(ANTHROPIC, "anthropic", "claude", "aGlkZGVu", "redacted_thinking")),
        Text("None, 上海."),
        ToolCall("call_1", "stock", '{"sku":"4482"}'),
        ToolCall("call_2", "now", ""),
    ),
    stop_reason="tool_use",
    usage=Usage(
        input_tokens=30, output_tokens=9, cache_read_tokens=10, cache_write_1h_tokens=5, reasoning_tokens=3
    ),
)
BY_TURNS = [
    Started("answer-1", "m"),
    PartStarted(0, ToolCall("a", "f", "")),
    PartStarted(1, ToolCall("b", "g", "")),
    ArgumentsAdded(1, '{"y":'),
    ArgumentsAdded(0, '{"x":1'),
    ArgumentsAdded(1, "2}"),
    ArgumentsAdded(0, "}"),
    PartFinished(1),
    PartFinished(0),
    PartStarted(2, Text("")),
    TextAdded(2, "done"),
    PartFinished(2),
    UsageReported(Usage(3, 4)),
    Finished("tool_use"),
]


class Door:
    """A server on nothing: hears one request, gives one answer."""

    def __init__(self, status=200, headers=None, body=b""):
        self.status, self.headers, self.body = status, headers or {}, body
        self.heard = b""

    def __call__(self, request):
        self.heard = request.read()
        return httpx2.Response(self.status, headers=self.headers, content=self.body)

    def openai(self):
        client = httpx2.Client(transport=httpx2.MockTransport(self))
        return openai.OpenAI(
            api_key="k",
            base_url="http://x/v1",
            http_client=client,
            max_retries=0,
            _strict_response_validation=True,
        )

    def anthropic(self):
        client = httpx2.Client(transport=httpx2.MockTransport(self))
        return anthropic.Anthropic(
            api_key="k",
            base_url="http://x",
            http_client=client,
            max_retries=0,
            _strict_response_validation=True,
        )


def whole(name, answer):
    return Door(
        headers={"content-type": "application/json"},
        body=named(name).encode_response(answer, created=1790000000),
    )


def streamed(name, events, *, usage=True):
    wire = named(name)
    request = wire.decode_request(
        json.dumps(
            {"model": "m", "max_tokens": 1, "messages": [], "stream": True}
            | ({"stream_options": {"include_usage": True}} if usage and name == OPENAI else {})
        ).encode()
    )
    encoder = wire.stream_encoder(request, created=1790000000)
    body = b"".join(map(encoder.encode, events)) + encoder.end()
    return Door(headers={"content-type": "text/event-stream"}, body=body)


MESSAGES = [{"role": "user", "content": "hi"}]


def test_openai_reads_an_answer():
    read = whole(OPENAI, ANSWER).openai().chat.completions.create(model="m", messages=MESSAGES)
    (choice,) = read.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "None, 上海."
    assert choice.message.refusal is None
    assert [call.function.arguments for call in choice.message.tool_calls] == ['{"sku":"4482"}', ""]
    assert read.created == 1790000000
    assert (read.usage.prompt_tokens, read.usage.completion_tokens, read.usage.total_tokens) == (30, 9, 39)
    assert read.usage.prompt_tokens_details.cached_tokens == 10
    assert read.usage.prompt_tokens_details.cache_write_tokens == 5
    assert read.usage.completion_tokens_details.reasoning_tokens == 3


def test_openai_gathers_a_stream():
    client = streamed(OPENAI, unfold(ANSWER)).openai()
    with client.chat.completions.stream(
        model="m", messages=MESSAGES, stream_options={"include_usage": True}
    ) as stream:
        stream.until_done()
        read = stream.get_final_completion()
    (choice,) = read.choices
    assert choice.message.content == "None, 上海."
    assert [(call.id, call.function.name) for call in choice.message.tool_calls] == [
        ("call_1", "stock"),
        ("call_2", "now"),
    ]
    assert choice.finish_reason == "tool_calls"
    assert read.usage.total_tokens == 39


def test_openai_hears_of_usage_only_when_it_asks():
    chunks = list(
        streamed(OPENAI, unfold(ANSWER), usage=False)
        .openai()
        .chat.completions.create(model="m", messages=MESSAGES, stream=True)
    )
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_openai_reads_a_refusal():
    answer = ModelResponse(id="r", model="m", content=(Refusal("I won't."),), stop_reason="refusal")
    read = whole(OPENAI, answer).openai().chat.completions.create(model="m", messages=MESSAGES)
    assert (read.choices[0].message.refusal, read.choices[0].message.content) == ("I won't.", None)


def test_openai_gathers_logprobs_and_citations():
    fields = {
        "choice.logprobs": Raw(
            b'{"content":[{"token":"a","logprob":-1,"bytes":[97],"top_logprobs":[]}],"refusal":null}'
        )
    }
    answer = ModelResponse(
        id="r", model="m", content=(Text("a"),), stop_reason="end_turn", extra={OPENAI: fields}
    )
    read = whole(OPENAI, answer).openai().chat.completions.create(model="m", messages=MESSAGES)
    assert read.choices[0].logprobs.content[0].token == "a"
    events = [*list(unfold(answer))[:-1], Finished("end_turn", extra={OPENAI: fields})]
    *_, last, _usage = list(
        streamed(OPENAI, events).openai().chat.completions.create(model="m", messages=MESSAGES, stream=True)
    )
    assert last.choices[0].logprobs.content[0].token == "a"


def test_a_thinking_signature_survives_a_client_of_openai():
    client = whole(OPENAI, ANSWER).openai()
    said = client.chat.completions.create(model="m", messages=MESSAGES).choices[0].message
    door = whole(OPENAI, ANSWER)
    door.openai().chat.completions.create(model="m", messages=[*MESSAGES, said.model_dump(exclude_none=True)])
    again = named(OPENAI).decode_request(door.heard).messages[-1].content
    assert again[:2] == ANSWER.content[:2]
    provided = json.loads(
        named(ANTHROPIC).encode_request(named(OPENAI).decode_request(door.heard), provider="anthropic")
    )
    assert provided["messages"][-1]["content"][:2] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2VhbA=="},
        {"type": "redacted_thinking", "data": "aGlkZGVu"},
    ]
    elsewhere = json.loads(
        named(OPENAI).encode_request(named(OPENAI).decode_request(door.heard), provider="openai")
    )
    assert not {"reasoning_content", "reasoning", "reasoning_details"} & set(elsewhere["messages"][-1])


def test_a_thinking_signature_survives_a_stream_to_a_client_of_openai():
    client = streamed(OPENAI, unfold(ANSWER)).openai()
    with client.chat.completions.stream(model="m", messages=MESSAGES) as stream:
        stream.until_done()
        said = stream.get_final_completion().choices[0].message
    body = json.dumps(
        {"model": "m", "messages": [said.model_dump(exclude_none=True, exclude={"parsed"})]}, default=str
    )
    again = named(OPENAI).decode_request(body.encode()).messages[-1].content
    assert again[:2] == ANSWER.content[:2]


def test_seals_are_streamed_to_a_client_of_openai_in_one_delta():
    """OpenAI's SDK for Node keeps the last delta of a field that it doesn't know."""
    told = streamed(OPENAI, unfold(ANSWER)).body.split(b"\n\n")
    (sealed,) = [json.loads(chunk[6:]) for chunk in told if b"reasoning_details" in chunk]
    assert [one["index"] for one in sealed["choices"][0]["delta"]["reasoning_details"]] == [0, 1]


def test_anthropic_reads_an_answer():
    read = whole(ANTHROPIC, ANSWER).anthropic().messages.create(model="m", max_tokens=5, messages=MESSAGES)
    assert [block.type for block in read.content] == [
        "thinking",
        "redacted_thinking",
        "text",
        "tool_use",
        "tool_use",
    ]
    assert read.content[0].signature == "c2VhbA=="
    assert [block.input for block in read.content[3:]] == [{"sku": "4482"}, {}]
    assert read.stop_reason == "tool_use"
    assert (read.usage.input_tokens, read.usage.cache_read_input_tokens, read.usage.output_tokens) == (
        15,
        10,
        9,
    )
    assert read.usage.cache_creation.ephemeral_1h_input_tokens == 5
    assert "citations" not in json.loads(named(ANTHROPIC).encode_response(ANSWER))["content"][2]


@pytest.mark.parametrize("events", [list(unfold(ANSWER)), BY_TURNS], ids=["in order", "by turns"])
def test_anthropic_gathers_a_stream(events):
    door = streamed(ANTHROPIC, events)
    with door.anthropic().messages.stream(model="m", max_tokens=5, messages=MESSAGES) as stream:
        read = stream.get_final_message()
    if events is BY_TURNS:
        assert [block.input for block in read.content if block.type == "tool_use"] == [{"x": 1}, {"y": 2}]
        assert read.usage.output_tokens == 4
    else:
        assert [block.type for block in read.content] == [
            "thinking",
            "redacted_thinking",
            "text",
            "tool_use",
            "tool_use",
        ]
        assert (read.content[0].thinking, read.content[0].signature) == ("Hm.", "c2VhbA==")
        assert read.content[3].input == {"sku": "4482"}
        assert (read.usage.input_tokens, read.usage.output_tokens) == (15, 9)
    assert_in_anthropics_order(door.body)


def assert_in_anthropics_order(body: bytes) -> None:
    kinds = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: ")]
    assert kinds[0]["type"] == "message_start"
    assert [kind["type"] for kind in kinds[-2:]] == ["message_delta", "message_stop"]
    open_block, blocks = None, 0
    for kind in kinds[1:-2]:
        if kind["type"] == "content_block_start":
            assert open_block is None
            assert kind["index"] == blocks
            open_block, blocks = blocks, blocks + 1
        elif kind["type"] == "content_block_stop":
            assert kind["index"] == open_block
            open_block = None
        else:
            assert kind["index"] == open_block
    assert open_block is None


def test_a_foreign_seal_survives_a_client_of_anthropic():
    seal = Opaque(OPENAI, "openrouter", "m", '[{"type":"reasoning.text"}]', "reasoning_details")
    call_seal = Opaque(OPENAI, "google", "g", '{"google":{}}', "extra_content")
    answer = ModelResponse(
        id="r",
        model="m",
        content=(Reasoning("Hm.", seal), ToolCall("a", "f", "{}", call_seal)),
        stop_reason="tool_use",
    )
    said = whole(ANTHROPIC, answer).anthropic().messages.create(model="m", max_tokens=5, messages=MESSAGES)
    door = whole(ANTHROPIC, answer)
    turn = {"role": "assistant", "content": [block.model_dump() for block in said.content]}
    door.anthropic().messages.create(model="m", max_tokens=5, messages=[*MESSAGES, turn])
    request = named(ANTHROPIC).decode_request(door.heard)
    assert request.messages[-1].content == answer.content
    home = json.loads(named(OPENAI).encode_request(request, provider="openrouter"))["messages"][-1]
    assert home["reasoning_details"] == [{"type": "reasoning.text"}]


CALL_SEAL = Opaque(OPENAI, "google", "g", '{"google":{}}', "extra_content")
SEALED_CALL = ModelResponse(
    id="r", model="m", content=(ToolCall("a", "f", "{}", CALL_SEAL),), stop_reason="tool_use"
)
LATE_SEAL = [
    Started("r", "m"),
    PartStarted(0, ToolCall("a", "f", "")),
    ArgumentsAdded(0, "{}"),
    OpaqueSet(0, CALL_SEAL),
    PartFinished(0),
    Finished("tool_use"),
]


@pytest.mark.parametrize("events", [list(unfold(SEALED_CALL)), LATE_SEAL], ids=["first", "late"])
def test_a_calls_seal_survives_a_stream_to_a_client_of_openai(events):
    with streamed(OPENAI, events).openai().chat.completions.stream(model="m", messages=MESSAGES) as stream:
        stream.until_done()
        said = stream.get_final_completion().choices[0].message
    calls = [
        call.model_dump(exclude_none=True, exclude={"index": True, "function": {"parsed_arguments"}})
        for call in said.tool_calls
    ]
    body = {"model": "m", "messages": [{"role": "assistant", "content": "", "tool_calls": calls}]}
    assert named(OPENAI).decode_request(json.dumps(body).encode()).messages[0].content == SEALED_CALL.content


def test_a_calls_seal_survives_a_stream_to_a_client_of_anthropic():
    door = streamed(ANTHROPIC, unfold(SEALED_CALL))
    with door.anthropic().messages.stream(model="m", max_tokens=5, messages=MESSAGES) as stream:
        said = stream.get_final_message()
    body = {
        "model": "m",
        "max_tokens": 5,
        "messages": [{"role": "assistant", "content": [block.model_dump() for block in said.content]}],
    }
    assert (
        named(ANTHROPIC).decode_request(json.dumps(body).encode()).messages[0].content == SEALED_CALL.content
    )


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (RateLimited("slowly", retry_after_s=1.2), openai.RateLimitError, "rate_limit_exceeded"),
        (ContextTooLong("too long", field="messages"), openai.BadRequestError, "context_length_exceeded"),
        (LimitReached("no money"), openai.RateLimitError, "insufficient_quota"),
        (Overloaded("busy"), openai.InternalServerError, "overloaded"),
        (Unsupported("no", field="n"), openai.BadRequestError, "unsupported"),
    ],
)
def test_openai_raises_what_it_would_raise_at_home(error, kind, code):
    told = named(OPENAI).encode_error(error, "req_1")
    with pytest.raises(kind) as raised:
        Door(told.status, told.headers, told.body).openai().chat.completions.create(
            model="m", messages=MESSAGES
        )
    assert (raised.value.code, raised.value.param, raised.value.request_id) == (code, error.field, "req_1")
    if error.retry_after_s:
        assert raised.value.response.headers["retry-after"] == "2"
    assert (
        raised.value.response.headers.get("x-should-retry") == (None if error.retryable else "false")
        or error.retry_after_s
    )


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (RateLimited("slowly", retry_after_s=3), anthropic.RateLimitError, "rate_limit_error"),
        (Overloaded("busy"), anthropic.InternalServerError, "overloaded_error"),
        (ContextTooLong("by 5 tokens"), anthropic.BadRequestError, "invalid_request_error"),
    ],
)
def test_anthropic_raises_what_it_would_raise_at_home(error, kind, said):
    told = named(ANTHROPIC).encode_error(error, "req_1")
    with pytest.raises(kind) as raised:
        Door(told.status, told.headers, told.body).anthropic().messages.create(
            model="m", max_tokens=5, messages=MESSAGES
        )
    assert raised.value.body["error"]["type"] == said
    assert raised.value.body["request_id"] == "req_1"


def test_openai_raises_an_error_in_the_middle_of_a_stream():
    encoder = named(OPENAI).stream_encoder(named(OPENAI).decode_request(b'{"model":"m","messages":[]}'))
    body = encoder.encode(Started("a", "m")) + encoder.error(Overloaded("busy"), "req_1")
    stream = (
        Door(headers={"content-type": "text/event-stream"}, body=body)
        .openai()
        .chat.completions.create(model="m", messages=MESSAGES, stream=True)
    )
    with pytest.raises(openai.APIError, match="busy"):
        list(stream)


def test_anthropic_raises_an_error_in_the_middle_of_a_stream():
    encoder = named(ANTHROPIC).stream_encoder(named(OPENAI).decode_request(b'{"model":"m","messages":[]}'))
    body = (
        encoder.encode(Started("a", "m"))
        + encoder.encode(UsageReported(Usage()))
        + encoder.error(Overloaded("busy"), "req_1")
    )
    stream = (
        Door(headers={"content-type": "text/event-stream"}, body=body)
        .anthropic()
        .messages.create(model="m", max_tokens=5, messages=MESSAGES, stream=True)
    )
    with pytest.raises(anthropic.APIStatusError, match="busy"):
        list(stream)


def test_what_a_dialect_has_no_word_for_is_refused_aloud():
    answer = ModelResponse(
        id="r", model="m", content=(Media("image", "image/png", Bytes(b"x")),), stop_reason="end_turn"
    )
    for name in (OPENAI, ANTHROPIC):
        with pytest.raises(Unsupported):
            named(name).encode_response(answer)
