"""Live deltas of a session that another process carries forward, over a real PostgreSQL: they come, in order, and cost nothing unwatched."""

import asyncio
from collections.abc import Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.clock import SystemClock
from freehold.core.errors import Unavailable
from freehold.runtime import relay as relaying
from freehold.runtime.live import (
    BUFFERED_MAX,
    Live,
    LiveGap,
    LiveModelStarted,
    LiveText,
    LiveToolArguments,
)
from freehold.runtime.relay import Relay
from freehold.store.store import open_store
from tests._waiting import eventually

STARTED = LiveModelStarted(1, 3, 1, "p", "m", is_language_model=True)


class Between:
    """A channel within the process: everybody hears everything at once."""

    def __init__(self) -> None:
        self.hearers = []
        self.told: list[str] = []
        self.away = False

    def hear(self, hearer) -> None:
        self.hearers.append(hearer)

    async def tell(self, payloads: Sequence[str]) -> None:
        if self.away:
            raise Unavailable("the database is away")
        self.told += payloads
        for payload in payloads:
            for hearer in self.hearers:
                hearer(payload)


@asynccontextmanager
async def processes(*channels):
    """A `Live` for each, and its relay runs."""
    lives = []
    running = []
    for channel in channels:
        relay = Relay(channel, SystemClock())
        lives.append(Live(relay))
        running.append(relay.running(lives[-1]))
        await running[-1].__aenter__()
    try:
        yield lives
    finally:
        for one in running:
            await one.__aexit__(None, None, None)


def drained(reader) -> list:
    found = []
    while (event := reader.first()) is not None:
        found.append(event)
        reader.drop_first()
    return found


def text_of(events) -> str:
    return "".join(one.text for one in events if isinstance(one, LiveText))


async def test_who_watches_in_one_process_sees_what_another_carries(database_url, monkeypatch):
    monkeypatch.setattr(relaying, "ANNOUNCE_S", 0.1)  # the first word may go out before the worker listens
    opened = [open_store(database_url, objects=None, process_id=name) for name in ("door", "worker")]
    async with opened[0] as one, opened[1] as two, processes(one.live, two.live) as (door, worker):
        with door.reading("sess_1", asyncio.Event()) as reader:
            await eventually(lambda: worker.heard("sess_1"))
            worker.publish("sess_1", STARTED)
            for letter in "hello":
                worker.publish("sess_1", LiveText(1, 3, 0, letter))
            worker.publish("sess_1", LiveToolArguments(1, 3, 1, '{"a'))
            worker.publish("sess_1", LiveToolArguments(1, 3, 1, '":1}'))
            await eventually(lambda: reader.first() is not None)
            assert drained(reader) == [
                STARTED,
                LiveText(1, 3, 0, "hello"),
                LiveToolArguments(1, 3, 1, '{"a":1}'),
            ]


async def test_nothing_is_said_of_sessions_that_nobody_watches():
    channel = Between()
    async with processes(channel, channel) as (door, worker):
        assert not worker.heard("sess_1")
        worker.publish("sess_1", STARTED)
        with door.reading("sess_2", asyncio.Event()):
            await eventually(lambda: worker.heard("sess_2"))
            worker.publish("sess_1", STARTED)
            worker.publish("sess_2", STARTED)
            await eventually(lambda: len(channel.told) == 2)
    assert [one.split()[0] for one in channel.told] == ["f", "d"]


async def test_an_announcement_ends_by_itself(monkeypatch):
    monkeypatch.setattr(relaying, "WATCHED_S", 0.05)
    channel = Between()
    async with processes(channel, channel) as (door, worker):
        with door.reading("sess_1", asyncio.Event()):
            await eventually(lambda: worker.heard("sess_1"))
        await eventually(lambda: not worker.heard("sess_1"))


async def test_who_is_watched_for_long_is_announced_again(monkeypatch):
    monkeypatch.setattr(relaying, "ANNOUNCE_S", 0.02)
    channel = Between()
    async with processes(channel) as (door,):
        with door.reading("sess_1", asyncio.Event()):
            await eventually(lambda: len(channel.told) >= 3)
            async with processes(channel) as (late,):
                await eventually(lambda: late.heard("sess_1"))


async def test_a_database_that_is_away_costs_deltas_and_nothing_else():
    channel = Between()
    async with processes(channel, channel) as (door, worker):
        with door.reading("sess_1", asyncio.Event()) as reader:
            await eventually(lambda: worker.heard("sess_1"))
            channel.away = True
            worker.publish("sess_1", LiveText(1, 3, 0, "lost"))
            await eventually(lambda: not worker._elsewhere._waiting)
            await asyncio.sleep(0)
            channel.away = False
            worker.publish("sess_1", LiveText(1, 3, 0, "seen"))
            await eventually(lambda: reader.first() is not None)
            assert text_of(drained(reader)) == "seen"


async def test_what_is_too_much_gives_way_to_a_gap():
    channel = Between()
    async with processes(channel, channel) as (door, worker):
        with door.reading("sess_1", asyncio.Event()) as reader:
            await eventually(lambda: worker.heard("sess_1"))
            for number in range(relaying.WAITING_EVENTS_MAX + BUFFERED_MAX):
                worker.publish("sess_1", LiveText(1, 3, number % 2, "x"))
            await eventually(lambda: reader.first() is not None)
            assert isinstance(reader.first(), LiveGap)
            assert worker._elsewhere._waiting_count == 0


@given(st.lists(st.text(max_size=5000) | st.just("\x00" * 9000) | st.just("\ud800"), max_size=8))
@pytest.mark.filterwarnings("default")
async def test_any_text_arrives_in_payloads_that_the_database_takes(texts):
    events = [LiveText(1, 3, place % 2, text) for place, text in enumerate(texts)]
    payloads = list(relaying._joined(relaying._encoded(events)))
    assert all(len(one.encode()) <= relaying.PAYLOAD_BYTES_MAX for one in payloads)
    arrived = [event for one in payloads for event in relaying._decoder.decode(f"[{one}]")]
    if not any("\ud800" in text for text in texts):
        assert text_of(arrived) == "".join(texts)
