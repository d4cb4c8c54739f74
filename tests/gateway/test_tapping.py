"""What is read of a stream that passes does not depend on when it is read, nor on how it is cut, and what is kept of it does not grow."""

import sys
from itertools import chain, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from freehold.gateway.passing import UsageHidden
from freehold.gateway.tapping import PIECES_MAX, Tapped
from tests.gateway._vendors import ANTHROPIC_STREAM, OPENAI_STREAM, OPENAI_USAGE_CHUNK, openai_chunk, sse
from tests.gateway.conftest import WIRES

STREAMS = {"openai_chat": OPENAI_STREAM, "anthropic_messages": ANTHROPIC_STREAM}
USED = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}


def word(text: str, **more: object) -> bytes:
    return sse(openai_chunk({"content": text}) | more)


WORDS = {
    "openai_chat": [
        word(" word"),
        word('"usage":{"prompt_tokens":1} "finish_reason":"stop"\n\n[DONE]'),
        word(" padded", obfuscation="xYz1"),
        word(" padded, uncounted", obfuscation="xYz1").replace(b'"usage":null,', b""),
        sse(openai_chunk({"reasoning_content": " thought"})),
    ],
    "anthropic_messages": [
        sse(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
            name=True,
        )
        for text in (" word", '"type":"message_stop"\n\ndata: {"usage":{"output_tokens":1}}', "{}}\n\n")
    ],
}
ODD = {
    "openai_chat": [
        word(" counted", usage=USED),
        word(" counted and padded", usage=USED, obfuscation="a"),
        sse(openai_chunk({"content": " end"}, "length")),
        sse({"choices": [], "prompt_filter_results": []}),
        sse({**openai_chunk({}), "choices": [], "usage": USED}),
        b": keep-alive\n\n",
        b"data: [DONE]\n\n",
    ],
    "anthropic_messages": [
        sse({"type": "ping"}, name=True),
        sse({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}, name=True),
        sse({"type": "message_stop"}, name=True),
    ],
}  # fmt: skip


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    """A wire and reads of its stream: long runs of one kind of event, others between, mostly one a read."""
    wire = draw(st.sampled_from(sorted(STREAMS)))
    runs = st.tuples(st.sampled_from(WORDS[wire]), st.integers(1, 2 * PIECES_MAX)).map(
        lambda run: [run[0]] * run[1]
    )
    others = st.sampled_from(ODD[wire]).map(lambda event: [event])
    events = [
        *chain.from_iterable(draw(st.lists(runs | others, max_size=8))),
        *draw(st.sampled_from([STREAMS[wire], ODD[wire][-1:]])),
    ]
    data = b"".join(events)
    ends = {sum(map(len, events[:count])) for count in range(len(events) + 1)}
    left_out = draw(st.sets(st.sampled_from(sorted(ends)), max_size=4))
    added = draw(st.sets(st.integers(0, len(data)), max_size=6))
    cuts = sorted((ends - left_out) | added | {0, len(data)})
    return wire, [data[start:end] for start, end in pairwise(cuts)]


DONE = ODD["openai_chat"][-1:]
PADDED = WORDS["openai_chat"][2]
UNCOUNTED = WORDS["openai_chat"][3]
MOULDED = [word(" word")] * (PIECES_MAX + 1)


@given(streams(), st.booleans())
@example(("openai_chat", [*MOULDED, word(" word") + sse(OPENAI_USAGE_CHUNK), *DONE]), True)
@example(("openai_chat", [*MOULDED, word(" w", usage=USED), sse({"choices": [], "usage": USED}), *DONE]), True)  # fmt: skip
@example(("openai_chat", [*MOULDED, word(" word")[:-1], b"\n", *DONE]), True)
@example(
    (
        "openai_chat",
        [*[PADDED] * PIECES_MAX, PADDED[:-1] + b"d", b'ata: {"usage":{"prompt_tokens":4}}\n\n', *DONE],
    ),
    False,
)
@example(("openai_chat", [*MOULDED, sse(openai_chunk({"content": ""}, "stop"))]), False)
@example(("openai_chat", [*MOULDED, word(" w", usage=USED), *DONE]), False)
@example(("openai_chat", [*[UNCOUNTED] * PIECES_MAX, UNCOUNTED.replace(b"}\n\n", b',"usage":{"prompt_tokens":4}}\n\n'), *DONE]), False)  # fmt: skip
@example(("openai_chat", [*MOULDED, word(" word")[:20], word(" word"), *DONE]), True)
@example(("openai_chat", [*MOULDED, word(" word") + b"data", word(" word")[4:], *DONE]), True)
def test_usage_end_and_events_are_the_same_however_a_stream_is_cut(
    stream: tuple[str, list[bytes]], hides: bool
) -> None:
    wire, pieces = stream
    data, passed = b"".join(pieces), []

    def write(piece: bytes) -> bool:
        passed.append(piece)
        return True

    hides = hides and wire == "openai_chat"
    hidden = UsageHidden() if hides else None
    tapped = Tapped(WIRES[wire].usage_tap(), "text/event-stream", hidden)
    pass_on = tapped.before(write)
    assert all(map(pass_on, pieces))
    alone, alone_hidden = WIRES[wire].usage_tap(), UsageHidden()
    alone.feed(data)
    assert (tapped.usage, tapped.finished) == (alone.usage, alone.finished)
    assert alone.finished
    assert abs(tapped.event_count - data.count(b"\n\n")) <= sum(not one.endswith(b"\n\n") for one in pieces)
    expected = alone_hidden.feed(data) + alone_hidden.end() if hides else data
    assert b"".join(passed) + (b"" if hidden is None else hidden.end()) == expected


@pytest.mark.parametrize("wire", sorted(STREAMS))
def test_what_was_read_is_let_go(wire: str) -> None:
    tapped = Tapped(WIRES[wire].usage_tap(), "text/event-stream")
    pass_on = tapped.before(bool)
    piece = WORDS[wire][0]
    before = sys.getrefcount(piece)
    for _ in range(10 * PIECES_MAX):
        pass_on(piece)
        assert sys.getrefcount(piece) < before + PIECES_MAX
    assert tapped.event_count == 10 * PIECES_MAX


@pytest.mark.parametrize(
    ("wire", "event"), [(wire, event) for wire in sorted(ODD) for event in ODD[wire]], ids=str
)
def test_an_event_that_says_something_is_of_no_mould(wire: str, event: bytes) -> None:
    assert WIRES[wire].usage_tap().mould(event) is None


@pytest.mark.parametrize(("wire", "event"), [(wire, event) for wire in sorted(WORDS) for event in WORDS[wire]], ids=str)  # fmt: skip
def test_a_mould_is_of_what_says_nothing(wire: str, event: bytes) -> None:
    mould = WIRES[wire].usage_tap().mould(event)
    assert mould is not None
    begins, behind = mould
    assert event.startswith(begins)
    assert behind in event[len(begins) :]
