"""Gateway: the one door to models. Resolve the name, authorize, check that the model can do it, ask, meter, record; whoever
calls a model comes through here.

`call` speaks in values and serves any pair of wires; `forward` passes bytes where client and provider share a wire. Both
return after the first event (or the whole answer) is there, so what fails before it is an exception and not half an
answer. Nothing on the way waits for the database, and nothing logs. Not here: authentication (governance/keys.py), retries
(the caller's: a retry is a call of its own, with a record of its own).
"""

from collections.abc import Mapping
from functools import partial
from typing import Final

from freehold.core.errors import BadRequest, FreeholdError, NotFound
from freehold.core.messages import ModelRequest
from freehold.core.policy import Principal, allowed, authorize
from freehold.core.ports import CallRecords, Clock, EmbeddingWire, Wire
from freehold.gateway.alternatives import able
from freehold.gateway.calling import Calling
from freehold.gateway.capabilities import field_in, lack_of, refusal, text_bytes
from freehold.gateway.counting import Count, counted
from freehold.gateway.embedding import Embedded, embedded
from freehold.gateway.forwarding import Forwarding
from freehold.gateway.metering import Meter
from freehold.gateway.models import ModelTable
from freehold.gateway.passing import Envelope
from freehold.gateway.targets import Target
from freehold.wires import holds_packed

ACTION: Final = "model:Call"
_NO_HEADERS: Final[Mapping[str, str]] = {}


class Gateway:
    """`wires` are by name; those of clients and of providers are the same set."""

    def __init__(
        self, *, models: ModelTable, wires: Mapping[str, Wire], records: CallRecords, clock: Clock
    ) -> None:
        self.models = models
        self._wires = wires
        self._records = records
        self._clock = clock

    def call(
        self,
        principal: Principal,
        request: ModelRequest,
        *,
        wire: str = "session",
        session_id: str | None = None,
        agent: str | None = None,
        rules: str | None = None,
        body: bytes = b"",
    ) -> Calling:
        """`wire` is the client's dialect; `rules` are what `auto` falls back to; `body` is what the request came as, if it did.

        Entering raises NotFound, Forbidden, Unsupported and whatever the provider refused the call with; iterating raises
        what broke it off.
        """
        meter = Meter(self._clock, self._records, principal, wire=wire, requested=request.model)
        meter.session_id, meter.agent, meter.streamed, meter.rules = session_id, agent, request.stream, rules
        return Calling(partial(self._resolve_able, request, body), request, meter)

    async def passes(self, principal: Principal, *, wire: str, model: str, body: bytes) -> bool:
        """Whether to `forward` this model's bytes for a client of `wire`; else decode the request and `call`.

        True too where nobody has the model: `forward` then says so, and leaves the record. A body with another vendor's seal,
        in our packing, never passes: the wire takes it out, or opens it for whom it is from.
        """
        try:
            target = await self.models.resolve(principal.tenant, model, wire=wire)
        except (NotFound, BadRequest):
            return True
        return target.provider.wire == wire and not holds_packed(body)

    def forward(
        self,
        principal: Principal,
        envelope: Envelope,
        *,
        wire: str,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Forwarding:
        """`headers` are the client's, names lower-cased. Raises on entering as `call` does."""
        meter = Meter(self._clock, self._records, principal, wire=wire, requested=envelope.model)
        meter.streamed = envelope.stream
        resolve = partial(self._resolve_with, envelope)
        return Forwarding(resolve, self._wires[wire], envelope, headers, meter)

    async def count(
        self,
        principal: Principal,
        envelope: Envelope,
        *,
        wire: str,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Count:
        """How many tokens the request in `envelope` has, a whole one of `wire`. Who may not call the model may not ask."""
        target = await self.models.resolve(principal.tenant, envelope.model, wire=wire)
        authorize(principal, ACTION, target.resource)
        return await counted(target, envelope, wire=self._wires[wire], headers=headers)

    async def embed(self, principal: Principal, envelope: Envelope, *, wire: EmbeddingWire) -> Embedded:
        """Texts to vectors. Raises as `call` does on entering."""
        meter = Meter(self._clock, self._records, principal, wire=wire.name, requested=envelope.model)
        return await embedded(self._resolve, envelope, meter, wire)

    async def _resolve_with(self, envelope: Envelope, meter: Meter) -> Target:
        """Bytes that pass may name more models than one; each must be allowed."""
        target = await self._resolve(meter)
        for model in envelope.further_models():
            authorize(meter.principal, ACTION, f"model/{target.provider.name}/{model}")
        if target.suspicion is not None and target.suspicion.falls_on(envelope.body, envelope.fields):
            try:
                request = self._wires[meter.wire].decode_request(envelope.body)
            except FreeholdError:
                return (
                    target  # What we cannot read, its vendor may: bytes that pass are the vendor's to judge.
                )
            await self._check_able(meter, target, request, envelope.body)
        return target

    async def _resolve_able(self, request: ModelRequest, body: bytes, meter: Meter) -> Target:
        target = await self._resolve(meter)
        if target.facts is not None:
            await self._check_able(meter, target, request, body)
        return target

    async def _check_able(self, meter: Meter, target: Target, request: ModelRequest, body: bytes) -> None:
        """Raises Unsupported or ContextTooLong for what the model is known not to do, naming models that do."""
        facts = target.facts
        if facts is None:
            return
        lack = lack_of(facts, request, size_bytes=len(body) or text_bytes(request))
        if lack is None:
            return
        principal = meter.principal
        instead = able(
            await self.models.usable(principal.tenant),
            self.models.facts,
            partial(allowed, principal, ACTION),
            lack,
            request,
        )
        model = f"{target.provider.name}/{target.name}"
        raise refusal(model, lack, facts, field=field_in(body, lack) if body else lack.field, instead=instead)

    async def _resolve(self, meter: Meter) -> Target:
        principal = meter.principal
        target = await self.models.resolve(
            principal.tenant, meter.requested, wire=meter.wire, rules=meter.rules
        )
        meter.target = target
        authorize(principal, ACTION, target.resource)
        return target
