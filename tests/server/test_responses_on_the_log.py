"""Kept responses and conversations are sessions of a kind of their own: listed, looked into, and made by any worker there is."""

import json
from pathlib import Path

import openai
import pytest

from freehold.app import open_house, open_workshop
from freehold.config import Config, Database, Models
from freehold.core.response_facts import ConversationStarted, ItemAdded
from freehold.core.responses import folded
from freehold.runtime.recording import Recording, read_lines
from tests._waiting import within
from tests.gateway._vendors import ANTHROPIC_STREAM, ANTHROPIC_TEXT, Vendor, reply, stream
from tests.server._world import ENVIRONMENT, World, served
from tests.server.test_responses_background import ended

CLAUDE = "anthropic/claude-sonnet-4-5"


async def kinds(shared: World, **query: str) -> set[str]:
    page = await shared.json("GET", "/v1/sessions", params={"limit": "100", **query})
    return {one["id"].partition("_")[0] for one in page["data"]}


async def exported(shared: World, session_id: str) -> Recording:
    answer = await shared.http.get(f"/v1/sessions/{session_id}/export")
    assert answer.status_code == 200, answer.text
    found = read_lines(answer.content.splitlines())
    assert found.session_id == session_id
    return found


async def test_each_kind_is_listed_by_its_name_and_agents_sessions_without_one(shared: World) -> None:
    shared.script("anthropic", reply(ANTHROPIC_TEXT))
    made = await shared.openai.responses.create(model=CLAUDE, input="Hi")
    begun = await shared.openai.conversations.create()
    assert await kinds(shared) <= {"sess"}
    assert await kinds(shared, kind="response") == {"resp"}
    assert await kinds(shared, kind="conversation") == {"conv"}
    for one, kind in ((made.id, "response"), (begun.id, "conversation")):
        shown = await shared.json("GET", f"/v1/sessions/{one}")
        assert (shown["id"], shown["freehold"]["kind"], shown["status"]) == (one, kind, "idle")
        assert (await shared.http.post(f"/v1/sessions/{one}/cancel", json={})).status_code == 400
        assert (await shared.http.delete(f"/v1/sessions/{one}")).status_code == 400


async def test_a_log_says_what_was_asked_and_answered_and_who_goes_on_with_it(shared: World) -> None:
    shared.script("anthropic", stream(*ANTHROPIC_STREAM))
    first = await shared.openai.responses.create(model=CLAUDE, input="Hi", background=True)
    await ended(shared.openai, first.id)
    shared.script("anthropic", reply(ANTHROPIC_TEXT))
    second = await shared.openai.responses.create(model=CLAUDE, input="More", previous_response_id=first.id)
    events = await shared.events(first.id)
    assert [one["type"] for one in events] == [
        "freehold.response_asked",
        "freehold.response_begun",
        "freehold.response_ended",
    ]
    assert events[0]["background"]
    assert (events[-1]["status"], events[-1]["usage"]["output_tokens"] > 0) == ("completed", True)
    told = await shared.events(second.id)
    assert [one["type"] for one in told] == ["freehold.response_asked", "freehold.response_ended"]
    assert told[0]["previous_response_id"] == first.id
    family = await shared.json("GET", f"/v1/sessions/{first.id}/family")
    assert [one["id"] for one in family["forks"]] == [second.id]


async def test_what_is_kept_is_exported_whole_and_read_again(shared: World) -> None:
    """Clients' own line breaks are in the log, and not in the lines of the export."""
    shared.script("anthropic", reply(ANTHROPIC_TEXT))
    body = b'{\n "model": "anthropic/claude-sonnet-4-5",\n "input": [\n {"role": "user",\n "content": "Hi\\nthere"}]}'
    made = (await shared.http.post("/v1/responses", content=body)).json()
    begun = await shared.json("POST", "/v1/conversations", {"items": [{"role": "user", "content": "Kept"}]})
    kept = folded(made["id"], "", [one.event for one in (await exported(shared, made["id"])).events])
    assert json.loads(kept.input)[0]["content"] == "Hi\nthere"
    assert json.loads(kept.output) == made["output"]
    started, added = (one.event for one in (await exported(shared, begun["id"])).events)
    assert isinstance(started, ConversationStarted)
    assert isinstance(added, ItemAdded)
    assert "Kept" in bytes(added.item).decode()


async def test_what_only_agents_sessions_know_is_refused_with_what_to_do_instead(shared: World) -> None:
    shared.script("anthropic", reply(ANTHROPIC_TEXT))
    made = await shared.openai.responses.create(model=CLAUDE, input="Hi")
    begun = await shared.openai.conversations.create()
    spoken = {"events": [{"type": "user.message", "content": "Hi"}]}
    for one, verb, body, instead in (
        (made.id, "fork", {}, "previous_response_id"),
        (made.id, "replay", {}, "nothing to replay"),
        (made.id, "replay", {"model": "auto"}, "nothing to replay"),
        (made.id, "events", spoken, "previous_response_id"),
        (made.id, "cancel", {}, f"POST /v1/responses/{made.id}/cancel"),
        (made.id, "pause", {}, "nothing to pause"),
        (begun.id, "fork", {}, "POST /v1/conversations"),
        (begun.id, "cancel", {}, "nothing runs in it"),
        (begun.id, "", {"title": "x"}, f"POST /v1/conversations/{begun.id}"),
    ):
        path = f"/v1/sessions/{one}/{verb}".rstrip("/")
        refused = await shared.http.post(path, json=body)
        told = refused.json()["error"]["message"]
        assert (refused.status_code, f"{one} is a kept " in told, instead in told) == (400, True, True), told
    refused = await shared.http.delete(f"/v1/sessions/{made.id}")
    assert f"DELETE /v1/responses/{made.id}" in refused.text
    refused = await shared.http.get("/v1/sessions?kind=response&agent_id=echo")
    assert (refused.status_code, "no agent acts in a response" in refused.text) == (400, True)


async def test_whoever_may_read_sessions_may_not_yet_read_responses(shared: World) -> None:
    shared.script("anthropic", reply(ANTHROPIC_TEXT))
    made = await shared.openai.responses.create(model=CLAUDE, input="Hi")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "session:Read"}]}
    key = await shared.json("POST", "/v1/keys", {"name": "reader", "policy": policy})
    headers = {"authorization": f"Bearer {key['key']}"}
    for path in (
        f"/v1/sessions/{made.id}",
        f"/v1/sessions/{made.id}/events",
        f"/v1/sessions/{made.id}/export",
        "/v1/sessions?kind=response",
    ):
        refused = await shared.http.get(path, headers=headers)
        assert (refused.status_code, "response:Get" in refused.text) == (403, True)


@pytest.mark.slow
async def test_a_worker_without_a_door_makes_what_a_server_that_does_not_work_took(
    database_url: str, tmp_path: Path
) -> None:
    async with Vendor(stream(*ANTHROPIC_STREAM)) as vendor:

        def config(folder: str) -> Config:
            return Config(
                data_folder=tmp_path / folder,
                database=Database(url=database_url),
                models=Models(discover_local=False, upstreams={"anthropic_messages": vendor.url}),
                environment=ENVIRONMENT,
            )

        async with (
            open_house(config("server"), works=False) as house,
            served(house) as door,
            openai.AsyncOpenAI(
                base_url=f"{door.url}/v1", api_key=house.operator_key, max_retries=0
            ) as client,
        ):
            told = await client.responses.create(model=CLAUDE, input="Hi", background=True, stream=True)
            first = await anext(aiter(told))
            assert (await client.responses.retrieve(first.response.id)).status == "queued"
            assert not vendor.asked
            async with open_workshop(config("worker")), within("the worker to make it"):
                kinds = [event.type async for event in told]
            assert kinds[-1] == "response.completed"
            found = await client.responses.retrieve(first.response.id)
            assert (found.status, found.output_text) == ("completed", "Hello there")
