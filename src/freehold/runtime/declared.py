"""Runtime: the declarations that turns go by, remembered so that a turn does not ask the database for what did not change; and what
one session has in their place.

A session is pinned to its agent's version, which never changes. Tools are taken as they are now; a change anywhere, in any
process, moves `Resources.generation()` and makes us look again.
"""

import hashlib
from collections import OrderedDict
from typing import Final

import msgspec
from msgspec import Struct, structs

from freehold.core.environments import Environment
from freehold.core.errors import Internal, NotFound
from freehold.core.ports import Resources, Versioned
from freehold.core.resources import Agent, Kind, Tool
from freehold.core.session import SessionSetup
from freehold.runtime.decide import money_pico

REMEMBERED_MAX: Final = 4096


class DeclaredTool(Struct, frozen=True):
    tool: Tool
    version: int


class Declarations:
    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._found: OrderedDict[tuple[str, Kind, str, int | None], tuple[int, Versioned]] = OrderedDict()

    async def agent(self, tenant: str, name: str, version: int) -> Agent:
        """Raises NotFound."""
        found = await self._get(tenant, "agent", name, version)
        if not isinstance(found.resource, Agent):
            raise Internal(f"agent/{name} is stored as something else")
        return found.resource

    async def agent_in_use(self, tenant: str, name: str, *, version: int | None = None) -> Versioned:
        """As it is now, or in that version. Raises NotFound, also where the agent is archived."""
        newest = await self._get(tenant, "agent", name, None)
        if version is None or version == newest.version:
            return newest
        return await self._get(tenant, "agent", name, version)

    async def tool(self, tenant: str, name: str) -> DeclaredTool:
        """As it is now. Raises NotFound."""
        found = await self._get(tenant, "tool", name, None)
        if not isinstance(found.resource, Tool):
            raise Internal(f"tool/{name} is stored as something else")
        return DeclaredTool(found.resource, found.version)

    async def environment(self, tenant: str, name: str, version: int) -> Environment:
        """As it is now; one that was archived as it was in that version. Raises NotFound."""
        try:
            found = await self._get(tenant, "environment", name, None)
        except NotFound:
            found = await self._get(tenant, "environment", name, version)
        if not isinstance(found.resource, Environment):
            raise Internal(f"environment/{name} is stored as something else")
        return found.resource

    async def _get(self, tenant: str, kind: Kind, name: str, version: int | None) -> Versioned:
        key = (tenant, kind, name, version)
        generation = self._resources.generation()
        known = self._found.get(key)
        if known is not None and (version is not None or known[0] == generation):
            self._found.move_to_end(key)
            return known[1]
        found = await self._resources.get(tenant, kind, name, version=version)
        self._found[key] = (generation, found)
        self._found.move_to_end(key)
        if len(self._found) > REMEMBERED_MAX:
            self._found.popitem(last=False)
        return found


def set_up(agent: Agent, setup: SessionSetup | None) -> Agent:
    """The agent as one session has it."""
    if setup is None:
        return agent
    if setup.instructions is not None:
        agent = structs.replace(agent, instructions=setup.instructions)
    if setup.custom_tools is not None:
        agent = structs.replace(agent, custom_tools=setup.custom_tools)
    if setup.cost_max_usd is not None:
        limits = agent.limits
        own = money_pico(limits.session_cost_max_usd, field="limits.session_cost_max_usd")
        given = money_pico(setup.cost_max_usd, field="budget.max_list_cost")
        if own is None or (given is not None and given < own):
            limits = structs.replace(limits, session_cost_max_usd=setup.cost_max_usd)
        agent = structs.replace(agent, limits=limits)
    return agent


INLINE: Final = "custom/"
"""What the names of tools begin with that an agent declares itself; no resource's can. Models see their functions' names alone."""


def custom_tool(agent: Agent) -> DeclaredTool | None:
    """The agent's own `custom_tools` as one tool of the kind `client`, named after what is in it."""
    if not agent.custom_tools:
        return None
    digest = hashlib.sha256(msgspec.json.encode(agent.custom_tools)).hexdigest()[:32]
    config = {"functions": msgspec.to_builtins(agent.custom_tools)}
    return DeclaredTool(Tool(name=f"{INLINE}{digest}", type="client", config=config), 1)
