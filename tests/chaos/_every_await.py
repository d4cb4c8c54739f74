"""Kills a worker at one await point of a turn after the other: `python -m tests.chaos._every_await URL LEDGER FIRST STEP LAST`.

For each number from FIRST by STEP to LAST a forked process carries a session of its own and kills itself when the tasks of that
session are suspended for the so-many-th time: the work that is awaited has begun, and its result is never seen. A second
process then goes on to the end. Prints a line of JSON for each: the session, and whether the first was killed.
"""

import asyncio
import json
import os
import signal
import sys
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from freehold.core.messages import Text
from tests._waiting import PATIENCE_S
from tests.chaos._place import EVERYTHING, Deeds, person, place
from tests.runtime._world import OWNER, TENANT

OF_A_TURN = {"Worker._carry", "SessionRun._run_tool"}


class Kills:
    """With 0, never."""

    def __init__(self, at: int) -> None:
        self._left = at

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


@types.coroutine
def watched(work: Coroutine[Any, Any, Any], suspended: Callable[[], None]) -> Generator[Any, Any, Any]:
    """Runs `work`, and says whenever it waits for something."""
    send, given = work.send, None
    while True:
        try:
            awaited = send(given)
        except StopIteration as end:
            return end.value
        suspended()
        try:
            send, given = work.send, (yield awaited)
        except BaseException as error:  # noqa: BLE001 - handed on as it is
            send, given = work.throw, error


def watch_turns(suspended: Callable[[], None]) -> None:
    def make(
        loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        if getattr(work, "__qualname__", "") in OF_A_TURN:
            work = _as_coroutine(work, suspended)
        return asyncio.Task(work, loop=loop, **options)

    asyncio.get_running_loop().set_task_factory(make)


async def _as_coroutine(work: Coroutine[Any, Any, Any], suspended: Callable[[], None]) -> Any:
    return await watched(work, suspended)


async def carry(url: str, ledger: str, kill_at: int, session_id: str | None) -> str:
    async with place(url, ledger) as here:
        if session_id is None:
            session_id = (await here.sessions.create(OWNER, "clerk", content=[Text(EVERYTHING)])).id
            print(json.dumps(session_id), flush=True)
        watch_turns(Kills(kill_at))
        async with here.worker().running():
            helper = asyncio.create_task(person(here, Deeds()))
            try:
                async with asyncio.timeout(PATIENCE_S):
                    while (await here.log.get(TENANT, session_id)).status != "idle":  # noqa: ASYNC110 - not following: nothing else is to run
                        await asyncio.sleep(0.02)
            finally:
                helper.cancel()
                await asyncio.wait([helper])
    return session_id


def forked(work: Callable[[], Coroutine[Any, Any, Any]]) -> tuple[int, str]:
    """Runs it in a child; its exit code (negative: the signal) and what it printed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 1)
        code = 1
        try:
            asyncio.run(work())
            code = 0
        except BaseException as error:  # noqa: BLE001 - the child's outermost edge
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def main(url: str, ledger: str, first: int, step: int, last: int) -> None:
    for kill_at in range(first, last + 1, step):
        code, said = forked(lambda at=kill_at: carry(url, ledger, at, None))
        session_id = json.loads(said.splitlines()[0])
        killed = code == -signal.SIGKILL
        if killed:
            code, _ = forked(lambda one=session_id: carry(url, ledger, 0, one))
        print(json.dumps({"session": session_id, "killed": killed, "code": code, "at": kill_at}), flush=True)
        if not killed:
            break


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *(int(one) for one in sys.argv[3:]))
