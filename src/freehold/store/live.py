"""What processes tell each other and nobody keeps, over LISTEN and NOTIFY: implements core.ports.LiveChannel.

Every process hears everything; a payload is at most NOTIFY_BYTES_MAX long. Not here: what is said (runtime/relay.py).
Source: https://www.postgresql.org/docs/current/sql-notify.html
"""

from collections.abc import Callable, Sequence
from typing import Final

from freehold.core.ports import LiveChannel
from freehold.store._listen import Listener
from freehold.store.database import Database

CHANNEL: Final = "freehold_live"
_TELL: Final = f"SELECT pg_notify('{CHANNEL}', said.payload) FROM unnest($1::text[]) AS said (payload)"  # noqa: S608 - our own constant


class PostgresLiveChannel:
    def __init__(self, database: Database, listener: Listener) -> None:
        """`listener` must not run yet."""
        self._database = database
        self._hearer: Callable[[str], None] | None = None
        listener.on(CHANNEL, self._hear)

    def hear(self, hearer: Callable[[str], None]) -> None:
        self._hearer = hearer

    async def tell(self, payloads: Sequence[str]) -> None:
        await self._database.fetch("telling other processes", _TELL, payloads)

    def _hear(self, payload: str | None, _server_pid: int) -> None:
        if payload is not None and self._hearer is not None:
            self._hearer(payload)


_IMPLEMENTS: type[LiveChannel] = PostgresLiveChannel
