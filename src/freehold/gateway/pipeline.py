"""Gateway: the one door to models. Whoever calls a model comes through here, and leaves one record.

However it is asked (`call`: values; `forward`: bytes; `embed`: texts), a call begins in `_plan` and ends in `_settle`, and
nowhere else; what lies between is attempts.py's. All three return after the first event (or the whole answer) is there, so
what fails before it is an exception and not half an answer. Nothing on the way waits for the database, and nothing logs. Not
here: authentication (governance/keys.py), retries (a route's, in routing_course.py, or the caller's: that is a call of its own).
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec
from msgspec import Struct

from freehold.core.context import Reach
from freehold.core.errors import FreeholdError, Internal
from freehold.core.experiments import SHADOW
from freehold.core.messages import ModelRequest, Usage
from freehold.core.policy import Principal, allowed, authorize
from freehold.core.ports import CallRecords, Clock, EmbeddingWire, Wire
from freehold.core.records import CallRecord, Choice
from freehold.core.routes import PREFIX
from freehold.gateway.alternatives import able
from freehold.gateway.attempts import Answered, Asked, Call, Plan, PromptCall
from freehold.gateway.cache import Keeping
from freehold.gateway.cache_copies import Copy
from freehold.gateway.caching import Caching, vector_in
from freehold.gateway.calling import Answer, Told, Values
from freehold.gateway.canaries import Percentages, none_yet
from freehold.gateway.capabilities import Lack, refusal
from freehold.gateway.counting import Count, counted
from freehold.gateway.embedding import Embedded, Texts
from freehold.gateway.forwarding import Bytes, Passed, Passing
from freehold.gateway.limiting import Limiting
from freehold.gateway.metering import OK, Meter, begun_record, estimated, may_be_billed, meter_of, outcome
from freehold.gateway.models import ModelTable
from freehold.gateway.passing import Envelope
from freehold.gateway.residency import hold, within_reach
from freehold.gateway.routing_course import Pause, learn
from freehold.gateway.routing_plan import Chance, Explained, explained, routed_plan
from freehold.gateway.shadowing import Shadows, may_shadow
from freehold.gateway.slo import Measured
from freehold.gateway.spending import Spending, Within, keep_within
from freehold.gateway.targets import Routed, Target
from freehold.wires import path_in
from freehold.wires.openai_embeddings import EMBEDDINGS

ACTION: Final = "model:Call"
USER_HEADER: Final = "x-freehold-user"
_NO_HEADERS: Final[Mapping[str, str]] = {}
ADMITTED_MAX: Final = 10_000
"""Principals with a model each. When full, the memory starts anew."""


class _Admitted(Struct, frozen=True):
    """What was decided of a principal and a model, whatever is asked: that it may, and whether anything limits it (`free`: nothing does).

    Holds until something is declared or found (`as_of`).
    """

    principal: Principal
    target: Target
    plan: Plan
    record: CallRecord
    free: bool
    as_of: int


class Gateway:
    """`wires` are by name; those of clients and of providers are the same set."""

    def __init__(
        self,
        *,
        models: ModelTable,
        wires: Mapping[str, Wire],
        records: CallRecords,
        clock: Clock,
        limiting: Limiting | None = None,
        pause: Pause = asyncio.sleep,
        caching: Caching | None = None,
        shadows: Shadows | None = None,
        canaries: Percentages = none_yet,
    ) -> None:
        self.models = models
        self._wires = wires
        self._records = records
        self._clock = clock
        self._limiting = limiting
        self._pause = pause
        self._caching = Caching(clock, models.home) if caching is None else caching
        self._chance = Chance(clock)
        self._shadows = shadows
        self._canaries = canaries
        self._steps = self._plan, self._settle, self._plan_now
        self._admitted: dict[tuple[int, str, str], _Admitted] = {}

    def call(
        self,
        principal: Principal,
        request: ModelRequest,
        *,
        wire: str = "session",
        session_id: str | None = None,
        agent: str | None = None,
        rules: str | None = None,
        body: bytes = b"",
        spending: Spending | None = None,
    ) -> Call[Answer]:
        """`spending` is all that it may cost, besides what budgets allow. `wire` is the client's dialect; `rules` are what `auto` falls back to; `body` is what the request came as, if it did.

        Entering raises NotFound, Forbidden, Unsupported and whatever the provider refused the call with; iterating raises
        what broke it off.
        """
        meter = meter_of(
            self._clock,
            self._records,
            principal,
            wire=wire,
            requested=request.model,
            streamed=request.stream,
        )
        meter.session_id, meter.agent, meter.rules = session_id, agent, rules
        asked = Values(request, body, self._wires.get(wire))
        plan = (
            self._plan
            if spending is None
            else partial(self._plan, within=partial(keep_within, asked, spending))
        )
        return Call(asked, meter, plan, self._settle)

    def forward(
        self,
        principal: Principal,
        envelope: Envelope,
        *,
        wire: Wire,
        headers: Mapping[str, str] = _NO_HEADERS,
        call_id: str | None = None,
    ) -> PromptCall[Passing | Passed | Answer, Passing | Passed | Told]:
        """Gives bytes of `wire`, which is the client's, where who answers speaks it, else events.

        `headers` are the client's, names lower-cased. `call_id` is its record's, where there is one already. Raises as `call` does, and BadRequest for what `wire` cannot read.
        """
        meter = meter_of(
            self._clock,
            self._records,
            principal,
            wire=wire.name,
            requested=envelope.model,
            streamed=envelope.stream,
            id=call_id,
        )
        _note_user(meter, headers, envelope)
        asked = Bytes(envelope, wire, headers)
        plan, settle, plan_now = self._steps
        return PromptCall(asked, meter, plan, settle, plan_now=plan_now)

    async def embed(
        self,
        principal: Principal,
        envelope: Envelope,
        *,
        wire: EmbeddingWire,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Embedded:
        """Raises as `call` does on entering, and BadRequest before anybody is asked. `headers` as of `forward`."""
        texts = Texts(envelope, wire)
        meter = meter_of(self._clock, self._records, principal, wire=wire.name, requested=envelope.model)
        _note_user(meter, headers, envelope)
        async with Call(texts, meter, self._plan, self._settle) as embedded:
            return embedded

    async def count(
        self,
        principal: Principal,
        envelope: Envelope,
        *,
        wire: str,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Count:
        """How many tokens the request in `envelope` has, a whole one of `wire`. Who may not call the model may not ask."""
        target = await self.models.resolve(principal.tenant, envelope.model, wire=wire)
        authorize(principal, ACTION, target.resource)
        if principal.residency:
            target = within_reach(principal, target)
        return await counted(target, envelope, wire=self._wires[wire], headers=headers)

    async def explain(
        self,
        principal: Principal,
        route: str,
        envelope: Envelope,
        *,
        wire: Wire,
        headers: Mapping[str, str] = _NO_HEADERS,
        draw: float | None = None,
    ) -> Explained:
        """What the route would do with the request now. Raises NotFound; asks nobody, and leaves no record."""
        target = await self.models.resolve(principal.tenant, f"{PREFIX}/{route}", wire=wire.name)
        authorize(principal, ACTION, target.resource)
        if target.route is None:
            raise Internal("a route's name stands for something else")
        meter = meter_of(self._clock, self._records, principal, wire=wire.name, requested=envelope.model)
        _note_user(meter, headers, envelope)
        return explained(
            target.route, principal, ACTION, Bytes(envelope, wire, headers), user=meter.account.user,
            draw=self._chance() if draw is None else draw,
            now_s=self._clock.monotonic_s(), at=self._clock.now(),
            canary_percent=self._canaries(principal.tenant, target.route.route),
        )  # fmt: skip

    async def reach(self, principal: Principal, model: str, *, rules: str | None = None) -> Reach:
        """Of a route, what each of its models takes. Raises NotFound. Nobody is asked, and nothing is recorded."""
        target = await self.models.resolve(principal.tenant, model, rules=rules)
        targets = [target] if target.route is None else [one.target for one in target.route.reachable]
        known = [one.facts.context_tokens for one in targets if one.facts and one.facts.context_tokens]
        return Reach(
            min(known, default=None), is_language_model=all(one.provider.is_language_model for one in targets)
        )

    def _plan_now(self, meter: Meter, asked: Asked[Answered]) -> Plan | None:
        """Where calls begin of which all is known, and for which what limits them has been leased; None for the others."""
        principal, requested, wire = meter.principal, meter.requested, meter.wire
        # Whoever was admitted is kept there, so nobody else comes to have its id.
        admitted = self._admitted.get((id(principal), requested, wire))
        if admitted is None or admitted.as_of != self.models.as_of():
            admitted = self._admit(meter)
            if admitted is None:
                return None
        meter.target, meter.begun, plan = admitted.target, admitted.record, admitted.plan
        self._look_into(asked, meter, admitted.target)
        limiting = self._limiting
        if limiting is None or admitted.free or limiting.take_now(meter, asked, plan.targets):
            return plan
        return None

    def _admit(self, meter: Meter) -> _Admitted | None:
        """None where its model is not known yet, or is a route's. Raises Forbidden."""
        principal, requested, wire, as_of = meter.principal, meter.requested, meter.wire, self.models.as_of()
        target = self.models.known(principal.tenant, requested, wire, None)
        if target is None or target.route is not None:
            return None
        meter.target = target
        _hold(principal, target)
        record = begun_record(principal, principal.account, wire, requested, target)
        free = self._limiting is None or self._limiting.is_free(principal.tenant)
        if len(self._admitted) >= ADMITTED_MAX:
            self._admitted.clear()
        admitted = _Admitted(principal, target, Plan((target,)), record, free, as_of)
        self._admitted[id(principal), requested, wire] = admitted
        return admitted

    async def _plan(self, meter: Meter, asked: Asked[Answered], *, within: Within | None = None) -> Plan:
        """Where every other call begins. Waits only after a declaration has changed, for the database."""
        tenant, model = meter.principal.tenant, meter.requested
        target = self.models.known(tenant, model, meter.wire, meter.rules)
        if target is None:
            target = await self.models.resolve(tenant, model, wire=meter.wire, rules=meter.rules)
        if (routed := target.route) is not None and routed.route.cache is not None:
            authorize(meter.principal, ACTION, target.resource)
            request, wanted = asked.cacheable()
            meaning = partial(self._meaning, meter.account.user)
            earlier = await self._caching.earlier(meter, request, wanted, routed, ACTION, meaning)
            if earlier is not None:
                return Plan((earlier.target,), earlier=earlier.response)
        plan = self._planned(meter, asked, target)
        if within is not None:
            meter.shortened = within(plan.targets, asks_max=plan.asks_max, at=meter.at)
        await self._reserve(meter, asked, plan)
        if routed is not None and routed.shadows and self._shadows is not None:
            self._shadow(self._shadows, meter, asked, routed)
        return plan

    async def _reserve(self, meter: Meter, asked: Asked[Answered], plan: Plan) -> None:
        """The most that the plan can use, of what limits and budgets it. Waits only where a lease has run out."""
        limiting = self._limiting
        if limiting is None or limiting.is_free(meter.principal.tenant):
            return
        try:
            meter.taken = await limiting.take(meter, asked, plan.targets, asks_max=plan.asks_max)
        except asyncio.CancelledError:
            meter.target = None  # Nobody was asked, so nobody bills for it.
            raise

    def _shadow(self, shadows: Shadows, meter: Meter, asked: Asked[Answered], routed: Routed) -> None:
        """Asks them beside the call, which has a plan and waits for none of it."""
        for target, percent in routed.shadows:
            if self._chance() * 100 >= percent or not may_shadow(meter.principal, ACTION, asked, target):
                continue
            beside = meter_of(
                self._clock,
                self._records,
                meter.principal,
                wire=meter.wire,
                requested=meter.requested,
                streamed=meter.streamed,
            )
            beside.session_id, beside.agent = meter.session_id, meter.agent
            beside.account = meter.account
            plan = partial(self._shadow_plan, target, routed)
            shadows.ask(partial(Call, asked, beside, plan, self._settle))

    async def _shadow_plan(
        self, target: Target, routed: Routed, meter: Meter, asked: Asked[Answered]
    ) -> Plan:
        """Limits and budgets hold for it as for any call."""
        plan = Plan((target,))
        meter.choice = routed.unasked
        await self._reserve(meter, asked, plan)
        model = f"{target.provider.name}/{target.name}"
        meter.choice = Choice(route=routed.route.name, reason="shadow", arm=f"{SHADOW}{model}")
        return plan

    def _planned(self, meter: Meter, asked: Asked[Answered], target: Target) -> Plan:
        """Who may ask, what can be done, who is asked. Never waits, so that two calls cannot both take what is left of a limit."""
        if (routed := target.route) is not None:
            return routed_plan(
                meter,
                ACTION,
                asked,
                target,
                routed,
                clock=self._clock,
                pause=self._pause,
                chance=self._chance,
                canary_percent=self._canaries(meter.principal.tenant, routed.route),
            )
        meter.target = target
        _hold(meter.principal, target)
        self._look_into(asked, meter, target)
        return Plan((target,))

    def _look_into(self, asked: Asked[Answered], meter: Meter, target: Target) -> None:
        """Raises Forbidden for what else the principal may not ask, and Unsupported for what the model is known not to do."""
        for model in asked.further_models():
            authorize(meter.principal, ACTION, f"model/{target.provider.name}/{model}")
        if (lacking := asked.lack_of(target)) is not None:
            raise self._refusal(meter, target, asked.body, *lacking)

    def _settle(
        self,
        meter: Meter,
        asked: Asked[Answered],
        answer: Answered | None,
        error: BaseException | None,
    ) -> None:
        """Where every call ends, however it ends."""
        ended, course, asked_s = outcome(answer, error), meter.course, None
        if course is not None:
            asked_s = course.asked_s
            course.end()
        meter.finish(ended, _billed(meter, asked, answer, ended))
        if meter.choice.cached is not None:
            return
        if meter.keeping is not None and ended == OK and answer is not None and answer.copy is not None:
            self._keep(meter.keeping, answer.copy, meter.target)
        if meter.objectives is not None:
            self._measure(meter.objectives, meter, answer, ended, asked_s)
        if meter.target is not None and meter.target.health is not None:
            learn(meter, answer, ended, asked_s, self._clock.monotonic_s())

    def _measure(
        self, objectives: Measured, meter: Meter, answer: Answered | None, ended: str, asked_s: float | None
    ) -> None:
        """Attempts that did not begin were counted when they failed."""
        first_s = meter.first_s if meter.streamed and answer is not None else None
        objectives.settled(
            None if answer is None or meter.target is None else meter.target.resource.removeprefix("model/"),
            ended,
            first_s=None if first_s is None else first_s - meter.started_s,
            own_first_s=None
            if first_s is None
            else first_s - (meter.started_s if asked_s is None else asked_s),
            now_s=self._clock.monotonic_s(),
        )

    def _keep(self, keeping: Keeping, copy: Copy, target: Target | None) -> None:
        response = copy.response()
        if response is not None and target is not None:
            self._caching.keep(keeping, response, f"{target.provider.name}/{target.name}")

    async def _meaning(
        self, user: str | None, principal: Principal, model: str, text: str
    ) -> Sequence[float]:
        """A text's vector, by a call of its own, for the same user."""
        envelope = Envelope(msgspec.json.encode({"model": model, "input": text}))
        headers = _NO_HEADERS if user is None else {USER_HEADER: user}
        return vector_in((await self.embed(principal, envelope, wire=EMBEDDINGS, headers=headers)).body)

    def _refusal(
        self, meter: Meter, target: Target, body: bytes, lack: Lack, request: ModelRequest
    ) -> FreeholdError:
        """Names models that could do it, of those that the caller may call."""
        facts, principal = target.facts, meter.principal
        assert facts is not None  # noqa: S101 - only facts say what is lacking
        may_call = partial(allowed, principal, ACTION)
        upstreams = self.models.usable_now(principal.tenant)
        instead = able(upstreams, self.models.facts, may_call, lack, request)
        wire = self._wires.get(meter.wire)
        field = path_in(wire, body, lack.field) if body and wire is not None else lack.field
        return refusal(f"{target.provider.name}/{target.name}", lack, facts, field=field, instead=instead)


def _note_user(meter: Meter, headers: Mapping[str, str], envelope: Envelope) -> None:
    """Whom the client names. A header's bytes were read as Latin-1, and are UTF-8 where they can be: one name however it comes."""
    user = headers.get(USER_HEADER) or envelope.end_user()
    if not user:
        return
    if not user.isascii() and USER_HEADER in headers:
        with suppress(UnicodeError):
            user = user.encode("latin-1").decode()
    meter.called_for(user)


def _hold(principal: Principal, target: Target) -> None:
    """Raises Forbidden where the principal may not ask it, whatever it asks."""
    authorize(principal, ACTION, target.resource)
    if principal.residency:
        hold(principal, target)


def _billed(meter: Meter, asked: Asked[Answered], answer: Answered | None, ended: str) -> Usage:
    """The vendor's count of a whole answer; an estimate of what the vendor may bill all the same; else nothing."""
    target = meter.target
    facts = None if target is None else target.facts
    if answer is None:
        return estimated(None, asked, facts) if target is not None and may_be_billed(ended) else Usage()
    usage = answer.usage
    if usage is not None and (ended == OK or answer.finished):
        return usage
    return estimated(usage, asked, facts, output_tokens=answer.output_tokens_estimated)
