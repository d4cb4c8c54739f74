"""`freehold worker`: sessions go on in processes of their own, which come and go while a server without a worker stands."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from tests._waiting import PATIENCE_S, until
from tests.cli._freehold import Freehold, stop
from tests.cli.conftest import TEMPLATE

pytestmark = pytest.mark.slow

SECOND_VERSION = """
kind: rules
name: parrot
rules: []
otherwise: I am the second version.
---
kind: agent
name: clerk
rules: parrot
"""


class Door:
    """The server's API."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._client = httpx2.Client(
            base_url=told["url"], headers={"x-api-key": told["api_key"]}, timeout=PATIENCE_S, trust_env=False
        )

    def close(self) -> None:
        self._client.close()

    def start(self) -> str:
        made = self._client.post("/v1/sessions", json={"agent": "clerk"})
        return made.raise_for_status().json()["id"]

    def say(self, session: str, text: str) -> None:
        event = {"type": "user.message", "content": text}
        self._client.post(f"/v1/sessions/{session}/events", json={"events": [event]}).raise_for_status()

    def answers(self, session: str) -> list[str]:
        found = self._client.get(f"/v1/sessions/{session}/events").raise_for_status().json()["data"]
        return [one["content"][0]["text"] for one in found if one["type"] == "agent.message"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Freehold, Door]]:
    """A server that leaves the work to others."""
    here = Freehold(tmp_path_factory.mktemp("workers") / "data")
    with here.serving("--no-worker") as told:
        here.ok("apply", "-", "--yes", input=TEMPLATE)
        here.ok("data", "put-items", "stock", "-", input='{"key": "SKU-1", "value": {"units": 7}}\n')
        door = Door(told)
        yield here, door
        door.close()


@contextmanager
def working(here: Freehold, *options: str) -> "Iterator[subprocess.Popen[str]]":
    process = here.start("worker", "--log-level", "warning", *options)
    try:
        yield process
    finally:
        stop(process)


def test_sessions_go_on_where_a_worker_is_and_wait_where_none_is(place):
    here, door = place
    session = door.start()
    door.say(session, "how many of SKU-1?")
    assert door.answers(session) == []
    with working(here):
        until(lambda: door.answers(session) == ["SKU-1: 7 units."])


def test_workers_are_replaced_one_by_one_while_a_session_goes_on_by_its_agents_version(place):
    here, door = place
    old = door.start()
    with working(here) as first:
        door.say(old, "how many of SKU-1?")
        until(lambda: len(door.answers(old)) == 1)
        here.ok("apply", "-", "--yes", input=SECOND_VERSION)
        new = door.start()
        with working(here):
            first.send_signal(signal.SIGTERM)
            assert first.wait(PATIENCE_S) == 0
            for session in (old, new):
                door.say(session, "and SKU-1 now?")
            until(lambda: door.answers(old) == ["SKU-1: 7 units."] * 2)
            until(lambda: door.answers(new) == ["I am the second version."])


def test_a_worker_tells_whether_it_is_alive_and_takes_work(place):
    here, _ = place
    with working(here, "--health-port", "0") as process:
        url = process.stderr.readline().split()[2].removesuffix("/healthz")
        with httpx2.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
            until(lambda: _ready(client))
            assert client.get("/healthz").json()["checks"] == {"database": "ok"}
            assert client.get("/elsewhere").status_code == 404


def _ready(client: httpx2.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx2.TransportError:
        return False  # Not open yet.


def test_a_worker_without_a_server_or_a_database_says_what_is_missing(freehold):
    done = freehold("worker")
    assert done.code == 1
    assert "set DATABASE_URL" in done.err


def declared_for_soon(here: Freehold) -> datetime:
    """For a time that has not passed by when it is declared, however slow the machine is."""
    declared = {"kind": "deployment", "name": "soon", "agent": "clerk", "messages": ["How many SKU-1?"]}
    ahead = timedelta(seconds=1)
    while True:
        at = datetime.now(UTC) + ahead
        schedule = {"type": "once", "at": at.isoformat()}
        done = here("apply", "-", "--yes", input=json.dumps([declared | {"schedule": schedule}]))
        if datetime.now(UTC) < at:
            assert done.code == 0, done.err
            return at
        ahead *= 2


def test_a_deployment_waits_for_a_worker_and_is_begun_and_carried_on_by_it(
    place: tuple[Freehold, Door],
) -> None:
    """No worker: nothing begins. Two of them: what was missed begins once."""
    here, door = place
    here.ok("apply", "-", "--yes", input=TEMPLATE)  # The first version again, whatever another test left.
    at = declared_for_soon(here)
    until(lambda: datetime.now(UTC) > at)
    assert here.ok("deployments", "runs", "soon", "--json").json == []
    with working(here), working(here):
        until(lambda: here.ok("deployments", "runs", "soon", "--json").json)
        [run] = here.ok("deployments", "runs", "soon", "--json").json
        until(lambda: door.answers(run["session_id"]))
    assert door.answers(run["session_id"]) == ["SKU-1: 7 units."]
    assert len(here.ok("deployments", "runs", "soon", "--json").json) == 1
