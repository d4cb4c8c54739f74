"""Caches and objectives at a whole server: shared with another server, by meaning, on the bill, and in the words of the API."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from freehold.store.embedded import EmbeddedServer
from tests._postgres import MIGRATED, fresh_database
from tests._waiting import eventually
from tests.gateway._vendors import OPENAI_TEXT, Step, reply
from tests.server._world import World, world

DECLARED = """
kind: provider
name: one
type: openai
base_url: {url}/v1
api_key: env:OPENAI_API_KEY
---
kind: price_book
name: contract
prices:
  - {{ models: "one/*", input: "1000", output: "1000" }}
---
kind: route
name: shared
models: [one/gpt-4o]
cache: {{ shared: true }}
slo: {{ error_share_max: 0.1 }}
---
kind: route
name: meant
models: [one/gpt-4o]
cache: {{ answers: all, semantic: {{ model: one/text-embedding-3-small, similarity_min: 0.95 }} }}
"""


@pytest.fixture(scope="module")
async def pair(
    postgres_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[World, World]]:
    """Two servers on one database; the first one's vendor answers both."""
    folders: list[Path] = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    async with (
        fresh_database(postgres_server, template=MIGRATED) as url,
        world(url, folders[0]) as first,
        world(url, folders[1]) as second,
    ):
        await first.apply(DECLARED.format(url=first.vendors["openai"].url))
        yield first, second


async def ask(own: World, model: str, text: str, **more: Any) -> httpx2.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    answer = await own.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer


def vector(*values: float) -> list[Step]:
    data = [{"object": "embedding", "index": 0, "embedding": list(values)}]
    usage = {"prompt_tokens": 2, "total_tokens": 2}
    return reply(msgspec.json.encode({"object": "list", "data": data, "model": "e", "usage": usage}))


async def test_what_one_server_was_answered_another_gives_again_and_the_bill_says_what_it_saved(
    pair: tuple[World, World],
) -> None:
    first, second = pair
    vendor = first.script("openai", reply(OPENAI_TEXT))
    assert (await ask(first, "shared", "Hi", temperature=0)).headers["x-freehold-cache"] == "miss"

    async def told() -> bool:
        answer = await ask(second, "shared", "Hi", temperature=0)
        return answer.headers["x-freehold-cache"] == "hit"

    await eventually(told)
    asked = len(vendor.asked)
    streamed = await second.http.post(
        "/v1/messages",
        json={
            "model": "shared",
            "max_tokens": 5,
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
            "temperature": 0,
        },
    )
    assert (
        streamed.headers["x-freehold-cache"] == "miss"
    )  # Anthropic's clients say `max_tokens`: it shapes the answer.
    assert len(vendor.asked) == asked + 1
    own = await second.http.post("/v1/chat/completions", json={
        "model": "shared", "messages": [{"content": "Hi", "role": "user"}], "stream": True, "temperature": 0.0, "user": "bob",
    })  # fmt: skip
    assert own.headers["x-freehold-cache"] == "hit"
    assert "Hello there" in "".join(
        msgspec.json.decode(line[6:])["choices"][0]["delta"].get("content") or ""
        for line in own.text.splitlines()
        if line.startswith("data: {") and msgspec.json.decode(line[6:])["choices"]
    )

    async def billed() -> bool:
        shown = await second.json("GET", "/v1/costs?by=cached")
        kept = [line for line in shown["lines"] if line["group"]["cached"] == "exact"]
        return bool(kept) and float(kept[0]["saved"]) > 0 and float(kept[0]["amount"]) == 0

    await eventually(billed)


async def test_a_question_that_means_the_same_is_answered_by_an_earlier_answer(
    pair: tuple[World, World],
) -> None:
    own, _ = pair
    other = OPENAI_TEXT.replace(b"Hello there", b"Something else")
    near, far = vector(0.99, 0.1), vector(0.0, 1.0)
    vendor = own.script("openai", vector(1.0, 0.0), reply(OPENAI_TEXT))
    assert (await ask(own, "meant", "How do I reset my password?")).headers["x-freehold-cache"] == "miss"
    assert [one.path for one in vendor.asked] == ["/v1/embeddings", "/v1/chat/completions"]

    hit = await _until_hit(own, "How can I reset the password?", near)
    assert "Hello there" in hit.text
    assert float(hit.headers["x-freehold-cache-similarity"]) > 0.95
    own.script("openai", far, reply(other))
    assert "Something else" in (await ask(own, "meant", "What do you cost?")).text
    own.script("openai", near, reply(other))
    told = await ask(
        own, "meant", "How can I reset the password?", tools=[{"type": "function", "function": {"name": "f"}}]
    )
    assert told.headers["x-freehold-cache"] == "miss"  # Otherwise not the same.
    own.script("openai", far, reply(other))
    await ask(own, "meant", "What does it cost?", user="looked-for")
    cost = await own.json("GET", "/v1/costs?by=user,model")
    lines = [one["group"]["model"] for one in cost["lines"] if one["group"]["user"] == "looked-for"]
    assert "one/text-embedding-3-small" in lines


async def _until_hit(own: World, text: str, embedded: list[Step]) -> httpx2.Response:
    """It is written behind: until then the question fails, by what opens no breaker."""
    found: list[httpx2.Response] = []

    async def hit() -> bool:
        own.script("openai", embedded, reply(b"{}", status=400))
        body = {"model": "meant", "messages": [{"role": "user", "content": text}]}
        answer = await own.http.post(
            "/v1/chat/completions", json=body, headers={"cache-control": "max-age=600"}
        )
        found.append(answer)
        return answer.headers.get("x-freehold-cache") == "hit"

    await eventually(hit)
    return found[-1]


async def test_objectives_are_shown_with_what_was_counted(pair: tuple[World, World]) -> None:
    own, _ = pair
    own.script("openai", reply(OPENAI_TEXT))
    await ask(own, "shared", "Count me", temperature=1)
    shown = await own.json("GET", "/v1/slos")
    route = next(one for one in shown["data"] if one["route"] == "shared")
    objective = route["objectives"][0]
    assert (objective["objective"], objective["share_max"], objective["bad"], objective["alert"]) == (
        "errors",
        0.1,
        0,
        None,
    )
    assert objective["ended"] >= 1
    assert set(objective["burn_rates"]) == {"5m", "30m", "1h", "6h"}
    assert [one["model"] for one in route["models"]] == ["one/gpt-4o"]


async def test_a_cache_that_makes_no_sense_is_refused_with_its_path(pair: tuple[World, World]) -> None:
    own, _ = pair
    wrong = "kind: route\nname: wrong\nmodels: [one/gpt-4o]\ncache: {ttl_s: 0, semantic: {model: one/e, similarity_min: 2}}\nslo: {}\n"
    refused = await own.http.post("/v1/templates/apply", json={"template": wrong})
    assert refused.status_code == 400
    assert "cache.ttl_s" in refused.text
