"""Gateway: one call as bytes, where client and provider share a wire, from its first chunk to its record.

What is read and what is changed on the way is passing.py's business. Not here: who may call what (pipeline.py).
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Literal

from freehold.core import tokens
from freehold.core.errors import BadRequest, BrokenOff, FreeholdError, TooLarge
from freehold.core.messages import Usage
from freehold.core.ports import RawAnswer, UsageTap, Wire
from freehold.core.records import CallRecord
from freehold.gateway.metering import Meter, Resolve, estimated, may_be_billed, outcome
from freehold.gateway.passing import OPENAI_CHAT, Envelope, UsageHidden
from freehold.gateway.targets import Target

BODY_BYTES_MAX: Final = 64 * 1024 * 1024
EVENT_MARKS: Final = {"text/event-stream": b"\n\n", "application/vnd.amazon.eventstream": b":event-type"}
"""What each event of a stream has once."""


class Passing:
    """An answer's bytes. `read` gives a whole answer, `chunks` a stream; `record` is there once its context was left."""

    __slots__ = ("_first", "_hidden", "_mark", "_meter", "_output_tokens", "_raw", "_tap", "_usage", "_whole", "content_type", "error",
                 "is_language_model", "model", "provider", "status")  # fmt: skip

    def __init__(self, target: Target, raw: RawAnswer, meter: Meter) -> None:
        self.provider = target.provider.name
        self.model = target.name
        self.is_language_model = target.provider.is_language_model
        self.status = raw.status
        self.content_type = raw.content_type
        self.error: BaseException | None = None
        self._whole = False
        self._meter = meter
        self._raw: AsyncIterator[bytes] | None = None
        self._first = b""
        self._tap: UsageTap | None = None
        self._hidden: UsageHidden | None = None
        self._usage: Usage | None = None
        self._output_tokens = 0
        self._mark = b""

    @property
    def record(self) -> CallRecord | None:
        return self._meter.record

    @property
    def finished(self) -> bool:
        """The answer's last event has passed. Clients leave at that, often before its bytes have ended."""
        return self._whole if self._tap is None else self._tap.finished

    @property
    def usage(self) -> Usage | None:
        return self._usage if self._tap is None else self._tap.usage

    @property
    def output_tokens_estimated(self) -> int:
        """For a stream, its events: vendors send about one a token."""
        return self._output_tokens

    async def start_whole(self, raw: RawAnswer, wire: Wire) -> None:
        self._first = await raw.read()
        self._usage = wire.usage_of(self._first)
        self._output_tokens = 0 if self._usage is not None else tokens.estimate(self._first)
        self._meter.first_event()
        self._whole = True

    async def start_stream(self, raw: RawAnswer, wire: Wire, *, hidden: bool) -> None:
        """Waits for the first chunk. `hidden`: its client did not ask for usage."""
        self._raw = raw.chunks()
        self._tap = wire.usage_tap()
        self._mark = EVENT_MARKS[wire.stream_content_type]
        self._hidden = UsageHidden() if hidden else None
        try:
            self._first = self._tapped(await anext(self._raw), self._tap)
        except StopAsyncIteration:
            raise BrokenOff(f"{self.provider} answered without a single event") from None
        self._meter.first_event()

    async def read(self) -> bytes:
        """Once, of an answer that was not asked for as a stream."""
        first, self._first = self._first, b""
        return first

    def chunks(self) -> AsyncIterator[bytes]:
        return self

    def __aiter__(self) -> "Passing":
        return self

    async def __anext__(self) -> bytes:
        """Never empty. Raises BrokenOff at the end of a stream that was not finished."""
        if self._first:
            return await self.read()
        while self._raw is not None and self._tap is not None:
            try:
                data = self._tapped(await anext(self._raw), self._tap)
            except StopAsyncIteration:
                data = self._ended(self._tap)
            except BrokenOff as error:
                data = self._ended(self._tap, error)
            except BaseException as error:
                self.error = error
                raise
            if data:
                return data
        raise StopAsyncIteration

    def _tapped(self, data: bytes, tap: UsageTap) -> bytes:
        tap.feed(data)
        self._output_tokens += data.count(self._mark)
        return data if self._hidden is None else self._hidden.feed(data)

    def _ended(self, tap: UsageTap, error: BrokenOff | None = None) -> bytes:
        """How a stream ends after its answer was finished doesn't matter."""
        self._raw = None
        if not tap.finished:
            self.error = error or BrokenOff(
                f"{self.provider} ended its stream before the answer was finished"
            )
            raise self.error
        return b"" if self._hidden is None else self._hidden.end()


class Forwarding:
    """`Gateway.forward`: entered once, left once. Leaving early hangs up on the provider."""

    __slots__ = ("_answer", "_envelope", "_headers", "_meter", "_open", "_resolve", "_wire")

    def __init__(
        self,
        resolve: Resolve,
        wire: Wire,
        envelope: Envelope,
        headers: Mapping[str, str],
        meter: Meter,
    ) -> None:
        self._resolve = resolve
        self._wire = wire
        self._envelope = envelope
        self._headers = headers
        self._meter = meter
        self._open: AbstractAsyncContextManager[RawAnswer] | None = None
        self._answer: Passing | None = None

    async def __aenter__(self) -> Passing:
        envelope, meter = self._envelope, self._meter
        try:
            if len(envelope.body) > BODY_BYTES_MAX:
                raise TooLarge(
                    f"the body has {len(envelope.body)} bytes, over BODY_BYTES_MAX = {BODY_BYTES_MAX}"
                )
            target = await self._resolve(meter)
            if target.provider.wire != meter.wire:
                raise BadRequest(
                    f"{target.provider.name} does not speak {meter.wire}: it cannot be passed to"
                )
            hidden = envelope.stream and meter.wire == OPENAI_CHAT and not envelope.asks_for_usage()
            body = envelope.passed_as(target.name, metered=hidden)
            opening = target.provider.forward(
                body, model=target.name, stream=envelope.stream, headers=self._headers
            )
            raw = await opening.__aenter__()
            self._open = opening
            self._answer = answer = Passing(target, raw, meter)
            if envelope.stream:
                await answer.start_stream(raw, self._wire, hidden=hidden)
            else:
                await answer.start_whole(raw, self._wire)
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
                return estimated(None, input_tokens=self._input_tokens(), output_tokens=0)
            return Usage()
        if answer.finished and answer.usage is not None:
            return answer.usage
        return estimated(
            answer.usage,
            input_tokens=self._input_tokens() if answer.usage is None else 0,
            output_tokens=answer.output_tokens_estimated,
        )

    def _input_tokens(self) -> int:
        """Estimated of what a model reads; of the bytes where only the vendor can read the body."""
        body = self._envelope.body
        try:
            return tokens.of_request(self._wire.decode_request(body))
        except FreeholdError:
            return tokens.estimate(body)
