"""Gateway: shadows, models that are asked beside whoever answers a call, for comparison. What they say is read and thrown away.

Nobody waits for them: where too many are under way, one is left out. Each leaves a record of its own, with what it cost. A model
only answers: tools that it asks for are run by nobody. Not here: which calls have shadows, and what they may spend (pipeline.py).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from freehold.core.errors import FreeholdError
from freehold.core.policy import ALLOW_ALL, Principal, evaluate
from freehold.gateway.attempts import Answered, Asked, Call
from freehold.gateway.residency import unmet
from freehold.gateway.targets import Target

UNDER_WAY_MAX: Final = 64
"""Shadows asked at once, by one process."""

SHADOW_S_MAX: Final = 300.0


class Shadows:
    """One a process. `running` for as long as it is used."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[None]] = set()
        self._open = False
        self.left_out_count = 0

    def ask(self, call: Callable[[], Call[Answered]]) -> None:
        """Returns at once; the call is made behind it, or left out where there are too many."""
        if not self._open or len(self._under_way) >= UNDER_WAY_MAX:
            self.left_out_count += 1
            return
        task = asyncio.create_task(_asked(call()), name="shadow")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Leaving breaks off those under way, which leave their records."""
        self._open = True
        try:
            yield
        finally:
            self._open = False
            for task in (left := set(self._under_way)):
                task.cancel()
            if left:
                await asyncio.wait(left)


async def _asked(call: Call[Answered]) -> None:
    """What goes wrong is in the record."""
    with suppress(FreeholdError, TimeoutError):
        async with asyncio.timeout(SHADOW_S_MAX), call as answer:
            if isinstance(answer, AsyncIterator):
                async for _ in answer:
                    pass


def may_shadow(principal: Principal, action: str, asked: Asked[Answered], target: Target) -> bool:
    """What keeps a route's models from a request keeps its shadows, too: a word of policy, residency, what they cannot do."""
    if asked.further_models() or unmet(principal.residency, target.regions, target.labels):
        return False
    denied = any(
        evaluate(layer, action, target.resource) == "explicitly_denied"
        for layer in principal.layers
        if layer is not ALLOW_ALL
    )
    try:
        return not denied and asked.lack_of(target) is None
    except FreeholdError:
        return False
