"""The models that can be called: in OpenAI's shape, in Anthropic's for who sends `anthropic-version`, or in Google's for who sends
`x-goog-api-key`; and the providers.
"""

from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Struct

from freehold.core.errors import NotFound
from freehold.core.policy import Principal, authorize
from freehold.core.ports import ModelInfo
from freehold.core.pricing import PICO
from freehold.gateway.models import ModelTable
from freehold.gateway.pipeline import ACTION
from freehold.server import google_models
from freehold.server.operations import Call, Operation

LISTED_AT: Final = "1970-01-01T00:00:00Z"
"""Nobody says when a model was made known to us; clients want a date."""

TOKENS_PRICED: Final = 1_000_000
_GOOGLES: Final = "x-goog-api-key"
_KNOWN: Final = (
    "display_name", "context_tokens", "output_tokens_max", "images", "documents", "audio", "tools", "reasoning",
    "json_schema", "embeds",
)  # fmt: skip

Visible = Callable[[Principal], Awaitable[Sequence[ModelInfo]]]
"""The models that a principal may call."""


class ProviderShown(Struct, frozen=True):
    name: str
    type: str
    usable: bool
    why: str
    declared: bool
    local: bool


class ProviderList(Struct, frozen=True):
    data: tuple[ProviderShown, ...]


class ModelQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """For Anthropic's SDK, whose everything comes in one page, and for Google's."""

    limit: int = 1000
    after_id: str | None = None
    before_id: str | None = None
    page_size: str | None = msgspec.field(default=None, name="pageSize")
    page_token: str | None = msgspec.field(default=None, name="pageToken")


class ResolveQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`rules` are those that `auto` falls back to: an agent's."""

    model: str
    rules: str | None = None


class ResolvedShown(Struct, frozen=True):
    """`model` is `provider/name`. `is_language_model` is false where declared rules would answer."""

    model: str
    is_language_model: bool


class ModelApi:
    def __init__(self, models: ModelTable, visible: Visible) -> None:
        self._models = models
        self._visible = visible

    async def get(self, call: Call) -> dict[str, Any]:
        wanted = call.path["model"]
        listed = await self._visible(call.principal)
        if _GOOGLES in call.headers:
            return google_models.found(listed, wanted)
        for one in listed:
            if wanted == _id(one):
                return _anthropic(one) if "anthropic-version" in call.headers else _openai(one)
        raise NotFound(f"no model {wanted!r} is listed here; GET /v1/models lists what is", field="model")

    async def resolve(self, call: Call) -> ResolvedShown:
        query: ResolveQuery = call.query
        target = await self._models.resolve(call.principal.tenant, query.model, rules=query.rules)
        authorize(call.principal, ACTION, target.resource)
        return ResolvedShown(f"{target.provider.name}/{target.name}", target.provider.is_language_model)

    async def providers(self, call: Call) -> ProviderList:
        authorize(call.principal, "provider:List", "provider/*")
        states = await self._models.states(call.principal.tenant)
        return ProviderList(
            tuple(
                ProviderShown(one.name, one.type, one.usable, one.why, one.declared, one.local)
                for one in states
            )
        )

    async def list(self, call: Call) -> dict[str, Any]:
        """Where an upstream takes every name of the client's wire, its models are listed without a provider too."""
        listed = await self._visible(call.principal)
        if _GOOGLES in call.headers:
            query: ModelQuery = call.query
            return google_models.listed(listed, google_models.page_of(query.page_size, query.page_token))
        if "anthropic-version" in call.headers:
            data = [
                *self._bare(listed, "anthropic_messages", _anthropic),
                *(_anthropic(one) for one in listed),
            ]
            ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
            return {"data": data, "has_more": False, **ends}
        return {
            "object": "list",
            "data": [*self._bare(listed, "openai_chat", _openai), *(_openai(one) for one in listed)],
        }

    def _bare(
        self, listed: Sequence[ModelInfo], wire: str, shown: Callable[[ModelInfo], dict[str, Any]]
    ) -> Any:
        provider = self._models.takes_bare_names(wire)
        return [shown(one) | {"id": one.name} for one in listed if one.provider == provider]


def _id(one: ModelInfo) -> str:
    return f"{one.provider}/{one.name}"


def _openai(one: ModelInfo) -> dict[str, Any]:
    return {
        "id": _id(one),
        "object": "model",
        "created": 0,
        "owned_by": one.provider,
        "freehold": _freehold(one),
    }


def _anthropic(one: ModelInfo) -> dict[str, Any]:
    """`max_input_tokens` and `max_tokens` are Anthropic's own names; the rest of what is known stands under ours."""
    return {
        "type": "model",
        "id": _id(one),
        "display_name": one.display_name or _id(one),
        "created_at": LISTED_AT,
        "lifecycle": "active",
        "max_input_tokens": one.context_tokens,
        "max_tokens": one.output_tokens_max,
        "freehold": _freehold(one),
    }


def _freehold(one: ModelInfo) -> dict[str, Any]:
    """What the catalog knows, of the standard price per million tokens too. What it doesn't know is left out."""
    known = {name: value for name in _KNOWN if (value := getattr(one, name)) not in {None, ""}}
    if one.price is not None:
        known["price"] = {
            "currency": one.price.currency,
            "input_per_million": _per_million(one.price.input.pico_per_token),
            "output_per_million": _per_million(one.price.output.pico_per_token),
        }
    return known


def _per_million(pico_per_token: int) -> str:
    """A decimal as text, exact: `2.5`."""
    return f"{Decimal(pico_per_token) * TOKENS_PRICED / PICO:f}"


def operations(models: ModelTable, visible: Visible) -> list[Operation]:
    api = ModelApi(models, visible)
    return [
        Operation(method="GET", path="/v1/models", id="listModels", tag="models", query=ModelQuery, handler=api.list,
                  summary="Models that can be called, in the shape of OpenAI, Anthropic (anthropic-version) or Google (x-goog-api-key)."),
        Operation(method="GET", path="/v1/models/{model:path}", id="getModel", tag="models", summary="One of them.",
                  handler=api.get),
        Operation(method="GET", path="/v1/resolved-model", id="resolveModel", tag="models", query=ResolveQuery,
                  summary="Which model a name stands for now, and whether a language model would be asked.",
                  handler=api.resolve, answer=ResolvedShown),
        Operation(method="GET", path="/v1/providers", id="listProviders", tag="models", answer=ProviderList,
                  summary="Providers: which can be used, and why the others can't.", handler=api.providers),
    ]  # fmt: skip
