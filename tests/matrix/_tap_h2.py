"""Answers over HTTP/2 as a relay sees them go by: frames, and the headers that HPACK packs. https://www.rfc-editor.org/rfc/rfc9113"""

from typing import Protocol

from hpack import Decoder

FRAME_HEAD_BYTES = 9
DATA, HEADERS, CONTINUATION = 0x0, 0x1, 0x9
END_HEADERS, PADDED, PRIORITY = 0x4, 0x8, 0x20


class Answering(Protocol):
    status: int
    headers: dict[str, str]
    body: bytes


class Begins(Protocol):
    def begun(self) -> Answering: ...


class FramedAnswers:
    """Of one connection; each stream is an answer."""

    def __init__(self, tap: Begins) -> None:
        self._tap = tap
        self._rest = b""
        self._block = b""
        self._decoder = Decoder()
        self._streams: dict[int, Answering] = {}

    def feed(self, data: bytes) -> None:
        self._rest += data
        while len(self._rest) >= FRAME_HEAD_BYTES:
            size = FRAME_HEAD_BYTES + int.from_bytes(self._rest[:3], "big")
            if len(self._rest) < size:
                return
            frame, self._rest = self._rest[:size], self._rest[size:]
            self._take(frame[3], frame[4], int.from_bytes(frame[5:9], "big"), frame[FRAME_HEAD_BYTES:])

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind not in {DATA, HEADERS, CONTINUATION}:
            return
        if kind != CONTINUATION and flags & PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        if kind == DATA:
            self._streams[stream].body += payload
            return
        if kind == HEADERS and flags & PRIORITY:
            payload = payload[5:]
        self._block += payload
        if flags & END_HEADERS:
            told, self._block = dict(self._decoder.decode(self._block)), b""
            if ":status" in told:  # Otherwise trailers.
                answer = self._streams[stream] = self._tap.begun()
                answer.status = int(told.pop(":status"))
                answer.headers.update(told)
