"""Limits and budgets at a whole server: who is refused, in which words, and what is left; on two servers at once; without a database."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import Any, TypeVar

import anthropic as anthropic_sdk
import httpx2
import msgspec
import openai as openai_sdk
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from freehold.store.embedded import EmbeddedServer
from tests._postgres import MIGRATED, fresh_database
from tests._waiting import PATIENCE_S, eventually
from tests.gateway._vendors import (
    ANTHROPIC_TEXT,
    HOLD,
    OPENAI_STREAM,
    OPENAI_TEXT,
    Vendor,
    reply,
    stream,
)
from tests.server._process import Running, freehold
from tests.server._world import World, world
from tests.store._proxy import proxied

Sdk = TypeVar("Sdk", AsyncOpenAI, AsyncAnthropic)
T = TypeVar("T")

PRICES = """
kind: price_book
name: contract
prices:
  - {{ models: "openai/*", input: "{price}", output: "{price}" }}
  - {{ models: "anthropic/*", input: "{price}", output: "{price}" }}
"""
VECTORS = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "model": "m"}
CHAT = {"model": "openai/gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 10}


@pytest.fixture(scope="module")
async def own(
    postgres_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    folder: Path = tmp_path_factory.mktemp("limits")
    async with fresh_database(postgres_server, template=MIGRATED) as url, world(url, folder) as opened:
        await opened.apply(PRICES.format(price="1000"))
        yield opened


async def key(own: World, **more: Any) -> httpx2.AsyncClient:
    made = await own.json("POST", "/v1/keys", {"name": "one", **more})
    headers = {"authorization": f"Bearer {made['key']}"}
    return httpx2.AsyncClient(base_url=own.url, headers=headers, timeout=PATIENCE_S, trust_env=False)


TOLD = ("limit-requests", "remaining-requests", "limit-tokens", "remaining-tokens")
MINUTE_S, MINUTES_MAX = 60, 5
_numbers = count()


def sdk(kind: type[Sdk], url: str, client: httpx2.AsyncClient) -> Sdk:
    """With the same key."""
    return kind(base_url=url, api_key=client.headers["authorization"].removeprefix("Bearer "), max_retries=0)


async def within_a_minute(story: Callable[[str], Awaitable[T]]) -> T:
    """What limits by the minute say of several calls is of one minute: else told anew, with the name of somebody else."""
    for number in islice(_numbers, MINUTES_MAX):
        minute = time.time() // MINUTE_S
        told = await story(f"one-{number}")
        if time.time() // MINUTE_S == minute:
            return told
    raise AssertionError(f"no minute of {MINUTES_MAX} was long enough")


def answer_of(input_tokens: int, output_tokens: int = 1) -> list[Any]:
    body = msgspec.json.decode(OPENAI_TEXT)
    body["usage"] = {"prompt_tokens": input_tokens, "completion_tokens": output_tokens}
    return reply(msgspec.json.encode(body))


@pytest.mark.slow
async def test_a_team_has_so_many_requests_a_minute(own: World) -> None:
    own.script("openai", answer_of(1))

    async def four(name: str) -> tuple[str, list[httpx2.Response], list[Any]]:
        await own.apply(f"kind: limit\nname: {name}\nscope: team/{name}\nrequests_per_minute: 3")
        async with await key(own, team=name) as client:
            answers = [await client.post("/v1/chat/completions", json=CHAT) for _ in range(4)]
        return name, answers, (await own.json("GET", "/v1/limits"))["data"]

    name, answers, listed = await within_a_minute(four)
    assert [one.status_code for one in answers] == [200, 200, 200, 429]
    error = answers[-1].json()["error"]
    assert error["code"] == "rate_limit_exceeded"
    assert f"limit {name} (3 requests a minute for team/{name})" in error["message"]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    async with await key(own, team="other") as other:
        assert (await other.post("/v1/chat/completions", json=CHAT)).status_code == 200
    (few,) = [one for one in listed if one["name"] == name]
    assert (few["size"], few["held"], few["measure"]) == (3, 3, "requests_per_minute")


async def test_a_budget_refuses_what_could_pass_it_and_says_what_is_left(own: World) -> None:
    """At $0.001 a token, a call of 85 bytes can cost $1.095: 1000 tokens stand for what vendors add."""
    await own.apply(
        "kind: budget\nname: small\nscope: team/small\namount_usd: '3'\nperiod: total\nwarn_at: '50'"
    )
    own.script("openai", *[answer_of(900, 10)] * 3)
    async with await key(own, team="small") as client:
        answers = [await client.post("/v1/chat/completions", json=CHAT) for _ in range(4)]
        assert [one.status_code for one in answers] == [200, 200, 200, 429]
        refused = answers[-1]
        error = refused.json()["error"]
        assert error["code"] == "insufficient_quota"
        assert "budget small ($3 for team/small, in total)" in error["message"]
        assert "$0.27 is left, and this call could cost $1.09" in error["message"]
        assert refused.headers["x-should-retry"] == "false"
        (small,) = [one for one in (await own.json("GET", "/v1/budgets"))["data"] if one["name"] == "small"]
        assert (small["used_usd"], small["amount_usd"], small["warned"]) == ("2.73", "3", True)


async def test_a_call_that_all_of_a_budget_would_not_pay_for_is_told_so(own: World) -> None:
    """Nothing was leased of it by then: so nothing is known of what is left."""
    await own.apply("kind: budget\nname: tiny\nscope: team/tiny\namount_usd: '1'\nperiod: total")
    async with await key(own, team="tiny") as client:
        refused = await client.post("/v1/chat/completions", json=CHAT)
    assert refused.json()["error"]["code"] == "insufficient_quota"
    said = (
        "budget tiny ($1 for team/tiny, in total): this call could cost $1.095, which is more than all of it"
    )
    assert refused.json()["error"]["message"].startswith(said)


async def test_sessions_and_embeddings_are_held_too(own: World) -> None:
    await own.apply(
        "kind: budget\nname: none\nscope: team/none\namount_usd: '0'\nperiod: day\n---\n"
        "kind: agent\nname: clerk\nmodel: openai/gpt-4o"
    )
    async with await key(own, team="none") as client:
        embeddings = {"model": "openai/text-embedding-3-small", "input": "Hi"}
        refused = await client.post("/v1/embeddings", json=embeddings)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
        event = {"type": "user.message", "content": "Hi"}
        session = await client.post("/v1/sessions", json={"agent": "clerk", "initial_events": [event]})
        log = await own.until_idle(session.json()["id"])
        assert "budget none ($0 for team/none" in msgspec.json.encode(log).decode()


async def test_limits_for_each_are_listed_before_anybody_and_then_with_whom_they_hold_for(own: World) -> None:
    """Also where a limit and a budget are called the same."""

    async def listed() -> list[Any]:
        found = [(await own.json("GET", f"/v1/{kind}"))["data"] for kind in ("limits", "budgets")]
        return [(one["scope"], one["subject"]) for data in found for one in data if one["name"] == "alike"]

    await own.apply(
        "kind: limit\nname: alike\nscope: user/*\nmodels: openai/alike\nrequests_per_minute: 7\n---\n"
        "kind: budget\nname: alike\nscope: team/*\nmodels: openai/alike\namount_usd: '7'"
    )
    assert await listed() == [("user/*", ""), ("team/*", "")]
    own.script("openai", answer_of(1))
    async with await key(own, user="zoe", team="seven") as client:
        asked = await client.post("/v1/chat/completions", json={**CHAT, "model": "openai/alike"})
        assert asked.status_code == 200
    assert await listed() == [("user/*", "zoe"), ("team/*", "seven")]


async def test_whom_a_client_names_has_a_limit_of_his_own(own: World) -> None:
    await own.apply("kind: limit\nname: each\nscope: user/*\nrequests_per_minute: 1")
    own.script("openai", answer_of(1))
    async with await key(own) as client:

        async def asked(headers: dict[str, str] | None = None, **more: Any) -> int:
            answer = await client.post("/v1/chat/completions", json={**CHAT, **more}, headers=headers or {})
            return answer.status_code

        async def story(name: str) -> tuple[set[str], list[int], list[Any]]:
            ann, bob = f"ann-{name}", f"bob-{name}"
            statuses = [
                await asked(user=ann),
                await asked(user=ann),
                await asked(user=bob),
                await asked(metadata={"user_id": bob}),
                await asked({"x-freehold-user": bob}),
            ]
            return {ann, bob}, statuses, (await own.json("GET", "/v1/limits"))["data"]

        async def embedded(name: str) -> list[int]:
            headers = {"x-freehold-user": f"zoë-{name}".encode()}
            body = {"model": "openai/text-embedding-3-small", "input": "Hi"}
            first = await client.post("/v1/embeddings", json=body, headers=headers)
            return [first.status_code, await asked(user=f"zoë-{name}")]

        people, told, listed = await within_a_minute(story)
        assert told == [200, 429, 200, 429, 429]
        own.script("openai", reply(msgspec.json.encode(VECTORS)))
        assert await within_a_minute(embedded) == [200, 429]
        assert await asked() == 200
        assert {one["subject"] for one in listed if one["name"] == "each"} >= people


async def test_a_key_makes_no_key_that_may_do_more(own: World) -> None:
    """So what a team's key may call is what all keys may call that are made by it."""

    def to(*models: str) -> dict[str, Any]:
        pairs = [("model:Call", f"model/{model}") for model in models] + [("key:Create", "*")]
        return {"Statement": [{"Effect": "Allow", "Action": one, "Resource": on} for one, on in pairs]}

    own.script("openai", answer_of(1))
    async with await key(own, team="thrifty", policy=to("openai/*")) as lead:
        more = await lead.post("/v1/keys", json={"name": "more", "policy": to("openai/gpt-4o", "*")})
        assert more.status_code == 400
        assert "policy.Statement[1]: allows model:Call on model/*, which service key_" in more.text
        less = await lead.post("/v1/keys", json={"name": "less", "policy": to("openai/gpt-4o")})
        assert (less.status_code, less.json()["team"]) == (200, "thrifty")
        lead.headers["authorization"] = f"Bearer {less.json()['key']}"
        models = ["openai/gpt-4o", "openai/gpt-5"]
        answers = [await lead.post("/v1/chat/completions", json={**CHAT, "model": one}) for one in models]
        assert [one.status_code for one in answers] == [200, 403]


async def test_so_many_calls_at_a_time_and_the_place_comes_back(own: World) -> None:
    await own.apply("kind: limit\nname: places\nscope: key/places\nconcurrent_calls_max: 1")
    async with await key(own, name="places") as client:
        own.script("openai", [HOLD], answer_of(1))
        first = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT))
        await eventually(lambda: len(own.vendors["openai"].asked) > 0)
        second = await client.post("/v1/chat/completions", json=CHAT)
        assert second.status_code == 429
        assert "1 calls at a time" in second.json()["error"]["message"]
        first.cancel()
        await asyncio.wait([first])

        async def free() -> bool:
            return (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200

        await eventually(free)


FLAKY = """
kind: route
name: {name}
models: [openai/gpt-4o, openai/gpt-4o-mini]
{more}
---
kind: budget
name: {name}
scope: team/{name}
amount_usd: "{amount}"
period: total
"""
LOST = {
    "late": "timeouts: { first_event_s: 1 }\nretries: { again_max: 1, share_max: 1 }",
    "hedged": "retries: { again_max: 0 }\nhedge: { after_s: 0.05, share_max: 1 }",
}


@pytest.mark.parametrize("name", [pytest.param("late", marks=pytest.mark.slow), "hedged"])
async def test_attempts_that_are_lost_pass_no_budget(own: World, name: str) -> None:
    """Each is billed for nearly all that one call can cost: its text has about a token a byte, as estimated."""
    asked = {**CHAT, "model": f"route/{name}", "messages": [{"role": "user", "content": "x1" * 20_000}]}
    asked["stream"] = True
    asks, lost = (4, [[HOLD]] * 2) if name == "late" else (2, [[HOLD]])
    most = asks * (len(msgspec.json.encode(asked)) + 1000 + 10) / 1000
    await own.apply(FLAKY.format(name=name, more=LOST[name], amount=f"{most - 1:.3f}"))
    async with await key(own, team=name) as client:
        own.script("openai", *lost, stream(*OPENAI_STREAM))
        refused = await client.post("/v1/chat/completions", json=asked)
        assert (refused.status_code, own.vendors["openai"].asked) == (429, [])
        await own.apply(FLAKY.format(name=name, more=LOST[name], amount=f"{most:.3f}"))
        answer = await client.post("/v1/chat/completions", json=asked)
        assert answer.status_code == 200, answer.text
        lost_count = len(own.vendors["openai"].asked) - 1
        assert lost_count >= len(lost), "and more, where the machine was late itself"
        (shown,) = [one for one in (await own.json("GET", "/v1/budgets"))["data"] if one["name"] == name]
        assert most * lost_count / asks * 0.9 < float(shown["used_usd"]) <= most


async def test_openais_clients_are_told_what_is_left_of_the_minute(own: World) -> None:
    async def story(name: str) -> list[Mapping[str, str]]:
        await own.apply(
            f"kind: limit\nname: told-{name}\nscope: team/{name}\nrequests_per_minute: 2\ntokens_per_minute: 5000\n---\n"
            f"kind: limit\nname: wide-{name}\nscope: team/{name}\nrequests_per_minute: 900"
        )
        own.script("openai", answer_of(90, 10), stream(*OPENAI_STREAM))
        async with (
            await key(own, team=name) as client,
            sdk(AsyncOpenAI, f"{own.url}/v1", client) as openai,
        ):
            chat: Any = openai.chat.completions.with_raw_response
            told = [(await chat.create(**CHAT)).headers, (await chat.create(**CHAT, stream=True)).headers]
            try:
                await chat.create(**CHAT)
            except openai_sdk.RateLimitError as refused:
                told.append(refused.response.headers)
            return told

    first, streamed, told = await within_a_minute(story)
    assert {name: first[f"x-ratelimit-{name}"] for name in TOLD} == {
        "limit-requests": "2", "remaining-requests": "1", "limit-tokens": "5000", "remaining-tokens": "4900",
    }  # fmt: skip
    assert 0 < int(first["x-ratelimit-reset-requests"].removesuffix("s")) <= 60
    assert streamed["x-ratelimit-remaining-requests"] == "0"
    assert 4000 < int(streamed["x-ratelimit-remaining-tokens"]) < 4900
    assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-remaining-requests"]) == ("2", "0")
    assert abs(int(told["x-ratelimit-reset-requests"].removesuffix("s")) - int(told["retry-after"])) <= 1
    assert not [name for name in told if name.startswith("anthropic-")]


async def test_anthropics_clients_are_told_in_their_words(own: World) -> None:
    asked: Any = {"model": "anthropic/claude-sonnet-4-5", "messages": CHAT["messages"], "max_tokens": 10}

    async def story(name: str) -> list[tuple[Mapping[str, str], datetime]]:
        await own.apply(f"kind: limit\nname: said-{name}\nscope: team/{name}\nrequests_per_minute: 1")
        own.script("anthropic", reply(ANTHROPIC_TEXT))
        async with await key(own, team=name) as client, sdk(AsyncAnthropic, own.url, client) as anthropic:
            messages: Any = anthropic.messages.with_raw_response
            told = [((await messages.create(**asked)).headers, datetime.now(UTC))]
            try:
                await messages.create(**asked)
            except anthropic_sdk.RateLimitError as refused:
                told.append((refused.response.headers, datetime.now(UTC)))
            return told

    first, refused = await within_a_minute(story)
    for told, at in (first, refused):
        assert told["anthropic-ratelimit-requests-limit"] == "1"
        assert told["anthropic-ratelimit-requests-remaining"] == "0"
        reset = datetime.fromisoformat(told["anthropic-ratelimit-requests-reset"])
        assert 0 < (reset - at).total_seconds() <= 60
        assert not [name for name in told if name.startswith("x-ratelimit-") or "tokens" in name]


async def test_where_no_limit_holds_no_header_tells_of_one(own: World) -> None:
    own.script("openai", answer_of(1))
    answer = await own.http.post("/v1/chat/completions", json=CHAT)
    assert not [name for name in answer.headers if "ratelimit" in name]


@pytest.mark.slow
async def test_without_a_database_calls_go_on_with_what_is_leased_and_are_then_refused(
    postgres_server: EmbeddedServer, tmp_path: Path
) -> None:
    async with (
        fresh_database(postgres_server, template=MIGRATED) as url,
        proxied(url) as proxy,
        world(proxy.url, tmp_path) as own,
    ):
        await own.apply(PRICES.format(price="1"))
        await own.apply("kind: budget\nname: all\namount_usd: '1'\nperiod: total")
        own.script("openai", *[answer_of(900, 10)] * 1000)
        assert (await own.http.post("/v1/chat/completions", json=CHAT)).status_code == 200
        proxy.cut()
        statuses: list[int] = []
        while not statuses or statuses[-1] == 200:
            answer = await own.http.post("/v1/chat/completions", json=CHAT)
            statuses.append(answer.status_code)
        assert (len(statuses) > 3, answer.status_code) == (True, 429)
        assert "the database that keeps it is away" in answer.json()["error"]["message"]
        proxy.heal()

        async def answers() -> bool:
            return (await own.http.post("/v1/chat/completions", json=CHAT)).status_code == 200

        await eventually(answers)

        async def has_caught_up() -> bool:
            told = await own.http.get("/v1/budgets")
            return told.status_code == 200 and told.json()["waiting_calls"] == 0

        await eventually(has_caught_up)
        shown = await own.json("GET", "/v1/budgets")
        bill = await own.json("GET", "/v1/costs?by=")
        (line,) = shown["data"]
        assert (line["used_usd"], shown["waiting_calls"]) == (bill["totals"]["USD"], 0)


# -- servers that share


def ready(folder: Path, vendor: Vendor) -> Path:
    folder.mkdir()
    (folder / "freehold.toml").write_text(f'[models.upstreams]\nopenai_chat = "{vendor.url}/v1"\n')
    return folder


@asynccontextmanager
async def running(folder: Path, url: str) -> AsyncIterator[tuple[Running, httpx2.AsyncClient]]:
    with freehold(folder, environment={"DATABASE_URL": url, "OPENAI_API_KEY": "sk-x"}) as one:
        await asyncio.to_thread(one.ready)
        headers = {"authorization": f"Bearer {one.key}"}
        async with httpx2.AsyncClient(
            base_url=one.url, headers=headers, timeout=PATIENCE_S, trust_env=False
        ) as client:
            yield one, client


async def apply(client: httpx2.AsyncClient, template: str) -> None:
    applied = await client.post("/v1/templates/apply", json={"template": template})
    assert applied.status_code == 200, applied.text


@pytest.mark.slow
async def test_two_servers_share_a_limit(postgres_server: EmbeddedServer, tmp_path: Path) -> None:
    async with (
        fresh_database(postgres_server) as url,
        Vendor(answer_of(1)) as vendor,
        running(ready(tmp_path / "a", vendor), url) as (_, first),
        running(ready(tmp_path / "b", vendor), url) as (_, second),
    ):
        each = "kind: limit\nname: each\nscope: user/*\nrequests_per_minute: 200"
        await apply(first, f"{each}\n---\nkind: limit\nname: all\nrequests_per_minute: 1000000")

        async def has_heard() -> bool:
            listed = (await second.get("/v1/limits")).json()["data"]
            return "all" in [one["name"] for one in listed]

        await eventually(has_heard)

        async def ask(client: httpx2.AsyncClient, user: str) -> list[int]:
            asked = {"json": CHAT, "headers": {"x-freehold-user": user}}
            return [(await client.post("/v1/chat/completions", **asked)).status_code for _ in range(60)]

        async def story(user: str) -> tuple[list[list[int]], int]:
            before = len(vendor.asked)
            answers = await asyncio.gather(
                *(ask(client, user) for client in (first, second) for _ in range(3))
            )
            return answers, len(vendor.asked) - before

        answers, asked_count = await within_a_minute(story)
        assert sum(one.count(200) for one in answers) == asked_count == 200
        assert {status for one in answers for status in one} == {200, 429}
