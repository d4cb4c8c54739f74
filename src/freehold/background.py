"""Tasks that run as long as a `with` block, for whoever opens long-lived things. Not here: what they do."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

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


def _report(task: "asyncio.Task[None]") -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.error("task.died", extra={"task": task.get_name()}, exc_info=error)
