"""Store: what is written to one log together with another, all or nothing: an answer, and what its conversation gets of it.

A second statement in the transaction of the first, only where something goes along. What goes along with an append that was refused is left
out, and so is what would go to a session that is gone.
"""

from collections.abc import Sequence

from freehold.store._batch import Create, Group, groups_along
from freehold.store._statements import Made, Written, write_appends, write_creates
from freehold.store.database import Connection


async def append(connection: Connection, groups: Sequence[Group]) -> Written:
    if all(one.along is None for group in groups for one in group.appends):
        return await write_appends(connection, groups)
    async with connection.transaction():
        written = await write_appends(connection, groups)
        done = [group for group in groups if group.session_id in written.versions]
        if along := groups_along(one for group in done for one in group.appends):
            await write_appends(connection, along)
    return written


async def create(connection: Connection, creates: Sequence[Create]) -> Made:
    if all(one.along is None for one in creates):
        return await write_creates(connection, creates)
    async with connection.transaction():
        made = await write_creates(connection, creates)
        if along := groups_along(
            one for one in creates if not isinstance(made.sessions.get(one.row.id), str | None)
        ):
            await write_appends(connection, along)
    return made
