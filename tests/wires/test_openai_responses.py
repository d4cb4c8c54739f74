"""OpenAI's Responses: what documented bodies mean, what a wrong body is told, what rides along and what is refused."""

import json
from pathlib import Path

import pytest

from freehold.core.errors import (
    BadRequest,
    BrokenOff,
    ContextTooLong,
    RateLimited,
    Unavailable,
    Unsupported,
)
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
    Text,
    ToolCall,
    ToolChoice,
    ToolResult,
    Usage,
    VendorFile,
)
from freehold.core.stream import Finished, PartFinished, PartStarted, Started, TextAdded, fold, unfold
from freehold.wires import named
from tests.wires._values import ANTHROPIC, OPENAI

NAME = "openai_responses"
WIRE = named(NAME)
GOLDEN = Path(__file__).parent.parent / "golden" / NAME
HELLO = Bytes(b"hello")


def body(**fields):
    return json.dumps({"model": "m", "input": "hi", **fields}).encode()


def encoded(request, provider="openai"):
    return json.loads(WIRE.encode_request(request, provider=provider))


# ----------------------------------------------------------------------------------------------- golden


def test_a_documented_request():
    request = WIRE.decode_request((GOLDEN / "request.json").read_bytes())
    developer = {NAME: {"message.role": Raw(b'"developer"')}}
    assert request.instructions == (Text("You keep the stock."), Text("Answer in one line.", None, developer))
    asked, said, results, searched, pointed, more = request.messages
    assert asked == Message(
        "user",
        (
            Text("Is SKU-4482 in Shanghai?"),
            Media("image", "image/png", HELLO),
            Media("document", "application/pdf", HELLO, "manifest.pdf"),
            Media("document", "", VendorFile(OPENAI, "file-7")),
        ),
    )
    thought, text, first, second = said.content
    assert isinstance(thought, Reasoning)
    assert thought.text == "Look it up."
    assert thought.opaque is not None
    assert (thought.opaque.wire, thought.opaque.provider) == (NAME, "")
    assert json.loads(thought.opaque.data)["encrypted_content"] == "c2VhbA=="
    assert text == Text(
        "I'll look.", None, {NAME: {"message.id": Raw(b'"msg_1"'), "message.phase": Raw(b'"commentary"')}}
    )
    assert (first.id, first.name, first.arguments) == ("call_a", "stock", '{"sku":"4482"}')
    assert second.id == "call_b"
    assert results == Message(
        "tool", (ToolResult("call_a", (Text("0"),)), ToolResult("call_b", (Text("noon"),)))
    )
    assert [part.type for part in searched.content] == ["web_search_call"]
    assert (pointed.role, [part.type for part in pointed.content]) == ("user", ["item_reference"])
    assert more == Message("user", (Text("And Rotterdam?"),))
    assert request.tools[0].strict
    assert isinstance(request.tools[1], CarriedTool)
    assert request.tool_choice == ToolChoice("named", "stock", parallel=False)
    assert isinstance(request.output, JsonOutput)
    assert (request.output.name, request.output.strict) == ("count", True)
    assert request.reasoning == ReasoningSetting(effort="low")
    assert (request.tokens_max, request.stream) == (300, True)
    assert sorted(request.extra[NAME]) == ["metadata", "reasoning.summary"]


def test_a_documented_request_comes_out_as_it_came_in():
    request = WIRE.decode_request((GOLDEN / "request.json").read_bytes())
    assert WIRE.decode_request(WIRE.encode_request(request, provider="openai")) == request


def test_a_documented_stream():
    data = (GOLDEN / "stream.sse").read_bytes()
    answers = []
    for size in (len(data), 7, 1):
        decoder = WIRE.stream_decoder(provider="openai")
        events = [event for at in range(0, len(data), size) for event in decoder.feed(data[at : at + size])]
        answers.append(fold([*events, *decoder.end()]))
    assert answers[0] == answers[1] == answers[2]
    thought, searched, text, call = answers[0].content
    assert thought.text == "Look it up.\n\nThen tell."
    assert json.loads(thought.opaque.data)["encrypted_content"] == "c2VhbA=="
    assert (thought.opaque.provider, thought.opaque.model) == ("openai", "gpt-6.1-terra")
    assert searched.type == "web_search_call"
    assert text.text == "None in 上海."
    assert sorted(text.extra[NAME]) == ["annotations", "message.id", "message.phase"]
    assert (call.id, call.name, call.arguments) == ("call_a", "stock", '{"sku":"4482"}')
    assert answers[0].stop_reason == "tool_use"
    assert answers[0].usage == Usage(
        input_tokens=80, output_tokens=30, cache_read_tokens=64, reasoning_tokens=12
    )
    assert answers[0].extra == {NAME: {"created_at": Raw(b"1790000000"), "service_tier": Raw(b'"default"')}}


# --------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        (b"", None, "an empty body"),
        (b"[]", None, "expected 'object', got 'array'"),
        (b'{"input":"hi"}', "model", "required, but missing"),
        (b'{"model":"m"}', "input", "required, but missing"),
        (body(input=5), "input", "expected 'str | array', got 'int'"),
        (body(input=["hi"]), "input[0]", "expected 'object', got 'str'"),
        (
            body(input=[{"role": "wizard", "content": "x"}]),
            "input[0].role",
            "expected one of user, assistant",
        ),
        (body(input=[{"role": "user"}]), "input[0].content", "required"),
        (
            body(input=[{"role": "user", "content": [{"type": "input_text"}]}]),
            "input[0].content[0].text",
            "required",
        ),
        (
            body(input=[{"role": "user", "content": [{"type": "input_image"}]}]),
            "input[0].content[0]",
            "expected image_url or file_id",
        ),
        (
            body(
                input=[{"role": "user", "content": [{"type": "input_file", "file_data": "data:a;base64,a"}]}]
            ),
            "input[0].content[0].file_data",
            "expected base64",
        ),
        (
            body(input=[{"role": "system", "content": [{"type": "input_image", "file_id": "f"}]}]),
            "input[0].content[0].type",
            "expected input_text",
        ),
        (
            body(input=[{"type": "function_call", "call_id": "a", "name": "f"}]),
            "input[0].arguments",
            "required",
        ),
        (body(input=[{"type": "function_call_output", "output": "x"}]), "input[0].call_id", "required"),
        (body(tools=[{"type": "function"}]), "tools[0].name", "required"),
        (body(tools=[{"name": "f"}]), "tools[0].type", "required"),
        (body(tool_choice="maybe"), "tool_choice", "expected one of auto, none, required"),
        (body(text={"format": {"type": "json_schema"}}), "text.format.schema", "required"),
        (body(reasoning={"effort": 5}), "reasoning.effort", "expected 'str | null', got 'int'"),
        (body(temperature="hot"), "temperature", "expected 'float | null', got 'str'"),
    ],
)
def test_wrong_input_is_named_with_its_path(given, field, said):
    with pytest.raises(BadRequest) as raised:
        WIRE.decode_request(given)
    assert raised.value.field == field
    assert said in raised.value.message


# -------------------------------------------------------------------------------------- what rides along


@pytest.mark.parametrize(
    "item",
    [
        {"type": "compaction", "encrypted_content": "x"},
        {"type": "something_new", "x": [1]},
        {"role": "user", "content": [{"type": "input_video", "x": 1}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "async": True},
    ],
)
def test_what_only_this_wire_knows_returns_to_it_and_is_refused_elsewhere(item):
    request = WIRE.decode_request(body(input=[item]))
    (told,) = encoded(request)["input"]
    assert {**item, "type": told["type"]} == told
    for other in (OPENAI, ANTHROPIC):
        with pytest.raises(Unsupported) as raised:
            named(other).encode_request(request, provider="p")
        assert raised.value.field.startswith("messages[0].content[0]")


@pytest.mark.parametrize("tool", [{"type": "web_search"}, {"type": "namespace", "name": "n", "tools": []}])
def test_a_vendors_own_tool_that_is_merely_offered_is_refused_elsewhere(tool):
    """Without it the model would answer otherwise: whoever offers it is told so."""
    request = WIRE.decode_request(body(tools=[tool]))
    assert encoded(request)["tools"] == [tool]
    for other in (OPENAI, ANTHROPIC):
        with pytest.raises(Unsupported, match=r"own tool") as raised:
            named(other).encode_request(request, provider="p")
        assert raised.value.field == "tools[0]"


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"metadata": {"a": "b"}, "store": True, "service_tier": "flex", "truncation": "auto"}, None),
        ({"include": ["reasoning.encrypted_content"], "store": False, "background": False}, None),
        ({"reasoning": {"effort": "low", "summary": "auto"}, "text": {"verbosity": "medium"}}, None),
        (
            {
                "client_metadata": {"a": "b"},
                "prompt_cache_key": "k",
                "stream_options": {"include_obfuscation": False},
            },
            None,
        ),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "tool_choice"),
        ({"something_new": 1}, "something_new"),
    ],
)
def test_a_field_is_left_out_only_where_nothing_hangs_on_it(fields, refused):
    request = WIRE.decode_request(body(**fields))
    for other in (OPENAI, ANTHROPIC):
        if refused is None:
            named(other).encode_request(request, provider="p")
            continue
        with pytest.raises(Unsupported) as raised:
            named(other).encode_request(request, provider="p")
        assert raised.value.field == refused
    if refused is not None:
        assert {name: encoded(request)[name] for name in fields} == fields


# ----------------------------------------------------------------------------------- for a provider of it


def asked(*messages, **more):
    return ModelRequest(model="m", messages=messages, **more)


def test_nothing_is_left_with_the_vendor_and_reasoning_is_asked_for_sealed():
    told = encoded(asked(Message("user", (Text("hi"),))))
    assert (told["store"], told["include"]) == (False, ["reasoning.encrypted_content"])
    assert told["input"] == [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
    ]


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"top_k": 3}, "top_k"),
        ({"stop": ("x",)}, "stop"),
        ({"extra": {OPENAI: {"logit_bias": Raw(b'{"1":2}')}}}, "logit_bias"),
        ({"reasoning": ReasoningSetting(effort="vast")}, "reasoning.effort"),
    ],
)
def test_what_it_cannot_say_is_refused(more, field):
    with pytest.raises(Unsupported) as raised:
        encoded(asked(Message("user", (Text("hi"),)), **more))
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (Media("audio", "audio/wav", HELLO), "audio"),
        (Media("document", "", VendorFile(ANTHROPIC, "f")), "uploaded to anthropic_messages"),
        (Carried(ANTHROPIC, "search_result", Raw(b"{}")), "search_result"),
    ],
)
def test_a_part_it_cannot_say_is_refused_with_its_path(part, said):
    with pytest.raises(Unsupported, match=said) as raised:
        encoded(asked(Message("user", (Text("hi"), part))))
    assert raised.value.field == "messages[0].content[1]"


def test_a_conversation_of_another_wire():
    thought = Reasoning("Hm.", Opaque(ANTHROPIC, "anthropic", "claude", "seal"))
    told = encoded(
        asked(
            Message("user", (Text("look"), Media("image", "", Address("https://x/a.png"))), "Ada"),
            Message("assistant", (thought, Text("ok"), ToolCall("c", "f", ""))),
            Message(
                "tool", (ToolResult("c", (Text("gone"), Media("image", "image/png", HELLO)), failed=True),)
            ),
            Message("system", (Text("be brief"),)),
            instructions=(Text("one"), Text("two")),
            reasoning=ReasoningSetting(budget_tokens=4000),
            output=JsonOutput(),
        )
    )
    assert told["instructions"] == "one"
    second, user, said, call, result, late = told["input"]
    assert second["role"] == late["role"] == "system"
    assert [part["type"] for part in user["content"]] == ["input_text", "input_text", "input_image"]
    assert said["content"] == "ok"
    assert call == {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
    assert [part["type"] for part in result["output"]] == ["input_text", "input_text", "input_image"]
    assert result["output"][0]["text"] == "Error: "
    assert told["reasoning"] == {"effort": "medium"}
    assert told["text"] == {"format": {"type": "json_object"}}


def test_reasoning_returns_only_to_its_provider_and_only_with_its_seal():
    def reasoning(provider, **fields):
        item = json.dumps({"type": "reasoning", "id": "rs", "summary": [], **fields})
        return Reasoning("", Opaque(NAME, provider, "m", item, "item"))

    message = Message(
        "assistant",
        (
            reasoning("openai", encrypted_content="a"),
            reasoning("azure", encrypted_content="b"),
            reasoning("openai"),
            reasoning("", content=[{"type": "reasoning_text", "text": "plain"}]),
        ),
    )
    told = encoded(asked(message))["input"]
    assert [item.get("encrypted_content") for item in told] == ["a", None]


# ------------------------------------------------------------------------------------ from a provider of it


def answer(**fields):
    return json.dumps({"id": "resp_1", "model": "m", "output": [], "status": "completed", **fields}).encode()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "end_turn"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "tokens_max"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "refusal"),
        ({"output": [{"type": "custom_tool_call", "call_id": "c", "name": "f", "input": ""}]}, "tool_use"),
        ({"output": [{"type": "web_search_call", "id": "w"}]}, "end_turn"),
        (
            {
                "output": [
                    {
                        "type": "message",
                        "role": "assistant",
                        "content": [{"type": "refusal", "refusal": "no"}],
                    }
                ]
            },
            "refusal",
        ),
    ],
)
def test_why_it_stopped(fields, reason):
    assert WIRE.decode_response(answer(**fields), provider="p").stop_reason == reason


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "slowly"}}, RateLimited),
        ({"status": "failed", "error": {"code": "server_error", "message": "oh"}}, Unavailable),
        ({"status": "queued"}, Unavailable),
        ({"output": None}, Unavailable),
        ({"output": [5]}, Unavailable),
    ],
)
def test_an_answer_that_is_none(fields, error):
    with pytest.raises(error):
        WIRE.decode_response(answer(**fields), provider="p")


def sse(*events):
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


CREATED = {"type": "response.created", "response": {"id": "r", "model": "m", "output": []}}
COMPLETED = {"type": "response.completed", "response": {"id": "r", "model": "m", "status": "completed"}}


def decoded(*events):
    decoder = WIRE.stream_decoder(provider="p")
    return fold([*decoder.feed(sse(*events)), *decoder.end()])


def test_a_stream_without_names_deltas_or_pieces_added():
    """Some who follow OpenAI tell items only when they are done."""
    content = [{"type": "output_text", "text": "hi", "annotations": []}]
    read = decoded(
        CREATED,
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": {"type": "message", "role": "assistant", "content": content},
        },
        {
            "type": "response.output_item.done",
            "output_index": 1,
            "item": {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        },
        COMPLETED,
    )
    assert read.content == (Text("hi"), ToolCall("c", "f", "{}"))


@pytest.mark.parametrize("whole", [False, True], ids=["streamed", "unfolded"])
def test_what_only_a_vendor_says_of_usage_is_told_again(whole):
    usage = {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 1, "text_tokens": 8},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 13,
        "num_server_side_tools_used": 0,
    }
    read = WIRE.decode_response(answer(usage=usage), provider="p")
    events = [*unfold(read)]
    if not whole:  # As a provider streams: what it says of the whole, it says at the end.
        events[0] = Started(read.id, read.model)
        events[-1] = Finished(read.stop_reason, None, read.extra)
    encoder = WIRE.stream_encoder(WIRE.decode_request(body(stream=True)))
    last = b"".join(map(encoder.encode, events)).splitlines()[-2]
    streamed = json.loads(last.removeprefix(b"data: "))["response"]
    for told in (json.loads(WIRE.encode_response(read)), streamed):
        told["usage"]["input_tokens_details"].pop("cache_write_tokens")
        assert told["usage"] == usage
        assert not [name for name in told if name.startswith("usage.")]


def test_raw_thoughts_are_thoughts():
    read = decoded(
        CREATED,
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning", "id": "rs"}},
        {"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": "H"},
        {"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": "m"},
        COMPLETED,
    )
    assert read.content[0].text == "Hm"


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"type": "error", "code": "rate_limit_exceeded", "message": "slowly", "param": None}, RateLimited),
        ({"type": "error", "error": {"code": "context_length_exceeded", "message": "long"}}, ContextTooLong),
        (
            {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "oh"}}},
            Unavailable,
        ),
        ({"type": "response.failed", "response": {}}, Unavailable),
        ({"type": "response.output_text.delta", "delta": 5}, BrokenOff),
        ({"type": "response.output_item.added", "item": None}, BrokenOff),
    ],
)
def test_an_error_in_the_middle_of_a_stream(event, error):
    with pytest.raises(error):
        decoded(CREATED, event, COMPLETED)


def test_a_stream_that_was_cut_is_broken_off():
    decoder = WIRE.stream_decoder(provider="p")
    decoder.feed(sse(CREATED))
    with pytest.raises(BrokenOff):
        decoder.end()


@pytest.mark.parametrize(
    ("kind", "finished"),
    [("response.completed", True), ("response.incomplete", True), ("response.failed", False)],
)
def test_in_passing_a_failed_answer_is_none_but_its_usage_counts(kind, finished):
    tap = WIRE.usage_tap()
    tap.feed(sse(CREATED, {"type": kind, "response": {"usage": {"input_tokens": 3, "output_tokens": 2}}}))
    assert (tap.finished, tap.usage) == (finished, Usage(input_tokens=3, output_tokens=2))


# -------------------------------------------------------------------------------------------- for a client


def kinds(events):
    encoder = WIRE.stream_encoder(ModelRequest(model="m", messages=()))
    lines = b"".join(map(encoder.encode, events)).splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]


def test_the_vendors_own_order():
    told = kinds(
        unfold(
            ModelResponse(
                id="a",
                model="m",
                content=(Reasoning("Hm."), Text("hi"), ToolCall("c", "f", "{}")),
                stop_reason="tool_use",
            )
        )
    )
    assert [event["type"].removeprefix("response.") for event in told] == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]


def test_parts_that_come_by_turns_are_told_one_after_the_other():
    told = kinds([
        Started("a", "m"),
        PartStarted(0, Text("")),
        PartStarted(1, Text("")),
        TextAdded(1, "two"),
        TextAdded(0, "one"),
        PartFinished(1),
        Finished("end_turn"),
    ])
    texts = [event["text"] for event in told if event["type"] == "response.output_text.done"]
    assert texts == ["one", "two"]
    assert [item["content"][0]["text"] for item in told[-1]["response"]["output"]] == texts


def test_a_stream_repeats_its_request():
    request = WIRE.decode_request(
        body(
            instructions="be brief",
            metadata={"a": "b"},
            temperature=0.2,
            tools=[
                {"type": "function", "name": "f", "parameters": None, "strict": None},
                {"type": "web_search"},
            ],
            tool_choice={"type": "function", "name": "f"},
            parallel_tool_calls=False,
            reasoning={"effort": "low", "summary": "auto"},
        )
    )
    encoder = WIRE.stream_encoder(request, created=7)
    first = json.loads(encoder.encode(Started("a", "m")).splitlines()[1][6:])["response"]
    assert (first["instructions"], first["metadata"], first["temperature"]) == ("be brief", {"a": "b"}, 0.2)
    assert [tool["type"] for tool in first["tools"]] == ["function", "web_search"]
    assert first["tool_choice"] == {"type": "function", "name": "f"}
    assert (first["parallel_tool_calls"], first["created_at"], first["store"]) == (False, 7, False)
    assert first["reasoning"] == {"effort": "low", "summary": "auto"}


def test_an_answer_that_was_cut_says_why():
    cut = ModelResponse(id="a", model="m", content=(Text("on"),), stop_reason="tokens_max")
    whole = json.loads(WIRE.encode_response(cut))
    assert (whole["status"], whole["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert whole["output"][0]["status"] == "incomplete"
    assert kinds(unfold(cut))[-1]["type"] == "response.incomplete"
