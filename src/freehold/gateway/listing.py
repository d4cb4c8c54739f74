"""Gateway: the models that a principal may call, for lists (`GET /v1/models`, `freehold get models`).

A provider's own list counts where it answers in time, its price list otherwise; both are cut to what the principal may
call. Not on the path of a call.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import structs

from freehold.catalog.prices import PriceBook
from freehold.core.errors import Forbidden, FreeholdError
from freehold.core.policy import Principal, authorize
from freehold.core.ports import Clock, ModelInfo
from freehold.gateway.models import RULES, ModelTable
from freehold.gateway.pipeline import ACTION
from freehold.gateway.targets import Upstream

LIST_S: Final = 5.0
MODELS_MAX: Final = 20_000

log = logging.getLogger(__name__)


async def visible(models: ModelTable, principal: Principal, *, clock: Clock) -> Sequence[ModelInfo]:
    """By provider and name. `ModelInfo.provider` and `.name` joined by `/` is what a caller writes as `model`."""
    upstreams = await models.usable(principal.tenant)
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(_offered(upstream, models.prices, clock)) for upstream in upstreams]
    found = [info for task in asking for info in task.result()]
    found += [ModelInfo(provider=RULES, name=name) for name in await models.declared_rules(principal.tenant)]
    allowed = {(info.provider, info.name): info for info in found if _may_call(principal, info)}
    return [allowed[key] for key in sorted(allowed)][:MODELS_MAX]


def _may_call(principal: Principal, info: ModelInfo) -> bool:
    try:
        authorize(principal, ACTION, f"model/{info.provider}/{info.name}")
    except Forbidden:
        return False
    return True


async def _offered(upstream: Upstream, prices: PriceBook, clock: Clock) -> Iterable[ModelInfo]:
    row = upstream.row
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
    # A thread: matching a router's hundreds of names for the first time takes a tenth of a second.
    return await asyncio.to_thread(lambda: [_known(info, row.prices, prices, clock) for info in infos])


def _known(info: ModelInfo, source: str | None, prices: PriceBook, clock: Clock) -> ModelInfo:
    """With what the price list knows of it."""
    model = prices.find(source, info.name) if source else None
    if model is None:
        return info
    return structs.replace(
        info,
        display_name=info.display_name or model.name,
        context_tokens=info.context_tokens or model.context_tokens,
        price=model.price(clock.now()),
    )
