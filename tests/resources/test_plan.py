"""What applying would change, told field by field."""

from datetime import UTC, datetime

from freehold.core.ports import Versioned
from freehold.core.resources import Agent, Limits, Resource, Tool
from freehold.resources.plan import Change, FieldChange, plan

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def kept(resource: Resource, version: int = 3, *, archived: bool = False) -> Versioned:
    return Versioned(resource=resource, version=version, created_at=NOW, updated_at=NOW, archived=archived)


def changed(before: Resource, after: Resource) -> tuple[FieldChange, ...]:
    made = plan([after], {("agent" if isinstance(after, Agent) else "tool", after.name): kept(before)})
    (change,) = made.changes
    assert change.action == "update"
    assert change.version == 3
    assert made.changes_anything
    return change.fields


def test_what_is_not_there_is_created() -> None:
    assert plan([Agent(name="a")], {}).changes == (Change("create", "agent", "a", 0),)


def test_what_is_the_same_is_unchanged() -> None:
    made = plan([Agent(name="a")], {("agent", "a"): kept(Agent(name="a", model="auto"))})
    assert made.changes == (Change("unchanged", "agent", "a", 3),)
    assert not made.changes_anything


def test_what_was_archived_is_created_again() -> None:
    made = plan([Agent(name="a")], {("agent", "a"): kept(Agent(name="a"), archived=True)})
    assert made.changes[0].action == "create"


def test_changes_are_told_by_path() -> None:
    before = Agent(name="a", model="x/y", tools=("t", "u"), limits=Limits(steps_max=5), description="old")
    after = Agent(name="a", model="x/z", tools=("t", "v"), limits=Limits(steps_max=5, tokens_max=9))
    assert changed(before, after) == (
        FieldChange("model", "x/y", "x/z"),
        FieldChange("description", "old", None),
        FieldChange("tools[1]", "u", "v"),
        FieldChange("limits.tokens_max", None, 9),
    )


def test_a_list_of_another_length_is_told_whole() -> None:
    assert changed(Agent(name="a", tools=("t",)), Agent(name="a", tools=("t", "u"))) == (
        FieldChange("tools", ["t"], ["t", "u"]),
    )


def test_a_tools_free_configuration_is_compared_as_deep_as_it_goes() -> None:
    before = Tool(name="t", type="kv", config={"a": {"b": [1, {"c": 2}]}, "gone": True})
    after = Tool(name="t", type="kv", config={"a": {"b": [1, {"c": 3}]}, "new": 1})
    assert changed(before, after) == (
        FieldChange("config.a.b[1].c", 2, 3),
        FieldChange("config.gone", True, None),
        FieldChange("config.new", None, 1),
    )
