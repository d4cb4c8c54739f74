"""How routes serve, against what they declare: `GET /v1/slos`. Action `slo:List`. Figures are of all processes."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from freehold.core.policy import allowed, authorize
from freehold.core.ports import Clock
from freehold.core.serving import Slo
from freehold.gateway.figures import Refresh
from freehold.gateway.models import ModelTable
from freehold.gateway.slo import Burning, Objectives, Served
from freehold.server.operations import Call, Operation


class ObjectiveShown(Struct, frozen=True):
    """`burn_rates` are by the window, as multiples of `share_max`: at 1, just what is allowed goes wrong. `ended` and `bad` are of the
    last six hours. `alert` is `fast` or `slow` while it burns.
    """

    objective: str
    share_max: float
    burn_rates: dict[str, float]
    ended: int
    bad: int
    alert: str | None


class ModelServed(Struct, frozen=True):
    """`demoted`: why it is asked after the others, where it is."""

    model: str
    objectives: tuple[ObjectiveShown, ...]
    demoted: str | None


class ActShown(Struct, frozen=True):
    """What the route did about a model."""

    at: datetime
    model: str
    what: str
    why: str


class RouteServed(Struct, frozen=True):
    route: str
    slo: Slo
    objectives: tuple[ObjectiveShown, ...]
    models: tuple[ModelServed, ...]
    acts: tuple[ActShown, ...]


class SloList(Struct, frozen=True):
    data: tuple[RouteServed, ...]


class SloApi:
    def __init__(self, models: ModelTable, clock: Clock, refresh: Refresh) -> None:
        self._models = models
        self._clock = clock
        self._refresh = refresh

    async def list(self, call: Call) -> SloList:
        authorize(call.principal, "slo:List", "slo/*")
        await self._refresh(call.principal.tenant)
        found: Mapping[str, Objectives] = await self._models.objectives(call.principal.tenant)
        now_s = self._clock.monotonic_s()
        return SloList(
            tuple(
                _shown(name, one, now_s)
                for name, one in sorted(found.items())
                if allowed(call.principal, "slo:List", f"slo/{name}")
            )
        )


def _shown(name: str, one: Objectives, now_s: float) -> RouteServed:
    models = tuple(
        ModelServed(model, _objectives(served, one.slo, now_s), one.demoted.get(model))
        for model, served in sorted(one.models.items())
    )
    acts = tuple(ActShown(act.at, act.model, act.what, act.why) for act in one.acts)
    return RouteServed(name, one.slo, _objectives(one.route, one.slo, now_s), models, acts)


def _objectives(served: Served, slo: Slo, now_s: float) -> tuple[ObjectiveShown, ...]:
    return tuple(_objective(one) for one in served.looks(slo, now_s))


def _objective(one: Burning) -> ObjectiveShown:
    rates = {_window(minutes): round(rate, 3) for minutes, rate in one.rates.items()}
    return ObjectiveShown(one.objective, one.share_max, rates, one.counted.ended, one.counted.bad, one.alert)


def _window(minutes: int) -> str:
    return f"{minutes}m" if minutes < 60 else f"{minutes // 60}h"


def operations(models: ModelTable, clock: Clock, refresh: Refresh) -> Sequence[Operation]:
    """`refresh` brings what other processes counted."""
    api = SloApi(models, clock, refresh)
    return [
        Operation(method="GET", path="/v1/slos", id="listSlos", tag="routes",
                  summary="How routes serve against their objectives, and what they did about it.", handler=api.list, answer=SloList),
    ]  # fmt: skip
