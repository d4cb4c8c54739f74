"""OpenAI's further wires through the gateway: what passes is metered, and what only one provider speaks is refused elsewhere."""

import msgspec
import pytest

from freehold.clock import SystemClock
from freehold.core.errors import BadRequest, BrokenOff, Unsupported
from freehold.core.messages import Usage
from freehold.core.resources import Provider
from freehold.gateway.passing import Envelope
from freehold.gateway.pipeline import Gateway
from freehold.wires import named
from freehold.wires.openai_embeddings import EMBEDDINGS
from tests.gateway._vendors import CUT, Vendor, reply, sse, stream
from tests.gateway.conftest import ANN, House, open_house

RESPONSES = "openai_responses"
USAGE = {"input_tokens": 120, "output_tokens": 7, "input_tokens_details": {"cached_tokens": 100}}
WHOLE = {"id": "resp_1", "model": "gpt-4o", "status": "completed", "output": [], "usage": USAGE}
CREATED = sse({"type": "response.created", "response": {"id": "resp_1", "model": "gpt-4o"}}, name=True)
COMPLETED = sse({"type": "response.completed", "response": WHOLE}, name=True)
VECTORS = msgspec.json.encode({"data": [], "model": "e", "usage": {"prompt_tokens": 40, "total_tokens": 40}})


def gateway(house: House) -> Gateway:
    wires = {name: named(name) for name in ("openai_chat", RESPONSES)}
    return Gateway(models=house.models, wires=wires, records=house.spool, clock=SystemClock())  # type: ignore[arg-type]


def upstreams(vendor: Vendor) -> dict[str, str]:
    return {"openai_chat": f"{vendor.url}/v1"}


def asked(model: str, **more: object) -> Envelope:
    return Envelope(msgspec.json.encode({"model": model, "input": "hi", **more}))


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_response_that_passes_is_metered(streamed: bool) -> None:
    script = stream(CREATED, COMPLETED) if streamed else reply(msgspec.json.encode(WHOLE))
    async with Vendor(script) as vendor, open_house(upstreams=upstreams(vendor)) as house:
        async with gateway(house).forward(
            ANN, asked("gpt-4o", stream=streamed), wire=named(RESPONSES)
        ) as passing:
            told = b"".join([chunk async for chunk in passing.chunks()]) if streamed else passing.body
        assert b"resp_1" in told
        record = house.spool.only
    assert (record.outcome, record.wire, record.provider, record.priced) == ("ok", RESPONSES, "openai", True)
    assert record.usage == Usage(input_tokens=120, output_tokens=7, cache_read_tokens=100)
    assert record.cost_pico > 0


async def test_a_response_that_was_cut_is_metered_by_estimate() -> None:
    async with Vendor(stream(CREATED, CUT)) as vendor, open_house(upstreams=upstreams(vendor)) as house:
        with pytest.raises(BrokenOff):
            async with gateway(house).forward(
                ANN, asked("gpt-4o", stream=True), wire=named(RESPONSES)
            ) as passing:
                _ = [chunk async for chunk in passing.chunks()]
        record = house.spool.only
    assert (record.outcome, record.usage.estimated) == ("broken_off", True)


async def test_a_server_that_only_follows_openai_is_not_taken_to_speak_responses() -> None:
    async with Vendor([]) as vendor, open_house(environment={"KEY": "k"}) as house:
        mine = Provider(name="mine", type="openai", base_url=f"{vendor.url}/v1", api_key="env:KEY")
        house.declared.declare(mine)
        for asked_in, spoken in (
            (RESPONSES, "openai_chat"),
            ("openai_chat", "openai_chat"),
            ("openai_embeddings", "openai_embeddings"),
        ):
            target = await house.models.resolve("acme", "mine/llama", wire=asked_in)
            assert target.provider.wire == spoken


async def test_embeddings_are_metered() -> None:
    async with Vendor(reply(VECTORS)) as vendor, open_house(upstreams=upstreams(vendor)) as house:
        made = await gateway(house).embed(ANN, asked("openai/text-embedding-3-small"), wire=EMBEDDINGS)
        assert (made.body, made.provider, made.model) == (VECTORS, "openai", "text-embedding-3-small")
        record = house.spool.only
    assert (record.outcome, record.wire, record.priced) == ("ok", "openai_embeddings", True)
    assert record.usage == Usage(input_tokens=40)
    assert record.cost_pico > 0


async def test_embeddings_that_fail_leave_a_record() -> None:
    script = reply(b'{"error":{"message":"no"}}', status=400)
    async with Vendor(script) as vendor, open_house(upstreams=upstreams(vendor)) as house:
        with pytest.raises(BadRequest):
            await gateway(house).embed(ANN, asked("text-embedding-3-small"), wire=EMBEDDINGS)
        assert (house.spool.only.outcome, house.spool.only.usage) == ("bad_request", Usage())


async def test_embeddings_go_to_who_speaks_them_only() -> None:
    async with Vendor([]) as vendor, open_house(upstreams={"anthropic_messages": vendor.url}) as house:
        with pytest.raises(Unsupported, match="anthropic makes no embeddings") as raised:
            await gateway(house).embed(ANN, asked("anthropic/claude-sonnet-4-5"), wire=EMBEDDINGS)
        assert raised.value.field == "model"
        assert house.spool.only.outcome == "unsupported"
        assert not vendor.asked
