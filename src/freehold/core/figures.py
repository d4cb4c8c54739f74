"""What processes tell each other of how calls went lately, minute by minute: the values, and the port to where they are kept.

Every process tells of its own calls alone, and tells a minute again while it goes on; whoever hears adds up what the others told. So
nothing is counted twice, whatever is repeated or lost. Not here: what is told (`told` and `hear` of gateway/health.py, slo.py, terms.py),
and when (gateway/figures.py).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol, TypeAlias

from msgspec import Struct

MINUTE_S: Final = 60.0
"""Minutes are counted from 1970 on, by the clock of whoever tells."""

Subject: TypeAlias = tuple[str, str]
"""Whose figures they are: a tenant, and a name within it (`model/openai/gpt-4o`)."""


class Told(Struct, frozen=True):
    """One process's figures of one minute, as JSON. Kept for `keep_s`, if it is not told again."""

    subject: Subject
    minute: int
    body: bytes
    keep_s: float


class Heard(Struct, frozen=True):
    """What all other processes told of one minute, those that are gone included."""

    subject: Subject
    minute: int
    bodies: tuple[bytes, ...]


class SharedFigures(Protocol):
    """Raises Unavailable, Overloaded."""

    async def tell(self, told: Sequence[Told]) -> None:
        """In place of what this process told of the same minutes before."""
        ...

    async def changed(
        self, tenants: Sequence[str], since: datetime | None
    ) -> tuple[Sequence[Heard], datetime]:
        """Minutes of which another process has told since `since`, and what to give as `since` the next time. The same may be
        heard again. None: nothing, but from now on.
        """
        ...

    async def all_of(self, subjects: Sequence[Subject]) -> Sequence[Heard]:
        """Every minute that is still kept."""
        ...

    async def forget(self) -> int:
        """How many were there that nobody needs any more."""
        ...
