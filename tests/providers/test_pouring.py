"""A stream that is poured: every piece in order and once, also where its taker is slow, stops, or refuses."""

import asyncio

import pytest

from freehold.core.errors import BadRequest, BrokenOff, TooLarge
from freehold.providers._http_reply import Reply

PIECES = [b"one ", b"two ", b"three ", b"four"]


class Source:
    """The connection's side of a reply."""

    resumed_count = 0
    aborted = False

    def resume(self) -> None:
        self.resumed_count += 1

    def abort(self) -> None:
        self.aborted = True


def open_reply() -> tuple[Reply, Source]:
    source = Source()
    return Reply(200, b"HTTP/1.1 200 OK\r\n\r\n", "vendor", source), source


async def never() -> None:
    raise AssertionError("nobody was behind")


async def turn() -> None:
    """Lets whoever pours get as far as it can."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_what_came_before_and_what_comes_later_are_taken_in_order() -> None:
    reply, _ = open_reply()
    taken: list[bytes] = []

    def take(piece: bytes) -> bool:
        taken.append(piece)
        return True

    reply.add(PIECES[0])
    pouring = asyncio.create_task(reply.pour(take, never))
    await turn()
    reply.add(PIECES[1])
    assert taken == PIECES[:2]  # At once, with nobody woken.
    for piece in PIECES[2:]:
        reply.add(piece)
    reply.end(None)
    await pouring
    assert b"".join(taken) == b"".join(PIECES)


async def test_a_slow_taker_is_waited_for_and_what_comes_meanwhile_is_kept() -> None:
    reply, source = open_reply()
    taken: list[bytes] = []
    ready = asyncio.Event()

    def take(piece: bytes) -> bool:
        taken.append(piece)
        return ready.is_set()

    pouring = asyncio.create_task(reply.pour(take, ready.wait))
    await turn()
    for piece in PIECES[:3]:
        reply.add(piece)
    await turn()
    assert taken == PIECES[:1]
    assert reply.size == len(PIECES[1]) + len(PIECES[2])  # By which the connection knows to stop reading.
    ready.set()
    await turn()
    assert source.resumed_count
    reply.add(PIECES[3])
    reply.end(None)
    await pouring
    assert b"".join(taken) == b"".join(PIECES)


async def test_what_a_taker_raises_reaches_whoever_pours() -> None:
    reply, _ = open_reply()

    def take(_: bytes) -> bool:
        raise BadRequest("no such event")

    pouring = asyncio.create_task(reply.pour(take, never))
    await turn()
    reply.add(PIECES[0])
    with pytest.raises(BadRequest, match="no such event"):
        await pouring


async def test_a_stream_that_breaks_off_or_is_too_long_says_so() -> None:
    reply, _ = open_reply()
    pouring = asyncio.create_task(reply.pour(lambda _: True, never))
    await turn()
    reply.end(BrokenOff("gone"))
    with pytest.raises(BrokenOff):
        await pouring
    reply, _ = open_reply()
    pouring = asyncio.create_task(reply.again_from(b"12", limit_bytes=2).pour(lambda _: True, never))
    await turn()
    reply.add(b"345")
    with pytest.raises(TooLarge):
        await pouring
