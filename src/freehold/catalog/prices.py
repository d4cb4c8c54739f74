"""Catalog: list prices, taken once from the tables of `genai-prices` and kept as integers of pico-units.

A list price is in US dollars per million tokens with at most six decimals, so a token costs a whole number of pico-dollars
(10^-12). What the tables have beyond that: entries that went through floating point upstream (`1.0399999999999998`) are
rounded to the nearest pico-dollar; anything else that is not a whole number leaves its model without a price, rather than with
a wrong one. Kinds that `ModelPrice` doesn't know (images by token, hours of audio, pages, searches) are left out, and so are
variants by service tier (batch, flex, priority): the standard price stands. Source: https://github.com/pydantic/genai-prices.

Not here: contract prices and discounts. Importing the tables costs 0.2 to 0.4 s of CPU and 15 MB, so `load` belongs in a thread
at start; after that a price is one dict look-up.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, time
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final, Protocol

from msgspec import Struct

from freehold.core.pricing import FREE, ModelPrice, Tier, TokenPrice

PICO_PER_MTOK: Final = 10**6
"""Dollars per million tokens times this are pico-dollars per token."""

PICO_PER_KCOUNT: Final = 10**9
FLOAT_DIGITS: Final = 12
"""A decimal with at least this many significant digits is no published price but the trace of a float."""

REMEMBERED_MAX: Final = 10_000
"""Names looked up before, found or not. When full, the memory starts anew: names come from callers."""

_TOKEN_KINDS: Final = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "input_audio",
    "output_audio_mtok": "output_audio",
}


class Inexact(ValueError):
    """A price that is no whole number of pico-units."""


class Span(Struct, frozen=True):
    """When a price holds: from a date on, or every day between two times (UTC, may pass midnight); None is always."""

    from_date: str | None = None
    start: time | None = None
    end: time | None = None

    def holds(self, at: datetime) -> bool:
        if self.from_date is not None:
            return at.date().isoformat() >= self.from_date
        if self.start is None or self.end is None:
            return True
        clock = at.timetz().replace(tzinfo=None)
        if self.end < self.start:
            return clock >= self.start or clock < self.end
        return self.start <= clock < self.end


class ListedModel(Struct, frozen=True):
    """A model of a price list. `prices`: the last whose span holds counts, else the first; empty is without a price."""

    id: str
    name: str
    context_tokens: int | None
    deprecated: bool
    prices: tuple[tuple[Span, ModelPrice], ...]

    def price(self, at: datetime) -> ModelPrice | None:
        """`at` is UTC."""
        if len(self.prices) < 2:
            return self.prices[0][1] if self.prices else None
        for span, price in reversed(self.prices):
            if span.holds(at):
                return price
        return self.prices[0][1]


class _Source(Protocol):
    """A provider in the tables, with its own rules for which names mean which model."""

    id: str
    models: list[Any]
    fallback_model_providers: list[str] | None

    def find_model(self, model_ref: str, *, all_providers: Any = None) -> Any: ...


class PriceBook:
    """Which model a name means, and what it costs. Names are matched once and remembered."""

    def __init__(self, sources: Sequence[_Source]) -> None:
        self._all = sources
        self._sources: Mapping[str, _Source] = {source.id: source for source in sources}
        self._converted: dict[int, ListedModel] = {}
        self._found: dict[tuple[str, str], ListedModel | None] = {}

    def find(self, source: str, model: str) -> ListedModel | None:
        """`source` is a price list's id (ProviderRow.prices), `model` any name its provider takes, dated ones too."""
        key = (source, model)
        try:
            return self._found[key]
        except KeyError:
            pass
        listed = self._match(source, model)
        if len(self._found) >= REMEMBERED_MAX:
            self._found.clear()
        self._found[key] = listed
        return listed

    def price(self, source: str, model: str, at: datetime) -> ModelPrice | None:
        """None where the model or an exact price isn't known: its calls are recorded as not priced."""
        listed = self.find(source, model)
        return None if listed is None else listed.price(at)

    def models(self, source: str) -> Sequence[ListedModel]:
        """What the list has, as far as it is priced by token, without what its maker calls deprecated."""
        found = self._sources.get(source)
        listed = (self._convert(model) for model in found.models) if found else ()
        return [model for model in listed if model.prices and not model.deprecated]

    def _match(self, source: str, model: str) -> ListedModel | None:
        provider = self._sources.get(source)
        match = provider.find_model(model, all_providers=self._all) if provider else None
        return None if match is None else self._convert(match)

    def _convert(self, model: Any) -> ListedModel:
        """Once a model; the tables' own objects live as long as the book, so their identity is a key."""
        listed = self._converted.get(id(model))
        if listed is None:
            listed = self._converted[id(model)] = convert(model)
        return listed


def load() -> PriceBook:
    """Slow (see above): once, in a thread."""
    # Imported here because the tables take longer to import than the rest of Freehold together.
    from genai_prices.data import providers  # noqa: PLC0415

    return PriceBook(providers)


def convert(model: Any) -> ListedModel:
    """`model` is the tables' ModelInfo."""
    spans = model.prices if isinstance(model.prices, list) else [model]
    try:
        prices = tuple(_spanned(span) for span in spans)
    except (Inexact, _Unmetered):
        prices = ()
    return ListedModel(
        id=model.id,
        name=model.name or model.id,
        context_tokens=model.context_window,
        deprecated=bool(model.deprecated),
        prices=prices,
    )


class _Unmetered(ValueError):
    """Priced by something that isn't tokens or requests."""


def _spanned(priced: Any) -> tuple[Span, ModelPrice]:
    return _span(getattr(priced, "constraint", None)), _model_price(vars(priced.prices))


def _span(constraint: Any) -> Span:
    if constraint is None:
        return Span()
    if hasattr(constraint, "start_date"):
        return Span(from_date=constraint.start_date.isoformat())
    return Span(start=_utc(constraint.start_time), end=_utc(constraint.end_time))


def _utc(value: time) -> time:
    if value.tzinfo is None:
        return value
    return datetime.combine(datetime(1970, 1, 2, tzinfo=UTC).date(), value).astimezone(UTC).time()


def _model_price(listed: Mapping[str, Any]) -> ModelPrice:
    given = {key: value for key, value in listed.items() if value is not None}
    if not given:
        return FREE
    kinds = {_TOKEN_KINDS[key]: _token_price(given[key]) for key in given.keys() & _TOKEN_KINDS.keys()}
    per_request = given.get("requests_kcount")
    if not kinds and per_request is None:
        raise _Unmetered
    return ModelPrice(
        input=kinds.get("input", TokenPrice(0)),
        output=kinds.get("output", TokenPrice(0)),
        cache_read=kinds.get("cache_read"),
        cache_write=kinds.get("cache_write"),
        cache_write_1h=kinds.get("cache_write_1h"),
        input_audio=kinds.get("input_audio"),
        output_audio=kinds.get("output_audio"),
        pico_per_request=0 if per_request is None else whole(per_request * PICO_PER_KCOUNT),
    )


def _token_price(value: Any) -> TokenPrice:
    if isinstance(value, Decimal):
        return TokenPrice(whole(value * PICO_PER_MTOK))
    return TokenPrice(whole(value.base * PICO_PER_MTOK), tuple(_tiers(value.tiers)))


def _tiers(tiers: Iterable[Any]) -> Iterable[Tier]:
    for tier in sorted(tiers, key=lambda tier: tier.start):
        yield Tier(tier.start, whole(tier.price * PICO_PER_MTOK))


def whole(pico: Decimal) -> int:
    """Raises Inexact, but for what a float left behind."""
    nearest = pico.to_integral_value(rounding=ROUND_HALF_EVEN)
    if nearest != pico and len(pico.normalize().as_tuple().digits) < FLOAT_DIGITS:
        raise Inexact(f"{pico} pico-units is no whole number")
    return int(nearest)
