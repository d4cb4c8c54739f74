"""Burn rates over two windows, and what a route does about a model that burns: by a clock that the test moves."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.core.errors import FreeholdError
from freehold.core.routes import Retries
from freehold.core.serving import Slo
from freehold.gateway.passing import Envelope
from freehold.gateway.routing import Decision
from freehold.gateway.slo import ALERTS, Counts, Objectives, Served, burning, demoted, share_at
from tests.gateway._routes import scene
from tests.gateway._vendors import OPENAI_STREAM, OPENAI_TEXT, openai_request, reply, stream
from tests.gateway.conftest import ANN, WIRES

OK = reply(OPENAI_TEXT)
BUSY = reply(b'{"error":{"message":"busy"}}', status=503)
ONE_PERCENT = Slo(error_share_max=0.01)
AT = datetime(2026, 11, 21, tzinfo=UTC)


def served(slo: Slo, *parts: tuple[int, int, float]) -> Served:
    """Each part: so many calls, every n-th of which fails (0: none), at this minute."""
    found = Served()
    for count, nth, minute in parts:
        for number in range(count):
            found.ended(slo, "unavailable" if nth and number % nth == 0 else "ok", None, minute * 60)
    return found


def alert_of(found: Served, slo: Slo, minute: float) -> str | None:
    return found.looks(slo, minute * 60)[0].alert


def test_a_burst_burns_fast_once_the_hour_and_the_last_minutes_both_do() -> None:
    found = served(ONE_PERCENT, (900, 0, 945), (400, 2, 999))
    assert alert_of(found, ONE_PERCENT, 999) == "fast"


def test_a_burst_that_is_over_no_longer_burns() -> None:
    found = served(ONE_PERCENT, (400, 2, 980), (400, 0, 999))
    assert found.looks(ONE_PERCENT, 999 * 60)[0].rates[60] > 14.4
    assert alert_of(found, ONE_PERCENT, 999) != "fast"


def test_a_smoulder_burns_slowly_and_what_is_allowed_does_not_burn() -> None:
    smoulder = served(ONE_PERCENT, *((100, 12, minute) for minute in range(640, 1000, 10)))
    assert alert_of(smoulder, ONE_PERCENT, 999) == "slow"
    allowed = served(ONE_PERCENT, *((100, 100, minute) for minute in range(640, 1000, 10)))
    assert alert_of(allowed, ONE_PERCENT, 999) is None
    assert allowed.looks(ONE_PERCENT, 999 * 60)[0].rates[60] == pytest.approx(1)


def test_few_calls_conclude_nothing_and_clients_faults_count_for_nothing() -> None:
    assert alert_of(served(ONE_PERCENT, (9, 1, 999)), ONE_PERCENT, 999) is None
    found = Served()
    for outcome in ("bad_request", "client_gone", "forbidden", "limit_reached") * 20:
        found.ended(ONE_PERCENT, outcome, None, 60)
    assert found.looks(ONE_PERCENT, 60)[0].counted.ended == 0


def test_late_first_tokens_burn_by_their_own_measure() -> None:
    slo = Slo(first_token_p95_s=1.0)
    found = Served()
    for number in range(100):
        found.ended(slo, "ok", 2.0 if number % 20 == 0 else 0.5, 60)
    assert found.looks(slo, 60)[0].rates[5] == pytest.approx(1)
    for _ in range(200):
        found.ended(slo, "ok", 2.0, 120)
    assert found.looks(slo, 120)[0].alert == "fast"


@given(st.floats(0.0001, 0.5))
def test_however_much_is_allowed_everything_failing_burns_and_nothing_over_it_does_not(
    share_max: float,
) -> None:
    for alert in ALERTS:
        assert share_max < share_at(alert, share_max) < 1
    bad, well = Counts(), Counts()
    for _ in range(20):
        bad.add(60, bad=True)
        well.add(60, bad=False)
    assert burning(bad, "errors", share_max, 60).alert == "fast"
    assert burning(well, "errors", share_max, 60).alert is None


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 2000), st.booleans()), max_size=60), st.integers(1, 360))
def test_counts_are_those_of_the_window_and_no_others(added: list[tuple[float, bool]], window: int) -> None:
    counts, events = Counts(), sorted(added)
    for minute, bad in events:
        counts.add(minute * 60, bad=bad)
    last = int(events[-1][0]) if events else 0
    inside = [bad for minute, bad in events if int(minute * 60 / 60) > last - window]
    found = counts.over(window, last * 60)
    assert (found.ended, found.bad) == (len(inside), sum(inside))
    assert counts.over(360, (last + 361) * 60).ended == 0


def test_those_that_burn_go_last_in_their_order_and_not_where_all_do() -> None:
    decision = Decision((2, 0, 1), {})
    models = ["a", "b", "c"]
    assert demoted(decision, models, {"c": "why", "b": "why"}).order == (0, 2, 1)
    assert demoted(decision, models, {}) is decision
    assert demoted(decision, models, dict.fromkeys(models, "why")) is decision


def test_a_declaration_anew_keeps_the_figures_and_no_demotion_is_made_where_it_says_so() -> None:
    before = Objectives(ONE_PERCENT)
    for _ in range(50):
        before.settled("a/m", "unavailable", first_s=None, own_first_s=None, now_s=60)
    assert "errors" in before.judged(["a/m"], 60, AT)["a/m"]
    after = Objectives(Slo(error_share_max=0.01, demotes=False), before)
    assert after.judged(["a/m"], 62, AT) == {}
    assert [act.what for act in after.acts] == ["demoted", "restored"]


async def test_a_route_asks_a_burning_model_last_says_so_and_comes_back_to_it() -> None:
    slo = {"slo": Slo(error_share_max=0.01), "retries": Retries(again_max=0)}
    async with scene({"a": [BUSY, OK] * 10, "b": [OK]}, slo) as it:
        for _ in range(20):  # Every other one fails: the breaker opens late, or not at all.
            await it.ask()
            it.clock.s += 3
        asked_before = it.asked["a"]
        await it.ask()
        record = it.records[-1]
        assert record.provider == "b"
        assert record.reason is not None
        assert "asked last" in record.reason
        assert "errors at" in record.reason
        assert it.asked["a"] == asked_before
        told = await it.gateway.explain(
            ANN, "smart", Envelope(openai_request("smart")), wire=WIRES["openai_chat"]
        )
        assert [one.model for one in told.verdicts] == ["b/m", "a/m"]
        assert told.verdicts[1].why.startswith("asked last: errors")
        it.clock.s += 31 * 60  # Both short windows are over: it gets another chance.
        it.vendors["a"].play(OK)
        await it.ask()
        assert it.records[-1].provider == "a"
        objectives = (await it.house.models.objectives("acme"))["smart"]
        assert [(act.model, act.what) for act in objectives.acts] == [("a/m", "demoted"), ("a/m", "restored")]
        assert objectives.route.looks(objectives.slo, it.clock.s)[0].counted.bad == 0


async def test_a_route_counts_what_its_clients_get_and_its_models_every_attempt() -> None:
    slo = {"slo": Slo(error_share_max=0.1, first_token_p95_s=1.0), "retries": Retries(again_max=0)}
    async with scene({"a": [BUSY], "b": [stream(*OPENAI_STREAM), BUSY]}, slo) as it:
        await it.ask(stream=True)
        with pytest.raises(FreeholdError):
            await it.ask(stream=True)
        objectives = (await it.house.models.objectives("acme"))["smart"]
        counted = {
            name: [
                (one.objective, one.counted.ended, one.counted.bad)
                for one in served.looks(objectives.slo, it.clock.s)
            ]
            for name, served in {"route": objectives.route, **objectives.models}.items()
        }
        assert counted["route"] == [("first_token", 1, 0), ("errors", 2, 1)]
        assert counted["a/m"] == [("first_token", 0, 0), ("errors", 2, 2)]
        assert counted["b/m"] == [("first_token", 1, 0), ("errors", 2, 1)]
