"""A whole installation in the EU, and one that does not say where it is: labelled requests, sessions, batches, and every way around."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from freehold.config import Residency
from freehold.store.embedded import EmbeddedServer
from tests._postgres import MIGRATED, fresh_database
from tests._waiting import eventually
from tests.gateway._vendors import ANTHROPIC_TEXT, OPENAI_TEXT, reply
from tests.server._world import World, world

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
    asked_at_s = time.time()
    assert (await ask(own, "both", **question)).headers["x-freehold-cache"] == "miss"
    again = await ask(own, "both", **question)
    assert again.headers["x-freehold-cache"] == "hit"
    assert 0 <= int(again.headers["age"]) <= time.time() - asked_at_s
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


async def respond(
    own: World, model: str, headers: dict[str, str] | None = None, **more: Any
) -> httpx2.Response:
    body = {"model": model, "input": "Hi", **more}
    return await own.http.post("/v1/responses", json=body, headers=headers or {})


async def completed(own: World, response_id: str) -> None:
    """What goes on in the background is over, so that it asks no vendor under another test."""

    async def ended() -> bool:
        return bool((await own.json("GET", f"/v1/responses/{response_id}"))["status"] == "completed")

    await eventually(ended)


async def test_a_labelled_response_is_kept_where_the_installation_meets_its_labels(
    own: World, home: str
) -> None:
    for more in ({}, {"background": True}, {"store": True}):
        kept = await respond(own, "inside/gpt-4o", EU, **more)
        if home == "eu":
            assert kept.status_code == 200, kept.text
            await completed(own, kept.json()["id"])
            continue
        assert kept.status_code == 403
        assert kept.json()["error"]["param"] == "store"
        assert "the response cannot be kept here" in kept.text
        assert "say store: false" in kept.text
    if home != "eu":
        assert own.vendors["openai"].asked == []
    assert (await respond(own, "inside/gpt-4o", EU, store=False)).status_code == 200
    assert abroad(own) == 0


async def test_what_goes_on_with_a_labelled_response_has_its_labels(own: World, home: str) -> None:
    """By its id, by the id of an item, in the background, and a count: whoever asks, and though nothing is labelled any more."""
    if home != "eu":
        return
    first = (await respond(own, "inside/gpt-4o", EU)).json()
    item = {"type": "item_reference", "id": first["output"][0]["id"]}
    ways: list[dict[str, Any]] = [
        {"previous_response_id": first["id"]},
        {"previous_response_id": first["id"], "store": False},
        {"previous_response_id": first["id"], "background": True},
        {"previous_response_id": first["id"], "stream": True},
        {"input": [item, {"role": "user", "content": "And?"}]},
    ]
    for more in ways:
        refused = await respond(own, ABROAD, **more)
        assert refused.status_code == 403, (more, refused.text)
        assert "labelled eu" in refused.text
    counted = await own.http.post(
        "/v1/responses/input_tokens",
        json={"model": ABROAD, "input": "Hi", "previous_response_id": first["id"]},
    )
    assert counted.status_code == 403
    second = await respond(own, "both", previous_response_id=first["id"])
    assert second.status_code == 200, second.text
    third = await respond(own, ABROAD, previous_response_id=second.json()["id"])
    assert third.status_code == 403, "labels are handed on"
    plain = (await respond(own, "inside/gpt-4o")).json()
    assert abroad(own) == 0
    assert (await respond(own, ABROAD, previous_response_id=plain["id"])).status_code == 200


async def test_a_labelled_response_in_the_background_is_asked_for_where_its_labels_say(
    own: World, home: str
) -> None:
    if home != "eu":
        return
    made = (await respond(own, "both", EU, background=True, input="Later")).json()
    await completed(own, made["id"])
    assert (abroad(own), len(own.vendors["openai"].asked)) == (0, 1)
    assert (await respond(own, ABROAD, EU, background=True)).status_code == 403


async def test_a_labelled_conversation_stays_where_it_is_and_takes_nothing_into_another_one(
    own: World, home: str
) -> None:
    plain = await own.json("POST", "/v1/conversations", {})
    said = [{"type": "message", "role": "user", "content": "secret"}]
    path = f"/v1/conversations/{plain['id']}/items"
    assert (await own.http.post(path, json={"items": said}, headers=EU)).status_code == 403
    refused = await respond(own, "inside/gpt-4o", EU, conversation=plain["id"], store=False)
    assert refused.status_code == 403
    made = await own.http.post("/v1/conversations", json={"items": said}, headers=EU)
    if home != "eu":
        assert made.status_code == 403
        assert "the conversation cannot be kept here" in made.text
        return
    conversation = made.json()["id"]
    assert "start one that is" in refused.text
    assert (await respond(own, ABROAD, conversation=conversation)).status_code == 403
    assert (await respond(own, "both", conversation=conversation)).status_code == 200
    assert abroad(own) == 0


async def test_shadows_and_canaries_stay_where_labels_say(own: World) -> None:
    """A route whose first choice, shadow, arm and fallback are all abroad."""
    await own.apply(
        f"""
kind: route
name: tempting
models: [{ABROAD}, inside/gpt-4o]
strategy: fastest
hedge: {{ after_s: 0.001, share_max: 1 }}
experiment:
  shadows: [{{ model: {ABROAD} }}]
  arms:
    - {{ model: {ABROAD}, percent: 50, name: one }}
    - {{ model: route/beyond, percent: 50, name: two }}
---
kind: route
name: beyond
models: [{ABROAD}]
"""
    )
    for number in range(8):
        answer = await ask(own, "tempting", {**EU, "x-freehold-session": f"s{number}"})
        assert answer.headers["x-freehold-model"] == "inside/gpt-4o"
    failed = reply(b'{"error":{"message":"no"}}', status=503)
    own.script("openai", failed)
    assert (await ask(own, "tempting", EU)).status_code == 503
    assert abroad(own) == 0


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
