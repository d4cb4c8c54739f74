"""Responses in the background: whoever asked has gone, and the answer is made all the same.

Level-triggered, as sessions are: a process asks the store which responses nobody runs, and runs them under a lease, through the
same door as a client's. A model call has no effect besides its cost, so one that was cut short is made again, up to
ATTEMPTS_MAX times; but not one whose stream has begun to be told, for another answer would contradict it: that one has failed.
Not here: putting one off (responses_keeping.py), reading its stream (_response_stream.py).
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec
from msgspec import Raw, Struct, structs

from freehold.background import background
from freehold.core import ids
from freehold.core.errors import BadRequest, Conflict, FreeholdError, NotFound, Unauthenticated
from freehold.core.policy import Principal
from freehold.core.ports import Clock, Principals, Wire
from freehold.core.responses import Hint, KeptResponse, ResponseEvents, Responses
from freehold.gateway.passing import Envelope
from freehold.gateway.residency import with_labels
from freehold.server.apis._response_answers import (
    ENDED,
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

RUNS_MAX: Final = 128
ATTEMPTS_MAX: Final = 3
LEASE_S: Final = 15.0
POLL_S: Final = 5.0
PAUSE_S: Final = 1.0
"""After a fault of the store."""

FLUSH_S: Final = 0.03
"""Events of a stream are kept in runs, so often at most."""

_BEGINNINGS: Final = ("response.created", "response.queued", "response.in_progress")
_CODES: Final = {"rate_limit_exceeded": "rate_limit_exceeded", "invalid_request_error": "invalid_prompt"}
_encode: Final = msgspec.json.Encoder().encode


class BackgroundResponses:
    def __init__(
        self, *, front: Front, wire: Wire, keeper: Keeper, responses: Responses, principals: Principals
    ) -> None:
        self._front = front
        self._wire = wire
        self._keeper = keeper
        self._responses = responses
        self._principals = principals
        self._clock: Clock = front.door.clock
        self._owner = ids.new("worker", self._clock)
        self._held: dict[str, tuple[KeptResponse, asyncio.Task[None]]] = {}
        self._room = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Until left; what then runs is handed back, for another process or another day."""
        try:
            async with (
                background(self._claim_for_ever(), "responses:claim"),
                background(self._renew_for_ever(), "responses:renew"),
            ):
                yield
        finally:
            running = [task for _, task in self._held.values()]
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running)

    async def _claim_for_ever(self) -> None:
        while True:
            try:
                await self._claim()
            except FreeholdError as error:
                log.warning("responses.claim_failed", extra={"error": str(error), "detail": error.detail})
                await asyncio.sleep(PAUSE_S)
            except Exception:
                log.exception("responses.crashed", extra={"worker": self._owner})
                await asyncio.sleep(PAUSE_S)

    async def _claim(self) -> None:
        room = RUNS_MAX - len(self._held)
        if room <= 0:
            self._room.clear()
            await self._room.wait()
            return
        claimed = await self._responses.claim(self._owner, limit=room, lease_s=LEASE_S)
        for held in claimed:
            task = asyncio.create_task(self._carry(held), name=f"response:{held.id}")
            self._held[held.id] = (held, task)
        if len(claimed) < room:
            await self._responses.wait_for_work(POLL_S)

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            asked = dict(self._held)
            try:
                kept = await self._responses.renew(
                    self._owner, [held for held, _ in asked.values()], lease_s=LEASE_S
                )
            except FreeholdError as error:
                log.warning("responses.not_renewed", extra={"error": str(error), "detail": error.detail})
                continue
            except Exception:
                log.exception("responses.crashed", extra={"worker": self._owner})
                continue
            for response_id in asked.keys() - kept:
                asked[response_id][1].cancel()

    async def _carry(self, held: KeptResponse) -> None:
        """The outermost edge of one run."""
        try:
            await self._run(held)
        except asyncio.CancelledError:
            await self._hand_back(held)
        except Conflict:
            log.info("response.taken_away", extra={"response": held.id})
        except FreeholdError as error:
            # Not ended, for the store is away: the lease runs out, and somebody tries again.
            log.warning("response.put_off", extra={"response": held.id, "error": str(error)})
        except Exception:
            log.exception("response.crashed", extra={"response": held.id})
        finally:
            if self._held.get(held.id, (None,))[0] is held:
                del self._held[held.id]
            self._room.set()

    async def _hand_back(self, held: KeptResponse) -> None:
        try:
            await self._responses.release(held)
        except FreeholdError as error:
            log.warning("response.not_released", extra={"response": held.id, "error": str(error)})

    async def _run(self, held: KeptResponse) -> None:
        told_count = await self._told_count(held)
        answer = _Answer(self._responses, held, told_count)
        if held.attempts > ATTEMPTS_MAX:
            said = f"the server was stopped in the middle of it {ATTEMPTS_MAX} times"
            await answer.fail("server_error", said)
        elif told_count > len(_BEGINNINGS):
            await answer.fail("server_error", "the server was stopped after the answer had begun to be told")
        else:
            await self._make(held, answer)

    async def _told_count(self, held: KeptResponse) -> int:
        if not held.streamed:
            return 0
        count, after = 0, -1
        while runs := await self._responses.events(held.id, after=after):
            after = runs[-1].seq + runs[-1].count - 1
            count = after + 1
        return count

    async def _make(self, held: KeptResponse, answer: "_Answer") -> None:
        try:
            principal = await self._principals.current(held.tenant, held.created_by)
            principal = with_labels(principal, held.labels)
            envelope = await self._envelope(principal, held)
        except Unauthenticated as error:
            await answer.fail("server_error", f"whoever asked may not any more: {error.message}")
            return
        except (NotFound, BadRequest) as error:
            await answer.fail("invalid_prompt", str(error))
            return

        async def ask() -> tuple[Principal, Envelope]:
            return principal, envelope

        async with self._responses.watched(held.id) as hint:
            call = asyncio.create_task(self._front.answer(self._wire, ask, answer), name=f"call:{held.id}")
            beside = [
                asyncio.create_task(self._until_taken_away(held, hint)),
                asyncio.create_task(answer.keep_stream()),
            ]
            try:
                await asyncio.wait([call, *beside], return_when=asyncio.FIRST_COMPLETED)
                if call.done():
                    answer.close_stream()
                    await asyncio.wait(beside, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (call, *beside):
                    task.cancel()
                await asyncio.wait([call, *beside])
            for task in (*beside, call):
                if not task.cancelled():
                    task.result()
        if answer.ended is None and self._front.door.leaving.is_set():
            await self._hand_back(held)
        else:
            await answer.finish()

    async def _until_taken_away(self, held: KeptResponse, hint: Hint) -> None:
        """Raises Conflict once it was cancelled, deleted or taken over."""
        while True:
            hint.clear()
            try:
                now = await self._responses.get(held.tenant, held.id)
            except NotFound as error:
                raise Conflict(error.message) from error
            if now.epoch != held.epoch or now.status in ENDED:
                raise Conflict(f"the response {held.id} is {now.status}")
            await hint.wait()

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
        "_number",
        "_responses",
        "_some",
        "_stream",
        "_unkept",
        "ended",
    )

    direct = False

    def __init__(self, responses: Responses, held: KeptResponse, told_count: int) -> None:
        # Not the base's: there is no connection.
        self.head = Head(b"POST", b"", b"", (), {})
        self.started = False
        self.disconnected = False
        self.ended: Ended | None = None
        self._responses = responses
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

    async def keep_stream(self) -> None:
        """Until it is closed. Raises Conflict once it is too late."""
        while not self._closed.is_set():
            await self._some.wait()
            self._some.clear()
            if (events := self._next_run()) is not None:
                await self._responses.add_events(self._held, events)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), FLUSH_S)

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
        await self._responses.end(response, self._next_run(), for_conversation(response))

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
