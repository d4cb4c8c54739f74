"""API keys: who holds one is known at once and from memory; who doesn't learns why, and nothing more."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests._waiting import eventually

from freehold.clock import SystemClock
from freehold.core.errors import BadRequest, Internal, NotFound, Unauthenticated, Unavailable
from freehold.core.policy import ALLOW_ALL, Policy, Statement
from freehold.core.ports import KeyRow
from freehold.governance import keys as keys_room
from freehold.governance.keys import KeyTable, compose, intact

PEPPER = b"pepper of this installation"


class Shelf:
    """The port's contract in memory; two tables on one shelf are two processes on one database."""

    def __init__(self) -> None:
        self.rows: dict[str, KeyRow] = {}
        self.away = False
        self.refused_count = 0
        self.waiting: list[asyncio.Event] = []

    async def add(self, key: KeyRow) -> None:
        self.rows[key.id] = key
        self._tell()

    async def list(self, tenant: str | None) -> Sequence[KeyRow]:
        if self.away:
            self.refused_count += 1
            raise Unavailable("the database is away")
        return [row for row in self.rows.values() if tenant in {None, row.tenant}]

    async def revoke(self, tenant: str, key_id: str) -> KeyRow:
        row = self.rows.get(key_id)
        if row is None or row.tenant != tenant:
            raise NotFound(f"no key {key_id}")
        self.rows[key_id] = row = msgspec.structs.replace(row, revoked_at=row.revoked_at or datetime.now(UTC))
        self._tell()
        return row

    async def changed(self, timeout_s: float) -> None:
        told = asyncio.Event()
        self.waiting.append(told)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await told.wait()

    def _tell(self) -> None:
        waiting, self.waiting = self.waiting, []
        for told in waiting:
            told.set()


class At(SystemClock):
    """A clock that can be set forward."""

    ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead

    def now_ms(self) -> int:
        return super().now_ms() + int(self.ahead.total_seconds() * 1000)


def table(shelf: Shelf, clock: SystemClock | None = None) -> KeyTable:
    return KeyTable(shelf, pepper=PEPPER, clock=clock or SystemClock())


@asynccontextmanager
async def following(keys: KeyTable) -> AsyncIterator[None]:
    await keys.load()
    task = asyncio.create_task(keys.follow())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def refused(keys: KeyTable, credential: str | None) -> bool:
    try:
        keys.authenticate(credential)
    except Unauthenticated:
        return True
    return False


async def test_a_new_key_says_who_its_holder_is() -> None:
    keys = table(Shelf())
    policy = Policy(statement=(Statement("Allow", "model:Call", "model/openai/*"),))
    issued = await keys.create("acme", "ci", policy)
    principal = keys.authenticate(issued.plain)
    assert (principal.tenant, principal.id, principal.layers) == ("acme", issued.row.id, (policy,))


async def test_neither_the_row_nor_its_repr_holds_the_key() -> None:
    shelf = Shelf()
    issued = await table(shelf).create("acme", "ci")
    secret = issued.plain.split("_")[2]
    assert secret not in repr(shelf.rows)
    assert secret not in repr(issued)
    assert issued.plain.encode() not in msgspec.msgpack.encode(issued.row)


async def test_another_installations_pepper_makes_the_key_unknown() -> None:
    shelf = Shelf()
    issued = await table(shelf).create("acme", "ci")
    other = KeyTable(shelf, pepper=b"pepper of another installation", clock=SystemClock())
    await other.load()
    with pytest.raises(Unauthenticated, match="nobody knows"):
        other.authenticate(issued.plain)


@pytest.mark.parametrize(
    ("credential", "says"),
    [
        (None, "Authorization: Bearer"),
        ("", "Authorization: Bearer"),
        ("sk-proj-abcdefgh", "vendor's key"),
        ("hello", "begin with fh_"),
        ("fh_" + "a" * 200_000, "Authorization: Bearer"),
        ("fh_01h00000000000000000000000_short", "mistyped or cut off"),
        ("fh_é_ü", "mistyped or cut off"),
    ],
)
async def test_a_refusal_says_what_to_do(credential: str | None, says: str) -> None:
    with pytest.raises(Unauthenticated) as error:
        table(Shelf()).authenticate(credential)
    assert says in error.value.message or len(credential or "") > 1000
    assert (credential or "nothing")[:100] not in error.value.message


async def test_an_unknown_key_learns_nothing_but_that() -> None:
    keys = table(Shelf())
    await keys.create("acme", "ci")
    with pytest.raises(Unauthenticated, match="nobody knows this API key"):
        keys.authenticate(compose("key_" + "0" * 26, bytes(32)))


async def test_an_expired_key_is_refused_from_its_moment_on() -> None:
    clock = At()
    keys = table(Shelf(), clock)
    issued = await keys.create("acme", "ci", expires_at=clock.now() + timedelta(hours=1))
    keys.authenticate(issued.plain)
    clock.ahead = timedelta(hours=1, seconds=1)
    with pytest.raises(Unauthenticated, match="expired"):
        keys.authenticate(issued.plain)


async def test_a_key_cannot_be_made_expired_or_without_a_name() -> None:
    keys = table(Shelf())
    with pytest.raises(BadRequest, match="expires_at"):
        await keys.create("acme", "ci", expires_at=datetime.now(UTC))
    with pytest.raises(BadRequest, match="name"):
        await keys.create("acme", "")


async def test_who_acts_by_a_key_is_known_by_its_id_as_long_as_it_is_good() -> None:
    keys = table(Shelf())
    issued = await keys.create("acme", "ci")
    assert keys.principal(issued.row.id) == keys.authenticate(issued.plain)
    await keys.revoke("acme", issued.row.id)
    with pytest.raises(Unauthenticated, match="revoked"):
        keys.principal(issued.row.id)
    with pytest.raises(Unauthenticated, match="unknown"):
        keys.principal("key_nobody")


async def test_a_short_pepper_is_refused() -> None:
    with pytest.raises(Internal, match="PEPPER_BYTES_MIN"):
        KeyTable(Shelf(), pepper=b"short", clock=SystemClock())


async def test_keys_made_and_revoked_in_one_process_count_in_another_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keys_room, "RELOAD_S", 600.0)
    shelf = Shelf()
    here, there = table(shelf), table(shelf)
    async with following(there):
        issued = await here.create("acme", "ci")
        await eventually(lambda: not refused(there, issued.plain))
        await here.revoke("acme", issued.row.id)
        assert refused(here, issued.plain), "at once where it was revoked"
        await eventually(lambda: refused(there, issued.plain))
    with pytest.raises(Unauthenticated, match="revoked"):
        there.authenticate(issued.plain)


async def test_while_the_database_is_away_known_keys_stay_good_and_later_changes_are_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keys_room, "RETRY_S", 0.01)
    shelf = Shelf()
    here = table(shelf)
    issued = await here.create("acme", "ci")
    async with following(here):
        await eventually(lambda: bool(shelf.waiting))
        shelf.away = True
        shelf._tell()
        await eventually(lambda: shelf.refused_count >= 3)
        assert not refused(here, issued.plain)
        shelf.rows[issued.row.id] = msgspec.structs.replace(issued.row, revoked_at=datetime.now(UTC))
        shelf.away = False
        await eventually(lambda: refused(here, issued.plain))


async def test_the_first_start_makes_one_key_and_no_later_start_does() -> None:
    shelf = Shelf()
    first = table(shelf)
    plain = await first.ensure_first_key()
    assert plain is not None
    assert first.authenticate(plain).layers == (ALLOW_ALL,)
    assert await first.ensure_first_key() is None
    await first.revoke("default", first.authenticate(plain).id)
    assert await table(shelf).ensure_first_key() is None, "a revoked key was a key"


async def test_a_key_of_another_tenant_cannot_be_revoked() -> None:
    keys = table(Shelf())
    issued = await keys.create("acme", "ci")
    with pytest.raises(NotFound):
        await keys.revoke("other", issued.row.id)
    assert not refused(keys, issued.plain)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 200), st.characters(codec="ascii"))
def test_one_wrong_character_is_noticed_without_asking_anybody(secret: bytes, at: int, wrong: str) -> None:
    plain = compose("key_01hzzzzzzzzzzzzzzzzzzzzzzz", secret)
    assert intact(plain)
    at %= len(plain)
    changed = plain[:at] + wrong + plain[at + 1 :]
    assert changed == plain or not intact(changed)


async def test_authenticating_takes_microseconds() -> None:
    keys = table(Shelf())
    issued = [await keys.create("acme", f"key {number}") for number in range(200)]
    began = time.process_time()
    for _ in range(50):
        for one in issued:
            keys.authenticate(one.plain)
    assert (time.process_time() - began) / 10_000 < 50e-6  # About 2 us; the limit allows for a busy machine.
