"""Tool kind `timer`: lets an agent wait for a while, or until a time. A waiting session costs its row, however long.

The waiting itself is the runtime's (runtime/waiting.py): nothing here runs.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, ClassVar, Final

from msgspec import Meta, Struct

from freehold.core.errors import Internal
from freehold.core.messages import ToolSpec, raw
from freehold.core.ports import OpenTool, ToolFunction, ToolHost, ToolKind, ToolOutcome, ToolRun
from freehold.core.resources import Tool
from freehold.tools._functions import described, schema_of

_DOES: Final = "Waits, for `seconds` or `until` a time (give one of them), and says when the time has come."


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Wait(Struct, frozen=True, forbid_unknown_fields=True):
    seconds: Annotated[float | None, Meta(description="From now on.")] = None
    until: Annotated[str | None, Meta(description="Like 2026-11-21T09:00:00Z.")] = None


class TimerTool:
    name: ClassVar[str] = "timer"
    config: ClassVar[type[Struct]] = Config

    @asynccontextmanager
    async def open(self, tool: Tool, config: Config, host: ToolHost) -> AsyncIterator[OpenTool]:
        spec = ToolSpec(name="wait", description=described(tool, _DOES), parameters=raw(schema_of(Wait)))
        yield _Timer((ToolFunction(spec, "pure", settled_by="timer"),))


class _Timer:
    def __init__(self, functions: Sequence[ToolFunction]) -> None:
        self.functions = functions

    async def run(self, run: ToolRun) -> ToolOutcome:
        raise Internal("a timer is waited for, not run")


KIND: ToolKind = TimerTool()
