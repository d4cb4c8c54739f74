"""Runtime: events from outside and the sessions that wait for them.

An event is durable before its sender is answered, and may come before its session's log says that it waits. So telling is level-triggered: what came is
told to the session's log, under a key, until it is known to be there, whatever became of the process that was telling it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from msgspec import structs

from freehold.background import again_and_again, background
from freehold.core.errors import Conflict, FreeholdError, NotFound
from freehold.core.messages import Text
from freehold.core.outside import Expectation, ExpectedEvents, Received, digest_of, new_token
from freehold.core.ports import Clock, ToolRun
from freehold.core.session import AwaitsEvent, CallAwaited, ResultGiven
from freehold.core.session_log import SessionLog
from freehold.runtime.declared import Declarations
from freehold.runtime.offload import Results
from freehold.runtime.resuming import resumed

log = logging.getLogger(__name__)

TOLD_AT_ONCE_MAX: Final = 64
POLL_S: Final = 5.0


async def expected(
    kept: ExpectedEvents, clock: Clock, awaits: AwaitsEvent, run: ToolRun, *, tool: str, wait_s: float
) -> CallAwaited:
    """With a token that is new, and known to whoever keeps them before the log says it."""
    token, until = new_token(clock), clock.now() + timedelta(seconds=wait_s)
    await kept.expect(
        Expectation(
            tenant=run.principal.tenant,
            session_id=run.session_id or "",
            call_id=run.call_id,
            tool=tool,
            event=awaits.event,
            correlation=awaits.correlation,
            until=until,
            token_digest=digest_of(token),
        )
    )
    return CallAwaited(call_id=run.call_id, awaits=structs.replace(awaits, token=token), until=until)


class Telling:
    """Every process may do it; the log takes each event once."""

    def __init__(
        self, kept: ExpectedEvents, log: SessionLog, results: Results, declarations: Declarations
    ) -> None:
        self._kept = kept
        self._log = log
        self._results = results
        self._declarations = declarations

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with background(again_and_again(self._tell_or_wait, "outside"), "outside events"):
            yield

    async def _tell_or_wait(self) -> None:
        if not await self.tell():
            await self._kept.wait(POLL_S)

    async def tell(self) -> int:
        """What came and is due, TOLD_AT_ONCE_MAX at most. How many there were."""
        found = await self._kept.untold(limit=TOLD_AT_ONCE_MAX)
        await asyncio.gather(*(self._tell(one) for one in found))
        return len(found)

    async def _tell(self, one: Received) -> None:
        """Left for later where its session does not wait yet."""
        try:
            if await self._said(one):
                await self._kept.told(one.token_digest)
        except FreeholdError as error:
            log.warning("outside.not_told", extra={"session": one.session_id, "error": str(error)})
        except Exception:
            log.exception("outside.crashed", extra={"session": one.session_id})

    async def _said(self, one: Received) -> bool:
        """Whether it is in the log, or never will be: the session is gone, or went on without it."""
        try:
            row = await self._log.get(one.tenant, one.session_id)
            state = (await resumed(self._log, row.id)).state
            call = state.open_calls.get(one.call_id)
            if call is None:
                return True
            awaits = call.awaited.awaits if call.awaited is not None else None
            if not isinstance(awaits, AwaitsEvent) or digest_of(awaits.token) != one.token_digest:
                return False
            agent = await self._declarations.agent(row.tenant, row.agent, row.agent_version)
            bytes_max = agent.context.tool_result_bytes_max
            results = self._results.of(row.tenant, [row.id], bytes_max=bytes_max)
            fitted = await results.fitted((Text(one.payload),))
            given = ResultGiven(
                call_id=one.call_id,
                source="event",
                content=fitted.content,
                by=f"event/{one.event}",
                kept=fitted.kept,
            )
            await self._log.append(row.id, [given], idempotency_key=f"event.{one.token_digest}")
        except (NotFound, Conflict):
            return True
        return True
