"""What is labelled `eu` stays in `eu`, whichever way it is tried: directly, by a route, after failures, hedged, as a count, as texts."""

from collections.abc import Mapping
from typing import Any

import pytest

from freehold.core.errors import BadRequest, Forbidden, FreeholdError, Unsupported
from freehold.core.messages import Message, ModelRequest, Text
from freehold.core.policy import ALLOW_ALL, Principal
from freehold.core.resources import Provider
from freehold.core.routes import Hedge, Retries
from freehold.gateway.passing import Envelope
from freehold.gateway.residency import Place, hold_here, labelled, unmet, with_labels
from freehold.wires.openai_embeddings import EMBEDDINGS
from tests.gateway._routes import Scene, scene
from tests.gateway._vendors import OPENAI_STREAM, OPENAI_TEXT, openai_request, reply, stream
from tests.gateway.conftest import WIRES

OK = reply(OPENAI_TEXT)
OK_STREAM = stream(*OPENAI_STREAM)
BUSY = reply(b'{"error":{"message":"busy"}}', status=503)
EU = with_labels(Principal("acme", "service", "key_eu", (ALLOW_ALL,)), ("eu",))
ONLY_A_IN_EU: Mapping[str, Mapping[str, Any]] = {"a": {"regions": ("eu",)}, "b": {"regions": ("us",)}}
ONCE = {"retries": Retries(again_max=0)}


@pytest.mark.parametrize(
    ("regions", "labels", "met"),
    [
        (("eu",), {}, True),
        ((), {"eu": "true"}, True),
        (("eu-central-1",), {"eu": "true"}, True),
        ((), {}, False),
        (("eu", "us"), {}, False),
        (("eu-west-2",), {}, False),
        ((), {"eu": "false"}, False),
        (("us",), {"eu": ""}, False),
    ],
)
def test_a_place_meets_a_label_only_where_it_says_so(
    regions: tuple[str, ...], labels: dict[str, str], met: bool
) -> None:
    assert (unmet(("eu",), regions, labels) is None) is met


def test_every_label_must_be_met_and_one_with_a_value_by_that_value() -> None:
    assert unmet(("eu", "tier=gold"), ("eu",), {"tier": "gold"}) is None
    assert "tier=gold" in str(unmet(("eu", "tier=gold"), ("eu",), {"tier": "silver"}))
    assert unmet(("tier=gold",), ("tier=gold",), {}) is not None


def test_the_header_only_ever_adds_labels_and_nonsense_in_it_is_refused() -> None:
    assert labelled(EU, {}).residency == ("eu",)
    assert labelled(EU, {"x-freehold-labels": " tier=gold , eu"}).residency == ("eu", "tier=gold")
    assert labelled(EU, {"x-freehold-labels": ""}).residency == ("eu",)
    assert EU.narrowed("agent", "helper", ALLOW_ALL).residency == ("eu",)
    for wrong in ("EU!", "a=b=c", ",".join(f"l{number}" for number in range(17))):
        with pytest.raises(BadRequest, match="label"):
            labelled(EU, {"x-freehold-labels": wrong})


def test_what_is_labelled_is_kept_only_where_the_installation_says_it_is() -> None:
    hold_here(EU, Place(("eu",)), "it")
    for place in (Place(), Place(("us",)), Place(("eu", "us"))):
        with pytest.raises(Forbidden, match="cannot be kept here"):
            hold_here(EU, place, "it")


async def refused(it: Scene, **asked: Any) -> FreeholdError:
    with pytest.raises(FreeholdError) as caught:
        await it.ask(principal=EU, **asked)
    return caught.value


async def test_a_model_that_declares_no_region_is_not_asked_directly() -> None:
    async with scene({"a": [OK]}) as it:
        error = await refused(it, model="a/m")
        assert isinstance(error, Forbidden)
        assert "labelled eu" in error.message
        assert it.asked == {"a": 0}
        assert it.outcomes[-1] == ("a", "forbidden")
        it.house.declared.declare(
            Provider(
                name="a",
                type="openai",
                base_url=it.vendors["a"].url + "/v1",
                api_key="env:KEY",
                regions=("eu",),
            )
        )
        assert b"Hello there" in await it.ask(principal=EU, model="a/m")


async def test_a_route_asks_only_those_inside() -> None:
    async with scene({"b": [OK], "a": [OK]}, members=ONLY_A_IN_EU) as it:
        for _ in range(5):
            await it.ask(principal=EU)
        assert it.asked == {"b": 0, "a": 5}
    async with scene({"b": [OK]}, members={"b": {"regions": ("us",)}}) as it:
        error = await refused(it)
        assert isinstance(error, Unsupported)
        assert "labelled eu" in error.message
        assert it.asked == {"b": 0}


async def test_after_failures_nobody_outside_is_asked_either() -> None:
    async with scene({"a": [BUSY], "b": [OK]}, members=ONLY_A_IN_EU) as it:
        for _ in range(12):  # Over what opens the breaker.
            await refused(it)
        assert it.asked["b"] == 0
        await it.ask()
        assert it.asked["b"] == 1


async def test_a_hedge_goes_to_nobody_outside() -> None:
    members = ONLY_A_IN_EU
    async with scene(
        {"a": [OK_STREAM], "b": [OK_STREAM]}, {"hedge": Hedge(after_s=0.01)}, members=members
    ) as it:
        for _ in range(5):
            assert b"Hello" in await it.ask(principal=EU, stream=True)
        assert it.asked == {"a": 5, "b": 0}


async def test_a_translated_call_and_values_are_held_as_bytes_are() -> None:
    async with scene({"b": [OK], "a": [OK]}, members=ONLY_A_IN_EU) as it:
        await it.ask(principal=EU, wire="anthropic_messages")
        request = ModelRequest(model="smart", messages=(Message("user", (Text("Hi"),)),))
        async with it.gateway.call(EU, request) as answer:
            assert [event async for event in answer]
        with pytest.raises(Forbidden):
            async with it.gateway.call(EU, ModelRequest(model="b/m", messages=request.messages)):
                pass
        assert it.asked == {"b": 0, "a": 2}


async def test_texts_and_counts_go_to_nobody_outside() -> None:
    texts = Envelope(b'{"model":"b/m","input":"secret"}')
    routed = Envelope(b'{"model":"smart","input":"secret"}')
    async with scene(
        {"b": [OK], "a": [OK]}, ONCE, members=ONLY_A_IN_EU, types={"a": "anthropic", "b": "anthropic"}
    ) as it:
        for envelope in (texts, routed):
            with pytest.raises(FreeholdError):
                await it.gateway.embed(EU, envelope, wire=EMBEDDINGS)
        with pytest.raises(Forbidden):
            await it.gateway.count(EU, Envelope(openai_request("b/m")), wire="openai_chat")
        counted = await it.gateway.count(EU, Envelope(openai_request("smart")), wire="openai_chat")
        assert counted.provider == "a"
        assert it.asked["b"] == 0
    async with scene({"b": [OK]}, members={"b": {"regions": ("us",)}}) as it:
        with pytest.raises(Forbidden):
            await it.gateway.count(EU, Envelope(openai_request("smart")), wire="openai_chat")
        assert it.asked == {"b": 0}


async def test_a_models_own_label_in_a_route_stands_for_its_region() -> None:
    async with scene(
        {"b": [OK], "a": [OK]}, members={"a": {"regions": ("eu-central-1",), "labels": {"eu": "true"}}}
    ) as it:
        await it.ask(principal=EU)
        assert it.asked == {"b": 0, "a": 1}


async def test_explaining_a_route_says_who_is_outside_and_asks_nobody() -> None:
    async with scene({"b": [OK], "a": [OK]}, members=ONLY_A_IN_EU) as it:
        told = await it.gateway.explain(
            EU, "smart", Envelope(openai_request("smart")), wire=WIRES["openai_chat"]
        )
        why = {one.model: (one.place, one.why) for one in told.verdicts}
        assert why["a/m"][0] == 1
        assert "labelled eu" in why["b/m"][1]
        assert it.asked == {"b": 0, "a": 0}
