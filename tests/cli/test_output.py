"""What people see: words that stay whole at a terminal's edge."""

import io
import re

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from freehold.cli._event_lines import say_event
from freehold.cli._output import WIDE, Flow, Output, counted, short

PIECES = st.lists(st.text("ab \n界", max_size=12), max_size=12)


def flowed(pieces: list[str], width: int) -> str:
    flow = Flow(width)
    return "".join([*(flow.feed(piece) for piece in pieces), flow.end()])


@given(PIECES, st.integers(4, 40))
def test_however_it_comes_in_pieces_the_lines_are_the_same(pieces: list[str], width: int) -> None:
    assert flowed(pieces, width) == flowed(["".join(pieces)], width)


@given(PIECES, st.integers(4, 40))
def test_every_word_is_there_in_order(pieces: list[str], width: int) -> None:
    assert flowed(pieces, width).split() == "".join(pieces).split()


@given(st.lists(st.text("ab", min_size=1, max_size=10)), st.integers(10, 40))
def test_no_line_is_wider_than_the_terminal(words: list[str], width: int) -> None:
    assert max(map(len, flowed([" ".join(words)], width).split("\n"))) <= width


def test_lists_keep_their_indentation() -> None:
    assert flowed(["- one\n", "  - two\n"], 80) == "- one\n  - two\n"


def test_short_gives_one_line() -> None:
    assert short("a\n b", width=10) == "a b"
    assert short("abcdef", width=4) == "abc…"


SESSION = "sess_01j8zq4fxm7rtrm2s0000000000"


def at_a_terminal(width: int) -> Output:
    output = Output(as_json=False)
    output.out = Console(file=io.StringIO(), force_terminal=True, no_color=True, highlight=False, width=width)
    return output


def printed(output: Output) -> list[str]:
    written = re.sub(r"\x1b\[[0-9;]*m", "", output.out.file.getvalue())
    return [line.rstrip() for line in written.splitlines()]


def test_a_narrow_table_cuts_what_may_be_cut_and_never_what_is_to_be_copied() -> None:
    rows = [(SESSION, "a-rather-long-name", "idle", "What is it about?")]
    columns = ("SESSION", "AGENT", "STATUS", "TITLE")
    for width, last in [
        (78, "What is it abou…"),
        (64, "a-rather-long-name  idle"),
        (56, "a-rather-long…  idle"),
    ]:
        output = at_a_terminal(width)
        output.table(columns, rows, empty="", cut=("TITLE", "AGENT"))
        head, row = printed(output)
        assert row.startswith(SESSION)
        assert row.endswith(last), width
        assert max(len(head), len(row)) <= width


def test_a_table_that_is_too_narrow_even_so_folds_all_but_what_is_whole() -> None:
    output = at_a_terminal(60)
    output.table(("ID", "OF", "ANSWER"), [("whd_1", SESSION, "its name could not be looked up")], empty="")
    assert SESSION not in "\n".join(printed(output)), "or this shows nothing"
    output = at_a_terminal(60)
    output.table(
        ("ID", "OF", "ANSWER"),
        [("whd_1", SESSION, "its name could not be looked up")],
        empty="",
        whole=("OF",),
    )
    assert SESSION in printed(output)[1]


def test_a_narrow_table_tells_beneath_each_row_what_does_not_fit_beside_it() -> None:
    columns = ("ID", "EVENT", "OF", "ANSWER")
    rows = [
        ("whd_1", "session.idled", SESSION, "200"),
        ("whd_22", "session.ended", SESSION, "its name could not be looked up"),
    ]
    output = at_a_terminal(60)
    output.table(columns, rows, empty="", below=("OF", "ANSWER"))
    assert printed(output) == [
        "ID      EVENT",
        "whd_1   session.idled",
        f"of {SESSION} · answer 200",
        "whd_22  session.ended",
        f"of {SESSION}",
        "answer its name could not be looked up",
    ]
    output = at_a_terminal(100)
    output.table(columns, rows, empty="", below=("OF", "ANSWER"))
    assert len(printed(output)) == 3


def test_facts_are_told_in_lines_of_whole_parts() -> None:
    output = at_a_terminal(20)
    output.facts(["12 events", "[red]1 failed[/red]", "begun just now"])
    assert printed(output) == ["12 events · 1 failed", "begun just now"]


def test_counted_says_one_of_one() -> None:
    assert (counted(1, "rule"), counted(0, "rule"), counted(1200, "rule")) == (
        "1 rule",
        "0 rules",
        "1,200 rules",
    )


def test_an_event_is_one_line_at_a_terminal_and_whole_elsewhere() -> None:
    why = "provider openai cannot be asked: OPENAI_API_KEY is not set, and more of it " * 2
    event = {"type": "session.error", "error": {"type": "unknown_error", "message": why}}
    output = at_a_terminal(80)
    say_event(output, "    5.0", event)
    [line] = printed(output)
    assert line.startswith("    5.0  session.error provider openai cannot be asked")
    assert (len(line), line[-1]) == (80, "…")
    output = at_a_terminal(WIDE)
    say_event(output, "    5.0", event)
    assert printed(output) == [f"    5.0  session.error {why.strip()}"]


def test_a_calls_input_is_shown_as_json() -> None:
    output = at_a_terminal(80)
    say_event(output, "4.1", {"type": "agent.tool_use", "name": "stock_get", "input": {"keys": ["SKU-1"]}})
    assert printed(output) == ['4.1  agent.tool_use stock_get {"keys":["SKU-1"]}']
