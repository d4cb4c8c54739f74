"""Clients that are slow, send too much, or go away: the first are waited for, the last hang up on the vendor. (More: test_bad_input.py.)"""

import asyncio
from collections.abc import Iterator

import pytest

from tests._waiting import within
from tests.gateway._vendors import HOLD, OPENAI_STREAM, OPENAI_TEXT, openai_request, reply, stream
from tests.server._raw import connected, request
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
    async with within("the vendor to be hung up on"):
        await vendor.hung_up.wait()


@pytest.mark.slow
async def test_a_client_that_reads_nothing_holds_the_vendor_back(shared: World) -> None:
    """The vendor could go on for ever; only sockets' buffers fill."""
    taken = 0

    def endless() -> Iterator[object]:
        nonlocal taken
        *head, _ = stream(*OPENAI_STREAM[:2])
        yield from head
        piece = b"%x\r\n%b\r\n" % (300 * len(OPENAI_STREAM[1]), 300 * OPENAI_STREAM[1])
        while True:
            taken += len(piece)
            yield piece

    vendor = shared.script("openai", stream(*OPENAI_STREAM))
    vendor.choose = lambda _: endless()  # type: ignore[assignment,return-value]
    try:
        async with connected(shared.url) as client, within("the vendor to be held back"):
            await client.send(head(shared, STREAMED) + STREAMED)
            before = -1
            while taken != before or not taken:
                before = taken
                await asyncio.sleep(0.5)
            assert taken < 20_000_000
    finally:
        vendor.choose = None


@pytest.mark.parametrize("framing", ["content-length: 104857600", "transfer-encoding: chunked"])
async def test_a_hundred_megabytes_are_refused_and_ask_nobody(shared: World, framing: str) -> None:
    vendor = shared.script("openai", reply(OPENAI_TEXT))
    piece = b" " * 0x100000
    if "chunked" in framing:
        piece = b"100000\r\n" + piece + b"\r\n"
    async with connected(shared.url) as client:
        await client.send(request("POST", "/v1/chat/completions", framing, key=shared.key))
        try:
            for _ in range(100):
                await client.send(piece)
        except ConnectionError:
            pass  # It need not read what it has refused.
        answer = await client.answer()
    assert answer.status == 413
    assert vendor.asked == []
