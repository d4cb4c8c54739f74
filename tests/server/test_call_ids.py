"""Calls of a vendor that gives neither them nor its answers ids: a client's library tells the calls of all turns apart."""

import json
from typing import Any

import pytest

from tests.gateway._vendors import reply, sse, stream
from tests.server._world import World

MODEL = "openai/gpt-4o"
TOOL: Any = {"name": "stock", "input_schema": {"type": "object"}}
CALL = {"type": "function", "function": {"name": "stock", "arguments": "{}"}}
WHOLE = reply(
    json.dumps({
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {"content": None, "tool_calls": [CALL, CALL]},
            }
        ]
    }).encode()
)
STREAMED = stream(
    sse(
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **CALL}, {"index": 1, **CALL}]}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        b"[DONE]",
    )
)
BEGUN: list[Any] = [{"role": "user", "content": "How many?"}]


async def anthropics(world: World, messages: list[Any], *, streamed: bool) -> list[str]:
    asked: Any = {"model": MODEL, "max_tokens": 9, "tools": [TOOL], "messages": messages}
    if streamed:
        async with world.anthropic.messages.stream(**asked) as answer:
            told = await answer.get_final_message()
    else:
        told = await world.anthropic.messages.create(**asked)
    assert told.id
    return [part.id for part in told.content if part.type == "tool_use"]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_no_call_of_two_turns_has_anothers_id(shared: World, streamed: bool) -> None:
    shared.script("openai", STREAMED if streamed else WHOLE)
    first = await anthropics(shared, BEGUN, streamed=streamed)
    calls = [{"type": "tool_use", "id": one, "name": "stock", "input": {}} for one in first]
    results = [{"type": "tool_result", "tool_use_id": one, "content": "7"} for one in first]
    turns = [*BEGUN, {"role": "assistant", "content": calls}, {"role": "user", "content": results}]
    second = await anthropics(shared, turns, streamed=streamed)
    again = await anthropics(shared, BEGUN, streamed=streamed)
    assert len({*first, *second, *again}) == 6
    assert all(first + second + again)


async def test_one_that_was_not_streamed_though_asked_to_has_ids_of_its_own_conversation(
    shared: World,
) -> None:
    shared.script("openai", WHOLE)
    ids: list[str] = []
    for text in ("How many?", "And now?"):
        asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
        async with shared.openai.chat.completions.stream(**asked) as answer:
            told = await answer.get_final_completion()
        ids += [call.id for call in told.choices[0].message.tool_calls or ()]
    assert len({*ids}) == 4
    assert all(ids)
