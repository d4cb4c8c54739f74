"""Responses in the background: whoever asked has gone, and the answer is made all the same.

Each is a session, which a worker claims as it claims any other, and hands to `ResponseRuns`: it asks through the same door as a
client. A model call has no effect besides its cost, so one that was cut short is made again, up to
ATTEMPTS_MAX times; but not one whose stream has begun to be told, for another answer would contradict it: that one has failed.
Not here: putting one off (responses_keeping.py), reading its stream (_response_stream.py).
"""

import asyncio
import logging
from contextlib import suppress
from typing import Final

import msgspec
from msgspec import Raw, Struct, structs

from freehold.core.errors import BadRequest, Conflict, FreeholdError, NotFound, Unauthenticated
from freehold.core.policy import Principal
from freehold.core.ports import Principals, Wire
from freehold.core.response_facts import ResponseEnded
from freehold.core.responses import KeptResponse, ResponseEvents, Responses
from freehold.core.session_log import Lease
from freehold.gateway.passing import Envelope
from freehold.gateway.residency import with_labels
from freehold.server.apis._response_answers import (
    Ended,
    MarkedStream,
    Marks,
    event_of,
    failed,
    numbered,
    shown,
    split,
)
from freehold.server.apis.responses_keeping import Asked, Keeper, for_conversation, with_answer
from freehold.server.exchange import Exchange
from freehold.server.front import Front
from freehold.server.head import Head

log = logging.getLogger(__name__)

ATTEMPTS_MAX: Final = 3
FLUSH_S: Final = 0.03
"""Events of a stream are kept in runs, so often at most."""

_BEGINNINGS: Final = ("response.created", "response.queued", "response.in_progress")
_CODES: Final = {"rate_limit_exceeded": "rate_limit_exceeded", "invalid_request_error": "invalid_prompt"}
_encode: Final = msgspec.json.Encoder().encode


class ResponseRuns:
    """Carries them forward for a worker (runtime/worker.py)."""

    def __init__(
        self, *, front: Front, wire: Wire, keeper: Keeper, responses: Responses, principals: Principals
    ) -> None:
        self._front = front
        self._wire = wire
        self._keeper = keeper
        self._responses = responses
        self._principals = principals

    async def carry(self, lease: Lease, stopping: asyncio.Event) -> bool:
        try:
            held = await self._responses.get(lease.tenant, lease.session_id)
            return held.ended or await self._left_off(lease, held, stopping)
        except (Conflict, NotFound):
            log.info("response.taken_away", extra={"response": lease.session_id})
            return True

    async def _left_off(self, lease: Lease, held: KeptResponse, stopping: asyncio.Event) -> bool:
        """Otherwise it has ended, and with that gave its lease back."""
        told_count = await self._responses.told_count(held.id) if held.streamed else 0
        answer = _Answer(self._responses, lease, held, told_count)
        if held.attempts >= ATTEMPTS_MAX:
            said = f"the server was stopped in the middle of it {ATTEMPTS_MAX} times"
            await answer.fail("server_error", said)
        elif answer.told:
            await answer.fail("server_error", "the server was stopped after the answer had begun to be told")
        elif (asked := await self._asked(held, answer)) is not None:
            await self._responses.begin(lease)
            try:
                left_off = await self._make(held, asked, answer, stopping)
            except asyncio.CancelledError:
                await self._hand_back(lease)
                raise
            if left_off:
                await self._hand_back(lease)
                return True
            await answer.finish()
        return False

    async def _hand_back(self, lease: Lease) -> None:
        try:
            await self._responses.hand_back(lease)
        except FreeholdError as error:
            log.warning("response.not_handed_back", extra={"response": lease.session_id, "error": str(error)})

    async def _asked(self, held: KeptResponse, answer: "_Answer") -> tuple[Principal, Envelope] | None:
        """None where it came to nothing."""
        try:
            principal = await self._principals.current(held.tenant, held.created_by)
            principal = with_labels(principal, held.labels)
            return principal, await self._envelope(principal, held)
        except Unauthenticated as error:
            await answer.fail("server_error", f"whoever asked may not any more: {error.message}")
        except (NotFound, BadRequest) as error:
            await answer.fail("invalid_prompt", str(error))
        return None

    async def _make(
        self,
        held: KeptResponse,
        asked: tuple[Principal, Envelope],
        answer: "_Answer",
        stopping: asyncio.Event,
    ) -> bool:
        """Whether it was left off, since the process stops. Raises Conflict once it was cancelled, deleted or taken over."""

        async def ask() -> tuple[Principal, Envelope]:
            return asked

        call = asyncio.create_task(self._front.answer(self._wire, ask, answer), name=f"call:{held.id}")
        beside = [
            asyncio.create_task(self._until_taken_away(held)),
            asyncio.create_task(answer.keep_stream()),
        ]
        stop = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait([call, *beside, stop], return_when=asyncio.FIRST_COMPLETED)
            if answer.told:
                # Not to be made again: it may come to its end yet.
                await asyncio.wait([call, *beside], return_when=asyncio.FIRST_COMPLETED)
            if call.done():
                answer.close_stream()
                await asyncio.wait(beside, return_when=asyncio.FIRST_COMPLETED)
            # Whatever a call says that is cut off here, it is no answer.
            cut_off = not any(task.done() for task in (call, *beside))
        finally:
            tasks = [call, *beside, stop]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in (*beside, call):
            if not task.cancelled():
                task.result()
        return cut_off or (answer.ended is None and self._front.door.leaving.is_set())

    async def _until_taken_away(self, held: KeptResponse) -> None:
        """Raises Conflict."""
        async with self._responses.follow(held.id) as batches:
            async for batch in batches:
                if any(isinstance(recorded.event, ResponseEnded) for recorded in batch):
                    raise Conflict(f"the response {held.id} has ended")

    async def _envelope(self, principal: Principal, held: KeptResponse) -> Envelope:
        fields = msgspec.json.decode(held.request or b"{}", type=dict[str, Raw])
        asked = Asked(
            stored=True,
            background=True,
            previous_id=held.previous_id,
            conversation_id=held.conversation_id,
            input=held.input,
        )
        whole = Envelope(_encode({**fields, "input": Raw(held.input), "stream": True}))
        before = await self._keeper.before(principal, asked)
        return await self._keeper.expanded(principal, whole, asked, before)


class _Fault(Struct, frozen=True):
    message: str | None = None
    type: str | None = None
    code: str | None = None


class _Faulty(Struct, frozen=True):
    error: _Fault = _Fault()


_FAULTY: Final = msgspec.json.Decoder(_Faulty)


class _Answer(Exchange):
    """An answer that nobody waits for: kept as it comes. `told_count` is how many events of it were told before."""

    __slots__ = (
        "_closed",
        "_fault",
        "_held",
        "_lease",
        "_number",
        "_responses",
        "_some",
        "_stream",
        "_unkept",
        "ended",
    )

    direct = False

    def __init__(self, responses: Responses, lease: Lease, held: KeptResponse, told_count: int) -> None:
        # Not the base's: there is no connection.
        self.head = Head(b"POST", b"", b"", (), {})
        self.started = False
        self.disconnected = False
        self.ended: Ended | None = None
        self._responses = responses
        self._lease = lease
        self._held = held
        self._number = told_count
        self._unkept: list[bytes] = []
        self._some = asyncio.Event()
        self._closed = asyncio.Event()
        self._fault = _Fault()
        marks = Marks(
            held.id,
            stored=True,
            background=True,
            previous_id=held.previous_id,
            conversation_id=held.conversation_id,
        )
        self._stream = MarkedStream(marks)

    # What the door calls.

    async def respond(self, status: int, lines: bytes, body: bytes) -> None:
        """Only refusals are told like this: what was asked for is a stream."""
        self._fault = _fault_in(body)

    def begin(self, status: int, lines: bytes) -> None:
        self.started = True

    async def send(self, data: bytes) -> None:
        for event in split(self._stream.feed(data)):
            self._tell(event)
        self.ended = self._stream.ended

    async def end(self, data: bytes = b"") -> None:
        if data:
            await self.send(data)

    def _tell(self, event: bytes) -> None:
        try:
            kind, told = numbered(event, self._number)
        except BadRequest:
            return  # A comment.
        if kind == "error":
            self._fault = _fault_in(event.partition(b"data:")[2])
        elif self._held.streamed and (kind not in _BEGINNINGS or self._is_new(kind)):
            self._unkept.append(told)
            self._number += 1
            self._some.set()

    def _is_new(self, kind: str) -> bool:
        """It was told from the start that the response was made and queued; once, that it goes on."""
        return kind == _BEGINNINGS[-1] and self._number < len(_BEGINNINGS)

    # What the run calls.

    @property
    def told(self) -> bool:
        """Whether a client may have seen some of the answer itself."""
        return self._number > len(_BEGINNINGS)

    async def keep_stream(self) -> None:
        """Until it is closed. Raises Conflict once it is too late."""
        while not self._closed.is_set():
            await self._some.wait()
            self._some.clear()
            if (events := self._next_run()) is not None:
                await self._responses.add_events(self._lease, events)
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._closed.wait()

    def close_stream(self) -> None:
        self._closed.set()
        self._some.set()

    async def finish(self) -> None:
        ended = self.ended
        if ended is None:
            fault = self._fault
            code = _CODES.get(fault.code or "") or _CODES.get(fault.type or "") or "server_error"
            await self.fail(code, fault.message or "the answer broke off")
        else:
            await self._end(ended, ended.event)

    async def fail(self, code: str, message: str) -> None:
        ended = failed(self._held, code=code, message=message)
        response = structs.replace(self._held, status="failed", head=ended.head, output=ended.output)
        kind = "response.failed"
        event = event_of(kind, {"type": kind, "sequence_number": 0, "response": Raw(shown(response))})
        await self._end(ended, event)

    async def _end(self, ended: Ended, event: bytes) -> None:
        if self._held.streamed:
            self._unkept.append(numbered(event, self._number)[1])
            self._number += 1
        response = with_answer(self._held, ended)
        await self._responses.end(self._lease, response, self._next_run(), for_conversation(response))

    def _next_run(self) -> ResponseEvents | None:
        unkept, self._unkept = self._unkept, []
        if not unkept:
            return None
        return ResponseEvents(self._number - len(unkept), len(unkept), b"".join(unkept))


def _fault_in(body: bytes) -> _Fault:
    try:
        return _FAULTY.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Fault()
