"""Gateway: one call in values, from its first event to its record. Not here: who may call what (pipeline.py)."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Literal

from msgspec import structs

from freehold.core import tokens
from freehold.core.errors import BrokenOff
from freehold.core.messages import ModelRequest, Usage
from freehold.core.records import CallRecord
from freehold.core.stream import ArgumentsAdded, Finished, StreamEvent, TextAdded, UsageReported
from freehold.gateway.metering import Meter, Resolve, estimated, may_be_billed, outcome
from freehold.gateway.targets import Target


class Answer:
    """One answer as it comes. `record` is there once its context was left."""

    __slots__ = ("_events", "_first", "_meter", "_said", "error", "finished", "is_language_model", "model", "provider",
                 "usage")  # fmt: skip

    def __init__(self, target: Target, events: AsyncIterator[StreamEvent], meter: Meter) -> None:
        self.provider = target.provider.name
        self.model = target.name
        self.is_language_model = target.provider.is_language_model
        self.usage: Usage | None = None
        self.finished = False
        self.error: BaseException | None = None
        self._events = events
        self._meter = meter
        self._first: StreamEvent | None = None
        self._said: list[str] = []

    @property
    def record(self) -> CallRecord | None:
        return self._meter.record

    @property
    def output_tokens_estimated(self) -> int:
        return tokens.estimate("".join(self._said))

    async def start(self) -> None:
        """Waits for the first event. Raises BrokenOff where there is none."""
        try:
            self._first = await anext(self._events)
        except StopAsyncIteration:
            raise BrokenOff(f"{self.provider} answered without a single event") from None
        self._meter.first_event()

    def __aiter__(self) -> "Answer":
        return self

    async def __anext__(self) -> StreamEvent:
        event = self._first
        if event is not None:
            self._first = None
        else:
            try:
                event = await anext(self._events)
            except StopAsyncIteration:
                raise
            except BaseException as error:
                self.error = error
                raise
        # Quicker than a match: each class that it is not would cost 0.3 us.
        if type(event) is TextAdded:
            self._said.append(event.text)
        elif type(event) is ArgumentsAdded:
            self._said.append(event.json)
        elif type(event) is UsageReported:
            self.usage = event.usage
        elif type(event) is Finished:
            self.finished = True
        return event


class Calling:
    """`Gateway.call`: entered once, left once. Leaving early hangs up on the provider."""

    __slots__ = ("_answer", "_meter", "_open", "_request", "_resolve")

    def __init__(self, resolve: Resolve, request: ModelRequest, meter: Meter) -> None:
        self._resolve = resolve
        self._request = request
        self._meter = meter
        self._open: AbstractAsyncContextManager[AsyncIterator[StreamEvent]] | None = None
        self._answer: Answer | None = None

    async def __aenter__(self) -> Answer:
        try:
            target = await self._resolve(self._meter)
            opening = target.provider.call(structs.replace(self._request, model=target.name))
            events = await opening.__aenter__()
            self._open = opening
            self._answer = answer = Answer(target, events, self._meter)
            await answer.start()
        except BaseException as error:
            await self._close(error)
            raise
        return answer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        await self._close(error)
        return False

    async def _close(self, error: BaseException | None) -> None:
        try:
            if self._open is not None:
                await self._open.__aexit__(None, None, None)
        finally:
            ended = outcome(self._answer, error)
            self._meter.finish(ended, self._usage(ended))

    def _usage(self, ended: str) -> Usage:
        answer = self._answer
        if answer is None or not self._meter.began:
            if self._meter.target is not None and may_be_billed(ended):
                return estimated(None, input_tokens=tokens.of_request(self._request), output_tokens=0)
            return Usage()
        if answer.finished and answer.usage is not None:
            return answer.usage
        return estimated(
            answer.usage,
            input_tokens=tokens.of_request(self._request) if answer.usage is None else 0,
            output_tokens=answer.output_tokens_estimated,
        )
