"""Gateway: how many tokens a request has, asked before it is made. The vendor's own count where it offers one, else an estimate.

A count costs nothing and leaves no record.
"""

import logging
from collections.abc import Mapping

from msgspec import Struct, structs

from freehold.core import tokens
from freehold.core.errors import BrokenOff, NotFound, Overloaded, TimedOut, Unavailable
from freehold.core.ports import CountsTokens, Wire
from freehold.gateway.passing import Envelope
from freehold.gateway.targets import Target
from freehold.wires import holds_packed

log = logging.getLogger(__name__)

_NOT_COUNTED = (NotFound, Unavailable, Overloaded, TimedOut, BrokenOff)
"""The vendor doesn't count here, or not now: then an estimate is of more use than an error. What it says of the request holds."""


class Count(Struct, frozen=True):
    """`model` is the provider's own name. `estimated`: it was we who counted."""

    input_tokens: int
    estimated: bool
    provider: str
    model: str


async def counted(target: Target, envelope: Envelope, *, wire: Wire, headers: Mapping[str, str]) -> Count:
    """Raises what is wrong with the request, in the wire's words or the vendor's."""
    provider = target.provider
    request = structs.replace(wire.decode_request(envelope.body), model=target.name, stream=False)
    estimated = True
    number = 0
    if isinstance(provider, CountsTokens):
        try:
            if provider.wire == wire.name and not holds_packed(envelope.body):
                body = envelope.passed_as(target.name, metered=False)
                number = await provider.count_passed(body, model=target.name, headers=headers)
            else:
                number = await provider.count(request)
            estimated = False
        except _NOT_COUNTED as error:
            log.info("tokens.not_counted", extra={"provider": provider.name, "reason": str(error)})
    return Count(tokens.of_request(request) if estimated else number, estimated, provider.name, target.name)
