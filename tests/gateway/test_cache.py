"""Earlier answers given again: to whom, to which requests, for how long, in which wire; and what is never kept."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.core.answers import KeptAnswer
from freehold.core.errors import BadRequest, FreeholdError
from freehold.core.messages import Message, ModelRequest, Text
from freehold.core.policy import ALLOW_ALL, Policy, Principal, Statement
from freehold.core.records import Account
from freehold.core.routes import Retries
from freehold.core.serving import Cache
from freehold.gateway.cache import Memory, canonical, directives
from freehold.gateway.caching import Caching
from freehold.gateway.passing import Envelope
from freehold.gateway.pipeline import Gateway
from freehold.gateway.residency import Place, with_labels
from freehold.wires.openai_chat import WIRE as OPENAI_CHAT
from tests.gateway._routes import Scene, scene
from tests.gateway._vendors import (
    ANTHROPIC_TEXT,
    CUT,
    HOLD,
    OPENAI_STREAM,
    OPENAI_TEXT,
    openai_request,
    reply,
    stream,
)
from tests.gateway.conftest import ANN, WIRES

OK = reply(OPENAI_TEXT)
OK_STREAM = stream(*OPENAI_STREAM)
CACHED = {"cache": Cache(), "retries": Retries(again_max=0)}
EXACT: Mapping[str, Any] = {"temperature": 0}


def said(it: Scene) -> list[str | None]:
    return [one.cached for one in it.records]


async def test_the_same_request_is_answered_once_and_costs_once() -> None:
    async with scene({"a": [OK]}, CACHED) as it:
        first = await it.ask(**EXACT)
        it.clock.s += 60
        second = await it.ask(**EXACT)
        assert b"Hello there" in first
        assert b"Hello there" in second
        assert it.asked == {"a": 1}
        kept = it.records[-1]
        assert (kept.cached, kept.cost_pico, kept.outcome, kept.usage.input_tokens) == ("exact", 0, "ok", 0)
        assert (kept.provider, kept.model, kept.route, kept.attempts) == ("a", "m", "smart", 0)
        assert said(it) == [None, "exact"]


async def test_a_client_is_told_whether_and_since_when() -> None:
    async with scene({"a": [OK]}, CACHED) as it:
        for age_s in (None, 7):
            async with it.gateway.forward(
                ANN, Envelope(openai_request("smart", **EXACT)), wire=WIRES["openai_chat"]
            ) as answer:
                note = answer.meter.cache
                assert note is not None
                assert (note.hit, note.age_s) == (age_s is not None, age_s or 0)
            it.clock.s += 7


async def test_what_is_saved_is_on_record() -> None:
    async with scene({"a": [OK]}, CACHED) as it:
        await it.ask(**EXACT)
        await it.ask(**EXACT)
        first, again = it.records
        assert again.saved_pico == first.cost_pico


@pytest.mark.parametrize("asked_as", ["openai_chat", "anthropic_messages"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kept_as", ["whole", "stream", "translated"])
async def test_an_answer_kept_one_way_is_told_in_every_other(
    kept_as: str, streamed: bool, asked_as: str
) -> None:
    """The heart's values are the same whichever wire a request came in, so their answer is, too."""
    script = OK_STREAM if kept_as == "stream" else reply(ANTHROPIC_TEXT) if kept_as == "translated" else OK
    kind = {"a": "anthropic" if kept_as == "translated" else "openai"}
    more = {"max_tokens": 100, **EXACT}
    async with scene({"a": [script]}, CACHED, types=kind) as it:
        await it.ask(stream=kept_as == "stream", **more)
        told = await it.ask(wire=asked_as, stream=streamed, **more)
        assert it.asked == {"a": 1}
        assert said(it) == [None, "exact"]
        assert b"Hello" in told


async def test_a_stream_that_is_given_again_comes_in_pieces_and_whole() -> None:
    text = "The quick brown fox jumps over the lazy dog, again and again, until the day is done. " * 3
    body = OPENAI_TEXT.replace(b"Hello there", text.encode())
    async with scene({"a": [reply(body)]}, CACHED) as it:
        await it.ask(**EXACT)
        told = await it.ask(stream=True, **EXACT)
        decoder = OPENAI_CHAT.stream_decoder(provider="a")
        texts = [event.text for event in [*decoder.feed(told), *decoder.end()] if hasattr(event, "text")]
        assert len(texts) > 5
        assert text.strip() in "".join(texts)


@pytest.mark.parametrize(
    ("asked", "headers", "hits"),
    [
        ({}, {}, False),
        ({"temperature": 0.7}, {}, False),
        ({"seed": 7}, {}, True),
        ({"temperature": 0.7}, {"cache-control": "max-age=60"}, True),
        (EXACT, {"cache-control": "no-store"}, False),
        (EXACT, {"cache-control": "no-cache"}, False),
        (EXACT, {"cache-control": "max-age=0"}, False),
        (EXACT, {"cache-control": "max-age=1"}, False),
        (EXACT, {"cache-control": "max-stale, max-age=60"}, True),
        ({**EXACT, "n": 2}, {}, False),
    ],
)
async def test_chance_and_the_client_decide(
    asked: dict[str, Any], headers: dict[str, str], hits: bool
) -> None:
    async with scene({"a": [OK]}, CACHED) as it:
        for _ in range(2):
            await it.ask(headers=headers, **asked)
            it.clock.s += 2
        assert it.asked["a"] == (1 if hits else 2)


async def test_no_cache_asks_anew_and_keeps_the_newer_answer() -> None:
    newer = OPENAI_TEXT.replace(b"Hello there", b"Good morning")
    async with scene({"a": [OK, reply(newer)]}, CACHED) as it:
        await it.ask(**EXACT)
        await it.ask(headers={"cache-control": "no-cache"}, **EXACT)
        assert b"Good morning" in await it.ask(**EXACT)
        assert it.asked == {"a": 2}


async def test_an_answer_is_given_again_only_while_it_is_fresh() -> None:
    async with scene({"a": [OK]}, {"cache": Cache(ttl_s=10)}) as it:
        await it.ask(**EXACT)
        it.clock.s += 9.5
        await it.ask(**EXACT)
        it.clock.s += 1
        await it.ask(**EXACT)
        assert said(it) == [None, "exact", None]


TOOL = OPENAI_TEXT.replace(b'"finish_reason":"stop"', b'"finish_reason":"tool_calls"').replace(
    b'"content":"Hello there"',
    b'"content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]',
)
NEVER = {
    "an error": reply(b'{"error":{"message":"busy"}}', status=503),
    "an error inside 200": reply(b'{"error":{"message":"no capacity","code":429}}'),
    "a cut stream": stream(OPENAI_STREAM[0], CUT),
    "a cut answer": reply(OPENAI_TEXT.replace(b'"finish_reason":"stop"', b'"finish_reason":"length"')),
    "a refused answer": reply(
        OPENAI_TEXT.replace(b'"finish_reason":"stop"', b'"finish_reason":"content_filter"')
    ),
    "a tool call": reply(TOOL),
}


@pytest.mark.parametrize("what", NEVER)
async def test_what_is_no_good_answer_is_never_kept(what: str) -> None:
    assert OPENAI_TEXT not in NEVER[what]
    async with scene({"a": [NEVER[what]]}, CACHED) as it:
        for _ in range(2):
            with suppress(FreeholdError):
                await it.ask(stream="stream" in what, **EXACT)
        assert it.asked == {"a": 2}
        assert said(it) == [None, None]


async def test_a_tool_call_is_kept_where_the_route_says_so() -> None:
    async with scene({"a": [reply(TOOL)]}, {"cache": Cache(tool_calls=True)}) as it:
        await it.ask(**EXACT)
        assert b'"c1"' in await it.ask(**EXACT)
        assert it.asked == {"a": 1}


async def test_a_client_that_leaves_early_leaves_nothing_behind() -> None:
    async with scene({"a": [stream(OPENAI_STREAM[0], HOLD), OK_STREAM]}, CACHED) as it:
        async with it.gateway.forward(
            ANN, Envelope(openai_request("smart", stream=True, **EXACT)), wire=WIRES["openai_chat"]
        ) as answer:
            assert await anext(answer.__aiter__())
        assert it.records[-1].outcome == "client_gone"
        await it.ask(stream=True, **EXACT)
        assert it.asked == {"a": 2}


def of(key: str, **account: Any) -> Principal:
    return Principal("acme", "service", key, (ALLOW_ALL,), Account(key_id=key, **account))


@pytest.mark.parametrize(
    ("scope", "shares"),
    [
        ("tenant", (True, True, True)),
        ("team", (True, True, False)),
        ("user", (True, False, False)),
        ("key", (False, False, False)),
    ],
)
async def test_an_answer_stays_within_its_scope(scope: Any, shares: tuple[bool, ...]) -> None:
    mine = of("key_1", team="red", user="ann")
    others = [
        of("key_2", team="red", user="ann"),
        of("key_3", team="red", user="bob"),
        of("key_4", team="blue", user="cid"),
    ]
    for other, shared in zip(others, shares, strict=True):
        async with scene({"a": [OK]}, {"cache": Cache(scope=scope)}) as it:
            await it.ask(principal=mine, **EXACT)
            await it.ask(principal=other, **EXACT)
            assert it.asked["a"] == (1 if shared else 2)


async def test_who_may_not_ask_the_model_does_not_get_its_answer_either() -> None:
    denied = Policy((Statement("Allow", "*", "*"), Statement("Deny", "model:Call", "model/a/*")))
    none = Policy((Statement("Allow", "model:Call", "model/other/*"),))
    async with scene({"a": [OK]}, CACHED) as it:
        await it.ask(**EXACT)
        for policy in (denied, none):
            with pytest.raises(FreeholdError):
                await it.ask(principal=Principal("acme", "service", "key_x", (policy,)), **EXACT)
        assert said(it)[1:] == [None, None]


async def test_labelled_answers_are_kept_only_at_home_and_never_cross_a_border() -> None:
    eu = with_labels(ANN, ("eu",))
    members = {"us": {"regions": ("us",)}, "eu": {"regions": ("eu",)}}
    async with scene({"us": [OK], "eu": [OK]}, CACHED, members=members) as it:
        await it.ask(**EXACT)  # Answered, and kept, in the us.
        await it.ask(principal=eu, **EXACT)
        await it.ask(principal=eu, **EXACT)
        assert it.asked == {"us": 1, "eu": 2}  # This installation is nowhere: what is labelled is not kept.
        home = Caching(it.clock, Place(("eu",)))
        it.gateway = Gateway(
            models=it.house.models,
            wires=WIRES,
            records=it.house.spool,  # type: ignore[arg-type]
            clock=it.clock,
            caching=home,
        )
        for _ in range(3):
            await it.ask(principal=eu, **EXACT)
        assert it.asked == {"us": 1, "eu": 3}
        await it.ask(**EXACT)
        assert it.asked == {"us": 2, "eu": 3}


async def test_a_route_without_a_cache_keeps_nothing_and_copies_nothing() -> None:
    async with scene({"a": [OK]}) as it:
        for _ in range(2):
            async with it.gateway.forward(
                ANN, Envelope(openai_request("smart", **EXACT)), wire=WIRES["openai_chat"]
            ) as answer:
                assert answer.copy is None
                assert answer.meter.cache is None
        assert it.asked == {"a": 2}


async def test_values_are_cached_as_bytes_are() -> None:
    request = ModelRequest(
        model="smart", messages=(Message("user", (Text("Hi"),)),), temperature=0, stream=True
    )
    async with scene({"a": [OK_STREAM]}, CACHED) as it:
        for _ in range(2):
            async with it.gateway.call(ANN, request) as answer:
                assert [event async for event in answer]
        assert said(it) == [None, "exact"]


# ------------------------------------------------------------------------------------------------ keys

NAMES = st.sampled_from(["temperature", "seed", "top_p", "max_tokens", "stop"])
VALUES = {"temperature": 0, "seed": 3, "top_p": 0.5, "max_tokens": 9, "stop": ["x"]}


@settings(max_examples=30)
@given(st.sets(NAMES), st.randoms(), st.booleans())
def test_neither_the_order_of_fields_nor_blanks_matter(names: set[str], chance: Any, indent: bool) -> None:
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}, "b": {}}}},
    }
    fields = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [tool],
        **{name: VALUES[name] for name in names},
    }

    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            pairs = list(value.items())
            chance.shuffle(pairs)
            return {name: shuffled(one) for name, one in pairs}
        return [shuffled(one) for one in value] if isinstance(value, list) else value

    plain = msgspec.json.encode(fields)
    other = msgspec.json.encode({**shuffled(fields), "stream": True, "user": "ann", "model": "n"})
    other = msgspec.json.format(other, indent=3) if indent else other
    assert canonical(OPENAI_CHAT.decode_request(plain)) == canonical(OPENAI_CHAT.decode_request(other))


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0.1}, {"seed": 4}, {"max_tokens": 10}, {"top_p": 0.4}, {"stop": ["y"]}, {"logit_bias": {"1": 2}},
     {"response_format": {"type": "json_object"}}, {"messages": [{"role": "user", "content": "hi "}]}, {"tool_choice": "none"},
     {"reasoning_effort": "low"}, {"presence_penalty": 1}],
)  # fmt: skip
def test_whatever_shapes_the_answer_makes_another_key(change: dict[str, Any]) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    fields = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [tool],
        "temperature": 0,
        "seed": 3,
    }
    keys = {
        canonical(OPENAI_CHAT.decode_request(msgspec.json.encode(one)))
        for one in (fields, {**fields, **change})
    }
    assert len(keys) == 2
    assert None not in keys


def test_directives_that_are_none_are_refused_and_unknown_ones_left() -> None:
    assert directives("Only-If-Cached, NO-STORE").keeps is False
    assert directives('max-age="30"').max_age_s == 30
    for wrong in ("max-age", "max-age=soon", "max-age=-1", "max-age=1e9", "max-age=99999999999"):
        with pytest.raises(BadRequest, match="max-age"):
            directives(wrong)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3000)), max_size=40))
def test_memory_never_holds_more_than_it_may_and_forgets_the_oldest(added: list[tuple[int, int]]) -> None:
    memory = Memory(bytes_max=5_000)
    for name, size in added:
        memory.add(
            KeptAnswer(
                tenant="t", key=bytes([name]), model="a/m", body=b"x" * size, kept_at_ms=0, expires_at_ms=10
            )
        )
        assert memory.size_bytes <= 5_000
        assert memory.get("t", bytes([name]), 5) is not None
        assert memory.get("other", bytes([name]), 5) is None
    for name in range(10):
        assert memory.get("t", bytes([name]), 10) is None
    assert (memory.size_bytes, len(memory)) == (0, 0)
