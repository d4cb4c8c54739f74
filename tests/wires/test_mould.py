"""An event that fits a mould is read as it is read without: streams fed event by event against the same bytes fed at once."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.errors import BrokenOff
from freehold.core.messages import Text
from freehold.core.stream import PartStarted, StreamEvent, TextAdded
from freehold.wires import named
from freehold.wires._mould import Mould

TEXTS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["content", "index", "text", "id", "null", '"', "\\", '"}', "\n", "\n\n", "\u2028", "data: ", "another text"]),
)  # fmt: skip


def sse(event: dict[str, Any], name: str = "") -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + msgspec.json.encode(event) + b"\n\n"


def chat(delta: dict[str, Any], **fields: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None} | fields
    return sse({
        "id": "content",
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [choice],
        "usage": None,
    })


def padded(text: str, padding: str) -> bytes:
    """OpenAI's `obfuscation` stands last."""
    return (
        chat({"content": text})[: -len(b"}\n\n")]
        + b',"obfuscation":'
        + msgspec.json.encode(padding)
        + b"}\n\n"
    )


openai_events = st.one_of(
    st.builds(padded, TEXTS, TEXTS),
    st.builds(padded, TEXTS, st.sampled_from(["", "x", "aB3", '"},"obfuscation":"'])),
    TEXTS.map(lambda text: chat({"content": text})),
    TEXTS.map(lambda text: chat({"role": "assistant", "content": text}, logprobs=None)),
    TEXTS.map(lambda text: chat({"content": text}, logprobs={"content": [{"token": text}]})),
    TEXTS.map(lambda text: chat({"reasoning_content": text})),
    TEXTS.map(lambda text: chat({"reasoning": text, "content": text})),
    TEXTS.map(lambda text: chat({"refusal": text})),
    TEXTS.map(lambda text: chat({"content": text}, finish_reason="stop")),
    TEXTS.map(lambda text: chat({"content": text}, unknown=text)),
    TEXTS.map(lambda text: chat({"content": text}).replace(b'"content":"', b'"content": "')),
    TEXTS.map(lambda text: chat({"content": text}).replace(b"\n", b"\r\n")),
    st.just(chat({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]})),
    st.just(b": still here\n\n"),
)


def anthropic_delta(kind: str, text: str, index: int = 0) -> bytes:
    delta = {"type": f"{kind}_delta", kind: text}
    return sse({"type": "content_block_delta", "index": index, "delta": delta}, "content_block_delta")


anthropic_events = st.one_of(
    TEXTS.map(lambda text: anthropic_delta("text", text)),
    TEXTS.map(lambda text: anthropic_delta("text", text)[len("event: content_block_delta\n") :]),
    TEXTS.map(lambda text: anthropic_delta("thinking", text, 1)),
    st.just(sse({"type": "ping"}, "ping")),
)
ANTHROPIC_START = [
    sse({"type": "message_start", "message": {"id": "msg", "model": "m", "usage": {"input_tokens": 1}}}, "message_start"),
    sse({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    sse({"type": "content_block_start", "index": 1, "content_block": {"type": "thinking", "thinking": "", "signature": ""}}),
]  # fmt: skip


def decoded(wire: str, pieces: Sequence[bytes]) -> list[StreamEvent]:
    decoder = named(wire).stream_decoder(provider="p")
    return [event for piece in pieces for event in decoder.feed(piece)]


@given(st.lists(openai_events, max_size=12), st.integers(0, 3))
def test_openais_events_say_the_same_one_by_one_as_at_once(events: list[bytes], repeated: int) -> None:
    events = [event for event in events for _ in range(repeated + 1)]
    assert decoded("openai_chat", events) == decoded("openai_chat", [b"".join(events) + b": end\n\n"])


@given(st.lists(anthropic_events, max_size=12), st.integers(0, 3))
def test_anthropics_events_say_the_same_one_by_one_as_at_once(events: list[bytes], repeated: int) -> None:
    events = ANTHROPIC_START + [event for event in events for _ in range(repeated + 1)]
    assert decoded("anthropic_messages", events) == decoded(
        "anthropic_messages", [b"".join(events) + b": end\n\n"]
    )


@pytest.mark.parametrize("text", ["a\x00b", 'a"}}\n\ndata: {"x":"', "\\", "\\u12", "\\ud800"])
def test_what_is_no_text_in_a_texts_place_is_no_text(text: str) -> None:
    good = chat({"content": "word"})
    bad = good.replace(b"word", text.encode())
    with pytest.raises(BrokenOff):
        decoded("openai_chat", [good, good, good, bad])


@pytest.mark.parametrize(
    "padding", ["a\x00b", 'a"}\n\ndata: {"x":"', "\\", '","model":"b', '","usage":{"prompt_tokens":1},"x":"']
)
def test_what_is_no_padding_in_its_place_is_not_passed_over(padding: str) -> None:
    good = padded("word", "abc")
    odd = good.replace(b"abc", padding.encode())
    try:
        together = decoded("openai_chat", [good * 3 + odd])
    except BrokenOff:
        with pytest.raises(BrokenOff):
            decoded("openai_chat", [good, good, good, odd])
    else:
        assert decoded("openai_chat", [good, good, good, odd]) == together


def test_a_padded_text_fits_whatever_its_padding() -> None:
    def told_alone(data: bytes) -> str | None:
        told = msgspec.json.decode(data.removeprefix(b"data: "))
        return str(told["choices"][0]["delta"]["content"])

    mould = Mould()
    mould.learn(padded("first", "abc"), [TextAdded(1, "first")], told_alone)
    assert mould.event_in(padded('se"cond\n', "defghi")) == TextAdded(1, 'se"cond\n')
    assert mould.event_in(padded("third", "")) == TextAdded(1, "third")


def test_a_text_after_another_part_is_a_part_of_its_own() -> None:
    text, thought = chat({"content": "word"}), chat({"reasoning": "thought"})
    events = [text, text, text, thought, text, text]
    assert decoded("openai_chat", events) == decoded("openai_chat", [b"".join(events) + b": end\n\n"])


def test_a_field_more_is_no_text() -> None:
    good = chat({"content": "word"})
    more = good.replace(b"word", b'a","role":"b')
    assert decoded("openai_chat", [good, good, good, more])[-1] == TextAdded(0, "a")


def test_a_mould_that_nothing_fits_is_not_made_for_ever() -> None:
    asked: list[bytes] = []

    def told_alone(data: bytes) -> str | None:
        asked.append(data)
        _, text, _ = msgspec.json.decode(data)
        return str(text)

    mould = Mould()
    for number in range(100):
        event = b'["%d","text %d","%d"]\n\n' % (number, number, number)
        assert mould.event_in(event) is None
        mould.learn(event, [TextAdded(0, f"text {number}")], told_alone)
    assert len(asked) < 20


def test_a_mould_is_learned_from_the_first_text_of_a_part() -> None:
    asked: list[bytes] = []

    def told_alone(data: bytes) -> str | None:
        asked.append(data)
        (text,) = msgspec.json.decode(data)
        return str(text)

    mould = Mould()
    mould.learn(b'["first"]\n\n', [PartStarted(3, Text("")), TextAdded(3, "first")], told_alone)
    assert mould.event_in(b'["second"]\n\n') == TextAdded(3, "second")
    assert len(asked) == 1


def test_texts_that_come_together_leave_the_mould_as_it_is() -> None:
    def told_alone(data: bytes) -> str | None:
        (text,) = msgspec.json.decode(data)
        return str(text)

    mould = Mould()
    mould.learn(b'["first"]\n\n', [TextAdded(3, "first")], told_alone)
    mould.learn(b'["a"]\n\n["b"]\n\n', [TextAdded(3, "a"), TextAdded(3, "b")], told_alone)
    assert mould.event_in(b'["second"]\n\n') == TextAdded(3, "second")
    mould.learn(b'["a"]\n\n["b"', [TextAdded(3, "a")], told_alone)
    assert mould.event_in(b'["second"]\n\n') is None
