"""Whether the server can do its work, for whoever looks (`GET /healthz`)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from freehold import __version__
from freehold.core.errors import FreeholdError
from freehold.server.app import HealthShown

HEALTH_S_MAX: Final = 3.0


class Health:
    """Asks one question at a time, and does not wait for long: a database that hangs is not asked by everyone who looks."""

    def __init__(self, check: Callable[[], Awaitable[object]], trouble: Callable[[], str | None]) -> None:
        """`check` asks the database, and raises where it cannot be asked; `trouble` is what keeps records from being written."""
        self._check = check
        self._trouble = trouble
        self._asking: asyncio.Task[str] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            if self._asking is not None:
                self._asking.cancel()
                await asyncio.wait([self._asking])

    async def look(self) -> HealthShown:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="health")
        await asyncio.wait([self._asking], timeout=HEALTH_S_MAX)
        late = f"the database did not answer within {HEALTH_S_MAX:g} s"
        checks = {"database": self._asking.result() if self._asking.done() else late}
        status = "ok" if checks["database"] == "ok" else "degraded"
        if trouble := self._trouble():
            checks["records"] = trouble
            status = "warning" if status == "ok" else status
        return HealthShown(status, __version__, checks)

    async def _ask(self) -> str:
        try:
            await self._check()
        except FreeholdError as error:
            return error.message
        return "ok"
