"""Gateway: what was agreed on prices, as calls use it: the book's price before the list's, and bought capacity before both.

Capacity is filled by the minute (of UTC), in the order of names, and what a minute has no room for is charged as usual. Processes tell
each other what they used of a minute (figures.py), so all of them together pass it by what they use between two tellings, at most.
Not here: what can be agreed (core/contracts.py), and the month's bill (core/billing.py).
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct

from freehold.core.contracts import PPM, Capacity, Entry, PriceBook, entries, pattern_of, reduced
from freehold.core.figures import MINUTE_S
from freehold.core.pricing import ModelPrice

MINUTES_KEPT: Final = 64
"""A call counts in the minute in which it began, and is known when it is over: an hour later at most."""


class Use(Struct, frozen=True):
    """One process's, of one minute."""

    tokens: int


_USE: Final = msgspec.json.Decoder(Use)


class Fill:
    """How far one capacity is used, minute by minute. A call is served by it whole, or not at all."""

    __slots__ = ("_changed", "_heard", "_used", "capacity", "pattern", "source")
    keep_s: Final = MINUTES_KEPT * MINUTE_S

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.pattern = pattern_of(capacity.models, "models")
        self.source = f"provisioned:{capacity.name}"
        self._used: dict[int, int] = {}
        """By minute, the newest last."""
        self._heard: dict[int, int] = {}
        """Of other processes."""
        self._changed: set[int] = set()

    def left(self, at: datetime) -> int:
        """Tokens, in the minute of `at`; none while it isn't bought."""
        bought = self.capacity
        if at < bought.valid_from or (bought.valid_until is not None and at >= bought.valid_until):
            return 0
        minute = _minute(at)
        return bought.tokens_per_minute - self._used.get(minute, 0) - self._heard.get(minute, 0)

    def takes(self, tokens: int, at: datetime) -> bool:
        if tokens > self.left(at):
            return False
        minute = _minute(at)
        self._used[minute] = self._used.get(minute, 0) + tokens
        self._changed.add(minute)
        if len(self._used) > MINUTES_KEPT:
            del self._used[min(self._used)]
        return True

    def told(self, _now_s: float) -> Iterator[tuple[int, bytes]]:
        """What is new since it was told last, by minute."""
        changed, self._changed = self._changed, set()
        for minute in changed & self._used.keys():
            yield minute, msgspec.json.encode(Use(self._used[minute]))

    def hear(self, minute: int, bodies: Sequence[bytes], now_s: float) -> None:
        if minute <= int(now_s / MINUTE_S) - MINUTES_KEPT:
            return
        self._heard[minute] = sum(_USE.decode(body).tokens for body in bodies)
        if len(self._heard) > MINUTES_KEPT:
            del self._heard[min(self._heard)]


def _minute(at: datetime) -> int:
    return int(at.timestamp() // MINUTE_S)


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

    def shared(self) -> Iterator[tuple[str, Fill]]:
        """What processes tell each other of, by its name."""
        return ((f"capacity/{fill.capacity.name}", fill) for fill in self.fills)

    def of(self, model: str) -> ModelTerms | None:
        """`model` is `provider/name`. None where nothing was agreed."""
        found = [entry for entry in self._entries if entry.pattern.fullmatch(model)]
        fills = [fill for fill in self.fills if fill.pattern.fullmatch(model)]
        return ModelTerms(found, fills) if found or fills else None
