"""Anthropic's Messages wants a limit of every answer: what is asked for where nobody set one."""

import pytest
from msgspec import structs

from freehold.catalog import catalog
from freehold.core.messages import Message, ModelRequest, ReasoningSetting, Text
from freehold.core.stream import fold
from freehold.wires.anthropic_messages._request_encode import TOKENS_MAX_DEFAULT
from tests.gateway._vendors import ANTHROPIC_STREAM, ANTHROPIC_TEXT, Vendor, reply, stream
from tests.gateway.conftest import open_house

ASK = ModelRequest(model="", messages=(Message("user", (Text("hi"),)),))


@pytest.mark.parametrize(
    ("model", "more", "limit"),
    [
        ("claude-opus-4-1", {"stream": True}, 32_000),
        ("claude-opus-4-1-20250805", {"stream": True}, 32_000),
        ("claude-opus-5", {"stream": True}, 64_000),
        ("claude-opus-5", {}, 16_384),
        ("claude-opus-4-1", {"reasoning": ReasoningSetting(budget_tokens=30_000)}, 32_000),
        ("claude-opus-5", {"tokens_max": 7}, 7),
        ("claude-of-tomorrow", {"stream": True}, TOKENS_MAX_DEFAULT),
    ],
)
async def test_without_a_limit_the_models_own_is_asked_for(
    model: str, more: dict[str, object], limit: int
) -> None:
    request = structs.replace(ASK, **more)
    script = stream(*ANTHROPIC_STREAM) if request.stream else reply(ANTHROPIC_TEXT)
    async with Vendor(script) as vendor:
        row = structs.replace(catalog.providers()["anthropic"], base_url=vendor.url)
        async with open_house(rows={"anthropic": row}, environment={"ANTHROPIC_API_KEY": "k"}) as house:
            target = await house.models.resolve("acme", f"anthropic/{model}", wire="openai_chat")
            async with target.provider.call(structs.replace(request, model=target.name)) as events:
                fold([event async for event in events])
        assert vendor.asked[0].json["max_tokens"] == limit
