"""Providers: a whole answer that is asked for without a coroutine, as long as nothing has to be waited for but the answer.

What does not go smoothly (a stale connection, a refusal, an answer that is long or compressed) goes on in a task, as it would have
from the start. Not here: what an answer must be like (_upstream.py).
"""

import asyncio
from collections.abc import Awaitable
from typing import Protocol

from msgspec import Struct

from freehold.core.begins import Done, HangUp
from freehold.core.errors import FreeholdError
from freehold.providers._http import HeaderBlock, Reply
from freehold.providers._http_connection import Connection, Stale, Told


class Asked(Protocol):
    """An Upstream, as far as it is needed here."""

    def begin(self, body: bytes, headers: HeaderBlock, path: str | None, told: Told) -> Connection | None: ...
    async def send(
        self, body: bytes, headers: HeaderBlock, path: str | None = None, *, fresh: bool = False
    ) -> Reply: ...
    async def accepted(self, reply: Reply) -> Reply: ...
    async def read(self, reply: Reply) -> bytes: ...
    def judged(self, reply: Reply, body: bytes) -> bytes: ...


class Begun(Struct, eq=False):
    """`done` hears of the answer's body, or of what kept it from coming: once, and not after `hang_up`."""

    _upstream: Asked
    _body: bytes
    _headers: HeaderBlock
    _path: str | None
    _done: Done[bytes] | None
    _connection: Connection | None = None
    _task: asyncio.Task[None] | None = None

    def begin(self) -> HangUp | None:
        """None where it has to be asked for by a coroutine: nothing was done then."""
        connection = self._upstream.begin(self._body, self._headers, self._path, self._told)
        if connection is None:
            return None
        self._connection = connection
        return self.hang_up

    def hang_up(self) -> None:
        self._done = None
        if self._task is not None:
            self._task.cancel()
        elif self._connection is not None:
            self._connection.abort()

    def _told(self, outcome: Reply | FreeholdError) -> None:
        self._connection = None  # It may serve somebody else by now.
        if self._done is None:
            return
        if isinstance(outcome, FreeholdError):
            if isinstance(outcome, Stale):
                self._go_on(self._again())
            else:
                self._end(outcome)
            return
        body = outcome.whole() if outcome.status == 200 else None
        if body is None:
            self._go_on(self._rest(outcome))
            return
        done, self._done = self._done, None
        try:
            body = self._upstream.judged(outcome, body)
        except FreeholdError as error:
            done(error)
        else:
            done(body)

    def _end(self, outcome: bytes | BaseException) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(outcome)

    def _go_on(self, rest: Awaitable[bytes]) -> None:
        self._task = asyncio.get_running_loop().create_task(self._awaited(rest))

    async def _awaited(self, rest: Awaitable[bytes]) -> None:
        outcome: bytes | BaseException
        try:
            outcome = await rest
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - `done` is told of it
            outcome = error
        self._end(outcome)

    async def _again(self) -> bytes:
        upstream = self._upstream
        return await upstream.read(await upstream.send(self._body, self._headers, self._path, fresh=True))

    async def _rest(self, reply: Reply) -> bytes:
        try:
            return await self._upstream.read(await self._upstream.accepted(reply))
        finally:
            reply.close()
