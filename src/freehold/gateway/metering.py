"""Gateway: one call's record: times, usage, money. However the call ends, exactly one record is left.

The vendor's own count is what is billed. Where none came (the client hung up, the stream broke off, a server that doesn't
count) it is estimated (core/tokens.py), and says so. Not here: limits and budgets, and where records go.
"""

import asyncio
from datetime import datetime
from typing import Final, Protocol

from msgspec import Struct, structs

from freehold.core import ids
from freehold.core.errors import BrokenOff, FreeholdError, TimedOut
from freehold.core.messages import Usage
from freehold.core.policy import Principal
from freehold.core.ports import CallRecords, Clock
from freehold.core.pricing import cost_pico
from freehold.core.records import DIRECT, UNPRICED, Account, CallRecord, Choice
from freehold.gateway.targets import Target

OK: Final = "ok"
CLIENT_GONE: Final = "client_gone"
_MAY_BE_BILLED: Final = {CLIENT_GONE, TimedOut.code, BrokenOff.code}
"""Outcomes after which the vendor may still bill the input, although nothing came."""

_KEY: Final = "key_"


class Meter:
    """One call, from before its model is known. Whoever opens it finishes it, once."""

    __slots__ = ("_at", "_clock", "_first_s", "_records", "_started_s", "account", "agent", "choice", "principal", "record",
                 "requested", "rules", "session_id", "streamed", "target", "wire")  # fmt: skip

    def __init__(
        self, clock: Clock, records: CallRecords, principal: Principal, *, wire: str, requested: str
    ) -> None:
        self._clock = clock
        self._records = records
        self.principal = principal
        self._at: datetime = clock.now()
        self._started_s = clock.monotonic_s()
        self._first_s: float | None = None
        self.wire = wire
        self.requested = requested
        self.target: Target | None = None
        self.session_id: str | None = None
        self.agent: str | None = None
        self.rules: str | None = None
        self.streamed = False
        self.account: Account = principal.account
        self.choice: Choice = DIRECT
        self.record: CallRecord | None = None

    def first_event(self) -> None:
        if self._first_s is None:
            self._first_s = self._clock.monotonic_s()

    def finish(self, outcome: str, usage: Usage) -> CallRecord:
        target, now_s = self.target, self._clock.monotonic_s()
        account, choice = self.account, self.choice
        answered = outcome == OK
        charge = NO_CHARGE if choice.cached else charged(target, usage, self._at, answered=answered)
        self.record = record = CallRecord(
            id=ids.new("call", self._clock),
            at=self._at,
            tenant=self.principal.tenant,
            principal=self.principal.id,
            wire=self.wire,
            model_requested=self.requested,
            provider=target.provider.name if target else "",
            model=target.name if target else "",
            outcome=outcome,
            usage=usage,
            cost_pico=charge.cost_pico,
            currency=charge.currency,
            priced=charge.priced,
            price_source=charge.source,
            duration_ms=_ms(now_s - self._started_s),
            first_event_ms=None if self._first_s is None else _ms(self._first_s - self._started_s),
            streamed=self.streamed,
            session_id=self.session_id,
            agent=self.agent,
            key_id=account.key_id or (self.principal.id if self.principal.id.startswith(_KEY) else None),
            organisation=account.organisation,
            team=account.team,
            user=account.user,
            labels=account.labels,
            route=choice.route,
            reason=choice.reason,
            attempts=choice.attempts,
            region=choice.region,
            cached=choice.cached,
        )
        self._records.add(record)
        return record


class Charge(Struct, frozen=True):
    """`source` as in CallRecord.price_source. `priced` is false where tokens were used that nobody has a price for."""

    cost_pico: int
    currency: str
    source: str
    priced: bool = True


NO_CHARGE: Final = Charge(0, "USD", UNPRICED)
UNKNOWN_CHARGE: Final = Charge(0, "USD", UNPRICED, priced=False)


def charged(target: Target | None, usage: Usage, at: datetime, *, answered: bool) -> Charge:
    """What a call comes to. Bought capacity goes first, then the book's price, then the list's. Takes from that capacity."""
    tokens = usage.input_tokens + usage.output_tokens
    if target is None or not (tokens or answered):
        return NO_CHARGE
    if tokens and target.terms is not None and (fill := target.terms.served(tokens, at)) is not None:
        return Charge(0, fill.capacity.currency, fill.source)
    found = target.sourced_price(at)
    if found is None:
        return UNKNOWN_CHARGE if tokens else NO_CHARGE
    price, source = found
    return Charge(cost_pico(usage, price), price.currency, source)


class Ended(Protocol):
    """How far an answer came. `error` is what broke it off, on the provider's side."""

    @property
    def error(self) -> BaseException | None: ...
    @property
    def finished(self) -> bool: ...


def outcome(answer: Ended | None, error: BaseException | None) -> str:
    """`error` is what its reader left with: an answer that was finished by then is `ok`, whatever the reader did afterwards."""
    if answer is not None and answer.error is not None:
        return _outcome_of(answer.error)
    if answer is not None and answer.finished:
        return OK
    return CLIENT_GONE if error is None else _outcome_of(error)


def _outcome_of(error: BaseException) -> str:
    if isinstance(error, FreeholdError):
        return error.code
    if isinstance(error, (asyncio.CancelledError, GeneratorExit, OSError)):
        return CLIENT_GONE
    return "internal"


def may_be_billed(outcome: str) -> bool:
    return outcome in _MAY_BE_BILLED


def estimated(reported: Usage | None, *, input_tokens: int, output_tokens: int) -> Usage:
    """What came is kept where it is more: a count made halfway knows the input exactly and the output so far."""
    if reported is None:
        return Usage(input_tokens=input_tokens, output_tokens=output_tokens, estimated=True)
    return structs.replace(reported, output_tokens=max(reported.output_tokens, output_tokens), estimated=True)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
