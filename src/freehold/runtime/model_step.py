"""Runtime: one call to a model, with its retries, to one fact. Deltas go out live; only the whole answer is recorded.

A call that broke off is made anew from its beginning even when part of its answer was already shown: deltas are not facts.
The gateway authorizes, picks the model, meters and records; nothing of that is here.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from msgspec import Struct, structs

from freehold.core.context import Reach
from freehold.core.errors import FreeholdError
from freehold.core.jitter import jittered
from freehold.core.messages import (
    AnswerPart,
    ModelRequest,
    ModelResponse,
    Reasoning,
    ToolCall,
    Usage,
)
from freehold.core.policy import Principal
from freehold.core.ports import Clock
from freehold.core.records import CallRecord
from freehold.core.session import (
    ModelAnswered,
    ModelFailed,
)
from freehold.core.session_state import SessionState
from freehold.core.stream import ArgumentsAdded, Folding, PartStarted, StreamEvent, TextAdded
from freehold.gateway.spending import Spending, TooDear
from freehold.runtime.calls import with_unique_ids
from freehold.runtime.live import (
    Live,
    LiveModelStarted,
    LiveReasoning,
    LiveText,
    LiveToolArguments,
    LiveToolCall,
)
from freehold.runtime.spending import Purse

log = logging.getLogger(__name__)

RETRIES_MAX: Final = 4
RETRY_DELAY_S: Final = 0.5
RETRY_DELAY_S_MAX: Final = 20.0
RETRY_AFTER_S_MAX: Final = 60.0
"""Who asks us to wait longer than this gets no second call: the turn fails and says so."""


class Answer(Protocol):
    """One answer as it comes. Leaving its context early hangs up. `record` is there once the context was left."""

    provider: str
    model: str
    is_language_model: bool

    @property
    def shortened(self) -> bool:
        """Whether a longer answer was asked for than may be paid for."""
        ...

    def __aiter__(self) -> AsyncIterator[StreamEvent]: ...

    @property
    def record(self) -> CallRecord | None: ...


class Gateway(Protocol):
    def call(
        self,
        principal: Principal,
        request: ModelRequest,
        *,
        wire: str = "session",
        session_id: str | None = None,
        agent: str | None = None,
        rules: str | None = None,
        spending: Spending | None = None,
    ) -> AbstractAsyncContextManager[Answer]: ...

    async def reach(self, principal: Principal, model: str, *, rules: str | None = None) -> Reach:
        """What is known of who would answer. Raises NotFound."""
        ...


class RetryPolicy(Struct, frozen=True):
    """Waits `delay_s`, then twice that, and so on, each shortened by chance so that sessions don't come back in step."""

    retries_max: int = RETRIES_MAX
    delay_s: float = RETRY_DELAY_S
    delay_s_max: float = RETRY_DELAY_S_MAX

    def wait_s(self, attempt: int, error: FreeholdError) -> float | None:
        """Seconds until the attempt after `attempt` (1, 2, ...); None when there is to be none."""
        asked_s = error.retry_after_s or 0.0
        if not error.retryable or attempt > self.retries_max or asked_s > RETRY_AFTER_S_MAX:
            return None
        full_s: float = min(self.delay_s * 2.0 ** (attempt - 1), self.delay_s_max)
        return max(asked_s, jittered(full_s))


class Asked(Struct, frozen=True, kw_only=True):
    """On whose behalf a model is asked. `rules` are the agent's own, for when there is no language model."""

    principal: Principal
    session_id: str
    agent: str
    rules: str | None = None


class ModelStep:
    """One call. `state` is read only before and after it; what the failed attempts used is counted in, and no more is spent than is in `purse`."""

    def __init__(
        self,
        gateway: Gateway,
        live: Live,
        clock: Clock,
        *,
        retries: RetryPolicy,
        asked: Asked,
        state: SessionState,
        purse: Purse | None = None,
    ) -> None:
        self._gateway = gateway
        self._live = live
        self._clock = clock
        self._retries = retries
        self._asked = asked
        self._purse = purse
        self._state = state
        self._turn = state.turn
        self._seen_seq = state.seq
        self._attempts = 0
        self._usage = Usage()
        self._cost_pico = 0
        self._began_s = clock.monotonic_s()
        self._model = ""

    async def run(self, request: ModelRequest) -> ModelAnswered | ModelFailed:
        """Raises nothing but CancelledError: a failure is a fact."""
        self._model = request.model
        while True:
            self._attempts += 1
            try:
                response, answer = await self._attempt(request)
                return self._answered(response, answer)
            except FreeholdError as error:
                wait_s = self._retries.wait_s(self._attempts, error)
                if wait_s is None:
                    return self._failed(error.code, str(error), too_dear=isinstance(error, TooDear))
                log.info(
                    "model.retried",
                    extra={"session": self._asked.session_id, "code": error.code, "wait_s": round(wait_s, 3)},
                )
            except Exception:
                log.exception("model.crashed", extra={"session": self._asked.session_id})
                return self._failed(
                    "internal", "the model call failed inside Freehold; its log has the details"
                )
            await asyncio.sleep(wait_s)

    def stopped(self, code: str, message: str) -> ModelFailed | None:
        """After `run` was cancelled: what had been used up to then, where that is anything."""
        spent = self._cost_pico or self._usage.input_tokens or self._usage.output_tokens
        return self._failed(code, message) if spent else None

    async def _attempt(self, request: ModelRequest) -> tuple[ModelResponse, Answer]:
        folding = Folding()
        answer: Answer | None = None
        try:
            async with self._gateway.call(
                self._asked.principal,
                request,
                session_id=self._asked.session_id,
                agent=self._asked.agent,
                rules=self._asked.rules,
                spending=self._spending(),
            ) as answer:
                if self._live.heard(self._asked.session_id):
                    self._show_start(answer)
                shown: dict[int, AnswerPart] = {}
                async for event in answer:
                    folding.add(event)
                    if self._live.heard(self._asked.session_id):
                        self._show(event, shown)
        finally:
            if answer is not None and answer.record is not None:
                self._usage = self._usage.plus(answer.record.usage)
                self._cost_pico += answer.record.cost_pico
        return folding.response(), answer

    def _spending(self) -> Spending | None:
        """Less what attempts before have cost."""
        spending = None if self._purse is None else self._purse.spending
        if spending is None or not self._cost_pico:
            return spending
        return structs.replace(spending, cost_max_pico=max(0, spending.cost_max_pico - self._cost_pico))

    def _answered(self, response: ModelResponse, answer: Answer) -> ModelAnswered:
        record = answer.record
        return ModelAnswered(
            seen_seq=self._seen_seq,
            model=self._model,
            served_by=f"{answer.provider}/{answer.model}",
            content=with_unique_ids(response.content, self._state),
            stop_reason=response.stop_reason,
            usage=self._usage,
            cost_pico=self._cost_pico,
            priced=record.priced if record else False,
            call_id=record.id if record else "",
            duration_ms=self._duration_ms(),
            first_event_ms=record.first_event_ms if record else None,
            is_language_model=answer.is_language_model,
            limit=self._limit() if answer.shortened and response.stop_reason == "tokens_max" else None,
        )

    def _failed(self, code: str, message: str, *, too_dear: bool = False) -> ModelFailed:
        return ModelFailed(
            seen_seq=self._seen_seq,
            model=self._model,
            code=code,
            message=message,
            attempts=self._attempts,
            cost_pico=self._cost_pico,
            usage=self._usage,
            duration_ms=self._duration_ms(),
            limit=self._limit() if too_dear else None,
        )

    def _limit(self) -> str | None:
        return None if self._purse is None else self._purse.limit

    def _duration_ms(self) -> float:
        return round((self._clock.monotonic_s() - self._began_s) * 1000, 3)

    def _show_start(self, answer: Answer) -> None:
        self._live.publish(
            self._asked.session_id,
            LiveModelStarted(
                turn=self._turn,
                seen_seq=self._seen_seq,
                attempt=self._attempts,
                provider=answer.provider,
                model=answer.model,
                is_language_model=answer.is_language_model,
            ),
        )

    def _show(self, event: StreamEvent, shown: dict[int, AnswerPart]) -> None:
        """`shown` remembers what each part is, from its start on."""
        turn, seen_seq, session_id = self._turn, self._seen_seq, self._asked.session_id
        match event:
            case PartStarted():
                shown[event.index] = event.part
                if isinstance(event.part, ToolCall):
                    self._live.publish(session_id, LiveToolCall(turn, seen_seq, event.index, event.part.name))
                elif text := getattr(event.part, "text", ""):
                    self._show(TextAdded(event.index, text), shown)
            case TextAdded():
                kind = LiveReasoning if isinstance(shown.get(event.index), Reasoning) else LiveText
                self._live.publish(session_id, kind(turn, seen_seq, event.index, event.text))
            case ArgumentsAdded():
                self._live.publish(session_id, LiveToolArguments(turn, seen_seq, event.index, event.json))
            case _:
                pass
