"""Providers: an answer that is asked for without a coroutine, as long as nothing has to be waited for but the answer.

What does not go smoothly (a stale connection, a refusal, an answer that is long or compressed) goes on in a task, as it would have
from the start. Not here: what an answer must be like (_upstream.py).
"""

import asyncio
from collections.abc import Awaitable
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from freehold.core.begins import Done
from freehold.core.errors import FreeholdError
from freehold.providers._http import Reply
from freehold.providers._http_connection import Connection, Stale

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Asks(Protocol[T_co]):
    """Whose request was sent."""

    def taken_now(self, reply: Reply) -> T_co | None:
        """The answer; of a stream, its beginning. None where it has to be waited for. Raises what came in its place."""
        ...

    async def taken(self, reply: Reply) -> T_co:
        """The same, waiting."""
        ...

    async def again(self) -> T_co:
        """The answer to the same request, sent once more over a fresh connection."""
        ...


class Begun(Struct, Generic[T], eq=False):
    """`done` hears of the answer, or of what kept it from coming: once, and not after `hang_up`. `connection` is set by who sends the request."""

    _asks: Asks[T]
    _done: Done[T] | None
    connection: Connection | None = None
    _reply: Reply | None = None
    _task: asyncio.Task[None] | None = None

    def hang_up(self) -> None:
        """Also in the middle of a stream."""
        self._done = None
        if self.connection is not None:
            self.connection.abort()
        if self._task is not None:
            self._task.cancel()
        if self._reply is not None:
            self._reply.close()

    def told(self, outcome: Reply | FreeholdError) -> None:
        self.connection = None  # It may serve somebody else by now.
        if self._done is None:
            return
        if not isinstance(outcome, Reply):
            if isinstance(outcome, Stale):
                self._go_on(self._asks.again())
            else:
                self._end(outcome)
            return
        self._reply = outcome
        try:
            came = self._asks.taken_now(outcome)
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it
            outcome.close()
            self._end(error)
            return
        if came is None:
            self._go_on(self._asks.taken(outcome))
        else:
            done, self._done = self._done, None
            done(came)

    def _end(self, outcome: T | BaseException) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(outcome)

    def _go_on(self, rest: Awaitable[T]) -> None:
        self._task = asyncio.get_running_loop().create_task(self._awaited(rest))

    async def _awaited(self, rest: Awaitable[T]) -> None:
        outcome: T | BaseException
        try:
            outcome = await rest
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - `done` is told of it
            outcome = error
        self._end(outcome)
