"""Places of tools that may only run so many times at once (Tool.concurrency_max): the port of what hands them out, to all workers alike."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct


class ToolQueue(Struct, frozen=True):
    """A tool with a limit, now: how many of its calls run, how many wait for a place, and since when the first of them."""

    tool: str
    concurrency_max: int | None
    running: int
    waiting: int
    waiting_since: datetime | None = None


class ToolPlaces(Protocol):
    """A place belongs to a session's call, whichever worker carries the session. Raises Unavailable."""

    async def take(self, tenant: str, session_id: str, wanted: Mapping[str, str]) -> frozenset[str]:
        """`wanted` are tools by call. Those of the calls that have a place now; the others are in the queue, each since it first asked.
        Once its session waits, it is called by being due: whoever puts it to rest asks once more then (`look`)."""
        ...

    async def keep(self, tenant: str, session_id: str, call_ids: Collection[str]) -> None:
        """Gives back all of the session's places, and leaves all queues, but for these calls. Idempotent."""
        ...

    async def look(self, tenant: str, session_id: str) -> None:
        """Gives what is free of the tools that a session waits for to those whose turn it is."""
        ...

    async def look_after(self) -> None:
        """What nobody's asking sees: raised limits, calls that were not answered, sessions that are over."""
        ...

    async def queues(self, tenant: str) -> Sequence[ToolQueue]:
        """Of all tools that have a limit, or calls left from when they had."""
        ...
