"""Tool kind `agent`: another agent does a task, in a session of its own, while this one waits in its row.

What the subagent may do: its session acts for the same person, through its own tools, and within the `policy` of every agent
that it works for. What it costs stands in its own session; the parent's limits in money count it too, and bound it before: it gets its share
of what is left of them.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, ClassVar, Final

from msgspec import Meta, Struct

from freehold.core.ports import Delegation, OpenTool, ToolHost, ToolKind, ToolOutcome, ToolRun
from freehold.core.resources import Tool
from freehold.core.session import AwaitsSession
from freehold.tools._functions import Functions, described, function

TASK_CHARS_MAX: Final = 100_000
_DOES: Final = "Gives a task to another agent and returns its answer. It knows only what `task` says."


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`model` instead of that agent's own. `depth_max` counts this session's ancestors, `children_max` its subagents at work."""

    agent: str
    model: str | None = None
    deadline_s: Annotated[float, Meta(gt=0, le=30 * 86_400.0)] = 86_400.0
    depth_max: Annotated[int, Meta(ge=1, le=10)] = 3
    children_max: Annotated[int, Meta(ge=1, le=100)] = 10


class Delegate(Struct, frozen=True, forbid_unknown_fields=True):
    task: Annotated[
        str, Meta(min_length=1, max_length=TASK_CHARS_MAX, description="All that it needs to know.")
    ]


class AgentTool:
    name: ClassVar[str] = "agent"
    config: ClassVar[type[Struct]] = Config

    @asynccontextmanager
    async def open(self, tool: Tool, config: Config, host: ToolHost) -> AsyncIterator[OpenTool]:
        async def delegate(asked: Delegate, run: ToolRun) -> ToolOutcome:
            wanted = Delegation(
                agent=config.agent,
                task=asked.task,
                model=config.model,
                depth_max=config.depth_max,
                children_max=config.children_max,
            )
            session_id = await host.sessions.start(run, wanted)
            return ToolOutcome(
                awaits=AwaitsSession(
                    session_id=session_id,
                    agent=config.agent,
                    cost_max_pico=run.cost_left_pico,
                    task=asked.task,
                ),
                awaits_s=config.deadline_s,
            )

        does = described(tool, _DOES)
        yield Functions(
            tool, [function("delegate", Delegate, delegate, description=does, effect="idempotent")]
        )


KIND: ToolKind = AgentTool()
