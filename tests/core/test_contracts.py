"""Price books and capacity: what can be agreed, what is refused, and what a call and a month come to."""

from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core import contracts
from freehold.core.billing import Amounts, CostSum, Month, bill, volume_discount
from freehold.core.contracts import BookPrice, Capacity, Commitment, PriceBook, Volume, VolumeTier
from freehold.core.errors import BadRequest
from freehold.core.messages import Usage
from freehold.core.pricing import PICO, ModelPrice, TokenPrice, cost_pico, decimal, share
from freehold.gateway.terms import Terms

NOV = Month.of("2026-11")
NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
LISTED = ModelPrice(input=TokenPrice(2_500_000), output=TokenPrice(10_000_000))


def book(*prices: BookPrice, **more: object) -> PriceBook:
    prices = prices or (BookPrice(models="openai/*", input="1", output="4"),)
    return PriceBook(**{"name": "contract", "prices": prices, **more})  # type: ignore[arg-type]


def capacity(**changes: object) -> Capacity:
    fields = {
        "name": "reserved",
        "models": "openai/gpt-4o",
        "tokens_per_minute": 1000,
        "hourly": "2.50",
        "valid_from": datetime(2026, 11, 1, tzinfo=UTC),
    }
    return Capacity(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "field", "said"),
    [
        (book(BookPrice(models="gpt-4o", input="1", output="1")), "prices[0].models", "provider/name"),
        (book(BookPrice(models="a/*****", input="1", output="1")), "prices[0].models", "at most 4"),
        (
            book(BookPrice(models="a/b", input="1.0000001", output="1")),
            "prices[0].input",
            "at most 6 decimals",
        ),
        (book(BookPrice(models="a/b", input="NaN", output="1")), "prices[0].input", "decimal text"),
        (book(BookPrice(models="a/b", input="-1", output="1")), "prices[0].input", "decimal text"),
        (book(BookPrice(models="a/b", input="1")), "prices[0]", "input and output together"),
        (book(BookPrice(models="a/b")), "prices[0]", "expected a price"),
        (book(BookPrice(models="a/b", input="1", output="1", off_list_percent="5")), "prices[0]", "not both"),
        (book(BookPrice(models="a/b", off_list_percent="101")), "prices[0].off_list_percent", "0 to 100"),
        (book(currency="usd"), "currency", "three capital letters"),
        (book(valid_from=date(2026, 2, 1), valid_until=date(2026, 2, 1)), "valid_until", "after valid_from"),
        (book(volume=Volume(tiers=())), "volume.tiers", "1 to 20"),
        (
            book(volume=Volume(tiers=(VolumeTier("5", "1"), VolumeTier("5", "2")))),
            "volume.tiers[1].reached",
            "more than",
        ),
        (
            book(volume=Volume(of="tokens", tiers=(VolumeTier("1.5", "1"),))),
            "volume.tiers[0].reached",
            "at most 0 dec",
        ),
        (book(commitment=Commitment(spend_per_month="x")), "commitment.spend_per_month", "decimal text"),
        (capacity(tokens_per_minute=0), "tokens_per_minute", "more than 0"),
        (capacity(valid_from=datetime(2026, 11, 1, 0, 30, tzinfo=UTC)), "valid_from", "a full hour"),
        (capacity(hourly=f"1.{'0' * 36}1"), "hourly", "at most 12 decimals"),
        (capacity(hourly="1e"), "hourly", "decimal text"),
        (capacity(hourly="1e999999"), "hourly", "expected 0 to 1,000,000,000,000,000, got '1e999999'"),
        (book(BookPrice(models="a/b", input="1", output="1e30")), "prices[0].output", "0 to 9,000,000"),
        (book(BookPrice(models="a/b", per_request="9000001")), "prices[0].per_request", "0 to 9,000,000"),
    ],
)
def test_what_cannot_be_agreed_is_refused_with_its_path(
    wrong: PriceBook | Capacity, field: str, said: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        contracts.check(wrong)
    assert refused.value.field == field
    assert said in refused.value.message


def test_the_more_exact_price_goes_first_and_the_list_is_last() -> None:
    cheap = book(BookPrice(models="openai/gpt-4o*", off_list_percent="12.5"), name="off")
    exact = book(
        BookPrice(models="openai/gpt-4o", input="0.10", output="0.20", reasoning="0.50", per_request="0.001"),
        name="exact",
    )
    wide = book(BookPrice(models="openai/*", input="9", output="9"), name="wide")
    terms = Terms([wide, cheap, exact], [])
    of = terms.of("openai/gpt-4o")
    assert of is not None
    price, source = of.price(LISTED, NOON) or (None, "")
    assert source == "book:exact"
    assert price is not None
    assert (
        cost_pico(Usage(10, 20, reasoning_tokens=5), price)
        == 10 * 100_000 + 15 * 200_000 + 5 * 500_000 + PICO // 1000
    )
    mini = terms.of("openai/gpt-4o-mini")
    assert mini is not None
    assert mini.price(LISTED, NOON) == (
        ModelPrice(input=TokenPrice(2_187_500), output=TokenPrice(8_750_000)),
        "book:off",
    )
    assert (mini.price(None, NOON) or (None, ""))[1] == "book:wide", "nothing is listed that could cost less"
    assert terms.of("anthropic/claude") is None


def test_a_book_holds_from_its_first_day_until_its_last_has_passed() -> None:
    held = Terms([book(valid_from=date(2026, 11, 1), valid_until=date(2026, 12, 1))], []).of("openai/x")
    assert held is not None
    for at, holds in (
        (datetime(2026, 10, 31, 23, 59, 59, 999_999, tzinfo=UTC), False),
        (datetime(2026, 11, 1, tzinfo=UTC), True),
        (datetime(2026, 11, 30, 23, 59, 59, 999_999, tzinfo=UTC), True),
        (datetime(2026, 12, 1, tzinfo=UTC), False),
    ):
        assert (held.price(LISTED, at) is not None) == holds


def test_capacity_is_filled_by_the_minute_and_what_does_not_fit_is_charged() -> None:
    terms = Terms([], [capacity()])
    of = terms.of("openai/gpt-4o")
    assert of is not None
    served = [of.served(tokens, NOON) is not None for tokens in (600, 500, 400, 1)]
    assert served == [True, False, True, False]
    assert of.served(1000, NOON + timedelta(minutes=1)) is not None
    assert of.served(1, datetime(2026, 10, 31, 23, 59, tzinfo=UTC)) is None, "not bought yet"
    again = Terms([], [capacity()], terms).of("openai/gpt-4o")
    assert again is not None
    assert again.served(1, NOON + timedelta(minutes=1)) is None, "declared again, it is as full as it was"


def sums(cost: int, tokens: int, source: str = "book:contract", currency: str = "USD") -> CostSum:
    return CostSum((), source, currency, Amounts(calls=1, cost_pico=cost, input_tokens=tokens))


TIERS = (VolumeTier("100", "10"), VolumeTier("1000", "20"))


@pytest.mark.parametrize(
    ("applies", "spend", "discount"),
    [
        ("to_all", "99.999999999999", "0"),
        ("to_all", "100", "10"),
        ("to_all", "1000", "200"),
        ("above", "100", "0"),
        ("above", "150", "5"),
        ("above", "1500", "190"),
    ],
)
def test_volume_tiers(applies: str, spend: str, discount: str) -> None:
    volume = Volume(applies=applies, tiers=TIERS)  # type: ignore[arg-type]
    pico = contracts.money(spend, "spend")
    assert decimal(volume_discount(volume, Amounts(cost_pico=pico))) == discount


def test_commitments_discount_what_is_used_and_fill_up_what_is_not() -> None:
    agreed = book(
        commitment=Commitment(spend_per_month="100", percent="10"),
        volume=Volume(tiers=(VolumeTier("50", "50"),)),
    )

    def told(spend: int, agreed: PriceBook = agreed) -> list[tuple[str, str]]:
        made = bill(NOV, (), [sums(spend * PICO, 1)], books=[agreed], capacities=[], now=NOON)
        assert made.totals["USD"] == spend * PICO + sum(one.amount_pico for one in made.adjustments)
        return [(one.reason, decimal(one.amount_pico)) for one in made.adjustments]

    assert told(40) == [("commitment_discount", "-4"), ("commitment_shortfall", "64")]
    assert told(1000) == [("volume_discount", "-500"), ("commitment_discount", "-50")]
    half = book(valid_from=date(2026, 11, 16), commitment=Commitment(spend_per_month="100"))
    assert told(40, half) == [("commitment_shortfall", "10")]


def test_hours_of_capacity_are_on_the_bill_with_their_use() -> None:
    def told(now: datetime, **changes: object) -> tuple[int | None, str, int | None]:
        served = sums(0, 30_000, "provisioned:reserved")
        made = bill(NOV, (), [served], books=[], capacities=[capacity(**changes)], now=now)
        (one,) = made.adjustments
        return one.hours, decimal(one.amount_pico), one.tokens_bought

    assert told(datetime(2027, 1, 1, tzinfo=UTC)) == (720, "1800", 43_200_000)
    assert told(datetime(2026, 11, 1, 0, 30, tzinfo=UTC)) == (1, "2.5", 60_000), "an hour begun is an hour"
    ten = datetime(2026, 11, 1, 10, tzinfo=UTC)
    assert told(NOON, valid_from=ten - timedelta(hours=1), valid_until=ten) == (1, "2.5", 60_000)


money_st = st.integers(0, 10**22)
tiers_st = st.lists(
    st.tuples(st.integers(0, 10**9), st.integers(0, 10**6)),
    min_size=1,
    max_size=5,
    unique_by=lambda one: one[0],
)


@given(
    spends=st.lists(
        st.tuples(
            money_st,
            st.integers(0, 10**12),
            st.sampled_from(["list", "book:contract", ""]),
            st.sampled_from(["USD", "EUR"]),
        ),
        max_size=8,
    ),
    steps=tiers_st,
    applies=st.sampled_from(["to_all", "above"]),
    of=st.sampled_from(["spend", "tokens"]),
    committed=st.integers(0, 10**9),
    off=st.integers(0, 10**6),
)
def test_a_bill_is_the_sum_of_its_records_and_reasons_and_discounts_are_exact(
    spends, steps, applies, of, committed, off
) -> None:
    percent = lambda ppm: decimal(ppm * PICO // 10**4)  # noqa: E731
    agreed = book(
        volume=Volume(
            of=of,
            applies=applies,
            tiers=tuple(VolumeTier(str(at), percent(ppm)) for at, ppm in sorted(steps)),
        ),
        commitment=Commitment(spend_per_month=str(committed), percent=percent(off)),
    )
    contracts.check(agreed)
    # What a book priced is in the book's currency.
    given_sums = [
        sums(cost, tokens, source, "USD" if source.startswith("book") else currency)
        for cost, tokens, source, currency in spends
    ]
    made = bill(NOV, (), given_sums, books=[agreed], capacities=[capacity()], now=NOON)
    assert sum(line.amounts.cost_pico for line in made.lines) == sum(one[0] for one in spends)
    for currency, total in made.totals.items():
        lines = sum(line.amounts.cost_pico for line in made.lines if line.currency == currency)
        assert total == lines + sum(one.amount_pico for one in made.adjustments if one.currency == currency)
    spent = sum(one.amounts.cost_pico for one in given_sums if one.price_source == "book:contract")
    tokens = sum(one.amounts.input_tokens for one in given_sums if one.price_source == "book:contract")
    found = -sum(one.amount_pico for one in made.adjustments if one.reason == "volume_discount")
    exact = _exact(
        spent, Fraction(spent, PICO) if of == "spend" else Fraction(tokens), sorted(steps), applies
    )
    assert 0 <= found <= spent
    assert abs(found - exact) <= Fraction(len(steps), 2)
    rest = spent - found
    paid = (
        rest
        - share(rest, off, 10**6)
        + sum(one.amount_pico for one in made.adjustments if one.reason == "commitment_shortfall")
    )
    assert paid >= committed * PICO


def _exact(spent: int, reached: Fraction, steps: list[tuple[int, int]], applies: str) -> Fraction:
    """By fractions, and another way round."""
    if applies == "to_all":
        met = [ppm for at, ppm in steps if at <= reached and reached]
        return Fraction(spent * met[-1], 10**6) if met else Fraction(0)
    discount = Fraction(0)
    for place, (at, ppm) in enumerate(steps):
        end = steps[place + 1][0] if place + 1 < len(steps) else reached
        slice_ = max(Fraction(0), min(Fraction(end), reached) - at)
        discount += Fraction(spent * ppm, 10**6) * slice_ / reached if reached else 0
    return discount
