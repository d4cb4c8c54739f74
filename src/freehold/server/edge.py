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
    """Awaits `work`; tells what it raised through `refuse`. Who hung up is told nothing, and a stop of the server says so."""
    try:
        await work
    except FreeholdError as error:
        await refuse(error)
    except asyncio.CancelledError:
        if exchange.disconnected:
            return
        if not door.leaving.is_set():
            raise
        await refuse(stopping())
    except Exception:  # The task's outermost edge.
        log.exception("request.failed", extra={"request_id": request_id})
        await refuse(internal(request_id))
