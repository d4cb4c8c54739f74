"""A whole installation in the EU, and one that does not say where it is: labelled requests, sessions, batches, and every way around."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from freehold.config import Residency
from freehold.store.embedded import EmbeddedServer
from tests._postgres import MIGRATED, fresh_database
from tests.gateway._vendors import ANTHROPIC_TEXT, OPENAI_TEXT, reply
from tests.server._world import World, world
from tests.store._parts import eventually

DECLARED = """
kind: provider
name: inside
type: openai
base_url: {openai}/v1
api_key: env:OPENAI_API_KEY
regions: [eu]
---
kind: provider
name: outside
type: anthropic
base_url: {anthropic}
api_key: env:ANTHROPIC_API_KEY
regions: [us]
---
kind: route
name: both
models: [outside/claude-sonnet-4-5, inside/gpt-4o]
cache: {{ answers: all, shared: true }}
---
kind: agent
name: abroad
model: outside/claude-sonnet-4-5
---
kind: agent
name: held
model: both
labels: [eu]
"""
EU = {"x-freehold-labels": "eu"}
HI = [{"role": "user", "content": "Hi"}]
ABROAD = "outside/claude-sonnet-4-5"


@pytest.fixture(scope="module", params=["eu", "nowhere"])
async def own(
    request: pytest.FixtureRequest, postgres_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    folder: Path = tmp_path_factory.mktemp("residency")
    home = Residency(regions=("eu",)) if request.param == "eu" else Residency()
    async with (
        fresh_database(postgres_server, template=MIGRATED) as url,
        world(url, folder, residency=home) as opened,
    ):
        addresses = {name: vendor.url for name, vendor in opened.vendors.items()}
        await opened.apply(DECLARED.format(**addresses))
        yield opened


@pytest.fixture
def home(request: pytest.FixtureRequest, own: World) -> str:
    return str(request.node.callspec.params["own"])


@pytest.fixture(autouse=True)
def scripted(own: World) -> None:
    own.script("openai", reply(OPENAI_TEXT))
    own.script("anthropic", reply(ANTHROPIC_TEXT))


def abroad(own: World) -> int:
    return len(own.vendors["anthropic"].asked)


async def ask(own: World, model: str, headers: dict[str, str] | None = None, **more: Any) -> httpx2.Response:
    body = {"model": model, "messages": HI, **more}
    return await own.http.post("/v1/chat/completions", json=body, headers=headers or {})


async def test_a_labelled_call_goes_nowhere_else_and_its_refusal_says_why(own: World) -> None:
    refused = await ask(own, ABROAD, EU)
    assert refused.status_code == 403
    assert "labelled eu" in refused.text
    routed = await ask(own, "both", EU)
    assert routed.headers["x-freehold-model"] == "inside/gpt-4o"
    assert (await ask(own, "both", {"x-freehold-labels": "!"})).status_code == 400
    assert abroad(own) == 0


async def test_an_answer_from_abroad_is_not_given_again_to_a_labelled_request(own: World, home: str) -> None:
    question: dict[str, Any] = {"temperature": 0, "seed": 11}
    assert (await ask(own, "both", **question)).headers["x-freehold-cache"] == "miss"
    again = await ask(own, "both", **question)
    assert again.headers["x-freehold-cache"] == "hit"
    assert again.headers["age"] == "0"
    assert abroad(own) == 1
    for told in ("miss", "hit") if home == "eu" else (None, None):
        labelled = await ask(own, "both", EU, **question)
        assert labelled.headers["x-freehold-model"] == "inside/gpt-4o"
        assert labelled.headers.get("x-freehold-cache") == told
    assert abroad(own) == 1


@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/v1/responses/input_tokens"])
async def test_a_count_is_not_asked_for_abroad(own: World, path: str) -> None:
    body: dict[str, Any] = {"model": ABROAD}
    body |= {"messages": HI} if "messages" in path else {"input": "Hi"}
    assert (await own.http.post(path, json=body, headers=EU)).status_code == 403
    assert abroad(own) == 0


async def test_texts_are_not_embedded_abroad(own: World) -> None:
    body = {"model": "outside/text-embedding-3-small", "input": "Hi"}
    refused = await own.http.post("/v1/embeddings", json=body, headers=EU)
    assert refused.status_code in {400, 403}
    assert abroad(own) == 0


async def test_a_labelled_key_labels_all_that_it_does_and_makes_only_labelled_keys(own: World) -> None:
    made = await own.json("POST", "/v1/keys", {"name": "one", "labels": ["eu"]})
    assert made["labels"] == ["eu"]
    headers = {"authorization": f"Bearer {made['key']}"}
    assert (await ask(own, ABROAD, headers)).status_code == 403
    second = await own.json("POST", "/v1/keys", {"name": "two"}, headers=headers)
    assert second["labels"] == ["eu"]
    assert abroad(own) == 0


async def test_what_is_labelled_is_kept_in_no_conversation_that_may_go_on_elsewhere(own: World) -> None:
    for more in ({}, {"background": True}, {"store": True}):
        kept = await own.http.post(
            "/v1/responses", json={"model": "inside/gpt-4o", "input": "Hi", **more}, headers=EU
        )
        assert kept.status_code == 403
        assert "store: false" in kept.text
    assert own.vendors["openai"].asked == []


async def test_a_batch_is_held_where_it_is_written_and_by_whom_it_asks(own: World, home: str) -> None:
    def batch(model: str) -> dict[str, Any]:
        params = {"model": model, "max_tokens": 10, "messages": HI}
        return {"requests": [{"custom_id": "one", "params": params}]}

    assert (await own.http.post("/v1/messages/batches", json=batch(ABROAD), headers=EU)).status_code == 403
    made = await own.http.post("/v1/messages/batches", json=batch("both"), headers=EU)
    if home != "eu":
        assert made.status_code == 403
        assert "kept here" in made.text
        assert abroad(own) == 0
        return
    batch_id = made.json()["id"]

    async def ended() -> bool:
        shown = await own.json("GET", f"/v1/messages/batches/{batch_id}")
        return bool(shown["processing_status"] == "ended")

    await eventually(ended)
    shown = await own.json("GET", f"/v1/messages/batches/{batch_id}")
    assert shown["request_counts"]["succeeded"] == 1
    assert (abroad(own), len(own.vendors["openai"].asked)) == (0, 1)


async def test_a_session_is_held_by_its_agents_labels_and_its_own(own: World, home: str) -> None:
    spoken = {"type": "user.message", "content": "Hi"}
    for agent, headers in (("held", {}), ("abroad", EU)):
        body = {"agent": agent, "initial_events": [spoken]}
        made = await own.http.post("/v1/sessions", json=body, headers=headers)
        if home != "eu":
            assert made.status_code == 403
            assert "session's log cannot be kept here" in made.text
            continue
        assert made.status_code < 300, made.text
        events = await own.until_idle(made.json()["id"])
        answered = any(event["type"] == "agent.message" for event in events)
        assert answered is (agent == "held")
    assert abroad(own) == 0


async def test_what_is_labelled_is_not_said_to_a_session_that_is_not(own: World, home: str) -> None:
    plain = await own.json("POST", "/v1/sessions", {"agent": "abroad"})
    spoken = {"events": [{"type": "user.message", "content": "secret"}]}
    refused = await own.http.post(f"/v1/sessions/{plain['id']}/events", json=spoken, headers=EU)
    assert refused.status_code == 403
    forked = await own.http.post(f"/v1/sessions/{plain['id']}/fork", json={}, headers=EU)
    assert forked.status_code == 403
    assert abroad(own) == 0
