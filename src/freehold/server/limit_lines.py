"""Server: headers that say what is left of a call's limits by the minute, in the words of the client's dialect.

Not here: what is left (gateway/allowance.py). Dialects that have no such words (Google's, Bedrock's) are told nothing. Sources:
https://platform.openai.com/docs/guides/rate-limits (headers), https://docs.anthropic.com/en/api/rate-limits (response headers).
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from freehold.core.ports import Clock
from freehold.core.standing import Standing
from freehold.gateway.allowance import Taken, standings_of

_OPENAI: Final = frozenset({"openai_chat", "openai_responses", "openai_embeddings"})
_ANTHROPIC: Final = "anthropic_messages"


def lines_after(wire: str, taken: Taken | None, clock: Clock) -> bytes:
    """Header lines of an answer."""
    return b"" if taken is None else limit_lines(wire, standings_of(taken.slices, clock), clock.now_ms())


def limit_lines(wire: str, standings: Sequence[Standing], now_ms: int) -> bytes:
    """None where no limit by the minute holds."""
    if not standings:
        return b""
    if wire in _OPENAI:
        return "".join(_openai(standings, now_ms)).encode()
    return "".join(_anthropic(standings)).encode() if wire == _ANTHROPIC else b""


def _openai(standings: Sequence[Standing], now_ms: int) -> Iterable[str]:
    for one in standings:
        reset_s = max(0, -((now_ms - one.reset_ms) // 1000))
        yield f"x-ratelimit-limit-{one.measure}: {one.size}\r\n"
        yield f"x-ratelimit-remaining-{one.measure}: {one.left}\r\n"
        yield f"x-ratelimit-reset-{one.measure}: {reset_s}s\r\n"


def _anthropic(standings: Sequence[Standing]) -> Iterable[str]:
    for one in standings:
        reset = datetime.fromtimestamp(one.reset_ms // 1000, UTC)
        yield f"anthropic-ratelimit-{one.measure}-limit: {one.size}\r\n"
        yield f"anthropic-ratelimit-{one.measure}-remaining: {one.left}\r\n"
        yield f"anthropic-ratelimit-{one.measure}-reset: {reset:%Y-%m-%dT%H:%M:%SZ}\r\n"
