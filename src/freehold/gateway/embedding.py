"""Gateway: texts to vectors. As bytes where the client's wire is the provider's too, else in words of no vendor.

Not here: who may call what (pipeline.py), a call's course (attempts.py).
"""

from collections.abc import Sequence

from msgspec import Struct, structs

from freehold.catalog.models import ModelFacts
from freehold.core import tokens
from freehold.core.errors import Internal, Unavailable, Unsupported
from freehold.core.messages import ModelRequest, ModelResponse, Usage
from freehold.core.ports import EmbeddingWire, Embeds
from freehold.core.records import DIRECT, Choice
from freehold.gateway.allowance import Taken
from freehold.gateway.bounds import Most, most_of_texts
from freehold.gateway.capabilities import Lack
from freehold.gateway.metering import Meter
from freehold.gateway.passing import Envelope
from freehold.gateway.routing import Wanted
from freehold.gateway.targets import Target


class Embedded(Struct, frozen=True):
    """`body` is the provider's whole answer; `model` is its own name. It is over before anybody sees it."""

    body: bytes
    provider: str
    model: str
    usage: Usage | None
    choice: Choice = DIRECT
    taken: Taken | None = None
    error: None = None
    finished: bool = True
    output_tokens_estimated: int = 0
    copy: None = None

    async def close(self) -> None:
        pass


class Texts:
    """Raises BadRequest for a body that is none of `wire`."""

    __slots__ = ("_envelope", "_request", "_wire")

    def __init__(self, envelope: Envelope, wire: EmbeddingWire) -> None:
        self._envelope = envelope
        self._wire = wire
        self._request = wire.decode_request(envelope.body)

    @property
    def body(self) -> bytes:
        return self._envelope.body

    def further_models(self) -> Sequence[str]:
        return ()

    def lack_of(self, target: Target) -> tuple[Lack, ModelRequest] | None:
        if target.provider.wire != self._wire.name and target.embeds is None:
            raise Unsupported(f"{target.provider.name} makes no embeddings here", field="model")
        return None

    async def ask(self, target: Target, meter: Meter) -> Embedded:
        if target.provider.wire == self._wire.name or target.embeds is None:
            body, usage = await self._passed(target)
        else:
            body, usage = await self._translated(target, target.embeds)
        return Embedded(body, target.provider.name, target.name, usage, meter.choice, meter.taken)

    async def _passed(self, target: Target) -> tuple[bytes, Usage | None]:
        body = self._envelope.passed_as(target.name, metered=False)
        async with target.provider.forward(body, model=target.name, stream=False, headers={}) as raw:
            answer = await raw.read()
        return answer, self._wire.usage_of(answer)

    async def _translated(self, target: Target, embeds: Embeds) -> tuple[bytes, Usage | None]:
        request, name = self._request, target.provider.name
        made = await embeds.embed(structs.replace(request, model=target.name))
        if len(made.vectors) != len(request.inputs):
            said = f"{name} answered {len(request.inputs)} inputs with {len(made.vectors)} vectors"
            raise Unavailable(said)
        if made.usage.input_tokens:
            return self._wire.encode_response(made, request=request), made.usage
        guessed = structs.replace(made, usage=Usage(input_tokens=self.input_tokens(), estimated=True))
        return self._wire.encode_response(guessed, request=request), None

    def most(self, facts: ModelFacts | None) -> Most:
        return most_of_texts(len(self._envelope.body))

    def cacheable(self) -> tuple[ModelRequest | None, str | None]:
        return None, None

    async def again(self, earlier: ModelResponse, target: Target, meter: Meter) -> Embedded:
        raise Internal("vectors are not kept")

    def wanted(self) -> Wanted:
        return Wanted(input_tokens=self.input_tokens(), output_tokens_max=0)

    def input_tokens(self) -> int:
        return sum(tokens.estimate(one) if isinstance(one, str) else len(one) for one in self._request.inputs)
