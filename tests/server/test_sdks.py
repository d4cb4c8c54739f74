"""The vendors' unmodified SDKs against our server, with either vendor's wire behind it: four pairs."""

import json
from collections.abc import Sequence
from typing import Any

import anthropic
import openai
import pytest

from tests._waiting import within
from tests.gateway._vendors import (
    ANTHROPIC_STREAM,
    ANTHROPIC_TEXT,
    ANTHROPIC_TOOLS_STREAM,
    CUT,
    HOLD,
    OPENAI_STREAM,
    OPENAI_TEXT,
    OPENAI_TOOLS_STREAM,
    Step,
    reply,
    stream,
)
from tests.server._world import World

MODELS = {"openai": "openai/gpt-4o", "anthropic": "anthropic/claude-sonnet-4-5"}
SCRIPTS: dict[str, dict[str, Sequence[Step]]] = {
    "openai": {
        "text": reply(OPENAI_TEXT),
        "stream": stream(*OPENAI_STREAM),
        "tools": stream(*OPENAI_TOOLS_STREAM),
    },
    "anthropic": {
        "text": reply(ANTHROPIC_TEXT),
        "stream": stream(*ANTHROPIC_STREAM),
        "tools": stream(*ANTHROPIC_TOOLS_STREAM),
    },
}
PARAMETERS = {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}
OPENAI_TOOL: Any = {"type": "function", "function": {"name": "stock", "parameters": PARAMETERS}}
ANTHROPIC_TOOL: Any = {"name": "stock", "input_schema": PARAMETERS}
HELLO: Any = [{"role": "user", "content": "Hello"}]

behind = pytest.mark.parametrize("vendor", ["openai", "anthropic"])


@behind
async def test_openais_sdk_gets_a_whole_answer(shared: World, vendor: str) -> None:
    shared.script(vendor, SCRIPTS[vendor]["text"])
    answer = await shared.openai.chat.completions.create(model=MODELS[vendor], messages=HELLO)
    assert answer.choices[0].message.content == "Hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 120
    assert answer.usage.completion_tokens == 7
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 100


@behind
async def test_openais_sdk_streams(shared: World, vendor: str) -> None:
    shared.script(vendor, SCRIPTS[vendor]["stream"])
    chunks = await shared.openai.chat.completions.create(
        model=MODELS[vendor], messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    text, usage, reasons = "", None, []
    async for chunk in chunks:
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        reasons += [choice.finish_reason for choice in chunk.choices if choice.finish_reason]
        usage = chunk.usage or usage
    assert (text, reasons) == ("Hello there", ["stop"])
    assert usage is not None
    assert usage.prompt_tokens == 120


async def test_an_answer_to_which_a_vendor_gave_no_id_has_the_requests(shared: World) -> None:
    nameless = b'"id":"chatcmpl-1"'
    shared.script("openai", reply(OPENAI_TEXT.replace(nameless, b'"id":""')))
    asked = {"model": MODELS["openai"], "messages": HELLO, "max_tokens": 9}
    whole = await shared.anthropic.messages.with_raw_response.create(**asked)
    assert (await whole.parse()).id == whole.headers["request-id"]
    shared.script("openai", stream(*(piece.replace(nameless, b'"id":null') for piece in OPENAI_STREAM)))
    async with shared.anthropic.messages.stream(**asked) as told:
        streamed = await told.get_final_message()
        assert streamed.id == told.response.headers["request-id"]
    assert streamed.id.startswith("req_")


@behind
async def test_openais_sdk_streams_without_usage_that_it_did_not_ask_for(shared: World, vendor: str) -> None:
    shared.script(vendor, SCRIPTS[vendor]["stream"])
    chunks = await shared.openai.chat.completions.create(model=MODELS[vendor], messages=HELLO, stream=True)
    assert [chunk.usage async for chunk in chunks if chunk.usage is not None or not chunk.choices] == []


@behind
async def test_openais_sdk_streams_tool_calls(shared: World, vendor: str) -> None:
    asked = shared.script(vendor, SCRIPTS[vendor]["tools"])
    async with shared.openai.chat.completions.stream(
        model=MODELS[vendor], messages=HELLO, tools=[OPENAI_TOOL]
    ) as events:
        async for _ in events:
            pass
        answer = await events.get_final_completion()
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.function.name == "stock"
    assert json.loads(call.function.arguments) == {"sku": "4482"}
    (tool,) = asked.asked[0].json["tools"]
    assert tool.get("input_schema", tool.get("function", {}).get("parameters")) == PARAMETERS


@behind
async def test_anthropics_sdk_gets_a_whole_answer(shared: World, vendor: str) -> None:
    shared.script(vendor, SCRIPTS[vendor]["text"])
    answer = await shared.anthropic.messages.create(model=MODELS[vendor], max_tokens=100, messages=HELLO)
    (block,) = answer.content
    assert block.type == "text"
    assert block.text == "Hello there"
    assert answer.stop_reason == "end_turn"
    assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens, answer.usage.output_tokens) == (
        20,
        100,
        7,
    )


@behind
async def test_anthropics_sdk_streams(shared: World, vendor: str) -> None:
    shared.script(vendor, SCRIPTS[vendor]["stream"])
    async with shared.anthropic.messages.stream(
        model=MODELS[vendor], max_tokens=100, messages=HELLO
    ) as events:
        pieces = [piece async for piece in events.text_stream]
        answer = await events.get_final_message()
    assert "".join(pieces) == "Hello there"
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens == 7


@behind
async def test_anthropics_sdk_streams_tool_calls(shared: World, vendor: str) -> None:
    shared.script(vendor, SCRIPTS[vendor]["tools"])
    async with shared.anthropic.messages.stream(
        model=MODELS[vendor], max_tokens=100, messages=HELLO, tools=[ANTHROPIC_TOOL]
    ) as events:
        answer = await events.get_final_message()
    assert answer.stop_reason == "tool_use"
    (call,) = [block for block in answer.content if block.type == "tool_use"]
    assert (call.name, call.input) == ("stock", {"sku": "4482"})


@behind
async def test_a_tool_result_reaches_the_vendor(shared: World, vendor: str) -> None:
    asked = shared.script(vendor, SCRIPTS[vendor]["text"])
    conversation: Any = [
        {"role": "user", "content": "How many?"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t1", "name": "stock", "input": {"sku": "1"}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "seven"}]},
    ]
    await shared.anthropic.messages.create(
        model=MODELS[vendor], max_tokens=100, messages=conversation, tools=[ANTHROPIC_TOOL]
    )
    told = asked.asked[0].json["messages"]
    last = told[-1]
    assert "seven" in json.dumps(last)
    assert last["role"] == ("tool" if vendor == "openai" else "user")


@behind
async def test_a_vendors_refusal_comes_in_the_clients_dialect(shared: World, vendor: str) -> None:
    body = b'{"type":"error","error":{"type":"rate_limit_error","message":"slow down","code":"rate_limit_exceeded"}}'
    shared.script(vendor, reply(body, status=429, headers="retry-after: 7\r\n"))
    with pytest.raises(openai.RateLimitError) as from_openai:
        await shared.openai.chat.completions.create(model=MODELS[vendor], messages=HELLO)
    with pytest.raises(anthropic.RateLimitError) as from_anthropic:
        await shared.anthropic.messages.create(model=MODELS[vendor], max_tokens=9, messages=HELLO)
    assert from_openai.value.response.headers["retry-after"] == "7"
    assert from_anthropic.value.response.headers["retry-after"] == "7"


@behind
async def test_a_stream_that_is_cut_ends_as_an_error(shared: World, vendor: str) -> None:
    pieces = OPENAI_STREAM if vendor == "openai" else ANTHROPIC_STREAM
    shared.script(vendor, stream(*pieces[:3], CUT))
    chunks = await shared.openai.chat.completions.create(model=MODELS[vendor], messages=HELLO, stream=True)
    with pytest.raises(openai.APIError):
        async for _ in chunks:
            pass
    shared.script(vendor, stream(*pieces[:3], CUT))
    with pytest.raises(anthropic.APIError):
        await _final(shared, vendor)


async def _final(world: World, vendor: str) -> Any:
    async with world.anthropic.messages.stream(model=MODELS[vendor], max_tokens=9, messages=HELLO) as events:
        return await events.get_final_message()


@behind
async def test_a_client_that_hangs_up_hangs_up_the_vendor(shared: World, vendor: str) -> None:
    pieces = OPENAI_STREAM if vendor == "openai" else ANTHROPIC_STREAM
    asked = shared.script(vendor, stream(*pieces[:3], HOLD))
    chunks = await shared.openai.chat.completions.create(model=MODELS[vendor], messages=HELLO, stream=True)
    await anext(aiter(chunks))
    await chunks.close()
    async with within("the vendor to be hung up on"):
        await asked.hung_up.wait()


async def test_an_unknown_model_is_refused_in_each_dialect(shared: World) -> None:
    with pytest.raises(openai.NotFoundError, match="rules"):
        await shared.openai.chat.completions.create(model="rules/nobody", messages=HELLO)
    with pytest.raises(anthropic.NotFoundError, match="rules"):
        await shared.anthropic.messages.create(model="rules/nobody", max_tokens=9, messages=HELLO)


async def test_a_wrong_key_is_refused_in_each_dialect(shared: World) -> None:
    with pytest.raises(openai.AuthenticationError):
        await shared.openai.with_options(api_key="fh_wrong").chat.completions.create(
            model="x", messages=HELLO
        )
    with pytest.raises(anthropic.AuthenticationError):
        await shared.anthropic.with_options(api_key="fh_wrong").messages.create(
            model="x", max_tokens=9, messages=HELLO
        )


async def test_each_sdk_lists_models_in_its_own_shape(shared: World) -> None:
    ours = [model.id async for model in shared.openai.models.list()]
    theirs = [model.id async for model in shared.anthropic.models.list()]
    assert {"openai/gpt-4o", "anthropic/claude-sonnet-4-5"} <= {*ours} & {*theirs}
    assert "gpt-4o" in ours, "an upstream takes bare names of its wire"
    assert "gpt-4o" not in theirs
