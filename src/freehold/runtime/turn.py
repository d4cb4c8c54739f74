"""Runtime: carries out, for one leased session, what decide.py says: perform, record, and again, until it rests.

What runs can be stopped at any time: by a cancel that someone wrote into the log, by the turn's wall time, or by the worker
(a lost lease, a stop), which cancels the task. Whatever was recorded holds, and whatever was not is decided again by the next
one to hold the lease. Whom to serve is not decided here (worker.py).
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Final

from msgspec import structs

from freehold.core.errors import ContextTooLong, FreeholdError, Internal
from freehold.core.messages import ModelRequest, ToolCall
from freehold.core.resources import Limits
from freehold.core.session import (
    AwaitsPlace,
    ModelAnswered,
    ModelFailed,
    SessionEvent,
    TurnFinished,
    TurnStarted,
)
from freehold.core.session_log import Lease
from freehold.core.session_state import SessionState
from freehold.runtime.calls import Claim
from freehold.runtime.context import Compact, compacted, summary_request
from freehold.runtime.decide import (
    CallModel,
    FinishTurn,
    Plan,
    Rest,
    RunTools,
    StartTurn,
    Step,
    Wait,
    cost_left_pico,
    decide,
    finish,
    time_left_s,
)
from freehold.runtime.digests import RequestDigests
from freehold.runtime.journal import Journal, LeaseLost
from freehold.runtime.live import Live
from freehold.runtime.means import Means
from freehold.runtime.model_step import ModelStep
from freehold.runtime.outfit import Outfit, acting, fitted
from freehold.runtime.spending import purse
from freehold.runtime.subagents import cancel_children, tell_parent
from freehold.runtime.thread_asks import ThreadVoice
from freehold.runtime.tool_step import run_tool
from freehold.runtime.waiting import asks_approval
from freehold.runtime.watch import Stoppable, Watch

log = logging.getLogger(__name__)

WALL_TIME_MARGIN_S: Final = 0.005
GIVE_UP_TRIES_MAX: Final = 5


class SessionRun:
    """One session under one lease. `stopping` asks it to leave off at the next step's border; `state` is what its log says, where
    that is known already."""

    def __init__(
        self, means: Means, lease: Lease, stopping: asyncio.Event, state: SessionState | None = None
    ) -> None:
        self._means = means
        self._lease = lease
        self._stopping = stopping
        self._journal = Journal(means.log, lease, means.clock, on_point=means.on_point, state=state)
        self._watch = Watch(self._journal, self._time_left_s, means.alarms)
        self._voice = ThreadVoice(means.log, lease.session_id)
        self._results: list[SessionEvent] = []
        self._recording = asyncio.Lock()
        self._plan = Plan(lease.session_id, Limits(), {})
        self._outfit: Outfit | None = None
        self._due_at: datetime | None = None
        self._digests = RequestDigests()
        self._borrowed = AsyncExitStack()
        self._cost_share_pico: int | None = None

    @property
    def _state(self) -> SessionState:
        return self._journal.state

    async def run(self) -> bool:
        """Whether the lease is still to be given back. Not where it was with the last append, and not where it is better left to run
        out: it is lost, or whoever got it next would fare no better.

        Raises only what the database does, and CancelledError.
        """
        try:
            async with self._borrowed:
                if not self._state.seq:
                    await self._journal.catch_up()
                found_seq = self._state.seq
                self._due_at = self._reached()
                while not self._stopping.is_set() and await self._step():
                    pass
                await self._journal.flush()
        except LeaseLost as error:
            log.info("session.lease_lost", extra={"session": self._lease.session_id, "why": str(error)})
            return False
        except Exception as error:
            if isinstance(error, FreeholdError) and error.retryable:
                raise
            log.exception("session.crashed", extra={"session": self._lease.session_id})
            return not self._journal.released and await self._give_up()
        if self._journal.released:
            return False
        if self._state.seq == found_seq and not self._stopping.is_set() and self._state.waits is None:
            log.warning("session.nothing_to_do", extra={"session": self._lease.session_id})
            return False
        return True

    async def _step(self) -> bool:
        """False when there is nothing more to do."""
        if self._outfit is None:
            await self._prepare()
        state = self._state
        step = decide(state, self._plan, self._now())
        if self._plan.limited and type(step) is RunTools:
            step = await self._with_places(step)
        started = state.started
        if started is not None and started.parent is not None:
            await self._voice.tell(started.agent, started.parent, state, step)
        # The frequent ones first, and by their type: a struct's class takes its time to say no.
        if type(step) is CallModel:
            await self._call_model()
        elif type(step) is RunTools:
            await self._run_tools(step)
        else:
            return await self._step_seldom(step)
        return True

    async def _step_seldom(self, step: Step) -> bool:
        match step:
            case FinishTurn():
                return await self._finish(step)
            case StartTurn():
                await self._put_back()
                await self._journal.append([TurnStarted(turn=step.turn)])
            case Rest():
                return False
            case CallModel():
                await self._call_model()
            case RunTools():
                await self._run_tools(step)
            case Compact():
                await self._compact(step)
            case Wait():
                return await self._wait(step)
        return True

    async def _with_places(self, step: RunTools) -> Step:
        """Decided with the places that limited tools have for it."""
        lease, limited = self._lease, self._plan.limited
        wanted = {one.started.call_id: one.started.tool for one in step.claims if one.started.tool in limited}
        if not wanted:
            return step
        places = await self._means.places.take(lease.tenant, lease.session_id, wanted)
        return decide(self._state, self._plan, self._now(), places=places)

    async def _wait(self, step: Wait) -> bool:
        for_place = any(isinstance(call.awaits, AwaitsPlace) for call in step.waits.calls)
        written = await self._journal.append([step.waits], exact=True, releases=not for_place)
        if written and for_place:
            await self._means.places.look(self._lease.tenant, self._lease.session_id)
        return not self._journal.released

    async def _finish(self, step: FinishTurn) -> bool:
        """Places are given back under the lease: the next one to hold it may take some for the same session."""
        await self._tell_family(step)
        over = type(step.events[-1]) is TurnFinished
        places = bool(self._plan.limited or self._state.open_calls)
        if await self._journal.append(step.events, exact=True, releases=over and not places):
            if places:
                await self._keep_places()
            await self._put_back()
        return not self._journal.released

    async def _keep_places(self) -> None:
        """Those of calls that run, or are about to: a call that is over, or has only begun something, gives its place back."""
        kept = [call_id for call_id, call in self._state.open_calls.items() if call.awaited is None]
        await self._means.places.keep(self._lease.tenant, self._lease.session_id, kept)

    async def _prepare(self) -> None:
        """Before a turn's first step. Where the agent can't be set up, that fails the turn as a model failure would."""
        state = self._state
        if (
            not state.in_turn
            or state.cancel is not None
            or (state.failed is not None and state.failed.code != ContextTooLong.code)
        ):
            return
        means, lease = self._means, self._lease
        try:
            who = await acting(means, lease, state)
        except FreeholdError as error:
            if error.retryable:
                raise
            await self._fail_to_ask(error)
            return
        try:
            outfit = await fitted(means, lease, state, who, self._borrowed)
        except FreeholdError as error:
            await self._fail_to_ask(error)
            return
        self._plan = structs.replace(outfit.equipped.plan, session_id=lease.session_id)
        if self._plan.limited:
            await self._keep_places()
        await means.equipments.keep(lease.tenant, outfit.equipped)
        self._outfit = outfit

    async def _tell_family(self, step: FinishTurn) -> None:
        """Those that this session works for, and those that work for it, before the turn's end is a fact."""
        means = self._means
        for event in step.events:
            if isinstance(event, TurnFinished):
                await tell_parent(
                    means.log,
                    self._lease,
                    self._state,
                    event,
                    declarations=means.declarations,
                    results=means.results,
                )
                await cancel_children(means.log, self._state, self._lease.session_id)

    async def _fail_to_ask(self, error: FreeholdError) -> None:
        model = (self._state.started and self._state.started.model) or ""
        failed = ModelFailed(
            seen_seq=self._state.seq, model=model, code=error.code, message=str(error), attempts=0
        )
        await self._journal.append([failed])

    async def _put_back(self) -> None:
        """The next turn sees tools and rights as they are then."""
        self._outfit = None
        await self._borrowed.aclose()

    def _fitted(self) -> Outfit:
        if self._outfit is None:
            raise Internal("a step was decided on before the turn was prepared")
        return self._outfit

    async def _call_model(self) -> None:
        outfit, means = self._fitted(), self._means
        await self._journal.flush()
        state = self._state
        head = outfit.equipped.equipment.head(state) if state.results_kept else outfit.head
        request = outfit.equipped.equipment.request(state, head)
        call = self._model_step(outfit, means.live, request)
        request_digest = self._digests.of(request, head)
        means.on_point("model:before")
        answered: ModelAnswered | ModelFailed | None = None
        async with self._watch:
            with Stoppable(self._watch):
                answered = await call.run(request)
        if answered is None:
            code, why = (
                ("cancelled", "cancelled") if self._state.cancel else ("limit_reached", "out of wall time")
            )
            answered = call.stopped(code, f"the call was stopped: {why}")
        means.on_point("model:after")
        if answered is not None:
            self._journal.stage(self._marked(answered, request_digest, outfit.equipped.digest))

    async def _compact(self, step: Compact) -> None:
        """What a summary costs counts, whether it succeeds or not; nobody watches it being written."""
        outfit, plan = self._fitted(), self._plan.context
        await self._journal.flush()
        answered: ModelAnswered | ModelFailed | None = None
        if step.summarise and plan is not None:
            call = self._model_step(outfit, Live(), None)
            model = outfit.equipped.equipment.model_of(self._state)
            async with self._watch:
                with Stoppable(self._watch) as running:
                    answered = await call.run(summary_request(self._state, plan, step, model=model))
            if running.stopped:
                if (failed := call.stopped("cancelled", "the summary was stopped")) is not None:
                    self._journal.stage(failed)
                return
        await self._journal.append([compacted(self._state, step, answered)])

    def _model_step(self, outfit: Outfit, live: Live, request: ModelRequest | None) -> ModelStep:
        """`request`: where it goes on with the conversation."""
        means, state = self._means, self._state
        return ModelStep(
            means.gateway,
            live,
            means.clock,
            retries=means.retries,
            asked=outfit.asked,
            state=state,
            purse=purse(state, self._plan, request),
        )

    def _marked(
        self, answered: ModelAnswered | ModelFailed, request_digest: str, equipment: str
    ) -> ModelAnswered | ModelFailed:
        """With what was asked, and the calls that the client or other people will hear of first: known now, shown with the answer."""
        if type(answered) is not ModelAnswered:
            return answered
        client: list[str] = []
        ask: list[str] = []
        for part in answered.content:
            if isinstance(part, ToolCall) and (planned := self._plan.functions.get(part.name)):
                if planned.settled_by == "client":
                    client.append(part.id)
                if asks_approval(planned):
                    ask.append(part.id)
        return structs.replace(
            answered,
            client_calls=tuple(client),
            ask_calls=tuple(ask),
            request_digest=request_digest,
            equipment=equipment,
        )

    async def _run_tools(self, step: RunTools) -> None:
        claimed = [claim.started for claim in step.claims]
        # Exact: what an earlier attempt began may have got its result from outside meanwhile, and is not begun again then.
        if not await self._journal.append([*step.facts, *claimed], exact=True):
            return
        if step.facts and self._plan.limited:
            await self._keep_places()
        state = self._state
        if not step.claims or state.cancel is not None:
            return
        left = cost_left_pico(state, self._plan)
        self._cost_share_pico = None if left is None else left // len(step.claims)
        if len(step.claims) == 1:
            await self._run_alone(step.claims[0])
            return
        async with self._watch:
            try:
                async with asyncio.TaskGroup() as group:
                    for claim in step.claims:
                        group.create_task(self._run_tool(claim))
            except BaseExceptionGroup as together:
                # One cause at a time: whichever came first is what the worker acts on.
                raise together.exceptions[0] from together

    async def _run_alone(self, claim: Claim) -> None:
        """Nobody needs to be watched while its result is recorded; that it is, comes first, also when the watch failed."""
        result: SessionEvent | None = None
        try:
            async with self._watch:
                result = await self._result_of(claim)
        finally:
            if result is not None:
                await self._record([result])

    async def _run_tool(self, claim: Claim) -> None:
        """Runs it, and records its result as soon as it is there, together with others' that came meanwhile."""
        result = await self._result_of(claim)
        if result is None:
            return
        self._results.append(result)
        async with self._recording:
            if self._results:
                results, self._results = self._results, []
                await self._record(results)

    async def _record(self, results: Sequence[SessionEvent]) -> None:
        await self._journal.append(results)
        if self._plan.limited:
            await self._keep_places()

    async def _result_of(self, claim: Claim) -> SessionEvent | None:
        """None where it was stopped."""
        outfit = self._fitted()
        self._means.on_point("tool:before")
        with Stoppable(self._watch) as running:
            result = await run_tool(
                claim,
                outfit.toolbox,
                outfit.acting.principal,
                session_id=self._lease.session_id,
                clock=self._means.clock,
                results=outfit.results,
                expecting=self._means.expecting,
                alarms=self._means.alarms,
                hosts=outfit.acting.hosts,
                cost_left_pico=self._cost_share_pico,
            )
        if running.stopped:
            return None
        self._means.on_point("tool:after")
        return result

    def _time_left_s(self) -> float:
        """A little more than there is, so that a timer that fires early finds it over."""
        return time_left_s(self._state, self._plan.limits, self._now()) + WALL_TIME_MARGIN_S

    def _reached(self) -> datetime | None:
        """What the session waited for, where it was claimed since its time had come, and not since another's lease had run out."""
        until, due_at = self._state.waits.until if self._state.waits else None, self._lease.due_at
        return until if until is not None and due_at is not None and due_at >= until else None

    def _now(self) -> datetime:
        """A session that was claimed since its time had come is past that time, whatever our own clock says."""
        now = self._means.clock.now()
        return now if self._due_at is None else max(now, self._due_at)

    async def _give_up(self) -> bool:
        """A fault of ours ends the turn, visibly."""
        message = "the turn failed inside Freehold; its log has the details. Send a message to go on."
        for _ in range(GIVE_UP_TRIES_MAX):
            try:
                await self._journal.catch_up()
                events = finish(self._state, "failed", message=message, code="internal").events
                if await self._journal.append(events, exact=True):
                    return True
            except LeaseLost:
                return False
            except Exception:
                log.exception("session.unreadable", extra={"session": self._lease.session_id})
                return False
        return False
