"""Which model a name stands for: declared, from the catalog, found on this machine, or nobody's, with a hint."""

import pytest
from msgspec import structs

from freehold.catalog import catalog
from freehold.core.errors import BadRequest, NotFound, Unavailable
from freehold.core.resources import Provider, Rule, Rules
from freehold.gateway import models as models_room
from tests.gateway._vendors import OPENAI_TEXT, Vendor, reply
from tests.gateway.conftest import House, open_house

BOTH = {"OPENAI_API_KEY": "sk-openai", "ANTHROPIC_API_KEY": "sk-ant"}
RULES = Rules(name="retail", rules=(Rule(name="hello", when="hello", answer="Hello."),))


async def answered_by(house: House, model: str, **how: str) -> str:
    target = await house.models.resolve("acme", model, **how)
    return f"{target.provider.name} {target.name}"


@pytest.mark.parametrize(
    ("model", "answered"),
    [
        ("openai/gpt-4o", "openai gpt-4o"),
        ("openai/gpt-4o-2024-08-06", "openai gpt-4o-2024-08-06"),
        ("openai/a-model-of-tomorrow", "openai a-model-of-tomorrow"),
        ("openrouter/meta-llama/llama-3.3-70b-instruct", "openrouter meta-llama/llama-3.3-70b-instruct"),
        ("gpt-4o", "openai gpt-4o"),
        ("claude-sonnet-4-5-20250929", "anthropic claude-sonnet-4-5-20250929"),
        ("meta-llama/llama-3.3-70b-instruct", "openrouter meta-llama/llama-3.3-70b-instruct"),
        ("auto", "anthropic claude-sonnet-5-5"),
        ("own/whatever", "own whatever"),
        ("own-model", "own own-model"),
        ("rules/retail", "rules retail"),
    ],
)
async def test_a_name_stands_for_one_model_of_one_provider(model: str, answered: str) -> None:
    async with open_house(environment={**BOTH, "OPENROUTER_API_KEY": "sk-or"}) as house:
        house.declared.declare(
            RULES,
            Provider(name="own", type="openai", base_url="http://127.0.0.1:9/v1", models=("own-model",)),
        )
        if model == "auto":
            house.declared.declare(Provider(name="own", type="openai", base_url="http://127.0.0.1:9/v1"))
            answered = "own gpt-6.1-terra"
        assert await answered_by(house, model) == answered


async def test_auto_takes_a_key_then_a_local_server_then_the_rules_then_nothing() -> None:
    async with Vendor(reply(OPENAI_TEXT), models=["nomic-embed-text", "llama3.2:3b"]) as ollama:
        rows = {
            "openai": catalog.providers()["openai"],
            "ollama": structs.replace(catalog.providers()["ollama"], base_url=ollama.url),
        }
        async with open_house(rows=rows, environment=BOTH) as house:
            assert await answered_by(house, "auto") == "openai gpt-6.1-terra"
        async with open_house(rows=rows) as house:
            house.declared.declare(RULES)
            assert await answered_by(house, "auto", rules="retail") == "rules retail"
            with pytest.raises(NotFound, match="OPENAI_API_KEY"):
                await house.models.resolve("acme", "auto")
            await house.models.discover()
            assert await answered_by(house, "auto", rules="retail") == "ollama llama3.2:3b"
            assert await answered_by(house, "llama3.2:3b") == "ollama llama3.2:3b"


async def test_discovery_asks_local_rows_only_and_takes_no_long_wait_or_garbage() -> None:
    async with Vendor(reply(b"<html>not a model server</html>")) as other:
        local = catalog.providers()["vllm"]
        rows = {
            "vllm": structs.replace(local, base_url=other.url),
            "llamacpp": structs.replace(local, name="llamacpp", base_url="http://127.0.0.1:1"),
            "openai": structs.replace(catalog.providers()["openai"], base_url="http://127.0.0.1:1"),
        }
        async with open_house(rows=rows) as house:
            await house.models.discover()
            states = {state.name: state for state in await house.models.states("acme")}
            assert not any(state.usable for state in states.values())
            assert "no server with models" in states["vllm"].why
            assert states["openai"].why == "OPENAI_API_KEY is not set"


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("gpt-4p", "did you mean gpt-4"),
        ("openai", "openai is a provider: say which of its models, openai/gpt-6.1-terra"),
        ("gemini-2.5-flash", "it would be at google (GEMINI_API_KEY or GOOGLE_API_KEY is not set)"),
        ("mistral/mistral-large-latest", "provider mistral cannot be asked: MISTRAL_API_KEY is not set"),
        ("ollama/llama3.2", "provider ollama cannot be asked"),
        ("rules/retial", "did you mean rules/retail?"),
        ("qqqqqqqq", "usable providers: anthropic, openai"),
    ],
)
async def test_an_unknown_name_is_told_what_is_near_or_missing(model: str, says: str) -> None:
    async with open_house(environment=BOTH) as house:
        house.declared.declare(RULES)
        with pytest.raises(NotFound) as unknown:
            await house.models.resolve("acme", model)
        assert says in unknown.value.message
        assert unknown.value.field == "model"
        assert await house.models.explain("acme", model) == unknown.value.message


@pytest.mark.parametrize("model", ["", "x" * 300])
async def test_a_name_that_is_none_is_refused(model: str) -> None:
    async with open_house() as house:
        with pytest.raises(BadRequest, match="model"):
            await house.models.resolve("acme", model)


async def test_a_declared_provider_hides_the_catalogs_and_is_seen_only_by_its_tenant() -> None:
    async with open_house(environment=BOTH) as house:
        house.declared.declare(Provider(name="openai", type="openai", base_url="http://127.0.0.1:9/v1"))
        mine = await house.models.resolve("acme", "openai/gpt-4o")
        others = await house.models.resolve("other", "openai/gpt-4o")
        assert mine.provider is not others.provider


async def test_a_declared_provider_may_take_a_row_of_the_catalog_as_its_type() -> None:
    async with open_house(environment={"MY_KEY": "gsk-1"}) as house:
        house.declared.declare(Provider(name="fast", type="groq", api_key="env:MY_KEY"))
        target = await house.models.resolve("acme", "fast/openai/gpt-oss-120b")
        assert target.name == "openai/gpt-oss-120b"
        assert target.listed is not None


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        (Provider(name="own", type="opanai"), "unknown type 'opanai'"),
        (Provider(name="own", type="recorded"), "give base_url"),
        (Provider(name="own", type="openai", api_key="env:NO_SUCH"), "NO_SUCH is not set"),
        (Provider(name="own", type="groq"), "GROQ_API_KEY is not set"),
        (Provider(name="own", type="openai", base_url="ftp://x"), "http"),
        (Provider(name="own", type="openai", base_url="http://x", headers={"a b": "c"}), "header"),
    ],
)
async def test_a_declared_provider_that_cannot_be_says_why_and_harms_no_other(
    declared: Provider, says: str
) -> None:
    async with open_house(environment={"ANTHROPIC_API_KEY": "sk-ant"}) as house:
        house.declared.declare(declared)
        with pytest.raises(NotFound) as error:
            await house.models.resolve("acme", "own/x")
        assert says in error.value.message
        assert await answered_by(house, "anthropic/claude-opus-5") == "anthropic claude-opus-5"
        assert {state.name: state.why for state in await house.models.states("acme")}["own"]


async def test_a_known_name_is_resolved_without_the_database_and_changes_are_seen() -> None:
    async with open_house(environment=BOTH) as house:
        first = await house.models.resolve("acme", "gpt-4o")
        reads = house.declared.reads_count
        for _ in range(100):
            assert await house.models.resolve("acme", "gpt-4o") is first
        assert house.declared.reads_count == reads
        house.declared.declare(
            Provider(name="own", type="openai", base_url="http://127.0.0.1:9/v1", models=("gpt-4o",))
        )
        assert await answered_by(house, "gpt-4o") == "own gpt-4o"


async def test_an_unchanged_declaration_keeps_its_provider_over_a_reload() -> None:
    async with open_house() as house:
        house.declared.declare(Provider(name="own", type="openai", base_url="http://127.0.0.1:9/v1"))
        before = await house.models.resolve("acme", "own/x")
        house.declared.declare(RULES)
        assert (await house.models.resolve("acme", "own/x")).provider is before.provider


async def test_while_the_database_is_away_what_was_declared_last_holds() -> None:
    async with open_house() as house:
        house.declared.declare(Provider(name="own", type="openai", base_url="http://127.0.0.1:9/v1"))
        await house.models.resolve("acme", "own/x")
        house.declared.away = True
        house.declared.declare(RULES)
        assert await answered_by(house, "own/y") == "own y"
        with pytest.raises(Unavailable):
            await house.models.resolve("somebody-else", "own/y")


async def test_with_upstreams_a_name_without_a_provider_goes_to_its_wires_address() -> None:
    upstreams = {"openai_chat": "http://127.0.0.1:9/v1", "anthropic_messages": "http://127.0.0.1:9"}
    async with open_house(upstreams=upstreams) as house:
        assert await answered_by(house, "any-name", wire="openai_chat") == "openai any-name"
        assert await answered_by(house, "any/name", wire="anthropic_messages") == "anthropic any/name"
        assert await answered_by(house, "claude-opus-5", wire="openai_chat") == "openai claude-opus-5"
        assert await answered_by(house, "anthropic/x", wire="openai_chat") == "anthropic x"
        assert (await answered_by(house, "auto")).startswith(("openai", "anthropic"))


async def test_an_upstream_for_a_wire_that_nobody_speaks_is_refused() -> None:
    with pytest.raises(BadRequest, match="morse"):
        async with open_house(upstreams={"morse": "http://127.0.0.1:9"}):
            pass


async def test_names_from_callers_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_room, "RESOLVED_MAX", 50)
    async with open_house(environment=BOTH) as house:
        for number in range(500):
            await house.models.resolve("acme", f"openai/made-up-{number}")
        assert len(house.models._tenants["acme"].resolved) <= 50
