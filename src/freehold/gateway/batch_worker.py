"""Gateway: makes the calls of batches, in the background, a bounded number at once. What a batch is to its owner is batches.py's.

Level-triggered: a worker asks the store which requests want a call, whatever became of the worker before. A lease is kept by a heartbeat.
A result is written once, under the claim; the call itself is made again where a process died between the two: a model call has no
effect besides its price. Faults that may pass are tried again after a pause, in which the request holds no place; each try is a
call of its own, with a record of its own.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from freehold.core import ids
from freehold.core.errors import BrokenOff, Conflict, FreeholdError, Internal, TimedOut
from freehold.core.jitter import jittered
from freehold.core.message_batches import BatchClaim, MessageBatches, Settled
from freehold.core.ports import Clock, Principals, Wire
from freehold.core.stream import Folding, identified
from freehold.gateway.batches import RESULTS_KEPT
from freehold.gateway.forwarding import Passed, Passing
from freehold.gateway.passing import Envelope
from freehold.gateway.pipeline import Gateway
from freehold.gateway.residency import labelled

log = logging.getLogger(__name__)

CALL_S_MAX: Final = 600.0
CLAIMED_AT_ONCE_MAX: Final = 16
"""So that one worker that looks first leaves some to the others."""

GATHER_S: Final = 0.02
"""How long free places are gathered before they are filled: one claim costs the database as much as many do."""

CLAIMS_MAX: Final = 30
"""A request that was claimed so often without a result may be what kills its workers."""

WRITTEN_AT_ONCE_MAX: Final = 64
WRITE_PAUSE_S: Final = 1.0
PAUSE_S_MAX: Final = 300.0
RETRY_AFTER_S_MAX: Final = 3600.0
RELEASE_S_MAX: Final = 5.0
AWAY_PAUSE_S: Final = 1.0


class BatchSettings(Struct, frozen=True, kw_only=True):
    """`calls_max`: calls at once in this process. `lease_s`: how long a dead worker's requests wait for another.
    `poll_s`: how often it looks though nobody called. `attempts_max`: calls
    made of a request whose faults may pass; the n-th is followed by a pause of about `pause_s` * 2^n. `drain_s`: how long a stop waits."""

    calls_max: int = 16
    lease_s: float = 15.0
    poll_s: float = 5.0
    attempts_max: int = 10
    pause_s: float = 1.0
    drain_s: float = 10.0


class BatchMeans(Struct, frozen=True, kw_only=True):
    """`wire` is what the requests are written in, and the results."""

    kept: MessageBatches
    gateway: Gateway
    principals: Principals
    wire: Wire
    clock: Clock


class _PutOff(Struct, frozen=True):
    pause_s: float


class _Held(Struct):
    """`asking` until its call is over; what is written after that is fenced."""

    claim: BatchClaim
    task: asyncio.Task[None]
    asking: bool = True


class BatchWorker:
    def __init__(self, means: BatchMeans, settings: BatchSettings) -> None:
        self.owner = ids.new("worker", means.clock)
        self._means = means
        self._settings = settings
        self._results = _Results(means)
        self._held: dict[tuple[str, int], _Held] = {}
        self._stopping = asyncio.Event()
        self._look = asyncio.Event()
        self._news = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Works until left; then lets the calls that run finish, or hands them back after `drain_s`."""
        working = asyncio.create_task(self._work(), name="batches")
        try:
            yield
        finally:
            self._stopping.set()
            self._look.set()
            await working

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            aside = [
                group.create_task(self._again_and_again(self._hear), name="batches:hear"),
                group.create_task(self._again_and_again(self._renew), name="batches:heartbeat"),
                group.create_task(self._again_and_again(self._sweep), name="batches:sweep"),
            ]
            await self._claim_until_stopped(group)
            await self._drain()
            for task in aside:
                task.cancel()

    async def _again_and_again(self, step: "_Step") -> None:
        """No fault ends it: a database that is away only makes it wait."""
        while True:
            try:
                await step()
            except FreeholdError as error:
                log.warning("batches.put_off", extra={"worker": self.owner, "error": str(error)})
                await asyncio.sleep(AWAY_PAUSE_S)
            except Exception:
                log.exception("batches.crashed", extra={"worker": self.owner})
                await asyncio.sleep(AWAY_PAUSE_S)

    async def _hear(self) -> None:
        await self._means.kept.wait_for_work(self._settings.poll_s)
        self._look.set()
        self._news.set()

    async def _sweep(self) -> None:
        self._news.clear()
        now = self._means.clock.now()
        await self._means.kept.sweep(now)
        await self._means.kept.archive(now, created_before=now - RESULTS_KEPT)
        await self._news.wait()

    async def _renew(self) -> None:
        await asyncio.sleep(self._settings.lease_s / 3)
        asked = dict(self._held)
        claims = [held.claim for held in asked.values()]
        kept = await self._means.kept.renew(self.owner, claims, lease_s=self._settings.lease_s)
        for place in asked.keys() - kept:
            if asked[place].asking and self._held.get(place) is asked[place]:
                log.warning("batches.lease_lost", extra={"batch": place[0], "number": place[1]})
                asked[place].task.cancel()

    async def _claim_until_stopped(self, group: asyncio.TaskGroup) -> None:
        while not self._stopping.is_set():
            self._look.clear()
            found = False
            try:
                found = await self._claim(group)
            except FreeholdError as error:
                log.warning("batches.claim_failed", extra={"worker": self.owner, "error": str(error)})
            except Exception:
                log.exception("batches.crashed", extra={"worker": self.owner})
            if not found:
                await self._look.wait()
                await asyncio.sleep(GATHER_S)

    async def _claim(self, group: asyncio.TaskGroup) -> bool:
        """True when there may be more to claim at once."""
        room = self._settings.calls_max - len(self._held)
        if room <= 0:
            return False
        claims = await self._means.kept.claim(
            self.owner,
            limit=min(room, CLAIMED_AT_ONCE_MAX),
            lease_s=self._settings.lease_s,
            now=self._means.clock.now(),
        )
        for claim in claims:
            self._begin(group, claim)
        return bool(claims)

    def _begin(self, group: asyncio.TaskGroup, claim: BatchClaim) -> None:
        """Having got a request anew that is still asked here means that its old lease is void."""
        old = self._held.get(claim.place)
        if old is not None:
            old.task.cancel()
        task = group.create_task(self._carry(claim), name=f"batch:{claim.batch_id}:{claim.number}")
        self._held[claim.place] = _Held(claim, task)

    async def _carry(self, claim: BatchClaim) -> None:
        """The outermost edge of one request's work."""
        try:
            answered = await self._answer(claim)
            if (held := self._held.get(claim.place)) is not None and held.claim is claim:
                held.asking = False
            match answered:
                case Settled() as settled:
                    await self._results.write(settled)
                case _PutOff(pause_s):
                    await self._means.kept.postpone(claim, pause_s=pause_s)
                    asyncio.get_running_loop().call_later(pause_s, self._look.set)
        except asyncio.CancelledError:
            if self._stopping.is_set():
                await self._release(claim)
            raise
        except FreeholdError as error:  # The lease runs out, and somebody asks again.
            log.warning("batches.put_off", extra={"batch": claim.batch_id, "error": str(error)})
        finally:
            held = self._held.get(claim.place)
            if held is not None and held.claim is claim:
                del self._held[claim.place]
            self._look.set()

    async def _answer(self, claim: BatchClaim) -> Settled | _PutOff:
        if claim.epoch > CLAIMS_MAX:
            return self._errored(claim, Internal(f"given up: begun {CLAIMS_MAX} times, and never finished"))
        try:
            async with asyncio.timeout(CALL_S_MAX):
                return Settled(claim, "succeeded", await self._ask(claim))
        except TimeoutError:
            error: FreeholdError = TimedOut(f"no answer within CALL_S_MAX = {CALL_S_MAX:g} s")
        except FreeholdError as failure:
            error = failure
        except Exception:  # Told apart from what callers and vendors do wrong, logged once.
            log.exception("batches.call_failed", extra={"batch": claim.batch_id, "number": claim.number})
            error = Internal("something went wrong here; the log has it under the batch's id")
        attempts = claim.failures + 1
        if error.retryable and attempts < self._settings.attempts_max:
            return _PutOff(_pause_s(error, self._settings.pause_s, claim.failures))
        return self._errored(claim, error)

    async def _ask(self, claim: BatchClaim) -> bytes:
        """One call as its creator, with the rights of now: the answer in the wire's JSON, on one line."""
        means = self._means
        principal = await means.principals.current(claim.tenant, claim.created_by)
        principal = labelled(principal, claim.headers)
        created = means.clock.now_ms() // 1000
        async with means.gateway.forward(
            principal, Envelope(claim.params), wire=means.wire, headers=claim.headers
        ) as answer:
            if isinstance(answer, Passed):
                return _on_one_line(answer.body)
            assert not isinstance(answer, Passing)  # noqa: S101 - nothing in a batch wants a stream
            folding, name = Folding(), ids.new("req", means.clock)
            async for event in answer:
                folding.add(identified(event, name))
            return means.wire.encode_response(folding.response(), created=created, request=answer.request)

    def _errored(self, claim: BatchClaim, error: FreeholdError) -> Settled:
        request_id = ids.new("req", self._means.clock)
        if error.detail is not None:
            extra = {"batch": claim.batch_id, "number": claim.number, "request_id": request_id}
            log.warning("batches.refused", extra=extra | {"code": error.code, "detail": error.detail})
        return Settled(claim, "errored", self._means.wire.encode_error(error, request_id).body)

    async def _release(self, claim: BatchClaim) -> None:
        """A lease that can't be given back runs out by itself."""
        try:
            async with asyncio.timeout(RELEASE_S_MAX):
                await self._means.kept.release(self.owner, [claim])
        except (FreeholdError, TimeoutError) as error:
            log.warning("batches.not_released", extra={"batch": claim.batch_id, "error": str(error)})

    async def _drain(self) -> None:
        tasks = [held.task for held in self._held.values()]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=self._settings.drain_s)
        for task in late:
            task.cancel()
        if late:
            log.warning("batches.drain_cut_short", extra={"worker": self.owner, "calls": len(late)})
            await asyncio.wait(late)


class _Step(Protocol):
    async def __call__(self) -> None: ...


class _Results:
    """Writes results together: while one statement runs, what comes meanwhile waits for the next one."""

    def __init__(self, means: BatchMeans) -> None:
        self._means = means
        self._waiting: dict[tuple[str, int], Settled] = {}
        self._writing = asyncio.Lock()

    async def write(self, settled: Settled) -> None:
        """Until it is written, or somebody else's claim holds: the answer is paid for. Ends with the lease, which cancels."""
        place = settled.claim.place
        self._waiting[place] = settled
        try:
            while self._waiting.get(place) is settled:
                async with self._writing:
                    if self._waiting.get(place) is settled:
                        await self._write_waiting()
        finally:
            if self._waiting.get(place) is settled:
                del self._waiting[place]

    async def _write_waiting(self) -> None:
        together = list(self._waiting.values())[:WRITTEN_AT_ONCE_MAX]
        try:
            await self._means.kept.finish(together, now=self._means.clock.now())
        except FreeholdError as error:
            if not (error.retryable or isinstance(error, Conflict)):
                raise
            log.warning("batches.results_wait", extra={"count": len(self._waiting), "error": str(error)})
            await asyncio.sleep(WRITE_PAUSE_S)
            return
        for one in together:
            if self._waiting.get(one.claim.place) is one:
                del self._waiting[one.claim.place]


def _pause_s(error: FreeholdError, pause_s: float, failures: int) -> float:
    backoff_s = jittered(min(pause_s * 2.0**failures, PAUSE_S_MAX))
    return max(backoff_s, min(error.retry_after_s or 0.0, RETRY_AFTER_S_MAX))


def _on_one_line(answer: bytes) -> bytes:
    """Raises BrokenOff for what is no JSON. Strings and numbers stay as they came."""
    try:
        return msgspec.json.format(answer, indent=-1)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenOff("the answer is no JSON") from error
