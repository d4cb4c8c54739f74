"""Provider `rules`: declared patterns pick tools and compose answers from what they return. No language model, no network.

Deterministic: the same conversation gives the same answer. Which rule: `_rules_match.py`; what next: `_rules_plan.py`; how it
is said: `_rules_templates.py`. Where Rules are declared and kept is not here: a look-up is handed in.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Final

import msgspec

from freehold.core.errors import FreeholdError, Unsupported
from freehold.core.messages import ModelRequest, Text, ToolCall, ToolSpec, Usage
from freehold.core.ports import ModelInfo, RawAnswer
from freehold.core.resources import Rules
from freehold.core.stream import (
    ArgumentsAdded,
    Finished,
    PartFinished,
    PartStarted,
    Started,
    StreamEvent,
    TextAdded,
    UsageReported,
)
from freehold.providers._rules_plan import Answer, Calls, Plan

COMPILED_MAX: Final = 32
PIECE_CHARS: Final = 60


class RulesProvider:
    """A core.ports.Provider. `lookup` gives the Rules of a name, or raises NotFound; bind it to a tenant."""

    name: str = "rules"
    wire: str | None = None
    is_language_model: bool = False
    PREFIX: ClassVar[str] = "rules/"

    def __init__(self, lookup: Callable[[str], Awaitable[Rules]]) -> None:
        self._lookup = lookup
        self._plans: OrderedDict[bytes, Plan] = OrderedDict()

    @asynccontextmanager
    async def call(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[StreamEvent]]:
        """`request.model` is the Rules' name, with or without `rules/` before it."""
        name = request.model.removeprefix(self.PREFIX)
        if request.output is not None:
            raise Unsupported("rules answer in plain text, not in JSON of a given shape", field="output")
        rules = await self._lookup(name)
        try:
            done = await asyncio.to_thread(self._next, rules, request)
        except FreeholdError as error:
            error.message = f"rules {name}: {error.message}"
            raise
        yield _each(_events(f"rules-{_digest(request)}", f"{self.PREFIX}{name}", done))

    def forward(
        self, body: bytes, *, model: str, stream: bool, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[RawAnswer]:
        raise Unsupported("rules are answered here: there is nothing to pass bytes on to")

    async def models(self) -> Sequence[ModelInfo]:
        """None of its own: which Rules there are is each tenant's."""
        return ()

    def _next(self, rules: Rules, request: ModelRequest) -> Calls | Answer:
        """Off the event loop: compiling a rule with a long answer takes some 100 ms, once."""
        return self._plan(rules).next(request.messages, _offered(request))

    def _plan(self, rules: Rules) -> Plan:
        key = hashlib.sha256(msgspec.msgpack.encode(rules)).digest()
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = Plan(rules)
            while len(self._plans) > COMPILED_MAX:
                self._plans.popitem(last=False)
        return plan


def check(rules: Rules) -> None:
    """Raises BadRequest with the path of what is wrong: a pattern, a template, a result that no step has."""
    Plan(rules).compile_all()


def _offered(request: ModelRequest) -> frozenset[str]:
    if request.tool_choice is not None and request.tool_choice.mode == "none":
        return frozenset()
    return frozenset(tool.name for tool in request.tools if isinstance(tool, ToolSpec))


def _digest(request: ModelRequest) -> str:
    """An id that is the same for the same request."""
    return hashlib.sha256(msgspec.msgpack.encode((request.model, request.messages))).hexdigest()[:24]


async def _each(events: Iterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
    for event in events:
        yield event


def _events(id_: str, model: str, done: Calls | Answer) -> Iterator[StreamEvent]:
    yield Started(id_, model)
    match done:
        case Calls():
            for index, call in enumerate(done.calls):
                yield PartStarted(index, ToolCall(call.id, call.name, ""))
                yield ArgumentsAdded(index, call.arguments)
                yield PartFinished(index)
        case Answer():
            yield PartStarted(0, Text(""))
            for piece in _pieces(done.text):
                yield TextAdded(0, piece)
            yield PartFinished(0)
    yield UsageReported(Usage())
    yield Finished("tool_use" if isinstance(done, Calls) else "end_turn")


def _pieces(text: str) -> Iterator[str]:
    """Some words at a time, as a client expects of a stream."""
    start = 0
    while start < len(text):
        end = start + PIECE_CHARS
        if end < len(text):
            space = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
            end = space + 1 if space > start else end
        yield text[start:end]
        start = end
