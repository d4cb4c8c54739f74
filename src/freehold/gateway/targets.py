"""Gateway: what a model's name stands for once it is resolved: whom to ask, under which name, and what it costs."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeAlias

from msgspec import Struct

from freehold.catalog.catalog import ProviderRow
from freehold.catalog.models import ModelFacts
from freehold.catalog.prices import ListedModel
from freehold.core.ports import Embeds, Provider
from freehold.core.pricing import FREE, ModelPrice
from freehold.core.records import FREE_OF_CHARGE, LIST, Choice
from freehold.core.routes import PREFIX, Route
from freehold.gateway.capabilities import Suspicion
from freehold.gateway.health import Health
from freehold.gateway.qualities import Scores
from freehold.gateway.routing import Rule, Traits
from freehold.gateway.routing_share import Share
from freehold.gateway.slo import Objectives
from freehold.gateway.terms import ModelTerms

OpenProvider: TypeAlias = Callable[[ProviderRow, str | None, Mapping[str, str]], Provider]
"""An adapter as the gateway sees it: row, credential, further headers. Opens nothing, so it need not be closed.

Raises BadRequest naming the field. app.py binds what adapters need besides (the pool of connections).
"""


OpenWays: TypeAlias = Callable[[ProviderRow], tuple[Provider, Mapping[str, Provider]]]
"""A provider and its further ways, opened for a row with the credential and headers that it has."""


class Upstream(Struct, frozen=True):
    """A provider that can be asked, with its row. `offered` are names that are known to be there, in order.

    `has_listed`: what its price list names is there too. An address of one's own is not known to have any of it.
    `only_speaks`: an address of one's own that speaks a vendor's wire: what it calls `gpt-4` may be anything, so nothing that is
    known of models holds there.
    `others` are the same provider by the wires that it speaks besides its own. `open_ways` opens it anew, with other timeouts.
    `regions` and `labels` are as declared.
    """

    row: ProviderRow
    provider: Provider
    declared: bool = False
    offered: tuple[str, ...] = ()
    has_listed: bool = True
    only_speaks: bool = False
    others: Mapping[str, Provider] = {}
    open_ways: OpenWays | None = None
    regions: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}

    def may_have(self, model: str) -> bool:
        """Though no price list names it: it is offered, or nobody said what is there."""
        return model in self.offered if self.offered else not self.has_listed

    @property
    def known_by(self) -> str | None:
        """The price list under which its models' facts are found; None where none hold."""
        return None if self.only_speaks else self.row.prices

    def speaking(self, wire: str, model: str) -> Provider:
        """In the client's `wire` if it can, and has the model there; else as the catalog says the model is asked, else as usual."""
        way = self.row.way_of(model)
        if way is None:
            return self.others.get(wire, self.provider)
        asked = self.others.get(way.wire, self.provider)
        if way.only:
            return asked
        return self.provider if wire == self.provider.wire else self.others.get(wire, asked)

    @property
    def embeds(self) -> Embeds | None:
        """The first of its ways that turns texts into vectors."""
        ways = (self.provider, *self.others.values())
        return next((way for way in ways if isinstance(way, Embeds)), None)


class Target(Struct, frozen=True):
    """`name` is the provider's own name of the model; `resource` is what a policy names.

    `facts` is what is known of what it can do, and `suspicion` what to look for because of them in bodies that pass.
    `terms` is what was agreed on its price.
    `embeds` is who makes embeddings there, where `provider` doesn't speak the wire of a client that wants some.
    `regions` are those to which what is sent there may go; none: not declared.
    `health` is kept of models that routes name. `route`: the name is a route's; the rest is then its first model's, but for `resource`.
    """

    provider: Provider
    name: str
    resource: str
    listed: ListedModel | None
    free: bool
    facts: ModelFacts | None = None
    suspicion: Suspicion | None = None
    embeds: Embeds | None = None
    terms: ModelTerms | None = None
    regions: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    health: Health | None = None
    route: "Routed | None" = None

    def price(self, at: datetime) -> ModelPrice | None:
        """What a call costs where no bought capacity serves it."""
        found = self.sourced_price(at)
        return None if found is None else found[0]

    def sourced_price(self, at: datetime) -> tuple[ModelPrice, str] | None:
        """With its source, as records have it (CallRecord.price_source)."""
        listed = None if self.listed is None else self.listed.price(at)
        if self.terms is not None and (agreed := self.terms.price(listed, at)) is not None:
            return agreed
        if self.free:
            return FREE, FREE_OF_CHARGE
        return None if listed is None else (listed, LIST)


class Member(Struct, frozen=True, kw_only=True):
    """One model of a route. `drained`: why it takes no new calls."""

    target: Target
    health: Health
    traits: Traits
    drained: str | None = None
    first_event_s: float | None = None

    @property
    def model(self) -> str:
        return self.traits.model


class Routed(Struct, frozen=True, kw_only=True):
    """A route, as one client's wire reaches its models. `missing` are those that cannot be asked at all here, and why.

    `unasked` is what the record says while nobody was asked. `shadows` are those of its experiment that can be asked here, each
    with the percentage of calls. `arms` are those of its experiment that are routes, by `route/NAME`.
    `scores` are of its models' answers, where it goes by them.
    """

    route: Route
    rule: Rule
    members: tuple[Member, ...]
    missing: tuple[tuple[str, str], ...]
    retries: Share
    hedges: Share
    unasked: Choice
    objectives: Objectives | None = None
    shadows: tuple[tuple[Target, float], ...] = ()
    arms: Mapping[str, "Routed"] = {}
    scores: Scores | None = None

    @property
    def resource(self) -> str:
        """What a policy names."""
        return f"model/{PREFIX}/{self.route.name}"

    @property
    def reachable(self) -> tuple[Member, ...]:
        """Whoever may answer."""
        return (*self.members, *(member for arm in self.arms.values() for member in arm.members))
