"""Plan and apply: a template against what is kept. Everything is checked before anything is written.

Actions: `template:Plan` to look, `<kind>:Put` on `<kind>/<name>` for each resource that changes.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from freehold.core.errors import BadRequest, FreeholdError, NotFound
from freehold.core.policy import Principal, authorize
from freehold.core.ports import Resources, Versioned
from freehold.core.resources import SECRET, Agent, Kind, Provider, Resource, Rules, Tool, kind_of
from freehold.core.validation import convert, near
from freehold.resources.plan import Plan, plan
from freehold.resources.template import Declared, read_template

PROBLEMS_SHOWN_MAX: Final = 20

CheckModel = Callable[[str, str, Sequence[Resource]], Awaitable[None]]
"""(tenant, model, resources declared beside it): raises FreeholdError where no such model can be called."""


class Applied(Struct, frozen=True):
    plan: Plan
    resources: tuple[Versioned, ...]


class Templates:
    """`tool_configs`: tool kind -> the shape of its `config`. `provider_types`: adapters that exist."""

    def __init__(
        self,
        resources: Resources,
        *,
        tool_configs: Mapping[str, type[Struct]],
        provider_types: Sequence[str],
        check_model: CheckModel,
    ) -> None:
        self._resources = resources
        self._tool_configs = tool_configs
        self._provider_types = provider_types
        self._check_model = check_model

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
        authorize(principal, "template:Plan", "template/*")
        declared, current = await self._read(principal.tenant, text, source, variables)
        warnings = await self._check(principal.tenant, declared, current, source, unknown_models_allowed)
        return plan([one.resource for one in declared], current, warnings)

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
        made = await self.plan(
            principal, text, source=source, variables=variables, unknown_models_allowed=unknown_models_allowed
        )
        declared = {
            (kind_of(one.resource), one.resource.name): one.resource
            for one in read_template(text, variables=variables)
        }
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

    async def _read(
        self, tenant: str, text: str, source: str, variables: Mapping[str, str] | None
    ) -> tuple[list[Declared], dict[tuple[Kind, str], Versioned]]:
        declared = read_template(text, source=source, variables=variables)
        kept = await self._resources.list(tenant)
        return declared, {(kind_of(one.resource), one.resource.name): one for one in kept}

    async def _check(
        self,
        tenant: str,
        declared: Sequence[Declared],
        current: Mapping[tuple[Kind, str], Versioned],
        source: str,
        unknown_models_allowed: bool,  # noqa: FBT001
    ) -> list[str]:
        beside = [one.resource for one in declared]
        names = {(kind_of(one), one.name) for one in beside} | {
            key for key, one in current.items() if not one.archived
        }
        problems: list[str] = []
        warnings: list[str] = []
        for one in declared:
            label = f"{source}:{one.line}: {kind_of(one.resource)} {one.resource.name}"
            problems += [f"{label}: {problem}" for problem in self._wrong(one.resource, names)]
            if isinstance(one.resource, Agent):
                problem = await self._model_problem(tenant, one.resource, beside)
                if problem and unknown_models_allowed:
                    warnings.append(f"{label}: {problem}")
                elif problem:
                    problems.append(f"{label}: {problem} (--allow-unknown-models applies it all the same)")
        if problems:
            shown = problems[:PROBLEMS_SHOWN_MAX]
            more = [f"... and {len(problems) - len(shown)} more"] if len(problems) > len(shown) else []
            raise BadRequest("\n".join([*shown, *more]))
        return warnings

    async def _model_problem(self, tenant: str, agent: Agent, beside: Sequence[Resource]) -> str | None:
        try:
            await self._check_model(tenant, agent.model, beside)
        except (NotFound, BadRequest) as error:
            return f"model: {error.message}"
        return None

    def _wrong(self, resource: Resource, names: set[tuple[Kind, str]]) -> list[str]:
        match resource:
            case Agent():
                return _agent_problems(resource, names)
            case Tool():
                return self._tool_problems(resource)
            case Provider():
                return self._provider_problems(resource)
            case Rules():
                return []

    def _tool_problems(self, tool: Tool) -> list[str]:
        shape = self._tool_configs.get(tool.type)
        if shape is None:
            known = ", ".join(sorted(self._tool_configs))
            return [f"type: expected one of {known}; got {tool.type!r}{near(tool.type, self._tool_configs)}"]
        problems = (
            [] if tool.timeout_s > 0 else [f"timeout_s: expected more than 0 seconds, got {tool.timeout_s}"]
        )
        try:
            convert(tool.config, shape, root="config")
        except FreeholdError as error:
            problems.append(str(error))
        return problems

    def _provider_problems(self, provider: Provider) -> list[str]:
        problems = []
        if provider.type not in self._provider_types:
            known = ", ".join(sorted(self._provider_types))
            problems.append(
                f"type: expected one of {known}; got {provider.type!r}{near(provider.type, self._provider_types)}"
            )
        if provider.api_key is not None and not SECRET.fullmatch(provider.api_key):
            problems.append("api_key: expected a reference (env:NAME or file:PATH), never the key itself")
        return problems


def _agent_problems(agent: Agent, names: set[tuple[Kind, str]]) -> list[str]:
    tools = sorted(name for kind, name in names if kind == "tool")
    problems = [
        f"tools[{index}]: there is no tool {name!r}{near(name, tools)}; known: {', '.join(tools) or 'none'}"
        for index, name in enumerate(agent.tools)
        if ("tool", name) not in names
    ]
    if agent.rules is not None and ("rules", agent.rules) not in names:
        rules = sorted(name for kind, name in names if kind == "rules")
        problems.append(
            f"rules: there are no rules {agent.rules!r}{near(agent.rules, rules)}; known: {', '.join(rules) or 'none'}"
        )
    limits = agent.limits
    for field, value in (
        ("steps_max", limits.steps_max),
        ("tokens_max", limits.tokens_max),
        ("wall_time_s_max", limits.wall_time_s_max),
    ):
        if value <= 0:
            problems.append(f"limits.{field}: expected more than 0, got {value}")
    return problems
