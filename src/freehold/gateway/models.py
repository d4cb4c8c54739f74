"""Gateway: which model a name stands for. The answer to a name that was seen before is one dict look-up.

`provider/name` goes to a declared provider, else to a row of the catalog that is usable (its key is set, or it is a local
server that was found). A bare name goes to the first provider that is known to have it. `rules/name` are declared rules, no
language model; `auto` is the best that is there. With `upstreams`, names without a provider go to the address of the client's
wire. The name of a route stands for its models (routing_table.py). Not here: the list for people (listing.py).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from difflib import get_close_matches
from itertools import chain, islice
from typing import Final, TypeAlias

from msgspec import Struct, structs

from freehold.catalog.catalog import ProviderRow
from freehold.catalog.models import FactBook
from freehold.catalog.models import facts as known_models
from freehold.catalog.prices import PriceBook
from freehold.core.contracts import Capacity
from freehold.core.contracts import PriceBook as DeclaredPrices
from freehold.core.errors import BadRequest, FreeholdError, NotFound, Unavailable, Unsupported
from freehold.core.figures import Subject
from freehold.core.ports import Provider, Resources
from freehold.core.resources import SECRET, Rules
from freehold.core.resources import Provider as DeclaredProvider
from freehold.core.routes import CallTimeouts, Drain, Route
from freehold.gateway.capabilities import Suspicion
from freehold.gateway.figures import Shared
from freehold.gateway.qualities import Scores
from freehold.gateway.residency import NOWHERE, Place
from freehold.gateway.routing_table import Routes, merged
from freehold.gateway.slo import Objectives
from freehold.gateway.surroundings import addressed, credential
from freehold.gateway.targets import OpenProvider, OpenWays, Target, Upstream
from freehold.gateway.terms import Terms

AUTO: Final = "auto"
RULES: Final = "rules"
MODEL_CHARS_MAX: Final = 256
RESOLVED_MAX: Final = 10_000
"""Names remembered per tenant. When full, the memory starts anew: names come from callers."""

SUGGESTED_MAX: Final = 3
SUGGEST_AMONG_MAX: Final = 1500
DISCOVERY_S: Final = 1.0
_COMPATIBLE: Final = (
    "openai_embeddings", "google_embed", "bedrock_titan_embed", "bedrock_nova_embed", "bedrock_cohere_embed",
)  # fmt: skip
"""Of a vendor's further wires, those that servers at other addresses speak who follow it: hardly any has OpenAI's Responses."""

LookUpRules: TypeAlias = Callable[[str], Awaitable[Rules]]

log = logging.getLogger(__name__)


class ProviderState(Struct, frozen=True):
    """For people: can this provider be asked, and if not, what is missing."""

    name: str
    type: str
    usable: bool
    why: str
    declared: bool
    local: bool
    models: tuple[str, ...] = ()


class _Tenant:
    """What one tenant's declarations amount to, at one generation of the resources."""

    __slots__ = ("declared", "generation", "patient", "resolved", "routes", "rules", "rules_provider", "terms",
                 "unusable")  # fmt: skip

    def __init__(self, generation: int, rules_provider: Provider) -> None:
        self.generation = generation
        self.rules_provider = rules_provider
        self.declared: dict[str, tuple[DeclaredProvider, Upstream]] = {}
        self.unusable: dict[str, tuple[DeclaredProvider, str]] = {}
        self.rules: dict[str, Rules] = {}
        self.terms = Terms()
        self.routes = Routes()
        self.patient: dict[tuple[str, CallTimeouts], Upstream] = {}
        self.resolved: dict[tuple[str, str, str | None], Target] = {}


class ModelTable:
    """`resolve_secret` takes `env:NAME` or `file:PATH`. `upstreams` maps a client's wire to an address (see above).

    `rules` makes the provider of declared rules, once a tenant, from a look-up of them by name. `facts` are those that come with
    Freehold where none are given. `home` is where this installation is: declared rules answer there.
    """

    def __init__(
        self,
        *,
        rows: Mapping[str, ProviderRow],
        adapters: Mapping[str, OpenProvider],
        resources: Resources,
        resolve_secret: Callable[[str], str],
        prices: PriceBook,
        rules: Callable[[LookUpRules], Provider],
        upstreams: Mapping[str, str] | None = None,
        facts: FactBook | None = None,
        home: Place = NOWHERE,
    ) -> None:
        self._rows = rows
        self.home = home
        self.facts = known_models() if facts is None else facts
        self._adapters = adapters
        self._resources = resources
        self._resolve_secret = resolve_secret
        self.prices = prices
        self._open_rules = rules
        self._tenants: dict[str, _Tenant] = {}
        self._loading = asyncio.Lock()
        self._discovered_count = 0
        self._usable: dict[str, Upstream] = {}
        self._unusable: dict[str, str] = {}
        self._by_wire: dict[str, Upstream] = {}
        self._open_rows()
        for wire, address in (upstreams or {}).items():
            self._open_upstream(wire, address)

    # Asking.

    def as_of(self) -> int:
        """Another number once `known` may say something else."""
        return self._resources.generation() + self._discovered_count

    def known(self, tenant: str, model: str, wire: str, rules: str | None) -> Target | None:
        """What `resolve` said of it last; None where that must be asked (anew)."""
        known = self._tenants.get(tenant)
        if known is None or known.generation != self._resources.generation():
            return None
        return known.resolved.get((wire, model, rules))

    async def resolve(
        self, tenant: str, model: str, *, wire: str = "session", rules: str | None = None
    ) -> Target:
        """Waits for the database only after a declaration has changed.

        `rules` are what `auto` falls back to. Raises NotFound, saying what is near and what is missing.
        """
        known = await self._tenant(tenant)
        target = known.resolved.get((wire, model, rules))
        if target is None:
            target = self._resolve(known, model, wire, rules)
            if target is None:
                # A thread: looking for near names among some thousand takes tens of milliseconds.
                raise await asyncio.to_thread(self._unknown, known, model)
            if target.route is None and (
                why := known.routes.drained(f"{target.provider.name}/{target.name}")
            ):
                said = f"{target.provider.name}/{target.name} takes no new calls: {why}"
                raise Unavailable(said, field="model")
            if len(known.resolved) >= RESOLVED_MAX:
                known.resolved.clear()
            known.resolved[wire, model, rules] = target
        return target

    async def usable(self, tenant: str) -> Sequence[Upstream]:
        """In order of preference: declared ones, then the catalog's, then local servers."""
        return list(self._upstreams(await self._tenant(tenant)).values())

    def usable_now(self, tenant: str) -> Sequence[Upstream]:
        """The same as far as it was known when this tenant's models were last asked for."""
        known = self._tenants.get(tenant)
        return list((self._usable if known is None else self._upstreams(known)).values())

    def takes_bare_names(self, wire: str) -> str | None:
        """The provider that a client of `wire` reaches with names without a provider; None where there is no such one."""
        upstream = self._by_wire.get(wire)
        return None if upstream is None else upstream.row.name

    async def declared_routes(self, tenant: str) -> Sequence[str]:
        return (await self._tenant(tenant)).routes.names

    async def objectives(self, tenant: str) -> Mapping[str, Objectives]:
        """Of the routes that have some, by name."""
        return (await self._tenant(tenant)).routes.objectives

    async def load(self, tenant: str) -> None:
        """So that `shared` has what is of this tenant. Raises Unavailable where that was never known."""
        await self._tenant(tenant)

    def shared(self) -> Iterator[tuple[Subject, Shared]]:
        """What processes tell each other of, of tenants that were asked for here."""
        for tenant, known in list(self._tenants.items()):
            for name, one in chain(known.routes.shared(), known.terms.shared()):
                yield (tenant, name), one

    def scored(self) -> Iterator[tuple[str, Scores]]:
        """With its tenant, each route that goes by scores."""
        for tenant, known in list(self._tenants.items()):
            yield from ((tenant, one) for one in known.routes.scores.values())

    def judge(self, tenant: str, now_s: float, at: datetime) -> None:
        """Holds the figures of its routes against their objectives, though nobody calls."""
        known = self._tenants.get(tenant)
        for one in known.routes.objectives.values() if known else ():
            one.judged_all(now_s, at)

    async def declared_rules(self, tenant: str) -> Sequence[str]:
        return sorted((await self._tenant(tenant)).rules)

    async def states(self, tenant: str) -> Sequence[ProviderState]:
        """Every provider that is declared or in the catalog, the usable ones first."""
        known = await self._tenant(tenant)
        states = [
            ProviderState(
                name, one.row.type, usable=True, why=_found_how(one), declared=one.declared, local=one.row.local,
                models=one.offered,
            )
            for name, one in self._upstreams(known).items()
        ]  # fmt: skip
        for name, (declared, why) in known.unusable.items():
            states.append(
                ProviderState(name, declared.type, usable=False, why=why, declared=True, local=False)
            )
        for name, why in self._unusable.items():
            if name not in known.declared and name not in known.unusable:
                row = self._rows[name]
                states.append(
                    ProviderState(name, row.type, usable=False, why=why, declared=False, local=row.local)
                )
        return states

    async def explain(
        self, tenant: str, model: str, *, wire: str = "session", rules: str | None = None
    ) -> str:
        """One or two sentences for a person: who would answer, or why nobody."""
        try:
            target = await self.resolve(tenant, model, wire=wire, rules=rules)
        except NotFound as error:
            return error.message
        if target.route is not None:
            among = ", ".join(one.model for one in target.route.reachable)
            return f"{model} is a route ({target.route.route.strategy}) among {among}"
        kind = "" if target.provider.is_language_model else " (declared rules: no language model is asked)"
        return f"{model} is answered by {target.provider.name}, as its model {target.name}{kind}"

    # Finding local servers.

    async def discover(self) -> None:
        """Asks the ports of local rows, all at once, for at most DISCOVERY_S; raises nothing. Again at any time."""
        local = [row for row in self._rows.values() if row.local]
        async with asyncio.TaskGroup() as group:
            for row in local:
                group.create_task(self._probe(row))
        self._discovered_count += 1
        for tenant in self._tenants.values():
            tenant.resolved.clear()

    async def _probe(self, row: ProviderRow) -> None:
        provider = self._adapters[row.type](row, None, {})
        try:
            async with asyncio.timeout(DISCOVERY_S):
                offered = tuple(info.name for info in await provider.models())
        except (FreeholdError, TimeoutError):
            offered = ()
        if offered:
            self._unusable.pop(row.name, None)
            ways = self._ways(None, {})
            self._usable[row.name] = Upstream(
                row, provider, offered=offered, others=ways(row)[1], open_ways=ways
            )
        else:
            self._usable.pop(row.name, None)
            self._unusable[row.name] = f"no server with models answers at {row.base_url}"

    # Opening providers.

    def _open_rows(self) -> None:
        for row in self._rows.values():
            if row.local:
                self._unusable[row.name] = f"not looked for at {row.base_url}"
                continue
            key = credential(row, self._resolve_secret)
            if key is None and row.api_key:
                self._unusable[row.name] = f"{' or '.join(row.api_key)} is not set"
                continue
            try:
                row = addressed(row, self._resolve_secret)
                provider, others = (ways := self._ways(key, {}))(row)
                self._usable[row.name] = Upstream(row, provider, others=others, open_ways=ways)
            except BadRequest as error:  # Of the environment: it spoils this one only.
                self._unusable[row.name] = str(error)

    def _open_upstream(self, wire: str, address: str) -> None:
        """The first row that speaks the wire lends its name; its key goes along where there is one."""
        for row in self._rows.values():
            if row.own_address:
                continue  # Nothing of it holds elsewhere.
            moved, key = structs.replace(row, base_url=address), credential(row, self._resolve_secret)
            provider, others = (ways := self._ways(key, {}))(moved)
            if provider.wire == wire and not row.local:
                self._unusable.pop(row.name, None)
                opened = Upstream(moved, provider, others=others, open_ways=ways)
                self._by_wire |= dict.fromkeys((wire, *opened.others), opened)
                self._usable = {row.name: opened, **self._usable, row.name: opened}
                return
        known = sorted({row.type for row in self._rows.values()})
        raise BadRequest(
            f"no provider speaks the wire {wire!r}; adapters: {', '.join(known)}", field="models.upstreams"
        )

    def _ways(self, key: str | None, headers: Mapping[str, str]) -> OpenWays:
        def opened(row: ProviderRow) -> tuple[Provider, Mapping[str, Provider]]:
            return self._adapters[row.type](row, key, headers), self._others(row, key, headers)

        return opened

    def _others(self, row: ProviderRow, key: str | None, headers: Mapping[str, str]) -> dict[str, Provider]:
        """What it speaks besides. An address that does not, though its vendor does elsewhere (an older one of Azure's), has none."""
        adapter = self._adapters[row.type]
        others: dict[str, Provider] = {}
        for wire in row.wires:
            with suppress(Unsupported):
                others[wire] = adapter(structs.replace(row, wire=wire), key, headers)
        return others

    def _open_declared(self, declared: DeclaredProvider) -> Upstream:
        """`type` is an adapter, or a row of the catalog, whose address and ways it then has."""
        base = self._rows.get(declared.type)
        if base is None and declared.type not in self._adapters:
            known = ", ".join(sorted({*self._rows, *self._adapters}))
            raise BadRequest(f"unknown type {declared.type!r}; known: {known}", field="type")
        base_url = declared.base_url or (base.base_url if base else None)
        if base_url is None:
            raise BadRequest(
                f"type {declared.type!r} has no address of its own: give base_url", field="base_url"
            )
        row = structs.replace(
            base or ProviderRow(name="", type=declared.type, base_url=""),
            name=declared.name,
            base_url=base_url,
        )
        only_speaks = (
            declared.base_url is not None and declared.type in self._adapters and not row.own_address
        )
        if only_speaks:
            row = structs.replace(row, wires=tuple(wire for wire in row.wires if wire in _COMPATIBLE))
        if declared.base_url is None:
            row = addressed(row, self._resolve_secret)
        key = (
            self._resolve_secret(declared.api_key)
            if declared.api_key
            else credential(row, self._resolve_secret)
        )
        if key is None and row.api_key and declared.base_url is None:
            raise NotFound(f"api_key is not declared, and {' or '.join(row.api_key)} is not set")
        headers = {
            name: self._resolve_secret(value) if SECRET.fullmatch(value) else value
            for name, value in declared.headers.items()
        }
        row = structs.replace(_asked_by(row, declared.wire), timeouts=declared.timeouts)
        provider, others = (ways := self._ways(key, headers))(row)
        if declared.wire is not None and provider.wire != declared.wire:
            raise BadRequest(f"type {declared.type!r} speaks {provider.wire} alone", field="wire")
        has_listed = declared.base_url is None and not declared.models
        return Upstream(
            row, provider, declared=True, offered=declared.models, has_listed=has_listed,
            only_speaks=only_speaks, others=others, open_ways=ways, regions=declared.regions,
            labels=declared.labels,
        )  # fmt: skip

    # Keeping up with what is declared.

    async def _tenant(self, tenant: str) -> _Tenant:
        known = self._tenants.get(tenant)
        if known is not None and known.generation == self._resources.generation():
            return known
        async with self._loading:
            known = self._tenants.get(tenant)
            generation = self._resources.generation()
            if known is not None and known.generation == generation:
                return known
            try:
                self._tenants[tenant] = known = await self._load(tenant, generation, known)
            except Unavailable:
                if known is None:
                    raise
                log.warning("models.not_reloaded", extra={"tenant": tenant})  # What was declared last holds.
            return known

    async def _load(self, tenant: str, generation: int, before: _Tenant | None) -> _Tenant:
        known = _Tenant(generation, before.rules_provider if before else self._rules_provider(tenant))
        for versioned in await self._resources.list(tenant, "provider"):
            declared = versioned.resource
            if versioned.archived or not isinstance(declared, DeclaredProvider):
                continue
            kept = before.declared.get(declared.name) if before else None
            if kept is not None and kept[0] == declared:
                known.declared[declared.name] = kept
                continue
            try:
                known.declared[declared.name] = (declared, self._open_declared(declared))
            except FreeholdError as error:
                known.unusable[declared.name] = (declared, str(error))
        for versioned in await self._resources.list(tenant, "rules"):
            if isinstance(versioned.resource, Rules) and not versioned.archived:
                known.rules[versioned.resource.name] = versioned.resource
        books = [one.resource for one in await self._resources.list(tenant, "price_book")]
        capacities = [one.resource for one in await self._resources.list(tenant, "capacity")]
        known.terms = Terms(
            [one for one in books if isinstance(one, DeclaredPrices)],
            [one for one in capacities if isinstance(one, Capacity)],
            before.terms if before else None,
        )
        routes = [one.resource for one in await self._resources.list(tenant, "route")]
        drains = [one.resource for one in await self._resources.list(tenant, "drain")]
        known.routes = Routes(
            [one for one in routes if isinstance(one, Route)],
            [one for one in drains if isinstance(one, Drain)],
            before.routes if before else None,
        )
        return known

    def _rules_provider(self, tenant: str) -> Provider:
        async def look_up(name: str) -> Rules:
            known = await self._tenant(tenant)
            self._rules_target(known, name)
            return known.rules[name]

        return self._open_rules(look_up)

    # Deciding.

    def _upstreams(self, known: _Tenant) -> dict[str, Upstream]:
        declared = {name: one for name, (_, one) in known.declared.items()}
        hidden = declared.keys() | known.unusable.keys()
        return {**declared, **{name: one for name, one in self._usable.items() if name not in hidden}}

    def _resolve(self, known: _Tenant, model: str, wire: str, rules: str | None) -> Target | None:
        """None where no provider is known to have it."""
        if not model or len(model) > MODEL_CHARS_MAX:
            raise BadRequest(
                f"expected the name of a model, up to {MODEL_CHARS_MAX} characters", field="model"
            )
        if (route := known.routes.named(model)) is not None:
            return known.routes.target(
                route, lambda name, timeouts: self._member(known, name, wire, timeouts)
            )
        if model == AUTO:
            return self._auto(known, wire, rules)
        prefix, slash, name = model.partition("/")
        upstreams = self._upstreams(known)
        if slash and name:
            if prefix == RULES:
                return self._rules_target(known, name)
            if prefix in upstreams:
                return self._target(known, upstreams[prefix], name, wire)
            if why := self._why_not(known, prefix):
                raise NotFound(f"provider {prefix} cannot be asked: {why}", field="model")
        if wire in self._by_wire:
            return self._target(known, self._by_wire[wire], model, wire)
        for upstream in upstreams.values():
            if self._has(upstream, model):
                return self._target(known, upstream, model, wire)
        if self._by_wire:
            return self._target(known, next(iter(self._by_wire.values())), model, wire)
        return None

    def _auto(self, known: _Tenant, wire: str, rules: str | None) -> Target:
        upstreams = self._upstreams(known)
        for upstream in upstreams.values():
            chat = (name for name in upstream.offered if not self.facts.embeds(name))
            if name := next(chat, upstream.row.default_model):
                return self._target(known, upstream, name, wire)
        if rules is not None:
            return self._rules_target(known, rules)
        raise NotFound(
            "no model is there for `auto`: set a provider's key (OPENAI_API_KEY, ANTHROPIC_API_KEY ...), start a local server"
            " (Ollama, vLLM, llama.cpp, LM Studio), or give the agent `rules`",
            field="model",
        )

    def _rules_target(self, known: _Tenant, name: str) -> Target:
        if name not in known.rules:
            near = _near(name, known.rules)
            raise NotFound(f"no rules are declared as {name!r}{_asked(near, 'rules/')}", field="model")
        health = known.routes.health.get(f"{RULES}/{name}")
        return Target(
            known.rules_provider, name, f"model/{RULES}/{name}", None,
            free=True, health=health, regions=self.home.regions, labels=self.home.labels,
        )  # fmt: skip

    def _member(self, known: _Tenant, model: str, wire: str, timeouts: CallTimeouts | None) -> Target | None:
        """A model of a route: `provider/name`, asked with the route's own timeouts where it has some."""
        prefix, _, name = model.partition("/")
        if prefix == RULES:
            return self._rules_target(known, name)
        upstream = self._upstreams(known).get(prefix)
        if upstream is None:
            if why := self._why_not(known, prefix):
                raise NotFound(f"provider {prefix} cannot be asked: {why}", field="model")
            return None
        if timeouts is not None and upstream.open_ways is not None:
            upstream = self._patient(known, upstream, timeouts)
        return self._target(known, upstream, name, wire)

    def _patient(self, known: _Tenant, upstream: Upstream, timeouts: CallTimeouts) -> Upstream:
        """The same connections, other timeouts."""
        found = known.patient.get((upstream.row.name, timeouts))
        if found is None and upstream.open_ways is not None:
            row = structs.replace(upstream.row, timeouts=merged(timeouts, upstream.row.timeouts))
            provider, others = upstream.open_ways(row)
            found = structs.replace(upstream, row=row, provider=provider, others=others)
            known.patient[upstream.row.name, timeouts] = found
        return found or upstream

    def _target(self, known: _Tenant, upstream: Upstream, name: str, wire: str) -> Target:
        row = upstream.row
        listed = self.prices.find(row.prices, name) if row.prices else None
        facts = self.facts.find(upstream.known_by, name) if upstream.known_by else None
        provider = upstream.speaking(wire, name)
        return Target(
            provider, name, f"model/{row.name}/{name}", listed, free=row.local,
            facts=facts, suspicion=None if facts is None else Suspicion(facts, provider.wire),
            embeds=upstream.embeds, terms=known.terms.of(f"{row.name}/{name}"), regions=upstream.regions,
            labels=upstream.labels, health=known.routes.health.get(f"{row.name}/{name}"),
        )  # fmt: skip

    def _has(self, upstream: Upstream, model: str) -> bool:
        return model in upstream.offered or (upstream.has_listed and self._is_of(upstream.row, model))

    def _is_of(self, row: ProviderRow, model: str) -> bool:
        if model.startswith(row.own_names):
            return True
        return row.prices is not None and self.prices.find(row.prices, model) is not None

    def _why_not(self, known: _Tenant, name: str) -> str | None:
        if name in known.unusable:
            return known.unusable[name][1]
        return self._unusable.get(name)

    def _unknown(self, known: _Tenant, model: str) -> NotFound:
        upstreams = self._upstreams(known)
        if model in upstreams:
            example = upstreams[model].row.default_model or "NAME"
            return NotFound(
                f"{model} is a provider: say which of its models, {model}/{example}", field="model"
            )
        near = _near(model, islice(self._names(upstreams), SUGGEST_AMONG_MAX))
        if near:
            return NotFound(f"no model {model!r} is known{_asked(near)}", field="model")
        could = [
            f"{row.name} ({why})"
            for row in self._rows.values()
            if (why := self._why_not(known, row.name)) and self._is_of(row, model)
        ]
        if could:
            return NotFound(
                f"no usable provider has the model {model!r}; it would be at {could[0]}", field="model"
            )
        usable = ", ".join(upstreams) or "none: no provider's key is set and no local server was found"
        return NotFound(
            f"no model {model!r} is known; say provider/name, usable providers: {usable}", field="model"
        )

    def _names(self, upstreams: Mapping[str, Upstream]) -> Iterator[str]:
        for name, upstream in upstreams.items():
            offered = list(upstream.offered)
            if upstream.row.prices and upstream.has_listed:
                offered += [listed.id for listed in self.prices.models(upstream.row.prices)]
            for model in offered:
                yield model
                yield f"{name}/{model}"


def _near(name: str, among: "Iterator[str] | Mapping[str, Rules]") -> Sequence[str]:
    return get_close_matches(name, list(among), n=SUGGESTED_MAX, cutoff=0.7)


def _asked(near: Sequence[str], prefix: str = "") -> str:
    return f"; did you mean {' or '.join(prefix + name for name in near)}?" if near else ""


def _asked_by(row: ProviderRow, wire: str | None) -> ProviderRow:
    """The row for an address that is asked by one `wire` alone, where one is declared."""
    if wire is None:
        return row
    further = tuple(one for one in row.wires if one in _COMPATIBLE and one != wire)
    return structs.replace(row, wire=wire, wires=further, ways=())


def _found_how(upstream: Upstream) -> str:
    if upstream.declared:
        return f"declared, at {upstream.row.base_url}"
    if upstream.row.local:
        return f"found at {upstream.row.base_url} with {len(upstream.offered)} models"
    return f"{' or '.join(upstream.row.api_key)} is set"
