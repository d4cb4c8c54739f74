"""What stands above a timeline (who is waited for, who works for it, what cost how much), and ending many sessions at once."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from rich.console import Console

from freehold.cli._output import Output, seconds
from freehold.cli._session_view import SessionView
from freehold.cli._timeline import turns_of
from freehold.cli._timeline_view import TimelineView
from freehold.core.messages import Text, ToolCall, Usage
from freehold.core.session import (
    ApprovalDecided,
    AwaitsApproval,
    AwaitsTimer,
    CallAwaited,
    ModelAnswered,
    SessionStarted,
    SessionWaits,
    ToolFinished,
    ToolStarted,
    TurnStarted,
    UserSpoke,
)
from freehold.core.session_log import SessionRow
from freehold.server.apis._events import money
from tests._waiting import until
from tests.cli._freehold import Freehold
from tests.cli.test_sessions import _events

NOW = datetime(2026, 11, 21, 9, 2, tzinfo=UTC)
BEGUN = NOW - timedelta(minutes=2)
ASKED = AwaitsApproval(
    tool="stock",
    version=1,
    function="put",
    arguments='{"items":{"SKU-1":5}}',
    binding="b",
    approvers=("key_ann", "key_bob"),
    quorum=2,
)
AWAITED = CallAwaited(call_id="c1", awaits=ASKED, until=NOW + timedelta(hours=1))
CALL = ToolCall("c1", "stock_put", '{"items":{"SKU-1":5}}')


def answered(model: str, cost: int, *content: Any) -> ModelAnswered:
    return ModelAnswered(
        seen_seq=3, model=model, served_by=model, content=content, stop_reason="tool_use",
        usage=Usage(input_tokens=1200, output_tokens=30), cost_pico=cost, duration_ms=1000,
    )  # fmt: skip


WAITING = _events(
    (0, SessionStarted(agent="shop", agent_version=3)),
    (0, UserSpoke(content=(Text("Set it."),))),
    (0, TurnStarted(turn=1)),
    (1, answered("p/large", 40_000_000_000, ToolCall("c0", "look", "{}"))),
    (1, ToolStarted(call_id="c0", tool="look", function="look", arguments="{}", effect="pure", key="k0")),
    (2, ToolFinished(call_id="c0", content=(Text("seen"),), duration_ms=1000, cost_pico=1_000_000_000)),
    (3, answered("p/small", 2_000_000_000, CALL)),
    (3, AWAITED),
    (3, SessionWaits(why="calls", calls=(AWAITED,))),
    (9, ApprovalDecided(call_id="c1", binding="b", allow=True, by="key_ann")),
    (9, SessionWaits(why="calls", calls=(AWAITED,))),
)


def row(session_id: str, **more: Any) -> SessionRow:
    given = {
        "id": session_id, "tenant": "t", "agent": "shop", "agent_version": 3, "status": "idle", "version": 11,
        "created_at": BEGUN, "updated_at": NOW,
    }  # fmt: skip
    return SessionRow(**(given | more))


def as_json(one: SessionRow) -> dict[str, Any]:
    """As the API has it, as far as it is shown."""
    origin = one.origin_id and {"session_id": one.origin_id, "seq": one.origin_seq}
    return msgspec.to_builtins({
        "id": one.id,
        "title": one.title or None,
        "agent": {"name": one.agent, "version": one.agent_version},
        "created_at": one.created_at,
        "archived_at": None,
        "deployment_id": None,
        "stats": {"duration_seconds": 120.0},
        "freehold": {
            "status": one.status,
            "version": one.version,
            "cost": money(one.cost_pico),
            "model": one.model,
            "waits": one.waits,
            "parent_id": one.parent_id,
            "origin": origin,
        },
    })


ID = "sess_" + "1" * 26
FAMILY = {
    "subagents": [
        as_json(row("sess_" + "2" * 26, agent="reader", parent_id=ID, title="What do the papers say of every single article?", cost_pico=3_000_000_000)),
        as_json(row("sess_" + "3" * 26, agent="clerk", parent_id="sess_" + "2" * 26, status="running")),
    ],
    "forks": [as_json(row("sess_" + "4" * 26, origin_id=ID, origin_seq=4, model="p/other"))],
    "more": False,
}  # fmt: skip


def told(width: int, *, events: list[dict] = WAITING, family: Any = FAMILY, **more: Any) -> list[str]:
    output = Output(as_json=False)
    output.out = Console(
        width=width, highlight=False, force_terminal=True, color_system=None, file=io.StringIO(), record=True
    )
    shown = as_json(
        row(ID, **({"status": "waiting", "waits": SessionWaits(why="calls", calls=(AWAITED,))} | more))
    )
    view = SessionView(output, shown, events, family)
    view.head()
    TimelineView(output).show(
        turns_of(events, now=NOW), subagents_pico=3_000_000_000, between=(view.waits, view.family)
    )
    return output.out.export_text().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_a_waiting_session_says_for_whom_and_what_and_since_when(width: int) -> None:
    lines = told(width)
    whole = "\n".join(lines)
    assert "◷ waits for approval of stock/put for" in whole
    assert "until 2026-11-21 10:02 UTC" in whole
    assert '{"items":{"SKU-1":5}}' in whole
    assert "asked: key_ann, key_bob · 1 of 2 allowed it by key_ann" in whole
    assert f"  freehold sessions approve {ID} c1" in lines
    assert [line for line in lines if len(line) > width and "freehold sessions" not in line] == []


def test_costs_are_told_by_what_caused_them_the_dearest_first() -> None:
    lines = told(120)
    place = next(number for number, line in enumerate(lines) if "p/large" in line)
    assert [line.split()[:2] for line in lines[place : place + 5]] == [
        ["$0.04", "p/large"],
        ["$0.003", "subagents"],
        ["$0.002", "p/small"],
        ["$0.001", "tools"],
        ["$0.046", "together"],
    ]


def test_subagents_stand_below_whom_they_work_for_and_forks_at_their_place() -> None:
    lines = told(80)
    [reader] = [line for line in lines if "2" * 26 in line]
    [clerk] = [line for line in lines if "3" * 26 in line]
    [fork] = [line for line in lines if "4" * 26 in line]
    assert (reader.index("sess_"), clerk.index("sess_")) == (2, 4)
    assert "$0.003  What" in reader
    assert reader.endswith("…")
    assert "behind event 4" in fork


def test_what_has_not_ended_lasts_until_now() -> None:
    [turn] = [one for one in turns_of(WAITING, now=NOW) if one.number]
    assert turn.end_ms == 120_000
    waits = [entry for entry in turn.entries if entry.kind == "wait"]
    assert [(entry.open, entry.end_ms) for entry in waits] == [(False, 9_000), (True, 120_000)]


def test_a_call_that_waited_lasted_all_the_while_and_is_shown_as_it_ran() -> None:
    timed = CallAwaited(call_id="c1", awaits=AwaitsTimer(), until=NOW)
    events = _events(
        (0, SessionStarted(agent="shop", agent_version=3)),
        (0, TurnStarted(turn=1)),
        (1, answered("p/m", 1, CALL)),
        (1, timed),
        (1, SessionWaits(why="calls", calls=(timed,))),
        (8, ToolStarted(call_id="c1", tool="stock", function="put", arguments='{"items":{"SKU-1":4}}', effect="pure", key="k")),
        (9, ToolFinished(call_id="c1", content=(Text("ok"),), duration_ms=1000)),
    )  # fmt: skip
    [tool] = [entry for turn in turns_of(events) for entry in turn.entries if entry.kind == "tool"]
    assert tool.detail == {"items": {"SKU-1": 4}}
    assert (tool.begin_ms, tool.end_ms) == (8_000, 9_000)


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [(12, "12 ms"), (65_900, "65.9 s"), (402_000, "6.7 min"), (9_000_000, "2.5 h"), (400_000_000, "4.6 d")],
)
def test_durations_are_of_peoples_size(milliseconds: float, said: str) -> None:
    assert seconds(milliseconds) == said


@pytest.mark.slow
def test_many_sessions_are_ended_at_once_after_a_question(served: Freehold) -> None:
    for _ in range(3):
        served.ok("chat", "clerk", "How many SKU-1 are there?")
    chosen = served.ok("sessions", "list", "--json").json[:3]
    for one in chosen[:2]:
        served.ok("sessions", "pause", one["id"])
    asked = served("sessions", "kill", "--agent", "clerk", "--older-than", "0s", input="n\n")
    assert asked.code != 0
    assert "End 2 sessions for good?" in asked.out
    assert served("sessions", "kill", "--agent", "clerk", "--older-than", "1h", "--yes").code == 0
    assert served("sessions", "kill", "--agent", "clerk", "--json").code == 2
    assert served("sessions", "kill").code == 2
    assert served("sessions", "kill", "--older-than", "soon").code == 2
    done = served.ok("sessions", "kill", "--agent", "clerk", "--older-than", "0s", "--yes", "--json").json
    assert sorted(done["ended"]) == sorted(one["id"] for one in chosen[:2])

    def ended() -> bool:
        listed = served.ok("sessions", "list", "--json").json
        statuses = {one["id"]: one["freehold"]["status"] for one in listed}
        return [statuses[one["id"]] for one in chosen] == ["cancelled", "cancelled", "idle"]

    until(ended)  # What ends a session is written into its log; a worker then does it.


APPROVED = """
kind: tool
name: shelf
type: kv
config: {table: stock, writable: true}
approval: {functions: [put]}
---
kind: rules
name: filler
rules:
  - name: fill
    when: fill
    steps: [{tool: shelf_put, arguments: {items: {SKU-9: {units: 5}}}}]
    answer: done
---
kind: agent
name: filler
rules: filler
tools: [shelf]
"""


def _asked(served: Freehold) -> tuple[str, str]:
    told = served("chat", "filler", "fill it").out
    assert "◷ waits for approval of shelf/put" in told
    session = served.ok("sessions", "list", "--agent", "filler", "--limit", "1", "--json").json[0]["id"]
    [call] = [
        one for one in served.ok("sessions", "approvals", "--json").json if one["session_id"] == session
    ]
    return session, call["call_id"]


@pytest.mark.slow
def test_people_decide_on_the_command_line_on_just_what_they_are_shown(served: Freehold) -> None:
    served.ok("apply", "-", "--yes", input=APPROVED)
    session, call = _asked(served)
    assert served("sessions", "approve", session, "call_of_nobody").code == 1
    stale = served("sessions", "approve", session, call, "--binding", "0" * 64)
    assert (stale.code, "not what you saw" in stale.err) == (1, True)
    done = served.ok("sessions", "approve", session, call, "--edit", '{"items": {"SKU-9": {"units": 4}}}').out
    assert '"units":4' in done
    assert f"allowed {call}" in done
    [started] = _until(served, session, "freehold.tool_started")
    assert started["input"]["items"]["SKU-9"] == {"units": 4}
    session, call = _asked(served)
    assert f"denied {call}" in served.ok("sessions", "deny", session, call, "--reason", "not today").out
    [result] = _until(served, session, "agent.tool_result")
    assert "not today" in result["content"][0]["text"]


def _until(served: Freehold, session: str, kind: str) -> list[dict[str, Any]]:
    def found() -> list[dict[str, Any]]:
        events = served.ok("sessions", "show", session, "--json").json["events"]
        return [one for one in events if one["type"] == kind]

    return until(found, f"a {kind} in {session}")


@pytest.mark.slow
def test_show_in_json_has_all_of_it(served: Freehold) -> None:
    served.ok("chat", "clerk", "How many SKU-1 are there?")
    session = served.ok("sessions", "list", "--limit", "1", "--json").json[0]["id"]
    fork = served.ok("sessions", "fork", session, "--json").json["id"]
    found = served.ok("sessions", "show", session, "--json").json
    assert {*found} == {"session", "events", "subagents", "forks", "more"}
    assert [one["id"] for one in found["forks"]] == [fork]
