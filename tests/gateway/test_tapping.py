"""What is read of a stream that passes does not depend on when it is read, and what is kept of it does not grow."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.tapping import PIECES_MAX, Tapped
from tests.gateway._vendors import ANTHROPIC_STREAM, OPENAI_STREAM, openai_chunk, sse
from tests.gateway.conftest import WIRES

STREAMS = {"openai_chat": b"".join(OPENAI_STREAM), "anthropic_messages": b"".join(ANTHROPIC_STREAM)}


@given(st.sampled_from(sorted(STREAMS)), st.lists(st.integers(0, 2000), max_size=40))
def test_usage_end_and_events_are_the_same_however_a_stream_is_cut(wire: str, cuts: list[int]) -> None:
    data = STREAMS[wire]
    tapped, last = Tapped(WIRES[wire].usage_tap(), "text/event-stream"), 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        tapped.feed(data[last:cut])
        last = cut
    alone = WIRES[wire].usage_tap()
    alone.feed(data)
    assert (tapped.usage, tapped.finished) == (alone.usage, alone.finished)
    assert alone.finished
    assert abs(tapped.event_count - data.count(b"\n\n")) <= len(cuts)


def test_what_was_read_is_let_go() -> None:
    tapped = Tapped(WIRES["openai_chat"].usage_tap(), "text/event-stream")
    piece = sse(openai_chunk({"content": " word"}))
    before = sys.getrefcount(piece)
    for _ in range(10 * PIECES_MAX):
        tapped.feed(piece)
        assert sys.getrefcount(piece) < before + PIECES_MAX
    assert tapped.event_count == 10 * PIECES_MAX
