"""Tools of OpenAI's that take free text, and those in a namespace: functions for every other vendor's model, and back again."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from freehold.core.errors import Unsupported
from freehold.core.messages import ModelResponse, Opaque, ToolCall
from freehold.core.stream import ArgumentsAdded, PartFinished, PartStarted, fold, unfold
from freehold.wires import named
from freehold.wires._freeform import arguments_of, text_in
from tests.wires._values import ANTHROPIC, OPENAI

NAME = "openai_responses"
WIRE = named(NAME)
PATCH = '*** Begin Patch\n+"Grüße" \\ 上海\n*** End Patch'
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": 'start: "x"+'}
CUSTOM = {"type": "custom", "name": "apply_patch", "description": "Edits files.", "format": GRAMMAR}
PARAMETERS = {"type": "object", "properties": {"id": {"type": "string"}}}
GET = {
    "type": "function",
    "name": "get",
    "description": "Gets one.",
    "parameters": PARAMETERS,
    "strict": False,
}
NAMESPACE = {
    "type": "namespace",
    "name": "crm",
    "description": "Customers.",
    "tools": [GET, {**CUSTOM, "name": "note"}],
}
PLAIN = {"type": "function", "name": "plain", "description": None, "parameters": PARAMETERS, "strict": False}
TOOLS = [CUSTOM, NAMESPACE, PLAIN]
CALLS = [
    {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": PATCH},
    {"type": "function_call", "call_id": "c2", "name": "get", "arguments": "{}", "namespace": "crm"},
    {"type": "custom_tool_call", "call_id": "c3", "name": "note", "input": "x", "namespace": "crm"},
]
RESULTS = [
    {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
    {"type": "function_call_output", "call_id": "c2", "output": "ada"},
    {"type": "custom_tool_call_output", "call_id": "c3", "output": "noted"},
]


def asked(**more):
    body = {"model": "m", "input": [{"role": "user", "content": "hi"}, *CALLS, *RESULTS], "tools": TOOLS}
    return WIRE.decode_request(json.dumps(body | more).encode())


def sent(wire, request):
    return json.loads(named(wire).encode_request(request, provider="p"))


ANSWER = ModelResponse(
    id="1",
    model="m",
    content=(
        ToolCall("c1", "apply_patch", arguments_of(PATCH)),
        ToolCall("c2", "crm__get", '{"id": "7"}'),
        ToolCall("c3", "crm__note", arguments_of("x")),
        ToolCall("c4", "plain", "{}"),
    ),
    stop_reason="tool_use",
)
TOLD = [
    ("custom_tool_call", "c1", "apply_patch", None, PATCH),
    ("function_call", "c2", "get", "crm", '{"id": "7"}'),
    ("custom_tool_call", "c3", "note", "crm", "x"),
    ("function_call", "c4", "plain", None, "{}"),
]


def as_told(items):
    return [
        (
            one["type"],
            one["call_id"],
            one["name"],
            one.get("namespace"),
            one.get("input", one.get("arguments")),
        )
        for one in items
    ]


def test_another_vendor_gets_functions():
    told = sent(ANTHROPIC, asked())
    patch, get, note, _ = told["tools"]
    assert [one["name"] for one in told["tools"]] == ["apply_patch", "crm__get", "crm__note", "plain"]
    assert patch["description"] == "Edits files."
    assert patch["input_schema"]["required"] == ["input"]
    assert GRAMMAR["definition"] in patch["input_schema"]["properties"]["input"]["description"]
    assert get["description"] == "crm: Customers.\n\nGets one."
    assert note["description"] == "Edits files."
    said = told["messages"][1]["content"]
    assert [(one["id"], one["name"], one["input"]) for one in said] == [
        ("c1", "apply_patch", {"input": PATCH}),
        ("c2", "crm__get", {}),
        ("c3", "crm__note", {"input": "x"}),
    ]
    assert [one["tool_use_id"] for one in told["messages"][2]["content"]] == ["c1", "c2", "c3"]
    chat = sent(OPENAI, asked())
    assert [one["type"] for one in chat["tools"]] == ["function"] * 4
    assert [one["function"]["name"] for one in chat["messages"][1]["tool_calls"]] == [
        "apply_patch", "crm__get", "crm__note",
    ]  # fmt: skip


def test_its_own_vendor_gets_them_as_they_came():
    told = sent(NAME, asked())
    assert told["tools"] == TOOLS
    assert told["input"][1:] == [*CALLS, *RESULTS]


def test_a_choice_of_one_goes_there_and_back():
    request = asked(tool_choice={"type": "custom", "name": "apply_patch"})
    assert sent(NAME, request)["tool_choice"] == {"type": "custom", "name": "apply_patch"}
    assert sent(ANTHROPIC, request)["tool_choice"] == {"type": "tool", "name": "apply_patch"}


def test_a_whole_answer_calls_them_by_their_own_names():
    told = json.loads(WIRE.encode_response(ANSWER, created=1, request=asked()))
    assert as_told(told["output"]) == TOLD
    assert told["tools"] == TOOLS


def streamed(events):
    encoder = WIRE.stream_encoder(asked(), created=1)
    stream = b"".join(map(encoder.encode, events)) + encoder.end()
    return stream, [json.loads(line[6:]) for line in stream.decode().split("\n") if line.startswith("data: ")]


def test_a_stream_calls_them_by_their_own_names():
    _, events = streamed(unfold(ANSWER))
    assert as_told(events[-1]["response"]["output"]) == TOLD
    done = [one for one in events if one["type"] == "response.output_item.done"]
    assert as_told(one["item"] for one in done) == TOLD
    texts = [one for one in events if one["type"] == "response.custom_tool_call_input.done"]
    assert [one["input"] for one in texts] == [PATCH, "x"]
    added = {
        one["output_index"]: one["item"]["id"]
        for one in events
        if one["type"] == "response.output_item.added"
    }
    assert {one["output_index"]: one["item"]["id"] for one in done} == added
    assert [one["sequence_number"] for one in events] == [*range(len(events))]


def test_what_a_model_wrote_bare_is_the_text():
    events = list(unfold(ANSWER))
    at = next(place for place, one in enumerate(events) if isinstance(one, ArgumentsAdded))
    events[at] = ArgumentsAdded(0, "ls -l")
    _, told = streamed(events)
    assert told[-1]["response"]["output"][0]["input"] == "ls -l"


def test_its_own_vendors_answer_and_stream_are_the_same():
    whole = WIRE.encode_response(ANSWER, created=1, request=asked())
    stream, events = streamed(unfold(ANSWER))
    decoder = WIRE.stream_decoder(provider="p")
    folded = fold([*decoder.feed(stream), *decoder.end()])
    assert folded.content == WIRE.decode_response(whole, provider="p").content
    assert [(part.id, part.name, part.arguments) for part in folded.content] == [
        (part.id, part.name, part.arguments) for part in ANSWER.content
    ]
    assert bytes(folded.content[0].extra[NAME]["type"]) == b'"custom_tool_call"'
    deltas = [one for one in events if one["type"] == "response.custom_tool_call_input.delta"]
    assert [one["delta"] for one in deltas] == [PATCH, "x"]


def test_pieces_of_a_custom_text_are_told_as_they_come():
    item = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c", "name": "sh", "input": ""}
    decoder = WIRE.stream_decoder(provider="p")
    events = [
        {"type": "response.created", "response": {"id": "1", "model": "m"}},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        *(
            {"type": "response.custom_tool_call_input.delta", "output_index": 0, "delta": one}
            for one in ('echo "', "上\n", '"')
        ),
        {"type": "response.output_item.done", "output_index": 0, "item": {**item, "input": 'echo "上\n"'}},
    ]
    heard = decoder.feed(b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in events))
    assert isinstance(heard[1], PartStarted)
    assert isinstance(heard[-1], PartFinished)
    pieces = [one.json for one in heard if isinstance(one, ArgumentsAdded)]
    assert len(pieces) == 5
    assert json.loads("".join(pieces)) == {"input": 'echo "上\n"'}


@pytest.mark.parametrize(
    "kind", ["web_search", "local_shell", "shell", "apply_patch", "computer_use_preview", "mcp"]
)
def test_a_tool_that_its_vendor_runs_is_refused_elsewhere_with_its_place(kind):
    request = asked(tools=[PLAIN, {"type": kind}], input="hi")
    assert sent(NAME, request)["tools"][1] == {"type": kind}
    for other in (OPENAI, ANTHROPIC):
        with pytest.raises(Unsupported, match="own tool") as raised:
            named(other).encode_request(request, provider="p")
        assert raised.value.field == "tools[1]"


def test_a_namespace_with_something_else_in_it_is_refused_elsewhere():
    request = asked(tools=[{**NAMESPACE, "tools": [{"type": "web_search"}]}], input="hi")
    with pytest.raises(Unsupported) as raised:
        named(ANTHROPIC).encode_request(request, provider="p")
    assert raised.value.field == "tools[0]"


def test_long_and_strange_names_are_names_of_functions_still():
    tools = [
        {**NAMESPACE, "name": "n" * 60, "tools": [{**GET, "name": f"get.{place}"} for place in range(2)]}
    ]
    names = [one["name"] for one in sent(ANTHROPIC, asked(tools=tools, input="hi"))["tools"]]
    assert len(set(names)) == 2
    assert all(len(name) <= 64 and name.replace("_", "").isalnum() for name in names)
    answer = ModelResponse(
        id="1", model="m", content=(ToolCall("c", names[1], "{}"),), stop_reason="tool_use"
    )
    (told,) = json.loads(WIRE.encode_response(answer, created=1, request=asked(tools=tools)))["output"]
    assert (told["name"], told["namespace"]) == ("get.1", "n" * 60)


CHAT_TOOL = {
    "type": "custom",
    "custom": {
        "name": "sh",
        "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": "l.*"}},
    },
}
CHAT = {
    "model": "m",
    "messages": [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "sh", "input": "ls"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ],
    "tools": [CHAT_TOOL],
    "tool_choice": {"type": "custom", "custom": {"name": "sh"}},
}
CHAT_ANSWER = ModelResponse(
    id="1", model="m", content=(ToolCall("c2", "sh", arguments_of(PATCH)),), stop_reason="tool_use"
)


def test_custom_tools_of_chat_completions_are_the_same_functions():
    request = named(OPENAI).decode_request(json.dumps(CHAT).encode())
    told = sent(ANTHROPIC, request)
    assert "l.*" in told["tools"][0]["input_schema"]["properties"]["input"]["description"]
    assert told["messages"][1]["content"][0]["input"] == {"input": "ls"}
    assert told["tool_choice"] == {"type": "tool", "name": "sh"}
    again = sent(OPENAI, request)
    assert {name: again[name] for name in CHAT} == CHAT


def test_a_custom_calls_seal_survives_a_client_of_chat_completions():
    wire, seal = named(OPENAI), Opaque("google_generate", "google", "gemini", "U0VBTA==")
    request = wire.decode_request(json.dumps(CHAT).encode())
    sealed = structs.replace(CHAT_ANSWER, content=(structs.replace(CHAT_ANSWER.content[0], opaque=seal),))
    encoder = wire.stream_encoder(request, created=1)
    stream = b"".join(map(encoder.encode, unfold(sealed))) + encoder.end()
    told = [json.loads(line[6:]) for line in stream.decode().split("\n") if line.startswith("data: {")]
    (streamed_call,) = (call for one in told for call in one["choices"][0]["delta"].get("tool_calls", ()))
    del streamed_call["index"]
    whole = json.loads(wire.encode_response(sealed, created=1, request=request))
    assert whole["choices"][0]["message"]["tool_calls"] == [streamed_call]
    message = {"role": "assistant", "content": None, "tool_calls": [streamed_call]}
    again = wire.decode_request(json.dumps({**CHAT, "messages": [message]}).encode())
    assert again.messages[0].content[0].opaque == seal


def test_a_client_of_chat_completions_has_its_custom_calls():
    wire = named(OPENAI)
    request = wire.decode_request(json.dumps(CHAT).encode())
    called = {"id": "c2", "type": "custom", "custom": {"name": "sh", "input": PATCH}}
    whole = wire.encode_response(CHAT_ANSWER, created=1, request=request)
    assert json.loads(whole)["choices"][0]["message"]["tool_calls"] == [called]
    encoder = wire.stream_encoder(request, created=1)
    stream = b"".join(map(encoder.encode, unfold(CHAT_ANSWER))) + encoder.end()
    chunks = [json.loads(line[6:]) for line in stream.decode().split("\n") if line.startswith("data: {")]
    deltas = [call for one in chunks for call in one["choices"][0]["delta"].get("tool_calls", ())]
    assert deltas == [{"index": 0, **called}]
    decoder = wire.stream_decoder(provider="p")
    folded = fold([*decoder.feed(stream), *decoder.end()])
    assert folded.content == wire.decode_response(whole, provider="p").content
    assert (folded.content[0].arguments, folded.stop_reason) == (arguments_of(PATCH), "tool_use")


@given(st.text())
def test_any_text_survives_as_an_argument(text):
    plain = text.encode("utf-8", "replace").decode()
    assert text_in(arguments_of(text)) == plain
    assert json.loads(arguments_of(text)) == {"input": plain}
