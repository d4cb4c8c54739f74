"""Calls through a route: who is asked after whom, what each failure leads to, and what is left on record."""

import asyncio

import pytest

from freehold.core.errors import (
    BadRequest,
    BrokenOff,
    ContentRefused,
    Forbidden,
    NotFound,
    Overloaded,
    TimedOut,
    Unavailable,
    Unsupported,
)
from freehold.core.policy import Policy, Principal, Statement
from freehold.core.routes import CallTimeouts, Constraints, Drain, Hedge, Queue, Retries, Route
from freehold.core.serving import Slo
from freehold.gateway import health
from freehold.gateway.routing_share import Share
from freehold.providers._http import Timeouts
from tests._waiting import eventually, within
from tests.gateway._routes import Scene, scene
from tests.gateway._vendors import (
    ANTHROPIC_STREAM,
    ANTHROPIC_TEXT,
    CUT,
    HOLD,
    OPENAI_STREAM,
    OPENAI_TEXT,
    Step,
    reply,
    sse,
    stream,
)

OK = reply(OPENAI_TEXT)
OK_STREAM = stream(*OPENAI_STREAM)
HTML = b"<html>Bad Gateway</html>"
BUSY = reply(b'{"error":{"message":"busy"}}', status=503)
NO_AGAIN = {"retries": Retries(again_max=0)}

FAILURES: list[tuple[str, list[Step]]] = [
    ("rate_limited", reply(b'{"error":{"message":"slow down"}}', status=429)),
    ("overloaded", BUSY),
    ("unavailable", reply(HTML, status=500, kind="text/html")),
    ("timed_out", reply(HTML, status=504, kind="text/html")),
    ("unavailable", reply(b"", status=302, headers="location: /x\r\n")),
    ("unavailable", reply(b"garbage")),
    ("unavailable", reply(HTML, kind="text/html")),
    ("rate_limited", reply(b'{"error":{"message":"no capacity","code":429}}')),
    ("unavailable", [CUT]),
    ("unavailable", [b"nonsense\r\n\r\n", CUT]),
    ("broken_off", [b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n" + OPENAI_TEXT[:100], CUT]),
    ("forbidden", reply(b'{"error":{"message":"no"}}', status=401)),
    ("not_found", reply(b'{"error":{"message":"gone"}}', status=404)),
]


@pytest.mark.parametrize("wire", ["openai_chat", "anthropic_messages"])
@pytest.mark.parametrize(("code", "script"), FAILURES)
async def test_what_one_vendor_fails_at_the_next_does(code: str, script: list[Step], wire: str) -> None:
    async with scene({"a": [script], "b": [OK]}, NO_AGAIN) as it:
        assert b"Hello there" in await it.ask(wire=wire)
        record = it.records[-1]
    assert it.asked == {"a": 1, "b": 1}
    assert (record.provider, record.outcome, record.route, record.attempts) == ("b", "ok", "smart", 2)
    assert record.reason == f"after a/m {code}: in order"
    lost = [("a", code)] if code in {"timed_out", "broken_off"} else []
    assert it.outcomes == [*lost, ("b", "ok")]
    assert all(one.usage.estimated for one in it.records[:-1])


STREAMED_FAILURES: list[list[Step]] = [
    stream(sse({"error": {"message": "overloaded", "code": 503}})),
    stream(CUT),
    stream(b"<html>"),
    [b"HTTP/1.1 100 Continue\r\n\r\n" * 40, CUT],
    [b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 9\r\n\r\n\x8b\x03\x80Hello\x03"],
]


@pytest.mark.parametrize("script", STREAMED_FAILURES)
@pytest.mark.parametrize("wire", ["openai_chat", "anthropic_messages"])
async def test_a_stream_that_does_not_begin_is_the_next_ones(script: list[Step], wire: str) -> None:
    async with scene({"a": [script], "b": [OK_STREAM]}, NO_AGAIN) as it:
        assert b"Hello" in await it.ask(wire=wire, stream=True)
    assert it.records[-1].provider == "b"


async def test_after_the_first_event_nobody_else_is_asked() -> None:
    async with scene({"a": [stream(OPENAI_STREAM[0], CUT)], "b": [OK_STREAM]}) as it:
        with pytest.raises(BrokenOff):
            await it.ask(stream=True)
        assert it.asked == {"a": 1, "b": 0}
        assert it.outcomes == [("a", "broken_off")]


async def test_bytes_pass_to_the_first_and_are_translated_for_the_next_of_another_wire() -> None:
    """And the other way round: the first is translated for, the next gets the very bytes."""
    claude = {"a": "anthropic", "b": "openai"}
    busy = reply(b'{"type":"error","error":{"type":"overloaded_error","message":"busy"}}', status=529)
    async with scene({"a": [busy], "b": [OK]}, NO_AGAIN, types=claude) as it:
        assert await it.ask() == OPENAI_TEXT
        assert it.vendors["a"].asked[0].json["max_tokens"] > 0
    turned = {"a": "openai", "b": "anthropic"}
    async with scene({"a": [BUSY], "b": [reply(ANTHROPIC_TEXT)]}, NO_AGAIN, types=turned) as it:
        assert b"Hello there" in await it.ask()
    async with scene({"a": [BUSY], "b": [stream(*ANTHROPIC_STREAM)]}, NO_AGAIN, types=turned) as it:
        assert b"".join(ANTHROPIC_STREAM) == await it.ask(wire="anthropic_messages", stream=True)


async def test_a_bad_request_is_nobodys_fault_but_its_clients() -> None:
    async with scene({"a": [reply(b'{"error":{"message":"no"}}', status=400)], "b": [OK]}) as it:
        with pytest.raises(BadRequest):
            await it.ask()
        assert it.asked == {"a": 1, "b": 0}
        for _ in range(10):
            with pytest.raises(BadRequest):
                await it.ask()
        assert (await it.health("a/m")).breaker.state(it.clock.s) == "closed"


REFUSED = reply(
    b'{"error":{"message":"no","code":"content_filter","type":"invalid_request_error"}}', status=400
)


async def test_refused_content_falls_back_only_where_the_route_says_so() -> None:
    async with scene({"a": [REFUSED], "b": [OK]}) as it:
        with pytest.raises(ContentRefused):
            await it.ask()
        assert it.asked == {"a": 1, "b": 0}
    async with scene({"a": [REFUSED], "b": [OK]}, {"refused_content_falls_back": True}) as it:
        await it.ask()
        assert it.records[-1].reason == "after a/m content_refused: in order"


async def test_when_all_fail_they_are_asked_again_after_a_growing_pause() -> None:
    async with scene({"a": [BUSY, BUSY, OK], "b": [BUSY]}, {"retries": Retries(again_max=3)}) as it:
        await it.ask()
        assert it.asked == {"a": 3, "b": 2}
        assert it.records[-1].attempts == 5
        first, second = it.pauses.asked_s
        assert 0 < first < second


async def test_retries_are_held_to_their_share_of_calls() -> None:
    async with scene({"a": [BUSY, OK]}, {"retries": Retries(share_max=0.0)}) as it:
        with pytest.raises(Overloaded):
            await it.ask()
        assert it.asked["a"] == 1
    share = Share(0.1)
    taken = []
    for _ in range(1000):
        share.called()
        taken.append(share.take())
    assert all(taken[:10])
    assert 100 <= sum(taken) <= 110


async def test_a_retry_after_is_waited_for_within_reason() -> None:
    later = reply(b"{}", status=429, headers="retry-after: 3\r\n")
    async with scene({"a": [later, OK]}) as it:
        await it.ask()
        assert it.pauses.asked_s == [3.0]
    much_later = reply(b"{}", status=429, headers="retry-after: 60\r\n")
    async with scene({"a": [much_later, OK], "b": [BUSY, OK]}, NO_AGAIN) as it:
        with pytest.raises(Overloaded):
            await it.ask()
        await it.ask()
        assert it.records[-1].provider == "b", "a asked to be left alone for a minute"
        it.clock.s += 61
        await it.ask()
        assert it.records[-1].provider == "a"


async def test_a_model_that_keeps_failing_is_left_alone_and_probed() -> None:
    async with scene({"a": [*[BUSY] * 6, OK], "b": [OK]}, NO_AGAIN) as it:
        for _ in range(8):
            await it.ask()
        assert it.asked == {"a": 5, "b": 8}
        it.clock.s += 5.1
        await it.ask()  # The probe fails.
        await it.ask()
        assert it.asked["a"] == 6
        it.clock.s += 10.1
        await it.ask()  # The next one does not.
        assert it.records[-1].provider == "a"
        assert (await it.health("a/m")).breaker.state(it.clock.s) == "closed"


async def test_where_all_are_left_alone_the_client_is_told_when_to_come_back() -> None:
    async with scene({"a": [BUSY]}, NO_AGAIN) as it:
        for _ in range(5):
            with pytest.raises(Overloaded):
                await it.ask()
        with pytest.raises(Overloaded, match="a/m: failed too often") as error:
            await it.ask()
        assert error.value.retry_after_s == 5.0
        assert it.asked["a"] == 5
        assert (it.records[-1].route, it.records[-1].provider, it.records[-1].attempts) == ("smart", "", 0)


async def test_our_key_that_is_refused_opens_the_breaker(caplog: pytest.LogCaptureFixture) -> None:
    refused = reply(b'{"error":{"message":"bad key"}}', status=401)
    async with scene({"a": [refused], "b": [OK]}, NO_AGAIN) as it:
        for _ in range(7):
            await it.ask()
        assert it.asked == {"a": 5, "b": 7}
    assert sum(one.message == "route.key_refused" for one in caplog.records) == 5


async def test_streams_that_break_off_in_the_middle_open_the_breaker_too() -> None:
    async with scene({"a": [stream(OPENAI_STREAM[0], CUT)], "b": [OK_STREAM]}) as it:
        for _ in range(5):
            with pytest.raises(BrokenOff):
                await it.ask(stream=True)
        await it.ask(stream=True)
        assert it.records[-1].provider == "b"


async def test_a_stream_that_does_not_begin_in_time_is_given_up() -> None:
    soon = {"timeouts": CallTimeouts(first_event_s=0.5)}
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    async with scene({"a": [OK_STREAM, [head, HOLD]], "b": [OK_STREAM]}, NO_AGAIN, members={"a": soon}) as it:
        await it.ask(stream=True, model="a/m")  # Connects, which the limit might cut short.
        await it.ask(stream=True)
        async with within("the vendor to be hung up on"):
            await it.vendors["a"].hung_up.wait()
        assert it.outcomes == [("a", "ok"), ("a", "timed_out"), ("b", "ok")]


async def test_a_routes_timeouts_hold_for_its_calls_alone() -> None:
    script = stream(*OPENAI_STREAM[:2], HOLD)
    short = {"timeouts": CallTimeouts(idle_s=0.05)}
    async with scene({"a": [script]}, short) as it:
        with pytest.raises(TimedOut):
            await it.ask(stream=True)
        assert it.outcomes == [("a", "timed_out")]


async def test_a_hedged_call_takes_the_quicker_answer_and_hangs_up_on_the_other() -> None:
    hedged = {"hedge": Hedge(after_s=0.2)}
    async with scene({"a": [[HOLD]], "b": [OK]}, hedged) as it:
        it.pauses.held = asyncio.Event()
        task = asyncio.create_task(it.ask())
        await eventually(lambda: it.vendors["a"].asked)
        it.pauses.held.set()
        await task
        async with within("the vendor to be hung up on"):
            await it.vendors["a"].hung_up.wait()
        assert it.pauses.asked_s == [0.2]
        assert it.outcomes == [("a", "superseded"), ("b", "ok")]
        assert it.records[0].usage.estimated
        assert it.records[0].usage.input_tokens > 0
        assert it.records[1].reason == "quicker than a/m: in order"
        assert [(await it.health(one)).places.taken_count for one in ("a/m", "b/m")] == [0, 0]


async def test_being_overtaken_is_nobodys_error() -> None:
    """Neither the slower model's, nor the call's, which counts as one attempt."""
    hedged = {"hedge": Hedge(after_s=0.2, share_max=1.0), "slo": Slo(error_share_max=0.01)}
    async with scene({"a": [[HOLD]], "b": [OK]}, hedged) as it:
        for _ in range(health.FAILURES_MAX + 1):
            await it.ask()
        assert {one.attempts for one in it.records if one.outcome == "ok"} == {1}
        assert [one.outcome for one in it.records].count("superseded") == health.FAILURES_MAX + 1
        assert (await it.health("a/m")).breaker.closed
        objectives = (await it.house.models.objectives("acme"))["smart"]
        counted = [
            served.looks(objectives.slo, it.clock.s)[0].counted
            for served in (objectives.route, objectives.of("a/m"))
        ]
        assert [(one.ended, one.bad) for one in counted] == [(health.FAILURES_MAX + 1, 0), (0, 0)]


async def test_a_hedged_call_that_begins_in_time_asks_nobody_else() -> None:
    async with scene({"a": [OK], "b": [OK]}, {"hedge": Hedge(after_s=0.2)}) as it:
        it.pauses.held = asyncio.Event()
        await it.ask()
        assert it.asked == {"a": 1, "b": 0}


async def test_a_client_that_leaves_a_hedged_call_hangs_up_on_both() -> None:
    async with scene({"a": [[HOLD]], "b": [[HOLD]]}, {"hedge": Hedge(after_s=0.2)}) as it:
        task = asyncio.create_task(it.ask())
        await eventually(lambda: it.asked == {"a": 1, "b": 1})
        task.cancel()
        async with within("both to be hung up on"):
            await it.vendors["a"].hung_up.wait()
            await it.vendors["b"].hung_up.wait()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(it.outcomes) == [("a", "client_gone"), ("b", "client_gone")]
        assert [(await it.health(one)).places.taken_count for one in ("a/m", "b/m")] == [0, 0]


async def test_both_of_a_hedged_call_may_fail() -> None:
    late = [HOLD]
    async with scene({"a": [late], "b": [BUSY]}, {"hedge": Hedge(after_s=0.2), **NO_AGAIN},
                     timeouts=Timeouts(first_byte_s=0.05)) as it:  # fmt: skip
        with pytest.raises((TimedOut, Overloaded)):
            await it.ask()
        assert ("a", "timed_out") in it.outcomes


async def test_hedges_are_held_to_their_share_of_calls() -> None:
    async with scene({"a": [OK], "b": [OK]}, {"hedge": Hedge(after_s=0.2, share_max=0.0)}) as it:
        for _ in range(5):
            await it.ask()
        assert it.asked == {"a": 5, "b": 0}


async def test_what_a_model_lacks_leaves_it_out() -> None:
    tools = {"a": {"regions": ("us",)}, "b": {"regions": ("eu",)}}
    only_eu = {"constraints": Constraints(regions=("eu",))}
    async with scene({"a": [OK], "b": [OK]}, only_eu, members=tools) as it:
        await it.ask()
        assert it.asked == {"a": 0, "b": 1}
        assert it.records[-1].region == "eu"
    async with scene({"a": [OK]}, only_eu, members=tools) as it:
        with pytest.raises(Unsupported, match=r"a/m: its region \(us\) is not among eu"):
            await it.ask()


async def test_a_drained_model_takes_no_new_calls_also_by_its_own_name() -> None:
    drain = Drain(name="a-drain", models="a/*", reason="new disks")
    async with scene({"a": [OK], "b": [OK]}, declared=[drain]) as it:
        await it.ask()
        assert it.asked == {"a": 0, "b": 1}
        with pytest.raises(Unavailable, match="a/m takes no new calls: drained: new disks"):
            await it.ask(model="a/m")
    async with scene({"a": [OK]}, declared=[drain]) as it:
        with pytest.raises(Unavailable, match="drained: new disks"):
            await it.ask()


def holding(statements: list[Statement]) -> Principal:
    return Principal("acme", "service", "key_bob", (Policy(statement=tuple(statements)),))


async def test_who_may_call_the_route_may_call_what_it_chooses_but_what_is_denied() -> None:
    route_only = holding([Statement("Allow", "model:Call", "model/route/smart")])
    but_a = holding([Statement("Allow", "model:Call", "*"), Statement("Deny", "model:Call", "model/a/*")])
    others = holding([Statement("Allow", "model:Call", "model/a/*")])
    async with scene({"a": [OK], "b": [OK]}) as it:
        await it.ask(principal=route_only)
        with pytest.raises(Forbidden):
            await it.ask(model="a/m", principal=route_only)
        await it.ask(principal=but_a)
        assert it.outcomes == [("a", "ok"), ("a", "forbidden"), ("b", "ok")]
        with pytest.raises(Forbidden, match="model/route/smart"):
            await it.ask(principal=others)


async def test_calls_beyond_a_models_limit_wait_and_are_told_to_come_back() -> None:
    async with scene({"a": [stream(OPENAI_STREAM[0], HOLD), OK]}, members={"a": {"concurrent_max": 1}}) as it:
        running = asyncio.create_task(it.ask(stream=True))
        await eventually(lambda: it.vendors["a"].asked)
        waiting = asyncio.create_task(it.ask())

        async def waits() -> int:
            return (await it.health("a/m")).places.waiting_count

        await eventually(waits)
        running.cancel()
        async with within("the next to be let in"):
            await waiting
        assert it.records[-1].outcome == "ok"


async def test_where_nobody_may_wait_a_client_is_told_at_once() -> None:
    nobody_waits = {"queue": Queue(waiting_max=0, wait_s=7.0)}
    one = {"a": {"concurrent_max": 1}}
    async with scene({"a": [stream(OPENAI_STREAM[0], HOLD), OK]}, nobody_waits, members=one) as it:
        running = asyncio.create_task(it.ask(stream=True))
        await eventually(lambda: it.vendors["a"].asked)
        with pytest.raises(Overloaded, match="concurrent_max = 1") as error:
            await it.ask()
        assert error.value.retry_after_s == 7.0
        assert it.pauses.asked_s == [], "it was we who had no place"
        running.cancel()


async def test_the_name_of_a_route_is_a_models_name_in_two_ways() -> None:
    async with scene({"a": [OK]}) as it:
        await it.ask(model="smart")
        await it.ask(model="route/smart")
        with pytest.raises(NotFound, match="no route is declared as 'clever'; declared: smart"):
            await it.ask(model="route/clever")
        it.house.declared.declare(Route(name="nowhere", models=("nobody/m",)))
        with pytest.raises(NotFound, match="nobody/m: no usable provider"):
            await it.ask(model="nowhere")


async def test_what_was_learnt_outlives_a_change_of_declarations() -> None:
    async with scene({"a": [BUSY]}, NO_AGAIN) as it:
        for _ in range(5):
            with pytest.raises(Overloaded):
                await it.ask()
        it.house.declared.declare(Route(name="other", models=("a/m",)))
        with pytest.raises(Overloaded, match="failed too often"):
            await it.ask()


async def figures(it: Scene) -> tuple[float | None, float | None]:
    health = await it.health("a/m")
    return health.first.at(0.5, it.clock.s), health.whole.at(0.5, it.clock.s)


async def test_calls_tell_how_quick_a_model_is_also_those_that_name_it() -> None:
    async with scene({"a": [OK_STREAM, OK, OK]}) as it:
        assert await figures(it) == (None, None)
        await it.ask(stream=True)
        first, whole = await figures(it)
        assert first is not None
        assert whole is None
        await it.ask(model="a/m")
        assert (await figures(it))[1] is not None
        assert (await it.health("a/m")).typical_output_tokens == 7
