"""Runtime: an agent's declared tools, opened, as the flat list of functions that a model sees.

Open tools are shared by all sessions of a tenant, and reopened when their declaration changes or they stop answering. Each is
opened and closed by a task of its own, since what a kind opens may have to be closed by the task that opened it. How a kind
works is not here (tools/).
"""

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from msgspec import structs

from freehold.core.errors import BadRequest, FreeholdError, Internal, TimedOut, Unavailable
from freehold.core.messages import ToolSpec
from freehold.core.ports import OpenTool, ToolFunction, ToolHost, ToolKind
from freehold.core.resources import Tool
from freehold.core.validation import convert, near
from freehold.runtime.calls import PlannedFunction
from freehold.runtime.declared import INLINE, DeclaredTool
from freehold.runtime.offload import RESULT_READ

log = logging.getLogger(__name__)

OPEN_S_MAX: Final = 20.0
OPEN_TOOLS_MAX: Final = 256
"""Kept open while nobody uses them; those in use come on top."""
FUNCTIONS_MAX: Final = 128
"""Per agent: what vendors take at most (https://platform.openai.com/docs/api-reference/chat/create, `tools`)."""
FUNCTION_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What every vendor takes as the name of a function."""

_Key = tuple[str, str, int]


class _Held:
    """One open tool, and who uses it. `opened` is settled by its task; `over` tells the task to close it."""

    def __init__(self, key: _Key, tool: Tool) -> None:
        self.key = key
        self.tool = tool
        self.opened: asyncio.Future[OpenTool] = asyncio.get_running_loop().create_future()
        self.over = asyncio.Event()
        self.users = 0
        self.current = True


class Toolbox:
    """The tools of one turn. `specs` is what the model is told, `functions` what its words stand for."""

    def __init__(self, held: Sequence[_Held]) -> None:
        self._held = {one.tool.name: one for one in held}
        self.specs: tuple[ToolSpec, ...] = ()
        self.functions: dict[str, PlannedFunction] = {}
        for one in held:
            self._add(one.tool, one.key[2], one.opened.result().functions)

    def find(self, tool: str) -> tuple[OpenTool, float]:
        """The tool and its timeout in seconds. Raises Unavailable when the agent has it no more (a call from before)."""
        held = self._held.get(tool)
        if held is None:
            raise Unavailable(f"the agent has no tool {tool!r} any more")
        return held.opened.result(), held.tool.timeout_s

    def distrust(self, tool: str) -> None:
        """The next turn opens it anew."""
        if held := self._held.get(tool):
            held.current = False

    def _add(self, tool: Tool, version: int, functions: Sequence[ToolFunction]) -> None:
        offered = _offered(tool, functions)
        for function in offered:
            name = _flat_name(tool.name, function.spec.name, alone=len(functions) == 1)
            if name == RESULT_READ:
                raise BadRequest(
                    f"{tool.name}/{function.spec.name} would be called {name!r}, which is Freehold's own; rename the tool",
                    field="tools",
                )
            if name in self.functions:
                raise BadRequest(
                    f"{tool.name}/{function.spec.name} and {_said(self.functions[name])} would both be called {name!r}; "
                    "rename one of the two tools",
                    field="tools",
                )
            self.functions[name] = PlannedFunction(
                tool=tool.name,
                function=function.spec.name,
                effect=tool.effect or function.effect,
                timeout_s=tool.timeout_s,
                version=version,
                settled_by=function.settled_by,
                approval=tool.approval,
                limited=tool.concurrency_max is not None,
            )
            description = _description(tool, function.spec, alone=len(offered) == 1)
            self.specs += (structs.replace(function.spec, name=name, description=description),)
        if len(self.functions) > FUNCTIONS_MAX:
            raise BadRequest(
                f"expected {FUNCTIONS_MAX} functions at most over all tools, got {len(self.functions)} with tool "
                f"{tool.name!r}; offer fewer with the tool's `functions`",
                field="tools",
            )


class ToolSet:
    """Opens tools, keeps them open, closes them. Lives within `running()`."""

    def __init__(self, kinds: Mapping[str, ToolKind], host: ToolHost) -> None:
        self._kinds = kinds
        self._host = host
        self._cache: OrderedDict[_Key, _Held] = OrderedDict()
        self._boxes: WeakValueDictionary[tuple[_Held, ...], Toolbox] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open_now = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Closes every tool at the end."""
        self._open_now = True
        try:
            yield
        finally:
            self._open_now = False
            for held in self._cache.values():
                held.over.set()
            self._cache.clear()
            if self._tasks:
                await asyncio.wait(self._tasks)

    @asynccontextmanager
    async def borrow(self, tenant: str, agent: str, tools: Sequence[DeclaredTool]) -> AsyncIterator[Toolbox]:
        """Raises what is wrong with the first tool that could not be opened, naming it and what to do."""
        held = [self._take(tenant, declared) for declared in tools]
        try:
            await self._opened(held, agent)
            yield self._box(held)
        finally:
            for one in held:
                self._give_back(one)

    def _box(self, held: Sequence[_Held]) -> Toolbox:
        """Of the same open tools the same one, as long as somebody has it: making it takes time."""
        key = tuple(held)
        if (box := self._boxes.get(key)) is None:
            box = self._boxes[key] = Toolbox(held)
        return box

    async def _opened(self, held: Sequence[_Held], agent: str) -> None:
        """All at once: the slowest tool counts, not the sum."""
        opening = [one.opened for one in held if not one.opened.done()]
        if opening:
            await asyncio.wait(opening)
        for one in held:
            error = one.opened.exception()
            if error is not None:
                raise _explained(error, one.tool.name, agent)

    def _take(self, tenant: str, declared: DeclaredTool) -> _Held:
        key = (tenant, declared.tool.name, declared.version)
        held = self._cache.get(key)
        if held is None or not held.current:
            held = self._open(key, declared.tool)
        self._cache.move_to_end(key)
        held.users += 1
        return held

    def _open(self, key: _Key, tool: Tool) -> _Held:
        """Other versions of the tool are closed once their last user is done."""
        for other in [one for one in self._cache.values() if one.key[:2] == key[:2]]:
            self._retire(other)
        for idle in [one for one in self._cache.values() if not one.users][
            : len(self._cache) - OPEN_TOOLS_MAX + 1
        ]:
            self._retire(idle)
        if not self._open_now:
            raise Unavailable("Freehold is stopping")
        held = self._cache[key] = _Held(key, tool)
        task = asyncio.create_task(self._hold(held), name=f"tool:{tool.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return held

    def _retire(self, held: _Held) -> None:
        held.current = False
        if self._cache.get(held.key) is held:
            del self._cache[held.key]
        if not held.users:
            held.over.set()

    def _give_back(self, held: _Held) -> None:
        held.users -= 1
        if not held.current:
            self._retire(held)

    async def _hold(self, held: _Held) -> None:
        """The one task in which the tool is opened and closed."""
        try:
            async with AsyncExitStack() as stack:
                try:
                    async with asyncio.timeout(OPEN_S_MAX):
                        opened = await stack.enter_async_context(self._entered(held.tool))
                except TimeoutError as error:
                    raise TimedOut(f"it did not open within {OPEN_S_MAX:g} s") from error
                held.opened.set_result(opened)
                await held.over.wait()
        except FreeholdError as error:
            self._fail(held, error)
        except Exception:
            log.exception("tool.open_or_close_failed", extra={"tool": held.tool.name, "tenant": held.key[0]})
            self._fail(held, Internal("it failed inside Freehold; its log has the details"))
        finally:
            self._fail(held, Unavailable("Freehold is stopping"))

    @asynccontextmanager
    async def _entered(self, tool: Tool) -> AsyncIterator[OpenTool]:
        kind = self._kinds.get(tool.type)
        if kind is None:
            known = ", ".join(sorted(self._kinds))
            raise BadRequest(
                f"unknown type {tool.type!r}{near(tool.type, self._kinds)}; known: {known}", field="type"
            )
        config = convert(tool.config, kind.config, root="config")
        async with kind.open(tool, config, self._host) as opened:
            yield opened

    def _fail(self, held: _Held, error: FreeholdError) -> None:
        """Nothing to tell once it was open; a failure is not kept, so the next turn tries again."""
        self._retire(held)
        if not held.opened.done():
            held.opened.set_exception(error)
            held.opened.exception()


def _explained(error: BaseException, tool: str, agent: str) -> FreeholdError:
    """The same cause, in words that name the tool and the way out."""
    if not isinstance(error, FreeholdError):
        error = Internal("it failed inside Freehold")
    return type(error)(
        f"tool {tool!r} of agent {agent!r} can't be used: {error}. Mend the tool, or take it out of the agent; "
        "then send a message to go on.",
        detail=error.detail,
        retry_after_s=error.retry_after_s,
    )


def _offered(tool: Tool, functions: Sequence[ToolFunction]) -> Sequence[ToolFunction]:
    if tool.functions is None:
        return functions
    by_name = {function.spec.name: function for function in functions}
    for index, name in enumerate(tool.functions):
        if name not in by_name:
            raise BadRequest(
                f"tool {tool.name!r} has no function {name!r}{near(name, by_name)}; it has: {', '.join(sorted(by_name))}",
                field=f"functions[{index}]",
            )
    return [by_name[name] for name in tool.functions]


def _flat_name(tool: str, function: str, *, alone: bool) -> str:
    if tool.startswith(INLINE):
        name = function
    else:
        name = tool if not function or (alone and function == tool) else f"{tool}_{function}"
    if not FUNCTION_NAME.fullmatch(name):
        raise BadRequest(
            f"expected a function's name of 1-64 letters, digits, '_' and '-', got {name[:100]!r} for function "
            f"{function[:80]!r} of tool {tool!r}; give the tool a shorter name",
            field="tools",
        )
    return name


def _description(tool: Tool, spec: ToolSpec, *, alone: bool) -> str:
    """A function speaks for itself; the tool's own words come before it where they are about this one function."""
    if not spec.description or not tool.description or spec.description == tool.description:
        return spec.description or tool.description
    return f"{tool.description}\n{spec.description}" if alone else spec.description


def _said(planned: PlannedFunction) -> str:
    return f"{planned.tool}/{planned.function}"
