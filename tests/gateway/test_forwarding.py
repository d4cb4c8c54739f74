"""Bytes that pass: nothing of them is lost or changed but what must be."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from freehold.core.errors import BadRequest, Forbidden, TooLarge
from freehold.core.messages import Usage
from freehold.core.policy import Policy, Principal, Statement
from freehold.gateway import forwarding
from freehold.gateway.passing import Envelope, UsageHidden
from tests.gateway._vendors import (
    ANTHROPIC_STREAM,
    ANTHROPIC_TEXT,
    OPENAI_STREAM,
    OPENAI_TEXT,
    OPENAI_USAGE_CHUNK,
    Vendor,
    anthropic_request,
    openai_chunk,
    openai_request,
    reply,
    sse,
    stream,
)
from tests.gateway.conftest import ANN, WIRES, open_house
from tests.gateway.test_pairs import KEYS, rows_at

WITHOUT_USAGE = b"".join(OPENAI_STREAM).replace(sse(OPENAI_USAGE_CHUNK), b"")


async def test_a_whole_answer_passes_byte_for_byte() -> None:
    odd = OPENAI_TEXT.replace(b'"created":1', b'"created" : 1, "new_field":[1.0, {"x":null}]')
    async with Vendor(reply(odd)) as vendor, open_house(rows=rows_at(vendor), environment=KEYS) as house:
        envelope = Envelope(openai_request("openai/gpt-4o"))
        async with house.gateway.forward(ANN, envelope, wire=WIRES["openai_chat"]) as passing:
            assert passing.body == odd


async def test_a_stream_passes_byte_for_byte_when_its_client_asked_for_usage() -> None:
    body = openai_request("openai/gpt-4o", stream=True, stream_options={"include_usage": True})
    async with (
        Vendor(stream(*OPENAI_STREAM)) as vendor,
        open_house(rows=rows_at(vendor), environment=KEYS) as house,
    ):
        async with house.gateway.forward(ANN, Envelope(body), wire=WIRES["openai_chat"]) as passing:
            assert b"".join([chunk async for chunk in passing.chunks()]) == b"".join(OPENAI_STREAM)
        assert vendor.asked[0].json["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("options", [None, {"include_usage": False}, {"include_obfuscation": False}])
async def test_a_stream_is_metered_although_its_client_asked_for_no_usage_and_sees_none(options: Any) -> None:
    body = openai_request("openai/gpt-4o", stream=True, stream_options=options)
    async with (
        Vendor(stream(*OPENAI_STREAM)) as vendor,
        open_house(rows=rows_at(vendor), environment=KEYS) as house,
    ):
        async with house.gateway.forward(ANN, Envelope(body), wire=WIRES["openai_chat"]) as passing:
            assert b"".join([chunk async for chunk in passing.chunks()]) == WITHOUT_USAGE
        assert vendor.asked[0].json["stream_options"] == {**(options or {}), "include_usage": True}
        assert house.spool.only.usage == Usage(input_tokens=120, output_tokens=7, cache_read_tokens=100)


async def test_fields_that_nobody_knows_and_their_bytes_reach_the_provider() -> None:
    body = (
        b'{"model":"anthropic/claude-sonnet-4-5", "max_tokens":1e2,"messages":[ {"role":"user","content":[{"type":"text",'
        b'"text":"\\u00e9","cache_control":{"type":"ephemeral","ttl":"1h"}}]}],"thinking":{"type":"adaptive"},"new":{"a": 1}}'
    )
    async with (
        Vendor(reply(ANTHROPIC_TEXT)) as vendor,
        open_house(rows=rows_at(vendor), environment=KEYS) as house,
    ):
        headers = {
            "anthropic-beta": "context-1m",
            "anthropic-version": "2024-01-01",
            "x-secret": "mine",
            "host": "evil",
        }
        async with house.gateway.forward(
            ANN, Envelope(body), wire=WIRES["anthropic_messages"], headers=headers
        ):
            pass
        (asked,) = vendor.asked
    assert (
        b'"messages":[ {"role":"user","content":[{"type":"text","text":"\\u00e9","cache_control"'
        in asked.body
    )
    assert b'"new":{"a": 1}' in asked.body
    assert b'"max_tokens":1e2' in asked.body
    assert asked.json["model"] == "claude-sonnet-4-5"
    assert asked.headers["anthropic-beta"] == "context-1m"
    assert asked.headers["anthropic-version"] == "2024-01-01"
    assert "x-secret" not in asked.headers
    assert asked.headers["host"] == f"127.0.0.1:{vendor.port}"


async def test_a_client_that_only_names_a_beta_still_speaks_a_version() -> None:
    async with (
        Vendor(reply(ANTHROPIC_TEXT)) as vendor,
        open_house(rows=rows_at(vendor), environment=KEYS) as house,
    ):
        envelope = Envelope(anthropic_request("anthropic/claude-sonnet-4-5"))
        headers = {"anthropic-beta": "context-1m"}
        async with house.gateway.forward(ANN, envelope, wire=WIRES["anthropic_messages"], headers=headers):
            pass
        (asked,) = vendor.asked
    assert (asked.headers["anthropic-beta"], asked.headers["anthropic-version"]) == (
        "context-1m",
        "2023-06-01",
    )


async def test_a_clients_header_cannot_break_out_of_its_line() -> None:
    async with (
        Vendor(reply(ANTHROPIC_TEXT)) as vendor,
        open_house(rows=rows_at(vendor), environment=KEYS) as house,
    ):
        with pytest.raises(BadRequest, match="anthropic-beta"):
            async with house.gateway.forward(
                ANN,
                Envelope(anthropic_request("anthropic/claude-sonnet-4-5")),
                wire=WIRES["anthropic_messages"],
                headers={"anthropic-beta": "x\r\nx-api-key: mine"},
            ):
                pass
        assert not vendor.asked
        assert house.spool.only.outcome == "bad_request"


async def test_a_field_that_stands_twice_means_the_same_to_the_provider_as_to_us() -> None:
    body = (
        b'{"model":"gpt-4o-mini","messages":[{"a" :1}],"mod\\u0065l":"gpt-4o","stream":true,"stream":false}'
    )
    async with (
        Vendor(reply(OPENAI_TEXT)) as vendor,
        open_house(rows=rows_at(vendor), environment=KEYS) as house,
    ):
        async with house.gateway.forward(ANN, Envelope(body), wire=WIRES["openai_chat"]):
            pass
        assert vendor.asked[0].body == b'{"model":"gpt-4o","messages":[{"a" :1}],"stream":false}'
        assert house.spool.only.model == "gpt-4o"


async def test_an_address_that_calls_the_limit_otherwise_is_asked_in_its_own_words() -> None:
    async with Vendor(stream(*OPENAI_STREAM)) as vendor:
        row = structs.replace(rows_at(vendor)["openai"], tokens_max_field="max_tokens", stream_options=False)
        async with open_house(rows={"openai": row}, environment=KEYS) as house:
            body = openai_request("openai/gpt-4o", stream=True, max_completion_tokens=5)
            async with house.gateway.forward(ANN, Envelope(body), wire=WIRES["openai_chat"]) as passing:
                assert [chunk async for chunk in passing.chunks()]
    asked = vendor.asked[0].json
    assert asked["max_tokens"] == 5
    assert not {"max_completion_tokens", "stream_options"} & asked.keys()


async def test_a_server_that_does_not_stream_still_answers_a_client_that_does() -> None:
    async with (
        Vendor(reply(OPENAI_TEXT)) as vendor,
        open_house(rows=rows_at(vendor), environment=KEYS) as house,
    ):
        envelope = Envelope(
            openai_request("openai/gpt-4o", stream=True, stream_options={"include_usage": True})
        )
        async with house.gateway.forward(ANN, envelope, wire=WIRES["openai_chat"]) as passing:
            said = b"".join([chunk async for chunk in passing.chunks()])
        assert b"Hello there" in said
        assert said.endswith(b"data: [DONE]\n\n")
        assert house.spool.only.usage.output_tokens == 7


async def test_a_body_over_the_limit_is_refused_with_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "BODY_BYTES_MAX", 10)
    async with (
        Vendor(reply(OPENAI_TEXT)) as vendor,
        open_house(rows=rows_at(vendor), environment=KEYS) as house,
    ):
        with pytest.raises(TooLarge, match="BODY_BYTES_MAX"):
            async with house.gateway.forward(
                ANN, Envelope(openai_request("openai/gpt-4o")), wire=WIRES["openai_chat"]
            ):
                pass


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", None),
        (b"not json", None),
        (b"[]", None),
        (b'{"model":"x"', None),
        (b"\xff\xfe", None),
        (b'{"messages":[]}', "model"),
        (b'{"model":5}', "model"),
        (b'{"model":null}', "model"),
        (b'{"model":"x","stream":"yes"}', "stream"),
        (b'{"model":"x","stream":1}', "stream"),
    ],
)
def test_a_body_that_is_no_request_is_refused_with_the_field(body: bytes, field: str | None) -> None:
    with pytest.raises(BadRequest) as error:
        Envelope(body)
    assert error.value.field == field


def test_a_null_stream_is_no_stream() -> None:
    assert not Envelope(b'{"model":"x","stream":null}').stream


@pytest.mark.parametrize("options", ['"yes"', '{"include_usage":"yes"}', "[]"])
def test_stream_options_that_are_none_are_refused(options: str) -> None:
    with pytest.raises(BadRequest, match="stream_options"):
        Envelope(f'{{"model":"x","stream_options":{options}}}'.encode()).asks_for_usage()


EVENTS = st.sampled_from([
    sse(openai_chunk({"content": 'he said "usage": {} and "choices":[]'})),
    sse(openai_chunk({"content": "x" * 50})),
    sse({**openai_chunk({"content": "late"}), "usage": {"prompt_tokens": 1}}),
    sse({"choices": [], "prompt_filter_results": []}),
    b": keep-alive\n\n",
    b'data: {"broken "usage"\n\n',
    sse(OPENAI_USAGE_CHUNK),
])


@given(
    st.lists(EVENTS, max_size=8),
    st.lists(st.integers(0, 2000), max_size=12),
    st.sampled_from([b"\n", b"\r\n"]),
)
def test_only_the_usage_chunk_is_taken_out_however_the_bytes_are_cut(
    events: list[bytes], cuts: list[int], line_end: bytes
) -> None:
    events = [event.replace(b"\n", line_end) for event in events]
    data = b"".join(events)
    usage = sse(OPENAI_USAGE_CHUNK).replace(b"\n", line_end)
    hidden, out, last = UsageHidden(), b"", 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        out += hidden.feed(data[last:cut])
        last = cut
    assert out + hidden.end() == b"".join(event for event in events if event != usage)


async def test_anthropics_stream_passes_byte_for_byte_and_is_metered() -> None:
    async with (
        Vendor(stream(*ANTHROPIC_STREAM)) as vendor,
        open_house(rows=rows_at(vendor), environment=KEYS) as house,
    ):
        envelope = Envelope(anthropic_request("anthropic/claude-sonnet-4-5", stream=True))
        async with house.gateway.forward(ANN, envelope, wire=WIRES["anthropic_messages"]) as passing:
            assert b"".join([chunk async for chunk in passing.chunks()]) == b"".join(ANTHROPIC_STREAM)
        assert house.spool.only.usage == Usage(input_tokens=120, output_tokens=7, cache_read_tokens=100)
        assert msgspec.json.decode(vendor.asked[0].body).keys() == {
            "model",
            "max_tokens",
            "messages",
            "stream",
        }


async def test_models_to_fall_back_to_must_be_allowed_too() -> None:
    """OpenRouter's `models` would otherwise reach what a policy did not name."""
    only = Policy((Statement("Allow", "model:Call", "model/openai/gpt-4o"),))
    limited = Principal("acme", "service", "key_limited", (only,))
    async with (
        Vendor(reply(OPENAI_TEXT)) as vendor,
        open_house(rows=rows_at(vendor), environment=KEYS) as house,
    ):
        plain = Envelope(openai_request("openai/gpt-4o", models=["gpt-4o"]))
        async with house.gateway.forward(limited, plain, wire=WIRES["openai_chat"]) as passing:
            assert passing.body == OPENAI_TEXT
        sly = Envelope(openai_request("openai/gpt-4o", models=["gpt-4o", "o1-pro"]))
        with pytest.raises(Forbidden, match="o1-pro"):
            await house.gateway.forward(limited, sly, wire=WIRES["openai_chat"]).__aenter__()
