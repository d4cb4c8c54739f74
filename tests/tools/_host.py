"""What Freehold lends to a tool, over real parts: whatever a test does not give is not there."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from freehold.core.errors import NotFound
from freehold.core.policy import ALLOW_ALL, Principal
from freehold.core.ports import ChildSessions, KeyValues, Objects, OpenTool, ToolKind, ToolOutcome, ToolRun
from freehold.core.resources import Tool
from freehold.core.validation import convert

PRINCIPAL = Principal("default", "user", "tester", (ALLOW_ALL,))


class Host:
    """Implements core.ports.ToolHost."""

    def __init__(
        self,
        *,
        databases: Mapping[str, str] | None = None,
        key_values: KeyValues | None = None,
        objects: Objects | None = None,
        sessions: ChildSessions | None = None,
        function_folders: Sequence[Path] = (),
    ) -> None:
        self._databases = databases or {}
        self._key_values = key_values
        self._objects = objects
        self._sessions = sessions
        self.function_folders = [str(folder) for folder in function_folders]

    def secret(self, reference: str) -> str:
        kind, _, name = reference.partition(":")
        if kind == "env" and name in os.environ:
            return os.environ[name]
        raise NotFound(f"there is no secret {reference}")

    async def database_url(self, name: str) -> str:
        if name not in self._databases:
            raise NotFound(f"there is no database {name}")
        return self._databases[name]

    @property
    def sessions(self) -> ChildSessions:
        assert self._sessions is not None
        return self._sessions

    @property
    def key_values(self) -> KeyValues:
        assert self._key_values is not None
        return self._key_values

    @property
    def objects(self) -> Objects:
        assert self._objects is not None
        return self._objects


def opened(kind: ToolKind, host: Host, config: dict[str, Any], *, name: str = "thing", description: str = ""):
    """The kind's context manager, with the config read as the runtime reads it."""
    tool = Tool(name=name, type=kind.name, description=description, config=config)
    return kind.open(tool, convert(config, kind.config, root="config"), host)


async def run(
    tool: OpenTool, function: str, /, timeout_s: float = 20.0, step_key: str = "key-1", **arguments: Any
) -> ToolOutcome:
    return await tool.run(
        ToolRun(
            function=function, arguments=arguments, key=step_key, timeout_s=timeout_s, principal=PRINCIPAL
        )
    )


async def data(tool: OpenTool, function: str, /, **arguments: Any) -> Any:
    """The JSON that a run answers with, which must not have failed."""
    outcome = await run(tool, function, **arguments)
    assert not outcome.failed, outcome
    return read(outcome)


def read(outcome: ToolOutcome) -> Any:
    return msgspec.json.decode(outcome.content[0].text)


def parameters(tool: OpenTool, function: str) -> Any:
    found = next(one for one in tool.functions if one.spec.name == function)
    return msgspec.json.decode(found.spec.parameters)
