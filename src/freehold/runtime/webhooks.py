"""Runtime: tells webhooks what happened. What there is to tell is in the database, written when it happened; here it is taken out.

Level-triggered: a process claims what is due, whatever became of the process before it, so each event is told at least once, in no
certain order, always under the same id. Servers do it, since they know the secrets; nothing waits for it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from freehold.background import again_and_again, background
from freehold.core import ids
from freehold.core.errors import FreeholdError
from freehold.core.ports import Clock
from freehold.core.webhooks import (
    Claimed,
    Dead,
    Postman,
    Told,
    WebhookRow,
    Webhooks,
    body_of,
    headers_of,
    outcome_of,
)

log = logging.getLogger(__name__)

AT_ONCE_MAX: Final = 64
"""Deliveries under way in this process."""

POLL_S: Final = 5.0
LEASE_MARGIN_S: Final = 30.0

Keys = Callable[[WebhookRow, datetime], Sequence[bytes]]
"""What a webhook's requests are signed with now."""


class WebhookSettings(Struct, frozen=True, kw_only=True):
    """`first_delay_s`: how long after the first attempt that failed the second one is made; each next pause is longer."""

    timeout_s: float = 10.0
    first_delay_s: float = 5.0


class WebhookDelivery:
    def __init__(
        self, kept: Webhooks, postman: Postman, keys: Keys, clock: Clock, settings: WebhookSettings
    ) -> None:
        self._kept = kept
        self._postman = postman
        self._keys = keys
        self._clock = clock
        self._settings = settings
        self._owner = ids.new("worker", clock)
        self._running: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What is under way when it is left is told again later, by whoever finds it then."""
        async with background(self._work(), "webhooks"):
            yield

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:

            async def begin_or_wait() -> None:
                if not await self._begin(group):
                    await self._wait()

            await again_and_again(begin_or_wait, "webhooks")

    async def _begin(self, group: asyncio.TaskGroup) -> bool:
        """True when there may be more to claim at once."""
        room = AT_ONCE_MAX - len(self._running)
        self._room.clear()
        if room <= 0:
            return False
        lease_s = self._settings.timeout_s + LEASE_MARGIN_S
        claimed = await self._kept.claim(self._owner, limit=room, lease_s=lease_s)
        for one in claimed:
            task = group.create_task(self._deliver(one), name=f"webhook:{one.delivery.endpoint}")
            self._running.add(task)
            task.add_done_callback(self._done)
        return bool(claimed)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._room.set()

    async def _wait(self) -> None:
        """Until some may be due; while some are under way, until one of them ends, whose place another may want."""
        waits: list[asyncio.Task[Any]] = [asyncio.create_task(self._room.wait())]
        if len(self._running) < AT_ONCE_MAX:
            waits.append(asyncio.create_task(self._kept.wait(POLL_S)))
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        for task in done:
            task.result()

    async def _deliver(self, claimed: Claimed) -> None:
        """The outermost edge of one attempt. What cannot be settled is found again when its claim runs out."""
        try:
            outcome = outcome_of(
                claimed,
                await self._told(claimed),
                self._clock.now(),
                first_delay_s=self._settings.first_delay_s,
                chance=self._clock.entropy(1)[0] / 255,
            )
            if isinstance(outcome, Dead):
                log.warning(
                    "webhook.given_up",
                    extra={
                        "webhook": claimed.webhook.name,
                        "tenant": claimed.webhook.tenant,
                        "why": outcome.why,
                        "disabled": outcome.disable is not None,
                    },
                )
            await self._kept.settle(claimed, self._owner, outcome)
        except FreeholdError as error:
            log.warning("webhook.not_settled", extra={"error": str(error)})
        except Exception:
            log.exception("webhook.crashed", extra={"webhook": claimed.webhook.name})

    async def _told(self, claimed: Claimed) -> Told | str:
        body, now = body_of(claimed.delivery), self._clock.now()
        headers = headers_of(claimed.delivery, body, self._keys(claimed.webhook, now), now)
        try:
            return await self._postman.post(
                claimed.webhook.url, headers=headers, body=body, timeout_s=self._settings.timeout_s
            )
        except FreeholdError as error:
            return error.message
