"""Gateway: one call's record: times, usage, money. However the call ends, exactly one record is left.

The vendor's own count is what is billed. Where none came (the client hung up, the stream broke off, a server that doesn't
count) it is estimated (core/tokens.py), and says so. Not here: limits and budgets, and where records go.
"""

import asyncio
from datetime import UTC, datetime
from typing import Final, Protocol

from msgspec import Struct, structs

from freehold.catalog.models import ModelFacts
from freehold.core import ids
from freehold.core.errors import BrokenOff, FreeholdError, TimedOut
from freehold.core.messages import Usage
from freehold.core.policy import Principal
from freehold.core.ports import CallRecords, Clock
from freehold.core.pricing import cost_pico
from freehold.core.records import DIRECT, UNPRICED, Account, CallRecord, Choice
from freehold.gateway.allowance import Taken
from freehold.gateway.bounds import Most
from freehold.gateway.cache import Keeping, Note
from freehold.gateway.slo import Measured
from freehold.gateway.targets import Target

OK: Final = "ok"
CLIENT_GONE: Final = "client_gone"
SUPERSEDED: Final = "superseded"
"""Of an attempt: another model that was asked beside it was quicker."""

_MAY_BE_BILLED: Final = {CLIENT_GONE, TimedOut.code, BrokenOff.code}
"""Outcomes after which the vendor may still bill the input, although nothing came."""

USER_CHARS_MAX: Final = 200
_KEY: Final = "key_"
_BLANK: Final = CallRecord(
    id="",
    at=datetime.min.replace(tzinfo=UTC),
    tenant="",
    principal="",
    wire="",
    model_requested="",
    provider="",
    model="",
    outcome="",
)
"""To be changed: naming all of a record's fields takes three times as long as naming those that are not as always."""


class RoutedCourse(Protocol):
    """A route's way of asking. `asked_s`: when whoever answers was asked, by the monotonic clock."""

    @property
    def asked_s(self) -> float | None: ...
    def end(self) -> None:
        """The answer is over, or there is none: gives back what was taken. Idempotent."""
        ...


class Meter(Struct, eq=False):
    """One call, from before its model is known. Whoever opens it finishes it, once. Made by `meter_of`.

    `started_s` and `first_s` are by the monotonic clock; `objectives` are of the route by which it goes. `shortened`: a longer answer was asked for than
    may be paid for (spending.py).
    """

    clock: Clock
    records: CallRecords
    principal: Principal
    wire: str
    requested: str
    id: str
    at: datetime
    started_s: float
    account: Account
    streamed: bool = False
    first_s: float | None = None
    target: Target | None = None
    session_id: str | None = None
    agent: str | None = None
    rules: str | None = None
    choice: Choice = DIRECT
    course: RoutedCourse | None = None
    record: CallRecord | None = None
    taken: Taken | None = None
    cache: Note | None = None
    keeping: Keeping | None = None
    objectives: Measured | None = None
    shortened: bool = False
    begun: CallRecord | None = None
    """The record as far as it is known once it is known who asks whom (`begun_record`), where that was known before."""

    def called_for(self, user: str | None) -> None:
        """Whom the client names; a key that is somebody's own says it better."""
        if user and self.account.user is None and user.isprintable():
            self.account = structs.replace(self.account, user=user[:USER_CHARS_MAX])

    def first_event(self) -> None:
        """It is there. Of a whole answer, which comes at its end, nobody says so."""
        if self.first_s is None:
            self.first_s = self.clock.monotonic_s()

    def finish(self, outcome: str, usage: Usage) -> CallRecord:
        target = self.target
        self.record = record = self._recorded(self.id, self.choice.arm, target, outcome, usage)
        if self.taken is not None:
            self.taken.settle(record, "" if target is None else target.resource)
        return record

    def lose(self, target: Target, outcome: str, usage: Usage) -> CallRecord:
        """A record of its own, for an attempt whose vendor may bill it although another one answered, or was asked. It is no call of an
        experiment's arm.
        """
        record = self._recorded(ids.new("call", self.clock), None, target, outcome, usage)
        if self.taken is not None:
            self.taken.add(record, target.resource)
        return record

    def _recorded(
        self, id_: str, arm: str | None, target: Target | None, outcome: str, usage: Usage
    ) -> CallRecord:
        now_s, started_s, first_s = self.clock.monotonic_s(), self.started_s, self.first_s
        if first_s is None and outcome == OK:
            self.first_s = first_s = now_s
        account, choice, principal = self.account, self.choice, self.principal
        saved_pico = 0
        if choice.cached is None:
            charge = charged(target, usage, self.at, answered=outcome == OK)
        else:
            charge, saved_pico = _spared(target, usage, self.at)
            usage = Usage()
        begun = self.begun
        if begun is None or account is not principal.account:
            begun = begun_record(principal, account, self.wire, self.requested, target)
        record = structs.replace(
            begun,
            id=id_,
            at=self.at,
            outcome=outcome,
            usage=usage,
            cost_pico=charge.cost_pico,
            currency=charge.currency,
            priced=charge.priced,
            price_source=charge.source,
            duration_ms=int((now_s - started_s) * 1_000_000) / 1000,
            first_event_ms=None if first_s is None else int((first_s - started_s) * 1_000_000) / 1000,
            streamed=self.streamed,
        )
        if choice is not DIRECT:
            record = structs.replace(
                record,
                route=choice.route,
                reason=choice.reason,
                attempts=choice.attempts,
                region=choice.region,
                cached=choice.cached,
                saved_pico=saved_pico,
                arm=arm,
            )
        if self.session_id is not None or self.agent is not None or self.taken is not None:
            leases = None if self.taken is None or target is None else self.taken.lease_ids(target.resource)
            record = structs.replace(record, session_id=self.session_id, agent=self.agent, leases=leases)
        self.records.add(record)
        return record


def meter_of(
    clock: Clock,
    records: CallRecords,
    principal: Principal,
    *,
    wire: str,
    requested: str,
    streamed: bool = False,
    id: str | None = None,  # noqa: A002
) -> Meter:
    """Of a call that begins now."""
    id_ = ids.new("call", clock) if id is None else id
    account, now, now_s = principal.account, clock.now(), clock.monotonic_s()
    return Meter(clock, records, principal, wire, requested, id_, now, now_s, account, streamed)


def begun_record(
    principal: Principal, account: Account, wire: str, requested: str, target: Target | None
) -> CallRecord:
    """What a call's record says of who asks whom. The rest of it says that nothing has happened."""
    return structs.replace(
        _BLANK,
        tenant=principal.tenant,
        principal=principal.id,
        wire=wire,
        model_requested=requested,
        provider=target.provider.name if target else "",
        model=target.name if target else "",
        key_id=account.key_id or (principal.id if principal.id.startswith(_KEY) else None),
        organisation=account.organisation,
        team=account.team,
        user=account.user,
        labels=account.labels,
    )


class Metered:
    """What an answer tells of its call, besides what was answered. `record` is there once the call's context was left."""

    __slots__ = ("meter",)

    meter: Meter
    """For whoever makes one to set."""

    @property
    def shortened(self) -> bool:
        """Whether a longer answer was asked for than may be paid for."""
        return self.meter.shortened

    @property
    def record(self) -> CallRecord | None:
        return self.meter.record


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


def _spared(target: Target | None, usage: Usage, at: datetime) -> tuple[Charge, int]:
    """Nothing, and what the call would have cost. Nothing is taken from bought capacity for it."""
    price = None if target is None else target.price(at)
    if price is None:
        return NO_CHARGE, 0
    return Charge(0, price.currency, UNPRICED), cost_pico(usage, price)


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


class Estimable(Protocol):
    """A request, whichever shape it has."""

    def most(self, facts: ModelFacts | None) -> Most: ...
    def input_tokens(self) -> int: ...


def estimated(
    reported: Usage | None, asked: Estimable, facts: ModelFacts | None, *, output_tokens: int = 0
) -> Usage:
    """What a vendor may bill for what it did not count to its end. An estimate never passes what was taken for the call beforehand.

    What came is kept where it is more: a count made halfway knows the input exactly and the output so far.
    """
    most = asked.most(facts)
    output_tokens = min(output_tokens, most.output_tokens)
    if reported is None:
        input_tokens = min(asked.input_tokens(), most.input_tokens)
        return Usage(input_tokens=input_tokens, output_tokens=output_tokens, estimated=True)
    return structs.replace(reported, output_tokens=max(reported.output_tokens, output_tokens), estimated=True)
