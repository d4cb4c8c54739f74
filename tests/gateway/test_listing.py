"""The list of models: what a principal may call, from whoever knows."""

from msgspec import structs

from freehold.catalog import catalog
from freehold.clock import SystemClock
from freehold.core.policy import Policy, Principal, Statement
from freehold.core.ports import ModelInfo
from freehold.core.resources import Provider, Rules
from freehold.gateway import listing
from tests.gateway._vendors import OPENAI_TEXT, Vendor, reply
from tests.gateway.conftest import ANN, House, open_house

KEY = {"OPENAI_API_KEY": "sk-openai"}


async def listed(house: House, principal: Principal = ANN) -> dict[str, ModelInfo]:
    found = await listing.visible(house.models, principal, clock=SystemClock())
    return {f"{info.provider}/{info.name}": info for info in found}


async def test_a_providers_own_list_counts_and_prices_are_added() -> None:
    async with Vendor(reply(OPENAI_TEXT), models=["gpt-4o-2024-08-06", "model-of-tomorrow"]) as vendor:
        row = structs.replace(catalog.providers()["openai"], base_url=vendor.url)
        async with open_house(rows={"openai": row}, environment=KEY) as house:
            models = await listed(house)
            assert set(models) == {"openai/gpt-4o-2024-08-06", "openai/model-of-tomorrow"}
            priced, unknown = models["openai/gpt-4o-2024-08-06"], models["openai/model-of-tomorrow"]
            assert priced.price is not None
            assert priced.price.input.pico_per_token == 2_500_000
            assert priced.context_tokens == 128_000
            assert unknown.price is None
            await listed(house)
            assert vendor.listed_count == 1, "kept for a while"


async def test_a_provider_that_does_not_list_is_known_by_its_price_list_and_its_declaration() -> None:
    row = structs.replace(catalog.providers()["openai"], base_url="http://127.0.0.1:1/v1")
    async with open_house(rows={"openai": row}, environment=KEY) as house:
        own = Provider(name="own", type="openai", base_url="http://127.0.0.1:1/v1", models=("mine",))
        house.declared.declare(own, Rules(name="retail", rules=()))
        models = await listed(house)
        assert {"openai/gpt-4o", "own/mine", "rules/retail"} <= models.keys()
        assert "own/gpt-4o" not in models, "an address of one's own is not known to have it"


async def test_models_that_make_embeddings_are_told_apart() -> None:
    async with Vendor(
        reply(OPENAI_TEXT), models=["nomic-embed-text", "bge-m3:latest", "llama3.2:3b"]
    ) as ollama:
        row = structs.replace(catalog.providers()["ollama"], base_url=ollama.url)
        async with open_house(rows={"ollama": row}) as house:
            await house.models.discover()
            models = await listed(house)
    assert {name: info.embeds for name, info in models.items()} == {
        "ollama/nomic-embed-text": True,
        "ollama/bge-m3:latest": True,
        "ollama/llama3.2:3b": None,
    }


async def test_only_what_one_may_call_is_listed() -> None:
    row = structs.replace(catalog.providers()["openai"], base_url="http://127.0.0.1:1/v1")
    policy = Policy(statement=(Statement("Allow", "model:Call", "model/openai/gpt-4o*"),))
    async with open_house(rows={"openai": row}, environment=KEY) as house:
        house.declared.declare(Rules(name="retail", rules=()))
        models = await listed(house, Principal("acme", "service", "key_bob", (policy,)))
    assert "openai/gpt-4o" in models
    assert all(name.startswith("openai/gpt-4o") for name in models)
