"""The log, its leases, forks, snapshots and queues against a model in memory that a child could check: same results, same refusals,
same contents."""

import asyncio
import itertools
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.store._parts import CANCELLED, IDLE, LONG_AGO, STARTED, new_row, said

from freehold.core.errors import Conflict
from freehold.core.session import SessionForked, SessionWaits
from freehold.core.session_log import Lease
from freehold.core.session_state import SessionState
from freehold.store.store import Store

pytestmark = pytest.mark.slow

T = TypeVar("T")
FOR_EVER_S = 3000.0
TENANTS = itertools.count()
"""One for each run: what an earlier one's sessions hold counts against nobody else."""
FAR_AWAY = datetime(2100, 1, 1, tzinfo=UTC)
WAITS = {
    "waits": SessionWaits(why="calls"),
    "waits till then": SessionWaits(why="calls", until=LONG_AGO),
    "waits for long": SessionWaits(why="calls", until=FAR_AWAY),
    "pauses": SessionWaits(why="paused"),
}
SESSIONS_MAX = 6
RUN_OUT = "UPDATE sessions SET due_at = now() WHERE id = $1 AND owner IS NOT NULL"
EVENTS = {"said": said("x"), "idle": IDLE, "cancelled": CANCELLED, **WAITS}
STATUS = {"said": "running", "idle": "idle", "cancelled": "cancelled", "pauses": "paused"}


@dataclass
class Model:
    """What one session should be."""

    events: list[str] = field(default_factory=lambda: ["started"])
    status: str = "idle"
    owner: str | None = None
    epoch: int = 0
    waits: str | None = None
    expired: bool = False
    snapshot_seq: int = 0
    keys: dict[str, int] = field(default_factory=dict)

    def append(
        self,
        names: list[str],
        expected: int | None,
        lease: Lease | None,
        key: str | None,
        *,
        releases: bool = False,
    ) -> int | None:
        """The new version; None for a refusal."""
        if key is not None and key in self.keys:
            return self.keys[key]
        lost = lease is not None and (lease.epoch != self.epoch or lease.owner != self.owner)
        if self.status == "cancelled" or lost or expected not in {None, len(self.events)}:
            return None
        self.events += names
        self.status = STATUS.get(names[-1], "waiting")
        self.waits = names[-1] if names[-1] in WAITS else None
        if key is not None:
            self.keys[key] = len(self.events)
        if releases:
            self.release()
        return len(self.events)

    def release(self) -> None:
        self.owner, self.epoch, self.expired = None, self.epoch + 1, False

    @property
    def claimable(self) -> bool:
        """A lease that has run out holds as long as nobody else has asked; then it does not."""
        if self.owner is not None:
            return self.expired and self.status in {"running", "waiting"}
        return self.status == "running" or self.waits == "waits till then"

    def held_by(self, lease: Lease) -> bool:
        return (self.owner, self.epoch) == (lease.owner, lease.epoch)


@dataclass
class Planned:
    """An append on its way: several go in one tick, so that they meet in batches and groups."""

    session: str
    names: list[str]
    expected: int | None
    lease: Lease | None
    key: str | None
    releases: bool = False


class OneBerth:
    """A worker that takes what begins."""

    owner, lease_s = "ann", FOR_EVER_S
    opening = (EVENTS["said"],)

    def __init__(self) -> None:
        self.taken: list[Lease] = []

    def berth(self, _events: object) -> "OneBerth":
        return self

    def take(self, lease: Lease) -> None:
        self.taken.append(lease)

    def leave(self) -> None:
        raise AssertionError("it has begun")


NAMES = st.lists(st.sampled_from(["said", "said", "said", "idle"]), min_size=1, max_size=3)
STEPS = st.lists(
    st.sampled_from(["said", "said", "idle", *WAITS, *WAITS]), min_size=1, max_size=3
)  # Only who holds the lease writes that a session waits.
KEYS = st.sampled_from([None, None, None, "k1", "k2"])


def machine(store: Store, loop: asyncio.AbstractEventLoop) -> type[RuleBasedStateMachine]:
    def wait(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(60)

    class LogAndLeases(RuleBasedStateMachine):
        leases = Bundle("leases")

        def __init__(self) -> None:
            super().__init__()
            self.models: dict[str, Model] = {}
            self.planned: list[Planned] = []
            self.forked: dict[str, SessionForked] = {}
            self.tenant = f"model-{next(TENANTS)}"

        @initialize(target=leases, count=st.integers(1, 3), born=st.integers(0, 2))
        def create(self, count: int, born: int) -> Any:
            """All of them run, and somebody has them: some from the moment in which they began."""
            for _ in range(count):
                row = new_row(tenant=self.tenant)
                wait(store.log.create(row, [STARTED, EVENTS["said"]]))
                self.models[row.id] = Model(events=["started", "said"], status="running")
            claimed = self.claim("ann")
            return multiple(*claimed.values, *(self._born() for _ in range(born)))

        def _born(self) -> Lease:
            row, berth = new_row(tenant=self.tenant), OneBerth()
            with store.log.carried_by(berth):
                wait(store.log.create(row, [STARTED, EVENTS["said"]]))
            [lease] = berth.taken
            model = Model(
                events=["started", "said", "said"], status="running", owner="ann", epoch=lease.epoch
            )
            self.models[row.id] = model
            return lease

        def _plan(self, data: st.DataObject, names: list[str], lease: Lease | None) -> None:
            session = lease.session_id if lease else data.draw(st.sampled_from(list(self.models)))
            length = len(self.models[session].events)
            expected = data.draw(st.none() | st.integers(max(0, length - 1), length + 3))
            releases = lease is not None and data.draw(st.sampled_from([False, False, True]))
            self.planned.append(Planned(session, names, expected, lease, data.draw(KEYS), releases))

        @rule(data=st.data(), names=NAMES)
        def plan_input(self, data: st.DataObject, names: list[str]) -> None:
            self._plan(data, names, None)

        @rule(data=st.data(), names=STEPS, lease=leases)
        def plan_step(self, data: st.DataObject, names: list[str], lease: Lease) -> None:
            self._plan(data, names, lease)

        @rule(data=st.data())
        def plan_cancel(self, data: st.DataObject) -> None:
            self._plan(data, ["cancelled"], None)

        @precondition(lambda self: self.planned)
        @rule()
        def append_all_at_once(self) -> None:
            planned, self.planned = self.planned, []

            async def all_of_them() -> list[object]:
                return await asyncio.gather(
                    *(
                        store.log.append(
                            one.session,
                            [EVENTS[name] for name in one.names],
                            expected_version=one.expected,
                            lease=one.lease,
                            releases=one.releases,
                            idempotency_key=one.key,
                        )
                        for one in planned
                    ),
                    return_exceptions=True,
                )

            for one, result in zip(planned, wait(all_of_them()), strict=True):
                model = self.models[one.session]
                should = model.append(one.names, one.expected, one.lease, one.key, releases=one.releases)
                if should is None:
                    assert isinstance(result, Conflict), (one, result)
                else:
                    assert result == should, one

        @rule(target=leases, owner=st.sampled_from(["ann", "bob"]))
        def claim_all(self, owner: str) -> Any:
            return self.claim(owner)

        def claim(self, owner: str) -> Any:
            self._flush()
            claimable = {key for key, model in self.models.items() if model.claimable}
            claimed = wait(store.log.claim(owner, limit=500, lease_s=FOR_EVER_S))
            by_session = {lease.session_id: lease for lease in claimed}
            # In the order of creation, for who waits equally long comes in any order, and a run must be repeatable.
            found = [by_session[session] for session in self.models if session in by_session]
            assert {lease.session_id for lease in found} == claimable
            for lease in found:
                model = self.models[lease.session_id]
                assert lease.epoch > model.epoch
                model.owner, model.epoch, model.expired = owner, lease.epoch, False
            return multiple(*found)

        @rule(tenant_max=st.integers(1, 3))
        def claim_as_far_as_the_tenant_may(self, tenant_max: int) -> None:
            """Given back at once: which of those that wait equally long it is nobody says."""
            self._flush()
            claimable = {session for session, model in self.models.items() if model.claimable}
            held = sum(model.owner is not None and not model.expired for model in self.models.values())
            claimed = wait(store.log.claim("zoe", limit=500, lease_s=FOR_EVER_S, tenant_max=tenant_max))
            ours = [lease for lease in claimed if lease.session_id in self.models]
            assert {lease.session_id for lease in ours} <= claimable
            assert len(ours) == max(0, min(tenant_max - held, len(claimable)))
            for lease in ours:
                model = self.models[lease.session_id]
                assert lease.epoch > model.epoch
                model.owner, model.epoch, model.expired = "zoe", lease.epoch, False
                self._release(lease)

        @rule(data=st.data())
        def let_a_lease_run_out(self, data: st.DataObject) -> None:
            """Its worker knows nothing of it yet, and may write until somebody else has the session."""
            self._flush()
            session = data.draw(st.sampled_from(list(self.models)))
            model = self.models[session]
            if model.owner is not None:
                wait(store.database.fetch("ending a lease", RUN_OUT, session))
                model.expired = True

        @rule(data=st.data())
        def fork(self, data: st.DataObject) -> None:
            """It shares what stood before, and what becomes of one is no matter of the other's."""
            self._flush()
            if len(self.models) >= SESSIONS_MAX:
                return
            origin = data.draw(st.sampled_from(list(self.models)))
            at = data.draw(st.integers(1, len(self.models[origin].events)))
            row = new_row(tenant=self.tenant, origin_id=origin, origin_seq=at)
            name, event = f"forked {len(self.forked)}", SessionForked(origin=origin, origin_seq=at)
            made = wait(store.log.fork(row, [event, IDLE]))
            self.forked[name] = event
            self.models[made.id] = Model(events=[*self.models[origin].events[:at], name, "idle"])

        @rule(lease=leases)
        def keep_a_snapshot(self, lease: Lease) -> None:
            """Of who holds the lease, the newest."""
            self._flush()
            model = self.models[lease.session_id]
            wait(store.log.keep_snapshot(lease, SessionState(seq=len(model.events))))
            if model.held_by(lease):
                model.snapshot_seq = len(model.events)
            found = wait(store.log.snapshot(lease.session_id))
            assert (0 if found is None else found.seq) == model.snapshot_seq

        @rule(lease=consumes(leases))
        def release_for_good(self, lease: Lease) -> None:
            self._release(lease)

        @rule(lease=leases)
        def release_and_keep_trying(self, lease: Lease) -> None:
            self._release(lease)

        def _release(self, lease: Lease) -> None:
            self._flush()
            wait(store.log.release(lease))
            model = self.models[lease.session_id]
            if model.held_by(lease):
                model.release()

        @rule(target=leases, lease=consumes(leases), name=st.sampled_from([*WAITS, "idle"]))
        def put_to_rest(self, lease: Lease, name: str) -> Any:
            """As a worker does that has nothing more to do for a session; another looks at once."""
            self.planned.append(Planned(lease.session_id, [name], None, lease, None))
            self._release(lease)
            return self.claim("bob")

        @rule(lease=leases)
        def renew(self, lease: Lease) -> None:
            self._flush()
            model = self.models[lease.session_id]
            held = model.held_by(lease)
            kept = wait(store.log.renew(lease.owner, [lease], lease_s=FOR_EVER_S))
            assert kept == ({lease.session_id} if held else frozenset())
            model.expired = model.expired and not held

        def _flush(self) -> None:
            if self.planned:
                self.append_all_at_once()

        @invariant()
        def the_log_holds_what_the_model_holds(self) -> None:
            if self.planned:
                return
            for session, model in self.models.items():
                row = wait(store.log.get(self.tenant, session))
                assert (row.version, row.status) == (len(model.events), model.status)
                assert row.waits == (WAITS[model.waits] if model.waits else None)

        def teardown(self) -> None:
            self._flush()
            for session, model in self.models.items():
                recorded = wait(store.log.read(session))
                assert [one.seq for one in recorded] == list(range(1, len(model.events) + 1))
                for one, name in zip(recorded[1:], model.events[1:], strict=True):
                    assert one.event == (EVENTS | self.forked)[name]
                if model.status != "cancelled":  # Nothing of this run may be claimed in the next one.
                    wait(store.log.append(session, [CANCELLED]))

    return LogAndLeases


def _run(store: Store, loop: asyncio.AbstractEventLoop, examples: int) -> None:
    run_state_machine_as_test(
        machine(store, loop),
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


async def test_log_and_leases_behave_as_the_model(store: Store) -> None:
    await asyncio.to_thread(_run, store, asyncio.get_running_loop(), settings().max_examples)


@pytest.mark.timeout(1200)
async def test_log_and_leases_behave_as_the_model_for_long(store: Store) -> None:
    await asyncio.to_thread(_run, store, asyncio.get_running_loop(), 250)
