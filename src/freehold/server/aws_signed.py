"""Server: who sends a request of AWS's SDKs, and its body: signed with SigV4 in an API key's name, or bearing the key itself.

Not here: what is signed and how (wires/_aws_sigv4*.py), where a key's pair comes from (governance/keys.py).
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from freehold.core.errors import Unauthenticated
from freehold.core.policy import Principal
from freehold.gateway.residency import labelled
from freehold.server.exchange import Exchange
from freehold.server.operations import Door
from freehold.wires._aws_refused import unknown_key
from freehold.wires._aws_sigv4 import ALGORITHM
from freehold.wires._aws_sigv4_verify import Head, claimed

SERVICES: Final = frozenset({"bedrock"})
"""What a signature may be for; the runtime's endpoints are signed for so, too."""

FindSigner: TypeAlias = Callable[[str], tuple[Principal, str]]
"""Access key id to who signs with it, and the secret. Raises Unauthenticated. Never waits."""


async def read_signed(exchange: Exchange, door: Door, signer: FindSigner) -> tuple[Principal, bytes]:
    """Nobody without a known key makes us read a body. Raises SignatureRefused, Unauthenticated, TooLarge."""
    if not exchange.headers.get("authorization", "").startswith(ALGORITHM):
        return door.authenticate(exchange.headers), await exchange.read(door.body_bytes_max)
    pairs = [(_text(name), _text(value)) for name, value in exchange.pairs]
    head = Head(exchange.method.decode(), _text(exchange.target), pairs)
    claim = claimed(head, now_s=door.clock.now_ms() / 1000, services=SERVICES)
    if claim.session_token is not None:
        raise unknown_key()  # Nobody here hands out session tokens.
    try:
        principal, secret = signer(claim.access_key_id)
    except Unauthenticated as error:
        raise unknown_key() from error
    principal = labelled(principal, exchange.headers)
    return principal, claim.check(secret, await exchange.read(door.body_bytes_max))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
