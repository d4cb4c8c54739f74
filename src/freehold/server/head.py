"""Server: a request's head as it was judged, and one that its connection repeats. Not here: judging it (listener.py, by llhttp).

Who keeps a connection mostly sends the same head again and again, but for the body's length. What was judged of such a head holds for
the next one, byte for byte the same, which is then not parsed: so nothing about it is decided twice, or in another way.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

REPEATED_BYTES_MAX: Final = 4096
"""Of a head that is kept to be known again."""

DIGITS_MAX: Final = 10
"""Of a body's length."""

_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"\r\ncontent-length:"
_PARTICULAR: Final = frozenset({b"expect", b"upgrade", b"transfer-encoding"})
"""Headers by which a request is more than its head and its body."""


class Headers(Mapping[str, str]):
    """A request's, decoded where they are asked for: most never are. Of those that came twice, the last."""

    __slots__ = ("_raw",)

    def __init__(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        self._raw = dict(pairs)

    def __getitem__(self, name: str) -> str:
        return self._raw[name.encode("latin-1")].decode("latin-1")

    def get(self, name: str, default: Any = None) -> Any:
        value = self._raw.get(name.encode("latin-1"))
        return default if value is None else value.decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._raw)

    def __len__(self) -> int:
        return len(self._raw)


class Head(Struct, eq=False):
    """`target` is path and query; `pairs` are the headers as they came, names lower-cased."""

    method: bytes
    target: bytes
    path: bytes
    pairs: Sequence[tuple[bytes, bytes]]
    headers: Mapping[str, str]
    keep_alive: bool = True
    old: bool = False
    """Of HTTP/1.0, which knows no chunks."""

    admitted: Any = None
    """Who asks, for whoever looked that up (authentication.py) to find it again."""

    @property
    def expects_continue(self) -> bool:
        return self.headers.get("expect", "").lower() == "100-continue"


class Repeated(Struct, frozen=True):
    """A head as its connection sent it, around the digits that say how long the body is."""

    head: Head
    before: bytes
    after: bytes
    start: int
    """Of the digits."""

    end_max: int
    """Of what follows them, in the head."""

    def body(self, data: bytes) -> bytes | None:
        """What follows the head, where `data` is that head again and one whole body; None for whatever else it is."""
        if not data.startswith(self.before):
            return None
        start, after = self.start, self.after
        end = data.find(after, start, self.end_max)
        digits, body = data[start:end], data[end + len(after) :]
        return body if end > start and digits.isdigit() and int(digits) == len(body) else None


def repeated(head: Head, data: bytes) -> Repeated | None:
    """`data` is one whole request that was judged to have this head. None where the next one is to be judged again."""
    end = data.find(_END) + len(_END)
    raw = data[:end].lower()
    if not head.keep_alive or end > REPEATED_BYTES_MAX or not data.startswith(head.method):
        return None
    if raw.count(_LENGTH) != 1 or any(name in _PARTICULAR for name, _ in head.pairs):
        return None
    start = raw.index(_LENGTH) + len(_LENGTH)
    digits = raw[start : raw.index(b"\r\n", start)].strip(b" \t")
    start = raw.index(digits, start)
    after = data[start + len(digits) : end]
    again = Repeated(head, data[:start], after, start, start + DIGITS_MAX + len(after))
    if again.body(data) is None:
        return None
    head.headers = dict(head.headers)
    return again
