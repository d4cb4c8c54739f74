"""Which of OpenAI's wires a model is asked by: the client's own if the model is there, the catalog's way if not, or what is declared."""

from typing import Any

import msgspec
import pytest
from msgspec import structs

from freehold.catalog import catalog
from freehold.core.errors import BadRequest, NotFound
from freehold.core.messages import Message, ModelRequest, Reasoning, Text
from freehold.core.resources import Provider
from freehold.core.stream import fold
from tests.gateway._vendors import Vendor, reply
from tests.gateway.conftest import House, open_house

CHAT, RESPONSES, ANTHROPIC = "openai_chat", "openai_responses", "anthropic_messages"
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "c2VhbGVk"}
SAID = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "So."}],
}
ANSWER = msgspec.json.encode(
    {"id": "resp_1", "object": "response", "model": "o3", "status": "completed", "output": [THOUGHT, SAID]}
)  # fmt: skip
ASK = ModelRequest(model="o3", messages=(Message("user", (Text("hi"),)),))


async def wire_of(house: House, model: str, client: str) -> str | None:
    return (await house.models.resolve("acme", model, wire=client)).provider.wire


@pytest.mark.parametrize(
    ("model", "of_chat", "of_responses", "of_others"),
    [
        ("gpt-4o", CHAT, RESPONSES, CHAT),
        ("gpt-4.1-mini", CHAT, RESPONSES, CHAT),
        ("gpt-5-chat-latest", CHAT, RESPONSES, CHAT),
        ("gpt-4o-search-preview", CHAT, RESPONSES, CHAT),
        ("o3", CHAT, RESPONSES, RESPONSES),
        ("o4-mini-2025-04-16", CHAT, RESPONSES, RESPONSES),
        ("gpt-5", CHAT, RESPONSES, RESPONSES),
        ("gpt-5.4-mini", CHAT, RESPONSES, RESPONSES),
        ("GPT-6.1-terra", CHAT, RESPONSES, RESPONSES),
        ("o1-pro", RESPONSES, RESPONSES, RESPONSES),
        ("o3-pro-2025-06-10", RESPONSES, RESPONSES, RESPONSES),
        ("gpt-5-pro", RESPONSES, RESPONSES, RESPONSES),
        ("gpt-5.5-pro", RESPONSES, RESPONSES, RESPONSES),
        ("gpt-5.1-codex-max", RESPONSES, RESPONSES, RESPONSES),
        ("codex-mini-latest", RESPONSES, RESPONSES, RESPONSES),
        ("computer-use-preview", RESPONSES, RESPONSES, RESPONSES),
        ("o4-mini-deep-research", RESPONSES, RESPONSES, RESPONSES),
    ],
)
async def test_a_model_of_openai_is_asked_where_it_is_whole(
    model: str, of_chat: str, of_responses: str, of_others: str
) -> None:
    async with open_house(environment={"OPENAI_API_KEY": "k"}) as house:
        name = f"openai/{model}"
        assert await wire_of(house, name, CHAT) == of_chat
        assert await wire_of(house, name, RESPONSES) == of_responses
        for client in (ANTHROPIC, "google_generate", "session"):
            assert await wire_of(house, name, client) == of_others


async def test_other_hosts_of_the_same_names_are_asked_as_before() -> None:
    async with open_house(environment={"OPENROUTER_API_KEY": "k"}) as house:
        assert await wire_of(house, "openrouter/openai/o3", ANTHROPIC) == CHAT


async def test_an_address_may_be_declared_to_be_asked_by_responses_alone() -> None:
    async with Vendor(reply(ANSWER)) as vendor, open_house() as house:
        mine = Provider(name="mine", type="openai", base_url=f"{vendor.url}/v1", wire=RESPONSES)
        house.declared.declare(mine)
        for client in (CHAT, RESPONSES, ANTHROPIC):
            assert await wire_of(house, "mine/any", client) == RESPONSES
        answer = await asked(house, "mine/any")
        assert vendor.asked[0].path == "/v1/responses"
        assert isinstance(answer.content[0], Reasoning)
        assert answer.text() == "So."
        house.declared.declare(structs.replace(mine, wire=CHAT))
        assert await wire_of(house, "mine/any", RESPONSES) == CHAT


async def test_a_wire_that_the_type_does_not_speak_is_refused_by_name() -> None:
    async with open_house() as house:
        for kind, wire in (("anthropic", CHAT), ("openai", ANTHROPIC)):
            house.declared.declare(Provider(name="mine", type=kind, base_url="http://127.0.0.1:1", wire=wire))
            with pytest.raises(NotFound, match=r"cannot be asked: wire"):
                await house.models.resolve("acme", "mine/x", wire=CHAT)


async def asked(house: House, model: str) -> Any:
    target = await house.models.resolve("acme", model, wire=ANTHROPIC)
    async with target.provider.call(structs.replace(ASK, model=target.name)) as events:
        return fold([event async for event in events])


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("/openai/v1", "/openai/v1/responses"),
        ("/openai/v1?api-version=preview", "/openai/v1/responses?api-version=preview"),
        ("?api-version=2025-04-01-preview", "/openai/responses?api-version=2025-04-01-preview"),
    ],
)
async def test_azures_reasoning_models_are_asked_by_responses(base: str, path: str) -> None:
    async with Vendor(reply(ANSWER)) as vendor, open_house(environment={"KEY": "k"}) as house:
        house.declared.declare(
            Provider(name="mine", type="azure", base_url=f"{vendor.url}{base}", api_key="env:KEY")
        )
        assert (await asked(house, "mine/o3")).text() == "So."
        (seen,) = vendor.asked
        assert (seen.path, seen.json["model"], seen.headers["api-key"]) == (path, "o3", "k")
        assert (seen.json["store"], seen.json["include"]) == (False, ["reasoning.encrypted_content"])
        assert await wire_of(house, "mine/o3", CHAT) == CHAT
        assert await wire_of(house, "mine/gpt-4o", ANTHROPIC) == CHAT


async def test_an_address_of_azures_before_responses_goes_on_with_chat() -> None:
    async with open_house(environment={"KEY": "k"}) as house:
        base = "http://127.0.0.1:1?api-version=2024-10-21"
        house.declared.declare(Provider(name="mine", type="azure", base_url=base, api_key="env:KEY"))
        assert await wire_of(house, "mine/o3", ANTHROPIC) == CHAT
        house.declared.declare(
            Provider(name="mine", type="azure", base_url=base, api_key="env:KEY", wire=RESPONSES)
        )
        with pytest.raises(NotFound, match="has Responses since"):
            await wire_of(house, "mine/o3", ANTHROPIC)


async def test_azure_is_found_by_its_environment() -> None:
    environment = {"AZURE_OPENAI_API_KEY": "k", "AZURE_RESOURCE_NAME": "my-resource"}
    async with open_house(environment=environment) as house:
        assert await wire_of(house, "azure/gpt-4o", CHAT) == CHAT
        assert await wire_of(house, "azure/o3", ANTHROPIC) == RESPONSES
    async with open_house(environment={"AZURE_OPENAI_API_KEY": "k"}) as house:
        with pytest.raises(NotFound, match="AZURE_RESOURCE_NAME"):
            await wire_of(house, "azure/gpt-4o", CHAT)


ROW = '[[provider]]\nname = "x"\ntype = "openai"\nbase_url = "http://x"\n'
WAY = '[[way]]\nof = ["x"]\nwire = "openai_responses"\nmodels = ["a*"]\n'


@pytest.mark.parametrize(
    ("toml", "named"),
    [
        (ROW + WAY.replace('"x"', '"y"'), "'y'"),
        (ROW + WAY + "colour = 1\n", "colour"),
        (ROW + 'wire = "openai_chat"\n', "way"),
    ],
)
def test_a_wrong_way_is_refused_and_says_why(toml: str, named: str) -> None:
    with pytest.raises(BadRequest) as refused:
        catalog.decode(toml.encode())
    assert named in str(refused.value)
