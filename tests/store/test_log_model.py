"""The log and its leases against a model in memory that a child could check: same results, same refusals, same contents."""

import asyncio
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
from freehold.core.session import SessionWaits
from freehold.core.session_log import Lease
from freehold.store.store import Store

pytestmark = pytest.mark.slow

T = TypeVar("T")
FOR_EVER_S = 3000.0
FAR_AWAY = datetime(2100, 1, 1, tzinfo=UTC)
WAITS = {
    "waits": SessionWaits(why="calls"),
    "waits till then": SessionWaits(why="calls", until=LONG_AGO),
    "waits for long": SessionWaits(why="calls", until=FAR_AWAY),
    "pauses": SessionWaits(why="paused"),
}
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
    keys: dict[str, int] = field(default_factory=dict)

    def append(
        self, names: list[str], expected: int | None, lease: Lease | None, key: str | None
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
        return len(self.events)

    @property
    def claimable(self) -> bool:
        return self.owner is None and (self.status == "running" or self.waits == "waits till then")


@dataclass
class Planned:
    """An append on its way: several go in one tick, so that they meet in batches and groups."""

    session: str
    names: list[str]
    expected: int | None
    lease: Lease | None
    key: str | None


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

        @initialize(target=leases, count=st.integers(1, 3))
        def create(self, count: int) -> Any:
            """All of them run, and somebody has them."""
            for _ in range(count):
                row = new_row(tenant=f"model-{id(self)}")
                wait(store.log.create(row, [STARTED, EVENTS["said"]]))
                self.models[row.id] = Model(events=["started", "said"], status="running")
            return self.claim("ann")

        def _plan(self, data: st.DataObject, names: list[str], lease: Lease | None) -> None:
            session = lease.session_id if lease else data.draw(st.sampled_from(list(self.models)))
            length = len(self.models[session].events)
            expected = data.draw(st.none() | st.integers(max(0, length - 1), length + 3))
            self.planned.append(Planned(session, names, expected, lease, data.draw(KEYS)))

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
                            idempotency_key=one.key,
                        )
                        for one in planned
                    ),
                    return_exceptions=True,
                )

            for one, result in zip(planned, wait(all_of_them()), strict=True):
                should = self.models[one.session].append(one.names, one.expected, one.lease, one.key)
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
                model.owner, model.epoch = owner, lease.epoch
            return multiple(*found)

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
            if (model.owner, model.epoch) == (lease.owner, lease.epoch):
                model.owner, model.epoch = None, model.epoch + 1

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
            held = (model.owner, model.epoch) == (lease.owner, lease.epoch)
            kept = wait(store.log.renew(lease.owner, [lease], lease_s=FOR_EVER_S))
            assert kept == ({lease.session_id} if held else frozenset())

        def _flush(self) -> None:
            if self.planned:
                self.append_all_at_once()

        @invariant()
        def the_log_holds_what_the_model_holds(self) -> None:
            if self.planned:
                return
            for session, model in self.models.items():
                row = wait(store.log.get(f"model-{id(self)}", session))
                assert (row.version, row.status) == (len(model.events), model.status)
                assert row.waits == (WAITS[model.waits] if model.waits else None)

        def teardown(self) -> None:
            self._flush()
            for session, model in self.models.items():
                recorded = wait(store.log.read(session))
                assert [one.seq for one in recorded] == list(range(1, len(model.events) + 1))
                for one, name in zip(recorded[1:], model.events[1:], strict=True):
                    assert one.event == EVENTS[name]
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


@pytest.mark.timeout(600)
async def test_log_and_leases_behave_as_the_model_for_long(store: Store) -> None:
    await asyncio.to_thread(_run, store, asyncio.get_running_loop(), 1000)
