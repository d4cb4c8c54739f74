"""A snapshot says what its log says, and nothing depends on there being one."""

from pathlib import Path

import asyncpg
import msgspec
import pytest
from tests.store._parts import begun, claimed, said

from freehold.core.messages import Text, ToolCall, Usage
from freehold.core.session import ModelAnswered, Recorded, ToolFinished, ToolStarted, TurnStarted
from freehold.core.session_log import Lease, SessionRow
from freehold.core.session_state import SessionState, replay
from freehold.runtime.resuming import READ_PAGE, resumed
from freehold.store._snapshots import decode, encode
from freehold.store.store import Store

HISTORIES = sorted((Path(__file__).parents[1] / "histories").glob("*.jsonl"))
LARGE = "a large text " * 1000


def steps(count: int, *, text: str = "the result") -> list:
    """A turn of so many tool calls, three events each."""
    events: list = [TurnStarted(turn=1)]
    for number in range(count):
        call_id = f"call_{number}"
        events += [
            ModelAnswered(
                seen_seq=len(events) + 2,
                model="m",
                served_by="p/m",
                content=(ToolCall(call_id, "look", "{}"),),
                stop_reason="tool_use",
                usage=Usage(input_tokens=10, output_tokens=1),
            ),
            ToolStarted(call_id=call_id, tool="t", function="look", arguments="{}", effect="pure", key="k"),
            ToolFinished(call_id=call_id, content=(Text(text),)),
        ]
    return events


async def grown(store: Store, count: int, *, text: str = "the result") -> tuple[SessionRow, Lease]:
    row = await begun(store.log, said("go"))
    lease = await claimed(store.log)
    events = steps(count, text=text)
    for first in range(0, len(events), 600):
        await store.log.append(row.id, events[first : first + 600], lease=lease)
    return row, lease


async def whole(store: Store, session_id: str) -> SessionState:
    events: list[Recorded] = []
    while page := await store.log.read(session_id, after=len(events)):
        events += page
    return replay(events)


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_every_state_of_a_history_is_read_as_it_was_kept(path: Path) -> None:
    state = SessionState()
    for line in path.read_bytes().splitlines():
        state.apply(msgspec.json.decode(line, type=Recorded))
        assert decode(encode(state)[0]) == state


async def test_a_session_goes_on_from_its_snapshot_as_from_its_log(store: Store) -> None:
    row, lease = await grown(store, READ_PAGE)
    await store.log.keep_snapshot(lease, await whole(store, row.id))
    await store.log.append(row.id, [said("and now?")], lease=lease)
    found = await resumed(store.log, row.id)
    assert found.snapshot_seq == 3 * READ_PAGE + 3
    assert found.state == await whole(store, row.id)


async def test_large_texts_of_a_snapshot_are_those_of_the_events(store: Store, store_url: str) -> None:
    row, lease = await grown(store, READ_PAGE, text=LARGE)
    state = await whole(store, row.id)
    await store.log.keep_snapshot(lease, state)
    assert await store.log.snapshot(row.id) == state
    connection = await asyncpg.connect(store_url)
    size, blocks = await connection.fetchrow(
        "SELECT (SELECT octet_length(body) FROM freehold.snapshots), (SELECT count(*) FROM freehold.blocks)"
    )
    await connection.close()
    assert blocks == 1
    assert size < READ_PAGE * 400


@pytest.mark.parametrize("spoil", ["format = 'older'", "body = 'not a snapshot'", "body = body || '}'"])
async def test_a_snapshot_that_cannot_be_read_is_not_there(store: Store, store_url: str, spoil: str) -> None:
    row, lease = await grown(store, READ_PAGE)
    state = await whole(store, row.id)
    await store.log.keep_snapshot(lease, state)
    connection = await asyncpg.connect(store_url)
    await connection.execute(f"UPDATE freehold.snapshots SET {spoil}")
    await connection.close()
    found = await resumed(store.log, row.id)
    assert found.snapshot_seq == 0
    assert found.state == state


async def test_who_lost_the_lease_keeps_no_snapshot(store: Store) -> None:
    row, lease = await grown(store, 3)
    await store.log.release(lease)
    await store.log.keep_snapshot(lease, await whole(store, row.id))
    assert await store.log.snapshot(row.id) is None


async def test_an_older_snapshot_does_not_replace_a_newer_one(store: Store) -> None:
    row, lease = await grown(store, 3)
    state = await whole(store, row.id)
    await store.log.keep_snapshot(lease, state)
    await store.log.keep_snapshot(lease, replay((await store.log.read(row.id))[:4]))
    assert await store.log.snapshot(row.id) == state
