"""Experiments over the whole server: arms that stick, shadows that nobody waits for, a canary that goes up and comes back, feedback."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest

from freehold.gateway.canaries import LOOK_S_MIN
from freehold.gateway.qualities import SCORES_MIN
from tests._waiting import eventually
from tests.gateway._vendors import (
    ANTHROPIC_STREAM,
    ANTHROPIC_TEXT,
    HOLD,
    OPENAI_STREAM,
    OPENAI_TEXT,
    reply,
    stream,
)
from tests.server._world import World, world

TEMPLATE = """
kind: route
name: ab
models: [openai/gpt-4o, anthropic/claude-sonnet-4-5]
retries: { again_max: 0 }
experiment:
  arms:
    - { model: openai/gpt-4o, percent: 50, name: old }
    - { model: anthropic/claude-sonnet-4-5, percent: 50, name: new }
---
kind: route
name: shadowed
models: [openai/gpt-4o]
experiment: { shadows: [{ model: anthropic/claude-sonnet-4-5 }] }
---
kind: route
name: growing
models: [openai/gpt-4o, anthropic/claude-sonnet-4-5]
retries: { again_max: 0 }
experiment:
  canary: { model: anthropic/claude-sonnet-4-5, steps: [50, 100], step_s: 0.1, calls_min: 3, error_rate_max: 0.2 }
"""
CALLS_A_LOOK = 12
"""At 50 % some of them go to the canary, and enough for a step soon; more often than it looks nothing changes."""
BUSY = reply(b'{"error":{"message":"no"}}', status=503)


@pytest.fixture(scope="module")
async def own(url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with world(url, tmp_path_factory.mktemp("experiments")) as opened:
        await opened.apply(TEMPLATE)
        yield opened


async def ask(own: World, model: str, session: str) -> tuple[str, str]:
    """Which model answered, and the call's id."""
    answer = await own.http.post(
        "/v1/chat/completions",
        json={"model": model, "messages": [{"role": "user", "content": "Hi"}]},
        headers={"x-freehold-session": session},
    )
    assert answer.status_code == 200, answer.text
    return answer.headers["x-freehold-model"], answer.headers["x-freehold-call-id"]


async def test_a_session_stays_in_its_arm_and_arms_are_compared_with_feedback(own: World) -> None:
    own.script("openai", reply(OPENAI_TEXT))
    own.script("anthropic", reply(ANTHROPIC_TEXT))
    before = sum(arm["calls"] for arm in (await own.json("GET", "/v1/experiments/ab"))["arms"])
    asked = [await ask(own, "ab", f"s{number % 10}") for number in range(20)]
    assert [model for model, _ in asked[:10]] == [model for model, _ in asked[10:]]
    assert len({model for model, _ in asked}) == 2
    for model, call_id in asked:
        score = {"call_id": call_id, "score": float(model.startswith("anthropic")), "name": "helpful"}
        await own.json("POST", "/v1/feedback", score)
        await own.json("POST", "/v1/feedback", score)
    told = await own.json("GET", "/v1/experiments/ab")
    old, new = told["arms"]
    assert (old["arm"], new["arm"], old["errors"]) == ("old", "new", 0)
    assert old["calls"] + new["calls"] == before + 20
    assert old["measures"]["score.helpful"]["estimate"] == 0
    assert new["measures"]["score.helpful"] == {
        "count": sum(model.startswith("anthropic") for model, _ in asked),
        "estimate": 1,
        "low": None,
        "high": None,
    }
    assert new["differences"]["score.helpful"]["estimate"] == 1
    assert not new["differences"]["error_rate"]["decided"]
    assert old["measures"]["cost"]["estimate"] > 0
    assert old["differences"] == {}


async def test_explaining_tells_the_arm_of_whom_the_request_names(own: World) -> None:
    arms = "arms: [{model: openai/gpt-4o, percent: 50}, {model: anthropic/claude-haiku-4-5, percent: 50}]"
    models = "models: [openai/gpt-4o, anthropic/claude-haiku-4-5]"
    await own.apply(f"{{kind: route, name: people, {models}, experiment: {{sticky_by: user, {arms}}}}}")
    own.script("openai", reply(OPENAI_TEXT))
    own.script("anthropic", reply(ANTHROPIC_TEXT))
    asked = set()
    for number in range(8):
        body = {"model": "people", "messages": [{"role": "user", "content": "Hi"}], "user": f"user-{number}"}
        told = await own.json("POST", "/v1/routes/people/explain", body)
        answer = await own.http.post("/v1/chat/completions", json=body)
        assert answer.headers["x-freehold-model"] == told["arm"]
        asked.add(told["arm"])
    assert len(asked) == 2


async def test_an_arm_that_fails_over_has_an_error_and_its_client_an_answer(own: World) -> None:
    own.script("openai", reply(OPENAI_TEXT))
    own.script("anthropic", BUSY)
    before = await own.json("GET", "/v1/experiments/ab")
    for number in range(10):
        assert (await ask(own, "ab", f"s{number}"))[0] == "openai/gpt-4o"
    after = await own.json("GET", "/v1/experiments/ab")
    assert after["arms"][0]["errors"] == before["arms"][0]["errors"] == 0
    assert after["arms"][1]["errors"] > 0


async def test_a_shadow_is_asked_and_recorded_and_nobody_waits_for_it(own: World) -> None:
    own.script("openai", reply(OPENAI_TEXT))
    shadow = own.script("anthropic", [HOLD])
    asked = len(shadow.asked)
    assert (await ask(own, "shadowed", "s"))[0] == "openai/gpt-4o"
    await eventually(lambda: len(shadow.asked) > asked)
    own.script("anthropic", reply(ANTHROPIC_TEXT))
    await ask(own, "shadowed", "s")

    async def recorded() -> bool:
        told = await own.json("GET", "/v1/experiments/shadowed")
        arms = {one["arm"]: one for one in told["arms"]}
        one = arms["shadow:anthropic/claude-sonnet-4-5"]
        return bool(
            arms["baseline"]["calls"] == 2 and one["calls"] >= 1 and one["measures"]["cost"]["estimate"]
        )

    await eventually(recorded)


@pytest.mark.slow
async def test_a_canary_goes_up_by_itself(own: World) -> None:
    own.script("openai", reply(OPENAI_TEXT))
    own.script("anthropic", reply(ANTHROPIC_TEXT))
    numbers = count()
    steps: list[dict[str, Any]] = []

    async def done() -> bool:
        await asyncio.gather(*(ask(own, "growing", f"s{next(numbers)}") for _ in range(CALLS_A_LOOK)))
        steps[:] = (await own.json("GET", "/v1/experiments/growing"))["steps"]
        return bool(steps and steps[0]["status"] == "done")

    await eventually(done, every_s=LOOK_S_MIN)
    assert [(one["percent"], one["status"]) for one in reversed(steps)] == [
        (50, "running"),
        (100, "running"),
        (100, "done"),
    ]
    assert {(await ask(own, "growing", f"t{number}"))[0] for number in range(10)} == {
        "anthropic/claude-sonnet-4-5"
    }


async def test_an_arm_may_be_a_route_and_circles_are_refused_with_their_path(own: World) -> None:
    """Both in one template, or one after the other."""
    plain = "{kind: route, name: plain, models: [anthropic/claude-sonnet-4-5]}"
    arms = "[{model: openai/gpt-4o, percent: 1, name: old}, {model: route/plain, percent: 99, name: new}]"
    outer = f"{{kind: route, name: outer, models: [openai/gpt-4o], experiment: {{arms: {arms}}}}}"
    await own.apply(f"{plain}\n---\n{outer}")
    own.script("openai", reply(OPENAI_TEXT))
    own.script("anthropic", reply(ANTHROPIC_TEXT))
    asked = {(await ask(own, "outer", f"s{number}"))[0] for number in range(10)}
    assert "anthropic/claude-sonnet-4-5" in asked
    told = await own.json("GET", "/v1/experiments/outer")
    assert {one["arm"]: one["calls"] for one in told["arms"]}["new"] > 0
    circle = plain.replace("}", f", experiment: {{arms: {arms.replace('route/plain', 'route/outer')}}}}}")
    answer = await own.http.post("/v1/templates/apply", json={"template": circle})
    assert answer.status_code == 400
    said = answer.json()["error"]["message"]
    assert "experiment.arms[1].model: the route comes to itself again: plain > outer > plain" in said
    answer = await own.http.delete("/v1/resources/route/plain")
    assert answer.status_code == 409
    assert "route plain is an arm of route outer" in answer.json()["error"]["message"]
    for name in ("outer", "plain"):
        await own.json("DELETE", f"/v1/resources/route/{name}")


async def test_a_route_goes_by_the_quality_that_people_see(own: World) -> None:
    """Better scores go before a better declared quality, once there are enough of them."""
    own.script("openai", reply(OPENAI_TEXT))
    own.script("anthropic", reply(ANTHROPIC_TEXT))
    declared, liked, few = "openai/gpt-4o", "anthropic/claude-sonnet-4-5", "openai/gpt-4o-mini"
    for model, scores in ((declared, SCORES_MIN), (liked, SCORES_MIN), (few, 2)):
        for number in range(scores):
            _, call_id = await ask(own, model, f"q{number}")
            score = {"call_id": call_id, "name": "solved", "score": 0.2 if model == declared else 0.8}
            await own.json("POST", "/v1/feedback", score)
    await own.apply(
        f"""
kind: route
name: liked
strategy: best
quality_by: solved
models: [{{ model: {declared}, quality: 1 }}, {liked}, {{ model: {few}, quality: 0.5 }}]
constraints: {{ quality_min: 0.3 }}
"""
    )
    body = {"model": "liked", "messages": [{"role": "user", "content": "Hi"}]}
    told = (await own.http.post("/v1/routes/liked/explain", json=body)).json()
    assert [(one["model"], one["place"], one["quality"]) for one in told["models"]] == [
        (liked, 1, pytest.approx(0.8)),
        (few, 2, 0.5),
        (declared, None, pytest.approx(0.2)),
    ]
    answer = await own.http.post("/v1/chat/completions", json=body)
    assert answer.headers["x-freehold-route-reason"] == "best: quality 0.8"


TURNING = """
kind: route
name: {name}
models: [openai/gpt-4o, anthropic/claude-sonnet-4-5]
retries: {{ again_max: 0 }}
slo: {slo}
experiment:
  canary: {{ model: anthropic/claude-sonnet-4-5, steps: [50, 60, 70, 100], step_s: 0.1, calls_min: 3, error_rate_max: 0.9 }}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slo", "said"),
    [
        ("{ error_share_max: 0.1 }", "certainly over 0.1"),
        ("{ first_token_p95_s: 0.000001 }", "their 95th percentile is certainly over it"),
    ],
)
async def test_a_canary_steps_back_where_its_vendor_turns_bad(own: World, slo: str, said: str) -> None:
    """By the route's objectives, which are stricter than its own limits: errors that others mend, or first tokens too late."""
    name = "erring" if "error" in slo else "slow"
    await own.apply(TURNING.format(name=name, slo=slo))
    own.script("openai", stream(*OPENAI_STREAM))
    own.script("anthropic", stream(*ANTHROPIC_STREAM))
    numbers = count()
    steps: list[dict[str, Any]] = []

    async def stepped(status: str, least: int) -> bool:
        body = {"model": name, "messages": [{"role": "user", "content": "Hi"}], "stream": name == "slow"}
        sessions = [{"x-freehold-session": f"s{next(numbers)}"} for _ in range(CALLS_A_LOOK)]
        answers = await asyncio.gather(
            *(own.http.post("/v1/chat/completions", json=body, headers=session) for session in sessions)
        )
        assert {answer.status_code for answer in answers} == {200}, "its clients have an answer all the while"
        steps[:] = (await own.json("GET", f"/v1/experiments/{name}"))["steps"]
        return len(steps) >= least and steps[0]["status"] == status

    if name == "erring":
        own.script("openai", reply(OPENAI_TEXT))
        own.script("anthropic", reply(ANTHROPIC_TEXT))
        await eventually(lambda: stepped("running", 2), every_s=LOOK_S_MIN)
        own.script("anthropic", BUSY)
    await eventually(lambda: stepped("stepped_back", 2), every_s=LOOK_S_MIN)
    assert steps[0]["percent"] == 0
    assert said in steps[0]["reason"]
    vendor = own.script("anthropic", reply(ANTHROPIC_TEXT))
    own.script("openai", reply(OPENAI_TEXT))

    async def left() -> bool:
        """Told to this process within a look."""
        before = len(vendor.asked)
        for number in range(20):
            await ask(own, name, f"t{number}")
        return len(vendor.asked) == before

    await eventually(left, every_s=LOOK_S_MIN)


@pytest.mark.parametrize(
    ("method", "path", "body", "said"),
    [
        ("GET", "/v1/experiments/none", None, "none"),
        ("POST", "/v1/feedback", {"call_id": "req_1", "score": 1}, "call_id: expected an id like call_"),
        ("POST", "/v1/feedback", {"call_id": f"call_{'0' * 26}", "score": 1}, "call_id: no such call"),
        ("POST", "/v1/feedback", {"call_id": f"call_{'0' * 26}", "score": 1e300}, "score: expected a number"),
    ],
)
async def test_what_is_not_there_or_wrong_is_told(
    own: World, method: str, path: str, body: object, said: str
) -> None:
    answer = await own.http.request(method, path, json=body)
    assert answer.status_code in {400, 404}
    assert said in answer.json()["error"]["message"]
