"""Gateway: what was agreed on prices, as calls use it: the book's price before the list's, and bought capacity before both.

Capacity is filled by the minute (of UTC), in the order of names, and what a minute has no room for is charged as usual. Each
process keeps its own count of the minute. Not here: what can be agreed (core/contracts.py), and the month's bill (core/billing.py).
"""

from collections.abc import Sequence
from datetime import datetime

from freehold.core.contracts import PPM, Capacity, Entry, PriceBook, entries, pattern_of, reduced
from freehold.core.pricing import ModelPrice


class Fill:
    """How far one capacity is used in the current minute, by this process. A call is served by it whole, or not at all."""

    __slots__ = ("_minute", "_used", "capacity", "pattern", "source")

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.pattern = pattern_of(capacity.models, "models")
        self.source = f"provisioned:{capacity.name}"
        self._minute = -1
        self._used = 0

    def left(self, at: datetime) -> int:
        """Tokens, in the minute of `at`; none while it isn't bought."""
        bought = self.capacity
        if at < bought.valid_from or (bought.valid_until is not None and at >= bought.valid_until):
            return 0
        minute = int(at.timestamp()) // 60
        if minute != self._minute:
            self._minute, self._used = minute, 0
        return bought.tokens_per_minute - self._used

    def takes(self, tokens: int, at: datetime) -> bool:
        if tokens > self.left(at):
            return False
        self._used += tokens
        return True


class ModelTerms:
    """What was agreed for one model. `entries` are in the order in which they go before each other."""

    __slots__ = ("_off_list", "entries", "fills")

    def __init__(self, entries: Sequence[Entry], fills: Sequence[Fill]) -> None:
        self.entries = tuple(entries)
        self.fills = tuple(fills)
        self._off_list: dict[tuple[int, ModelPrice], ModelPrice] = {}

    def price(self, listed: ModelPrice | None, at: datetime) -> tuple[ModelPrice, str] | None:
        """With its source; None where no book says one. `listed` is what the list says."""
        for entry in self.entries:
            if not entry.holds(at):
                continue
            if entry.off_list_ppm is None:
                return entry.price, entry.source
            if listed is not None and listed.currency == entry.price.currency:
                return self._less(listed, entry.off_list_ppm), entry.source
        return None

    def served(self, tokens: int, at: datetime) -> Fill | None:
        """The first capacity with room for so many tokens, which are then taken."""
        return next((fill for fill in self.fills if fill.takes(tokens, at)), None)

    def _less(self, listed: ModelPrice, off_ppm: int) -> ModelPrice:
        key = (off_ppm, listed)
        found = self._off_list.get(key)
        if found is None:
            found = self._off_list[key] = reduced(listed, PPM - off_ppm)
        return found


class Terms:
    """All that one tenant agreed. `before` hands on how far capacities that stayed the same are used."""

    def __init__(
        self,
        books: Sequence[PriceBook] = (),
        capacities: Sequence[Capacity] = (),
        before: "Terms | None" = None,
    ) -> None:
        """Raises BadRequest, as `core.contracts.check` does."""
        self._entries = sorted(
            (entry for book in books for entry in entries(book)),
            key=lambda entry: (-entry.literal_chars, entry.source),
        )
        kept: dict[Capacity, Fill] = {fill.capacity: fill for fill in before.fills} if before else {}
        ordered = sorted(capacities, key=lambda capacity: capacity.name)
        self.fills: list[Fill] = [kept.get(capacity) or Fill(capacity) for capacity in ordered]

    def of(self, model: str) -> ModelTerms | None:
        """`model` is `provider/name`. None where nothing was agreed."""
        found = [entry for entry in self._entries if entry.pattern.fullmatch(model)]
        fills = [fill for fill in self.fills if fill.pattern.fullmatch(model)]
        return ModelTerms(found, fills) if found or fills else None
