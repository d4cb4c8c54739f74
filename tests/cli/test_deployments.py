"""`freehold deployments`, on a real server."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.cli._freehold import Freehold

TEMPLATE = """\
kind: deployment
name: nightly
agent: clerk
title: Nightly stock
messages: ["How many SKU-1?"]
schedule: { type: cron, expression: "30 2 * * *", timezone: Europe/Berlin }
overlap: skip
---
kind: deployment
name: whenever
agent: clerk
messages: ["How many SKU-1?"]
"""


@pytest.fixture(scope="module")
def deployed(served: Freehold) -> Iterator[Freehold]:
    served.ok("apply", "-", "--yes", input=TEMPLATE)
    yield served
    for name in ("nightly", "whenever"):
        served.ok("deployments", "pause", name)


@pytest.mark.slow
def test_deployments_are_listed_and_shown(deployed: Freehold) -> None:
    told = deployed.ok("deployments", "list").out
    assert "Nightly stock" in told
    assert "30 2 * * * (Europe/Berlin)" in told
    assert "by hand" in told
    listed = deployed.ok("deployments", "list", "--agent", "clerk", "--json").json
    assert {one["id"] for one in listed} == {"nightly", "whenever"}
    assert "clerk: 30 2 * * *" in deployed.ok("get", "deployments").out
    assert "30 2 * * *" in deployed.ok("describe", "deployment", "nightly").out
    shown = deployed.ok("deployments", "show", "nightly").out
    assert "overlap: skip" in shown
    assert "its newest version" in shown


@pytest.mark.slow
def test_one_runs_by_hand_and_its_runs_are_listed(deployed: Freehold) -> None:
    said = deployed.ok("deployments", "run", "whenever").out
    session_id = said.split()[-1]
    assert said.strip().endswith(f"freehold sessions tail {session_id}")
    assert "begun by a run of the deployment whenever" in deployed.ok("sessions", "show", session_id).out
    listed = deployed.ok("sessions", "list", "--deployment", "whenever", "--json").json
    assert session_id in [one["id"] for one in listed]
    run = deployed.ok("deployments", "run", "whenever", "--json").json
    listed = deployed.ok("deployments", "runs", "whenever", "--trigger", "manual", "--json").json
    assert listed[0] == run
    assert run["session_id"] in deployed.ok("deployments", "runs").out
    assert deployed.ok("deployments", "runs", "whenever", "--failed").out.strip() == "No runs yet."


@pytest.mark.slow
def test_a_pause_is_seen_and_ends(deployed: Freehold) -> None:
    assert "nightly is paused" in deployed.ok("deployments", "pause", "nightly").out
    assert [one["id"] for one in deployed.ok("deployments", "list", "--status", "paused", "--json").json] == [
        "nightly"
    ]
    assert "nightly is active" in deployed.ok("deployments", "unpause", "nightly").out


@pytest.mark.slow
def test_the_next_times_are_told_in_both_clocks(deployed: Freehold) -> None:
    coming = deployed.ok("deployments", "next", "nightly", "--count", "400", "--json").json
    assert len(coming) == 400
    assert datetime.fromisoformat(coming[0]["at"]) > datetime.now(UTC)
    assert all(one["local"].split()[1].startswith(("02:30", "03:00")) for one in coming)
    notes = [one["note"] for one in coming if one["note"]]
    assert any("twice" in note for note in notes)
    assert any("skip" in note for note in notes)
    done = deployed.ok("deployments", "next", "nightly", "--count", "400")
    assert "a change of the clock" in done.err


def test_any_expression_can_be_tried_without_a_server(freehold: Freehold) -> None:
    coming = freehold.ok(
        "deployments", "next", "--cron", "0 12 L * *", "--timezone", "Asia/Tokyo", "--json"
    ).json
    assert [one["local"].split()[1] for one in coming] == ["12:00+09:00"] * 5
    wrong = freehold("deployments", "next", "--cron", "0 25 * * *")
    assert (wrong.code, "bad hour" in wrong.err) == (1, True)
    assert freehold("deployments", "next").code == 2


@pytest.mark.slow
def test_a_deployment_that_is_not_there_is_said_to_be_missing(deployed: Freehold) -> None:
    done = deployed("deployments", "run", "nothing")
    assert (done.code, "no deployment 'nothing'" in done.err) == (1, True)
