"""Routes: why each model would be taken or left for a request (`model:Call` on `model/route/NAME`). Drains: models that take no new
calls (`drain:Put`, `drain:Archive` on `drain/NAME`). Both are declared resources too, and templates know them.
"""

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

from msgspec import Struct

from freehold.core.errors import BadRequest, NotFound
from freehold.core.policy import authorize
from freehold.core.ports import Resources, Wire
from freehold.core.pricing import decimal
from freehold.core.routes import Drain, check
from freehold.core.validation import near
from freehold.gateway.figures import Refresh
from freehold.gateway.listing import check_provider
from freehold.gateway.passing import Envelope
from freehold.gateway.pipeline import Gateway
from freehold.gateway.routing import Candidate
from freehold.gateway.routing_plan import Explained
from freehold.gateway.targets import Routed
from freehold.server.operations import Call, Operation

DRAIN_NAME_CHARS_MAX: Final = 48
REASON_CHARS_MAX: Final = 500
_NO_NAME: Final = re.compile(r"[^a-z0-9]+")


class ExplainQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`wire` is the format of the request. `draw` (0 to less than 1) is chance, for routes that go by it."""

    wire: str = "openai_chat"
    draw: float | None = None


class CandidateShown(Struct, frozen=True):
    """`place` is 1 for the model that is asked first, null for one that is left. `price` is what the call is expected to cost.
    Latency in seconds, of the last minutes, in all processes; 95 % of answers came up to `tokens_per_s_p95`. `calls_under_way` in the one that answers.
    """

    model: str
    place: int | None
    why: str
    quality: float | None = None
    weight: float | None = None
    regions: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    price: str | None = None
    currency: str | None = None
    first_token_p50_s: float | None = None
    first_token_p95_s: float | None = None
    whole_answer_p50_s: float | None = None
    tokens_per_s: float | None = None
    tokens_per_s_p95: float | None = None
    calls_under_way: int = 0


class ExplainedShown(Struct, frozen=True):
    """`input_tokens` is a guess by the request's size. `arm`: of the route's experiment, the one that the request is in; where that is a
    route, `by` is its name, and `strategy` and `models` are its.
    """

    route: str
    strategy: str
    input_tokens: int
    affinity: str
    models: tuple[CandidateShown, ...]
    arm: str | None
    by: str


class DrainBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`models`: `provider`, or `provider/name`, where `*` and `?` stand for any."""

    models: str
    reason: str = ""


class DrainShown(Struct, frozen=True):
    name: str
    models: str
    reason: str


class DrainList(Struct, frozen=True):
    data: tuple[DrainShown, ...]


class RouteApi:
    def __init__(
        self, gateway: Gateway, resources: Resources, wires: Mapping[str, Wire], refresh: Refresh
    ) -> None:
        self._gateway = gateway
        self._resources = resources
        self._wires = wires
        self._refresh = refresh

    async def explain(self, call: Call) -> ExplainedShown:
        query: ExplainQuery = call.query
        wire = self._wires.get(query.wire)
        if wire is None:
            known = ", ".join(sorted(self._wires))
            raise BadRequest(
                f"expected one of {known}; got {query.wire[:40]!r}{near(query.wire, self._wires)}",
                field="wire",
            )
        if query.draw is not None and not 0 <= query.draw < 1:
            raise BadRequest(f"expected 0 to less than 1, got {query.draw}", field="draw")
        name = call.path["name"]
        envelope = Envelope(call.body)
        await self._refresh(call.principal.tenant)
        told = await self._gateway.explain(
            call.principal, name, envelope, wire=wire, headers=call.headers, draw=query.draw
        )
        by, wanted = told.routed.route, told.wanted
        return ExplainedShown(
            name, by.strategy, wanted.input_tokens, wanted.affinity, _models(told), told.arm, by.name
        )

    async def drains(self, call: Call) -> DrainList:
        authorize(call.principal, "drain:List", "drain/*")
        return DrainList(tuple(_shown(one) for one in await self._declared(call.principal.tenant)))

    async def drain(self, call: Call) -> DrainShown:
        """Idempotent. Keeps the name under which the same models were drained before."""
        body: DrainBody = call.body
        tenant, models = call.principal.tenant, _pattern(body.models)
        provider = models.partition("/")[0]
        if not {"*", "?"} & set(provider):
            await check_provider(self._gateway.models, tenant, provider)
        there = [one for one in await self._declared(tenant) if one.models == models]
        drain = Drain(
            name=there[0].name if there else _name(models),
            models=models,
            reason=body.reason[:REASON_CHARS_MAX],
        )
        check(drain)
        authorize(call.principal, "drain:Put", f"drain/{drain.name}")
        await self._resources.put(tenant, [drain], by=call.principal.id)
        return _shown(drain)

    async def undrain(self, call: Call) -> DrainShown:
        """By its name, or by the models that it drains."""
        tenant, wanted = call.principal.tenant, call.path["drain"]
        found = [
            one
            for one in await self._declared(tenant)
            if wanted == one.name or _pattern(wanted) == one.models
        ]
        if not found:
            known = ", ".join(one.models for one in await self._declared(tenant)) or "nothing"
            raise NotFound(f"nothing is drained as {wanted[:80]!r}; drained: {known}")
        for one in found:
            authorize(call.principal, "drain:Archive", f"drain/{one.name}")
            await self._resources.archive(tenant, "drain", one.name, by=call.principal.id)
        return _shown(found[0])

    async def _declared(self, tenant: str) -> Sequence[Drain]:
        found = await self._resources.list(tenant, "drain")
        return [one.resource for one in found if isinstance(one.resource, Drain)]


def _models(told: Explained) -> tuple[CandidateShown, ...]:
    candidates = {one.model: one for one in told.candidates}
    shown = [
        CandidateShown(one.model, one.place, one.why, **_figures(told.routed, candidates[one.model]))
        for one in told.verdicts
    ]
    return (*shown, *(CandidateShown(model, None, why) for model, why in told.missing))


def _figures(routed: Routed, one: Candidate) -> dict[str, Any]:
    traits, lately = one.traits, one.figures
    return {
        "quality": traits.quality,
        "weight": traits.weight,
        "regions": traits.regions,
        "labels": dict(traits.labels),
        "price": None if one.price_pico is None else decimal(one.price_pico),
        "currency": None if one.price_pico is None else routed.route.currency,
        "first_token_p50_s": _rounded(lately.first_p50_s),
        "first_token_p95_s": _rounded(lately.first_p95_s),
        "whole_answer_p50_s": _rounded(lately.whole_p50_s),
        "tokens_per_s": _rounded(lately.tokens_per_s),
        "tokens_per_s_p95": _rounded(lately.tokens_per_s_p95),
        "calls_under_way": one.busy_count,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _pattern(models: str) -> str:
    return models if "/" in models else f"{models}/*"


def _name(models: str) -> str:
    """One that a resource may have, and that no other pattern gets."""
    digest = blake2b(models.encode("utf-8", "replace"), digest_size=4).hexdigest()
    plain = _NO_NAME.sub("-", models.lower()).strip("-")[:DRAIN_NAME_CHARS_MAX].strip("-")
    return f"{plain}-{digest}" if plain else digest


def _shown(drain: Drain) -> DrainShown:
    return DrainShown(drain.name, drain.models, drain.reason)


def operations(
    gateway: Gateway, resources: Resources, wires: Mapping[str, Wire], refresh: Refresh
) -> list[Operation]:
    """`refresh` brings what other processes measured."""
    api = RouteApi(gateway, resources, wires, refresh)
    return [
        Operation(method="POST", path="/v1/routes/{name}/explain", id="explainRoute", tag="routes", raw_body=True,
                  summary="Which models the route would ask for this request, in order, and why; asks none.",
                  handler=api.explain, query=ExplainQuery, answer=ExplainedShown),
        Operation(method="GET", path="/v1/drains", id="listDrains", tag="routes", handler=api.drains, answer=DrainList,
                  summary="Models that take no new calls."),
        Operation(method="POST", path="/v1/drains", id="drain", tag="routes", body=DrainBody, handler=api.drain,
                  summary="Let models take no new calls, in every process.", answer=DrainShown),
        Operation(method="DELETE", path="/v1/drains/{drain:path}", id="undrain", tag="routes", handler=api.undrain,
                  summary="Let them take calls again. By the drain's name, or its models.", answer=DrainShown),
    ]  # fmt: skip
