"""What becomes of each feature on its way between Google's wire and the others."""

import json

import pytest

from freehold.core.errors import BadRequest, Unsupported
from freehold.core.messages import (
    Bytes,
    Carried,
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
    ToolResult,
)
from freehold.core.stream import fold, unfold
from freehold.wires import named
from tests.wires._google_values import GOOGLE
from tests.wires._values import ANTHROPIC, OPENAI

WIRE = named(GOOGLE)
OBJECT = {"type": "object", "properties": {"sku": {"type": "string"}}}
BASES = {
    OPENAI: {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    ANTHROPIC: {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]},
    GOOGLE: {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
}
TOOL = {"functionDeclarations": [{"name": "f", "description": "d", "parametersJsonSchema": OBJECT}]}


def translated(source, target, given, **more):
    request = named(source).decode_request(json.dumps(BASES[source] | given).encode())
    return json.loads(named(target).encode_request(request, provider="p", **more))


def openai_tools(**more):
    return {
        "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": OBJECT}}],
        **more,
    }


def generation(**fields):
    return {"generationConfig": fields}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"max_completion_tokens": 7}, generation(maxOutputTokens=7)),
        (
            {"temperature": 0.5, "top_p": 0.5, "top_k": 3, "seed": 4, "stop": "a"},
            generation(temperature=0.5, topP=0.5, topK=3, stopSequences=["a"], seed=4),
        ),
        ({"user": "ada"}, {}),
        (openai_tools(), {"tools": [TOOL]}),
        (
            openai_tools(tool_choice="required"),
            {"tools": [TOOL], "toolConfig": {"functionCallingConfig": {"mode": "ANY"}}},
        ),
        (
            openai_tools(tool_choice={"type": "function", "function": {"name": "f"}}),
            {
                "tools": [TOOL],
                "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
            },
        ),
        ({"reasoning_effort": "none"}, generation(thinkingConfig={"thinkingBudget": 0})),
        (
            {"reasoning_effort": "high"},
            generation(thinkingConfig={"includeThoughts": True, "thinkingLevel": "HIGH"}),
        ),
        ({"response_format": {"type": "json_object"}}, generation(responseMimeType="application/json")),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": OBJECT, "description": "why"},
                }
            },
            generation(
                responseMimeType="application/json", responseJsonSchema={**OBJECT, "description": "why"}
            ),
        ),
        (
            {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]},
            {"systemInstruction": {"parts": [{"text": "s"}]}},
        ),
    ],
)
def test_openais_settings_become_googles(given, told):
    assert translated(OPENAI, GOOGLE, given) == BASES[GOOGLE] | told


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (generation(maxOutputTokens=7), {"max_completion_tokens": 7}),
        (generation(topK=3.0, stopSequences=["a"], seed=4), {"top_k": 3, "stop": ["a"], "seed": 4}),
        (generation(thinkingConfig={"thinkingBudget": 0}), {"reasoning_effort": "none"}),
        (generation(thinkingConfig={"thinkingLevel": "LOW"}), {"reasoning_effort": "low"}),
        (generation(candidateCount=1, responseModalities=["TEXT"], responseMimeType="text/plain"), {}),
        ({"tools": [TOOL]}, openai_tools()),
        (
            {"tools": [TOOL], "toolConfig": {"functionCallingConfig": {"mode": "ANY"}}},
            openai_tools(tool_choice="required"),
        ),
        (
            generation(
                responseMimeType="application/json",
                responseSchema={"type": "OBJECT", "properties": {"sku": {"type": "STRING"}}},
            ),
            {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": OBJECT}}},
        ),
        (
            {
                "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
                "labels": {"a": "b"},
            },
            {},
        ),
        (
            {"system_instruction": {"parts": {"text": "s"}}},
            {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]},
        ),
    ],
)
def test_googles_settings_become_openais(given, told):
    sent = translated(GOOGLE, OPENAI, given)
    assert sent == BASES[OPENAI] | {"model": ""} | told


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (generation(candidateCount=2), "generationConfig.candidateCount"),
        (generation(responseLogprobs=True), "generationConfig.responseLogprobs"),
        (generation(responseModalities=["IMAGE"]), "generationConfig.responseModalities"),
        (
            generation(responseMimeType="text/x.enum", responseSchema={"type": "STRING"}),
            "generationConfig.responseMimeType",
        ),
        ({"cachedContent": "cachedContents/a"}, "cachedContent"),
        ({"safetySettings": [{"category": "c", "threshold": "BLOCK_LOW_AND_ABOVE"}]}, "safetySettings"),
        ({"aFieldToCome": 1}, "aFieldToCome"),
        ({"tools": [{"googleSearch": {}}]}, "tools[0]"),
        ({"contents": [{"parts": [{"text": "x", "toCome": 1}]}]}, "messages[0].content[0].toCome"),
        (
            {"contents": [{"role": "model", "parts": [{"executableCode": {"code": "1"}}]}]},
            "messages[0].content[0]",
        ),
        (
            {"contents": [{"parts": [{"fileData": {"fileUri": "gs://b/a.png", "mimeType": "image/png"}}]}]},
            "messages[0].content[0]",
        ),
    ],
)
@pytest.mark.parametrize("target", [OPENAI, ANTHROPIC])
def test_what_only_google_has_is_refused_with_its_path(target, given, field):
    with pytest.raises(Unsupported) as raised:
        translated(GOOGLE, target, given)
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("source", "given", "field"),
    [
        (OPENAI, {"logit_bias": {"1": 5}}, "logit_bias"),
        (OPENAI, {"n": 2}, "n"),
        (OPENAI, openai_tools(parallel_tool_calls=False), "tool_choice.parallel"),
        (OPENAI, {"reasoning_effort": "extreme"}, "reasoning.effort"),
        (ANTHROPIC, {"mcp_servers": [{"name": "m"}]}, "mcp_servers"),
        (ANTHROPIC, {"tools": [{"type": "web_search_20260318", "name": "web_search"}]}, "tools[0]"),
        (
            ANTHROPIC,
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
def test_what_google_cannot_say_is_refused_with_its_path(source, given, field):
    with pytest.raises(Unsupported) as raised:
        translated(source, GOOGLE, given)
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"contents": [{"role": "robot", "parts": []}]}, "contents[0].role"),
        ({"contents": [{"parts": [{}]}]}, "contents[0].parts[0]"),
        ({"contents": [{"parts": [{"text": 1}]}]}, "contents[0].parts[0].text"),
        (
            {"contents": [{"parts": [{"inlineData": {"mimeType": "a/b", "data": "a"}}]}]},
            "contents[0].parts[0].inlineData.data",
        ),
        (
            {"contents": [{"parts": [{"functionCall": {"name": "f", "args": [1]}}]}]},
            "contents[0].parts[0].functionCall.args",
        ),
        (
            {"toolConfig": {"functionCallingConfig": {"mode": "MAYBE"}}},
            "toolConfig.functionCallingConfig.mode",
        ),
        (generation(topK=1.5), "generationConfig.topK"),
        (generation(maxOutputTokens="many"), "generationConfig.maxOutputTokens"),
        ({"tools": [{"functionDeclarations": [{"name": "f", "parameters": {"items": 1}}]}]}, None),
        (
            {"tools": [{"functionDeclarations": [{"name": "f", "parameters": 3}]}]},
            "tools[0].functionDeclarations[0].parameters",
        ),
        ({"system_instruction": {}, "systemInstruction": {}}, "systemInstruction"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(given, field):
    body = json.dumps(BASES[GOOGLE] | given).encode()
    if field is None:
        WIRE.decode_request(body)
        return
    with pytest.raises(BadRequest) as raised:
        WIRE.decode_request(body)
    assert raised.value.field == field


IMAGE = Media("image", "image/png", Bytes(b"png"))
CONVERSATION = (
    Message("user", (Text("what is this?"), IMAGE)),
    Message(
        "assistant",
        (
            Text("let me look"),
            ToolCall("a", "f", '{"x":1}'),
            ToolCall("b", "g", ""),
            ToolCall("c", "h", "no json"),
        ),
    ),
    Message(
        "tool",
        (
            ToolResult("a", (Text("one"), IMAGE)),
            ToolResult("b", (Text("no such thing"),), failed=True),
            ToolResult("c", (Text('{"ok": 1}'),)),
        ),
    ),
    Message("system", (Text("be brief"),)),
)


def test_a_conversation_becomes_googles():
    request = ModelRequest(model="gemini-2.5-pro", messages=CONVERSATION)
    png = {"mimeType": "image/png", "data": "cG5n"}
    assert json.loads(WIRE.encode_request(request, provider="p"))["contents"] == [
        {"role": "user", "parts": [{"text": "what is this?"}, {"inlineData": png}]},
        {
            "role": "model",
            "parts": [
                {"text": "let me look"},
                {"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}},
                {"functionCall": {"id": "b", "name": "g"}},
                {"functionCall": {"id": "c", "name": "h", "args": {"INVALID_JSON": "no json"}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {
                    "functionResponse": {
                        "id": "a",
                        "name": "f",
                        "response": {"output": "one"},
                        "parts": [{"inlineData": png}],
                    }
                },
                {"functionResponse": {"id": "b", "name": "g", "response": {"error": "no such thing"}}},
                {"functionResponse": {"id": "c", "name": "h", "response": {"ok": 1}}},
            ],
        },
        {"role": "user", "parts": [{"text": "be brief"}]},
    ]


def test_an_id_that_is_used_again_means_the_last_call_of_that_id():
    turns = [
        (
            Message("assistant", (ToolCall("0", name, "{}"),)),
            Message("tool", (ToolResult("0", (Text("1"),)),)),
        )
        for name in ("f", "g")
    ]
    request = ModelRequest(model="m", messages=turns[0] + turns[1])
    contents = json.loads(WIRE.encode_request(request, provider="p"))["contents"]
    assert [content["parts"][0]["functionResponse"]["name"] for content in contents[1::2]] == ["f", "g"]


def test_a_result_without_its_call_is_named_as_missing():
    request = ModelRequest(model="m", messages=(Message("tool", (ToolResult("x", (Text("1"),)),)),))
    with pytest.raises(BadRequest, match="'x'") as raised:
        WIRE.encode_request(request, provider="p")
    assert raised.value.field == "messages[0].content[0]"


def test_a_model_that_checks_signatures_is_told_of_calls_that_have_none():
    """Another vendor's calls would be refused otherwise; the first of each turn is what is looked at."""
    request = ModelRequest(model="gemini-3.8-flash", messages=CONVERSATION)
    _, turn, *_ = json.loads(WIRE.encode_request(request, provider="p"))["contents"]
    assert [part.get("thoughtSignature") for part in turn["parts"]] == [
        None,
        "skip_thought_signature_validator",
        None,
        None,
    ]


def test_levels_become_budgets_for_models_that_know_no_levels():
    request = ModelRequest(model="gemini-2.5-flash", messages=(), reasoning=ReasoningSetting(effort="medium"))
    body = json.loads(WIRE.encode_request(request, provider="p"))
    assert body["generationConfig"]["thinkingConfig"] == {"includeThoughts": True, "thinkingBudget": 8192}


def test_chunks_that_a_client_kept_as_they_came_are_one_turn():
    contents = [
        {"role": "user", "parts": [{"text": "hi"}]},
        {"role": "model", "parts": [{"text": "Hm, ", "thought": True}]},
        {"role": "model", "parts": [{"text": "so", "thought": True}]},
        {"role": "model", "parts": [{"text": "", "thought": True, "thoughtSignature": "c2ln"}]},
        {"role": "model", "parts": [{"text": "Let me "}]},
        {"role": "model", "parts": [{"text": "look."}, {"functionCall": {"name": "f"}}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f"}}, {"text": ""}]},
        {"role": "function", "parts": [{"functionResponse": {"name": "f", "response": {"output": "1"}}}]},
        {"role": "function", "parts": [{"functionResponse": {"name": "f", "response": {"output": "2"}}}]},
    ]
    request = WIRE.decode_request(json.dumps({"contents": contents}).encode())
    assert request.messages[1:] == (
        Message(
            "assistant",
            (
                Reasoning("Hm, so", Opaque(GOOGLE, "", "", "c2ln", "thought_signature")),
                Text("Let me look."),
                ToolCall("call_1", "f", ""),
                ToolCall("call_2", "f", ""),
            ),
        ),
        Message("tool", (ToolResult("call_1", (Text("1"),)), ToolResult("call_2", (Text("2"),)))),
    )


SEAL = Opaque(GOOGLE, "google", "gemini-3.8-flash", "c2lnbmF0dXJl")
SEALED_ANSWER = ModelResponse(
    id="r",
    model="gemini-3.8-flash",
    content=(
        Reasoning("hm", Opaque(GOOGLE, "google", "gemini-3.8-flash", "dGhvdWdodA==", "thought_signature")),
        ToolCall("a", "f", "{}", SEAL),
    ),
    stop_reason="tool_use",
)


def through_openai(answer, *, streamed):
    """What OpenAI's client keeps of an answer, as the heart reads it when it comes back."""
    wire = named(OPENAI)
    if streamed:
        encoder = wire.stream_encoder(ModelRequest(model="m", messages=()))
        decoder = wire.stream_decoder(provider="")
        body = b"".join(map(encoder.encode, unfold(answer))) + encoder.end()
        told = json.loads(wire.encode_response(fold([*decoder.feed(body), *decoder.end()])))
    else:
        told = json.loads(wire.encode_response(answer))
    message = told["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": "a", "content": "1"}
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}, message, result]}
    return wire.decode_request(json.dumps(body).encode())


def through_anthropic(answer):
    wire = named(ANTHROPIC)
    content = json.loads(wire.encode_response(answer))["content"]
    result = {"type": "tool_result", "tool_use_id": "a", "content": "1"}
    messages = [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
    return wire.decode_request(json.dumps({"model": "m", "max_tokens": 1, "messages": messages}).encode())


@pytest.mark.parametrize("through", ["openai", "anthropic"])
def test_googles_signatures_survive_another_vendors_client(through):
    request = (
        through_openai(SEALED_ANSWER, streamed=False)
        if through == "openai"
        else through_anthropic(SEALED_ANSWER)
    )
    back = json.loads(WIRE.encode_request(request, provider="google"))
    (turn,) = [content for content in back["contents"] if content["role"] == "model"]
    assert turn["parts"] == [
        {"text": "hm", "thought": True, "thoughtSignature": "dGhvdWdodA=="},
        {"functionCall": {"id": "a", "name": "f", "args": {}}, "thoughtSignature": "c2lnbmF0dXJl"},
    ]
    elsewhere = json.loads(WIRE.encode_request(request, provider="another"))
    assert "Signature" not in json.dumps(elsewhere)
    for other in (OPENAI, ANTHROPIC):
        assert b"c2lnbmF0dXJl" not in named(other).encode_request(request, provider="google2")


FOREIGN = ModelResponse(
    id="r",
    model="claude",
    content=(
        Reasoning("hm, so", Opaque(ANTHROPIC, "anthropic", "claude", "EqQB+/==")),
        Reasoning("", Opaque(ANTHROPIC, "anthropic", "claude", "EmwK", "redacted_thinking")),
        Text("I'll look."),
        ToolCall("toolu_1", "f", '{"x": 1}'),
    ),
    stop_reason="tool_use",
)


def parts_of(encoded):
    lines = [line[6:] for line in encoded.splitlines() if line.startswith(b"data: ")]
    return [part for line in lines for part in json.loads(line)["candidates"][0]["content"]["parts"]]


@pytest.mark.parametrize("streamed", [False, True])
def test_anthropics_signatures_survive_googles_client(streamed):
    if streamed:
        encoder = WIRE.stream_encoder(ModelRequest(model="m", messages=()))
        parts = parts_of(b"".join(map(encoder.encode, unfold(FOREIGN))) + encoder.end())
    else:
        parts = json.loads(WIRE.encode_response(FOREIGN))["candidates"][0]["content"]["parts"]
    body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}, {"role": "model", "parts": parts}]}
    request = WIRE.decode_request(json.dumps(body).encode())
    assert request.messages[1].content == FOREIGN.content


def test_what_googles_client_would_not_know_is_refused():
    carried = ModelResponse(
        id="r", model="m", content=(Carried(ANTHROPIC, "x", Raw(b"{}")),), stop_reason="end_turn"
    )
    with pytest.raises(Unsupported):
        WIRE.encode_response(carried)
