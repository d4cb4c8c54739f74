"""Gateway: the models that a principal may call, for lists (`GET /v1/models`, `freehold get models`), and that an agent may name.

A provider's own list counts where it answers in time, its price list otherwise; both are cut to what the principal may
call. Not on the path of a call.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import structs

from freehold.core.errors import FreeholdError, NotFound
from freehold.core.policy import Principal, allowed
from freehold.core.ports import Clock, ModelInfo
from freehold.core.resources import Provider, Resource, Rules
from freehold.core.routes import PREFIX, Route
from freehold.core.validation import near
from freehold.gateway.models import AUTO, RULES, ModelTable
from freehold.gateway.pipeline import ACTION
from freehold.gateway.targets import Upstream

LIST_S: Final = 5.0
MODELS_MAX: Final = 20_000
ANY: Final = "*"

log = logging.getLogger(__name__)


async def visible(models: ModelTable, principal: Principal, *, clock: Clock) -> Sequence[ModelInfo]:
    """By provider and name. `ModelInfo.provider` and `.name` joined by `/` is what a caller writes as `model`."""
    upstreams = await models.usable(principal.tenant)
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(_offered(upstream, models, clock)) for upstream in upstreams]
    found = [info for task in asking for info in task.result()]
    found += [ModelInfo(provider=RULES, name=name) for name in await models.declared_rules(principal.tenant)]
    found += [
        ModelInfo(provider=PREFIX, name=name) for name in await models.declared_routes(principal.tenant)
    ]
    callable_ = {
        (info.provider, info.name): info
        for info in found
        if allowed(principal, ACTION, f"model/{info.provider}/{info.name}")
    }
    return [callable_[key] for key in sorted(callable_)][:MODELS_MAX]


async def _offered(upstream: Upstream, models: ModelTable, clock: Clock) -> Iterable[ModelInfo]:
    row, prices = upstream.row, models.prices
    listed = (
        {model.id: model for model in prices.models(row.prices)} if row.prices and upstream.has_listed else {}
    )
    named: Mapping[str, ModelInfo] = {
        name: ModelInfo(provider=row.name, name=name) for name in upstream.offered
    }
    try:
        async with asyncio.timeout(LIST_S):
            answered = {info.name: info for info in await upstream.provider.models()}
    except (FreeholdError, TimeoutError) as error:
        log.info(
            "models.not_listed", extra={"provider": row.name, "reason": str(error) or "no answer in time"}
        )
        answered = {}
    answered = answered or {name: ModelInfo(provider=row.name, name=name) for name in listed}
    infos = {**answered, **named}.values()
    if row.prices is None:
        return [_embedding(info, models) for info in infos]
    # A thread: matching a router's hundreds of names for the first time takes a tenth of a second.
    return await asyncio.to_thread(lambda: [_known(info, upstream, models, clock) for info in infos])


def _embedding(info: ModelInfo, models: ModelTable) -> ModelInfo:
    return structs.replace(info, embeds=models.facts.embeds(info.name)) if info.embeds is None else info


def _known(info: ModelInfo, upstream: Upstream, models: ModelTable, clock: Clock) -> ModelInfo:
    """With what the catalog knows of it. What its provider says itself goes first."""
    info = _embedding(info, models)
    priced = models.prices.find(upstream.row.prices or "", info.name)
    facts = models.facts.find(upstream.known_by, info.name) if upstream.known_by else None
    if priced is not None:
        info = structs.replace(
            info, display_name=info.display_name or priced.name, price=priced.price(clock.now())
        )
    context = info.context_tokens or (facts and facts.context_tokens) or (priced and priced.context_tokens)
    if facts is None:
        return structs.replace(info, context_tokens=context)
    abilities = dict.fromkeys(facts.has, True) | dict.fromkeys(facts.lacks, False)
    return structs.replace(
        info, context_tokens=context, output_tokens_max=facts.output_tokens_max, **abilities
    )


async def check_model(table: ModelTable, tenant: str, model: str, beside: Sequence[Resource]) -> None:
    """Whether an agent may name this model. What is declared in the same template counts; `auto` is always right. Of `provider/*` the
    provider is looked at alone.
    """
    if model == AUTO:
        return
    prefix, _, name = model.partition("/")
    if name == ANY:
        await check_provider(table, tenant, prefix, beside)
        return
    declared_rules = {one.name for one in beside if isinstance(one, Rules)}
    declared_providers = {one.name for one in beside if isinstance(one, Provider)}
    declared_routes = {one.name for one in beside if isinstance(one, Route)}
    if model.removeprefix(f"{PREFIX}/") in declared_routes:
        return
    if (prefix == RULES and name in declared_rules) or (name and prefix in declared_providers):
        return
    target = await table.resolve(tenant, model)
    if target.route is not None or target.free or not target.provider.is_language_model:
        return
    upstreams = [one for one in await table.usable(tenant) if one.row.name == target.provider.name]
    if target.listed is None and not any(one.may_have(target.name) for one in upstreams):
        raise NotFound(f"{target.provider.name} is not known to have a model {target.name!r}", field="model")


async def check_provider(table: ModelTable, tenant: str, name: str, beside: Sequence[Resource] = ()) -> None:
    """Whether it is declared or in the catalog, usable or not. Raises NotFound."""
    if name == PREFIX:
        raise NotFound(
            f"{PREFIX}/... is no model that answers: name those that the route chooses among", field="models"
        )
    known = {one.name for one in await table.states(tenant)} | {RULES}
    known |= {one.name for one in beside if isinstance(one, Provider)}
    if name not in known:
        raise NotFound(
            f"no provider is called {name[:80]!r}{near(name, known)}; freehold models --all lists them",
            field="models",
        )
