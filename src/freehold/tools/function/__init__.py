"""Tool kind `function`: one Python function of the operator's own, run in a process of its own.

It is trusted as the server is: the process keeps secrets and crashes apart and holds limits, but it is no sandbox. What
a model may give is the function's signature, less what `bind` gives. Where the code runs: `_child.py`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Final

from msgspec import Meta, Struct, ValidationError

from freehold.core.errors import BadRequest, NotFound
from freehold.core.messages import ToolSpec, raw
from freehold.core.ports import OpenTool, ToolFunction, ToolHost, ToolKind, ToolOutcome, ToolRun
from freehold.core.resources import Effect, Tool
from freehold.core.validation import convert, explained
from freehold.tools._functions import answer, check_reach, timed_out, unknown_function
from freehold.tools._schema import simplified
from freehold.tools.function._process import FunctionProcess, Told, open_process

ARGUMENTS_MAX: Final = 64

log = logging.getLogger(__name__)


class DatabaseAddress(Struct, frozen=True, forbid_unknown_fields=True):
    """Gives the read-only address of a database that Freehold keeps."""

    database: str


class SecretValue(Struct, frozen=True, forbid_unknown_fields=True):
    """Gives what is behind `env:NAME` or `file:PATH`."""

    secret: str


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`file` lies in one of the operator's function folders. `bind` gives parameters that the model then does not see:
    a value, `{database: name}` or `{secret: reference}`. `memory_mb` is what a run may take beyond its imports.
    """

    file: str
    function: str
    bind: dict[str, Any] = {}
    effect: Effect = "pure"
    memory_mb: Annotated[int, Meta(ge=16, le=65_536)] = 1_024


class FunctionTool:
    name: ClassVar[str] = "function"
    config: ClassVar[type[Struct]] = Config

    @asynccontextmanager
    async def open(self, tool: Tool, config: Config, host: ToolHost) -> AsyncIterator[OpenTool]:
        path = find_file(tool, config.file, host.function_folders)
        bound = {name: await _bound(value, name, host) for name, value in config.bind.items()}
        async with open_process(tool.name, path, config.function, tuple(bound)) as (process, told):
            yield _OpenFunction(tool, config, process, told, bound)


def find_file(tool: Tool, name: str, folders: Sequence[str]) -> Path:
    """Raises BadRequest for a name that leads out of the folders (also by a symlink), NotFound where none has it."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name or parts.suffix != ".py":
        raise BadRequest(
            f"tool {tool.name}: expected a Python file within a function folder, like forecast.py, got {name[:120]!r}",
            field="config.file",
        )
    for folder in folders:
        root = Path(folder).resolve()
        path = (root / parts).resolve()
        if not path.is_relative_to(root):
            raise BadRequest(f"tool {tool.name}: {name[:120]!r} leads out of its folder", field="config.file")
        if path.is_file():
            return path
    where = (
        f"none of the {len(folders)} function folders"
        if folders
        else "no function folder is configured, so none"
    )
    raise NotFound(f"tool {tool.name}: there is no file {name[:120]!r}: {where} has it", field="config.file")


async def _bound(value: Any, name: str, host: ToolHost) -> Any:
    """A mapping with `database` or `secret` is a reference, any other a value."""
    if isinstance(value, dict) and "database" in value:
        return await host.database_url(convert(value, DatabaseAddress, root=f"config.bind.{name}").database)
    if isinstance(value, dict) and "secret" in value:
        return host.secret(convert(value, SecretValue, root=f"config.bind.{name}").secret)
    return value


class _OpenFunction:
    def __init__(
        self, tool: Tool, config: Config, process: FunctionProcess, told: Told, bound: dict[str, Any]
    ) -> None:
        self._tool = tool
        self._process = process
        self._bound = bound
        self._memory_mb = config.memory_mb
        schema = simplified(told.schema, told.schema)
        schema.pop("description", None)
        self._known = tuple(schema.get("properties", ()))
        description = "\n\n".join(text for text in (tool.description.strip(), told.description) if text)
        spec = ToolSpec(name="", description=description, parameters=raw(schema))
        self.functions: Sequence[ToolFunction] = (ToolFunction(spec, config.effect),)

    async def run(self, run: ToolRun) -> ToolOutcome:
        if run.function:
            raise unknown_function(self._tool.name, run.function, ("",))
        check_reach(self._tool.name, run, None)
        if len(run.arguments) > ARGUMENTS_MAX:
            raise BadRequest(f"expected at most {ARGUMENTS_MAX} arguments, got {len(run.arguments)}")
        request = {
            "arguments": run.arguments,
            "bound": self._bound,
            "memory_mb": self._memory_mb,
            "timeout_s": run.timeout_s,
        }
        try:
            async with asyncio.timeout(run.timeout_s):
                done = await self._process.run(request)
        except TimeoutError as error:
            raise timed_out(self._tool.name, run) from error
        if done.refused is not None:
            raise explained(ValidationError(done.refused), known=self._known)
        if done.failed is not None:
            log.warning("tool.function_failed", extra={"tool": self._tool.name, "trace": done.trace})
            return answer({"error": done.failed}, failed=True)
        return answer(done.result)


KIND: ToolKind = FunctionTool()
