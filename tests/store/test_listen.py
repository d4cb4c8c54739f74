"""Waiting for what the database tells of: what comes as somebody stops waiting, stops nobody from stopping."""

import asyncio

from tests._waiting import within

from freehold.store._listen import Changes, Listener


async def test_who_is_stopped_in_the_very_turn_in_which_something_comes_stops() -> None:
    listener = Listener(database=None)  # type: ignore[arg-type]  # never asked: nothing runs
    changes = Changes(listener, "told")
    for turns in range(3):
        waiting = asyncio.create_task(changes.wait(3600))
        for _ in range(3):
            await asyncio.sleep(0)
        [hear] = listener._heard["told"]
        hear("", 0)
        for _ in range(turns):
            await asyncio.sleep(0)
        returned = waiting.done()
        waiting.cancel()
        async with within("the wait to end"):
            await asyncio.wait([waiting])
        assert waiting.cancelled() != returned
