"""How a call's limits stood when it was answered, or refused: what clients are told of them. Pure.

Not here: how limits are declared (core/allowances.py), and in whose words it is said (server/limit_lines.py).
"""

from typing import Literal, NamedTuple


class Standing(NamedTuple):
    """Of a limit by the minute: `left` of `size`, as far as this process knows, until the minute ends."""

    measure: Literal["requests", "tokens"]
    size: int
    left: int
    reset_ms: int
    """When the minute ends, Unix time."""
