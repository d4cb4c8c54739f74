"""Where the heart's paths stand in a client's own body, for every client's wire."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.wires import named, names, path_in

PNG = "aGk="
USER = {"role": "user", "content": "hi"}
CHAT_IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CHAT = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "look"}, CHAT_IMAGE]},
        {"role": "assistant", "content": "so", "tool_calls": [CALL, {**CALL, "id": "d"}]},
        {"role": "tool", "tool_call_id": "c", "content": "one"},
        {"role": "tool", "tool_call_id": "d", "content": "two"},
    ],
    "tools": [FUNCTION, FUNCTION],
    "max_tokens": 9,
    "parallel_tool_calls": False,
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
}
SOURCE = {"type": "base64", "media_type": "image/png", "data": PNG}
IMAGE = {"type": "image", "source": SOURCE}
TEXT = {"type": "text", "text": "hm"}
RESULT = {"type": "tool_result", "tool_use_id": "c", "content": [TEXT, IMAGE]}
ANTHROPIC = {
    "model": "m",
    "max_tokens": 9,
    "system": [TEXT, TEXT],
    "messages": [
        USER,
        {"role": "assistant", "content": [TEXT, {"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
        {"role": "user", "content": [RESULT, TEXT, IMAGE]},
    ],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "stop_sequences": ["x"],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    "thinking": {"type": "enabled", "budget_tokens": 2000},
}
RESPONSES = {
    "model": "m",
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "https://example.com/a.png"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "d", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "one"},
        {"type": "function_call_output", "call_id": "d", "output": [{"type": "input_text", "text": "a"}, {"type": "input_file", "file_id": "x"}]},
    ],
    "reasoning": {"effort": "low"},
    "text": {"format": {"type": "json_object"}},
    "max_output_tokens": 9,
}  # fmt: skip
BEDROCK_IMAGE = {"image": {"format": "png", "source": {"bytes": PNG}}}
BEDROCK = {
    "system": [{"text": "Be brief."}],
    "messages": [
        {"role": "user", "content": [{"text": "hi"}, BEDROCK_IMAGE]},
        {"role": "assistant", "content": [{"toolUse": {"toolUseId": "c", "name": "f", "input": {}}}]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "c", "content": [{"text": "a"}, BEDROCK_IMAGE]}}, {"text": "so"}]},
    ],
    "inferenceConfig": {"maxTokens": 9, "stopSequences": ["x"]},
    "toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {}}}}]},
}  # fmt: skip
INLINE = {"inlineData": {"mimeType": "image/png", "data": PNG}}
GOOGLE = {
    "systemInstruction": {"parts": [{"text": "Be brief."}]},
    "contents": [
        {"role": "user", "parts": [{"text": "hi"}, INLINE]},
        {"role": "model", "parts": [{"functionCall": {"id": "c", "name": "f", "args": {}}}]},
        {"role": "user", "parts": [{"functionResponse": {"id": "c", "name": "f", "response": {}}}, {"text": "so"}]},
    ],
    "tools": [{"functionDeclarations": [{"name": "f"}, {"name": "g"}]}],
    "generation_config": {"max_output_tokens": 9, "thinkingConfig": {"thinkingLevel": "low"}},
}  # fmt: skip
BODIES = {
    "anthropic_messages": ANTHROPIC,
    "bedrock_converse": BEDROCK,
    "google_generate": GOOGLE,
    "openai_chat": CHAT,
    "openai_responses": RESPONSES,
}
FOUND = {
    "openai_chat": {
        "messages[0].content[1]": "messages[1].content[1].image_url",
        "messages[0].content[1].detail": "messages[1].content[1].detail",
        "messages[0]": "messages[1]",
        "messages[1].content[0]": "messages[2].content",
        "messages[1].content[2]": "messages[2].tool_calls[1].function",
        "messages[2].content[1]": "messages[4].content",
        "instructions[0]": "messages[0]",
        "tools[1].strict": "tools[1].strict",
        "tokens_max": "max_tokens",
        "tool_choice.parallel": "parallel_tool_calls",
        "reasoning.effort": "reasoning_effort",
        "response_format": "response_format",
    },
    "anthropic_messages": {
        "messages[1].content[1]": "messages[1].content[1]",
        "messages[2].content[0].content[1]": "messages[2].content[0].content[1]",
        "messages[3].content[1]": "messages[2].content[2]",
        "instructions[1].cache_control": "system[1].cache_control",
        "tool_choice.parallel": "tool_choice.disable_parallel_tool_use",
        "stop": "stop_sequences",
        "reasoning": "thinking",
        "tokens_max": "max_tokens",
    },
    "openai_responses": {
        "messages[0].content[1]": "input[0].content[1]",
        "messages[1].content[1]": "input[2]",
        "messages[2].content[1].content[1]": "input[4].output[1]",
        "reasoning.effort": "reasoning.effort",
        "response_format": "text.format",
        "tokens_max": "max_output_tokens",
    },
    "bedrock_converse": {
        "messages[0].content[1]": "messages[0].content[1].image",
        "messages[2].content[0].content[1]": "messages[2].content[0].toolResult.content[1].image",
        "messages[3].content[0]": "messages[2].content[1].text",
        "instructions[0]": "system[0]",
        "tools[0]": "toolConfig.tools[0]",
        "tokens_max": "inferenceConfig.maxTokens",
        "stop": "inferenceConfig.stopSequences",
    },
    "google_generate": {
        "messages[0].content[1]": "contents[0].parts[1].inlineData",
        "messages[1].content[0]": "contents[1].parts[0].functionCall",
        "instructions[0]": "systemInstruction.parts[0]",
        "tools[1]": "tools[0].functionDeclarations[1]",
        "tokens_max": "generation_config.max_output_tokens",
        "reasoning.effort": "generation_config.thinkingConfig.thinkingLevel",
    },
}
CASES = [(wire, said, found) for wire, paths in FOUND.items() for said, found in paths.items()]


@pytest.mark.parametrize(("wire", "said", "found"), CASES)
def test_a_path_of_the_heart_is_found_in_the_clients_words(wire: str, said: str, found: str) -> None:
    assert path_in(named(wire), json.dumps(BODIES[wire]).encode(), said) == found


def test_every_clients_wire_has_its_cases() -> None:
    assert {*FOUND} == {*names()}


@pytest.mark.parametrize("said", ["messages[9]", "tools[7].x", "n", "messages[0].content[7]"])
@pytest.mark.parametrize("wire", BODIES)
def test_what_is_not_found_stays_as_it_is(wire: str, said: str) -> None:
    assert path_in(named(wire), json.dumps(BODIES[wire]).encode(), said) == said


@given(wire=st.sampled_from(sorted(BODIES)), body=st.binary(max_size=40), said=st.sampled_from(["messages[0]", "tokens_max"]))  # fmt: skip
def test_any_body_is_taken(wire: str, body: bytes, said: str) -> None:
    assert path_in(named(wire), body, said) == said
