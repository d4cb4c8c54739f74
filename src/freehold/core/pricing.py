"""Money: integers of pico-units (10^-12) of a currency, exact for every published price per token.

A price list says what each kind of token costs; `cost_pico` multiplies. Where the list comes from is the catalog's business.
"""

from typing import Final

from msgspec import Struct

from freehold.core.messages import Usage

PICO: Final = 10**12


class Tier(Struct, frozen=True):
    """From `above_tokens` of input on, *all* tokens of the call cost `pico_per_token` (how vendors price long contexts)."""

    above_tokens: int
    pico_per_token: int


class TokenPrice(Struct, frozen=True):
    pico_per_token: int
    tiers: tuple[Tier, ...] = ()

    def at(self, input_tokens: int) -> int:
        price = self.pico_per_token
        for tier in self.tiers:
            if input_tokens > tier.above_tokens:
                price = tier.pico_per_token
        return price


class ModelPrice(Struct, frozen=True, kw_only=True):
    """A kind without a price of its own costs what its larger kind costs: cached input as input, reasoning as output."""

    input: TokenPrice
    output: TokenPrice
    cache_read: TokenPrice | None = None
    cache_write: TokenPrice | None = None
    cache_write_1h: TokenPrice | None = None
    reasoning: TokenPrice | None = None
    input_audio: TokenPrice | None = None
    output_audio: TokenPrice | None = None
    pico_per_request: int = 0
    currency: str = "USD"


FREE: Final = ModelPrice(input=TokenPrice(0), output=TokenPrice(0))


def cost_pico(usage: Usage, price: ModelPrice) -> int:
    """Exact. Subsets of input and output are taken out of their whole before it is priced; never negative."""
    at, cost = usage.input_tokens, price.pico_per_request
    plain_input, plain_output = usage.input_tokens, usage.output_tokens
    if tokens := usage.cache_read_tokens:
        plain_input -= tokens
        cost += tokens * (price.cache_read or price.input).at(at)
    if tokens := usage.cache_write_tokens:
        plain_input -= tokens
        cost += tokens * (price.cache_write or price.input).at(at)
    if tokens := usage.cache_write_1h_tokens:
        plain_input -= tokens
        cost += tokens * (price.cache_write_1h or price.cache_write or price.input).at(at)
    if tokens := usage.input_audio_tokens:
        plain_input -= tokens
        cost += tokens * (price.input_audio or price.input).at(at)
    if price.reasoning is not None and (tokens := usage.reasoning_tokens):
        plain_output -= tokens
        cost += tokens * price.reasoning.at(at)
    if tokens := usage.output_audio_tokens:
        plain_output -= tokens
        cost += tokens * (price.output_audio or price.output).at(at)
    return cost + max(0, plain_input) * price.input.at(at) + max(0, plain_output) * price.output.at(at)


def share(amount: int, part: int, whole: int) -> int:
    """`amount * part / whole`, rounded half to even. Exact; `amount` not negative, `whole` more than 0."""
    quotient, rest = divmod(amount * part, whole)
    return quotient + (2 * rest > whole or (2 * rest == whole and quotient % 2 == 1))


def decimal(pico: int) -> str:
    """Exact, for programs: `-12.5`, at most twelve decimals, no exponent."""
    units, rest = divmod(abs(pico), PICO)
    digits = f"{units}.{rest:012}".rstrip("0").rstrip(".")
    return f"-{digits}" if pico < 0 else digits


def show(pico: int, currency: str = "USD") -> str:
    """For people: `$0.0123`, at most six decimals, never a rounded-away zero."""
    sign = "$" if currency == "USD" else f"{currency} "
    if pico == 0:
        return f"{sign}0"
    amount = pico / PICO
    return f"{sign}{amount:.6f}".rstrip("0").rstrip(".") if amount >= 0.000001 else f"<{sign}0.000001"
