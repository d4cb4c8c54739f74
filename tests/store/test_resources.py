"""Declared resources: every version kept, all or nothing, and nothing new for what is the same."""

import asyncio

import asyncpg
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests._waiting import eventually

from freehold.core.errors import BadRequest, Conflict, NotFound
from freehold.core.resources import Agent, Provider, Rule, Rules, Tool
from freehold.store.resources import CHANNEL
from freehold.store.store import Store

RULES = Rules(name="retail", rules=(Rule(name="stock", when="stock"),))
TOOL = Tool(name="stock", type="sql", config={"b": 1, "a": {"z": 1, "y": [1, 2]}})
AGENT = Agent(name="retail", tools=("stock",), rules="retail")


async def test_what_is_put_is_read_back_and_kept_by_version(store: Store) -> None:
    first = await store.resources.put("default", [RULES, TOOL, AGENT], by="user/ann")
    assert [(one.resource, one.version, one.created_by) for one in first] == [
        (RULES, 1, "user/ann"),
        (TOOL, 1, "user/ann"),
        (AGENT, 1, "user/ann"),
    ]
    changed = msgspec.structs.replace(AGENT, instructions="Be brief.")
    (second,) = await store.resources.put("default", [changed], by="user/bob")
    assert (second.version, second.created_by, second.created_at) == (2, "user/bob", first[2].created_at)
    assert await store.resources.get("default", "agent", "retail") == second
    assert (await store.resources.get("default", "agent", "retail", version=1)).resource == AGENT
    assert [one.version for one in await store.resources.versions("default", "agent", "retail")] == [2, 1]


async def test_putting_the_same_again_makes_no_version_even_with_other_order_of_keys(
    store: Store, store_url: str
) -> None:
    heard: list[str] = []
    listening = await asyncpg.connect(store_url)
    await listening.add_listener(CHANNEL, lambda *_: heard.append("changed"))
    await store.resources.put("default", [TOOL], by="ann")
    reordered = msgspec.structs.replace(TOOL, config={"a": {"y": [1, 2], "z": 1}, "b": 1})
    (same,) = await store.resources.put("default", [reordered], by="bob")
    assert (same.version, same.created_by) == (1, "ann")
    (other,) = await store.resources.put(
        "default", [msgspec.structs.replace(TOOL, config={"a": {"y": [2, 1], "z": 1}, "b": 1})], by="bob"
    )
    assert other.version == 2, "the order of a list means something"
    await eventually(lambda: len(heard) > 1)
    assert len(heard) == 2, "and nobody is told to look again"
    await listening.close()


async def test_a_put_is_all_or_nothing(store: Store) -> None:
    await store.resources.put("default", [TOOL], by="ann")
    changed = msgspec.structs.replace(TOOL, description="new")
    with pytest.raises(Conflict, match="tool stock was expected at version 7 and is at 1"):
        await store.resources.put("default", [AGENT, changed], by="ann", expected={("tool", "stock"): 7})
    with pytest.raises(NotFound):
        await store.resources.get("default", "agent", "retail")
    assert (await store.resources.get("default", "tool", "stock")).version == 1
    with pytest.raises(Conflict, match="0: does not exist"):
        await store.resources.put("default", [TOOL], by="ann", expected={("tool", "stock"): 0})
    await store.resources.put(
        "default", [changed, AGENT], by="ann", expected={("tool", "stock"): 1, ("agent", "retail"): 0}
    )


async def test_of_racing_puts_with_one_expectation_one_wins(store: Store, other: Store) -> None:
    results = await asyncio.gather(
        *(
            (store if number % 2 else other).resources.put(
                "default",
                [msgspec.structs.replace(AGENT, instructions=str(number))],
                by="ann",
                expected={("agent", "retail"): 0},
            )
            for number in range(8)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Conflict) for result in results) == 7
    assert len(await store.resources.versions("default", "agent", "retail")) == 1


async def test_racing_puts_without_expectation_each_make_a_version(store: Store, other: Store) -> None:
    await asyncio.gather(
        *(
            (store if number % 2 else other).resources.put(
                "default", [msgspec.structs.replace(AGENT, instructions=str(number))], by="ann"
            )
            for number in range(8)
        )
    )
    versions = await store.resources.versions("default", "agent", "retail")
    assert [one.version for one in versions] == list(range(8, 0, -1))


async def test_an_archived_resource_is_gone_but_its_versions_stay(store: Store) -> None:
    await store.resources.put("default", [AGENT], by="ann")
    await store.resources.archive("default", "agent", "retail", by="ann")
    with pytest.raises(NotFound):
        await store.resources.get("default", "agent", "retail")
    assert await store.resources.list("default") == []
    pinned = await store.resources.get("default", "agent", "retail", version=1)
    assert (pinned.resource, pinned.archived) == (AGENT, True)
    with pytest.raises(NotFound):
        await store.resources.archive("default", "agent", "retail", by="ann")
    (back,) = await store.resources.put("default", [AGENT], by="ann", expected={("agent", "retail"): 0})
    assert (back.version, back.archived) == (1, False)


async def test_a_name_that_is_nearly_right_is_helped(store: Store) -> None:
    with pytest.raises(NotFound, match="there is no agent at all yet"):
        await store.resources.get("default", "agent", "retial")
    await store.resources.put("default", [AGENT, Agent(name="zzz")], by="ann")
    with pytest.raises(NotFound, match="near: retail"):
        await store.resources.get("default", "agent", "retial")
    with pytest.raises(NotFound, match="known: retail, zzz"):
        await store.resources.get("default", "agent", "qqqqqq")
    with pytest.raises(NotFound, match="no version 9"):
        await store.resources.get("default", "agent", "retail", version=9)
    with pytest.raises(NotFound):
        await store.resources.versions("default", "agent", "nobody")
    with pytest.raises(NotFound):
        await store.resources.get("default", "agent", "x" * 500)


async def test_tenants_do_not_meet(store: Store) -> None:
    await store.resources.put("acme", [AGENT], by="ann")
    assert await store.resources.list("default") == []
    with pytest.raises(NotFound):
        await store.resources.archive("default", "agent", "retail", by="eve")


async def test_a_list_comes_in_the_order_in_which_kinds_refer_to_each_other(store: Store) -> None:
    await store.resources.put("default", [AGENT, TOOL, RULES, Provider(name="p", type="openai")], by="ann")
    listed = await store.resources.list("default")
    assert [type(one.resource) for one in listed] == [Provider, Rules, Tool, Agent]
    assert [one.resource for one in await store.resources.list("default", "tool")] == [TOOL]


async def test_bad_puts_are_refused_by_name(store: Store) -> None:
    with pytest.raises(BadRequest, match=r"resources\[1\]: agent retail is given twice"):
        await store.resources.put("default", [AGENT, AGENT], by="ann")
    with pytest.raises(BadRequest, match=r"resources\[0\].name"):
        await store.resources.put("default", [Agent(name="Not Good")], by="ann")
    with pytest.raises(BadRequest, match="tool nothing"):
        await store.resources.put("default", [AGENT], by="ann", expected={("tool", "nothing"): 1})
    assert await store.resources.put("default", [], by="ann") == []


async def test_another_process_hears_of_changes(store: Store, other: Store) -> None:
    for change in (
        lambda: store.resources.put("default", [AGENT], by="ann"),
        lambda: store.resources.archive("default", "agent", "retail", by="ann"),
    ):
        before = other.resources.generation()
        await change()
        await eventually(lambda before=before: other.resources.generation() > before)


json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(config=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json, max_size=4))
async def test_any_config_comes_back_as_it_was(store: Store, config: dict[str, object]) -> None:
    tool = Tool(name="any", type="sql", config=config)
    (put,) = await store.resources.put("default", [tool], by="ann")
    assert put.resource == tool
    assert list(put.resource.config) == list(config), "in the author's order"
