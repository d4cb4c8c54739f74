"""Tool kind `event`: lets an agent wait for something that happens outside, like a payment that settles. A waiting session costs its row.

What came is the call's result. Who may report it, and where: docs/webhooks.md; how it reaches the session: runtime/outside.py.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, ClassVar, Final

from msgspec import Meta, Struct

from freehold.core.errors import BadRequest
from freehold.core.ports import OpenTool, ToolHost, ToolKind, ToolOutcome, ToolRun
from freehold.core.resources import SECRET, Tool
from freehold.core.session import AwaitsEvent
from freehold.tools._functions import Functions, described, function

DEADLINE_S: Final = 7 * 86_400.0
DEADLINE_S_MAX: Final = 366 * 86_400.0
CORRELATION_CHARS_MAX: Final = 200


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`event` is what is waited for, at most `deadline_s`. With `secret`, a reference, who reports it by its token must sign it, too."""

    event: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,99}$")]
    deadline_s: Annotated[float, Meta(gt=0, le=DEADLINE_S_MAX)] = DEADLINE_S
    secret: str | None = None


class Wait(Struct, frozen=True, forbid_unknown_fields=True):
    correlation: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=CORRELATION_CHARS_MAX,
            description="What it is about, by the name that its sender knows it by: an order's or a payment's number.",
        ),
    ]


class EventTool:
    name: ClassVar[str] = "event"
    config: ClassVar[type[Struct]] = Config

    @asynccontextmanager
    async def open(self, tool: Tool, config: Config, host: ToolHost) -> AsyncIterator[OpenTool]:
        if config.secret is not None and not SECRET.fullmatch(config.secret):
            raise BadRequest(
                "expected a reference (env:NAME or file:PATH), never the secret itself", field="config.secret"
            )

        async def wait(asked: Wait, _: ToolRun) -> ToolOutcome:
            awaits = AwaitsEvent(token="", event=config.event, correlation=asked.correlation)
            return ToolOutcome(awaits=awaits, awaits_s=config.deadline_s)

        does = described(
            tool, f"Waits until {config.event} is reported from outside, and gives what was reported."
        )
        yield Functions(tool, [function("wait", Wait, wait, description=does, effect="idempotent")])


KIND: ToolKind = EventTool()
