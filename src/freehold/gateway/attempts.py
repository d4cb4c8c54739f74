"""Gateway: the course of one call, whatever is asked and however it is answered: a plan, attempts, a settlement.

The plan says who is asked, in order, and is made without waiting (pipeline.py). An attempt asks one target and is over once the
answer's first event is there; only before it may another target be asked. The settlement comes once, however the call ends,
also where no plan was made. What is asked has three shapes: values (calling.py), bytes (forwarding.py), texts (embedding.py).

Most calls wait for nothing but their answer. They can be begun (`PromptCall`), which takes no task and no coroutine until the first
event is there, nor to the end where the answer is whole: what happens on the way is the same.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar, cast

from msgspec import Struct

from freehold.catalog.models import ModelFacts
from freehold.core.begins import Done, HangUp
from freehold.core.errors import Internal
from freehold.core.messages import ModelRequest, ModelResponse, Usage
from freehold.core.ports import RawAnswer
from freehold.gateway.bounds import Most
from freehold.gateway.cache_copies import Copy
from freehold.gateway.capabilities import Lack
from freehold.gateway.metering import Meter
from freehold.gateway.routing import Wanted
from freehold.gateway.targets import Target


class Plan(Struct, frozen=True):
    """What was decided before anybody is asked: one target, or those of a route, the first one first.

    `course` is a route's way of asking them: one after the other, some maybe twice, or two at once. `asks_max` is how often a vendor may bill for it.
    With `earlier`, nobody is asked: that is the answer.
    """

    targets: tuple[Target, ...]
    course: "Course | None" = None
    asks_max: int = 1
    earlier: ModelResponse | None = None


class Answered(Protocol):
    """An answer, from its first event on, and how far it came. `error` is what broke it off, on the provider's side."""

    @property
    def error(self) -> BaseException | None: ...
    @property
    def finished(self) -> bool: ...
    @property
    def usage(self) -> Usage | None:
        """What the provider counted, so far."""
        ...

    @property
    def output_tokens_estimated(self) -> int: ...

    @property
    def copy(self) -> Copy | None:
        """Of what has passed, where it is to be kept."""
        ...

    async def close(self) -> None:
        """Hangs up on the provider, unless the answer is over."""
        ...


A = TypeVar("A", bound=Answered)
A_co = TypeVar("A_co", bound=Answered, covariant=True)
W = TypeVar("W", bound=Answered)
W_co = TypeVar("W_co", bound=Answered, covariant=True)


class Asked(Protocol[A_co]):
    """What a caller wants, in one of its shapes. Can be asked of several targets in turn."""

    @property
    def body(self) -> bytes:
        """What it came as; empty where it came as values."""
        ...

    def further_models(self) -> Sequence[str]:
        """Of the same provider, that may answer instead."""
        ...

    def lack_of(self, target: Target) -> tuple[Lack, ModelRequest] | None:
        """What is asked and this model is known not to do. Raises what makes the request wrong for the target anyway."""
        ...

    async def ask(self, target: Target, meter: Meter) -> A_co:
        """One attempt. Raises before the first event, and has hung up then."""
        ...

    def most(self, facts: ModelFacts | None) -> Most:
        """What a model of which so much is known can use for it."""
        ...

    def input_tokens(self) -> int:
        """Estimated."""
        ...

    def wanted(self) -> Wanted:
        """For routes. Quick, and only about right."""
        ...

    def cacheable(self) -> tuple[ModelRequest | None, str | None]:
        """What an earlier answer would have to be one to, and the client's `cache-control`. None where none can be."""
        ...

    async def again(self, earlier: ModelResponse, target: Target, meter: Meter) -> A_co:
        """The answer that `target` gave before."""
        ...


Came: TypeAlias = bytes | ModelResponse | RawAnswer
"""A provider's whole answer, as it passes or in values; or a stream as it passes, of which some is there."""


class Prompt(Asked[A_co], Protocol[A_co, W_co]):
    """What can be asked of one target without waiting for anything but its answer."""

    def begin(self, target: Target, done: Done[Came]) -> HangUp | None:
        """As `core.begins.Begins` has it. An `ask` of the same target goes on from there."""
        ...

    def begun(self, came: Came, target: Target, meter: Meter) -> W_co:
        """The answer that `done` heard of; of a stream, as `ask` gives it."""
        ...


class Course(Protocol):
    async def answer(self, asked: Asked[A]) -> A:
        """Raises where nobody answers."""
        ...


Planned: TypeAlias = Callable[[Meter, Asked[A]], Awaitable[Plan]]
PlannedNow: TypeAlias = Callable[[Meter, Asked[A]], Plan | None]
"""For one target, which the meter then has; made without waiting. None where that cannot be."""

Settle: TypeAlias = Callable[[Meter, Asked[A], "A | None", BaseException | None], None]
"""Comes once. The error is what the answer's reader left with, or what kept the answer from beginning."""


class Call(Struct, Generic[A], eq=False):
    """Entered once, left once. Entering waits for the first event, unless it is there; leaving early hangs up on the provider."""

    _asked: Asked[A]
    _meter: Meter
    _plan: Planned[A]
    _settle: Settle[Answered]
    _answer: A | None = None
    _made: Plan | None = None

    async def __aenter__(self) -> A:
        if self._answer is not None:
            return self._answer
        try:
            plan = self._made or await self._plan(self._meter, self._asked)
            self._answer = answer = await self._attempt(plan)
        except BaseException as error:
            self._settle(self._meter, self._asked, None, error)
            raise
        return answer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        answer = self._answer
        try:
            if answer is not None:
                await answer.close()
        finally:
            self._settle(self._meter, self._asked, answer, error)
        return False

    async def _attempt(self, plan: Plan) -> A:
        if plan.earlier is not None:
            return await self._asked.again(plan.earlier, plan.targets[0], self._meter)
        if plan.course is not None:
            return await plan.course.answer(self._asked)
        meter = self._meter
        meter.target = target = plan.targets[0]
        return await self._asked.ask(target, meter)


def _never_now(_: Meter, __: Asked[A]) -> Plan | None:
    return None


class PromptCall(Call[A], Generic[A, W]):
    """Begun, or entered and left as any."""

    _asked: Prompt[A, W]
    plan_now: PlannedNow[A] = _never_now
    _hang_up: HangUp | None = None
    _ready: Done[W] | None = None

    def begin(self, ready: Done[W]) -> bool:
        """As entering; of a whole answer, as leaving too. `ready` hears later, once, of the answer or of what entering would have raised; not
        at all if `leave` comes before. Of a stream, it is still to be entered, which takes no time, and left.

        Raises as entering does. False where something has to be waited for first: enter it then, and nothing is done twice.
        """
        meter, asked = self._meter, self._asked
        try:
            plan = self.plan_now(meter, asked)
            if plan is None:
                return False
            self._ready = ready
            self._hang_up = hang_up = asked.begin(plan.targets[0], self._done)
        except BaseException as error:
            self._settle(meter, asked, None, error)
            raise
        if hang_up is None:
            self._made = plan
            return False
        return True

    def leave(self) -> None:
        """Nobody waits any more for the answer of a call that was begun, nor has entered it. Idempotent."""
        hang_up, self._hang_up = self._hang_up, None
        if hang_up is not None:
            hang_up()
            self._settle(self._meter, self._asked, self._answer, asyncio.CancelledError())

    def _done(self, came: Came | BaseException) -> None:
        meter, ready = self._meter, self._ready
        if meter.target is None or ready is None:
            raise Internal("an answer to a call that was not begun")
        hang_up, self._hang_up = self._hang_up, None
        told: W | BaseException
        try:
            if isinstance(came, BaseException):
                told = came
                self._settle(meter, self._asked, None, came)
            else:
                told = answer = self._asked.begun(came, meter.target, meter)
                if meter.streamed:
                    self._answer, self._hang_up = cast("A", answer), hang_up
                else:
                    self._settle(meter, self._asked, answer, None)
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it
            told = error
        ready(told)
