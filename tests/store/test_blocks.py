"""Large texts are kept once, however often events say them, and come back byte for byte."""

import asyncio
import base64

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests._waiting import within
from tests.store._parts import begun, said
from tests.store.conftest import Opens

from freehold.core.messages import Bytes, Carried, Media, Text, ToolCall, raw
from freehold.core.session import (
    AwaitsSession,
    CallAwaited,
    ModelAnswered,
    ToolFinished,
    ToolStarted,
    UserSpoke,
)
from freehold.store._blocks import BLOCK_BYTES_MIN, named_in, put_back, taken_out
from freehold.store._events import encode
from freehold.store.store import Store

LARGE = 'a "large" text\n' * 1000
OTHER = "another text " * 1000
ARGUMENTS = f'{{"text": "{OTHER}"}}'


def result(text: str, number: int = 1) -> ToolFinished:
    return ToolFinished(call_id=f"call_{number}", content=(Text(text),))


async def stored_bytes(url: str) -> tuple[int, int, int]:
    """Of events, of blocks, and how many blocks."""
    connection = await asyncpg.connect(url)
    try:
        events = await connection.fetchval("SELECT sum(octet_length(body)) FROM freehold.events")
        blocks = await connection.fetchrow(
            "SELECT coalesce(sum(octet_length(body)), 0), count(*) FROM freehold.blocks"
        )
        return events, blocks[0], blocks[1]
    finally:
        await connection.close()


@pytest.mark.slow
async def test_a_text_said_a_thousand_times_is_stored_once(store: Store, store_url: str) -> None:
    row = await begun(store.log)
    for first in range(0, 1000, 200):
        await store.log.append(row.id, [result(LARGE, first + number) for number in range(200)])
    events, blocks, count = await stored_bytes(store_url)
    assert count == 1
    assert blocks == len(bytes(raw(LARGE)))
    assert events < 1000 * 250
    read = [one.event for one in await store.log.read(row.id, after=1)]
    assert read == [result(LARGE, number) for number in range(len(read))]


async def test_every_kind_of_content_comes_back_as_it_was(store: Store) -> None:
    picture = Media("image", "image/png", Bytes(bytes(range(256)) * 64))
    block = Carried("anthropic_messages", "thing", raw({"type": "thing", "deep": [OTHER, {"a": LARGE}]}))
    answer = ModelAnswered(
        seen_seq=1,
        model="m",
        served_by="p/m",
        content=(Text(LARGE), ToolCall("c1", "write", ARGUMENTS), block),
        stop_reason="tool_use",
    )
    claim = ToolStarted(call_id="c1", tool="t", function="f", arguments=ARGUMENTS, effect="pure", key="k")
    wanted = [UserSpoke(content=(picture, Text(LARGE), Text("short"))), answer, claim, result(LARGE)]
    row = await begun(store.log, *wanted[:1])
    await store.log.append(row.id, wanted[1:])
    assert [one.event for one in await store.log.read(row.id, after=1)] == wanted
    async with within("all events"), store.log.follow(row.id, after=1) as batches:
        followed = []
        while len(followed) < len(wanted):
            followed += [one.event for one in await anext(batches)]
    assert followed == wanted


async def test_arguments_are_stored_once_for_the_call_and_its_run(store: Store, store_url: str) -> None:
    answer = ModelAnswered(
        seen_seq=1,
        model="m",
        served_by="p/m",
        content=(ToolCall("c1", "write", ARGUMENTS),),
        stop_reason="tool_use",
    )
    claim = ToolStarted(call_id="c1", tool="t", function="f", arguments=ARGUMENTS, effect="pure", key="k")
    await begun(store.log, answer, claim)
    assert (await stored_bytes(store_url))[2] == 1


async def test_what_a_subagent_is_told_is_stored_once_for_its_parent_and_itself(
    store: Store, store_url: str
) -> None:
    awaited = CallAwaited(call_id="c1", awaits=AwaitsSession(session_id="sess_1", agent="a", task=OTHER))
    row = await begun(store.log, awaited, UserSpoke(content=(Text(OTHER),)))
    assert (await stored_bytes(store_url))[2] == 1
    assert (await store.log.read(row.id))[-2].event == awaited


async def test_nobody_can_name_a_block_by_saying_its_reference(store: Store) -> None:
    secret = await begun(store.log, said(LARGE))
    body = encode([said(LARGE)]).bodies[0]
    (digest,) = named_in(body)
    size = len(encode([said(LARGE)]).blocks[digest])
    forged = f"\0{size:08x}{digest}"
    row = await begun(store.log, said(forged), said("\0" + "0" * 72))
    read = [one.event for one in await store.log.read(row.id, after=1)]
    assert read == [said(forged), said("\0" + "0" * 72)]
    assert (await store.log.read(secret.id, after=1))[0].event == said(LARGE)


async def test_two_processes_that_write_the_same_texts_do_not_hinder_each_other(opened: Opens) -> None:
    texts = [f"{number} {OTHER}" for number in range(6)]
    async with opened("one") as one, opened("two") as two:
        rows = [await begun(one.log) for _ in range(8)]

        async def write(place: int) -> None:
            log = (one, two)[place % 2].log
            order = texts if place % 4 < 2 else texts[::-1]
            for text in order:
                await log.append(rows[place].id, [said(text)])

        await asyncio.gather(*(write(place) for place in range(8)))
        for place, row in enumerate(rows):
            read = [one.event for one in await two.log.read(row.id, after=1)]
            assert read == [said(text) for text in (texts if place % 4 < 2 else texts[::-1])]


async def test_tenants_share_nothing(store: Store, store_url: str) -> None:
    await begun(store.log, said(LARGE), tenant="a")
    await begun(store.log, said(LARGE), tenant="b")
    assert (await stored_bytes(store_url))[2] == 2


@given(st.lists(st.text() | st.just("\0" + "a" * 72) | st.just('"\\u0000' + "b" * 72 + '"')))
def test_what_is_taken_out_is_put_back_as_it_was(texts: list[str]) -> None:
    event = UserSpoke(content=tuple(Text(text) for text in [*texts, LARGE]))
    body = raw(event)
    short, blocks = taken_out(bytes(body), [bytes(raw(text)) for text in [*texts, LARGE]])
    assert put_back(short, blocks) == bytes(body)
    assert len(short) < len(bytes(body)) - BLOCK_BYTES_MIN


@pytest.mark.parametrize("size", [0, 10, 1000])
def test_small_events_are_written_as_they_ever_were(size: int) -> None:
    encoded = encode([said("x" * size)])
    assert encoded.blocks == {}
    assert encoded.bodies == [bytes(raw(said("x" * size)))]


def test_bytes_of_media_are_a_block_too() -> None:
    data = bytes(range(256)) * 100
    encoded = encode([UserSpoke(content=(Media("image", "image/png", Bytes(data)),))])
    assert list(encoded.blocks.values()) == [b'"' + base64.b64encode(data) + b'"']
