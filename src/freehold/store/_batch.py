"""What waits to be written, and how it is gathered into batches. Pure bookkeeping: no I/O, no SQL.

Appends of one session that agree with each other form a group, which the statement accepts or refuses as a whole. A group of
several that is refused is taken apart and its members tried one by one, so that only who is wrong is refused.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from operator import attrgetter
from typing import Final

from msgspec import Struct

from freehold.core.session import RowChange
from freehold.core.session_log import Berth, Lease, SessionRow
from freehold.store._events import Encoded

BATCH_SESSIONS_MAX: Final = 512
BATCH_BYTES_MAX: Final = 8 * 1024 * 1024
GROUP_EVENTS_MAX: Final = 1000
WAITING_MAX: Final = 20_000
FIRST_EPOCH: Final = 1
"""Of a session that a worker has from its beginning on."""
WAITING_BYTES_MAX: Final = 256 * 1024 * 1024


class Append:
    """One caller's append; `done` gets the new version, or the error. `releases`: with it the lease is given back.
    `along`: to another session, in the same transaction."""

    __slots__ = (
        "alone",
        "along",
        "done",
        "encoded",
        "expected",
        "key",
        "lease",
        "releases",
        "session_id",
        "size_bytes",
    )

    def __init__(
        self,
        session_id: str,
        encoded: Encoded,
        *,
        expected: int | None = None,
        lease: Lease | None = None,
        key: str | None = None,
        releases: bool = False,
        along: "Append | None" = None,
    ) -> None:
        self.session_id = session_id
        self.encoded = encoded
        self.expected = expected
        self.lease = lease
        self.key = key
        self.releases = releases
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.along = along
        self.alone = key is not None
        self.size_bytes = encoded.size_bytes + (0 if along is None else along.encoded.size_bytes)


class Birth(Struct, frozen=True):
    """A worker that takes the session as it begins, if the database lets it. `encoded` is what it writes first."""

    berth: Berth
    encoded: Encoded
    owner: str
    lease_s: float


class Create:
    """One caller's new session; `done` gets the row as written, or the id of the session that the key made before. `along` as of an append."""

    __slots__ = ("along", "birth", "done", "encoded", "key", "row")

    def __init__(
        self,
        row: SessionRow,
        encoded: Encoded,
        *,
        key: str | None = None,
        birth: Birth | None = None,
        along: Append | None = None,
    ) -> None:
        self.row = row
        self.encoded = encoded
        self.key = key
        self.done: asyncio.Future[SessionRow | str] = asyncio.get_running_loop().create_future()
        self.birth = birth
        self.along = along

    @property
    def size_bytes(self) -> int:
        """With what goes along."""
        return self.encoded.size_bytes + (0 if self.along is None else self.along.encoded.size_bytes)

    def settle(self, result: SessionRow | str, *, taken: bool) -> None:
        """The worker has it, whoever waits for `done`."""
        if self.birth is not None:
            if taken and isinstance(result, SessionRow):
                lease = Lease(result.id, result.tenant, self.birth.owner, FIRST_EPOCH, result.created_at)
                self.birth.berth.take(lease)
            else:
                self.birth.berth.leave()
        if not self.done.done():
            self.done.set_result(result)

    def fail(self, error: Exception) -> None:
        if self.birth is not None:
            self.birth.berth.leave()
        if not self.done.done():
            self.done.set_exception(error)


class Group:
    """Appends to one session, in order, that can all be right at once."""

    __slots__ = ("appends", "base", "change", "count", "lease", "releases", "session_id", "size_bytes")

    def __init__(self, first: Append) -> None:
        self.session_id = first.session_id
        self.appends = [first]
        self.base = first.expected
        self.lease = first.lease
        self.releases = first.releases
        self.count = len(first.encoded.types)
        self.change = first.encoded.change
        self.size_bytes = first.size_bytes

    def joins(self, other: Append) -> bool:
        """Adds `other` and says so, unless it cannot be right together with what is here."""
        if other.alone or self.appends[0].alone or self.change.status == "cancelled":
            return False
        if self.count + len(other.encoded.types) > GROUP_EVENTS_MAX:
            return False
        if (
            other.lease is not None
            and self.lease is not None
            and (self.releases or other.lease != self.lease)
        ):
            return False
        if other.expected is not None:
            base = other.expected - self.count
            if base < 0 or (self.base is not None and self.base != base):
                return False
            self.base = base
        self.add(other)
        return True

    def add(self, other: Append) -> None:
        """Whatever it says: what goes along depends on nothing."""
        change = other.encoded.change
        self.appends.append(other)
        self.lease = self.lease or other.lease
        self.releases = self.releases or other.releases
        self.count += len(other.encoded.types)
        self.size_bytes += other.size_bytes
        self.change = RowChange(
            change.status or self.change.status,
            self.change.usage.plus(change.usage),
            self.change.cost_pico + change.cost_pico,
            change.waits if change.status else self.change.waits,
        )

    def settle(self, version: int) -> None:
        """Written: `version` is the log's length after the last of them."""
        version -= self.count
        for append in self.appends:
            version += len(append.encoded.types)
            if not append.done.done():
                append.done.set_result(version)

    def fail(self, error: Exception) -> None:
        for append in self.appends:
            if not append.done.done():
                append.done.set_exception(error)


class Waiting:
    """The queue in front of the writer: first come, first served, and within a session strictly in order."""

    def __init__(self) -> None:
        self._appends: dict[str, deque[Append]] = {}
        self._creates: deque[Create] = deque()
        self.count = 0
        self.size_bytes = 0

    @property
    def full(self) -> bool:
        return self.count >= WAITING_MAX or self.size_bytes >= WAITING_BYTES_MAX

    def add(self, append: Append) -> None:
        queue = self._appends.get(append.session_id)
        if queue is None:
            queue = self._appends[append.session_id] = deque()
        queue.append(append)
        self.count += 1
        self.size_bytes += append.size_bytes

    def add_create(self, create: Create) -> None:
        self._creates.append(create)
        self._count(1, create.size_bytes)

    def take_apart(self, group: Group) -> None:
        """Puts a refused group back in front of its session's queue, to be tried one by one."""
        for append in group.appends:
            append.alone = True
        self._appends[group.session_id] = deque((*group.appends, *self._appends.pop(group.session_id, ())))
        self._count(len(group.appends), group.size_bytes)

    def next_groups(self) -> Sequence[Group]:
        groups: list[Group] = []
        left: dict[str, deque[Append]] = {}
        count = size_bytes = 0
        for session_id in list(islice(self._appends, BATCH_SESSIONS_MAX)):
            if groups and size_bytes >= BATCH_BYTES_MAX:
                break
            queue = self._appends.pop(session_id)
            group = _first_group(queue)
            groups.append(group)
            count += len(group.appends)
            size_bytes += group.size_bytes
            if queue:
                left[session_id] = queue
        self._appends.update(left)
        self._count(-count, -size_bytes)
        # Rows are locked in one order everywhere: no deadlocks.
        groups.sort(key=attrgetter("session_id"))
        return groups

    def next_creates(self) -> Sequence[Create]:
        """No id and no key twice: a second one waits for the next batch, which finds the first."""
        creates: list[Create] = []
        seen: set[object] = set()
        size_bytes = 0
        while self._creates and len(creates) < BATCH_SESSIONS_MAX and size_bytes < BATCH_BYTES_MAX:
            create = self._creates[0]
            marks = (
                {create.row.id} if create.key is None else {create.row.id, (create.row.tenant, create.key)}
            )
            if seen & marks:
                break
            seen |= marks
            creates.append(self._creates.popleft())
            size_bytes += create.size_bytes
            self._count(-1, -create.size_bytes)
        return creates

    def fail_all(self, error: Exception) -> None:
        while self._appends or self._creates:
            for group in self.next_groups():
                group.fail(error)
            for create in self.next_creates():
                create.fail(error)

    def _count(self, count: int, size_bytes: int) -> None:
        self.count += count
        self.size_bytes += size_bytes


def groups_along(items: Iterable[Append | Create]) -> Sequence[Group]:
    """What goes along with them, session by session."""
    groups: dict[str, Group] = {}
    for item in items:
        if (append := item.along) is not None:
            group = groups.get(append.session_id)
            if group is None:
                groups[append.session_id] = Group(append)
            else:
                group.add(append)
    return sorted(groups.values(), key=lambda group: group.session_id)


def _first_group(queue: deque[Append]) -> Group:
    group = Group(queue.popleft())
    while queue and group.size_bytes < BATCH_BYTES_MAX and group.joins(queue[0]):
        queue.popleft()
    return group
