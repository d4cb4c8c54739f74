"""Prices: the tables' own calculation is the oracle, and ours must give the same money to the last pico-unit."""

from datetime import UTC, datetime, time
from decimal import Decimal
from functools import cache

import pytest
from genai_prices.data import providers as tables
from genai_prices.types import Usage as ListedUsage
from hypothesis import given
from hypothesis import strategies as st

from freehold.catalog import prices
from freehold.catalog.prices import FREE, Inexact, ListedModel, PriceBook, Span, whole
from freehold.core.messages import Usage
from freehold.core.pricing import PICO, cost_pico

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
METERED = {
    "input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_1h_mtok",
    "input_audio_mtok", "output_audio_mtok", "requests_kcount",
    "web_searches_kcount", "storage_searches_kcount",
}  # fmt: skip
"""Where a model has only these, and no floats, their calculation and ours see the same (searches are zero in both)."""

BOOK = prices.load()


@cache
def comparable() -> list[tuple[str, str]]:
    found = []
    for source in tables:
        for model in source.models:
            spans = model.prices if isinstance(model.prices, list) else [model]
            keys = {key for span in spans for key, value in vars(span.prices).items() if value is not None}
            listed = BOOK.find(source.id, model.id)
            if (
                keys
                and keys <= METERED
                and "input_mtok" in keys
                and listed
                and listed.id == model.id
                and listed.prices
            ):
                found.append((source.id, model.id))
    return found


def listed_price(source_id: str, model_id: str, usage: Usage) -> Decimal:
    source = next(source for source in tables if source.id == source_id)
    model = next(model for model in source.models if model.id == model_id)
    listed_usage = ListedUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens + usage.cache_write_1h_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
    )
    return model.calc_price(listed_usage, source, genai_request_timestamp=NOW).total_price


def test_nearly_every_listed_model_can_be_compared() -> None:
    assert len(comparable()) > 1500


@given(
    which=st.deferred(lambda: st.sampled_from(comparable())),
    parts=st.tuples(*[st.integers(0, 150_000)] * 4),
    output=st.integers(0, 200_000),
)
def test_a_call_costs_what_the_list_says_to_the_pico(
    which: tuple[str, str], parts: tuple[int, int, int, int], output: int
) -> None:
    _, read, write, write_1h = parts
    usage = Usage(
        input_tokens=sum(parts),
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=write,
        cache_write_1h_tokens=write_1h,
    )
    price = BOOK.price(*which, NOW)
    assert price is not None
    exact = listed_price(*which, usage) * PICO
    # Equal, except where the list itself holds a float's trace: then within its rounding, half a pico-unit a token.
    difference = abs(cost_pico(usage, price) - exact)
    assert difference == 0 or (exact != int(exact) and difference <= (usage.input_tokens + output) / 2)


@pytest.mark.parametrize(
    ("source", "name", "means"),
    [
        ("openai", "gpt-4o-2024-08-06", "gpt-4o"),
        ("openai", "gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("anthropic", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("openrouter", "meta-llama/llama-3.3-70b-instruct", "meta-llama/llama-3.3-70b-instruct"),
    ],
)
def test_versioned_names_mean_their_model(source: str, name: str, means: str) -> None:
    found = BOOK.find(source, name)
    assert found is not None
    assert found.id == means


def test_unknown_models_and_lists_have_no_price() -> None:
    assert BOOK.price("openai", "no-such-model", NOW) is None
    assert BOOK.price("no-such-list", "gpt-4o", NOW) is None


def test_names_from_callers_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "REMEMBERED_MAX", 10)
    book = PriceBook([source for source in tables if source.id == "groq"])
    for number in range(100):
        book.find("groq", f"made-up-{number}")
    assert len(book._found) <= 10


def test_models_that_cost_nothing_are_free_not_unpriced() -> None:
    assert BOOK.price("mistral", "mistral-nemo:free", NOW) == FREE


def test_models_priced_by_the_hour_are_unpriced_not_free() -> None:
    assert BOOK.price("openai", "gpt-transcribe", NOW) is None


def test_what_is_no_whole_number_of_pico_units_is_refused_unless_a_float_left_it() -> None:
    assert whole(Decimal("2500000")) == 2_500_000
    assert whole(Decimal("1039999.9999999998")) == 1_040_000
    with pytest.raises(Inexact):
        whole(Decimal("0.5"))


def test_a_price_by_time_of_day_may_pass_midnight() -> None:
    night = Span(start=time(22, 0), end=time(6, 0))
    assert night.holds(NOW.replace(hour=23))
    assert night.holds(NOW.replace(hour=1))
    assert not night.holds(NOW)


def test_the_last_price_whose_span_holds_counts_and_else_the_first() -> None:
    cheap, dear = (BOOK.price("openai", name, NOW) for name in ("gpt-4o-mini", "gpt-4o"))
    assert cheap is not None
    assert dear is not None
    model = ListedModel("m", "m", None, False, ((Span(), cheap), (Span(from_date="2026-12-01"), dear)))
    assert model.price(NOW) == cheap
    assert model.price(datetime(2026, 12, 1, tzinfo=UTC)) == dear
