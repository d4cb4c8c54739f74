"""Gateway: how a route's call goes its way: the models in the order that was chosen, until one begins to answer.

What one model fails at, the next may do: `fault_of` says what is whose fault. After all have failed they are asked again, with
growing pauses, if the route's budget has it. A hedged call asks a second model where the first takes too long. Whatever a failed
attempt may cost leaves a record of its own. Not here: the order (routing.py), and what happens once an answer has begun (attempts.py).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, Literal, TypeAlias, TypeVar

from msgspec import Struct

from freehold.core.errors import (
    BrokenOff,
    ContentRefused,
    ContextTooLong,
    Forbidden,
    FreeholdError,
    Internal,
    LimitReached,
    NotFound,
    Overloaded,
    RateLimited,
    TimedOut,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from freehold.core.messages import Usage
from freehold.core.ports import Clock
from freehold.core.records import Choice
from freehold.gateway.attempts import Answered, Asked
from freehold.gateway.metering import CLIENT_GONE, OK, SUPERSEDED, Estimable, Meter, estimated, may_be_billed
from freehold.gateway.routing import Candidate, Decision, ordered_because
from freehold.gateway.routing_places import Priority
from freehold.gateway.targets import Member, Routed, Target

BACKOFF_S: Final = 0.1
BACKOFF_S_MAX: Final = 5.0
TOTAL_S: Final = 3600.0
"""After so long since the call came, nobody else is asked, where the route has no limit of its own."""

REASON_CHARS_MAX: Final = 300
HEDGED_SHARE: Final = 0.95
"""Of a model's calls, those that begin before another one is asked."""

Pause: TypeAlias = Callable[[float], Awaitable[object]]
Fault: TypeAlias = Literal["request", "model", "trait", "context", "content"]
"""Whose fault an error is. `model`: it, or its vendor, does not work now. `trait`: it does not do what is asked."""

_OF_THE_MODEL: Final = (RateLimited, Overloaded, TimedOut, Unavailable, BrokenOff)
_FOR_LONG: Final = (Forbidden, Unauthenticated, NotFound, LimitReached)
"""Our key is refused there, the model is gone, our account is empty: no pause mends it."""

_FAILED: Final = frozenset(kind.code for kind in _OF_THE_MODEL)

A = TypeVar("A", bound=Answered)

log = logging.getLogger(__name__)


def fault_of(error: FreeholdError) -> Fault:
    match error:
        case ContextTooLong():
            return "context"
        case ContentRefused():
            return "content"
        case Unsupported():
            return "trait"
        case _:
            return "model" if isinstance(error, (*_OF_THE_MODEL, *_FOR_LONG)) else "request"


class Hold:
    """A model that is being asked, from before the call until its answer is over: it has one of its places, which was taken."""

    __slots__ = ("_judged", "_over", "asked_s", "member", "place", "probes")

    def __init__(self, place: int, member: Member, now_s: float) -> None:
        self.place = place
        self.member = member
        self.asked_s = now_s
        breaker = member.health.breaker
        self.probes = not breaker.closed and breaker.began(now_s)
        self._judged = self._over = False

    def began(self, now_s: float) -> None:
        """The first event of a probe's answer is there, which is proof enough."""
        self._judged = True
        self.member.health.breaker.succeeded(now_s)

    def failed(self, now_s: float, error: FreeholdError) -> None:
        self._judged = True
        self.member.health.failed(now_s, error.code, retry_after_s=error.retry_after_s)

    def end(self) -> None:
        """Idempotent."""
        if self._over:
            return
        self._over = True
        if self.probes and not self._judged:
            self.member.health.breaker.left()
        self.member.health.places.give_back()


class _Asking(Struct, Generic[A]):
    hold: Hold
    task: asyncio.Task[A]


class Course:
    """One call's. `candidates` are as they were when `decision` was made. `called` is the route that the client named, where this one
    is its arm.
    """

    __slots__ = ("_again", "_asked", "_attempts_count", "_called", "_candidates", "_chance", "_clock", "_decision", "_failed", "_hold",
                 "_meter", "_overtaken", "_pause", "_routed", "_started_s", "_unpaid", "_wait_left_s")  # fmt: skip

    def __init__(
        self,
        routed: Routed,
        candidates: Sequence[Candidate],
        decision: Decision,
        *,
        called: str,
        now_s: float,
        meter: Meter,
        clock: Clock,
        pause: Pause,
        chance: Callable[[], float],
    ) -> None:
        self._routed = routed
        self._called = called
        self._candidates = candidates
        self._decision = decision
        self._meter = meter
        self._clock = clock
        self._pause = pause
        self._chance = chance
        self._started_s = now_s
        self._wait_left_s = routed.route.queue.wait_s
        self._attempts_count = 0
        self._failed: list[str] = []
        self._overtaken = ""
        """Who was asked before whoever answers, and had not begun by then."""
        self._again: list[int] = []
        """Who failed in this round, and may do better in the next."""
        self._asked: Estimable | None = None
        self._unpaid: tuple[Target, str] | None = None
        """A failed attempt that its vendor may bill; the last one's is the call's own record."""
        self._hold: Hold | None = None

    @property
    def asked_s(self) -> float | None:
        """When whoever answers was asked."""
        return None if self._hold is None else self._hold.asked_s

    def end(self) -> None:
        """Once the answer is over, or there is none. Idempotent."""
        if self._hold is not None:
            self._hold.end()

    async def answer(self, asked: Asked[A]) -> A:
        """Raises what the last model that was asked said, if none answers."""
        routed = self._routed
        routed.retries.called()
        routed.hedges.called()
        self._asked = asked
        waiting = deque(self._decision.order)
        rounds = 0
        error: FreeholdError | None = None
        while True:
            if not waiting:
                rounds += 1
                waiting = await self._next_round(rounds, error)
            place = waiting.popleft()
            member = routed.members[place]
            if error is not None and member.health.barred(self._now_s()):
                continue
            try:
                if not member.health.places.take_now():
                    await self._place(member, asked.wanted().priority)
            except Overloaded as full:
                error = error or full
                continue
            hold = Hold(place, member, self._now_s() if self._attempts_count else self._started_s)
            after_s = self._hedged_after_s(member) if routed.route.hedge is not None and waiting else None
            try:
                if after_s is None:
                    answer = await self._ask(hold, asked)
                else:
                    answer, hold = await self._hedged(hold, waiting, asked, after_s)
            except FreeholdError as caught:
                error = caught
                waiting = self._left_after(caught, member, waiting)
                continue
            self._hold = hold
            return answer

    # Between attempts.

    def _left_after(self, error: FreeholdError, member: Member, waiting: deque[int]) -> deque[int]:
        """Who may be asked now. Raises `error` where nobody can do better."""
        if self._now_s() - self._started_s >= self._total_s:
            raise error
        match fault_of(error):
            case "request":
                raise error
            case "content" if not self._routed.route.refused_content_falls_back:
                raise error
            case "context":
                return deque(place for place in waiting if self._larger(place, member))
            case _:
                return waiting

    def _larger(self, place: int, member: Member) -> bool:
        """Whether the model at `place` is known to take more than the other."""
        facts, others = self._routed.members[place].target.facts, member.target.facts
        if facts is None or facts.context_tokens is None:
            return False
        return others is None or facts.context_tokens > (others.context_tokens or 0)

    async def _next_round(self, rounds: int, error: FreeholdError | None) -> deque[int]:
        """Pauses. Raises `error` where there is nobody to ask again, or no budget for it."""
        if error is None:
            raise Internal("a route without a model")
        again, self._again = self._again, []
        retries = self._routed.route.retries
        if not again or rounds > retries.again_max:
            raise error
        pause_s = min(BACKOFF_S * 2 ** (rounds - 1), BACKOFF_S_MAX) * (0.5 + self._chance() / 2)
        now_s = self._now_s()
        rest_s = min(self._routed.members[place].health.rests_for_s(now_s) for place in again)
        pause_s = max(pause_s, rest_s)
        over = now_s + pause_s - self._started_s >= self._total_s
        if over or rest_s > retries.wait_s_max or not self._routed.retries.take():
            raise error
        await self._pause(pause_s)
        return deque(again)

    @property
    def _total_s(self) -> float:
        timeouts = self._routed.route.timeouts
        return (timeouts.total_s if timeouts else None) or TOTAL_S

    def _now_s(self) -> float:
        return self._clock.monotonic_s()

    async def _place(self, member: Member, priority: Priority) -> None:
        """Waits for one. Raises Overloaded. All the waiting of one call is bounded together."""
        began_s, queue = self._now_s(), self._routed.route.queue
        try:
            await member.health.places.take(
                member.model, self._meter.principal.tenant, priority, waiting_max=queue.waiting_max,
                wait_s=self._wait_left_s,
            )  # fmt: skip
        finally:
            self._wait_left_s = max(0.0, self._wait_left_s - (self._now_s() - began_s))

    # One attempt, or two at once.

    async def _ask(self, hold: Hold, asked: Asked[A]) -> A:
        """Ends `hold` where there is no answer."""
        member, meter = hold.member, self._meter
        self._pay()
        self._attempts_count += 1
        meter.target = member.target
        meter.choice = self._choice(hold)
        limit_s = member.first_event_s if meter.streamed else None
        try:
            if limit_s is None:
                answer = await asked.ask(member.target, meter)
            else:
                answer = await self._in_time(member, asked, limit_s)
        except FreeholdError as error:
            self._judge(hold, error)
            hold.end()
            raise
        except BaseException:
            hold.end()
            raise
        if hold.probes:
            hold.began(self._now_s())
        return answer

    async def _in_time(self, member: Member, asked: Asked[A], limit_s: float) -> A:
        try:
            async with asyncio.timeout(limit_s):
                return await asked.ask(member.target, self._meter)
        except TimeoutError as error:
            raise TimedOut(f"{member.model} did not begin within first_event_s = {limit_s:g}") from error

    def _judge(self, hold: Hold, error: FreeholdError) -> None:
        model = hold.member.model
        self._failed.append(f"{model} {error.code}")
        if fault_of(error) == "model":
            now_s, objectives = self._now_s(), self._routed.objectives
            hold.failed(now_s, error)
            if objectives is not None:
                objectives.of(model).ended(objectives.slo, Unavailable.code, None, now_s)
        if isinstance(error, _OF_THE_MODEL):
            self._again.append(hold.place)
        if isinstance(error, (Forbidden, Unauthenticated)):
            log.error("route.key_refused", extra={"model": model, "reason": error.message})
        self._pay()
        self._meter.target = hold.member.target
        if may_be_billed(error.code):
            self._unpaid = (hold.member.target, error.code)

    def _pay(self) -> None:
        """Somebody else is asked, so what the attempt before may have cost stands by itself."""
        if self._unpaid is not None:
            (target, outcome), self._unpaid = self._unpaid, None
            self._lost(target, outcome, None)

    def _lost(self, target: Target, outcome: str, usage: Usage | None, output_tokens: int = 0) -> None:
        assert self._asked is not None  # noqa: S101 - only what was asked is lost
        used = estimated(usage, self._asked, target.facts, output_tokens=output_tokens)
        self._meter.lose(target, outcome, used)

    def _choice(self, hold: Hold) -> Choice:
        because = ordered_because(self._routed.rule, self._candidates, self._decision, hold.place)
        if (name := self._routed.route.name) != self._called:
            because = f"by route {name}: {because}"
        if (arm := self._decision.arm) is not None:
            because = f"arm {arm}: {because}"
        if self._failed:
            because = f"after {', '.join(self._failed)}: {because}"
        if self._overtaken:
            because = f"quicker than {self._overtaken}: {because}"
        regions = hold.member.traits.regions
        return Choice(
            route=self._called,
            reason=because[:REASON_CHARS_MAX],
            attempts=len(self._failed) + 1,
            region=regions[0] if len(regions) == 1 else None,
            arm=arm,
        )

    # Hedging.

    def _hedged_after_s(self, member: Member) -> float | None:
        hedge, health = self._routed.route.hedge, member.health
        if hedge is None:
            return None
        figures = health.first if self._meter.streamed else health.whole
        return hedge.after_s or figures.at(HEDGED_SHARE, self._now_s())

    async def _hedged(
        self, hold: Hold, waiting: deque[int], asked: Asked[A], after_s: float
    ) -> tuple[A, Hold]:
        """The first of two to begin. Takes the second from `waiting`, if it is asked. Nothing of it outlives this."""
        first = _Asking(hold, asyncio.ensure_future(self._ask(hold, asked)))
        timer = asyncio.ensure_future(self._pause(after_s))
        asking = [first]
        winner: _Asking[A] | None = None
        try:
            await asyncio.wait({first.task, timer}, return_when=asyncio.FIRST_COMPLETED)
            if not first.task.done() and (second := self._second(waiting)) is not None:
                asking.append(_Asking(second, asyncio.ensure_future(self._ask(second, asked))))
            winner = await _first_to_begin(asking)
            answer = winner.task.result()
            self._meter.target = winner.hold.member.target
            if winner is not first and not (first.task.done() and first.task.exception()):
                self._overtaken = hold.member.model
            self._meter.choice = self._choice(winner.hold)
            return answer, winner.hold
        finally:
            timer.cancel()
            for one in asking:
                one.task.cancel()
            await asyncio.wait({timer, *(one.task for one in asking)})
            await self._account(asking, winner)

    def _second(self, waiting: deque[int]) -> Hold | None:
        """None where it cannot be asked at once, or there is no budget for it."""
        place = waiting[0]
        member = self._routed.members[place]
        health = member.health
        if health.barred(self._now_s()) or health.places.full or not self._routed.hedges.take():
            return None
        waiting.popleft()
        health.places.take_now()
        return Hold(place, member, self._now_s())

    async def _account(self, asking: Sequence[_Asking[A]], winner: _Asking[A] | None) -> None:
        """Whoever was asked in vain may bill for it. Where nobody answered, the first one's is the call's own record."""
        answered = winner is not None and winner.task.exception() is None
        for one in asking:
            if one is winner or (one.task.done() and not one.task.cancelled() and one.task.exception()):
                continue
            target, usage, output_tokens = one.hold.member.target, None, 0
            if not one.task.cancelled():
                answer = one.task.result()
                usage, output_tokens = answer.usage, answer.output_tokens_estimated
                await answer.close()
            one.hold.end()
            if answered:
                self._lost(target, SUPERSEDED, usage, output_tokens)
            elif one is asking[0]:
                self._meter.target = target
            else:
                self._lost(target, CLIENT_GONE, usage, output_tokens)
        if answered:
            self._pay()


async def _first_to_begin(asking: Sequence[_Asking[A]]) -> _Asking[A]:
    """Of those that answer, else the last to fail."""
    left = {one.task: one for one in asking}
    while True:
        done, _ = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            one = left.pop(task)
            if task.exception() is None or not left:
                return one


def learn(meter: Meter, answer: Answered | None, ended: str, asked_s: float | None, now_s: float) -> None:
    """What a call that is over tells of the model that was asked last. `asked_s`: when, where it was not asked at once.

    Attempts of a route that did not begin were judged when they failed.
    """
    target, record = meter.target, meter.record
    health = None if target is None else target.health
    if health is None or record is None:
        return
    began_s = meter.started_s if asked_s is None else asked_s
    if ended == OK:
        first_s = None if meter.first_s is None else max(0.0, meter.first_s - began_s)
        tokens = record.usage.output_tokens
        health.answered(
            now_s, first_s=first_s, whole_s=now_s - began_s, output_tokens=tokens, streamed=meter.streamed
        )
    elif ended in _FAILED and (answer is not None or record.route is None):
        health.failed(now_s, ended)
