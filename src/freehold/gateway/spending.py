"""Gateway: a call that may cost only so much, because whoever asks has a limit in money of its own: a session, its turn.

The most that the call can cost must fit (bounds.py). Where only a shorter answer does, that is what is asked for: how much the model says is in
our hands, how much it reads is not. Where not even a short one does, nobody is asked. Not here: budgets, which hold for many (allowance.py).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol

from msgspec import Struct, structs

from freehold.core.errors import LimitReached
from freehold.core.pricing import ModelPrice, show
from freehold.gateway.bounds import Most, most_pico
from freehold.gateway.calling import Values
from freehold.gateway.targets import Target

ANSWER_TOKENS_MIN: Final = 256
"""An answer that must be shorter than this is not worth its question, unless no more was asked for."""


class Spending(Struct, frozen=True, kw_only=True):
    """All that a call may cost. Where `counted_by` (`provider/name`) answers, its input has `counted_tokens` at most, as the vendor itself
    counted most of it; for others, and where that is empty, its bytes say."""

    cost_max_pico: int
    counted_by: str = ""
    counted_tokens: int = 0


class Within(Protocol):
    """`keep_within`, of one request and its spending."""

    def __call__(self, targets: Sequence[Target], *, asks_max: int, at: datetime) -> bool: ...


class TooDear(LimitReached):
    """Nobody was asked: what is left is too little for it."""


def keep_within(
    asked: Values, spending: Spending, targets: Sequence[Target], *, asks_max: int, at: datetime
) -> bool:
    """Whether the answer has to be shorter than was asked for, which it is from here on. A model without a known price costs nothing here, as
    in its record. Raises TooDear."""
    left = spending.cost_max_pico // asks_max
    bounds = [
        (price, _most(asked, target, spending))
        for target in targets
        if (price := target.price(at)) is not None
    ]
    if all(most_pico(price, most) <= left for price, most in bounds):
        return False
    affordable = min(_affordable(price, most, left) for price, most in bounds)
    least = min(ANSWER_TOKENS_MIN, *(most.output_tokens for _, most in bounds))
    if affordable < least:
        dearest = max(
            most_pico(price, structs.replace(most, output_tokens=min(least, most.output_tokens)))
            for price, most in bounds
        )
        raise TooDear(
            f"{show(spending.cost_max_pico)} is left, and this call could cost {show(dearest * asks_max)}"
        )
    asked.shorten(affordable)
    return True


def _most(asked: Values, target: Target, spending: Spending) -> Most:
    most = asked.most(target.facts)
    if target.resource != f"model/{spending.counted_by}":
        return most
    return structs.replace(most, input_tokens=min(most.input_tokens, spending.counted_tokens))


def _affordable(price: ModelPrice, most: Most, left: int) -> int:
    """How many tokens of output fit; all that there can be where they cost nothing."""
    read = most_pico(price, structs.replace(most, output_tokens=0))
    each = most_pico(price, structs.replace(most, output_tokens=1)) - read
    if read > left:
        return -1
    return min(most.output_tokens, (left - read) // each) if each else most.output_tokens
