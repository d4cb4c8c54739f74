"""Archiving and deleting sessions, by the unmodified `anthropic` SDK and the command line's paths."""

import anthropic
import pytest

from tests.server._world import World
from tests.server.test_sessions import says

TEMPLATE = """
kind: agent
name: forgetful
model: openai/gpt-4o
context: {strategy: window, keep_turns: 2, tool_result_bytes_max: 1000}
"""


@pytest.fixture(scope="module")
async def ready(shared: World) -> World:
    await shared.apply(TEMPLATE)
    return shared


async def at_rest(world: World) -> str:
    world.script("openai", says("Hello."))
    session_id = await world.session("forgetful", "Hello?")
    await world.until_idle(session_id)
    return session_id


async def test_a_deleted_session_is_gone(ready: World) -> None:
    sessions, session_id = ready.anthropic.beta.sessions, await at_rest(ready)
    deleted = await sessions.delete(session_id)
    assert (deleted.id, deleted.type) == (session_id, "session_deleted")
    with pytest.raises(anthropic.NotFoundError):
        await sessions.retrieve(session_id)
    with pytest.raises(anthropic.NotFoundError):
        await sessions.delete(session_id)


async def test_an_archived_session_is_only_read(ready: World) -> None:
    sessions, session_id = ready.anthropic.beta.sessions, await at_rest(ready)
    archived = await sessions.archive(session_id)
    assert archived.archived_at is not None
    said = {"type": "user.message", "content": [{"type": "text", "text": "Still there?"}]}
    with pytest.raises(anthropic.ConflictError, match="archived"):
        await sessions.events.send(session_id, events=[said])
    listed = [one.id async for one in await sessions.list(agent_id="forgetful")]
    assert session_id not in listed
    listed = [one.id async for one in await sessions.list(agent_id="forgetful", include_archived=True)]
    assert session_id in listed
    assert len(await ready.events(session_id)) > 0
