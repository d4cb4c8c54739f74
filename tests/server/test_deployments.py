"""Deployments and their runs, through Anthropic's unmodified SDK on a real server, and by hand where we go further."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic
from anthropic.types.beta import BetaManagedAgentsDeployment

from tests._waiting import eventually
from tests.server._world import World

SAYS = [{"type": "user.message", "content": [{"type": "text", "text": "Report."}]}]
DAILY = {"type": "cron", "expression": "0 9 * * mon-fri", "timezone": "Europe/Berlin"}
MINUTE = timedelta(minutes=1)
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGVsbG8="}}


@pytest.fixture(scope="module")
async def sdk(shared: World) -> AsyncAnthropic:
    """`reporter` is declared."""
    await shared.anthropic.beta.agents.create(name="reporter", model="rules/none")
    return shared.anthropic


async def made(sdk: AsyncAnthropic, **given: Any) -> BetaManagedAgentsDeployment:
    fields = {
        "name": "Daily report",
        "agent": "reporter",
        "environment_id": "default",
        "initial_events": SAYS,
        **given,
    }
    return await sdk.beta.deployments.create(**fields)


async def made_for_soon(sdk: AsyncAnthropic, **ours: Any) -> tuple[datetime, BetaManagedAgentsDeployment]:
    """For a time that has not passed by when the server hears of it, however slow the machine is."""
    ahead = timedelta(seconds=1)
    while True:
        at = datetime.now(UTC) + ahead
        try:
            return at, await made(sdk, extra_body={"freehold": {"at": at.isoformat(), **ours}})
        except anthropic.BadRequestError:
            if ahead > MINUTE:
                raise
        ahead *= 2


async def test_a_deployment_is_made_changed_listed_and_archived(sdk: AsyncAnthropic) -> None:
    deployments = sdk.beta.deployments
    budget = {"type": "limit", "max_list_cost": {"amount": "2550", "currency": "USD"}}
    one = await made(sdk, schedule=DAILY, description="Tells", metadata={"a": "1", "b": "2"}, budget=budget)
    assert one.id.startswith("depl_")
    assert (one.type, one.name, one.status, one.paused_reason) == (
        "deployment",
        "Daily report",
        "active",
        None,
    )
    assert (one.agent.id, one.agent.version, one.agent.type) == ("reporter", 1, "agent")
    assert (one.description, one.metadata, one.environment_id) == ("Tells", {"a": "1", "b": "2"}, "default")
    assert one.initial_events[0].to_dict() == SAYS[0]
    assert one.budget is not None
    assert one.budget.to_dict() == budget
    assert one.schedule is not None
    assert (one.schedule.expression, one.schedule.timezone, one.schedule.last_run_at) == (
        DAILY["expression"],
        DAILY["timezone"],
        None,
    )
    coming = one.schedule.upcoming_runs_at
    assert coming is not None
    assert len(coming) == 5
    assert coming == sorted(coming)
    assert coming[0] > datetime.now(UTC)
    changed = await deployments.update(one.id, name="Weekly", metadata={"a": None, "c": "3"}, budget=None)
    assert (changed.name, changed.metadata, changed.budget) == ("Weekly", {"b": "2", "c": "3"}, None)
    assert (changed.schedule, changed.description) == (one.schedule, "Tells"), "what is left out stays"
    cleared = await deployments.update(one.id, schedule=None, description=None)
    assert (cleared.schedule, cleared.description) == (None, None)
    assert (await deployments.retrieve(one.id)).name == "Weekly"
    assert one.id in [each.id async for each in deployments.list(agent_id="reporter")]
    assert [each.id async for each in deployments.list(agent_id="nobody")] == []
    archived = await deployments.archive(one.id)
    assert archived.archived_at is not None
    assert (await deployments.archive(one.id)).archived_at == archived.archived_at
    assert one.id not in [each.id async for each in deployments.list()]
    assert one.id in [each.id async for each in deployments.list(include_archived=True)]
    with pytest.raises(anthropic.ConflictError, match="archived"):
        await deployments.update(one.id, name="Again")


async def test_deployments_come_in_pages_and_by_status_and_time(sdk: AsyncAnthropic) -> None:
    deployments = sdk.beta.deployments
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    ids = [(await made(sdk, name=f"Paged {number}")).id for number in range(5)]
    await deployments.pause(ids[2])
    found = [one.id async for one in deployments.list(limit=2, created_at_gte=before)]
    assert found == ids[::-1]
    assert ids[2] in [one.id async for one in deployments.list(status="paused")]
    active = [one.id async for one in deployments.list(status="active", created_at_gte=before)]
    assert active == [one for one in ids[::-1] if one != ids[2]]
    assert [one.id async for one in deployments.list(created_at_lte=before, created_at_gte=before)] == []
    with pytest.raises(anthropic.BadRequestError, match="status: cannot be combined with include_archived"):
        await deployments.list(status="paused", include_archived=True)
    with pytest.raises(anthropic.BadRequestError, match="page: expected"):
        await deployments.list(page="nonsense")


async def test_a_pause_is_manual_and_ends(sdk: AsyncAnthropic) -> None:
    one = await made(sdk, schedule=DAILY)
    for _ in range(2):
        paused = await sdk.beta.deployments.pause(one.id)
        assert (paused.status, paused.paused_reason and paused.paused_reason.type) == ("paused", "manual")
    assert paused.schedule is not None
    assert paused.schedule.upcoming_runs_at
    back = await sdk.beta.deployments.unpause(one.id)
    assert (back.status, back.paused_reason) == ("active", None)
    await sdk.beta.deployments.pause(one.id)
    archived = await sdk.beta.deployments.archive(one.id)
    assert (archived.status, archived.paused_reason) == ("active", None)
    assert archived.schedule is not None
    assert archived.schedule.upcoming_runs_at == []
    with pytest.raises(anthropic.ConflictError, match="archived"):
        await sdk.beta.deployments.unpause(one.id)


async def test_a_run_by_hand_begins_a_session(shared: World, sdk: AsyncAnthropic) -> None:
    one = await made(sdk, initial_events=[{"type": "user.message", "content": [*SAYS[0]["content"], IMAGE]}])
    run = await sdk.beta.deployments.run(one.id)
    assert run.id.startswith("drun_")
    assert (run.type, run.deployment_id, run.error, run.trigger_context.type) == (
        "deployment_run",
        one.id,
        None,
        "manual",
    )
    assert run.session_id is not None
    session = await sdk.beta.sessions.retrieve(run.session_id)
    assert (session.deployment_id, session.title, session.agent.id) == (one.id, "Daily report", "reporter")
    assert [each.id async for each in sdk.beta.sessions.list(deployment_id=one.id)] == [session.id]
    events = await shared.until_idle(session.id)
    said = next(event for event in events if event["type"] == "user.message")
    assert [block["type"] for block in said["content"]] == ["text", "image"]
    assert await sdk.beta.deployment_runs.retrieve(run.id) == run
    keyed = {"extra_headers": {"Idempotency-Key": "once"}}
    again = [await sdk.beta.deployments.run(one.id, **keyed) for _ in range(2)]
    assert again[0] == again[1] != run
    runs = [each.id async for each in sdk.beta.deployment_runs.list(deployment_id=one.id, limit=1)]
    assert runs == [again[0].id, run.id]


@pytest.mark.slow
async def test_one_time_comes_by_itself_and_its_run_says_when(sdk: AsyncAnthropic) -> None:
    at, one = await made_for_soon(sdk, overlap="queue")
    assert one.schedule is None
    assert one.model_extra is not None
    assert datetime.fromisoformat(one.model_extra["freehold"]["at"]) == at
    assert one.model_extra["freehold"]["overlap"] == "queue"
    found: list[Any] = []

    async def has_run() -> bool:
        found[:] = [each async for each in sdk.beta.deployment_runs.list(deployment_id=one.id)]
        return bool(found)

    await eventually(has_run)
    [run] = found
    assert run.trigger_context.type == "schedule"
    assert run.trigger_context.scheduled_at == at
    assert timedelta() <= run.created_at - at < MINUTE
    listed = sdk.beta.deployment_runs.list
    assert [each.id async for each in listed(deployment_id=one.id, trigger_type="schedule")] == [run.id]
    assert [each.id async for each in listed(deployment_id=one.id, trigger_type="manual")] == []
    assert [each.id async for each in listed(deployment_id=one.id, has_error=False)] == [run.id]
    assert [each.id async for each in listed(deployment_id=one.id, has_error=True)] == []
    assert [each.id async for each in listed(deployment_id=one.id, created_at_gt=run.created_at)] == []
    assert [each.id async for each in listed(deployment_id=one.id, created_at_lte=run.created_at)] == [run.id]
    assert [each.id async for each in listed(deployment_id="depl_unknown")] == []


@pytest.mark.slow
async def test_a_time_that_has_passed_is_refused_when_it_is_said_and_not_afterwards(
    sdk: AsyncAnthropic,
) -> None:
    passed = {"freehold": {"at": (datetime.now(UTC) - timedelta(minutes=1)).isoformat()}}
    with pytest.raises(anthropic.BadRequestError, match=r"freehold\.at: expected a time to come"):
        await made(sdk, extra_body=passed)
    at, one = await made_for_soon(sdk)

    async def is_over() -> bool:
        return datetime.now(UTC) > at

    await eventually(is_over)
    assert (await sdk.beta.deployments.update(one.id, name="It was so")).name == "It was so"
    with pytest.raises(anthropic.BadRequestError, match=r"freehold\.at: expected a time to come"):
        await sdk.beta.deployments.update(one.id, extra_body=passed)


async def test_a_run_whose_agent_is_gone_says_so(sdk: AsyncAnthropic) -> None:
    await sdk.beta.agents.create(name="leaving", model="rules/none")
    one = await made(sdk, agent={"type": "agent", "id": "leaving", "version": 1})
    await sdk.beta.agents.archive("leaving")
    run = await sdk.beta.deployments.run(one.id)
    assert run.session_id is None
    assert run.error is not None
    assert run.error.type == "agent_archived_error"
    assert "leaving" in run.error.message
    assert [
        each.id async for each in sdk.beta.deployment_runs.list(has_error=True, deployment_id=one.id)
    ] == [run.id]


async def test_a_key_that_is_revoked_runs_nothing_more(shared: World) -> None:
    key = await shared.json("POST", "/v1/keys", {"name": "brief"})
    async with AsyncAnthropic(base_url=shared.url, api_key=key["key"], max_retries=0) as theirs:
        one = await made(theirs)
        assert (await theirs.beta.deployments.run(one.id)).error is None
    await shared.json("DELETE", f"/v1/keys/{key['id']}")
    run = await shared.anthropic.beta.deployments.run(one.id)
    assert run.error is not None
    assert run.error.type == "session_creation_rejected_error"
    assert run.model_extra is not None
    assert run.model_extra["freehold"] == {"code": "unauthenticated", "missed_count": 0, "run_by": "operator"}


async def test_who_may_only_run_may_do_nothing_else(shared: World, sdk: AsyncAnthropic) -> None:
    one = await made(sdk)
    statement = {"Effect": "Allow", "Action": "deployment:Run", "Resource": f"deployment/{one.id}"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    key = await shared.json("POST", "/v1/keys", {"name": "runner", "policy": policy})
    async with AsyncAnthropic(base_url=shared.url, api_key=key["key"], max_retries=0) as theirs:
        assert (await theirs.beta.deployments.run(one.id)).error is None
        for refused in (
            theirs.beta.deployments.retrieve(one.id),
            theirs.beta.deployments.pause(one.id),
            theirs.beta.deployments.archive(one.id),
            theirs.beta.deployments.update(one.id, name="Mine"),
            theirs.beta.deployment_runs.list(deployment_id=one.id),
            made(theirs),
        ):
            with pytest.raises(anthropic.PermissionDeniedError):
                await refused


NOT_SERVED = [
    ({"vault_ids": ["vlt_1"]}, "vault_ids: not served here"),
    ({"resources": [{"type": "file", "file_id": "f"}]}, "resources: not served here"),
    (
        {"initial_events": [{"type": "system.message", "content": []}]},
        r"initial_events\[0\].type: expected a",
    ),
    (
        {"initial_events": [*SAYS, {"type": "user.define_outcome", "description": "x", "rubric": {}}]},
        r"initial_events\[1\].type: expected a user.message",
    ),
    ({"initial_events": []}, "initial_events: expected 1 to 50, got 0"),
    ({"initial_events": SAYS * 51}, "initial_events: expected 1 to 50, got 51"),
    (
        {"initial_events": [{"type": "user.message", "content": [{"type": "text", "text": " "}]}]},
        r"initial_events\[0\]: expected some content",
    ),
    ({"agent": "nobody"}, "nobody"),
    ({"agent": {"type": "agent", "id": "reporter", "version": 99}}, "no version 99"),
    ({"name": " "}, "name: expected 1 to 256"),
    ({"environment_id": "nowhere"}, "nowhere"),
    ({"metadata": {str(number): "" for number in range(17)}}, "metadata: expected 16 entries"),
    ({"schedule": DAILY | {"expression": "0 9 * *"}}, "schedule.expression: expected five fields"),
    ({"schedule": DAILY | {"timezone": "Berlin"}}, "schedule.timezone: expected an IANA time zone"),
    ({"schedule": DAILY | {"type": "interval"}}, "schedule.type"),
    ({"schedule": DAILY | {"jitter": 1}}, "schedule.jitter"),
    (
        {"budget": {"type": "limit", "max_list_cost": {"amount": "2.5", "currency": "USD"}}},
        "budget.max_list_cost.amount: expected cents",
    ),
    (
        {"budget": {"type": "limit", "max_list_cost": {"amount": "25", "currency": "EUR"}}},
        "budget.max_list_cost.currency: expected USD",
    ),
    ({"extra_body": {"freehold": {"at": "2020-01-01T00:00:00Z"}}}, "freehold.at: expected a time to come"),
    ({"extra_body": {"freehold": {"at": "2030-01-01T00:00:00"}}}, "freehold.at: expected `?'?datetime"),
    (
        {"schedule": DAILY, "extra_body": {"freehold": {"at": "2130-01-01T00:00:00Z"}}},
        "freehold.at: expected either",
    ),
    (
        {"extra_body": {"freehold": {"starting_deadline_s": 0}}},
        "freehold.starting_deadline_s: expected more than 0",
    ),
    ({"extra_body": {"freehold": {"missed": "sometimes"}}}, "freehold.missed"),
    ({"extra_body": {"scheduel": None}}, "scheduel.*did you mean 'schedule'"),
]


@pytest.mark.parametrize(("given", "said"), NOT_SERVED, ids=[said for _, said in NOT_SERVED])
async def test_what_is_wrong_or_not_served_is_refused_by_its_path(
    sdk: AsyncAnthropic, given: dict[str, Any], said: str
) -> None:
    with pytest.raises((anthropic.BadRequestError, anthropic.NotFoundError), match=said):
        await made(sdk, **given)


async def test_a_lost_race_for_a_deployment_is_told(sdk: AsyncAnthropic) -> None:
    one = await made(sdk)
    results = await asyncio.gather(
        *(sdk.beta.deployments.update(one.id, name=f"Name {number}") for number in range(5)),
        return_exceptions=True,
    )
    assert any(not isinstance(result, BaseException) for result in results)
    assert all(
        isinstance(result, anthropic.ConflictError | BetaManagedAgentsDeployment) for result in results
    )


TEMPLATE = """
kind: agent
name: templated
model: rules/none
---
kind: rules
name: none
rules: []
---
kind: deployment
name: nightly
agent: templated
title: Nightly report
messages: [Report., "And sum it up."]
schedule: { type: cron, expression: "30 2 * * *", timezone: Europe/Berlin }
missed: skip
overlap: skip
"""


async def test_a_template_declares_one_and_the_api_sees_the_same(shared: World, sdk: AsyncAnthropic) -> None:
    applied = await shared.apply(TEMPLATE)
    assert ("create", "deployment", "nightly") in [
        (change["action"], change["kind"], change["name"]) for change in applied["plan"]["changes"]
    ]
    one = await sdk.beta.deployments.retrieve("nightly")
    assert (one.name, one.agent.id, len(one.initial_events)) == ("Nightly report", "templated", 2)
    assert one.schedule is not None
    assert one.schedule.expression == "30 2 * * *"
    await sdk.beta.deployments.pause("nightly")
    again = await shared.apply(TEMPLATE)
    assert {change["action"] for change in again["plan"]["changes"]} == {"unchanged"}
    assert (await sdk.beta.deployments.retrieve("nightly")).status == "paused", (
        "a template says nothing of that"
    )
    changed = await sdk.beta.deployments.update("nightly", schedule=DAILY)
    assert changed.model_extra is not None
    assert changed.model_extra["freehold"]["version"] == 2
    assert (await shared.json("GET", "/v1/resources/deployments/nightly"))["version"] == 2
    gone = await shared.json("DELETE", "/v1/resources/deployment/nightly")
    assert gone["archived"]
    assert (await sdk.beta.deployments.retrieve("nightly")).archived_at is not None


@pytest.mark.parametrize(
    ("was", "is_now", "said"),
    [
        (
            "agent: templated\ntitle",
            "agent: templatd\ntitle",
            "agent: there is no agent 'templatd' .*templated",
        ),
        ("30 2 * * *", "30 25 * * *", "schedule.expression: bad hour"),
        ("missed: skip", "environment: lab", "environment: there is no environment 'lab'"),
        ("missed: skip", "missed: never", "missed"),
        ("type: cron,", "type: corn,", "schedule.type"),
    ],
)
async def test_a_wrong_declaration_is_refused_by_its_line(
    shared: World, was: str, is_now: str, said: str
) -> None:
    assert was in TEMPLATE
    answer = await shared.http.post(
        "/v1/templates/apply", json={"template": TEMPLATE.replace("nightly", "wrong").replace(was, is_now)}
    )
    assert answer.status_code == 400
    assert re.search(said, answer.json()["error"]["message"]), answer.text
