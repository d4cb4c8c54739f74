"""OpenAI's Responses with a memory, through OpenAI's unmodified SDK: kept answers, chains across vendors, conversations."""

from typing import Any

import msgspec
import openai
import pytest

from tests.gateway._vendors import ANTHROPIC_STREAM, ANTHROPIC_TEXT, ANTHROPIC_TOOLS_STREAM, reply, stream
from tests.server._world import World
from tests.server.test_responses import RESPONSE, STREAM, TOOL

CLAUDE = "anthropic/claude-sonnet-4-5"
GPT = "openai/gpt-5"
GPT_ANSWER = msgspec.json.encode(RESPONSE)


async def test_an_answer_is_kept_unless_the_client_says_no(shared: World) -> None:
    shared.script("anthropic", reply(ANTHROPIC_TEXT))
    made = await shared.openai.responses.create(model=CLAUDE, input="Hi", metadata={"team": "east"})
    assert made.id.startswith("resp_")
    found = await shared.openai.responses.retrieve(made.id)
    assert found.model_dump() == made.model_dump()
    assert (found.output_text, found.metadata, found.status) == ("Hello there", {"team": "east"}, "completed")
    other = await shared.openai.responses.create(model=CLAUDE, input="Hi", store=False)
    with pytest.raises(openai.NotFoundError, match=f"Response with id '{other.id}' not found"):
        await shared.openai.responses.retrieve(other.id)


async def test_a_stream_is_kept_when_its_last_event_comes(shared: World) -> None:
    for vendor, model, script in (("anthropic", CLAUDE, ANTHROPIC_STREAM), ("openai", GPT, STREAM)):
        shared.script(vendor, stream(*script))
        ids = set()
        async for event in await shared.openai.responses.create(model=model, input="Hi", stream=True):
            if event.type in ("response.created", "response.in_progress", "response.completed"):
                ids.add(event.response.id)
            if event.type == "response.completed":
                found = await shared.openai.responses.retrieve(event.response.id)
                assert found.output_text == event.response.output_text == "Hello there"
                assert found.model_dump() == event.response.model_dump()
        assert len(ids) == 1


async def test_a_chain_goes_from_one_vendors_model_to_anothers_and_back(shared: World) -> None:
    claude = shared.script("anthropic", reply(ANTHROPIC_TEXT))
    gpt = shared.script("openai", reply(GPT_ANSWER))
    create = shared.openai.responses.create
    first = await create(model=CLAUDE, input="One", instructions="be brief")
    second = await create(
        model=GPT, input=[{"role": "user", "content": "Two"}], previous_response_id=first.id
    )
    third = await create(model=CLAUDE, input="Three", previous_response_id=second.id)
    assert (second.previous_response_id, third.previous_response_id) == (first.id, second.id)
    (asked,) = gpt.asked
    assert asked.json["store"] is False
    assert asked.json["include"] == ["reasoning.encrypted_content"]
    assert "previous_response_id" not in asked.json
    assert "instructions" not in asked.json
    assert texts(asked.json["input"]) == ["One", "Hello there", "Two"]
    last = claude.asked[-1].json
    assert "system" not in last
    assert texts(last["messages"]) == ["One", "Hello there", "Two", "Hello there", "Three"]


async def test_a_model_that_is_known_not_to_reason_is_not_asked_for_reasoning(shared: World) -> None:
    gpt = shared.script("openai", reply(GPT_ANSWER))
    await shared.openai.responses.create(model="openai/gpt-4o", input="Hi")
    assert gpt.asked[0].json["include"] == []


async def test_a_request_that_keeps_nothing_passes_as_it_came(shared: World) -> None:
    gpt = shared.script("openai", reply(GPT_ANSWER))
    made = await shared.openai.responses.create(model=GPT, input="Hi", store=False)
    assert made.id == "resp_1"
    assert gpt.asked[0].json == {"model": "gpt-5", "input": "Hi", "store": False}


REASONING = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "sealed"}


async def test_reasoning_returns_to_its_vendor_and_to_no_other(shared: World) -> None:
    gpt = shared.script(
        "openai", reply(msgspec.json.encode({**RESPONSE, "output": [REASONING, *RESPONSE["output"]]}))
    )
    claude = shared.script("anthropic", reply(ANTHROPIC_TEXT))
    create = shared.openai.responses.create
    first = await create(model=GPT, input="One")
    elsewhere = await create(model=CLAUDE, input="Two", previous_response_id=first.id)
    await create(model=GPT, input="Three", previous_response_id=elsewhere.id)
    assert "sealed" not in claude.asked[0].body.decode()
    assert REASONING in gpt.asked[-1].json["input"]


@pytest.mark.slow
async def test_a_tools_result_goes_on_where_the_call_was_kept(shared: World) -> None:
    claude = shared.script("anthropic", stream(*ANTHROPIC_TOOLS_STREAM), reply(ANTHROPIC_TEXT))
    async with shared.openai.responses.stream(model=CLAUDE, input="Stock?", tools=[TOOL]) as told:
        first = await told.get_final_response()
    result = {"type": "function_call_output", "call_id": "toolu_1", "output": "0"}
    await shared.openai.responses.create(
        model=CLAUDE, input=[result], tools=[TOOL], previous_response_id=first.id
    )
    _, said, answered = claude.asked[1].json["messages"]
    assert said["content"][0]["id"] == answered["content"][0]["tool_use_id"] == "toolu_1"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [CLAUDE, GPT])
async def test_what_is_not_there_is_told_before_anybody_is_asked(
    shared: World, model: str, stream: bool
) -> None:
    vendors = [shared.script("openai", reply(b"{}")), shared.script("anthropic", reply(b"{}"))]
    for more, status, code in (
        ({"previous_response_id": "resp_none"}, 400, "previous_response_not_found"),
        ({"conversation": "conv_none"}, 404, "not_found"),
    ):
        with pytest.raises(openai.APIStatusError, match="not found") as raised:
            await shared.openai.responses.create(model=model, input="Hi", stream=stream, **more)
        told = raised.value
        assert (told.status_code, told.code, [told.param]) == (status, code, [*more])
    with pytest.raises(openai.BadRequestError, match="Mutually exclusive"):
        await shared.openai.responses.create(
            model=model, input="Hi", previous_response_id="resp_1", conversation="conv_1"
        )
    assert not any(vendor.asked for vendor in vendors)


async def test_input_items_are_listed_page_by_page(shared: World) -> None:
    shared.script("anthropic", reply(ANTHROPIC_TEXT))
    first = await shared.openai.responses.create(model=CLAUDE, input="One")
    second = await shared.openai.responses.create(model=CLAUDE, input="Two", previous_response_id=first.id)
    listing = shared.openai.responses.input_items.list
    newest = [item.model_dump() async for item in listing(second.id, limit=2)]
    oldest = [item.model_dump() async for item in listing(second.id, limit=1, order="asc")]
    assert newest == oldest[::-1]
    assert [item["content"][0]["text"] for item in oldest] == ["One", "Hello there", "Two"]
    assert len({item["id"] for item in oldest}) == 3
    page = await listing(second.id, after=oldest[0]["id"], limit=1, order="asc")
    assert (page.data[0].id, page.has_more) == (oldest[1]["id"], True)
    with pytest.raises(openai.BadRequestError, match="expected 1 to 100"):
        await listing(second.id, limit=101)


async def test_a_deleted_answer_is_gone_and_ends_its_chain(shared: World) -> None:
    shared.script("anthropic", reply(ANTHROPIC_TEXT))
    first = await shared.openai.responses.create(model=CLAUDE, input="One")
    second = await shared.openai.responses.create(model=CLAUDE, input="Two", previous_response_id=first.id)
    await shared.openai.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        await shared.openai.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError, match=f"Previous response with id '{first.id}' not found"):
        await shared.openai.responses.create(model=CLAUDE, input="Three", previous_response_id=second.id)
    assert (await shared.openai.responses.retrieve(second.id)).output_text == "Hello there"


async def test_a_synchronous_answer_cannot_be_cancelled(shared: World) -> None:
    shared.script("anthropic", reply(ANTHROPIC_TEXT))
    made = await shared.openai.responses.create(model=CLAUDE, input="One")
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        await shared.openai.responses.cancel(made.id)


async def test_a_conversation_gathers_what_was_said_by_any_model(shared: World) -> None:
    claude = shared.script("anthropic", reply(ANTHROPIC_TEXT))
    gpt = shared.script("openai", stream(*STREAM))
    conversations = shared.openai.conversations
    begun = await conversations.create(
        items=[{"role": "user", "content": "Zero"}], metadata={"topic": "counting"}
    )
    made = await shared.openai.responses.create(model=CLAUDE, input="One", conversation=begun.id)
    assert made.conversation is not None
    assert made.conversation.id == begun.id
    async for _ in await shared.openai.responses.create(
        model=GPT, input="Two", conversation={"id": begun.id}, stream=True
    ):
        pass
    assert texts(claude.asked[0].json["messages"]) == ["Zero", "One"]
    assert texts(gpt.asked[0].json["input"]) == ["Zero", "One", "Hello there", "Two"]
    kept = [item async for item in conversations.items.list(begun.id, order="asc", limit=2)]
    assert [item.content[0].text for item in kept] == ["Zero", "One", "Hello there", "Two", "Hello there"]
    newest = [item.id async for item in conversations.items.list(begun.id, limit=2)]
    assert newest == [item.id for item in kept][::-1]


async def test_a_conversation_and_its_items_are_created_changed_and_deleted(shared: World) -> None:
    conversations = shared.openai.conversations
    begun = await conversations.create(metadata={"a": "b"})
    assert (begun.object, begun.metadata) == ("conversation", {"a": "b"})
    assert (await conversations.update(begun.id, metadata={"c": "d"})).metadata == {"c": "d"}
    assert (await conversations.retrieve(begun.id)).metadata == {"c": "d"}
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    added = await conversations.items.create(begun.id, items=[{"role": "user", "content": "Hi"}, call])
    assert [item.type for item in added.data] == ["message", "function_call"]
    item = await conversations.items.retrieve(added.data[0].id, conversation_id=begun.id)
    assert item.content[0].text == "Hi"
    assert (await conversations.items.delete(item.id, conversation_id=begun.id)).id == begun.id
    with pytest.raises(openai.NotFoundError, match="Item with id"):
        await conversations.items.retrieve(item.id, conversation_id=begun.id)
    with pytest.raises(openai.BadRequestError, match="at most 20 items"):
        await conversations.items.create(begun.id, items=[call] * 21)
    assert (await conversations.delete(begun.id)).deleted
    with pytest.raises(openai.NotFoundError, match="Conversation with id"):
        await conversations.retrieve(begun.id)


async def test_tokens_are_counted_with_what_came_before(shared: World) -> None:
    shared.script("anthropic", reply(ANTHROPIC_TEXT), reply(b'{"input_tokens":44}'))
    first = await shared.openai.responses.create(model=CLAUDE, input="One")
    counted = await shared.openai.responses.input_tokens.count(
        model=CLAUDE, input="Two", previous_response_id=first.id
    )
    assert counted.input_tokens == 44
    asked = shared.vendors["anthropic"].asked[-1]
    assert texts(asked.json["messages"]) == ["One", "Hello there", "Two"]


async def test_a_reference_stands_for_an_item_of_a_kept_answer(shared: World) -> None:
    claude = shared.script("anthropic", reply(ANTHROPIC_TEXT))
    create = shared.openai.responses.create
    first = await create(model=CLAUDE, input="One")
    asked = {"role": "user", "content": "Two"}
    referred = {"type": "item_reference", "id": first.output[0].id}
    second = await create(model=CLAUDE, input=[{"role": "user", "content": "One"}, referred, asked])
    await create(model=CLAUDE, input="Three", previous_response_id=second.id)
    assert texts(claude.asked[1].json["messages"]) == ["One", "Hello there", "Two"]
    assert texts(claude.asked[2].json["messages"]) == ["One", "Hello there", "Two", "Hello there", "Three"]
    with pytest.raises(openai.NotFoundError, match="Item with id 'msg_none'") as raised:
        await create(model=CLAUDE, input=[{"type": "item_reference", "id": "msg_none"}])
    assert raised.value.param == "input[0].id"


async def test_compaction_is_refused_aloud(shared: World) -> None:
    with pytest.raises(openai.BadRequestError, match="not compacted here"):
        await shared.openai.responses.compact(model=CLAUDE, input="Hi")


async def test_rights_are_asked_for_by_name(shared: World) -> None:
    shared.script("anthropic", reply(ANTHROPIC_TEXT))
    made = await shared.openai.responses.create(model=CLAUDE, input="One")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "model:Call"}]}
    key = await shared.json("POST", "/v1/keys", {"name": "caller", "policy": policy})
    async with openai.AsyncOpenAI(base_url=f"{shared.url}/v1", api_key=key["key"], max_retries=0) as caller:
        assert (await caller.responses.create(model=CLAUDE, input="One")).output_text == "Hello there"
        for refused, action in (
            (caller.responses.retrieve(made.id), "response:Get"),
            (caller.responses.delete(made.id), "response:Delete"),
            (caller.responses.cancel(made.id), "response:Cancel"),
            (caller.responses.create(model=CLAUDE, input="Hi", previous_response_id=made.id), "response:Get"),
            (caller.conversations.create(), "conversation:Create"),
            (caller.conversations.retrieve("conv_1"), "conversation:Get"),
            (caller.responses.create(model=CLAUDE, input="Hi", conversation="conv_1"), "conversation:Update"),
        ):
            with pytest.raises(openai.PermissionDeniedError, match=action):
                await refused


def texts(messages: list[dict[str, Any]]) -> list[str]:
    return [
        one["content"] if isinstance(one["content"], str) else one["content"][0]["text"] for one in messages
    ]
