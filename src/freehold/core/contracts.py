"""What was agreed on prices: price books (own prices, discounts) and provisioned capacity, declared as resources. Pure.

A book's price goes before the list's. Discounts by volume and commitments belong to a month, not to a call: they are applied
when the bill is made (billing.py). Capacity is filled first, call by call (gateway/terms.py); its hours are on the bill.

Not here: list prices (catalog/prices.py), what a call comes to (pricing.py).
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Context, Decimal, InvalidOperation
from typing import Final, Literal

from msgspec import Struct, structs

from freehold.core.errors import BadRequest
from freehold.core.pricing import PICO, ModelPrice, TokenPrice, share

PPM: Final = 10**6
"""Percentages are kept as whole parts per million: at most four decimals of a percent."""

AMOUNT_MAX: Final = 10**15
AMOUNT_CHARS_MAX: Final = 40
PRICE_MAX: Final = 9 * 10**6
"""Of a million tokens, or a call: in whichever currency, what a call comes to is a record's 64 bits (9.2 million in pico-units)."""

_EXACT: Final = Context(prec=2 * AMOUNT_CHARS_MAX)
PRICES_MAX: Final = 1000
TIERS_MAX: Final = 20
STARS_MAX: Final = 4
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_PICO_PER_MTOK: Final = 10**6
_KINDS: Final = (
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "reasoning",
    "input_audio",
    "output_audio",
)


class BookPrice(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """`models` is `provider/name`, where `*` and `?` stand for any. Prices are decimal text, per million tokens of a kind; a kind
    without one costs as its larger kind does. Or `off_list_percent`: so much less than the list.
    """

    models: str
    input: str | None = None
    output: str | None = None
    cache_read: str | None = None
    cache_write: str | None = None
    cache_write_1h: str | None = None
    reasoning: str | None = None
    input_audio: str | None = None
    output_audio: str | None = None
    per_request: str | None = None
    off_list_percent: str | None = None


class VolumeTier(Struct, frozen=True, forbid_unknown_fields=True):
    """`reached`: money as decimal text, or a number of tokens; in a calendar month (UTC)."""

    reached: str
    percent: str


class Volume(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """`of`: what the month's volume is measured in. `applies`: the percentage of the highest tier reached to all, or each tier's to
    what lies above it.
    """

    of: Literal["spend", "tokens"] = "spend"
    applies: Literal["to_all", "above"] = "to_all"
    tiers: tuple[VolumeTier, ...]


class Commitment(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """So much is paid every month, used or not; `percent` less for all of it."""

    spend_per_month: str
    percent: str = "0"


class PriceBook(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    tag="price_book",
    tag_field="kind",
):
    """Own prices, by contract. Days are UTC's; `valid_until` is the first day on which it no longer holds."""

    name: str
    description: str = ""
    currency: str = "USD"
    valid_from: date | None = None
    valid_until: date | None = None
    prices: tuple[BookPrice, ...]
    volume: Volume | None = None
    commitment: Commitment | None = None


class Capacity(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    tag="capacity",
    tag_field="kind",
):
    """Throughput bought by the hour: calls of `models` cost nothing more while a minute's `tokens_per_minute` last.

    `hourly` is decimal text. `valid_from` and `valid_until` are full hours.
    """

    name: str
    models: str
    tokens_per_minute: int
    hourly: str
    valid_from: datetime
    valid_until: datetime | None = None
    currency: str = "USD"
    description: str = ""


class Entry(Struct, frozen=True):
    """One price of one book, ready to multiply with. `off_list_ppm` is None where `price` stands by itself."""

    source: str
    pattern: re.Pattern[str]
    literal_chars: int
    valid_from: datetime | None
    valid_until: datetime | None
    price: ModelPrice
    off_list_ppm: int | None = None

    def holds(self, at: datetime) -> bool:
        return (self.valid_from is None or at >= self.valid_from) and (
            self.valid_until is None or at < self.valid_until
        )


def check_currency(currency: str) -> None:
    if not _CURRENCY.fullmatch(currency):
        raise BadRequest(
            f"expected three capital letters (ISO 4217), got {currency[:20]!r}", field="currency"
        )


def check(terms: PriceBook | Capacity) -> None:
    """Raises BadRequest with the path of what is wrong."""
    check_currency(terms.currency)
    if (
        terms.valid_from is not None
        and terms.valid_until is not None
        and terms.valid_until <= terms.valid_from
    ):
        raise BadRequest("expected a time after valid_from", field="valid_until")
    if isinstance(terms, Capacity):
        _check_capacity(terms)
        return
    if not 0 < len(terms.prices) <= PRICES_MAX:
        raise BadRequest(f"expected 1 to {PRICES_MAX} prices, got {len(terms.prices)}", field="prices")
    entries(terms)
    if terms.volume is not None:
        tiers(terms.volume)
    if terms.commitment is not None:
        money(terms.commitment.spend_per_month, "commitment.spend_per_month")
        ppm(terms.commitment.percent, "commitment.percent")


def _check_capacity(capacity: Capacity) -> None:
    pattern_of(capacity.models, "models")
    money(capacity.hourly, "hourly")
    if not capacity.tokens_per_minute > 0:
        raise BadRequest(f"expected more than 0, got {capacity.tokens_per_minute}", field="tokens_per_minute")
    for field, moment in (("valid_from", capacity.valid_from), ("valid_until", capacity.valid_until)):
        if moment is not None and (
            moment.tzinfo is None or int(moment.timestamp()) % 3600 or moment.microsecond
        ):
            raise BadRequest("expected a full hour with its offset, like 2026-11-01T00:00:00Z", field=field)


def entries(book: PriceBook) -> list[Entry]:
    """Raises BadRequest with the path of what is wrong."""
    return [_entry(book, price, f"prices[{place}]") for place, price in enumerate(book.prices)]


def _entry(book: PriceBook, price: BookPrice, path: str) -> Entry:
    pattern = pattern_of(price.models, f"{path}.models")
    given = {kind: text for kind in _KINDS if (text := getattr(price, kind)) is not None}
    off_list_ppm = None
    if price.off_list_percent is not None:
        if given or price.per_request is not None:
            raise BadRequest("expected either prices or off_list_percent, not both", field=path)
        off_list_ppm = ppm(price.off_list_percent, f"{path}.off_list_percent")
    elif not given and price.per_request is None:
        raise BadRequest("expected a price (input, output, per_request ...) or off_list_percent", field=path)
    elif ("input" in given) != ("output" in given):
        raise BadRequest("expected input and output together", field=path)
    kinds = {kind: TokenPrice(_per_token(text, f"{path}.{kind}")) for kind, text in given.items()}
    free = TokenPrice(0)
    per_request = (
        0 if price.per_request is None else money(price.per_request, f"{path}.per_request", at_most=PRICE_MAX)
    )
    return Entry(
        source=f"book:{book.name}",
        pattern=pattern,
        literal_chars=len(price.models) - price.models.count("*") - price.models.count("?"),
        valid_from=_midnight(book.valid_from),
        valid_until=_midnight(book.valid_until),
        price=ModelPrice(
            **{"input": free, "output": free, **kinds}, pico_per_request=per_request, currency=book.currency
        ),
        off_list_ppm=off_list_ppm,
    )


def tiers(volume: Volume) -> list[tuple[int, int]]:
    """(reached, parts per million), ascending. Raises BadRequest where they are not."""
    if not 0 < len(volume.tiers) <= TIERS_MAX:
        raise BadRequest(f"expected 1 to {TIERS_MAX} tiers, got {len(volume.tiers)}", field="volume.tiers")
    found: list[tuple[int, int]] = []
    for place, tier in enumerate(volume.tiers):
        path = f"volume.tiers[{place}]"
        scale = PICO if volume.of == "spend" else 1
        what = "money" if volume.of == "spend" else "tokens"
        reached = _whole(tier.reached, scale, f"{path}.reached", what, AMOUNT_MAX)
        if found and reached <= found[-1][0]:
            raise BadRequest("expected more than in the tier before", field=f"{path}.reached")
        found.append((reached, ppm(tier.percent, f"{path}.percent")))
    return found


def money(text: str, field: str, *, at_most: int = AMOUNT_MAX) -> int:
    """Pico-units. Raises BadRequest where it is no amount, is too much, or has more than twelve decimals."""
    return _whole(text, PICO, field, "money", at_most)


def ppm(text: str, field: str) -> int:
    return _whole(text, PPM // 100, field, "a percentage", 100)


def _per_token(text: str, field: str) -> int:
    return _whole(text, _PICO_PER_MTOK, field, "money per million tokens", PRICE_MAX)


def _whole(text: str, scale: int, field: str, what: str, at_most: int) -> int:
    try:
        amount = Decimal(text)
        if not amount.is_finite() or amount < 0 or len(text) > AMOUNT_CHARS_MAX:
            raise InvalidOperation
    except InvalidOperation:
        raise BadRequest(
            f'expected {what} as decimal text like "2.50", got {text[:40]!r}', field=field
        ) from None
    if amount > at_most:
        raise BadRequest(f"expected 0 to {at_most:,}, got {text!r}", field=field)
    scaled = _EXACT.multiply(amount, scale)
    if scaled != scaled.to_integral_value():
        raise BadRequest(f"expected at most {len(str(scale)) - 1} decimals, got {text!r}", field=field)
    return int(scaled)


def pattern_of(models: str, field: str) -> re.Pattern[str]:
    if "/" not in models or not 3 <= len(models) <= 256 or models.count("*") > STARS_MAX:
        raise BadRequest(
            f"expected provider/name with at most {STARS_MAX} `*`, got {models[:80]!r}", field=field
        )
    return re.compile(re.escape(models).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)


def _midnight(day: date | None) -> datetime | None:
    return None if day is None else datetime.combine(day, time(), UTC)


def reduced(listed: ModelPrice, keep_ppm: int) -> ModelPrice:
    """Each price on its own, rounded half to even to a whole pico-unit a token."""

    def token(price: TokenPrice | None) -> TokenPrice | None:
        if price is None:
            return None
        steps = tuple(
            structs.replace(tier, pico_per_token=share(tier.pico_per_token, keep_ppm, PPM))
            for tier in price.tiers
        )
        return TokenPrice(share(price.pico_per_token, keep_ppm, PPM), steps)

    changes: Mapping[str, TokenPrice | None] = {kind: token(getattr(listed, kind)) for kind in _KINDS}
    per_request = share(listed.pico_per_request, keep_ppm, PPM)
    return structs.replace(listed, **changes, pico_per_request=per_request)
