"""What people see: words that stay whole at a terminal's edge."""

from hypothesis import given
from hypothesis import strategies as st

from freehold.cli._output import Flow, short

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
