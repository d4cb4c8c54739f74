"""Looking at sessions, forking, replaying and comparing them: the commands, against a running server and without one."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from freehold.cli._output import Output
from freehold.cli._timeline import spent, turns_of
from freehold.cli._timeline_view import TimelineView
from freehold.core.messages import Text, ToolCall, Usage
from freehold.core.session import (
    ApprovalDecided,
    AwaitsApproval,
    CallAwaited,
    ModelAnswered,
    ModelFailed,
    Recorded,
    SessionEvent,
    SessionStarted,
    SessionWaits,
    ToolFinished,
    ToolStarted,
    TurnFinished,
    TurnStarted,
    UserSpoke,
)
from freehold.server.apis._events import shown
from tests.cli._freehold import Freehold

pytestmark = pytest.mark.slow

QUESTION = "How many SKU-1 are there?"


@pytest.fixture(scope="module")
def session(served: Freehold) -> str:
    served.ok("chat", "clerk", QUESTION)
    return str(served.ok("sessions", "list", "--limit", "1", "--json").json[0]["id"])


def test_a_session_is_shown_as_a_timeline(served: Freehold, session: str) -> None:
    told = served.ok("sessions", "show", session).out
    assert "1 turn · 2 steps by rules · 1 tool run" in told
    assert f"› {QUESTION}" in told
    assert '● stock_get {"keys":["SKU-1"]}' in told
    assert "SKU-1: 7 units." in told
    assert "Turn 1" in told
    assert "clerk version 1 · idle" in told


def test_a_fork_says_what_it_shares_and_shows_it(served: Freehold, session: str) -> None:
    made = served.ok("sessions", "fork", session, "--edit", "What of SKU-1?", "--json").json
    assert made["freehold"]["origin"] == {"session_id": session, "seq": 1}
    served.ok("chat", "clerk", "--session", made["id"], "SKU-1 again?")
    told = served.ok("sessions", "show", made["id"]).out
    assert "› What of SKU-1?" in told
    assert QUESTION not in told
    assert f"forked from {session} behind its event 1" in told
    assert "shares 3 events" in served.ok("sessions", "fork", session, "--at", "3.0").out


def test_wrong_places_and_options_are_told(served: Freehold, session: str) -> None:
    done = served("sessions", "fork", session, "--at", "x")
    assert done.code == 1
    assert "expected an event of" in done.err
    assert served("sessions", "fork", session, "--edit", "a", "--edit-result", "b").code == 2
    assert served("sessions", "replay").code == 2
    assert served("sessions", "replay", session, "--continue").code == 2


def test_a_session_is_replayed_by_the_server_and_from_a_file_alone(
    served: Freehold, session: str, tmp_path: Path
) -> None:
    told = served.ok("sessions", "replay", session).out
    assert told.startswith("the same")
    assert "2 requests came out as recorded" in told
    path = tmp_path / "session.jsonl"
    path.write_text(served.ok("sessions", "export", session).out)
    alone = Freehold(tmp_path / "nothing here")
    assert alone.ok("sessions", "replay", "--file", str(path), "--json").json["same"] is True
    path.write_text(
        path.read_text().replace('"units\\":7', '"units\\":8').replace('\\"units\\": 7', '\\"units\\": 8')
    )
    done = alone("sessions", "replay", "--file", str(path))
    assert done.code == 1, done
    assert "not the same" in done.out
    assert "another digest" in done.out
    path.write_text("{}\n")
    assert "line 1 is not a recording's" in alone("sessions", "replay", "--file", str(path)).err


def test_another_model_is_asked_in_its_place(served: Freehold, session: str) -> None:
    before = served.ok("sessions", "show", session, "--json").json["events"]
    done = served.ok("sessions", "replay", session, "--model", "auto", "--json")
    assert (done.json["end"]["why"], done.json["end"]["same"]) == ("completed", 2)
    assert done.json["steps"][0]["asked"]["calls"] == [["stock_get", '{"keys":["SKU-1"]}']]
    assert (
        "2 of 2 steps made the same calls" in served.ok("sessions", "replay", session, "--model", "auto").out
    )
    assert served.ok("sessions", "show", session, "--json").json["events"] == before


def test_two_sessions_are_compared(served: Freehold, session: str) -> None:
    fork = served.ok("sessions", "fork", session, "--edit", "Hello there", "--json").json["id"]
    with_answer = "sessions", "diff", session, fork
    told = served.ok(*with_answer).out
    assert "they part at event 2" in told
    assert "stock_get" in told
    found = served.ok(*with_answer, "--json").json
    assert found["parted_seq"] == 2
    assert "the same" in served.ok("sessions", "diff", session, session).out


def _events(*events: tuple[float, SessionEvent]) -> list[dict]:
    begun = datetime(2026, 11, 21, 9, tzinfo=UTC)
    recorded = [Recorded(seq, begun + timedelta(seconds=at), one) for seq, (at, one) in enumerate(events, 1)]
    return [one.body for fact in recorded for one in shown("sess_01j", fact, ours=True)]


ASKED = AwaitsApproval(tool="stock", version=1, function="put", arguments="{}", binding="b")
AWAITED = CallAwaited(call_id="c1", awaits=ASKED)
LIFE = _events(
    (0, SessionStarted(agent="retail", agent_version=1)),
    (0, UserSpoke(content=(Text("Set the level of every article in the Shanghai distribution center, please. " * 3),))),
    (0, TurnStarted(turn=1)),
    (2, ModelAnswered(
        seen_seq=3, model="p/m", served_by="p/m", content=(ToolCall("c1", "stock_put", '{"items":{"SKU-1":5}}'),),
        stop_reason="tool_use", usage=Usage(input_tokens=1200, output_tokens=30), cost_pico=4_000_000_000, duration_ms=2000,
        ask_calls=("c1",))),
    (2, AWAITED),
    (2, SessionWaits(why="calls", calls=(AWAITED,))),
    (7, ApprovalDecided(call_id="c1", binding="b", allow=True, by="key_ann")),
    (7, ToolStarted(call_id="c1", tool="stock", function="put", arguments="{}", effect="idempotent", key="k")),
    (8, ToolFinished(call_id="c1", content=(Text("the table is gone"),), failed=True, duration_ms=1000)),
    (10, ModelFailed(seen_seq=9, model="p/m", code="unavailable", message="away", attempts=4, duration_ms=2000)),
    (10, TurnFinished(outcome="failed", message="away", code="unavailable")),
)  # fmt: skip


def test_where_the_time_went_adds_up() -> None:
    found = spent(turns_of(LIFE))
    assert (found.model_ms, found.tools_ms, found.waiting_ms, found.other_ms) == (4000, 1000, 5000, 0)
    assert (found.turns_ms, found.cost_pico, found.failures) == (10_000, 4_000_000_000, 2)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("colours", [None, "truecolor"])
def test_a_timeline_fits_its_terminal_and_says_all_without_colours(width: int, colours: str | None) -> None:
    lines = _lines(LIFE, width, colours)
    whole = "\n".join(lines)
    assert max(len(line) for line in lines) <= width
    for said in (
        "◷ waits for",
        "· allowed by key_ann",
        "✗ stock_put",
        "→ the table is gone",
        "failed",
        "› Set the",
    ):
        assert said in whole
    if colours is None:
        assert "\x1b[3" not in whole


def _lines(events: Sequence[dict], width: int, colours: str | None) -> list[str]:
    output = Output(as_json=False)
    output.out = Console(
        width=width,
        highlight=False,
        force_terminal=True,
        color_system=colours,
        file=io.StringIO(),
        record=True,
    )
    TimelineView(output).show(turns_of(events))
    return output.out.export_text().splitlines()


def test_a_session_without_turns_is_shown_too() -> None:
    assert _lines(_events((0, SessionStarted(agent="a", agent_version=1))), 80, None) == [
        "0 turns · 0 model calls · 0 tool runs · $0"
    ]
