"""A scheduler over a real database, by a clock that a test puts forward. As a process of its own: `python -m tests.runtime._schedules URL
UNTIL KILL_AT`: it deals with what is due until that time (Unix, seconds), one minute after the other, and kills itself with SIGKILL at
KILL_AT (`before write:2`; `never`): before or after a claim, the transaction that deals with it, or the writing of sessions in the middle of that.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from freehold.clock import SystemClock
from freehold.core.deployments import DeploymentRun
from freehold.core.schedules import Cron, Deployment
from freehold.runtime.schedules_service import DeploymentService
from freehold.runtime.schedules_worker import ScheduleMeans, Scheduler
from freehold.store import deployments as kept_in
from tests.runtime._world import OWNER, TENANT, World, said, world

MINUTE = timedelta(minutes=1)
MINUTELY = Cron(expression="* * * * *", timezone="UTC")


def minutely(name: str, **fields: Any) -> Deployment:
    return Deployment(name=name, **{"agent": "clerk", "messages": ("go",), "schedule": MINUTELY} | fields)


class SetClock(SystemClock):
    """The real one, until it is put forward: then it stands still."""

    def __init__(self) -> None:
        self._at: datetime | None = None

    def now(self) -> datetime:
        return self._at or super().now()

    def put(self, at: datetime) -> None:
        self._at = at


class Bench:
    """`acme`'s deployments, in one process."""

    def __init__(self, here: World, clock: SetClock) -> None:
        self.here, self.clock, self.kept = here, clock, here.store.deployments
        self.means = ScheduleMeans(
            kept=self.kept,
            sessions=here.sessions,
            declarations=here.means.declarations,
            principals=here.principals,
            clock=clock,
        )
        self.scheduler = Scheduler(self.means)
        self.service = DeploymentService(self.kept, here.store.resources, self.scheduler, clock)

    async def declare(self, name: str, **fields: Any) -> Deployment:
        deployment = minutely(name, **fields)
        await self.declare_all(deployment)
        return deployment

    async def declare_all(self, *deployments: Deployment) -> None:
        """At one moment."""
        await self.here.store.resources.put(TENANT, deployments, by=OWNER.id)

    async def first(self, name: str) -> datetime:
        """The first slot of what was declared, and is to run each minute: of the minute of the database, not of who asks later."""
        return next_minute((await self.kept.get(TENANT, name)).done_until)

    async def at(self, at: datetime) -> None:
        """All that is due then."""
        self.clock.put(at)
        while await self.scheduler.begin_due():
            pass

    async def runs(self, name: str) -> list[DeploymentRun]:
        """Oldest first."""
        found: list[DeploymentRun] = []
        cursor = None
        while True:
            page = await self.kept.runs(TENANT, deployment=name, limit=1000, cursor=cursor)
            found += page.rows
            cursor = page.next
            if cursor is None:
                return sorted(found, key=lambda run: run.slot or run.created_at)


@asynccontextmanager
async def bench(url: str) -> AsyncIterator[Bench]:
    async with world(url, lambda _request: said("done")) as here:
        yield Bench(here, SetClock())


def next_minute(at: datetime | None = None) -> datetime:
    return (at or datetime.now(UTC)).replace(second=0, microsecond=0) + MINUTE


def slots(runs: Sequence[DeploymentRun]) -> list[datetime]:
    return [run.slot for run in runs if run.slot is not None]


class Points:
    """Kills at the `count`-th time that a point is reached."""

    def __init__(self, kill_at: str) -> None:
        self.name, _, count = kill_at.partition(":")
        self.left = int(count or 0)

    def around(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def called(*given: Any, **named: Any) -> Any:
            self.reached(f"before {name}")
            result = await call(*given, **named)
            self.reached(f"after {name}")
            return result

        return called

    def reached(self, name: str) -> None:
        self.left -= name == self.name
        if name == self.name and self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(url: str, until: float, kill_at: str) -> None:
    end, points = datetime.fromtimestamp(until, UTC), Points(kill_at)
    async with bench(url) as here:
        here.kept.claim = points.around("claim", here.kept.claim)
        here.kept.deal = points.around("deal", here.kept.deal)
        kept_in.write_creates = points.around("write", kept_in.write_creates)
        at = datetime.now(UTC)
        while at <= end:
            await here.at(at)
            at += MINUTE / 2
    print("done")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), sys.argv[3]))
