"""Agents, in Claude Managed Agents' shapes: /v1/agents. An agent's id is its name; what is ours stands under `freehold`."""

from datetime import datetime
from typing import Any

from msgspec import UNSET, Struct, UnsetType, field, structs

from freehold.core.errors import BadRequest, Conflict
from freehold.core.policy import Principal, authorize
from freehold.core.ports import Clock, Resources, Versioned
from freehold.core.resources import Agent, Limits, WhenBusy
from freehold.core.validation import check_limit
from freehold.runtime.inputs import check_metadata
from freehold.server.apis._agent_shapes import (
    Identity,
    Model,
    custom_tools_of,
    model_of,
    model_view,
    refuse_unserved,
    tools_view,
)
from freehold.server.apis._event_pages import Moment
from freehold.server.apis._named import (
    PAGE_MAX,
    also_archived,
    changeable,
    id_and_title,
    page_by_name,
    patched,
    renamed,
    with_given,
)
from freehold.server.operations import Call, Operation


class AgentExtra(Struct, frozen=True, forbid_unknown_fields=True):
    """Ours. `tools` names declared tools."""

    tools: tuple[str, ...] | UnsetType = UNSET
    rules: str | UnsetType | None = UNSET
    limits: Limits | UnsetType = UNSET
    temperature: float | UnsetType | None = UNSET
    tokens_max: int | UnsetType | None = UNSET
    reasoning_effort: str | UnsetType | None = UNSET
    when_busy: WhenBusy | UnsetType = UNSET


class AgentBody(Struct, frozen=True, forbid_unknown_fields=True):
    """To create and to change: what is left out stays (or takes its default). `version` refuses a lost race. `tools` are those that
    the agent's clients run; `metadata` is a patch, in which null takes a key out.
    """

    name: str | UnsetType = UNSET
    model: Model | UnsetType = UNSET
    system: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    metadata: dict[str, str | None] | UnsetType | None = UNSET
    tools: tuple[dict[str, Any], ...] | UnsetType | None = UNSET
    mcp_servers: tuple[Any, ...] | None = ()
    skills: tuple[Any, ...] | None = ()
    multiagent: dict[str, Any] | None = None
    execution_identity: Identity | None = None
    version: int | UnsetType = UNSET
    freehold: AgentExtra = AgentExtra()


class AgentShown(Struct, frozen=True, kw_only=True):
    id: str
    type: str = "agent"
    name: str
    version: int
    model: dict[str, Any]
    system: str | None
    description: str | None
    metadata: dict[str, str]
    tools: list[dict[str, Any]]
    mcp_servers: tuple[Any, ...] = ()
    skills: tuple[Any, ...] = ()
    multiagent: None = None
    execution_identity: dict[str, str] = field(default_factory=lambda: {"type": "service_account"})
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None = None
    freehold: dict[str, Any]


class AgentPage(Struct, frozen=True):
    data: tuple[AgentShown, ...]
    next_page: str | None = None


class ListAgents(Struct, frozen=True, forbid_unknown_fields=True):
    limit: int = PAGE_MAX
    page: str | None = None
    include_archived: bool = False
    created_at_gte: Moment | None = field(default=None, name="created_at[gte]")
    created_at_lte: Moment | None = field(default=None, name="created_at[lte]")


class ListVersions(Struct, frozen=True, forbid_unknown_fields=True):
    """`page` is the version behind which the page begins."""

    limit: int = PAGE_MAX
    page: int | None = None


class GetAgent(Struct, frozen=True, forbid_unknown_fields=True):
    version: int | None = None


def shown(one: Versioned) -> AgentShown:
    agent = one.resource
    if not isinstance(agent, Agent):
        raise TypeError(f"expected an agent, got {type(agent).__name__}")
    return AgentShown(
        id=agent.name,
        name=agent.title or agent.name,
        version=one.version,
        model=model_view(agent),
        tools=tools_view(agent),
        system=agent.instructions or None,
        description=agent.description or None,
        metadata=agent.metadata,
        created_at=one.created_at,
        updated_at=one.updated_at,
        archived_at=one.updated_at if one.archived else None,
        freehold={
            "tools": agent.tools,
            "rules": agent.rules,
            "limits": agent.limits,
            "temperature": agent.temperature,
            "tokens_max": agent.tokens_max,
            "reasoning_effort": agent.reasoning_effort,
            "when_busy": agent.when_busy,
        },
    )


def changed(agent: Agent, body: AgentBody) -> Agent:
    """Pure. Raises Unsupported for what Claude Managed Agents have and we don't, by its path."""
    refuse_unserved(body)
    given: dict[str, Any] = {
        "instructions": "" if body.system is None else body.system,
        "description": "" if body.description is None else body.description,
        "metadata": patched(agent.metadata, body.metadata),
        "custom_tools": UNSET if body.tools is UNSET else custom_tools_of(body.tools or ()),
        **structs.asdict(body.freehold),
        **model_of(body.model),
    }
    return with_given(agent, given)


class Agents:
    def __init__(self, resources: Resources, clock: Clock) -> None:
        self._resources = resources
        self._clock = clock

    async def create(self, call: Call) -> AgentShown:
        body: AgentBody = call.body
        if isinstance(body.name, UnsetType):
            raise BadRequest("required, but missing", field="name")
        if isinstance(body.model, UnsetType):
            raise BadRequest("required, but missing", field="model")
        name, title = id_and_title(body.name, self._clock)
        return await self._put(call.principal, changed(Agent(name=name, title=title), body), expected=0)

    async def update(self, call: Call) -> AgentShown:
        body: AgentBody = call.body
        there = await self._get(call.principal, call.path["agent_id"])
        agent = renamed(changeable(there, Agent), body.name)
        if not isinstance(body.version, UnsetType) and body.version != there.version:
            raise Conflict(
                f"the agent is at version {there.version}, not {body.version}: look again", field="version"
            )
        return await self._put(call.principal, changed(agent, body), expected=there.version)

    async def get(self, call: Call) -> AgentShown:
        query: GetAgent = call.query
        return shown(await self._get(call.principal, call.path["agent_id"], version=query.version))

    async def list(self, call: Call) -> AgentPage:
        query: ListAgents = call.query
        authorize(call.principal, "agent:List", "agent/*")
        listed = await self._resources.list(call.principal.tenant, "agent", archived=query.include_archived)
        wanted = [
            one
            for one in listed
            if (query.created_at_gte is None or one.created_at >= query.created_at_gte)
            and (query.created_at_lte is None or one.created_at <= query.created_at_lte)
        ]
        page, following = page_by_name(wanted, limit=query.limit, after=query.page)
        return AgentPage(tuple(map(shown, page)), following)

    async def versions(self, call: Call) -> AgentPage:
        name, query = call.path["agent_id"], call.query
        check_limit(query.limit, PAGE_MAX)
        authorize(call.principal, "agent:Read", f"agent/{name}")
        found = await self._resources.versions(call.principal.tenant, "agent", name)
        kept = [one for one in found if query.page is None or one.version < query.page]
        page = tuple(shown(one) for one in kept[: query.limit])
        return AgentPage(page, str(page[-1].version) if len(kept) > len(page) else None)

    async def archive(self, call: Call) -> AgentShown:
        name = call.path["agent_id"]
        authorize(call.principal, "agent:Archive", f"agent/{name}")
        await self._resources.archive(call.principal.tenant, "agent", name, by=call.principal.id)
        newest, *_ = await self._resources.versions(call.principal.tenant, "agent", name)
        return shown(newest)

    async def _get(self, principal: Principal, name: str, *, version: int | None = None) -> Versioned:
        """Also one that is archived."""
        authorize(principal, "agent:Read", f"agent/{name}")
        if version is not None:
            return await self._resources.get(principal.tenant, "agent", name, version=version)
        return await also_archived(self._resources, principal.tenant, "agent", name)

    async def _put(self, principal: Principal, agent: Agent, *, expected: int) -> AgentShown:
        authorize(principal, "agent:Put", f"agent/{agent.name}")
        check_metadata(agent.metadata)
        known = {one.resource.name for one in await self._resources.list(principal.tenant, "tool")}
        for index, tool in enumerate(agent.tools):
            if tool not in known:
                listed = ", ".join(sorted(known)) or "none"
                raise BadRequest(
                    f"there is no tool {tool!r}; known: {listed}", field=f"freehold.tools[{index}]"
                )
        written = await self._resources.put(
            principal.tenant, [agent], by=principal.id, expected={("agent", agent.name): expected}
        )
        return shown(written[0])


def operations(resources: Resources, clock: Clock) -> list[Operation]:
    agents = Agents(resources, clock)
    one = "/v1/agents/{agent_id}"
    return [
        Operation(method="POST", path="/v1/agents", id="createAgent", tag="agents", summary="Declare an agent.",
                  handler=agents.create, body=AgentBody, answer=AgentShown),
        Operation(method="GET", path="/v1/agents", id="listAgents", tag="agents", summary="Agents, by name.",
                  handler=agents.list, query=ListAgents, answer=AgentPage),
        Operation(method="GET", path=one, id="getAgent", tag="agents", summary="An agent, or one version of it.",
                  handler=agents.get, query=GetAgent, answer=AgentShown),
        Operation(method="POST", path=one, id="updateAgent", tag="agents", summary="Change an agent: makes a new version.",
                  handler=agents.update, body=AgentBody, answer=AgentShown),
        Operation(method="GET", path=f"{one}/versions", id="listAgentVersions", tag="agents", summary="Every version.",
                  handler=agents.versions, query=ListVersions, answer=AgentPage),
        Operation(method="POST", path=f"{one}/archive", id="archiveAgent", tag="agents", summary="Take out of use.",
                  handler=agents.archive, answer=AgentShown),
    ]  # fmt: skip
