"""OpenAI's Responses at the door, through OpenAI's unmodified SDK: passed through, translated, refused."""

import msgspec
import openai
import pytest

from tests.gateway._vendors import (
    ANTHROPIC_STREAM,
    ANTHROPIC_TEXT,
    ANTHROPIC_TOOLS_STREAM,
    CUT,
    reply,
    sse,
    stream,
)
from tests.server._world import World

USAGE = {
    "input_tokens": 120,
    "input_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 0},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 127,
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hello there", "annotations": [], "logprobs": []}],
}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "model": "gpt-4o-2024-08-06",
    "output": [MESSAGE],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": USAGE,
}
BEGUN = {**RESPONSE, "status": "in_progress", "output": [], "usage": None}
PLACE = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
PART = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
EVENTS = [
    {"type": "response.created", "response": BEGUN},
    {"type": "response.output_item.added", "output_index": 0, "item": {**MESSAGE, "content": []}},
    {"type": "response.content_part.added", **PLACE, "part": PART},
    {"type": "response.output_text.delta", **PLACE, "delta": "Hello", "logprobs": []},
    {"type": "response.output_text.delta", **PLACE, "delta": " there", "logprobs": []},
    {"type": "response.content_part.done", **PLACE, "part": {**PART, "text": "Hello there"}},
    {"type": "response.output_item.done", "output_index": 0, "item": MESSAGE},
    {"type": "response.completed", "response": RESPONSE},
]
STREAM = [sse({**event, "sequence_number": number}, name=True) for number, event in enumerate(EVENTS)]
TOOL = {
    "type": "function",
    "name": "stock",
    "parameters": {"type": "object", "properties": {"sku": {"type": "string"}}},
    "strict": False,
}


async def test_bytes_pass_to_a_provider_that_speaks_it(shared: World) -> None:
    vendor = shared.script("openai", reply(msgspec.json.encode(RESPONSE)))
    items = [{"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"}]
    tools = [
        TOOL,
        {"type": "namespace", "name": "n", "description": "d", "tools": [TOOL]},
        {"type": "web_search"},
    ]
    read = await shared.openai.responses.create(model="openai/gpt-4o", input=items, tools=tools, store=False)
    assert read.output_text == "Hello there"
    (asked,) = vendor.asked
    assert asked.path == "/v1/responses"
    assert asked.headers["authorization"] == "Bearer sk-test-openai"
    assert (asked.json["model"], asked.json["input"], asked.json["tools"]) == ("gpt-4o", items, tools)


async def test_a_stream_passes_through(shared: World) -> None:
    shared.script("openai", stream(*STREAM))
    async with shared.openai.responses.stream(model="openai/gpt-4o", input="Hi") as told:
        kinds = [event.type async for event in told]
        read = await told.get_final_response()
    assert (kinds[0], kinds[-1], read.output_text) == (
        "response.created",
        "response.completed",
        "Hello there",
    )


async def test_a_model_without_a_provider_goes_where_the_wire_is_spoken(shared: World) -> None:
    vendor = shared.script("openai", reply(msgspec.json.encode(RESPONSE)))
    await shared.openai.responses.create(model="whatever", input="Hi")
    assert vendor.asked[0].json["model"] == "whatever"


async def test_it_is_translated_for_a_provider_of_another_wire(shared: World) -> None:
    vendor = shared.script("anthropic", reply(ANTHROPIC_TEXT))
    read = await shared.openai.responses.create(
        model="anthropic/claude-sonnet-4-5",
        instructions="be brief",
        input=[{"role": "user", "content": "Hi"}],
        max_output_tokens=50,
        metadata={"team": "east"},
    )
    assert (read.output_text, read.status, read.metadata) == ("Hello there", "completed", {"team": "east"})
    assert (read.usage.input_tokens, read.usage.output_tokens) == (120, 7)
    assert read.instructions == "be brief"
    (asked,) = vendor.asked
    assert asked.path == "/v1/messages"
    assert (asked.json["system"], asked.json["max_tokens"]) == ("be brief", 50)


@pytest.mark.parametrize(
    ("script", "text"), [(ANTHROPIC_STREAM, "Hello there"), (ANTHROPIC_TOOLS_STREAM, "")]
)
async def test_a_stream_is_translated(shared: World, script: list[bytes], text: str) -> None:
    shared.script("anthropic", stream(*script))
    async with shared.openai.responses.stream(
        model="anthropic/claude-sonnet-4-5", input="Hi", tools=[TOOL]
    ) as told:
        read = await told.get_final_response()
    assert read.output_text == text
    calls = [(item.call_id, item.arguments) for item in read.output if item.type == "function_call"]
    assert calls == ([] if text else [("toolu_1", '{"sku":"4482"}')])
    assert read.usage.output_tokens == 7


async def test_a_whole_turn_with_a_tool_on_another_vendors_model(shared: World) -> None:
    vendor = shared.script("anthropic", stream(*ANTHROPIC_TOOLS_STREAM), reply(ANTHROPIC_TEXT))
    model, asked = "anthropic/claude-sonnet-4-5", {"role": "user", "content": "Stock?"}
    async with shared.openai.responses.stream(model=model, input=[asked], tools=[TOOL]) as told:
        said = (await told.get_final_response()).output
    items = [asked, *(item.model_dump(exclude_none=True) for item in said)]
    items.append({"type": "function_call_output", "call_id": "toolu_1", "output": "0"})
    await shared.openai.responses.create(model=model, input=items, tools=[TOOL])
    user, assistant, result = vendor.asked[1].json["messages"]
    assert user == {"role": "user", "content": "Stock?"}
    assert (
        assistant["content"][0] | {"id": "toolu_1", "name": "stock", "input": {"sku": "4482"}}
        == (assistant["content"][0])
    )
    assert result["content"][0]["tool_use_id"] == "toolu_1"


async def test_a_vendors_own_tool_is_refused_towards_another_vendor(shared: World) -> None:
    vendor = shared.script("anthropic", reply(ANTHROPIC_TEXT))
    with pytest.raises(openai.BadRequestError, match="own tool") as raised:
        await shared.openai.responses.create(
            model="anthropic/claude-sonnet-4-5", input="Hi", tools=[TOOL, {"type": "web_search"}]
        )
    assert raised.value.param == "tools[1]"
    assert not vendor.asked


@pytest.mark.parametrize("model", ["openai/gpt-4o", "anthropic/claude-sonnet-4-5"])
async def test_a_stream_that_breaks_off_is_an_error(shared: World, model: str) -> None:
    shared.script("openai", stream(*STREAM[:4], CUT))
    shared.script("anthropic", stream(*ANTHROPIC_STREAM[:2], CUT))
    with pytest.raises(openai.APIError):
        async for _ in await shared.openai.responses.create(model=model, input="Hi", stream=True):
            pass


async def test_a_refusal_of_the_vendor_comes_in_this_dialect(shared: World) -> None:
    error = {
        "error": {"message": "No such model", "type": "invalid_request_error", "code": "model_not_found"}
    }
    shared.script("openai", reply(msgspec.json.encode(error), status=404))
    with pytest.raises(openai.NotFoundError, match="No such model"):
        await shared.openai.responses.create(model="openai/gpt-none", input="Hi")
