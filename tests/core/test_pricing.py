"""Money in whole pico-units: exact, and no token is counted twice or forgotten."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from freehold.core.messages import Usage
from freehold.core.pricing import PICO, ModelPrice, Tier, TokenPrice, cost_pico, show

RATE = st.integers(min_value=0, max_value=10**9)
COUNT = st.integers(min_value=0, max_value=10**6)
GPT = ModelPrice(input=TokenPrice(2_500_000), output=TokenPrice(10_000_000), cache_read=TokenPrice(1_250_000))


def test_a_published_price_is_exact() -> None:
    """$2.50, $1.25 and $10 a million tokens."""
    usage = Usage(input_tokens=1_000, cache_read_tokens=400, output_tokens=200, reasoning_tokens=150)
    exact = Decimal("2.50") * 600 + Decimal("1.25") * 400 + Decimal(10) * 200
    assert cost_pico(usage, GPT) == exact / 10**6 * PICO


def test_a_kind_without_its_own_price_costs_what_its_larger_kind_does() -> None:
    plain = ModelPrice(input=TokenPrice(7), output=TokenPrice(11))
    usage = Usage(
        input_tokens=10, cache_read_tokens=4, cache_write_tokens=3, output_tokens=5, output_audio_tokens=2
    )
    assert cost_pico(usage, plain) == 10 * 7 + 5 * 11


def test_a_long_context_costs_its_tier_for_all_of_its_tokens() -> None:
    tiered = ModelPrice(input=TokenPrice(3, (Tier(200, 6),)), output=TokenPrice(15, (Tier(200, 22),)))
    assert cost_pico(Usage(input_tokens=200, output_tokens=1), tiered) == 200 * 3 + 15
    assert cost_pico(Usage(input_tokens=201, output_tokens=1), tiered) == 201 * 6 + 22


@given(COUNT, COUNT, COUNT, COUNT, RATE, RATE)
def test_equal_prices_make_kinds_irrelevant(
    read: int, write: int, rest: int, out: int, rate: int, out_rate: int
) -> None:
    price = TokenPrice(rate)
    every = ModelPrice(
        input=price, output=TokenPrice(out_rate), cache_read=price, cache_write=price, cache_write_1h=price
    )
    usage = Usage(
        input_tokens=read + write + rest, cache_read_tokens=read, cache_write_tokens=write, output_tokens=out
    )
    assert cost_pico(usage, every) == (read + write + rest) * rate + out * out_rate


@given(st.lists(st.builds(Usage, input_tokens=COUNT, output_tokens=COUNT), max_size=5))
def test_the_sum_of_costs_is_the_cost_of_the_sum(usages: list[Usage]) -> None:
    total = Usage()
    for usage in usages:
        total = total.plus(usage)
    assert sum(cost_pico(usage, GPT) for usage in usages) == cost_pico(total, GPT)


def test_people_see_small_amounts_and_never_a_rounded_zero() -> None:
    assert show(0) == "$0"
    assert show(PICO * 3 // 2) == "$1.5"
    assert show(12_300_000_000) == "$0.0123"
    assert show(1) == "<$0.000001"
    assert show(PICO, "EUR") == "EUR 1"
