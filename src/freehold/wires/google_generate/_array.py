"""Wires, Google: a client's stream as the vendor tells it where nobody asked for `alt=sse`: one JSON array, written piece by piece."""

from typing import ClassVar

from freehold.wires._sse import SseReader


class ArrayForm:
    """From server-sent events, this wire's or the vendor's own as they pass."""

    content_type: ClassVar[str] = "application/json"

    __slots__ = ("_begun", "_sse")

    def __init__(self) -> None:
        self._sse = SseReader()
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        """May be empty. Raises BrokenOff for an event over EVENT_BYTES_MAX."""
        return b"".join([self._element(json) for _, json in self._sse.feed(data)])

    def end(self, data: bytes) -> bytes:
        told = self.feed(data) + b"".join([self._element(json) for _, json in self._sse.end()])
        return told + (b"]" if self._begun else b"[]")

    def _element(self, json: bytes) -> bytes:
        begun, self._begun = self._begun, True
        return (b",\r\n" if begun else b"[") + json
