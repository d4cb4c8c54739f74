"""OpenAI's Responses in the background: made though nobody waits, read again from any event on, stopped, and made after a SIGKILL."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response

from tests._waiting import eventually, within
from tests.gateway._vendors import (
    ANTHROPIC_STREAM,
    ANTHROPIC_TEXT,
    CUT,
    HOLD,
    Vendor,
    reply,
    stream,
)
from tests.server._process import Running, freehold
from tests.server._world import World
from tests.server.test_responses import STREAM

CLAUDE = "anthropic/claude-sonnet-4-5"
GPT = "openai/gpt-5"


async def ended(client: AsyncOpenAI, response_id: str) -> Response:
    async def has_ended() -> bool:
        return (await client.responses.retrieve(response_id)).status not in ("queued", "in_progress")

    await eventually(has_ended)
    return await client.responses.retrieve(response_id)


@pytest.mark.parametrize(
    ("vendor", "model", "script"), [("anthropic", CLAUDE, ANTHROPIC_STREAM), ("openai", GPT, STREAM)]
)
async def test_it_is_queued_made_and_found(
    shared: World, vendor: str, model: str, script: list[bytes]
) -> None:
    shared.script(vendor, stream(*script))
    made = await shared.openai.responses.create(
        model=model, input="Hi", instructions="be brief", background=True
    )
    assert (made.status, made.background, made.output, made.instructions) == ("queued", True, [], "be brief")
    found = await ended(shared.openai, made.id)
    assert (found.id, found.status, found.output_text) == (made.id, "completed", "Hello there")
    assert (found.background, found.previous_response_id, found.error) == (True, None, None)
    shared.script("anthropic", reply(ANTHROPIC_TEXT))
    after = await shared.openai.responses.create(model=CLAUDE, input="Go on", previous_response_id=made.id)
    asked = shared.vendors["anthropic"].asked[0].json["messages"]
    assert [one["role"] for one in asked] == ["user", "assistant", "user"]
    assert after.previous_response_id == made.id


@pytest.mark.parametrize(
    ("vendor", "model", "script"), [("anthropic", CLAUDE, ANTHROPIC_STREAM), ("openai", GPT, STREAM)]
)
async def test_its_stream_goes_on_from_any_event_without_loss_or_duplicate(
    shared: World, vendor: str, model: str, script: list[bytes]
) -> None:
    shared.script(vendor, stream(*script))
    whole = [
        event
        async for event in await shared.openai.responses.create(
            model=model, input="Hi", background=True, stream=True
        )
    ]
    assert [event.sequence_number for event in whole] == list(range(len(whole)))
    kinds = [event.type for event in whole]
    assert kinds[:2] == ["response.created", "response.queued"]
    assert kinds.count("response.created") == kinds.count("response.completed") == 1
    assert kinds[-1] == "response.completed"
    assert whole[-1].response.output_text == "Hello there"
    response_id = whole[0].response.id
    for after in (0, 1, len(whole) // 2, len(whole) - 2, len(whole) - 1, len(whole) + 5):
        again = [
            event
            async for event in await shared.openai.responses.retrieve(
                response_id, stream=True, starting_after=after
            )
        ]
        assert again == whole[after + 1 :]


async def test_it_is_made_for_a_client_that_hung_up(shared: World) -> None:
    gate = asyncio.Event()
    shared.script("anthropic", stream(*ANTHROPIC_STREAM))
    told = await shared.openai.responses.create(model=CLAUDE, input="Hi", background=True, stream=True)
    first = await anext(aiter(told))
    await told.close()
    gate.set()
    found = await ended(shared.openai, first.response.id)
    assert found.output_text == "Hello there"
    again = [
        event.sequence_number
        async for event in await shared.openai.responses.retrieve(
            first.response.id, stream=True, starting_after=first.sequence_number
        )
    ]
    assert again == list(range(1, len(again) + 1))


async def test_a_follower_sees_events_as_they_come(shared: World) -> None:
    vendor = shared.script("anthropic", stream(*ANTHROPIC_STREAM[:2], HOLD))
    told = await shared.openai.responses.create(model=CLAUDE, input="Hi", background=True, stream=True)
    async with within("some text"):
        async for event in told:
            if event.type == "response.output_text.delta":
                break
        await told.close()
        assert not vendor.hung_up.is_set()


async def test_it_is_cancelled_and_its_provider_hung_up_on(shared: World) -> None:
    vendor = shared.script("anthropic", stream(*ANTHROPIC_STREAM[:2], HOLD))
    made = await shared.openai.responses.create(model=CLAUDE, input="Hi", background=True)

    async def asked() -> bool:
        return bool(vendor.asked)

    await eventually(asked)
    with pytest.raises(openai.ConflictError, match="in_progress"):
        await shared.openai.responses.create(model=CLAUDE, input="Hi", previous_response_id=made.id)
    assert (await shared.openai.responses.cancel(made.id)).status == "cancelled"
    assert (await shared.openai.responses.cancel(made.id)).status == "cancelled"
    async with within("the vendor to be hung up on"):
        await vendor.hung_up.wait()
    assert (await shared.openai.responses.retrieve(made.id)).status == "cancelled"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            reply(b'{"type":"error","error":{"type":"overloaded_error","message":"Too much"}}', status=529),
            "is overloaded",
        ),
        (stream(*ANTHROPIC_STREAM[:3], CUT), ""),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_fails_says_why(shared: World, script: list[bytes], said: str, streamed: bool) -> None:
    shared.script("anthropic", script)
    made = shared.openai.responses.create(model=CLAUDE, input="Hi", background=True, stream=streamed)
    if streamed:
        events = [event async for event in await made]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[-1].type == "response.failed"
        response_id = events[-1].response.id
    else:
        response_id = (await made).id
    found = await ended(shared.openai, response_id)
    assert found.status == "failed"
    assert found.error is not None
    assert found.error.code == "server_error"
    assert said in found.error.message


async def test_what_cannot_be_is_refused_at_once(shared: World) -> None:
    create = shared.openai.responses.create
    with pytest.raises(openai.BadRequestError, match="store: true"):
        await create(model=CLAUDE, input="Hi", background=True, store=False)
    with pytest.raises(openai.NotFoundError):
        await create(model="mistral/nothing", input="Hi", background=True)
    with pytest.raises(openai.BadRequestError, match="Previous response"):
        await create(model=CLAUDE, input="Hi", background=True, previous_response_id="resp_none")
    shared.script("anthropic", reply(ANTHROPIC_TEXT))
    made = await create(model=CLAUDE, input="Hi")
    with pytest.raises(openai.BadRequestError, match="background: true and stream: true"):
        await shared.openai.responses.retrieve(made.id, stream=True)


async def test_it_adds_to_its_conversation(shared: World) -> None:
    shared.script("anthropic", stream(*ANTHROPIC_STREAM))
    conversation = await shared.openai.conversations.create()
    made = await shared.openai.responses.create(
        model=CLAUDE, input="Hi", background=True, conversation=conversation.id
    )
    await ended(shared.openai, made.id)
    listed = shared.openai.conversations.items.list(conversation.id, order="asc")
    assert [item.content[0].text async for item in listed] == ["Hi", "Hello there"]


@asynccontextmanager
async def process(folder: Path, vendor: Vendor) -> AsyncIterator[tuple[Running, AsyncOpenAI]]:
    (folder / "freehold.toml").write_text(f'[models.upstreams]\nanthropic_messages = "{vendor.url}"\n')
    opening = freehold(folder, environment={"ANTHROPIC_API_KEY": "sk-test"})
    server = await asyncio.to_thread(opening.__enter__)
    try:
        await asyncio.to_thread(server.ready)
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0) as client:
            yield server, client
    finally:
        await asyncio.to_thread(opening.__exit__, None, None, None)


@pytest.mark.slow
async def test_after_a_sigkill_it_is_made_again_unless_its_stream_had_begun(tmp_path: Path) -> None:
    half, whole = stream(*ANTHROPIC_STREAM[:2], HOLD), stream(*ANTHROPIC_STREAM)
    async with Vendor(half) as vendor:
        async with process(tmp_path, vendor) as (server, client):
            polled = await client.responses.create(model="claude-sonnet-4-5", input="Hi", background=True)
            told = await client.responses.create(
                model="claude-sonnet-4-5", input="Hi", background=True, stream=True
            )
            seen = []
            async for event in told:
                seen.append(event)
                if event.type == "response.output_text.delta":
                    break

            async def both_asked() -> bool:
                return len(vendor.asked) == 2

            await eventually(both_asked)
            await asyncio.to_thread(server.ended, signal.SIGKILL)
        vendor.play(whole)
        async with process(tmp_path, vendor) as (server, client):
            found = await ended(client, polled.id)
            assert (found.status, found.output_text) == ("completed", "Hello there")
            streamed = await ended(client, seen[0].response.id)
            assert streamed.status == "failed"
            assert streamed.error is not None
            assert "had begun to be told" in streamed.error.message
            again = [
                event
                async for event in await client.responses.retrieve(
                    streamed.id, stream=True, starting_after=seen[-1].sequence_number
                )
            ]
            numbers = [event.sequence_number for event in [*seen, *again]]
            assert numbers == list(range(len(numbers)))
            assert again[-1].type == "response.failed"
            assert len(vendor.asked) == 1
            await asyncio.to_thread(server.ended, signal.SIGTERM)


@pytest.mark.slow
async def test_a_stop_hands_it_back_and_a_start_goes_on(tmp_path: Path) -> None:
    async with Vendor(stream(*ANTHROPIC_STREAM[:2], HOLD)) as vendor:
        async with process(tmp_path, vendor) as (server, client):
            made = await client.responses.create(model="claude-sonnet-4-5", input="Hi", background=True)

            async def asked() -> bool:
                return bool(vendor.asked)

            await eventually(asked)
            code, _ = await asyncio.to_thread(server.ended, signal.SIGTERM)
            assert code == 0
        vendor.play(stream(*ANTHROPIC_STREAM))
        async with process(tmp_path, vendor) as (server, client):
            assert (await ended(client, made.id)).output_text == "Hello there"
            await asyncio.to_thread(server.ended, signal.SIGTERM)
