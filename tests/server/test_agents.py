"""The agents API, through Anthropic's unmodified SDK where it has a method, and by hand where we go further."""

import asyncio
from typing import Any

import anthropic
import pytest

from tests.server._world import World

TOOL = "kind: tool\nname: shelf\ntype: kv\nconfig: {table: shelf}\n"


async def test_an_agent_is_made_changed_listed_and_archived(shared: World) -> None:
    agents = shared.anthropic.beta.agents
    made = await agents.create(
        name="sdk-made", model="rules/none", system="Be brief.", description="A test", metadata={"team": "a"}
    )
    assert (made.id, made.name, made.version, made.type) == ("sdk-made", "sdk-made", 1, "agent")
    assert made.model.id == "rules/none"
    assert (made.system, made.description, made.metadata) == ("Be brief.", "A test", {"team": "a"})
    changed = await agents.update(made.id, version=made.version, system="Be long.")
    assert (changed.version, changed.system, changed.description) == (2, "Be long.", "A test")
    assert (await agents.retrieve(made.id)).version == 2
    assert (await agents.retrieve(made.id, version=1)).system == "Be brief."
    versions = [one.version async for one in agents.versions.list(made.id)]
    assert versions == [2, 1]
    assert made.id in [one.id async for one in agents.list()]
    archived = await agents.archive(made.id)
    assert archived.archived_at is not None
    assert made.id not in [one.id async for one in agents.list()]
    assert made.id in [one.id async for one in agents.list(include_archived=True)]


async def test_a_lost_race_for_an_agent_is_told(shared: World) -> None:
    agents = shared.anthropic.beta.agents
    made = await agents.create(name="raced", model="auto")
    results = await asyncio.gather(
        *(agents.update(made.id, version=made.version, system=f"Say {number}.") for number in range(5)),
        return_exceptions=True,
    )
    assert sum(not isinstance(one, BaseException) for one in results) == 1
    assert sum(isinstance(one, anthropic.ConflictError) for one in results) == 4
    with pytest.raises(anthropic.ConflictError, match="version"):
        await agents.update(made.id, version=1, system="Too late.")


async def test_a_second_agent_of_a_name_is_refused(shared: World) -> None:
    agents = shared.anthropic.beta.agents
    await agents.create(name="taken", model="auto")
    with pytest.raises(anthropic.ConflictError):
        await agents.create(name="taken", model="auto")


async def test_agents_come_in_pages(shared: World) -> None:
    agents = shared.anthropic.beta.agents
    names = [f"paged-{letter}" for letter in "abcde"]
    for name in names:
        await agents.create(name=name, model="auto")
    found = [one.id async for one in agents.list(limit=2)]
    assert [name for name in found if name.startswith("paged-")] == names
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tools": [{"type": "agent_toolset_20260401"}]}, r"tools\[0\].type: expected custom"),
        (
            {"mcp_servers": [{"type": "url", "name": "x", "url": "https://x"}]},
            "mcp_servers: declare tools as resources",
        ),
        ({"skills": [{"type": "anthropic", "skill_id": "x"}]}, "skills: declare tools as resources"),
    ],
)
async def test_what_we_do_not_have_is_refused_by_its_name(
    shared: World, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(anthropic.BadRequestError, match=said):
        await shared.anthropic.beta.agents.create(name="too-much", model="auto", **given)


async def test_what_is_ours_goes_and_comes_under_freehold(shared: World) -> None:
    await shared.apply(TOOL)
    ours = {"tools": ["shelf"], "limits": {"steps_max": 3}, "temperature": 0.5}
    made = await shared.anthropic.beta.agents.create(name="ours", model="auto", extra_body={"freehold": ours})
    kept = made.model_extra["freehold"] if made.model_extra else {}
    assert kept["tools"] == ["shelf"]
    assert kept["limits"]["steps_max"] == 3
    assert kept["temperature"] == 0.5
    again = await shared.anthropic.beta.agents.update(made.id, version=1, description="new")
    assert again.model_extra is not None
    assert again.model_extra["freehold"] == kept, "what is not named stays"


async def test_a_session_holds_on_to_the_version_it_was_begun_with(shared: World) -> None:
    beta = shared.anthropic.beta
    agent = await beta.agents.create(name="pinned", model="auto")
    await beta.agents.update(agent.id, version=1, system="New.")
    session = await beta.sessions.create(
        agent={"type": "agent", "id": agent.id, "version": 1},
        environment_id="default",
        metadata={"case": "7"},
    )
    assert (session.agent.id, session.agent.version, session.metadata) == (agent.id, 1, {"case": "7"})
    newest = await beta.sessions.create(agent=agent.id, environment_id="default")
    assert newest.agent.version == 2
    assert (await beta.sessions.retrieve(session.id)).agent.version == 1
    listed = [one.id async for one in beta.sessions.list(agent_id=agent.id)]
    assert listed == [newest.id, session.id]


async def test_sessions_are_found_by_status_and_in_pages(shared: World) -> None:
    beta = shared.anthropic.beta
    agent = await beta.agents.create(name="many", model="auto")
    made = [(await beta.sessions.create(agent=agent.id, environment_id="default")).id for _ in range(5)]
    assert [one.id async for one in beta.sessions.list(agent_id=agent.id, limit=2)] == made[::-1]
    assert [one.id async for one in beta.sessions.list(agent_id=agent.id, statuses=["running"])] == []


async def test_an_archived_agent_begins_no_session(shared: World) -> None:
    beta = shared.anthropic.beta
    agent = await beta.agents.create(name="gone", model="auto")
    await beta.agents.archive(agent.id)
    with pytest.raises(anthropic.NotFoundError, match="gone"):
        await beta.sessions.create(agent=agent.id, environment_id="default")


async def test_a_resource_of_any_kind_is_taken_out_of_use_and_its_versions_stay(shared: World) -> None:
    await shared.apply(TOOL.replace("shelf", "bin"))
    await shared.apply(TOOL.replace("shelf", "bin").replace("table: bin", "table: box"))
    archived = await shared.json("DELETE", "/v1/resources/tool/bin")
    assert (archived["archived"], archived["version"]) == (True, 2)
    assert (await shared.http.get("/v1/resources/tool/bin")).status_code == 404
    listed = await shared.json("GET", "/v1/resources?kind=tool&include_archived=true")
    assert ("bin", True) in [(one["name"], one["archived"]) for one in listed["data"]]
    versions = await shared.json("GET", "/v1/resources/tools/bin/versions")
    assert [one["version"] for one in versions["data"]] == [2, 1]
    assert (await shared.http.delete("/v1/resources/tool/bin")).status_code == 404
