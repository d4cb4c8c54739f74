"""Tasks that run as long as a `with` block, for whoever opens long-lived things, and work that no fault ends. Not here: what they do."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Final, NoReturn

from freehold.core.errors import FreeholdError

BACKOFF_S: Final = 0.2
BACKOFF_S_MAX: Final = 5.0

log = logging.getLogger(__name__)


@asynccontextmanager
async def background(work: Coroutine[object, object, None], name: str) -> AsyncIterator["asyncio.Task[None]"]:
    """Leaving cancels the task and waits for it. A fault in it is logged when it happens: the body goes on without it.

    Not a TaskGroup: that would wrap what the body raises in an ExceptionGroup, and cancel the body for the task's sake.
    """
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_report)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def again_and_again(step: Callable[[], Awaitable[object]], name: str) -> NoReturn:
    """`step` does what there is to do, or waits for it. No fault ends it: a database that is away only makes it wait, longer each time."""
    backoff_s = BACKOFF_S
    while True:
        try:
            await step()
            backoff_s = BACKOFF_S
            continue
        except FreeholdError as error:
            log.warning("%s.put_off", name, extra={"error": str(error)})
        except Exception:
            log.exception("%s.crashed", name)
        await asyncio.sleep(backoff_s)
        backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)


def _report(task: "asyncio.Task[None]") -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.error("task.died", extra={"task": task.get_name()}, exc_info=error)
