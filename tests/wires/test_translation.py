"""What becomes of each feature on its way from one vendor's client to another vendor's model, and back."""

import json

import pytest

from freehold.core.errors import FreeholdError, Unsupported
from freehold.core.messages import (
    Address,
    Bytes,
    Media,
    Message,
    ModelRequest,
    ModelResponse,
    Opaque,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    VendorFile,
)
from freehold.wires import named
from freehold.wires._fields import advisory_of
from tests.wires._values import ANTHROPIC, OPENAI

TO_ANTHROPIC = (OPENAI, ANTHROPIC, {"model": "m", "messages": [{"role": "user", "content": "hi"}]})
TO_OPENAI = (
    ANTHROPIC,
    OPENAI,
    {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]},
)
TOOL = {"type": "object", "properties": {"sku": {"type": "string"}}}
OPENAI_TOOLS = {
    "tools": [
        {
            "type": "function",
            "function": {"name": "f", "description": "d", "parameters": TOOL, "strict": True},
        }
    ]
}
ANTHROPIC_TOOLS = {"tools": [{"name": "f", "description": "d", "input_schema": TOOL, "strict": True}]}


def translated(direction, fields, provider="p"):
    source, target, base = direction
    request = named(source).decode_request(json.dumps(base | fields).encode())
    return json.loads(named(target).encode_request(request, provider=provider))


@pytest.mark.parametrize(
    ("direction", "given", "told"),
    [
        (TO_ANTHROPIC, {"max_completion_tokens": 7}, {"max_tokens": 7}),
        (TO_ANTHROPIC, {"max_tokens": 7}, {"max_tokens": 7}),
        (TO_ANTHROPIC, {"stop": ["a", "b"]}, {"stop_sequences": ["a", "b"]}),
        (TO_ANTHROPIC, {"user": "ada"}, {"metadata": {"user_id": "ada"}}),
        (
            TO_ANTHROPIC,
            {"temperature": 0.5, "top_p": 0.5, "top_k": 3},
            {"temperature": 0.5, "top_p": 0.5, "top_k": 3},
        ),
        (TO_ANTHROPIC, {"stream": True}, {"stream": True}),
        (TO_ANTHROPIC, OPENAI_TOOLS, ANTHROPIC_TOOLS),
        (TO_ANTHROPIC, OPENAI_TOOLS | {"tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
        (TO_ANTHROPIC, OPENAI_TOOLS | {"tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
        (
            TO_ANTHROPIC,
            OPENAI_TOOLS
            | {"tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": False},
            {"tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True}},
        ),
        (
            TO_ANTHROPIC,
            OPENAI_TOOLS | {"parallel_tool_calls": False},
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ),
        (TO_ANTHROPIC, {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        (
            TO_ANTHROPIC,
            {"reasoning_effort": "xhigh"},
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}},
        ),
        (
            TO_ANTHROPIC,
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": TOOL, "description": "why"},
                }
            },
            {"output_config": {"format": {"type": "json_schema", "schema": {**TOOL, "description": "why"}}}},
        ),
        (
            TO_ANTHROPIC,
            {"response_format": {"type": "text"}, "n": 1, "logprobs": False, "presence_penalty": 0},
            {},
        ),
        (
            TO_ANTHROPIC,
            {
                "messages": [
                    {
                        "role": "system",
                        "content": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
                    }
                ]
            },
            {"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]},
        ),
        (
            TO_ANTHROPIC,
            {
                "messages": [
                    {
                        "role": "system",
                        "content": [
                            {
                                "type": "text",
                                "text": "s",
                                "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"},
                            }
                        ],
                    }
                ]
            },
            {"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
        ),
        (TO_OPENAI, {}, {"max_completion_tokens": 9}),
        (TO_OPENAI, {"stop_sequences": ["a"]}, {"stop": ["a"]}),
        (TO_OPENAI, {"metadata": {"user_id": "ada"}}, {"user": "ada"}),
        (TO_OPENAI, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        (TO_OPENAI, ANTHROPIC_TOOLS, OPENAI_TOOLS),
        (
            TO_OPENAI,
            ANTHROPIC_TOOLS | {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
            {"tool_choice": "required", "parallel_tool_calls": False},
        ),
        (
            TO_OPENAI,
            ANTHROPIC_TOOLS | {"tool_choice": {"type": "tool", "name": "f"}},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
        (TO_OPENAI, {"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
        (TO_OPENAI, {"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning_effort": "low"}),
        (TO_OPENAI, {"thinking": {"type": "enabled", "budget_tokens": 8192}}, {"reasoning_effort": "medium"}),
        (TO_OPENAI, {"thinking": {"type": "enabled", "budget_tokens": 60000}}, {"reasoning_effort": "high"}),
        (
            TO_OPENAI,
            {"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "max"}},
            {"reasoning_effort": "max"},
        ),
        (
            TO_OPENAI,
            {"output_config": {"format": {"type": "json_schema", "schema": TOOL}}},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": TOOL}}},
        ),
        (
            TO_OPENAI,
            {
                "context_management": {"edits": [{}]},
                "service_tier": "auto",
                "cache_control": {"type": "ephemeral"},
            },
            {},
        ),
    ],
)
def test_a_setting_becomes_the_others(direction, given, told):
    plain, sent = translated(direction, {}), translated(direction, given)
    for name, value in told.items():
        assert sent[name] == value
    assert set(sent) <= set(plain) | set(told) | {"tools", "tool_choice", "parallel_tool_calls", "system"}


@pytest.mark.parametrize(
    ("direction", "given", "field"),
    [
        (TO_ANTHROPIC, {"logit_bias": {"1": 5}}, "logit_bias"),
        (TO_ANTHROPIC, {"logprobs": True}, "logprobs"),
        (TO_ANTHROPIC, {"n": 2}, "n"),
        (TO_ANTHROPIC, {"modalities": ["text", "audio"]}, "modalities"),
        (TO_ANTHROPIC, {"web_search_options": {}}, "web_search_options"),
        (TO_ANTHROPIC, {"a_field_to_come": 1}, "a_field_to_come"),
        (TO_ANTHROPIC, {"response_format": {"type": "json_object"}}, "response_format.type"),
        (TO_ANTHROPIC, {"tools": [{"type": "to_come", "to_come": {"name": "x"}}]}, "tools[0]"),
        (
            TO_ANTHROPIC,
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}
                        ],
                    }
                ]
            },
            "messages[0].content[0]",
        ),
        (TO_ANTHROPIC, {"messages": [{"role": "user", "content": "x", "to_come": 1}]}, "messages[0].to_come"),
        (TO_OPENAI, {"mcp_servers": [{"name": "m"}]}, "mcp_servers"),
        (TO_OPENAI, {"container": "c"}, "container"),
        (TO_OPENAI, {"a_field_to_come": 1}, "a_field_to_come"),
        (TO_OPENAI, {"tools": [{"type": "web_search_20260318", "name": "web_search"}]}, "tools[0]"),
        (
            TO_OPENAI,
            {"messages": [{"role": "user", "content": [{"type": "search_result", "source": "x"}]}]},
            "messages[0].content[0]",
        ),
        (
            TO_OPENAI,
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "document",
                                "source": {"type": "url", "url": "https://example.com/a.pdf"},
                            }
                        ],
                    }
                ]
            },
            "messages[0].content[0]",
        ),
        (
            TO_OPENAI,
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}],
                    }
                ]
            },
            "messages[0].content[0]",
        ),
    ],
)
def test_what_the_other_cannot_say_is_refused_with_its_path(direction, given, field):
    with pytest.raises(Unsupported) as raised:
        translated(direction, given)
    assert raised.value.field == field


@pytest.mark.parametrize("direction", [TO_ANTHROPIC, TO_OPENAI])
def test_every_advisory_field_of_a_request_may_be_left_out(direction):
    source, *_ = direction
    for entry, why in advisory_of(source).items():
        place, _, field = entry.partition(".")
        assert len(why) > 10
        if place == "request" and field not in ("thinking", "metadata"):
            value = {"include_usage": True} if field == "stream_options" else "x"
            assert field not in translated(direction, {field: value}) or field == "stream_options"


IMAGE = Media("image", "image/png", Bytes(b"png"))
CONVERSATION = (
    Message(
        "user", (Text("what is this?"), IMAGE, Media("document", "application/pdf", Bytes(b"pdf"), "a.pdf"))
    ),
    Message("assistant", (Text("let me look"), ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g", ""))),
    Message(
        "tool", (ToolResult("a", (Text("one"),)), ToolResult("b", (Text("no such thing"),), failed=True))
    ),
    Message("assistant", (Text("done"),)),
    Message("user", (Text("thanks"),)),
)


def test_a_conversation_goes_to_openai():
    sent = json.loads(
        named(OPENAI).encode_request(ModelRequest(model="m", messages=CONVERSATION), provider="p")
    )
    user, assistant, one, two, done, thanks = sent["messages"]
    assert [part["type"] for part in user["content"]] == ["text", "image_url", "file"]
    assert user["content"][1]["image_url"]["url"] == "data:image/png;base64,cG5n"
    assert user["content"][2]["file"] == {
        "filename": "a.pdf",
        "file_data": "data:application/pdf;base64,cGRm",
    }
    assert [call["function"]["arguments"] for call in assistant["tool_calls"]] == ['{"x":1}', ""]
    assert (one["content"], one["tool_call_id"]) == ("one", "a")
    assert "".join(part["text"] for part in two["content"]) == "Error: no such thing"
    assert (done["content"], thanks["content"]) == ("done", "thanks")


def test_a_conversation_goes_to_anthropic():
    sent = json.loads(
        named(ANTHROPIC).encode_request(ModelRequest(model="m", messages=CONVERSATION), provider="p")
    )
    user, assistant, results, done, thanks = sent["messages"]
    assert [block["type"] for block in user["content"]] == ["text", "image", "document"]
    assert user["content"][2]["title"] == "a.pdf"
    assert [block.get("input") for block in assistant["content"]] == [None, {"x": 1}, {}]
    assert [(block["content"], block.get("is_error")) for block in results["content"]] == [
        ("one", None),
        ("no such thing", True),
    ]
    assert (done["content"], thanks["content"]) == ("done", "thanks")


@pytest.mark.parametrize("follow", [(), (Message("user", (Text("and?"),)),)])
def test_an_image_in_a_result_follows_it_to_openai(follow):
    result = ToolResult("a", (Text("a chart"), Media("image", "", Address("https://example.com/a.png"))))
    messages = (Message("assistant", (ToolCall("a", "f", "{}"),)), Message("tool", (result,)), *follow)
    sent = json.loads(named(OPENAI).encode_request(ModelRequest(model="m", messages=messages), provider="p"))
    _, told, shown = sent["messages"]
    assert (told["role"], told["content"]) == ("tool", "a chart")
    assert shown["role"] == "user"
    assert [part["type"] for part in shown["content"]] == ["text", "image_url", *["text" for _ in follow]]
    assert "a" in shown["content"][0]["text"]


def test_seals_go_back_only_to_where_they_came_from():
    def sent(wire, provider, opaque):
        messages = (
            Message("assistant", (Reasoning("hm", opaque), Text("so"), ToolCall("a", "f", "{}", opaque))),
        )
        return named(wire).encode_request(ModelRequest(model="m", messages=messages), provider=provider)

    mine = Opaque(ANTHROPIC, "anthropic", "claude", "SEAL")
    assert b"SEAL" in sent(ANTHROPIC, "anthropic", mine)
    assert b"hm" in sent(ANTHROPIC, "anthropic", mine)
    for wire, provider in ((ANTHROPIC, "other"), (OPENAI, "anthropic"), (OPENAI, "openai")):
        told = sent(wire, provider, mine)
        assert b"SEAL" not in told
        assert b"hm" not in told
        assert b"so" in told
    theirs = Opaque(OPENAI, "google", "g", '{"google":"SEAL"}', "extra_content")
    assert b"SEAL" in sent(OPENAI, "google", theirs)
    assert b"SEAL" not in sent(OPENAI, "openai", theirs)
    assert b"SEAL" not in sent(ANTHROPIC, "google", theirs)


@pytest.mark.parametrize("kind", ["reasoning_content", "reasoning"])
def test_a_thought_goes_back_in_the_field_it_came_in(kind):
    body = {
        "id": "c",
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "so", kind: "hm"}}],
    }
    answer = named(OPENAI).decode_response(json.dumps(body).encode(), provider="here")
    request = ModelRequest(model="m", messages=(Message("assistant", answer.content),))
    assert json.loads(named(OPENAI).encode_request(request, provider="here"))["messages"][0][kind] == "hm"
    assert b"hm" not in named(OPENAI).encode_request(request, provider="there")


@pytest.mark.parametrize(
    ("stop", "openai", "anthropic"),
    [
        ("end_turn", "stop", "end_turn"),
        ("tokens_max", "length", "max_tokens"),
        ("stop_sequence", "stop", "stop_sequence"),
        ("tool_use", "tool_calls", "tool_use"),
        ("refusal", "content_filter", "refusal"),
        ("pause", "stop", "pause_turn"),
        ("context_full", "length", "model_context_window_exceeded"),
    ],
)
def test_reasons_to_stop_are_said_in_each_dialect(stop, openai, anthropic):
    answer = ModelResponse(id="a", model="m", content=(Text("x"),), stop_reason=stop)
    assert json.loads(named(OPENAI).encode_response(answer))["choices"][0]["finish_reason"] == openai
    assert json.loads(named(ANTHROPIC).encode_response(answer))["stop_reason"] == anthropic


def test_a_caching_mark_leaves_through_its_own_wire_as_it_came():
    marked = {"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    tool = {**OPENAI_TOOLS["tools"][0], "cache_control": {"type": "ephemeral"}}
    messages = [{"role": "system", "content": [marked]}, {"role": "user", "content": [marked]}]
    sent = translated((OPENAI, OPENAI, {"model": "m"}), {"messages": messages, "tools": [tool]})
    assert (sent["messages"], sent["tools"]) == (messages, [tool])
    elsewhere = translated((OPENAI, ANTHROPIC, {"model": "m"}), {"messages": messages, "tools": [tool]})
    assert elsewhere["system"] == elsewhere["messages"][0]["content"] == [marked]
    assert elsewhere["tools"][0]["cache_control"] == {"type": "ephemeral"}


def test_a_file_of_one_vendor_is_unknown_to_another():
    request = ModelRequest(
        model="m", messages=(Message("user", (Media("document", "", VendorFile(OPENAI, "file-1")),)),)
    )
    assert b"file-1" in named(OPENAI).encode_request(request, provider="p")
    with pytest.raises(Unsupported, match="uploaded to openai_chat"):
        named(ANTHROPIC).encode_request(request, provider="p")


@pytest.mark.parametrize("name", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize(
    "field",
    [
        b'"tool_choice":"\xff"',
        b'"response_format":{"type":"\xff"}',
        b'"thinking":{"type":"\xff"}',
        b'"metadata":{"user_id":"\xff"}',
        b'"x":"\xff"',
    ],
)
def test_strings_that_are_no_utf_8_are_refused_or_ride_along_unread(name, field):
    body = b'{"model":"m","max_tokens":1,"messages":[],' + field + b"}"
    for target in (OPENAI, ANTHROPIC):
        try:
            named(target).encode_request(named(name).decode_request(body), provider="p")
        except FreeholdError:
            continue
