"""Store: what many ask for while an earlier question is under way is asked together, as the writer gathers appends.

A question that comes alone waits for nobody. Every question begins after it was put, so each sees what was committed before.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Generic, TypeVar

from freehold.background import background
from freehold.store._faults import translate

LANES: Final = 2
"""Questions under way at the same time."""

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Gather(Generic[Asked, Answer]):
    """`ask` is given at most `most`, and answers in their order."""

    def __init__(
        self, doing: str, ask: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer]]], *, most: int
    ) -> None:
        self._doing = doing
        self._ask = ask
        self._most = most
        self._waiting: list[tuple[Asked, asyncio.Future[Answer]]] = []
        self._some = asyncio.Event()

    async def __call__(self, asked: Asked) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        self._some.set()
        return await future

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            await asyncio.sleep(0)  # Who asks in the same turn of the loop joins.
            taken, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            if not self._waiting:
                self._some.clear()
            if asking := [one for one in taken if not one[1].done()]:
                await self._answer(asking)

    async def _answer(self, asking: "Sequence[tuple[Asked, asyncio.Future[Answer]]]") -> None:
        try:
            answers = await self._ask([asked for asked, _ in asking])
        except asyncio.CancelledError:
            for _, future in asking:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - the task's outermost edge: who waits is told, the next question goes on
            for _, future in asking:
                if not future.done():
                    future.set_exception(translate(error, self._doing))
            return
        for (_, future), answer in zip(asking, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Gather[Asked, Answer]"]:
        async with AsyncExitStack() as stack:
            for number in range(1, LANES + 1):
                await stack.enter_async_context(background(self._run(), f"{self._doing} {number}"))
            try:
                yield self
            finally:
                for _, future in self._waiting:
                    future.cancel()
