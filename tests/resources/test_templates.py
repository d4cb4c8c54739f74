"""Planning and applying against a real store: what is refused, what is written, and that a lost race writes nothing."""

import asyncio
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import Struct

from freehold.clock import SystemClock
from freehold.core.errors import BadRequest, Conflict, Forbidden, NotFound
from freehold.core.policy import ALLOW_ALL, Policy, Principal, Statement
from freehold.core.resources import Agent, Resource
from freehold.providers import rules as rules_provider
from freehold.resources.templates import Templates
from freehold.store.store import Store

_tenants = itertools.count(1)

SHOP = """\
kind: tool
name: stock
type: kv
config:
  table: inventory
---
kind: agent
name: clerk
model: house/small
tools: [stock]
"""


class KvConfig(Struct, frozen=True, forbid_unknown_fields=True):
    table: str
    limit: int = 10


async def check_model(tenant: str, model: str, beside: Sequence[Resource]) -> None:
    if model not in {"auto", "house/small"}:
        raise NotFound(f"no model {model!r} is known", field="model")


class Ahead(SystemClock):
    """Of the time that it is, by so much."""

    by = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.by


@pytest.fixture
def clock() -> Ahead:
    return Ahead()


@pytest.fixture
def templates(store: Store, clock: Ahead) -> Templates:
    return Templates(
        store.resources,
        clock,
        tool_configs={"kv": KvConfig, "sql": KvConfig},
        provider_types=["anthropic", "openai"],
        check_model=check_model,
        check_rules=rules_provider.check,
    )


@pytest.fixture
def someone() -> Principal:
    return Principal(f"tenant{next(_tenants)}", "user", "someone", (ALLOW_ALL,))


async def problems(templates: Templates, who: Principal, text: str) -> list[str]:
    with pytest.raises(BadRequest) as caught:
        await templates.apply(who, text, source="shop.yaml")
    return caught.value.message.splitlines()


async def actions(templates: Templates, who: Principal, text: str) -> list[tuple[str, str, int]]:
    return [(one.action, one.name, one.version) for one in (await templates.plan(who, text)).changes]


async def test_one_time_that_has_passed_is_refused_unless_it_was_declared_before(
    templates: Templates, someone: Principal, clock: Ahead
) -> None:
    once = "---\nkind: deployment\nname: audit\nagent: clerk\nmessages: [Count.]\nschedule: {{type: once, at: '{}'}}\n"
    at = datetime.now(UTC) + timedelta(hours=1)
    text = SHOP + once.format(at.isoformat())
    await templates.apply(someone, text)
    clock.by = timedelta(hours=2)
    assert {one[0] for one in await actions(templates, someone, text)} == {"unchanged"}
    await templates.apply(someone, text.replace("[Count.]", "[Count again.]"))
    earlier = SHOP + once.format((at - timedelta(minutes=1)).isoformat())
    for refused in (earlier, text.replace("name: audit", "name: another")):
        [problem] = await problems(templates, someone, refused)
        assert "schedule.at: expected a time to come, got" in problem
        with pytest.raises(BadRequest, match="freehold deployments run"):
            await templates.plan(someone, refused)
    [naive] = await problems(templates, someone, SHOP + once.format("2020-01-01T00:00:00"))
    assert "with its offset from UTC" in naive


async def test_planning_changes_nothing_and_applying_does_what_was_planned(
    templates: Templates, store: Store, someone: Principal
) -> None:
    assert await actions(templates, someone, SHOP) == [("create", "stock", 0), ("create", "clerk", 0)]
    assert await store.resources.list(someone.tenant) == []
    applied = await templates.apply(someone, SHOP)
    assert [one.action for one in applied.plan.changes] == ["create", "create"]
    assert [(one.resource.name, one.version, one.created_by) for one in applied.resources] == [
        ("stock", 1, "someone"),
        ("clerk", 1, "someone"),
    ]


async def test_applying_again_changes_nothing_and_a_change_makes_a_version(
    templates: Templates, someone: Principal
) -> None:
    await templates.apply(someone, SHOP)
    again = await templates.apply(someone, SHOP)
    assert (again.plan.changes_anything, again.resources) == (False, ())
    changed = await templates.apply(someone, SHOP + "description: Knows the shelves\n")
    assert [(one.resource.name, one.version) for one in changed.resources] == [("clerk", 2)]


async def test_what_was_archived_comes_back_as_a_new_creation(
    templates: Templates, store: Store, someone: Principal
) -> None:
    await templates.apply(someone, SHOP)
    await store.resources.archive(someone.tenant, "agent", "clerk", by="someone")
    assert ("create", "clerk", 0) in await actions(templates, someone, SHOP)
    await templates.apply(someone, SHOP)
    assert (await store.resources.get(someone.tenant, "agent", "clerk")).archived is False


async def test_an_archived_tool_is_no_tool(templates: Templates, store: Store, someone: Principal) -> None:
    await templates.apply(someone, SHOP)
    await store.resources.archive(someone.tenant, "tool", "stock", by="someone")
    only_agent = SHOP.split("---\n")[1] + "description: new\n"
    assert await problems(templates, someone, only_agent) == [
        "shop.yaml:4: agent clerk: tools[0]: there is no tool 'stock'; known: none"
    ]


async def test_every_problem_is_listed_with_its_line_and_nothing_is_written(
    templates: Templates, store: Store, someone: Principal
) -> None:
    text = """\
kind: provider
name: mine
type: opneai
api_key: sk-plain
---
kind: rules
name: answers
rules:
  - name: one
    when: "(unclosed"
    answer: x
---
kind: tool
name: stock
type: kv
config:
  table: inventory
  limits: 3
---
kind: tool
name: other
type: kvv
timeout_s: 0
---
kind: agent
name: clerk
model: house/smal
rules: answer
tools:
  - stokc
limits:
  wall_time_s_max: -1
  cost_max_usd: "a lot"
"""
    found = await problems(templates, someone, text)
    assert found[0] == (
        "shop.yaml:3: provider mine: type: expected one of anthropic, openai; got 'opneai' (did you mean 'openai'?)"
    )
    assert found[1] == (
        "shop.yaml:4: provider mine: api_key: expected a reference (env:NAME or file:PATH), never the key itself"
    )
    assert found[2].startswith("shop.yaml:10: rules answers: rules[0].when: ")
    assert found[3] == (
        "shop.yaml:18: tool stock: config.limits: unknown field 'limits' (did you mean 'limit'?); known: table, limit"
    )
    assert found[4] == (
        "shop.yaml:22: tool other: type: expected one of kv, sql; got 'kvv' (did you mean 'kv'?)"
    )
    assert found[5] == (
        "shop.yaml:30: agent clerk: tools[0]: there is no tool 'stokc' (did you mean 'stock'?); known: other, stock"
    )
    assert found[6] == (
        "shop.yaml:28: agent clerk: rules: there are no rules 'answer' (did you mean 'answers'?); known: answers"
    )
    assert found[7] == "shop.yaml:32: agent clerk: limits.wall_time_s_max: expected more than 0, got -1.0"
    assert found[8].startswith(
        "shop.yaml:33: agent clerk: limits.cost_max_usd: expected money as decimal text"
    )
    assert found[9] == (
        "shop.yaml:27: agent clerk: model: no model 'house/smal' is known (--allow-unknown-models applies it all the same)"
    )
    assert len(found) == 10
    assert await store.resources.list(someone.tenant) == []


async def test_a_model_that_nobody_knows_can_be_allowed(templates: Templates, someone: Principal) -> None:
    text = "kind: agent\nname: clerk\nmodel: house/new\n"
    planned = await templates.plan(someone, text, source="a.yaml", unknown_models_allowed=True)
    assert planned.warnings == ("a.yaml:3: agent clerk: model: no model 'house/new' is known",)
    assert (await templates.apply(someone, text, unknown_models_allowed=True)).resources[0].version == 1


async def test_of_two_at_once_one_wins_whole_and_the_other_writes_nothing(
    templates: Templates, store: Store, someone: Principal
) -> None:
    """Each round both change the same agent, and each a tool of its own: the loser's tool must not be there."""
    await templates.apply(someone, SHOP)
    lost = 0
    for number in itertools.count():
        if number >= 10 and lost:
            break  # Else none of them met another, and it goes on until some do.
        texts = [
            SHOP.replace("inventory", f"table_{number}_{side}") + f"description: {number} {side}\n"
            for side in "ab"
        ]
        results = await asyncio.gather(
            *(templates.apply(someone, text) for text in texts), return_exceptions=True
        )
        lost += sum(isinstance(result, Conflict) for result in results)
        assert all(
            not isinstance(result, BaseException) or isinstance(result, Conflict) for result in results
        )
        tool = (await store.resources.get(someone.tenant, "tool", "stock")).resource
        agent = (await store.resources.get(someone.tenant, "agent", "clerk")).resource
        assert isinstance(agent, Agent)
        side = agent.description[-1]
        assert tool.config == {"table": f"table_{number}_{side}"}  # type: ignore[union-attr]


async def test_each_resource_needs_its_own_permission(
    templates: Templates, store: Store, someone: Principal
) -> None:
    tools_only = Policy((Statement("Allow", ("template:Plan", "tool:Put"), "*"),))
    limited = Principal(someone.tenant, "user", "limited", (tools_only,))
    with pytest.raises(Forbidden, match="agent:Put on agent/clerk"):
        await templates.apply(limited, SHOP)
    assert await store.resources.list(someone.tenant) == []
    assert len((await templates.plan(limited, SHOP)).changes) == 2
    nobody = Principal(someone.tenant, "user", "nobody", (Policy(()),))
    with pytest.raises(Forbidden, match="template:Plan"):
        await templates.plan(nobody, SHOP)
