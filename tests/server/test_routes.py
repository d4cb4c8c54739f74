"""Routes over the whole server: declared by a template, called by SDKs and agents, explained, and drained in every process."""

from collections.abc import AsyncIterator

import httpx2
import msgspec
import openai
import pytest

from tests._waiting import eventually
from tests.gateway._vendors import ANTHROPIC_STREAM, ANTHROPIC_TEXT, OPENAI_STREAM, OPENAI_TEXT, reply, stream
from tests.server._world import World, world

TEMPLATE = """
kind: route
name: smart
strategy: cheapest
models:
  - { model: openai/gpt-4o, quality: 0.8 }
  - { model: anthropic/claude-sonnet-4-5, quality: 0.9 }
constraints: { price_max: "0.05" }
retries: { again_max: 0 }
---
kind: route
name: good
strategy: best
models:
  - { model: openai/gpt-4o, quality: 0.8, regions: [us] }
  - { model: anthropic/claude-sonnet-4-5, quality: 0.9, regions: [eu] }
---
kind: agent
name: clerk
model: smart
"""
BUSY = reply(b'{"error":{"message":"busy"}}', status=503)
ASKED = {"model": "smart", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
async def own(url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with world(url, tmp_path_factory.mktemp("routes")) as opened:
        await opened.apply(TEMPLATE)
        yield opened


async def test_a_client_is_told_which_model_answered_and_why(own: World) -> None:
    own.script("openai", reply(OPENAI_TEXT))
    raw = await own.openai.chat.completions.with_raw_response.create(**ASKED)  # type: ignore[call-overload]
    assert raw.headers["x-freehold-model"] == "openai/gpt-4o"
    assert raw.headers["x-freehold-route-reason"].startswith("cheapest: $0.00")
    own.script("openai", BUSY)
    own.script("anthropic", stream(*ANTHROPIC_STREAM))
    answer = await own.http.post("/v1/chat/completions", json={**ASKED, "stream": True})
    assert answer.headers["x-freehold-model"] == "anthropic/claude-sonnet-4-5"
    assert answer.headers["x-freehold-route-reason"].startswith(
        "after openai/gpt-4o overloaded: cheapest: $0.0"
    )
    assert "Hello" in answer.text
    own.script("openai", reply(OPENAI_TEXT))
    direct = await own.http.post("/v1/chat/completions", json={**ASKED, "model": "openai/gpt-4o"})
    assert "x-freehold-route-reason" not in direct.headers


async def test_a_route_answers_every_dialect(own: World) -> None:
    own.script("openai", stream(*OPENAI_STREAM))
    async with own.anthropic.messages.stream(
        model="route/smart", max_tokens=50, messages=[{"role": "user", "content": "Hi"}]
    ) as events:
        assert await events.get_final_text() == "Hello there"
    own.script("anthropic", reply(ANTHROPIC_TEXT))
    told = await own.json("POST", "/v1/messages", {**ASKED, "model": "good", "max_tokens": 50})
    assert told["content"][0]["text"] == "Hello there"


async def test_an_agent_goes_through_a_route(own: World) -> None:
    own.script("openai", stream(*OPENAI_STREAM))
    events = await own.until_idle(await own.session("clerk", "Hello?"))
    said = [one for one in events if one["type"] == "agent.message"]
    assert said[0]["content"][0]["text"] == "Hello there"


async def test_a_route_is_listed_and_resolved_as_a_model(own: World) -> None:
    listed = await own.json("GET", "/v1/models")
    assert {"route/smart", "route/good"} <= {one["id"] for one in listed["data"]}
    resolved = await own.json("GET", "/v1/resolved-model?model=smart")
    assert resolved["model"] == "openai/gpt-4o"
    kept = await own.json("GET", "/v1/resources?kind=routes")
    assert [one["name"] for one in kept["data"]] == ["good", "smart"]


async def test_explaining_says_why_each_model_is_taken_or_left(own: World) -> None:
    body = msgspec.json.encode({**ASKED, "max_tokens": 100})
    told = (await own.http.post("/v1/routes/smart/explain", content=body)).json()
    assert [(one["model"], one["place"]) for one in told["models"]] == [
        ("openai/gpt-4o", 1),
        ("anthropic/claude-sonnet-4-5", 2),
    ]
    assert told["models"][0]["why"].startswith("cheapest: $0.00")
    long = msgspec.json.encode({**ASKED, "messages": [{"role": "user", "content": "word " * 60_000}]})
    told = (await own.http.post("/v1/routes/smart/explain", content=long)).json()
    assert [one["place"] for one in told["models"]] == [None, None]
    assert "over $0.05" in told["models"][0]["why"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/routes/clever/explain", "no route is declared as 'clever'; declared: good, smart"),
        ("/v1/routes/smart/explain?wire=openai_chta", "wire: expected one of "),
        ("/v1/routes/smart/explain?draw=1", "draw: expected 0 to less than 1"),
    ],
)
async def test_what_cannot_be_explained_is_told(own: World, path: str, said: str) -> None:
    answer = await own.http.post(path, content=msgspec.json.encode(ASKED))
    assert answer.status_code in {400, 404}
    assert said in answer.json()["error"]["message"]


async def test_where_nobody_can_answer_the_client_hears_when_to_come_back(own: World) -> None:
    later = reply(b"{}", status=429, headers="retry-after: 120\r\n")
    own.script("openai", later)
    own.script("anthropic", later)
    with pytest.raises(openai.APIStatusError):
        await own.openai.chat.completions.create(**ASKED)  # type: ignore[call-overload]
    with pytest.raises(openai.APIStatusError) as error:
        await own.openai.chat.completions.create(**ASKED)  # type: ignore[call-overload]
    assert error.value.status_code == 503
    assert 100 < int(error.value.response.headers["retry-after"]) <= 120
    assert "asked to be left alone" in error.value.message


@pytest.mark.parametrize(
    ("route", "said"),
    [
        ("models: [gpt-4o]", "models[0]: expected provider/name"),
        ("models: []", "expected 1 to 50 models"),
        ("models: [openai/gpt-4o, openai/gpt-4o]", "a second time"),
        ("{models: [openai/gpt-4o], strategy: best}", "best goes by quality"),
        ("{models: [openai/gpt-4o], strategy: fast}", "strategy"),
        (
            "{models: [openai/gpt-4o], constraints: {price_max: cheap}}",
            "constraints.price_max: expected money",
        ),
        ("{models: [{model: openai/gpt-4o, weight: 0}]}", "models[0].weight"),
        (
            "{models: [{model: openai/gpt-4o, weight: 1.0e+308}]}",
            "models[0].weight: expected more than 0, up to",
        ),
        ("{models: [openai/gpt-4o], timeouts: {idle_s: -1}}", "timeouts.idle_s: expected more than 0"),
        ("{models: [openai/gpt-4o], retries: {share_max: 2}}", "retries.share_max: expected 0 to 1"),
        ("models: [nobody/gpt]", "models[0]: "),
        (
            "{models: [openai/gpt-4o], constraints: {first_token_s_max: 0}}",
            "constraints.first_token_s_max: expected more than 0, got 0",
        ),
        (
            "{models: [openai/gpt-4o], constraints: {tokens_per_s_min: -1}}",
            "constraints.tokens_per_s_min: expected more than 0, got -1",
        ),
        (
            "{models: [openai/gpt-4o], constraints: {context_tokens_min: -5}}",
            "constraints.context_tokens_min: expected more than 0, got -5",
        ),
        (
            "{models: [openai/gpt-4o], constraints: {quality_min: 0.5}}",
            "constraints.quality_min: no model has a quality",
        ),
        (
            "{models: [openai/gpt-4o], constraints: {price_max: '1e400'}}",
            "constraints.price_max: expected 0 to",
        ),
        ("{models: [openai/gpt-4o], currency: ÄÖÜ}", "currency: expected three capital letters"),
    ],
)
async def test_a_route_that_makes_no_sense_is_refused_with_its_path(
    own: World, route: str, said: str
) -> None:
    body = route[1:-1] if route.startswith("{") else route
    template = "{kind: route, name: odd, " + body + "}"
    answer = await own.http.post("/v1/templates/apply", json={"template": template})
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


async def test_a_sticky_route_says_what_it_held_on_to(own: World) -> None:
    await own.apply(
        "{kind: route, name: held, strategy: sticky, models: [openai/gpt-4o, openai/gpt-4o-mini]}"
    )
    own.script("openai", reply(OPENAI_TEXT))
    told = []
    for headers in ({}, {"x-freehold-session": "s"}):
        answer = await own.http.post("/v1/chat/completions", json={**ASKED, "model": "held"}, headers=headers)
        told.append(answer.headers["x-freehold-route-reason"])
    assert told == ["sticky by principal (no session is given)", "sticky by session"]


async def test_what_a_provider_offers_may_be_named_by_a_later_template(own: World) -> None:
    """Where it says what it has, nothing else; where it doesn't, anything."""
    provider = "{{kind: provider, name: {}, type: openai, base_url: 'http://127.0.0.1:9/v1', api_key: 'env:OPENAI_API_KEY'{}}}"
    await own.apply(
        f"{provider.format('telling', ', models: [small]')}\n---\n{provider.format('silent', '')}"
    )
    await own.apply("{kind: route, name: later, models: [telling/small, silent/anything]}")
    answer = await own.http.post(
        "/v1/templates/apply", json={"template": "{kind: route, name: odd, models: [telling/large]}"}
    )
    assert "telling is not known to have a model 'large'" in answer.json()["error"]["message"]


@pytest.mark.slow
async def test_what_holds_for_no_provider_there_is_is_told(own: World) -> None:
    """A budget of a mistyped provider would limit nobody."""
    refused = await own.http.post("/v1/drains", json={"models": "opnai/gpt-4o"})
    assert refused.status_code == 404
    assert "no provider is called 'opnai' (did you mean 'openai'?)" in refused.json()["error"]["message"]
    limit = "kind: limit\nname: odd\nrequests_per_minute: 5\nmodels: {}"
    for models, said in [("opnai/*", "did you mean 'openai'?"), ("route/smart", "no model that answers")]:
        planned = await own.json("POST", "/v1/templates/plan", {"template": limit.format(models)})
        (warning,) = planned["warnings"]
        assert warning.startswith("template:4: limit odd: models: holds for no model: ")
        assert said in warning
    for models in ("openai/never-heard-of", "*/gpt-4o", "openai*/gpt-4o"):
        planned = await own.json("POST", "/v1/templates/plan", {"template": limit.format(f"'{models}'")})
        assert planned["warnings"] == []


async def test_a_drain_holds_in_every_process_until_it_is_ended(
    own: World, url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of models that no other test asks: that these rest is known to both servers."""
    first, second = "anthropic/claude-haiku-4-5", "openai/gpt-4o-mini"
    await own.apply(f"{{kind: route, name: moved, models: [{first}, {second}]}}")
    async with world(url, tmp_path_factory.mktemp("other")) as other:

        async def asks_first(model: str) -> bool:
            told = await other.http.post("/v1/routes/moved/explain", content=msgspec.json.encode(ASKED))
            return bool(told.json()["models"][0]["model"] == model)

        assert await asks_first(first)
        drained = await own.json("POST", "/v1/drains", {"models": "anthropic", "reason": "moving"})
        again = await own.json("POST", "/v1/drains", {"models": "anthropic", "reason": "still moving"})
        assert again["name"] == drained["name"]
        await eventually(lambda: asks_first(second))

        async def refused() -> httpx2.Response:
            return await other.http.post("/v1/messages", json={**ASKED, "model": first, "max_tokens": 5})

        async def knows_both() -> bool:
            return "still moving" in (await refused()).text

        await eventually(knows_both)
        told = await refused()
        assert told.status_code in {503, 529}
        assert "takes no new calls: drained: still moving" in told.text
        listed = await other.json("GET", "/v1/drains")
        assert [one["models"] for one in listed["data"]] == ["anthropic/*"]
        await other.json("DELETE", "/v1/drains/anthropic")
        await eventually(lambda: asks_first(first))
        assert (await own.http.delete("/v1/drains/anthropic")).status_code == 404
