"""Wires: AWS's binary event stream, read from bytes that may be cut anywhere, and written.

A frame is: total length, headers' length, CRC of these two, headers, payload, CRC of all before. Both CRCs are checked. Source:
https://smithy.io/2.0/aws/amazon-eventstream.html. Not here: what events mean (each wire's), signed events of uploads.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, TypeAlias
from zlib import crc32

from msgspec import Struct

from freehold.core.errors import BadRequest, BrokenOff, TooLarge

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
PAYLOAD_BYTES_MAX: Final = 24 * 1024 * 1024
HEADERS_BYTES_MAX: Final = 128 * 1024
"""AWS's own limits of one frame."""

VALUE_BYTES_MAX: Final = 32_767
NAME_BYTES_MAX: Final = 255
_PRELUDE_BYTES: Final = 12
_FRAME_BYTES_MIN: Final = 16
_PRELUDE: Final = struct.Struct(">III")
_LENGTHS: Final = struct.Struct(">II")
_UINT32: Final = struct.Struct(">I")
_UINT16: Final = struct.Struct(">H")


class Int8(int):
    """A header's number of 8 bits. Plain `int` stands for 64."""

    __slots__ = ()


class Int16(int):
    __slots__ = ()


class Int32(int):
    __slots__ = ()


class Timestamp(int):
    """Unix time in milliseconds."""

    __slots__ = ()


class Uuid(bytes):
    """16 bytes."""

    __slots__ = ()


HeaderValue: TypeAlias = str | bytes | bool | int
"""Numbers of other widths, times and UUIDs are the classes above: what is read is written again as it was."""


class Frame(Struct, frozen=True):
    headers: Mapping[str, HeaderValue]
    payload: bytes


# ------------------------------------------------------------------------------------------------ writing


def encode(headers: Mapping[str, HeaderValue], payload: bytes) -> bytes:
    """One frame. Raises BadRequest for a header that the format cannot hold, TooLarge for a payload over PAYLOAD_BYTES_MAX."""
    try:
        packed = b"".join(_packed(name, value) for name, value in headers.items())
    except (struct.error, UnicodeEncodeError) as error:
        raise BadRequest(f"an event stream's header cannot hold this: {error}") from error
    return _framed(packed, payload)


def encode_event(event_type: str, payload: bytes) -> bytes:
    """An event with JSON in it, as all of AWS's JSON protocols have them."""
    return _framed(_json_headers("event", ":event-type", event_type), payload)


def encode_exception(exception_type: str, payload: bytes) -> bytes:
    """An error in the middle; nothing follows it."""
    return _framed(_json_headers("exception", ":exception-type", exception_type), payload)


@lru_cache(maxsize=64)
def _json_headers(message_type: str, type_header: str, named: str) -> bytes:
    headers = {type_header: named, ":content-type": "application/json", ":message-type": message_type}
    return b"".join(_packed(name, value) for name, value in headers.items())


def _framed(headers: bytes, payload: bytes) -> bytes:
    if len(payload) > PAYLOAD_BYTES_MAX or len(headers) > HEADERS_BYTES_MAX:
        raise TooLarge(
            f"an event may have PAYLOAD_BYTES_MAX = {PAYLOAD_BYTES_MAX} bytes, and {HEADERS_BYTES_MAX} of headers;"
            f" got {len(payload)} and {len(headers)}"
        )
    lengths = _LENGTHS.pack(_FRAME_BYTES_MIN + len(headers) + len(payload), len(headers))
    frame = b"%b%b%b%b" % (lengths, _UINT32.pack(crc32(lengths)), headers, payload)
    return frame + _UINT32.pack(crc32(frame))


def _packed(name: str, value: HeaderValue) -> bytes:
    encoded = name.encode()
    if not 1 <= len(encoded) <= NAME_BYTES_MAX:
        raise BadRequest(f"a header's name has 1 to {NAME_BYTES_MAX} bytes, got {len(encoded)}")
    return b"%c%b%b" % (len(encoded), encoded, _packed_value(value))


def _packed_value(value: HeaderValue) -> bytes:
    match value:
        case str():
            return b"\x07" + _sized(value.encode())
        case bool():
            return b"\x00" if value else b"\x01"
        case Uuid():
            if len(value) != 16:
                raise BadRequest(f"a UUID has 16 bytes, got {len(value)}")
            return b"\x09" + value
        case bytes():
            return b"\x06" + _sized(value)
        case _:
            kind, packing = _KIND_OF.get(type(value), _KIND_OF[int])
            return b"%c%b" % (kind, packing.pack(value))


def _sized(value: bytes) -> bytes:
    if len(value) > VALUE_BYTES_MAX:
        raise BadRequest(f"a header's value has {VALUE_BYTES_MAX} bytes at most, got {len(value)}")
    return _UINT16.pack(len(value)) + value


_NUMBERS: Final[dict[int, tuple[struct.Struct, Callable[[int], int]]]] = {
    2: (struct.Struct(">b"), Int8),
    3: (struct.Struct(">h"), Int16),
    4: (struct.Struct(">i"), Int32),
    5: (struct.Struct(">q"), int),
    8: (struct.Struct(">q"), Timestamp),
}
_KIND_OF: Final = {made: (kind, packing) for kind, (packing, made) in _NUMBERS.items()}

# ------------------------------------------------------------------------------------------------ reading

_NOTHING: Final[tuple[Frame, ...]] = ()


class FrameReader:
    """Any chunking of the same bytes gives the same frames. After it has raised, it is of no further use."""

    __slots__ = ("_rest", "_wanted")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._wanted = _PRELUDE_BYTES

    def feed(self, data: bytes) -> Sequence[Frame]:
        """The frames that are complete now. Raises BrokenOff for bytes that are no event stream."""
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < self._wanted:
                return _NOTHING
            data = bytes(rest)
            rest.clear()
        frames: list[Frame] = []
        at, self._wanted = 0, _PRELUDE_BYTES
        while len(data) - at >= _PRELUDE_BYTES:
            total, headers_length = _checked_prelude(data, at)
            if len(data) - at < total:
                self._wanted = total
                break
            frames.append(_frame(data, at, total, headers_length))
            at += total
        rest += data[at:]
        return frames

    def end(self) -> None:
        """The bytes are over. Raises BrokenOff where they end within a frame."""
        if self._rest:
            raise BrokenOff("the stream ended in the middle of an event")


def decode(data: bytes) -> Frame:
    """Exactly one frame. Raises BrokenOff."""
    reader = FrameReader()
    frames = reader.feed(data)
    reader.end()
    if len(frames) != 1:
        raise BrokenOff(f"expected one event, got {len(frames)}")
    return frames[0]


def _checked_prelude(data: bytes, at: int) -> tuple[int, int]:
    total, headers_length, said = _PRELUDE.unpack_from(data, at)
    if crc32(data[at : at + 8]) != said:
        raise BrokenOff(
            "the stream holds something that is not an event: the checksum of its lengths is wrong"
        )
    payload_length = total - headers_length - _FRAME_BYTES_MIN
    if headers_length > HEADERS_BYTES_MAX or not 0 <= payload_length <= PAYLOAD_BYTES_MAX:
        raise BrokenOff(f"an event of the stream has impossible lengths: {total} and {headers_length}")
    return total, headers_length


def _frame(data: bytes, at: int, total: int, headers_length: int) -> Frame:
    end = at + total - 4
    if crc32(data[at:end]) != _UINT32.unpack_from(data, end)[0]:
        raise BrokenOff("an event of the stream came with a wrong checksum")
    payload_at = at + _PRELUDE_BYTES + headers_length
    return Frame(_headers(data[at + _PRELUDE_BYTES : payload_at]), data[payload_at:end])


@lru_cache(maxsize=64)
def _headers(block: bytes) -> Mapping[str, HeaderValue]:
    """Kept: a stream says the same few again and again. (Their size is bounded, and so is how many are kept.)"""
    headers: dict[str, HeaderValue] = {}
    at = 0
    try:
        while at < len(block):
            name_end = at + 1 + block[at]
            name = block[at + 1 : name_end].decode()
            if not name or name in headers:
                raise BrokenOff("an event of the stream has a header twice, or one without a name")
            headers[name], at = _value(block, name_end)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise BrokenOff(f"an event of the stream has unreadable headers: {error}") from error
    return headers


def _value(block: bytes, at: int) -> tuple[HeaderValue, int]:
    """The value whose type stands at `at`, and where it ends."""
    kind = block[at]
    at += 1
    match kind:
        case 0 | 1:
            return kind == 0, at
        case 6 | 7:
            (length,) = _UINT16.unpack_from(block, at)
            at += 2
            value = _whole(block, at, length)
            return value.decode() if kind == 7 else value, at + length
        case 9:
            return Uuid(_whole(block, at, 16)), at + 16
        case _ if kind in _NUMBERS:
            packing, made = _NUMBERS[kind]
            return made(packing.unpack_from(block, at)[0]), at + packing.size
        case _:
            raise BrokenOff(f"an event of the stream has a header of an unknown type: {kind}")


def _whole(block: bytes, at: int, length: int) -> bytes:
    value = block[at : at + length]
    if len(value) != length:
        raise BrokenOff("an event of the stream has a header that is cut off")
    return value
