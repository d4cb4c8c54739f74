"""The choice of a route: tables of who is taken and why, and what holds for every choice."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.pricing import PICO
from freehold.core.routes import Constraints, Route, Strategy
from freehold.gateway.routing import Candidate, Figures, Traits, Wanted, decide, rule_of, verdicts

STRATEGIES: tuple[Strategy, ...] = (
    "ordered", "weighted", "cheapest", "fastest", "best", "least_busy", "sticky",
)  # fmt: skip
ANY = Wanted()
_TRAITS = set(Traits.__struct_fields__)
_FIGURES = set(Figures.__struct_fields__)


def candidate(model: str, **given: Any) -> Candidate:
    traits = {name: value for name, value in given.items() if name in _TRAITS}
    figures = {name: value for name, value in given.items() if name in _FIGURES}
    rest = {name: value for name, value in given.items() if name not in _TRAITS | _FIGURES}
    return Candidate(Traits(model=model, **traits), figures=Figures(**figures), **rest)


def order(strategy: Strategy, among: Mapping[str, Mapping[str, Any]], *, draw: float = 0.5, wanted: Wanted = ANY, **limits: Any) -> str:  # fmt: skip
    """The models in the order in which they are asked, as one word."""
    models = [candidate(name, **one) for name, one in among.items()]
    rule = rule_of(Route(name="r", models=tuple(among), strategy=strategy, constraints=Constraints(**limits)))
    return "".join(models[place].model for place in decide(rule, models, wanted, draw).order)


@pytest.mark.parametrize(
    ("strategy", "among", "expected"),
    [
        ("ordered", {"a": {}, "b": {}, "c": {"barred": "drained"}}, "ab"),
        ("ordered", {"a": {"full": True}, "b": {}, "c": {"full": True}}, "bac"),
        ("cheapest", {"a": {"price_pico": 3}, "b": {}, "c": {"price_pico": 1}}, "cab"),
        ("best", {"a": {"quality": 1}, "b": {"quality": 2}, "c": {}}, "bac"),
        ("best", {"a": {"quality": 2, "price_pico": 9}, "b": {"quality": 2, "price_pico": 1}}, "ba"),
        ("fastest", {"a": {"whole_p50_s": 2.0}, "b": {"whole_p50_s": 1.0}, "c": {}}, "bac"),
        ("least_busy", {"a": {"busy_count": 3}, "b": {"busy_count": 1}, "c": {"busy_count": 2}}, "bca"),
        ("least_busy", {"a": {"busy_count": 3, "weight": 4}, "b": {"busy_count": 1}}, "ab"),
    ],
)  # fmt: skip
def test_a_strategy_puts_models_in_its_order(
    strategy: Strategy, among: dict[str, Any], expected: str
) -> None:
    assert order(strategy, among) == expected


def test_the_fastest_of_streams_goes_by_the_first_token_and_of_answers_by_the_end() -> None:
    among = {"a": {"first_p50_s": 0.1, "whole_p50_s": 9.0}, "b": {"first_p50_s": 0.5, "whole_p50_s": 2.0}}
    assert order("fastest", among, wanted=Wanted(streamed=True)) == "ab"
    assert order("fastest", among) == "ba"


def test_a_few_calls_explore_what_was_not_measured_lately() -> None:
    among: dict[str, Any] = {"a": {"whole_p50_s": 1.0}, "b": {}, "c": {}}
    firsts = [order("fastest", among, draw=draw / 1000)[0] for draw in range(1000)]
    assert (firsts.count("a"), firsts.count("b"), firsts.count("c")) == (950, 25, 25)


@pytest.mark.slow
def test_weights_are_shares_of_calls_also_of_those_that_fall_back() -> None:
    among = {"a": {"weight": 3.0}, "b": {"weight": 1.0}, "c": {"weight": 1.0}}
    orders = [order("weighted", among, draw=draw / 10_000) for draw in range(10_000)]
    assert [sum(one[0] == name for one in orders) for name in "abc"] == [6000, 2000, 2000]
    after_a = [one[1] for one in orders if one[0] == "a"]
    assert abs(after_a.count("b") - after_a.count("c")) < 10


@pytest.mark.parametrize(
    ("limits", "given", "why"),
    [
        ({"price_max": "0.01"}, {"price_pico": PICO // 50}, "price: $0.02 expected, over $0.01"),
        ({"price_max": "0.01"}, {}, "price: no price in USD is known, over $0.01"),
        ({"quality_min": 0.5}, {"quality": 0.4}, "quality 0.4, under 0.5"),
        ({"quality_min": 0.5}, {}, "quality not declared, under 0.5"),
        ({"context_tokens_min": 9}, {"context_tokens": 8}, "context of 8 tokens, under 9"),
        ({"regions": ("eu",)}, {"regions": ("eu", "us")}, "its region (eu, us) is not among eu"),
        ({"regions": ("eu",)}, {}, "its region (not declared) is not among eu"),
        ({"labels": {"tier": "gold"}}, {"labels": {"tier": "tin"}}, "its label tier is tin, not gold"),
        ({"first_token_s_max": 1.0}, {"first_p95_s": 1.5}, "first token in 1.50 s (p95), over 1 s"),
        ({"tokens_per_s_min": 50.0}, {"tokens_per_s": 20.0}, "20.0 tokens/s, under 50"),
    ],
)  # fmt: skip
def test_a_model_that_does_not_meet_the_constraints_is_left_and_told_why(
    limits: dict[str, Any], given: dict[str, Any], why: str
) -> None:
    fit = {
        "price_pico": 1,
        "quality": 1.0,
        "context_tokens": 99,
        "regions": ("eu",),
        "labels": {"tier": "gold"},
    }
    models = [candidate("a", **given), candidate("b", **fit)]
    rule = rule_of(Route(name="r", models=("a", "b"), constraints=Constraints(**limits)))
    told = verdicts(rule, models, decide(rule, models, Wanted(), 0.5))
    assert [(one.model, one.place, one.why) for one in told] == [("b", 1, "in order"), ("a", None, why)]


def test_where_all_are_too_slow_they_are_asked_all_the_same() -> None:
    models = [candidate("a", first_p95_s=3.0), candidate("b", first_p95_s=2.0), candidate("c", barred="x")]
    rule = rule_of(Route(name="r", models=("a",), constraints=Constraints(first_token_s_max=1.0)))
    told = verdicts(rule, models, decide(rule, models, Wanted(), 0.5))
    assert [one.model for one in told] == ["a", "b", "c"]
    assert "none is quicker" in told[0].why


candidates = st.lists(
    st.builds(
        lambda given, traits, figures: {**given, **traits, **figures},
        st.fixed_dictionaries({
            "barred": st.none() | st.just("drained"),
            "full": st.booleans(),
            "busy_count": st.integers(0, 9),
            "price_pico": st.none() | st.integers(0, PICO),
        }),
        st.fixed_dictionaries({
            "weight": st.floats(0.01, 100.0),
            "quality": st.none() | st.floats(0, 1),
            "regions": st.sampled_from([(), ("eu",), ("us",), ("eu", "us")]),
        }),
        st.fixed_dictionaries({
            "first_p50_s": st.none() | st.floats(0.001, 9.0),
            "whole_p50_s": st.none() | st.floats(0.001, 9.0),
            "first_p95_s": st.none() | st.floats(0.001, 9.0),
        }),
    ),
    min_size=1,
    max_size=6,
)
draws = st.floats(0, 1, exclude_max=True)
limits = st.fixed_dictionaries({
    "regions": st.sampled_from([(), ("eu",)]),
    "quality_min": st.none() | st.floats(0, 1),
    "price_max": st.none() | st.just("0.5"),
    "first_token_s_max": st.none() | st.just(2.0),
})


@given(st.sampled_from(STRATEGIES), candidates, limits, draws, st.text(max_size=5))
def test_every_model_is_either_taken_once_or_left_with_a_reason(
    strategy: Strategy,
    given_models: list[dict[str, Any]],
    given_limits: dict[str, Any],
    draw: float,
    affinity: str,
) -> None:
    models = [candidate(f"m{place}", **one) for place, one in enumerate(given_models)]
    rule = rule_of(Route(name="r", models=("a",), strategy=strategy, constraints=Constraints(**given_limits)))
    wanted = Wanted(affinity=affinity)
    decision = decide(rule, models, wanted, draw)
    assert decide(rule, models, wanted, draw) == decision
    assert sorted([*decision.order, *decision.left]) == list(range(len(models)))
    for place in decision.order:
        taken = models[place]
        assert taken.barred is None
        assert not given_limits["regions"] or taken.traits.regions == ("eu",), "never elsewhere"
        assert given_limits["price_max"] is None or (taken.price_pico or 0) <= PICO // 2
    fulls = [models[place].full for place in decision.order]
    assert fulls == sorted(fulls), "whoever would wait comes last"
    told = verdicts(rule, models, decision)
    assert len(told) == len(models)
    assert all(one.why and one.why.isascii() for one in told)


@given(st.lists(st.floats(0.1, 10.0), min_size=2, max_size=6), st.text(max_size=8))
def test_what_is_sticky_moves_only_when_its_own_model_goes(weights: list[float], affinity: str) -> None:
    among = {chr(97 + place): {"weight": weight} for place, weight in enumerate(weights)}
    wanted = Wanted(affinity=affinity)
    whole = order("sticky", among, wanted=wanted)
    for gone in among:
        rest = {name: one for name, one in among.items() if name != gone}
        assert order("sticky", rest, wanted=wanted) == whole.replace(gone, "")


def test_what_is_sticky_is_spread_by_weight() -> None:
    among = {"a": {"weight": 3.0}, "b": {"weight": 1.0}}
    firsts = [
        order("sticky", among, wanted=Wanted(affinity=f"session {number}"))[0] for number in range(4000)
    ]
    assert 2850 <= firsts.count("a") <= 3150
