"""Runtime: the declarations that turns go by, remembered so that a turn does not ask the database for what did not change.

A session is pinned to its agent's version, which never changes. Tools are taken as they are now; a change anywhere, in any
process, moves `Resources.generation()` and makes us look again.
"""

from collections import OrderedDict
from typing import Final

from msgspec import Struct

from freehold.core.errors import Internal
from freehold.core.ports import Resources, Versioned
from freehold.core.resources import Agent, Kind, Tool

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

    async def tool(self, tenant: str, name: str) -> DeclaredTool:
        """As it is now. Raises NotFound."""
        found = await self._get(tenant, "tool", name, None)
        if not isinstance(found.resource, Tool):
            raise Internal(f"tool/{name} is stored as something else")
        return DeclaredTool(found.resource, found.version)

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
