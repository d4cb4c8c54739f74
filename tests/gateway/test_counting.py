"""How many tokens a request has: its vendor's own count where there is one, else an estimate; and no record either way."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from msgspec import structs

from freehold.catalog import catalog
from freehold.core.errors import BadRequest, Forbidden, RateLimited
from freehold.core.policy import Policy, Principal, Statement
from freehold.gateway.passing import Envelope
from tests.gateway._vendors import CUT, Vendor, anthropic_request, openai_request, reply
from tests.gateway.conftest import ANN, House, open_house

COUNTED = reply(b'{"input_tokens":2095}')
REFUSED = b'{"type":"error","error":{"type":"%s","message":"no"}}'


class Counting:
    def __init__(self, house: House, vendor: Vendor) -> None:
        self.house, self.vendor = house, vendor

    async def __call__(self, body: bytes, wire: str = "anthropic_messages", **more: Any) -> tuple[int, bool]:
        principal = more.pop("principal", ANN)
        count = await self.house.gateway.count(principal, Envelope(body), wire=wire, **more)
        assert self.house.spool.records == []
        return count.input_tokens, count.estimated


@pytest.fixture
async def counting() -> AsyncIterator[Counting]:
    async with Vendor(COUNTED) as vendor:
        rows = {
            name: structs.replace(catalog.providers()[name], base_url=vendor.url)
            for name in ("openai", "anthropic")
        }
        keys = {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}
        async with open_house(rows=rows, environment=keys) as house:
            yield Counting(house, vendor)


async def test_the_vendor_counts_a_body_of_its_own_wire_as_it_came(counting: Counting) -> None:
    body = anthropic_request(
        "anthropic/claude-sonnet-5-5", tools=True, stream=True, temperature=0.1, new_field={"a": 1}
    )
    assert await counting(body, headers={"anthropic-beta": "x-2026", "cookie": "c"}) == (2095, False)
    (asked,) = counting.vendor.asked
    assert asked.path == "/v1/messages/count_tokens"
    assert asked.json.keys() == {"model", "messages", "tools", "new_field"}
    assert asked.json["model"] == "claude-sonnet-5-5"
    assert asked.headers["anthropic-beta"] == "x-2026"
    assert "cookie" not in asked.headers


async def test_the_vendor_counts_a_request_of_another_wire(counting: Counting) -> None:
    body = openai_request("anthropic/claude-sonnet-5-5", tools=True, max_tokens=50)
    assert await counting(body, "openai_chat") == (2095, False)
    asked = counting.vendor.asked[0].json
    assert asked["tools"][0]["name"] == "stock"
    assert "max_tokens" not in asked


async def test_where_no_vendor_counts_it_is_estimated(counting: Counting) -> None:
    text = "The harbour was quiet when the last ferry left. " * 100
    body = anthropic_request("openai/gpt-4o", messages=[{"role": "user", "content": text}])
    tokens, estimated = await counting(body)
    assert estimated
    assert tokens == pytest.approx(1004, rel=0.15), (
        "what tiktoken's o200k_base says, and four around the message"
    )
    assert counting.vendor.asked == []


@pytest.mark.parametrize(
    "script",
    [
        reply(REFUSED % b"not_found_error", status=404),
        reply(b"<html>", kind="text/html"),
        reply(b'{"tokens":1}'),
        [CUT],
    ],
)
async def test_where_the_vendor_does_not_count_after_all_it_is_estimated(
    counting: Counting, script: Any
) -> None:
    counting.vendor.play(script)
    tokens, estimated = await counting(anthropic_request("anthropic/claude-sonnet-5-5"))
    assert (0 < tokens < 20, estimated) == (True, True)


async def test_what_the_vendor_says_of_the_request_is_told(counting: Counting) -> None:
    counting.vendor.play(reply(REFUSED % b"invalid_request_error", status=400))
    with pytest.raises(BadRequest):
        await counting(anthropic_request("anthropic/claude-sonnet-5-5"))
    counting.vendor.play(reply(REFUSED % b"rate_limit_error", status=429))
    with pytest.raises(RateLimited):
        await counting(anthropic_request("anthropic/claude-sonnet-5-5"))
    with pytest.raises(BadRequest, match="role"):
        await counting(
            msgspec.json.encode({"model": "openai/gpt-4o", "max_tokens": 1, "messages": [{"role": "x"}]})
        )


async def test_who_may_not_call_a_model_may_not_count_for_it(counting: Counting) -> None:
    policy = Policy((Statement("Allow", "model:Call", "model/openai/*"),))
    bob = Principal("acme", "service", "bob", (policy,))
    await counting(anthropic_request("openai/gpt-4o"), principal=bob)
    with pytest.raises(Forbidden):
        await counting(anthropic_request("anthropic/claude-sonnet-5-5"), principal=bob)
    assert counting.vendor.asked == []
