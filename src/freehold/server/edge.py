"""Server: the outermost edge of whatever is answered on an Exchange: every fault ends as one answer in the client's dialect."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from freehold.core.errors import FreeholdError
from freehold.server.exchange import Exchange
from freehold.server.operations import Door, internal, stopping

log = logging.getLogger(__name__)

Refuse = Callable[[FreeholdError], Awaitable[None]]


async def at_the_edge(
    work: Awaitable[None], refuse: Refuse, *, exchange: Exchange, door: Door, request_id: str
) -> None:
    """Awaits `work`; what it raises is told by `tell`."""
    try:
        await work
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the outermost edge of the task
        await tell(error, refuse, exchange=exchange, door=door, request_id=request_id)


async def tell(
    error: BaseException, refuse: Refuse, *, exchange: Exchange, door: Door, request_id: str
) -> None:
    """Through `refuse`. Who hung up is told nothing, and a stop of the server says so. Raises a cancellation that is neither."""
    if isinstance(error, FreeholdError):
        await refuse(error)
    elif not isinstance(error, asyncio.CancelledError):
        log.error("request.failed", extra={"request_id": request_id}, exc_info=error)
        await refuse(internal(request_id))
    elif not exchange.disconnected:
        if not door.leaving.is_set():
            raise error
        await refuse(stopping())
