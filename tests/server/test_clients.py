"""Clients that are slow, or go away: the first are waited for, the others hang up on the vendor. (Too large: test_bad_input.py.)"""

import asyncio

from tests.gateway._vendors import HOLD, OPENAI_STREAM, OPENAI_TEXT, openai_request, reply, stream
from tests.server._raw import PATIENCE_S, connected
from tests.server._world import World

BODY = openai_request("openai/gpt-4o", stream=False)
STREAMED = openai_request("openai/gpt-4o", stream=True)


def head(world: World, body: bytes) -> bytes:
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {world.key}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode()


async def test_a_request_that_comes_byte_by_byte_is_answered(shared: World) -> None:
    vendor = shared.script("openai", reply(OPENAI_TEXT))
    async with connected(shared.url) as client:
        for byte in head(shared, BODY) + BODY:
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        answer = await client.answer()
    assert (answer.status, answer.body) == (200, OPENAI_TEXT)
    assert len(vendor.asked) == 1


async def test_a_request_that_stops_halfway_asks_nobody(shared: World) -> None:
    vendor = shared.script("openai", reply(OPENAI_TEXT))
    async with connected(shared.url) as client:
        await client.send(head(shared, BODY) + BODY[:20])
    async with connected(shared.url) as client:  # By now the other one is known to be gone.
        await client.send(head(shared, BODY) + BODY)
        assert (await client.answer()).status == 200
    assert len(vendor.asked) == 1


async def test_a_client_that_goes_away_hangs_up_on_the_vendor(shared: World) -> None:
    vendor = shared.script("openai", stream(*OPENAI_STREAM[:2], HOLD))
    async with connected(shared.url) as client:
        await client.send(head(shared, STREAMED) + STREAMED)
        status, _ = await client.head()
        assert status == 200
    async with asyncio.timeout(PATIENCE_S):
        await vendor.hung_up.wait()
