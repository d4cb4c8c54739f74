"""Whether a body may hold a packed seal: looked for quickly, and never missed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.wires._marks import RARE_MAX, holds_two
from freehold.wires._opaque import holds_packed

pytestmark = pytest.mark.slow

# Pieces of the marks themselves, and enough of their rare bytes to use up the patience for them.
PIECES = st.sampled_from([
    b"fh1.",
    b"ZmgxL",
    b"fh",
    b"1.",
    b"1",
    b"Zmgx",
    b"Z",
    b"L",
    b"x",
    b"1" * RARE_MAX,
    b"Z" * RARE_MAX,
])


@given(st.lists(PIECES, max_size=12).map(b"".join))
def test_every_mark_is_found_and_nothing_else(body: bytes) -> None:
    assert holds_packed(body) == (b"fh1." in body or b"ZmgxL" in body)


@given(st.lists(st.sampled_from([b"[", b"x", b"]"]), max_size=6).map(b"".join))
def test_two_of_a_byte_are_found_and_no_fewer(body: bytes) -> None:
    assert holds_two(body, b"[") == (body.count(b"[") > 1)
