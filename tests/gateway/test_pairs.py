"""Every pair of a client's wire and a provider's: text, streams, tools; and one record of each call."""

from typing import Any

import msgspec
import pytest
from msgspec import structs

from freehold.catalog import catalog
from freehold.core.messages import Message, ModelRequest, Text, ToolCall, Usage
from freehold.core.resources import Provider, Rule, Rules
from freehold.core.stream import fold
from freehold.gateway.forwarding import Passed, Passing
from freehold.gateway.passing import Envelope
from tests.gateway._vendors import (
    ANTHROPIC_STREAM,
    ANTHROPIC_TEXT,
    ANTHROPIC_TOOLS_STREAM,
    OPENAI_STREAM,
    OPENAI_TEXT,
    OPENAI_TOOLS_STREAM,
    Vendor,
    anthropic_request,
    openai_request,
    reply,
    stream,
)
from tests.gateway.conftest import ANN, WIRES, House, open_house

REQUESTS = {"openai_chat": openai_request, "anthropic_messages": anthropic_request}
MODELS = {"openai_chat": "openai/gpt-4o", "anthropic_messages": "anthropic/claude-sonnet-4-5"}
ANSWERS: dict[str, dict[str, Any]] = {
    "openai_chat": {
        "text": reply(OPENAI_TEXT),
        "stream": stream(*OPENAI_STREAM),
        "tools": stream(*OPENAI_TOOLS_STREAM),
    },
    "anthropic_messages": {
        "text": reply(ANTHROPIC_TEXT),
        "stream": stream(*ANTHROPIC_STREAM),
        "tools": stream(*ANTHROPIC_TOOLS_STREAM),
    },
}
PAIRS = [(client, server) for client in REQUESTS for server in REQUESTS]


def rows_at(vendor: Vendor) -> dict[str, Any]:
    rows = catalog.providers()
    return {
        "openai": structs.replace(rows["openai"], base_url=f"{vendor.url}/v1"),
        "anthropic": structs.replace(rows["anthropic"], base_url=vendor.url),
    }


KEYS = {"OPENAI_API_KEY": "sk-openai", "ANTHROPIC_API_KEY": "sk-ant"}


async def ask(house: House, client: str, body: bytes) -> bytes:
    """As the server does it: pass bytes where that can be, else decode, call and encode."""
    wire = WIRES[client]
    async with house.gateway.forward(ANN, Envelope(body), wire=wire) as answer:
        if isinstance(answer, Passed):
            return answer.body
        if isinstance(answer, Passing):
            return b"".join([chunk async for chunk in answer.chunks()])
        if not answer.request.stream:
            return wire.encode_response(fold([event async for event in answer]))
        encoder = wire.stream_encoder(answer.request)
        return b"".join([encoder.encode(event) async for event in answer]) + encoder.end()


def understood(client: str, body: bytes, *, streamed: bool) -> Any:
    wire = WIRES[client]
    if not streamed:
        return wire.decode_response(body, provider="freehold")
    decoder = wire.stream_decoder(provider="freehold")
    return fold([*decoder.feed(body), *decoder.end()])


@pytest.mark.parametrize(("client", "server"), PAIRS)
@pytest.mark.parametrize("kind", ["text", "stream", "tools"])
async def test_every_pair_gives_the_answer_and_leaves_one_record(client: str, server: str, kind: str) -> None:
    streamed = kind != "text"
    async with (
        Vendor(ANSWERS[server][kind]) as vendor,
        open_house(rows=rows_at(vendor), environment=KEYS) as house,
    ):
        body = REQUESTS[client](MODELS[server], stream=streamed, tools=kind == "tools")
        answer = understood(client, await ask(house, client, body), streamed=streamed)
        record = house.spool.only
    if kind == "tools":
        (call,) = answer.tool_calls()
        assert (call.name, msgspec.json.decode(call.arguments)) == ("stock", {"sku": "4482"})
        assert isinstance(call, ToolCall)
        assert answer.stop_reason == "tool_use"
    else:
        assert answer.content == (Text("Hello there"),)
        assert answer.stop_reason == "end_turn"
    assert record.usage == Usage(input_tokens=120, output_tokens=7, cache_read_tokens=100)
    # gpt-4o: 2.50 in, 1.25 cached, 10 out. claude-sonnet-4-5: 3, 0.30, 15. Dollars per million, so pico-dollars times 10^6.
    millionths = 20 * 2.5 + 100 * 1.25 + 7 * 10 if server == "openai_chat" else 20 * 3 + 100 * 0.3 + 7 * 15
    assert record.cost_pico == int(millionths * 10**6)
    assert (record.outcome, record.priced, record.streamed, record.wire) == ("ok", True, streamed, client)
    assert (record.tenant, record.principal) == ("acme", "key_ann")
    assert f"{record.provider}/{record.model}" == record.model_requested == MODELS[server]
    assert record.first_event_ms is not None
    assert 0 < record.first_event_ms <= record.duration_ms


@pytest.mark.parametrize(("client", "server"), PAIRS)
async def test_a_provider_is_asked_in_its_own_words_with_our_credential(client: str, server: str) -> None:
    async with (
        Vendor(ANSWERS[server]["stream"]) as vendor,
        open_house(rows=rows_at(vendor), environment=KEYS) as house,
    ):
        await ask(house, client, REQUESTS[client](MODELS[server], stream=True))
        (asked,) = vendor.asked
    assert asked.json["model"] == MODELS[server].split("/")[1]
    assert asked.json["stream"] is True
    if server == "openai_chat":
        assert asked.path == "/v1/chat/completions"
        assert asked.headers["authorization"] == "Bearer sk-openai"
        assert asked.json["stream_options"] == {"include_usage": True}
    else:
        assert asked.path == "/v1/messages"
        assert asked.headers["x-api-key"] == "sk-ant"
        assert asked.headers["anthropic-version"] == "2023-06-01"
        assert "authorization" not in asked.headers
    assert asked.headers["content-type"] == "application/json"


async def test_declared_headers_go_along_with_their_secrets_and_before_ours() -> None:
    async with Vendor(reply(OPENAI_TEXT)) as vendor:
        async with open_house(rows={}, environment={"TOKEN": "Basic abc", "KEY": "sk-own"}) as house:
            headers = {"Authorization": "env:TOKEN", "x-team": "retail"}
            house.declared.declare(
                Provider(name="own", type="openai", base_url=vendor.url, api_key="env:KEY", headers=headers)
            )
            await ask(house, "openai_chat", openai_request("own/x"))
        (asked,) = vendor.asked
    assert asked.headers["authorization"] == "Basic abc"
    assert asked.headers["x-team"] == "retail"
    assert b"sk-own" not in asked.head


async def test_a_session_can_ask_rules_and_is_told_that_no_language_model_answered() -> None:
    async with open_house(rows={}) as house:
        house.declared.declare(
            Rules(name="retail", rules=(Rule(name="hello", when="hello", answer="Hello back."),))
        )
        request = ModelRequest(model="auto", messages=(Message("user", (Text("hello"),)),))
        async with house.gateway.call(
            ANN, request, session_id="sess_1", agent="shop", rules="retail"
        ) as answer:
            assert not answer.is_language_model
            response = fold([event async for event in answer])
        assert response.text() == "Hello back."
        record = house.spool.only
    assert answer.record is record
    assert (record.provider, record.model, record.cost_pico, record.priced) == ("rules", "retail", 0, True)
    assert (record.wire, record.session_id, record.agent, record.model_requested) == (
        "session",
        "sess_1",
        "shop",
        "auto",
    )
