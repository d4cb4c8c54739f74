"""Alarms: each rings once, in its time and not before, whatever the one timer behind them was last set to."""

import asyncio

from freehold.runtime.alarms import Alarm, Alarms
from tests._waiting import within

SOON_S, LATE_S, NEVER_S = 0.01, 0.1, 1000.0


async def test_an_alarm_rings_once_and_not_before_its_time():
    alarms, loop = Alarms(), asyncio.get_running_loop()
    rang_at: list[float] = []
    over = asyncio.Event()
    began_s = loop.time()
    alarms.after(SOON_S, lambda: rang_at.append(loop.time()))
    alarms.after(LATE_S, over.set)
    await over.wait()
    assert loop.time() - began_s >= LATE_S
    assert len(rang_at) == 1
    assert rang_at[0] - began_s >= SOON_S


async def test_one_that_is_set_later_and_due_earlier_is_not_held_back():
    alarms, rang = Alarms(), asyncio.Event()
    alarms.after(NEVER_S, lambda: None)
    alarms.after(SOON_S, rang.set)
    async with within("the alarm to ring"):
        await rang.wait()


async def test_a_cancelled_one_does_not_ring():
    alarms, over = Alarms(), asyncio.Event()
    rang: list[str] = []
    alarms.after(SOON_S, lambda: rang.append("cancelled")).cancel()
    alarms.after(SOON_S, lambda: rang.append("kept"))
    alarms.after(LATE_S, over.set)
    await over.wait()
    assert rang == ["kept"]


async def test_one_that_is_set_while_another_rings_rings_too():
    alarms, rang = Alarms(), asyncio.Event()
    alarms.after(SOON_S, lambda: alarms.after(SOON_S, rang.set))
    async with within("the alarm to ring"):
        await rang.wait()


async def test_one_that_is_set_while_another_rings_holds_none_back():
    alarms, over = Alarms(), asyncio.Event()
    alarms.after(LATE_S, over.set)
    alarms.after(SOON_S, lambda: alarms.after(NEVER_S, lambda: None))
    async with within("the alarm to ring"):
        await over.wait()


async def test_of_two_that_cancel_each_other_one_rings():
    alarms, over = Alarms(), asyncio.Event()
    rang: list[str] = []
    set_: dict[str, Alarm] = {}

    def ring(name: str, other: str) -> None:
        rang.append(name)
        set_[other].cancel()

    set_["a"] = alarms.after(SOON_S, lambda: ring("a", "b"))
    set_["b"] = alarms.after(SOON_S, lambda: ring("b", "a"))
    alarms.after(LATE_S, over.set)
    await over.wait()
    assert len(rang) == 1


async def test_cancelling_one_that_has_rung_is_harmless():
    alarms, rang = Alarms(), asyncio.Event()
    alarm = alarms.after(SOON_S, rang.set)
    async with within("the alarm to ring"):
        await rang.wait()
    alarm.cancel()
