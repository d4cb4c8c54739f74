"""An agent's tools as the flat list of functions that a model sees; who opens them, and when they are closed."""

import asyncio
import contextlib

import pytest
from msgspec import Struct, structs

from freehold.core.errors import BadRequest, FreeholdError, TimedOut, Unavailable
from freehold.core.messages import ToolSpec
from freehold.core.ports import ToolFunction
from freehold.core.resources import Tool
from freehold.runtime import tools as tools_module
from freehold.runtime.declared import DeclaredTool
from freehold.runtime.tools import OPEN_TOOLS_MAX, ToolSet
from tests._waiting import within
from tests.runtime._world import LEDGER, LedgerKind


class NamedConfig(Struct, forbid_unknown_fields=True):
    names: tuple[str, ...] = ("",)


class NamedTool:
    def __init__(self, names) -> None:
        self.functions = [ToolFunction(ToolSpec(name, f"about {name}"), "pure") for name in names]


class NamedKind:
    name, config = "named", NamedConfig

    @contextlib.asynccontextmanager
    async def open(self, tool, config, host):
        yield NamedTool(config.names)


def named(name: str, *names: str, **fields) -> DeclaredTool:
    return DeclaredTool(Tool(name=name, type="named", config={"names": list(names)}, **fields), 1)


async def _names(*tools: DeclaredTool) -> list[str]:
    tool_set = ToolSet({"named": NamedKind()}, host=None)
    async with tool_set.running(), tool_set.borrow("acme", "clerk", tools) as toolbox:
        return [spec.name for spec in toolbox.specs]


@pytest.mark.parametrize(
    ("functions", "names"),
    [
        (("",), ["stock"]),
        (("stock",), ["stock"]),
        (("get", "put"), ["stock_get", "stock_put"]),
        (("query",), ["stock_query"]),
    ],
)
async def test_functions_are_named_after_their_tool(functions, names):
    assert await _names(named("stock", *functions)) == names


async def test_only_declared_functions_are_offered_in_the_declared_order():
    assert await _names(named("stock", "a", "b", "c", functions=("c", "a"))) == ["stock_c", "stock_a"]


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        ((named("a_b", "c", "x"), named("a", "b_c", "x")), "would both be called 'a_b_c'"),
        ((named("stock", "get it"),), "1-64 letters"),
        ((named("stock", "x" * 80, "y"),), "shorter name"),
        (
            (named("stock", "get", functions=("got",)),),
            r"no function 'got' \(did you mean 'get'\?\); it has: get",
        ),
        ((named("stock", *(f"f{n}" for n in range(129))),), "128 functions at most"),
        ((DeclaredTool(Tool(name="x", type="nmed"), 1),), r"unknown type 'nmed' \(did you mean 'named'\?\)"),
        ((DeclaredTool(Tool(name="x", type="named", config={"nmes": []}), 1),), "config.nmes: unknown field"),
    ],
)
async def test_what_cannot_be_offered_is_refused_by_name(tools, why):
    with pytest.raises(BadRequest, match=why):
        await _names(*tools)


async def test_a_tools_own_effect_outweighs_its_functions():
    tool_set = ToolSet({"named": NamedKind()}, host=None)
    declared = named("stock", "get", effect="irreversible")
    async with tool_set.running(), tool_set.borrow("acme", "clerk", [declared]) as toolbox:
        assert toolbox.functions["stock_get"].effect == "irreversible"


LEDGER_1 = DeclaredTool(LEDGER, 1)


async def test_an_open_tool_is_shared_and_closed_at_the_end():
    kind = LedgerKind()
    tool_set = ToolSet({"ledger": kind}, host=None)
    async with tool_set.running():

        async def use():
            async with tool_set.borrow("acme", "clerk", [LEDGER_1]):
                await asyncio.sleep(0)

        await asyncio.gather(*(use() for _ in range(50)))
        assert (kind.opened, kind.open_now) == (1, 1)
    assert kind.open_now == 0


async def test_another_tenant_gets_its_own():
    kind = LedgerKind()
    tool_set = ToolSet({"ledger": kind}, host=None)
    async with (
        tool_set.running(),
        tool_set.borrow("acme", "clerk", [LEDGER_1]),
        tool_set.borrow("other", "clerk", [LEDGER_1]),
    ):
        assert kind.open_now == 2


async def test_an_old_version_is_closed_when_its_last_user_is_done():
    kind = LedgerKind()
    tool_set = ToolSet({"ledger": kind}, host=None)
    async with tool_set.running():
        newer = DeclaredTool(LEDGER, 2)
        async with tool_set.borrow("acme", "clerk", [LEDGER_1]), tool_set.borrow("acme", "clerk", [newer]):
            assert kind.open_now == 2
        async with within("the older one to be closed"):
            while kind.open_now != 1:  # noqa: ASYNC110 - closed by a task of its own
                await asyncio.sleep(0)


async def test_a_tool_that_stopped_answering_is_opened_anew():
    kind = LedgerKind()
    tool_set = ToolSet({"ledger": kind}, host=None)
    async with tool_set.running():
        async with tool_set.borrow("acme", "clerk", [LEDGER_1]) as toolbox:
            toolbox.distrust("ledger")
        async with tool_set.borrow("acme", "clerk", [LEDGER_1]):
            assert kind.opened == 2


async def test_a_tool_that_does_not_open_is_named_and_tried_again_the_next_time():
    kind = LedgerKind()
    kind.fault = Unavailable("connection refused")
    tool_set = ToolSet({"ledger": kind}, host=None)
    async with tool_set.running():
        with pytest.raises(
            Unavailable, match="tool 'ledger' of agent 'clerk' can't be used: connection refused"
        ):
            async with tool_set.borrow("acme", "clerk", [LEDGER_1]):
                pass
        kind.fault = None
        async with tool_set.borrow("acme", "clerk", [LEDGER_1]):
            assert kind.open_now == 1


async def test_a_bug_in_opening_tells_nothing_of_its_insides(caplog):
    class Bad(LedgerKind):
        @contextlib.asynccontextmanager
        async def open(self, tool, config, host):
            raise RuntimeError("secret")
            yield

    tool_set = ToolSet({"ledger": Bad()}, host=None)
    async with tool_set.running():
        with pytest.raises(FreeholdError, match="failed inside Freehold") as caught:
            async with tool_set.borrow("acme", "clerk", [LEDGER_1]):
                pass
    assert "secret" not in str(caught.value)


async def test_a_tool_that_never_opens_is_given_up(monkeypatch):
    monkeypatch.setattr(tools_module, "OPEN_S_MAX", 0.01)

    class Slow(LedgerKind):
        @contextlib.asynccontextmanager
        async def open(self, tool, config, host):
            await asyncio.Event().wait()
            yield

    tool_set = ToolSet({"ledger": Slow()}, host=None)
    async with tool_set.running():
        with pytest.raises(TimedOut, match="did not open"):
            async with tool_set.borrow("acme", "clerk", [LEDGER_1]):
                pass


async def test_idle_tools_are_kept_up_to_a_bound():
    kind = LedgerKind()
    tool_set = ToolSet({"ledger": kind}, host=None)
    async with tool_set.running():
        for number in range(OPEN_TOOLS_MAX + 10):
            tool = structs.replace(LEDGER, name=f"ledger{number}")
            async with tool_set.borrow("acme", "clerk", [DeclaredTool(tool, 1)]):
                pass
        async with within("the oldest to be closed"):
            while kind.open_now > OPEN_TOOLS_MAX:  # noqa: ASYNC110 - closed by tasks of their own
                await asyncio.sleep(0)
