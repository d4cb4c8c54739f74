"""Providers: bearer tokens that run out. Fetched when one is needed, kept until shortly before its end, one fetch at a time.

Not here: how a vendor gives one out (_google_token.py).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from copy import copy
from typing import Final, TypeAlias

from msgspec import Struct

from freehold.core.errors import FreeholdError
from freehold.providers._http import HeaderBlock, header_block

EARLY_S: Final = 300.0
"""So long before its end a token is renewed (a shorter one: after half its time)."""

RETRY_S: Final = 5.0
"""After a fetch that failed, and before a token that was refused is fetched anew: nobody asks again so soon."""

log = logging.getLogger(__name__)


class Token(Struct, frozen=True):
    value: str
    lasts_s: float

    def __repr__(self) -> str:
        return f"Token(lasts_s={self.lasts_s:g})"


Fetch: TypeAlias = Callable[[], Awaitable[Token]]
"""Bounded in time. Raises FreeholdErrors."""


class Bearer:
    """`now_s` never goes back."""

    __slots__ = ("_ends_at", "_error", "_fetch", "_fetched_at", "_fetching", "_header", "_now_s", "_renew_at")

    def __init__(self, fetch: Fetch, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._now_s = now_s
        self._fetching = asyncio.Lock()
        self._header = header_block(())
        self._fetched_at = float("-inf")
        self._renew_at = self._ends_at = float("-inf")
        self._error: FreeholdError | None = None

    async def header(self) -> HeaderBlock:
        """Raises what the fetch raised, unless an older token still holds."""
        now = self._now_s()
        if now < self._renew_at or (now < self._ends_at and self._fetching.locked()):
            return self._header
        async with self._fetching:
            if self._now_s() >= self._renew_at:
                await self._renew()
        return self._header

    def refused(self) -> None:
        """Somebody would not take the token before its time was over: the next one gets a new one."""
        if self._now_s() >= self._fetched_at + RETRY_S:
            self._renew_at = self._ends_at = float("-inf")

    async def _renew(self) -> None:
        if self._error is not None and self._now_s() < self._fetched_at + RETRY_S:
            raise copy(self._error)
        try:
            token = await self._fetch()
        except FreeholdError as error:
            self._fetched_at = now = self._now_s()
            if now >= self._ends_at:
                self._error = error
                raise
            self._renew_at = min(now + RETRY_S, self._ends_at)
            log.warning(
                "token.not_renewed", extra={"reason": str(error), "holds_s": round(self._ends_at - now)}
            )
            return
        self._header = header_block((
            (b"authorization", b"Bearer " + token.value.encode("latin-1", "replace")),
        ))
        self._fetched_at = now = self._now_s()
        self._ends_at = now + token.lasts_s
        self._renew_at = self._ends_at - min(EARLY_S, token.lasts_s / 2)
        self._error = None
