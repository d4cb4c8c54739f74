"""Anthropic Messages: what a wrong body is told, what rides along, and its errors."""

import json

import pytest

from freehold.core.errors import (
    BadRequest,
    BrokenOff,
    ContentRefused,
    ContextTooLong,
    Forbidden,
    Overloaded,
    RateLimited,
    TooLarge,
    Unavailable,
)
from freehold.core.messages import (
    Carried,
    Message,
    ModelRequest,
    Raw,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from freehold.wires import named

WIRE = named("anthropic_messages")
USER = {"role": "user", "content": "hi"}


def body(**fields):
    return json.dumps({"model": "m", "max_tokens": 5, "messages": [USER], **fields}).encode()


def turn(*blocks, role="user"):
    return body(messages=[{"role": role, "content": list(blocks)}])


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        (b"{", None, "expected JSON"),
        (json.dumps({"model": "m", "messages": []}).encode(), "max_tokens", "required, but missing"),
        (body(max_tokens="5"), "max_tokens", "expected 'int', got 'str'"),
        (body(messages=[{"role": "wizard", "content": "x"}]), "messages[0].role", "wizard"),
        (turn({"text": "x"}), "messages[0].content[0].type", "required"),
        (turn({"type": "image", "source": {"type": "foo"}}), "messages[0].content[0].source.type", "foo"),
        (
            turn({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "a"}}),
            "messages[0].content[0].source.data",
            "expected base64",
        ),
        (
            turn({"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text"}]}),
            "messages[0].content[0].content[0].text",
            "required",
        ),
        (
            turn({"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "2h"}}),
            "messages[0].content[0].cache_control.ttl",
            "2h",
        ),
        (body(tool_choice={"type": "tool"}), "tool_choice.name", "required"),
        (body(system=[{"type": "image"}]), "system[0].type", "image"),
        (
            body(output_config={"format": {"type": "grammar"}}),
            "output_config.format.type",
            "expected json_schema",
        ),
        (body(thinking={"budget_tokens": 5}), "thinking.type", "required"),
    ],
)
def test_a_wrong_body_is_told_where_and_what(given, field, said):
    with pytest.raises(BadRequest) as raised:
        WIRE.decode_request(given)
    assert raised.value.field == field
    assert said in raised.value.message


def test_fields_blocks_and_tools_of_its_own_ride_along():
    request = {
        "model": "m",
        "max_tokens": 5,
        "system": [{"type": "text", "text": "s", "x_system": 1}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a", "x_text": 1},
                    {"type": "search_result", "source": "x", "title": "y", "content": []},
                    {"type": "document", "source": {"type": "content", "content": "c"}},
                    {
                        "type": "document",
                        "source": {"type": "url", "url": "https://example.com/a.pdf"},
                        "context": "c",
                    },
                    {"type": "container_upload", "file_id": "f"},
                ],
                "x_message": 2,
            },
            {
                "role": "assistant",
                "content": [
                    {
                        "type": "tool_use",
                        "id": "t",
                        "name": "f",
                        "input": {},
                        "caller": {"type": "code_execution_20260521", "tool_id": "c"},
                    },
                    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t",
                        "content": [{"type": "tool_reference", "tool_name": "g"}],
                        "x_result": 3,
                    }
                ],
            },
        ],
        "tools": [
            {"name": "f", "input_schema": {}, "allowed_callers": ["code_execution_20260521"], "x_tool": 1},
            {"type": "computer_20251124", "name": "computer", "display_width_px": 1},
        ],
        "thinking": {"type": "between_tools"},
        "output_config": {"task_budget": {"type": "tokens", "total": 9}},
        "mcp_servers": [{"type": "url", "url": "https://example.com", "name": "m"}],
        "metadata": {"user_id": "u", "other": 1},
        "x_request": True,
    }
    decoded = WIRE.decode_request(json.dumps(request).encode())
    assert json.loads(WIRE.encode_request(decoded, provider="p")) == request
    assert decoded.user == "u"
    assert decoded.reasoning is not None
    assert not decoded.reasoning.enabled


def test_effort_without_thinking_does_not_switch_thinking_on():
    sent = json.loads(
        WIRE.encode_request(WIRE.decode_request(body(output_config={"effort": "high"})), provider="p")
    )
    assert sent["output_config"] == {"effort": "high"}
    assert "thinking" not in sent


def test_the_older_place_of_the_output_format_is_read():
    schema = {"type": "object"}
    sent = json.loads(
        WIRE.encode_request(
            WIRE.decode_request(body(output_format={"type": "json_schema", "schema": schema})), provider="p"
        )
    )
    assert sent["output_config"]["format"]["schema"] == schema


def test_results_and_words_in_one_turn_part_and_join_again():
    result = {"type": "tool_result", "tool_use_id": "a", "content": "1"}
    said = {"type": "text", "text": "and?"}
    decoded = WIRE.decode_request(turn(result, {**result, "tool_use_id": "b"}, said))
    assert decoded.messages == (
        Message("tool", (ToolResult("a", (Text("1"),)), ToolResult("b", (Text("1"),)))),
        Message("user", (Text("and?"),)),
    )
    assert len(json.loads(WIRE.encode_request(decoded, provider="p"))["messages"]) == 1
    parted = WIRE.decode_request(
        body(messages=[{"role": "user", "content": [result]}, {"role": "user", "content": [result]}])
    )
    assert [message.role for message in parted.messages] == ["tool"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", {}),
        ("  ", {}),
        ("null", {}),
        ('{"b":1,"a":{"c":[]}}', {"b": 1, "a": {"c": []}}),
        ('{"b":', {"INVALID_JSON": '{"b":'}),
        ("[1]", {"INVALID_JSON": "[1]"}),
        ('"x"', {"INVALID_JSON": '"x"'}),
    ],
)
def test_arguments_that_are_no_object_keep_the_conversation_alive(arguments, told):
    request = ModelRequest(model="m", messages=(Message("assistant", (ToolCall("a", "f", arguments),)),))
    sent = WIRE.encode_request(request, provider="p")
    assert json.loads(sent)["messages"][0]["content"][0]["input"] == told
    (call,) = WIRE.decode_request(sent).messages[0].content
    assert call.arguments == (arguments if arguments.strip() not in ("", "null") else "{}")


def test_the_order_of_arguments_stays():
    request = ModelRequest(
        model="m", messages=(Message("assistant", (ToolCall("a", "f", '{"z":1, "a":2}'),)),)
    )
    assert b'"input":{"z":1, "a":2}' in WIRE.encode_request(request, provider="p")


def test_ids_that_this_vendor_refuses_are_changed_alike_in_call_and_result():
    messages = (
        Message("assistant", (ToolCall("functions.f:0", "f", ""), ToolCall("functions.f.0", "f", ""))),
        Message(
            "tool", (ToolResult("functions.f:0", (Text("1"),)), ToolResult("functions.f.0", (Text("2"),)))
        ),
    )
    calls, results = (
        message["content"]
        for message in json.loads(
            WIRE.encode_request(ModelRequest(model="m", messages=messages), provider="p")
        )["messages"]
    )
    assert [call["id"] for call in calls] == [result["tool_use_id"] for result in results]
    assert len({call["id"] for call in calls}) == 2
    assert all(call["id"].replace("_", "").replace("-", "").isalnum() for call in calls)


def test_what_is_empty_is_left_out():
    messages = (
        Message("user", (Text(""), Text("hi"))),
        Message("assistant", (Reasoning("thought elsewhere"),)),
        Message("user", (Text("still there?"),)),
    )
    request = ModelRequest(model="m", messages=messages, instructions=(Text(""),))
    sent = json.loads(WIRE.encode_request(request, provider="p"))
    assert sent["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "user", "content": "still there?"},
    ]
    assert "system" not in sent
    assert sent["max_tokens"] > 0


def test_a_cut_stream_has_told_what_the_input_cost():
    decoder = WIRE.stream_decoder(provider="p")
    start = {
        "type": "message_start",
        "message": {"id": "a", "model": "m", "content": [], "usage": {"input_tokens": 5, "output_tokens": 1}},
    }
    events = decoder.feed(b"data: " + json.dumps(start).encode() + b"\n\n")
    assert events[-1].usage == Usage(5, 1)
    with pytest.raises(BrokenOff):
        decoder.end()


@pytest.mark.parametrize(
    "events",
    [
        [{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}],
        [
            {"type": "message_start", "message": {}},
            {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "x"}},
        ],
        [{"type": "message_start", "message": {}}, {"type": "content_block_stop", "index": 0}],
        [{"type": "message_start"}],
        [{"type": "message_stop"}],
        [{"no": "type"}],
    ],
)
def test_a_stream_out_of_order_is_broken_off(events):
    data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    with pytest.raises(BrokenOff):
        WIRE.stream_decoder(provider="p").feed(data)


def test_a_block_that_is_to_come_is_carried_from_a_stream():
    data = [
        {"type": "message_start", "message": {"id": "a", "model": "m"}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "compaction", "content": ""}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "compaction_delta", "content": "we spoke"},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "compaction_delta", "content": " of ports"},
        },
        {"type": "content_block_stop", "index": 0},
    ]
    events = WIRE.stream_decoder(provider="p").feed(
        b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in data)
    )
    carried = events[-2].part
    assert carried == Carried(
        "anthropic_messages", "compaction", Raw(b'{"type":"compaction","content":"we spoke of ports"}')
    )


@pytest.mark.parametrize(
    ("status", "kind", "message", "cause"),
    [
        (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", ContextTooLong),
        (400, "invalid_request_error", "Output blocked by content filtering policy", ContentRefused),
        (400, "invalid_request_error", "Your credit balance is too low to access the API", Unavailable),
        (400, "invalid_request_error", "messages: required", BadRequest),
        (402, "billing_error", "pay", Unavailable),
        (403, "permission_error", "no", Forbidden),
        (413, "request_too_large", "Request exceeds the maximum size", TooLarge),
        (429, "rate_limit_error", "slowly", RateLimited),
        (500, "api_error", "Internal server error", Unavailable),
        (529, "overloaded_error", "Overloaded", Overloaded),
    ],
)
def test_refusals_become_causes(status, kind, message, cause):
    told = json.dumps({
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": "req_1",
    }).encode()
    raised = WIRE.decode_error(status, {}, told)
    assert type(raised) is cause
    with pytest.raises(cause):
        WIRE.stream_decoder(provider="p").feed(b"event: error\ndata: " + told + b"\n\n")
    with pytest.raises(cause):
        WIRE.decode_response(told, provider="p")
