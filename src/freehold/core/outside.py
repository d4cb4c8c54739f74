"""Events from outside that sessions wait for: what is expected, what came, and the port of what keeps both.

Each is expected by one tool call, under a token of its own, which is kept as a digest only; it comes once. A sender may name the token,
or, with a key that allows it, the event and what it is about (`correlation`). Not here: the tool (tools/event.py), the door
(server/apis/events.py), and how its session is told (runtime/outside.py).
"""

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol

from msgspec import Struct

from freehold.core.ids import IdSource

TOKEN_PREFIX: Final = "fhe_"  # noqa: S105 - what tokens begin with
TOKEN_BYTES: Final = 32
PAYLOAD_BYTES_MAX: Final = 65_536
EARLY_KEPT_S: Final = 3_600
"""So long an event is kept that is reported by its name while nobody waits for it."""

EARLY_MAX: Final = 10_000
"""Of one tenant, at a time."""


class Expectation(Struct, frozen=True, kw_only=True):
    """A tool call that waits. A later one of the same call takes the place of the one before."""

    tenant: str
    session_id: str
    call_id: str
    tool: str
    event: str
    correlation: str
    until: datetime
    token_digest: str


class Expected(Struct, frozen=True, kw_only=True):
    """`over`: its time has passed, or its session went on without it."""

    tenant: str
    tool: str
    received: bool
    over: bool


class Received(Struct, frozen=True, kw_only=True):
    """What came, for a call whose session does not know yet."""

    tenant: str
    session_id: str
    call_id: str
    event: str
    token_digest: str
    payload: str


class Sent(Struct, frozen=True):
    """How many calls got it now, and how many had got one before. `kept_until`: nobody waits for it, and it is kept for whoever begins to; with
    `repeated_count`, since it came before."""

    received_count: int
    repeated_count: int
    kept_until: datetime | None = None


class ExpectedEvents(Protocol):
    """All times are the database's. Raises Unavailable."""

    async def expect(self, expectation: Expectation) -> None:
        """Durable on return. Where it came early, it has come now; but no session is given the same twice."""
        ...

    async def find(self, token_digest: str) -> Expected | None: ...

    async def receive(self, token_digest: str, payload: str) -> bool:
        """Durable on return. False where it has come before, or is over: then nothing changes."""
        ...

    async def send(self, tenant: str, event: str, correlation: str, payload: str) -> Sent:
        """To every call of the tenant that waits for it; kept for EARLY_KEPT_S, where there is none. Raises RateLimited where EARLY_MAX are."""
        ...

    async def untold(self, *, limit: int) -> Sequence[Received]:
        """What came and nobody has told; each again after a while, until `told`."""
        ...

    async def told(self, token_digest: str) -> None: ...

    async def wait(self, timeout_s: float) -> None:
        """Returns when something came, or after `timeout_s`."""
        ...


def new_token(chance: IdSource) -> str:
    text = base64.urlsafe_b64encode(chance.entropy(TOKEN_BYTES)).rstrip(b"=").decode()
    return f"{TOKEN_PREFIX}{text}"


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
