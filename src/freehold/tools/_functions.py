"""Tools' shared floor: functions whose arguments are msgspec Structs, and results as bounded, compact JSON text.

A kind that knows its functions when it is written declares one Struct a function; the same type gives the model its JSON
Schema and the tool its checked values. (Kinds that learn their functions from a document check with `_schema_check.py`.)
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from freehold.core.environments import reaches
from freehold.core.errors import BadRequest, Forbidden, TimedOut, TooLarge
from freehold.core.messages import Text, ToolSpec, raw
from freehold.core.ports import ToolFunction, ToolOutcome, ToolRun
from freehold.core.resources import Effect, Tool
from freehold.core.validation import convert, near
from freehold.tools._schema import simplified

RESULT_BYTES_MAX: Final = 200_000
"""What one run may put before a model. Kinds cut earlier, where they can say what is missing."""

Handler: TypeAlias = Callable[[Any, ToolRun], Awaitable[ToolOutcome]]

_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")


class Function(Struct, frozen=True):
    """`arguments` is the Struct type that `run` takes first."""

    offered: ToolFunction
    arguments: type[Struct]
    run: Handler


def function(
    name: str, arguments: type[Struct], run: Handler, *, description: str, effect: Effect
) -> Function:
    spec = ToolSpec(name=name, description=description, parameters=raw(schema_of(arguments)))
    return Function(ToolFunction(spec, effect), arguments, run)


def schema_of(arguments: type[Struct]) -> dict[str, Any]:
    """The Struct's JSON Schema, flat: without `$ref`, titles, or the Struct's own docstring."""
    whole = msgspec.json.schema(arguments)
    schema = simplified(whole, whole)
    schema.pop("description", None)
    return schema


class Functions:
    """An OpenTool over functions with typed arguments."""

    def __init__(self, tool: Tool, functions: Iterable[Function]) -> None:
        self._tool = tool.name
        self._by_name = {one.offered.spec.name: one for one in functions}
        self.functions: Sequence[ToolFunction] = tuple(one.offered for one in self._by_name.values())

    async def run(self, run: ToolRun) -> ToolOutcome:
        found = self._by_name.get(run.function)
        if found is None:
            raise unknown_function(self._tool, run.function, self._by_name)
        arguments = convert(run.arguments, found.arguments)
        try:
            async with asyncio.timeout(run.timeout_s):
                return await found.run(arguments, run)
        except TimeoutError as error:
            raise timed_out(self._tool, run) from error


def unknown_function(tool: str, name: str, known: Iterable[str]) -> BadRequest:
    names = sorted(known)
    return BadRequest(f"tool {tool} has no function {name!r}{near(name, names)}; it has: {', '.join(names)}")


def timed_out(tool: str, run: ToolRun) -> TimedOut:
    return TimedOut(
        f"tool {tool}: {run.function or 'the run'} took longer than {run.timeout_s:g} s "
        "(the tool's timeout_s); ask for less at once, or raise timeout_s"
    )


def check_reach(tool: str, run: ToolRun, host: str | None) -> None:
    """Before a run that connects to `host` (None: to whatever it likes). Raises Forbidden where the session's environment does not
    let it."""
    if run.hosts is None:
        return
    allowed = ", ".join(run.hosts) or "none"
    if host is None:
        raise Forbidden(
            f"tool {tool}: the session's environment limits the network (allowed hosts: {allowed}), and Freehold cannot hold this tool to it"
        )
    if not reaches(run.hosts, host):
        raise Forbidden(
            f"tool {tool}: the session's environment does not let it reach {host} (allowed hosts: {allowed})"
        )


def answer(value: object, *, failed: bool = False) -> ToolOutcome:
    """`value` as compact JSON: decimals as exact numbers, times as ISO 8601."""
    text = _ENCODER.encode(value)
    if len(text) > RESULT_BYTES_MAX:
        raise TooLarge(
            f"the result has {len(text)} bytes, at most {RESULT_BYTES_MAX} are given to a model; ask for less"
        )
    return ToolOutcome((Text(text.decode()),), failed=failed)


def described(tool: Tool, does: str) -> str:
    """What the tool holds, in its owner's words, after what the function does."""
    return f"{does} {tool.description.strip()}".strip()
