"""Gateway: the exchange of figures between processes: how quick models were, whether they failed, how well routes served, how far bought
capacity is used.

Off the path of calls: they count in memory, and every EXCHANGED_S each process tells what is new of its own, and hears what is new of
the others' (core/figures.py). One that nobody calls tells nothing and, after AWAKE_S, hears nothing, until somebody asks. While the
database is away each goes on by what it knows; what of it still matters by then is told once it is back.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final, Protocol, TypeAlias

import msgspec

from freehold.background import background
from freehold.core.errors import FreeholdError
from freehold.core.experiments import ModelScores
from freehold.core.figures import MINUTE_S, Heard, SharedFigures, Subject, Told
from freehold.core.ports import Clock
from freehold.gateway.qualities import Qualities, Scores

EXCHANGED_S: Final = 2.0
AWAKE_S: Final = 600.0
FORGOTTEN_S: Final = 300.0
REFRESH_S_MAX: Final = 2.0
UNTOLD_MAX: Final = 50_000
"""Minutes that wait for a database that is away; beyond, the oldest are lost."""

Refresh: TypeAlias = Callable[[str], Awaitable[None]]
"""Brings what is of a tenant up to date, for somebody who looks; raises nothing."""

log = logging.getLogger(__name__)


class Shared(Protocol):
    """What each process counts for itself, and all of them tell together."""

    @property
    def keep_s(self) -> float:
        """How long what is told of a minute can be of use."""
        ...

    def told(self, now_s: float) -> Iterable[tuple[int, bytes]]:
        """What is new since it was told last, by minute."""
        ...

    def hear(self, minute: int, bodies: Sequence[bytes], now_s: float) -> None:
        """All that other processes told of the minute, in place of what was heard of it before."""
        ...


class Counting(Protocol):
    """Where figures are counted: gateway/models.py."""

    async def load(self, tenant: str) -> None: ...
    def shared(self) -> Iterator[tuple[Subject, Shared]]: ...
    def judge(self, tenant: str, now_s: float, at: datetime) -> None: ...
    def scored(self) -> Iterator[tuple[str, Scores]]: ...


class Exchange:
    """One a process. `running` for as long as it is used."""

    def __init__(self, kept: SharedFigures, counting: Counting, clock: Clock, scores: ModelScores) -> None:
        self._kept = kept
        self._qualities = Qualities(scores, counting, clock)
        self._counting = counting
        self._clock = clock
        self._untold: dict[tuple[Subject, int], Told] = {}
        self._awake: dict[str, float] = {}
        """By tenant, until when it is listened to."""
        self._known: set[Subject] = set()
        """Of which everything was heard once, and then what is new."""
        self._since: datetime | None = None
        self._forgotten_s = float("-inf")
        self._one_at_a_time = asyncio.Lock()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What was not told yet is told when it is left, if the database has it soon."""
        async with background(self._run(), "figures"):
            yield
        await self._briefly()

    async def refresh(self, tenant: str) -> None:
        """What others told by now, for somebody who looks. Waits REFRESH_S_MAX at most; without a database nothing changes."""
        try:
            await self._counting.load(tenant)
        except FreeholdError:
            return
        self._awake[tenant] = self._clock.monotonic_s() + AWAKE_S
        await self._briefly()

    async def exchange(self) -> None:
        """Raises Unavailable and the like; what was not told then is told the next time."""
        async with self._one_at_a_time:
            now_s = self._clock.monotonic_s()
            shared = dict(self._counting.shared())
            self._gather(shared.items(), now_s)
            if self._untold:
                await self._tell()
            tenants = self._listened_to(now_s)
            if not tenants:
                self._known, self._since = set(), None
            else:
                await self._listen(tenants, {one: at for one, at in shared.items() if one[0] in tenants})
                for tenant in tenants:
                    self._counting.judge(tenant, now_s, self._clock.now())
            await self._qualities.look(tenants, now_s)
            if tenants and now_s - self._forgotten_s > FORGOTTEN_S:
                self._forgotten_s = now_s
                await self._kept.forget()

    async def _run(self) -> None:
        away = False
        while True:
            await asyncio.sleep(EXCHANGED_S)
            try:
                await self.exchange()
                away = False
            except FreeholdError as error:
                if not away:
                    log.warning("figures.not_exchanged", extra={"detail": error.detail or error.message})
                away = True

    async def _briefly(self) -> None:
        try:
            async with asyncio.timeout(REFRESH_S_MAX):
                await self.exchange()
        except (FreeholdError, TimeoutError) as error:
            log.info("figures.not_exchanged", extra={"detail": str(error)})

    def _gather(self, shared: Iterable[tuple[Subject, Shared]], now_s: float) -> None:
        for subject, one in shared:
            for minute, body in one.told(now_s):
                self._untold[subject, minute] = Told(subject, minute, body, one.keep_s)
                self._awake[subject[0]] = now_s + AWAKE_S
        for oldest in list(self._untold)[: max(0, len(self._untold) - UNTOLD_MAX)]:
            del self._untold[oldest]

    async def _tell(self) -> None:
        telling = list(self._untold.items())
        await self._kept.tell([told for _, told in telling])
        self._untold.clear()

    def _listened_to(self, now_s: float) -> list[str]:
        self._awake = {tenant: until_s for tenant, until_s in self._awake.items() if until_s > now_s}
        return list(self._awake)

    async def _listen(self, tenants: Sequence[str], shared: dict[Subject, Shared]) -> None:
        """What fell asleep meanwhile, or is new, is heard whole."""
        changed, self._since = await self._kept.changed(tenants, self._since)
        new = [subject for subject in shared if subject not in self._known]
        self._hear(changed, shared)
        if new:
            self._hear(await self._kept.all_of(new), shared)
        self._known = set(shared)

    def _hear(self, heard: Iterable[Heard], shared: dict[Subject, Shared]) -> None:
        now_s = self._clock.monotonic_s()
        last = int(now_s / MINUTE_S) + 1
        for one in heard:
            listener = shared.get(one.subject)
            if (
                listener is None or one.minute > last
            ):  # A clock that is far ahead of ours tells nothing of use.
                continue
            try:
                listener.hear(one.minute, one.bodies, now_s)
            except (
                msgspec.MsgspecError
            ):  # Of another release, while one after the other is brought up to date.
                log.info("figures.not_understood", extra={"subject": one.subject[1]})
