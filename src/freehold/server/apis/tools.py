"""Declared tools and how busy they are: GET /v1/tools. Action `tool:List`. To declare them: /v1/templates."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from freehold.core.places import ToolPlaces
from freehold.core.policy import authorize
from freehold.core.ports import Resources
from freehold.core.resources import Tool
from freehold.server.operations import Call, Operation


class ToolShown(Struct, frozen=True, kw_only=True):
    """`running` and `waiting` count calls, in all processes together; only of a tool with a `concurrency_max` is it known."""

    name: str
    type: str
    version: int
    concurrency_max: int | None
    running: int | None
    waiting: int | None
    waiting_since: datetime | None


class ToolList(Struct, frozen=True):
    data: tuple[ToolShown, ...]


def operations(resources: Resources, places: ToolPlaces) -> Sequence[Operation]:
    async def listed(call: Call) -> ToolList:
        authorize(call.principal, "tool:List", "tool/*")
        queues = {one.tool: one for one in await places.queues(call.principal.tenant)}
        found = []
        for one in await resources.list(call.principal.tenant, "tool"):
            tool = one.resource
            if isinstance(tool, Tool):
                queue = queues.get(tool.name)
                found.append(
                    ToolShown(
                        name=tool.name,
                        type=tool.type,
                        version=one.version,
                        concurrency_max=tool.concurrency_max,
                        running=queue.running if queue else None,
                        waiting=queue.waiting if queue else None,
                        waiting_since=queue.waiting_since if queue else None,
                    )
                )
        return ToolList(tuple(found))

    return [
        Operation(method="GET", path="/v1/tools", id="listTools", tag="tools",
                  summary="Declared tools, and of those with a limit how many calls run and wait.", handler=listed,
                  answer=ToolList),
    ]  # fmt: skip
