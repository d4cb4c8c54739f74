"""Ids: prefixed, sorting by time, refused when they are none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core import ids
from freehold.core.errors import BadRequest

MOMENTS = st.integers(min_value=0, max_value=2**48 - 1)
CHANCES = st.binary(min_size=ids.CHANCE_BYTES, max_size=ids.CHANCE_BYTES)


@given(MOMENTS, MOMENTS, CHANCES, CHANCES)
def test_they_sort_as_they_were_made(first: int, second: int, a: bytes, b: bytes) -> None:
    one, other = ids.compose("sess", first, a), ids.compose("sess", second, b)
    if first < second:
        assert one < other
    if first == second:
        assert (one < other) == ([byte & 31 for byte in a] < [byte & 31 for byte in b])


@given(MOMENTS, CHANCES)
def test_they_hold_all_of_time_and_chance(at_ms: int, chance: bytes) -> None:
    made = ids.compose("evt", at_ms, chance)
    digits = "0123456789abcdefghjkmnpqrstvwxyz"
    number = 0
    for digit in made.removeprefix("evt_"):
        number = number * 32 + digits.index(digit)
    assert number >> 80 == at_ms
    assert [number >> 5 * place & 31 for place in range(15, -1, -1)] == [byte & 31 for byte in chance]
    assert ids.check("evt", made) == made


@pytest.mark.parametrize(
    "wrong", ["", "sess_", "evt_01j", "sess_" + "u" * 26, "sess_" + "0" * 27, " sess_" + "0" * 26]
)
def test_what_is_none_is_refused_by_its_field(wrong: str) -> None:
    with pytest.raises(BadRequest, match="sess_") as refused:
        ids.check("sess", wrong, field="session_id")
    assert refused.value.field == "session_id"
