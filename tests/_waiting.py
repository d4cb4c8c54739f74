"""Waiting for what other tasks, threads and processes do: for a state, never for a time.

PATIENCE_S is nobody's expectation: only what never comes is waited for so long, on the slowest machine, too. A wait in vain fails with
what it waited for and what it saw last, long before the test as a whole is ended by its timeout.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

PATIENCE_S: Final = 60.0
POLL_S: Final = 0.005
SHOWN_CHARS_MAX: Final = 2_000
T = TypeVar("T")


async def eventually(
    holds: Callable[[], Awaitable[T]] | Callable[[], T],
    wanted: str = "",
    *,
    timeout_s: float = PATIENCE_S,
    every_s: float = POLL_S,
) -> T:
    """What `holds` returned, once that was true. What makes work for others is asked seldom: `every_s`."""
    seen: list[object] = []
    async with within(wanted or _name(holds), seen, timeout_s=timeout_s):
        while True:
            found = holds()
            result: T = await found if isinstance(found, Awaitable) else found
            if result:
                return result
            seen[:] = [result]
            await asyncio.sleep(every_s)
    raise AssertionError


@asynccontextmanager
async def within(
    wanted: str, seen: object = None, *, timeout_s: float = PATIENCE_S
) -> AsyncIterator[asyncio.Timeout]:
    """The block must be left in time. `seen` is shown as it is by then: a list that the block fills, say."""
    try:
        async with asyncio.timeout(timeout_s) as limit:
            yield limit
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise AssertionError(_vain(wanted, seen, timeout_s)) from error


def until(holds: Callable[[], T], wanted: str = "", *, timeout_s: float = PATIENCE_S) -> T:
    """As `eventually`, where nothing else runs in this thread meanwhile."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := holds()):
        assert time.monotonic() < deadline_s, _vain(wanted or _name(holds), found, timeout_s)
        time.sleep(POLL_S)
    return found


def _name(holds: object) -> str:
    code = getattr(getattr(holds, "func", holds), "__code__", None)
    name = getattr(holds, "__qualname__", repr(holds))
    return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"


def _vain(wanted: str, seen: object, timeout_s: float) -> str:
    shown = repr(seen)
    return f"waited {timeout_s:g} s in vain for {wanted}; seen last: ...{shown[-SHOWN_CHARS_MAX:]}"
