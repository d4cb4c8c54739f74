"""Server-sent events come out the same however they are cut, whatever ends their lines, and never without bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.errors import BrokenOff
from freehold.wires import _sse
from freehold.wires._sse import Lines, SseReader
from tests.wires._values import pieces


def read(parts):
    reader = SseReader()
    events = [event for part in parts for event in reader.feed(part)]
    return [*events, *reader.end()]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [(b"", b"a"), (b"", b"b")]),
        (b"event: x\ndata: a\n\n", [(b"x", b"a")]),
        (b"data:a\n\n", [(b"", b"a")]),
        (b"data:  a\n\n", [(b"", b" a")]),
        (b"data: a\ndata: b\n\n", [(b"", b"a\nb")]),
        (b": comment\n\ndata: a\n\n", [(b"", b"a")]),
        (b": comment\ndata: a\n: more\n\n", [(b"", b"a")]),
        (b"id: 7\nretry: 10\ndata: a\nunknown\n\n", [(b"", b"a")]),
        (b"event: only a name\n\n", []),
        (b"\n\n\n\ndata: a\n\n\n\n", [(b"", b"a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [(b"", b"a")]),
        (b"data: a", [(b"", b"a")]),
        (b"data: a\n", [(b"", b"a")]),
        (b"", []),
    ],
)
def test_events_are_read_as_the_standard_has_them(stream, events):
    assert read([stream]) == events
    for ending in (b"\r\n", b"\r"):
        other = stream.replace(b"\n", ending)
        assert read([other]) == events
        assert read([other[at : at + 1] for at in range(len(other))]) == events


lines = st.lists(
    st.sampled_from([b"data: a", b"data: \xe4\xb8\x8a", b"event: x", b": c", b"", b"", b"x"]), max_size=12
)


@given(st.data(), lines, st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_any_cutting_gives_the_same_events(data, lines, ending):
    stream = ending.join(lines)
    assert read(pieces(stream, data.draw)) == read([stream]) == read([stream.replace(ending, b"\n")])


def test_an_event_without_end_is_broken_off(monkeypatch):
    monkeypatch.setattr(_sse, "EVENT_BYTES_MAX", 100)
    reader = SseReader()
    reader.feed(b"data: " + b"x" * 50)
    with pytest.raises(BrokenOff, match="EVENT_BYTES_MAX"):
        reader.feed(b"x" * 50)


@given(st.data(), st.binary(max_size=50))
def test_lines_come_whole_and_lose_nothing(data, stream):
    cut = pieces(stream, data.draw)
    found = Lines()
    told = [found.feed(part) for part in cut]
    assert b"".join(told) + found.rest == stream
    assert all(part == b"" or part.endswith((b"\n", b"\r")) for part in told)
