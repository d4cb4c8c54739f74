"""Results too large for a conversation: kept once, read by their handle, and by nobody else's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from obstore.store import MemoryStore

from freehold.core.context import Context
from freehold.core.errors import BadRequest, NotFound, TooLarge
from freehold.core.messages import Bytes, Media, Text, text_of
from freehold.core.ports import ToolOutcome
from freehold.core.session import ToolFinished, TurnFinished
from freehold.runtime.offload import (
    KEPT_BYTES_MAX,
    MEDIA_BYTES_MAX,
    RESULT_READ,
    SHOWN_BYTES,
    TENANT,
    Results,
)
from freehold.store.blobs import ObstoreObjects
from tests.runtime._world import AGENT, OWNER, calls, events_of, results_in, said, world

LINES = "".join(f"line {number}: crate in dock {number % 9}\n" for number in range(20_000))


@pytest.fixture
def objects():
    return ObstoreObjects(MemoryStore(), sorted_listing=True)


def of(objects, *ids, bytes_max=1000):
    return Results(objects).of("acme", ids, bytes_max=bytes_max)


def texts_of(*texts):
    return tuple(Text(text) for text in texts)


async def read(results, **arguments) -> str:
    return text_of((await results.read(arguments)).content)


async def test_what_fits_stays_as_it_is(objects):
    wanted = texts_of("a" * 400, "b" * 500)
    fitted = await of(objects, "sess_1").fitted(wanted)
    assert (fitted.content, fitted.kept) == (wanted, ())


async def test_what_does_not_fit_is_kept_once_and_read_in_pieces(objects):
    results = of(objects, "sess_1")
    first, second = await results.fitted(texts_of(LINES)), await results.fitted(texts_of(LINES))
    assert first == second
    (kept,) = first.kept
    assert len((await objects.list(TENANT)).objects) == 1
    shown = text_of(first.content)
    assert shown.startswith(LINES[:SHOWN_BYTES])
    assert f'handle="{kept.handle}", offset={SHOWN_BYTES}' in shown
    assert len(shown) < SHOWN_BYTES + 500

    whole, offset = "", 0
    while offset < kept.size_bytes:
        text, _, where = (await read(results, handle=kept.handle, offset=offset, limit=30_000)).rpartition(
            "\n[bytes "
        )
        whole += text
        offset = int(where.split(" to ")[1].split(" of ")[0])
    assert whole == LINES
    assert "[1 found]" in await read(results, handle=kept.handle, search="LINE 17431:")
    many = await read(results, handle=kept.handle, search="dock 3")
    assert many.count("\nat ") + 1 == 20
    assert "[more; go on with offset=" in many


@given(st.text(min_size=40), st.integers(1, 20))
async def test_pieces_never_cut_a_character(text, limit):
    results = of(ObstoreObjects(MemoryStore(), sorted_listing=True), "sess_1", bytes_max=1)
    text = text.encode("utf-8", "replace").decode()
    (kept,) = (await results.fitted(texts_of(text))).kept
    whole, offset = "", 0
    while offset < kept.size_bytes:
        piece, _, where = (
            await read(results, handle=kept.handle, offset=offset, limit=limit + 4)
        ).rpartition("\n[bytes ")
        whole += piece
        offset = int(where.split(" to ")[1].split(" of ")[0])
    assert whole == text


async def test_a_handle_opens_nothing_in_another_session(objects):
    (kept,) = (await of(objects, "sess_1").fitted(texts_of(LINES))).kept
    assert "line 0" in await read(of(objects, "sess_fork", "sess_1"), handle=kept.handle)
    with pytest.raises(NotFound):
        await read(of(objects, "sess_2"), handle=kept.handle)
    with pytest.raises(NotFound):
        await read(Results(objects).of("other", ["sess_1"], bytes_max=1), handle=kept.handle)
    with pytest.raises(BadRequest):
        await read(of(objects, "sess_2"), handle=f"../sess_1/{kept.handle}")


async def test_wrong_arguments_are_told(objects):
    results = of(objects, "sess_1")
    handle = (await results.fitted(texts_of(LINES))).kept[0].handle
    for wrong in ({}, {"handle": handle, "offset": -1}, {"handle": handle, "limit": 10**9}, {"handle": handle, "search": ""},
                  {"handle": handle, "page": 1}):  # fmt: skip
        with pytest.raises(BadRequest):
            await results.read(wrong)
    assert "[bytes" in await read(results, handle=handle, offset=10**9)


async def test_what_is_beyond_all_bounds_is_refused(objects):
    with pytest.raises(TooLarge, match="Ask for less"):
        await of(objects, "sess_1").fitted(texts_of("x" * (KEPT_BYTES_MAX + 1)))


async def test_media_beyond_the_bound_are_kept_unseen(objects):
    small = Media("image", "image/png", Bytes(b"x" * 1000))
    large = Media("image", "image/png", Bytes(b"y" * MEDIA_BYTES_MAX), name="map")
    fitted = await of(objects, "sess_1").fitted((small, large))
    assert fitted.content[0] == small
    assert "map" in text_of(fitted.content)
    assert [(one.size_bytes, one.media_type) for one in fitted.kept] == [(MEDIA_BYTES_MAX, "image/png")]


async def test_a_model_reads_on_in_its_session_and_in_a_fork(database_url):
    def script(request):
        results = results_in(request)
        names = [tool.name for tool in request.tools]
        if not results:
            assert RESULT_READ not in names
            return calls(("ledger_look", "{}"))
        handle = text_of(results[0].content).rpartition('handle="')[2].partition('"')[0]
        if len(results) == 1:
            assert RESULT_READ in names
            return calls((RESULT_READ, f'{{"handle": "{handle}", "search": "line 19999"}}'), start=2)
        return said(text_of(results[-1].content))

    async def much(run):
        return ToolOutcome((Text(LINES),))

    async with world(database_url, script) as here, here.worker().running():
        here.kind.do = much
        row = await here.start()
        await here.settled(row.id)
        log = await here.log_of(row.id)
        assert events_of(log, TurnFinished)[-1].outcome == "completed"
        first, second = events_of(log, ToolFinished)
        assert first.kept[0].size_bytes == len(LINES)
        assert "crate in dock 1" in text_of(second.content)

        at = next(one.seq for one in log if one.event == first)
        fork = await here.sessions.fork(OWNER, row.id, at=str(at))
        await here.settled(fork.id)
        again = events_of(await here.log_of(fork.id), ToolFinished)
        assert again[-1].content == second.content

        await here.log.delete("acme", fork.id)
        assert (await here.store.objects.list(TENANT)).objects != ()
        await here.log.delete("acme", row.id)
        assert (await here.store.objects.list(TENANT)).objects == ()


async def test_the_bound_is_the_agents(database_url):
    agent = structs.replace(AGENT, context=Context(tool_result_bytes_max=10**6))

    async def much(run):
        return ToolOutcome((Text(LINES),))

    def script(request):
        return said("done") if results_in(request) else calls(("ledger_look", "{}"))

    async with world(database_url, script, agent=agent) as here, here.worker().running():
        here.kind.do = much
        row = await here.start()
        await here.settled(row.id)
        (finished,) = events_of(await here.log_of(row.id), ToolFinished)
        assert (finished.kept, finished.content) == ((), (Text(LINES),))
