"""Tool kind `client`: functions that the session's client runs itself ("return of control"). Freehold only waits for the results.

The model calls them like any other. The client sees `agent.custom_tool_use` in the session's events and answers with
`user.custom_tool_result`; until then the session costs its row.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, ClassVar, Final

from msgspec import Meta, Struct, field

from freehold.core.errors import BadRequest, Internal
from freehold.core.messages import ToolSpec, raw
from freehold.core.ports import OpenTool, ToolFunction, ToolHost, ToolKind, ToolOutcome, ToolRun
from freehold.core.resources import Effect, Tool

FUNCTIONS_MAX: Final = 128


def _no_arguments() -> dict[str, Any]:
    return {"type": "object", "properties": {}}


class ClientFunction(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`input_schema` is JSON Schema. Freehold does not check the model's arguments against it: the client does, and says so."""

    name: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
    description: str = ""
    input_schema: dict[str, Any] = field(default_factory=_no_arguments)
    effect: Effect = "irreversible"


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    functions: Annotated[tuple[ClientFunction, ...], Meta(min_length=1, max_length=FUNCTIONS_MAX)]


class ClientTool:
    name: ClassVar[str] = "client"
    config: ClassVar[type[Struct]] = Config

    @asynccontextmanager
    async def open(self, tool: Tool, config: Config, host: ToolHost) -> AsyncIterator[OpenTool]:
        """Raises BadRequest for a schema that is none for an object."""
        yield _Offered(tuple(_offered(one, place) for place, one in enumerate(config.functions)))


class _Offered:
    def __init__(self, functions: Sequence[ToolFunction]) -> None:
        self.functions = functions

    async def run(self, run: ToolRun) -> ToolOutcome:
        raise Internal(f"{run.function!r} is the client's to run")


def _offered(function: ClientFunction, place: int) -> ToolFunction:
    if function.input_schema.get("type") != "object":
        raise BadRequest(
            f"expected a JSON Schema of type object, got {function.input_schema.get('type')!r}",
            field=f"config.functions[{place}].input_schema",
        )
    spec = ToolSpec(
        name=function.name, description=function.description, parameters=raw(function.input_schema)
    )
    return ToolFunction(spec, function.effect, settled_by="client")


KIND: ToolKind = ClientTool()
