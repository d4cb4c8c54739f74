"""Streams of every vendor that tells an answer in blocks: a piece that is not of its block's kind ends the stream, whoever listens.

What a decoder lets pass, encoders believe: a text added to a tool call would be their fault.
"""

import json

import pytest

from freehold.core.errors import BrokenOff
from freehold.core.stream import StreamEvent
from freehold.wires import named
from freehold.wires._aws_eventstream import encode_event

CALL = {"type": "tool_use", "id": "t", "name": "n", "input": {}}
MESSAGE = {"id": "m", "model": "m", "role": "assistant", "content": [], "usage": {"input_tokens": 1}}
ITEMS = {
    "function_call": {"type": "function_call", "id": "i", "call_id": "c", "name": "n", "arguments": ""},
    "message": {"type": "message", "id": "i", "role": "assistant", "content": []},
    "shell_call": {"type": "shell_call", "id": "i"},
}
RESPONSE = {"id": "r", "model": "m", "output": [], "usage": {"input_tokens": 1, "output_tokens": 1}}


def read(wire: str, *events: dict[str, object]) -> list[StreamEvent]:
    decoder = named(wire).stream_decoder(provider="vendor")
    if wire == "bedrock_converse":
        data = b"".join(
            encode_event(name, json.dumps(payload).encode())
            for event in events
            for name, payload in event.items()
        )
    else:
        data = b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)
    return [*decoder.feed(data), *decoder.end()]


@pytest.mark.parametrize(
    ("block", "delta"),
    [
        (CALL, {"type": "text_delta", "text": "x"}),
        (CALL, {"type": "thinking_delta", "thinking": "x"}),
        ({"type": "text", "text": ""}, {"type": "signature_delta", "signature": "x"}),
        ({"type": "text", "text": ""}, {"type": "input_json_delta", "partial_json": "{"}),
        ({"type": "thinking", "thinking": "", "signature": ""}, {"type": "text_delta", "text": "x"}),
    ],
)
def test_anthropic_stays_with_the_kind_of_a_block(block, delta):
    with pytest.raises(BrokenOff, match=f"{delta['type']} of block 0"):
        read(
            "anthropic_messages",
            {"type": "message_start", "message": MESSAGE},
            {"type": "content_block_start", "index": 0, "content_block": block},
            {"type": "content_block_delta", "index": 0, "delta": delta},
        )


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"text": "x"}, {"reasoningContent": {"signature": "x"}}),
        ({"text": "x"}, {"toolUse": {"input": "{"}}),
        ({"reasoningContent": {"text": "x"}}, {"text": "x"}),
        ({"reasoningContent": {"text": "x"}}, {"citation": {"title": "x"}}),
    ],
)
def test_bedrock_stays_with_the_kind_of_a_block(first, then):
    deltas = [{"contentBlockDelta": {"contentBlockIndex": 0, "delta": delta}} for delta in (first, then)]
    with pytest.raises(BrokenOff, match="block 0"):
        read("bedrock_converse", {"messageStart": {"role": "assistant"}}, *deltas)


@pytest.mark.parametrize(
    ("item", "delta"),
    [
        ("function_call", "response.output_text.delta"),
        ("function_call", "response.reasoning_summary_text.delta"),
        ("message", "response.function_call_arguments.delta"),
    ],
)
def test_responses_stays_with_the_kind_of_an_item(item, delta):
    with pytest.raises(BrokenOff, match=f"{delta} of item 0"):
        read(
            "openai_responses",
            {"type": "response.created", "response": RESPONSE},
            {"type": "response.output_item.added", "output_index": 0, "item": ITEMS[item]},
            {"type": delta, "output_index": 0, "delta": "x"},
        )


def test_responses_lets_a_tool_of_its_own_speak_in_objects():
    delta = {"stdout": "x", "stderr": ""}
    events = read(
        "openai_responses",
        {"type": "response.created", "response": RESPONSE},
        {"type": "response.output_item.added", "output_index": 0, "item": ITEMS["shell_call"]},
        {
            "type": "response.shell_call_output_content.delta",
            "output_index": 0,
            "command_index": 0,
            "delta": delta,
        },
        {"type": "response.output_item.done", "output_index": 0, "item": ITEMS["shell_call"]},
        {"type": "response.completed", "response": {**RESPONSE, "status": "completed"}},
    )
    assert [type(event).__name__ for event in events] == [
        "Started", "PartStarted", "PartFinished", "UsageReported", "Finished",
    ]  # fmt: skip
