"""AWS's event-stream frames: what botocore reads of ours, what we read of any bytes. The vectors are those of AWS's SDKs."""

import struct
import zlib
from itertools import pairwise

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.errors import BadRequest, BrokenOff, TooLarge
from freehold.wires import _aws_eventstream as es

NAMES = st.text(min_size=1, max_size=60).filter(lambda name: 1 <= len(name.encode()) <= 255)
VALUES = st.one_of(
    st.text(max_size=80),
    st.binary(max_size=80),
    st.booleans(),
    st.integers(-(2**7), 2**7 - 1).map(es.Int8),
    st.integers(-(2**15), 2**15 - 1).map(es.Int16),
    st.integers(-(2**31), 2**31 - 1).map(es.Int32),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**62).map(es.Timestamp),
    st.binary(min_size=16, max_size=16).map(es.Uuid),
)
HEADERS = st.dictionaries(NAMES, VALUES, max_size=6)
FRAMES = st.lists(st.tuples(HEADERS, st.binary(max_size=200)), max_size=5)

# https://github.com/awslabs/aws-c-event-stream (tests) and botocore's tests: the same vectors.
ALL_TYPES = bytes.fromhex(
    "00000062 00000052 03b5cb9c 0130 00 0131 01 0132 02 02 0133 03 0003 0134 04 00000004 0135 05 0000000000000005"
    " 0136 06 0005 6279746573 0137 07 0004 75746638 0138 08 0000000000000008 0139 09 30313233343536373839616263646566"
    " 63353671"
)


def built(headers: bytes, payload: bytes, *, headers_length: int | None = None) -> bytes:
    """A frame with right checksums around anything."""
    length = len(headers) if headers_length is None else headers_length
    lengths = struct.pack(">II", 16 + len(headers) + len(payload), length)
    frame = lengths + struct.pack(">I", zlib.crc32(lengths)) + headers + payload
    return frame + struct.pack(">I", zlib.crc32(frame))


def in_pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


def test_a_header_of_every_type_is_read_and_written_as_in_the_vector() -> None:
    frame = es.decode(ALL_TYPES)
    assert frame.headers == {
        "0": True, "1": False, "2": 2, "3": 3, "4": 4, "5": 5, "6": b"bytes", "7": "utf8", "8": 8, "9": b"0123456789abcdef",
    }  # fmt: skip
    assert es.encode(frame.headers, frame.payload) == ALL_TYPES


@given(FRAMES, st.lists(st.integers(0, 5000), max_size=12))
def test_frames_survive_any_chunking(
    frames: list[tuple[dict[str, es.HeaderValue], bytes]], cuts: list[int]
) -> None:
    data = b"".join(es.encode(headers, payload) for headers, payload in frames)
    reader = es.FrameReader()
    got = [frame for piece in in_pieces(data, cuts) for frame in reader.feed(piece)]
    reader.end()
    assert [(dict(frame.headers), frame.payload) for frame in got] == frames
    assert [[type(value) for value in frame.headers.values()] for frame in got] == [
        [type(value) for value in headers.values()] for headers, _ in frames
    ]


@given(FRAMES)
def test_botocore_reads_what_is_written(frames: list[tuple[dict[str, es.HeaderValue], bytes]]) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(b"".join(es.encode(headers, payload) for headers, payload in frames))
    assert [(message.headers, message.payload) for message in buffer] == frames


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=3))
def test_hostile_bytes_only_break_the_stream_off(data: bytes, cuts: list[int]) -> None:
    reader = es.FrameReader()
    try:
        for piece in in_pieces(data, cuts):
            reader.feed(piece)
        reader.end()
    except BrokenOff:
        pass


@given(st.binary(max_size=80), st.binary(max_size=20))
def test_hostile_headers_behind_right_checksums_only_break_it_off(headers: bytes, payload: bytes) -> None:
    try:
        frame = es.decode(built(headers, payload))
    except BrokenOff:
        return
    assert es.decode(es.encode(frame.headers, frame.payload)) == frame


@given(st.data())
def test_one_wrong_bit_is_noticed(data: st.DataObject) -> None:
    whole = es.encode({":event-type": "contentBlockDelta", "n": es.Int16(7)}, b'{"delta":{"text":"hi"}}')
    place = data.draw(st.integers(0, len(whole) * 8 - 1))
    broken = bytearray(whole)
    broken[place // 8] ^= 1 << place % 8
    with pytest.raises(BrokenOff):
        es.decode(bytes(broken))


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (b"\x04test\x04asdf\x04test\x04asdf", "twice"),
        (b"\x04test\x0a", "unknown type: 10"),
        (b"\x04test\x07\x00\x09short", "cut off"),
        (b"\x04test\x05\x00", "unreadable"),
        (b"\x00\x00", "without a name"),
        (b"\x04test\x07\x00\x01\xff", "unreadable"),
    ],
)
def test_headers_that_are_none_are_named(frame: bytes, said: str) -> None:
    with pytest.raises(BrokenOff, match=said):
        es.decode(built(frame, b""))


def test_lengths_are_bounded_before_anything_is_kept() -> None:
    for total, headers_length in [
        (0, 0),
        (15, 0),
        (16, 1),
        (es.PAYLOAD_BYTES_MAX + 17, 0),
        (2**31, es.HEADERS_BYTES_MAX + 1),
    ]:
        lengths = struct.pack(">II", total, headers_length)
        with pytest.raises(BrokenOff, match="lengths"):
            es.FrameReader().feed(lengths + struct.pack(">I", zlib.crc32(lengths)))
    with pytest.raises(TooLarge, match="PAYLOAD_BYTES_MAX"):
        es.encode({}, bytes(es.PAYLOAD_BYTES_MAX + 1))


def test_wrong_lengths_are_noticed_before_what_they_announce_is_waited_for() -> None:
    with pytest.raises(BrokenOff, match="checksum of its lengths"):
        es.FrameReader().feed(struct.pack(">III", 1_000_000, 0, 0))


def test_a_stream_that_ends_within_a_frame_is_broken_off() -> None:
    whole = es.encode_event("messageStop", b"{}")
    for end in range(1, len(whole)):
        reader = es.FrameReader()
        assert reader.feed(whole[:end]) in ((), [])
        with pytest.raises(BrokenOff, match="middle"):
            reader.end()


@pytest.mark.parametrize(
    "headers",
    [
        {"": "x"},
        {"n" * 256: "x"},
        {"n": "x" * (es.VALUE_BYTES_MAX + 1)},
        {"n": es.Int8(200)},
        {"n": 2**63},
        {"n": es.Uuid(b"1")},
        {"n": "\ud800"},
    ],
)
def test_headers_that_the_format_cannot_hold_are_refused(headers: dict[str, es.HeaderValue]) -> None:
    with pytest.raises(BadRequest):
        es.encode(headers, b"")


def test_events_and_exceptions_have_the_headers_that_sdks_look_for() -> None:
    event = es.decode(es.encode_event("messageStart", b'{"role":"assistant"}'))
    assert event.headers == {
        ":event-type": "messageStart", ":content-type": "application/json", ":message-type": "event",
    }  # fmt: skip
    assert es.decode(es.encode_exception("throttlingException", b"{}")).headers == {
        ":exception-type": "throttlingException", ":content-type": "application/json", ":message-type": "exception",
    }  # fmt: skip
