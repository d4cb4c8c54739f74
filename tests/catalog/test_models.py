"""What is known of models: every line is well formed, dated and hosted names are found, and hosts are judged by nature only."""

import pytest

from freehold.catalog import models, prices
from freehold.core.errors import BadRequest

ONE = b'[[maker]]\nprices = ["openai"]\ndocs = ["https://x"]\nmodels = [{ name = "m", lacks = ["images"] }]\n'


def test_limits_fit_each_other_and_makers_have_price_lists() -> None:
    book, listed = models.facts(), prices.load()
    for source in ("openai", "anthropic", "google", "mistral", "deepseek", "cohere", "perplexity"):
        made = list(book.made_by(source))
        assert made, source
        assert listed.models(source), source
        for facts in made:
            if facts.context_tokens and facts.output_tokens_max:
                assert facts.output_tokens_max <= facts.context_tokens, facts.name


def test_default_models_of_vendors_are_known_where_their_facts_are() -> None:
    book = models.facts()
    for source, name in (("anthropic", "claude-sonnet-5-5"), ("openai", "gpt-6.1-terra")):
        facts = book.find(source, name)
        assert facts is not None
        assert facts.context_tokens is not None


@pytest.mark.parametrize(
    ("source", "name", "is_"),
    [
        ("openai", "gpt-4o-2024-08-06", "gpt-4o"),
        ("openai", "gpt-4o-2024-05-13", "gpt-4o-2024-05-13"),
        ("anthropic", "claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("aws", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5"),
        ("aws", "openai.gpt-oss-120b-1:0", "gpt-oss-120b"),
        ("openrouter", "openai/gpt-oss-120b:free", "gpt-oss-120b"),
        ("fireworks", "accounts/fireworks/models/gpt-oss-120b", "gpt-oss-120b"),
    ],
)
def test_names_are_found_as_hosts_and_dates_write_them(source: str, name: str, is_: str) -> None:
    facts = models.facts().find(source, name)
    assert facts is not None
    assert facts.name == is_


@pytest.mark.parametrize(
    "name", ["gpt-4-turbo-preview", "gpt-4o-audio-preview", "gpt-5.1-chat-latest", "tomorrow", ""]
)
def test_a_name_that_is_only_like_another_is_not_known(name: str) -> None:
    assert models.facts().find("openai", name) is None


def test_elsewhere_only_what_a_model_cannot_take_in_by_nature_holds() -> None:
    book = models.facts()
    own, hosted = book.find("openai", "gpt-4"), book.find("openrouter", "openai/gpt-4")
    assert own is not None
    assert hosted is not None
    assert (own.output_tokens_max, own.lacks >= {"reasoning", "json_schema"}) == (8192, True)
    assert hosted == models.ModelFacts(name="gpt-4", lacks=frozenset({"images", "audio"}))


@pytest.mark.parametrize(
    ("toml", "named"),
    [
        (ONE.replace(b"images", b"smells"), "smells"),
        (ONE.replace(b'name = "m"', b'name = "m", colour = 1'), "colour"),
        (ONE + ONE, "twice"),
        (ONE.replace(b"lacks", b'has = ["images"], lacks'), "what it lacks"),
        (b"[[maker]\n", "models.toml"),
    ],
)
def test_a_wrong_line_is_refused_and_says_why(toml: bytes, named: str) -> None:
    with pytest.raises(BadRequest) as refused:
        models.FactBook(toml)
    assert named in str(refused.value)
