"""Plan and apply: a template against what is kept. Everything is checked before anything is written.

What is kept can be trusted to be whole: also what a tool's kind or the rules provider would only refuse when it is used.

Actions: `template:Plan` to look, `<kind>:Put` on `<kind>/<name>` for each resource that changes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from msgspec import Struct

from freehold.core import allowances, contracts, environments, retention, routes, webhooks
from freehold.core.allowances import Budget, Limit
from freehold.core.contracts import Capacity, PriceBook
from freehold.core.environments import Environment
from freehold.core.errors import BadRequest, NotFound
from freehold.core.policy import Principal, authorize
from freehold.core.ports import Clock, Resources, Versioned
from freehold.core.resources import (
    CONCURRENCY_MAX,
    SECRET,
    Agent,
    Approval,
    Escalation,
    Kind,
    Provider,
    Resource,
    Rules,
    Tool,
    kind_of,
)
from freehold.core.retention import Retention
from freehold.core.routes import Drain, Route
from freehold.core.schedules import Deployment
from freehold.core.validation import convert, near
from freehold.core.webhooks import Webhook
from freehold.gateway import residency
from freehold.resources.plan import Plan, plan
from freehold.resources.template import Declared, read_template, refuse
from freehold.runtime.decide import money_pico
from freehold.runtime.schedules_check import past_problem
from freehold.runtime.schedules_check import problems as deployment_problems
from freehold.runtime.waiting import people_max

CheckModel = Callable[[str, str, Sequence[Resource]], Awaitable[None]]
"""(tenant, model, resources declared beside it): raises FreeholdError where no such model can be called."""

CheckRules = Callable[[Rules], None]
"""Raises BadRequest with the path of what is wrong: a pattern, a template. Blocks: up to 50 ms for large ones."""

FindsLikeness = Callable[[], Awaitable[bool]]
"""Whether answers can be found by what a request means."""


async def _finds_none() -> bool:
    return False


Problem = tuple[str | None, str]
"""The path in the resource, and what is wrong there."""


class Applied(Struct, frozen=True):
    plan: Plan
    resources: tuple[Versioned, ...]


class Templates:
    """`tool_configs`: tool kind -> the shape of its `config`. `provider_types`: adapters that exist."""

    def __init__(
        self,
        resources: Resources,
        clock: Clock,
        *,
        tool_configs: Mapping[str, type[Struct]],
        provider_types: Sequence[str],
        check_model: CheckModel,
        check_rules: CheckRules,
        finds_likeness: FindsLikeness = _finds_none,
        private_webhooks: bool = False,
    ) -> None:
        self._resources = resources
        self._clock = clock
        self._tool_configs = tool_configs
        self._provider_types = provider_types
        self._check_model = check_model
        self._check_rules = check_rules
        self._finds_likeness = finds_likeness
        self._private_webhooks = private_webhooks

    async def plan(
        self,
        principal: Principal,
        text: str,
        *,
        source: str = "template",
        variables: Mapping[str, str] | None = None,
        unknown_models_allowed: bool = False,
    ) -> Plan:
        """Raises BadRequest listing every problem found, a line each: nothing is half checked."""
        made, _ = await self._look(principal, text, source, variables, unknown_models_allowed)
        return made

    async def apply(
        self,
        principal: Principal,
        text: str,
        *,
        source: str = "template",
        variables: Mapping[str, str] | None = None,
        unknown_models_allowed: bool = False,
    ) -> Applied:
        """All or nothing. Raises Conflict where somebody changed a resource between our look and our write."""
        made, declared = await self._look(principal, text, source, variables, unknown_models_allowed)
        changed = [change for change in made.changes if change.action != "unchanged"]
        for change in changed:
            authorize(principal, f"{change.kind}:Put", f"{change.kind}/{change.name}")
        written = await self._resources.put(
            principal.tenant,
            [declared[change.kind, change.name] for change in changed],
            by=principal.id,
            expected={(change.kind, change.name): change.version for change in changed},
        )
        return Applied(made, tuple(written))

    async def _look(
        self,
        principal: Principal,
        text: str,
        source: str,
        variables: Mapping[str, str] | None,
        unknown_models_allowed: bool,  # noqa: FBT001
    ) -> tuple[Plan, dict[tuple[Kind, str], Resource]]:
        authorize(principal, "template:Plan", "template/*")
        # Off the event loop: a large template takes some 100 ms to read.
        declared = await asyncio.to_thread(read_template, text, source=source, variables=variables)
        kept = await self._resources.list(principal.tenant)
        kept = [*kept, *await self._deployments(principal.tenant, declared)]
        current = {(kind_of(one.resource), one.resource.name): one for one in kept if not one.archived}
        check = _Check(source, declared, current)
        await self._check(principal.tenant, check, unknown_models_allowed=unknown_models_allowed)
        resources = {(kind_of(one.resource), one.resource.name): one.resource for one in declared}
        return plan(list(resources.values()), current, check.warnings), resources

    async def _deployments(self, tenant: str, declared: Sequence[Declared]) -> Sequence[Versioned]:
        """Those that are declared, one by one: of all that there are, these are few."""
        found = []
        for one in declared:
            if isinstance(one.resource, Deployment):
                with suppress(NotFound):
                    found.append(await self._resources.get(tenant, "deployment", one.resource.name))
        return found

    async def _check(self, tenant: str, check: "_Check", *, unknown_models_allowed: bool) -> None:
        problems = await asyncio.to_thread(lambda: list(self._problems(check)))
        for one in check.declared:
            if (problem := await self._likeness_problem(one.resource)) is not None:
                problems.append(check.told(one, "cache.semantic", problem))
            for path, model in _models_named(one.resource):
                unknown = await self._model_problem(tenant, model, check.beside)
                if unknown and unknown_models_allowed:
                    check.warnings.append(check.told(one, path, unknown))
                elif unknown:
                    hint = "(--allow-unknown-models applies it all the same)"
                    problems.append(check.told(one, path, f"{unknown} {hint}"))
            for path, provider in _providers_named(one.resource):
                if unknown := await self._model_problem(tenant, f"{provider}/*", check.beside):
                    check.warnings.append(check.told(one, path, f"holds for no model: {unknown}"))
        refuse(problems)

    def _problems(self, check: "_Check") -> Iterator[str]:
        for one in check.declared:
            for path, problem in self._wrong(one.resource, check.names):
                yield check.told(one, path, problem)
            if isinstance(one.resource, Route):
                for path, problem in routes.arm_problems(one.resource, check.routes):
                    yield check.told(one, path, problem)
            if isinstance(one.resource, Deployment):
                past = past_problem(one.resource, check.deployments.get(one.resource.name), self._clock.now())
                if past is not None:
                    yield check.told(one, *past)

    async def _likeness_problem(self, resource: Resource) -> str | None:
        cache = resource.cache if isinstance(resource, Route) else None
        if cache is None or cache.semantic is None or await self._finds_likeness():
            return None
        return (
            "the database has no vectors, by which similar requests are found: install pgvector in it, before Freehold's first start"
            " there, or leave semantic out (the same requests are answered from the cache all the same)"
        )

    async def _model_problem(self, tenant: str, model: str, beside: Sequence[Resource]) -> str | None:
        try:
            await self._check_model(tenant, model, beside)
        except (NotFound, BadRequest) as error:
            return error.message
        return None

    def _wrong(self, resource: Resource, names: frozenset[tuple[Kind, str]]) -> Iterator[Problem]:
        match resource:
            case Agent():
                yield from _agent_problems(resource, names)
            case Tool():
                yield from self._tool_problems(resource)
            case Provider():
                yield from self._provider_problems(resource)
            case Rules():
                try:
                    self._check_rules(resource)
                except BadRequest as error:
                    yield error.field, error.message
            case PriceBook() | Capacity():
                try:
                    contracts.check(resource)
                except BadRequest as error:
                    yield error.field, error.message
            case Limit() | Budget():
                try:
                    allowances.check(resource)
                except BadRequest as error:
                    yield error.field, error.message
            case Route() | Drain():
                try:
                    routes.check(resource)
                except BadRequest as error:
                    yield error.field, error.message
            case Retention():
                try:
                    retention.check(resource)
                except BadRequest as error:
                    yield error.field, error.message
            case Environment():
                try:
                    environments.check(resource)
                except BadRequest as error:
                    yield error.field, error.message

            case Webhook():
                try:
                    webhooks.check(resource, private_allowed=self._private_webhooks)
                except BadRequest as error:
                    yield error.field, error.message
            case Deployment():
                yield from deployment_problems(resource)
                yield from _unknown_problems(resource, names)

    def _tool_problems(self, tool: Tool) -> Iterator[Problem]:
        shape = self._tool_configs.get(tool.type)
        if shape is None:
            known = ", ".join(sorted(self._tool_configs))
            yield "type", f"expected one of {known}; got {tool.type!r}{near(tool.type, self._tool_configs)}"
            return
        if not tool.timeout_s > 0:
            yield "timeout_s", f"expected more than 0 seconds, got {tool.timeout_s}"
        if tool.approval is not None:
            yield from _approval_problems(tool.approval)
        if tool.concurrency_max is not None and not 1 <= tool.concurrency_max <= CONCURRENCY_MAX:
            yield "concurrency_max", f"expected 1 to {CONCURRENCY_MAX}, got {tool.concurrency_max}"
        try:
            convert(tool.config, shape, root="config")
        except BadRequest as error:
            yield error.field, error.message

    def _provider_problems(self, provider: Provider) -> Iterator[Problem]:
        types = self._provider_types
        if provider.type not in types:
            known = ", ".join(sorted(types))
            yield "type", f"expected one of {known}; got {provider.type!r}{near(provider.type, types)}"
        if provider.api_key is not None and not SECRET.fullmatch(provider.api_key):
            yield "api_key", "expected a reference (env:NAME or file:PATH), never the key itself"
        yield from routes.timeout_problems(provider.timeouts, "timeouts")


class _Check:
    """What was declared, and what it may name."""

    def __init__(
        self, source: str, declared: Sequence[Declared], current: Mapping[tuple[Kind, str], Versioned]
    ) -> None:
        self.declared = declared
        self.beside = [one.resource for one in declared]
        kept = [one.resource for one in current.values()]
        self.routes = {one.name: one for one in (*kept, *self.beside) if isinstance(one, Route)}
        self.deployments = {one.name: one for one in kept if isinstance(one, Deployment)}
        self.names = frozenset({(kind_of(one), one.name) for one in self.beside} | current.keys())
        self.warnings: list[str] = []
        self._source = source

    def told(self, one: Declared, path: str | None, problem: str) -> str:
        where = f"{self._source}:{one.line_of(path)}: {kind_of(one.resource)} {one.resource.name}"
        return f"{where}: {path}: {problem}" if path else f"{where}: {problem}"


def _models_named(resource: Resource) -> Sequence[tuple[str, str]]:
    """With the path at which each is named."""
    match resource:
        case Agent():
            return (("model", resource.model),)
        case Route():
            named = [(f"models[{place}]", one.model) for place, one in enumerate(resource.members())]
            if resource.cache is not None and resource.cache.semantic is not None:
                named.append(("cache.semantic.model", resource.cache.semantic.model))
            for place, one in enumerate(resource.experiment.shadows if resource.experiment else ()):
                named.append((f"experiment.shadows[{place}].model", one.model))
            return named
        case _:
            return ()


def _providers_named(resource: Resource) -> Sequence[tuple[str, str]]:
    """By patterns of models that say one provider, with the path of each."""
    match resource:
        case Limit() | Budget() | Capacity() | Drain():
            patterns = [("models", resource.models or "*")]
        case PriceBook():
            patterns = [(f"prices[{place}].models", one.models) for place, one in enumerate(resource.prices)]
        case _:
            return ()
    named = [(path, models.partition("/")[0]) for path, models in patterns]
    return [(path, provider) for path, provider in named if not {"*", "?"} & set(provider)]


def _unknown_problems(deployment: Deployment, names: frozenset[tuple[Kind, str]]) -> Iterator[Problem]:
    named = [("agent", deployment.agent)]
    if deployment.environment != environments.DEFAULT:
        named.append(("environment", deployment.environment))
    for kind, name in named:
        known = sorted(one for of_kind, one in names if of_kind == kind)
        if name not in known:
            listed = ", ".join(known) or "none"
            yield kind, f"there is no {kind} {name!r}{near(name, known)}; known: {listed}"


def _approval_problems(approval: Approval) -> Iterator[Problem]:
    """A rule that can never be met would let every call expire."""
    own = Escalation(approvers=approval.approvers, deadline_s=approval.deadline_s, quorum=approval.quorum)
    asked = [("approval", own)]
    asked += [(f"approval.escalations[{place}]", one) for place, one in enumerate(approval.escalations)]
    for path, one in asked:
        people = people_max(one.approvers)
        if one.quorum is not None and one.quorum < 1:
            yield f"{path}.quorum", f"expected 1 or more, got {one.quorum}"
        elif one.quorum is not None and people is not None and people < one.quorum:
            yield f"{path}.approvers", f"expected as many as the quorum ({one.quorum}) or more, got {people}"
        if not one.deadline_s > 0:
            yield f"{path}.deadline_s", f"expected more than 0 seconds, got {one.deadline_s}"
    if approval.functions == ():
        yield "approval.functions", "expected at least one, or leave it out: then people are asked about all"


def _agent_problems(agent: Agent, names: frozenset[tuple[Kind, str]]) -> Iterator[Problem]:
    tools = sorted(name for kind, name in names if kind == "tool")
    for index, name in enumerate(agent.tools):
        if ("tool", name) not in names:
            known = ", ".join(tools) or "none"
            yield f"tools[{index}]", f"there is no tool {name!r}{near(name, tools)}; known: {known}"
    if agent.rules is not None and ("rules", agent.rules) not in names:
        rules = sorted(name for kind, name in names if kind == "rules")
        known = ", ".join(rules) or "none"
        yield "rules", f"there are no rules {agent.rules!r}{near(agent.rules, rules)}; known: {known}"
    try:
        residency.check(agent.labels, field="labels")
    except BadRequest as error:
        yield error.field, error.message
    limits = agent.limits
    for field, value in (
        ("steps_max", limits.steps_max),
        ("tokens_max", limits.tokens_max),
        ("wall_time_s_max", limits.wall_time_s_max),
        ("tool_calls_parallel_max", limits.tool_calls_parallel_max),
        ("sessions_running_max", limits.sessions_running_max),
        ("repeats_max", limits.repeats_max),
        ("session_steps_max", limits.session_steps_max),
        ("session_tokens_max", limits.session_tokens_max),
        ("session_wall_time_s_max", limits.session_wall_time_s_max),
    ):
        if value is not None and not value > 0:
            yield f"limits.{field}", f"expected more than 0, got {value}"
    try:
        money_pico(limits.cost_max_usd, field="limits.cost_max_usd")
        money_pico(limits.session_cost_max_usd, field="limits.session_cost_max_usd")
    except BadRequest as error:
        yield error.field, error.message
    if agent.temperature is not None and not 0 <= agent.temperature <= 2:
        yield "temperature", f"expected 0 to 2, got {agent.temperature}"
    if agent.tokens_max is not None and not agent.tokens_max > 0:
        yield "tokens_max", f"expected more than 0, got {agent.tokens_max}"
