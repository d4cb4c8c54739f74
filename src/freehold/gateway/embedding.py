"""Gateway: texts to vectors, as bytes: the client's wire and the provider's are the same here, or it is refused.

Not here: who may call what (pipeline.py).
"""

from msgspec import Struct

from freehold.core import tokens
from freehold.core.embeddings import EmbeddingRequest
from freehold.core.errors import Unsupported
from freehold.core.messages import Usage
from freehold.core.ports import EmbeddingWire
from freehold.gateway.metering import OK, Meter, Resolve, estimated, may_be_billed, outcome
from freehold.gateway.passing import Envelope


class Embedded(Struct, frozen=True):
    """`body` is the provider's whole answer; `model` is its own name."""

    body: bytes
    provider: str
    model: str


async def embedded(resolve: Resolve, envelope: Envelope, meter: Meter, wire: EmbeddingWire) -> Embedded:
    """Raises BadRequest before anybody is asked, and Unsupported for a provider that doesn't speak `wire`. However a request
    that is right ends, one record is left.
    """
    request = wire.decode_request(envelope.body)
    try:
        target = await resolve(meter)
        provider = target.provider
        if provider.wire != wire.name:
            said = f"{provider.name} makes no embeddings here: it does not speak {wire.name}"
            raise Unsupported(said, field="model")
        body = envelope.passed_as(target.name, metered=False)
        async with provider.forward(body, model=target.name, stream=False, headers={}) as raw:
            answer = await raw.read()
    except BaseException as error:
        ended = outcome(None, error)
        billed = meter.target is not None and may_be_billed(ended)
        meter.finish(ended, _estimated(request) if billed else Usage())
        raise
    meter.first_event()
    meter.finish(OK, wire.usage_of(answer) or _estimated(request))
    return Embedded(answer, provider.name, target.name)


def _estimated(request: EmbeddingRequest) -> Usage:
    sizes = (tokens.estimate(one) if isinstance(one, str) else len(one) for one in request.inputs)
    return estimated(None, input_tokens=sum(sizes), output_tokens=0)
