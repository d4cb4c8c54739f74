"""An experiment's arm that is a route: it has the call whole, and what is counted is counted for both."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from freehold.core.errors import BadRequest, Overloaded
from freehold.core.experiments import Arm, Canary, Experiment, Shadow
from freehold.core.policy import Policy, Principal, Statement
from freehold.core.routes import Retries, Route, arm_problems, check
from freehold.core.serving import Slo
from freehold.gateway.passing import Envelope
from tests.gateway._routes import Scene, scene
from tests.gateway._vendors import OPENAI_TEXT, openai_request, reply
from tests.gateway.conftest import ANN, WIRES

OK = reply(OPENAI_TEXT)
BUSY = reply(b'{"error":{"message":"busy"}}', status=503)
SLO = Slo(error_share_max=0.1)


def split(percent: float = 50, **more: Any) -> Mapping[str, Any]:
    """Of `smart`: one arm is its own model, the other one the route `other`."""
    arms = (Arm(model="a/m", percent=100 - percent), Arm(model="route/other", percent=percent, name="new"))
    return {"experiment": Experiment(arms=arms), "retries": Retries(again_max=0), **more}


def opened(
    route: Mapping[str, Any] | None = None, *, a: Any = (OK,), b: Any = (OK,), c: Any = (OK,)
) -> AbstractAsyncContextManager[Scene]:
    other = Route(name="other", models=("b/m", "c/m"), retries=Retries(again_max=0), slo=SLO)
    return scene({"a": a, "b": b, "c": c}, {"models": ("a/m",), **(route or split())}, declared=[other])


async def asked(it: Scene, session: str, principal: Principal = ANN) -> str:
    await it.ask(headers={"x-freehold-session": session}, principal=principal)
    return it.records[-1].provider


async def in_arm(it: Scene) -> str:
    """A session of the arm `new`."""
    for number in range(50):
        body = Envelope(openai_request("smart"))
        headers = {"x-freehold-session": f"s{number}"}
        told = await it.gateway.explain(ANN, "smart", body, wire=WIRES["openai_chat"], headers=headers)
        if told.arm == "new":
            assert [one.model for one in told.verdicts] == ["b/m", "c/m"]
            return f"s{number}"
    raise AssertionError("no session is in the arm")


async def test_a_call_in_the_arm_goes_by_the_arms_route_and_is_put_down_to_both() -> None:
    async with opened(b=[BUSY, OK]) as it:
        session = await in_arm(it)
        assert await asked(it, session) == "c", "the arm's route has its own fallback"
        record = it.records[-1]
        assert (record.route, record.arm, record.attempts) == ("smart", "new", 2)
        assert record.reason == "after b/m overloaded: arm new: by route other: in order"
        assert await asked(it, session) == "b"
        answered = {await asked(it, f"s{number}") for number in range(20)}
        assert answered == {"a", "b"}
        assert {one.arm for one in it.records} == {"a/m", "new"}


async def test_both_routes_objectives_count_it_and_only_its_own_models() -> None:
    async with opened(split(slo=SLO), b=[BUSY], c=[BUSY]) as it:
        with pytest.raises(Overloaded):
            await asked(it, await in_arm(it))
        found = await it.house.models.objectives("acme")
        for name in ("smart", "other"):
            (told,) = found[name].route.looks(SLO, it.clock.s)
            assert (told.counted.ended, told.counted.bad) == (1, 1), name
        assert set(found["smart"].models) <= {"a/m"}


async def test_a_route_that_can_ask_nobody_leaves_its_calls_to_the_other_and_to_no_arm() -> None:
    async with opened() as it:
        session = await in_arm(it)
        for model in ("b/m", "c/m"):
            (await it.health(model)).failed(it.clock.s, "rate_limited", retry_after_s=60)
        assert await asked(it, session) == "a"
        assert it.records[-1].arm is None


async def test_a_policy_that_denies_the_arms_route_keeps_calls_out_of_it() -> None:
    deny = Policy((
        Statement("Allow", ("*",), ("*",)),
        Statement("Deny", ("model:Call",), ("model/route/other",)),
    ))
    denied = Principal(id=ANN.id, kind=ANN.kind, tenant=ANN.tenant, layers=(deny,))
    async with opened() as it:
        session = await in_arm(it)
        assert (await asked(it, session), await asked(it, session, denied)) == ("b", "a")


@pytest.mark.parametrize(
    ("experiment", "others", "field", "said"),
    [
        (("route/none",), {}, "experiment.arms[1].model", "no route is declared as 'none'; declared: none"),
        (("route/smart",), {}, "experiment.arms[1].model", "comes to itself again: smart > smart"),
        (
            ("route/b",), {"b": ("route/c",), "c": ("route/smart",)}, "experiment.arms[1].model",
            "comes to itself again: smart > b > c > smart",
        ),
        (("route/b",), {"b": ("p/b",)}, "experiment.arms[1].model", "route/b has an experiment of its own"),
        (("p/b",), {"b": ("route/smart",)}, "experiment", "the route is an arm of b"),
    ],
)  # fmt: skip
def test_routes_that_come_to_themselves_or_nest_experiments_are_refused_where_they_stand(
    experiment: tuple[str], others: Mapping[str, tuple[str]], field: str, said: str
) -> None:
    def declared(name: str, arm: str) -> Route:
        arms = (Arm(model="p/a", percent=50), Arm(model=arm, percent=50))
        return Route(name=name, models=("p/a", "p/b"), experiment=Experiment(arms=arms))

    routes = [declared("smart", *experiment), *(declared(name, *arm) for name, arm in others.items())]
    by_name = {one.name: one for one in routes}
    problems = list(arm_problems(by_name["smart"], by_name))
    assert any(path == field and said in problem for path, problem in problems), problems


def test_a_canary_may_be_a_route_and_a_shadow_may_not() -> None:
    check(Route(name="smart", models=("p/a",), experiment=Experiment(canary=Canary(model="route/b"))))
    with pytest.raises(BadRequest, match="route"):
        check(Route(name="smart", models=("p/a",), experiment=Experiment(shadows=(Shadow(model="route/b"),))))
