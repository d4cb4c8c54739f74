"""Providers: the usual piece of a streamed body: one whole chunk, as one read of the socket.

Servers send an event as one chunk, plainly framed, and most reads give exactly that. It is known by its length alone: a read of
so many bytes can be one chunk of one size only, so its first and last bytes are compared, and nothing is parsed. Whatever
differs in a single byte (extensions, leading zeros, the last chunk, half a chunk, two) is the parser's: see `_http_connection`.
Source: https://www.rfc-editor.org/rfc/rfc9112#section-7.1
"""

from typing import Final

CHUNK_BYTES_MAX: Final = 2048
"""Of the chunks that are known so. Events of a stream of tokens have some hundred bytes."""

CRLF: Final = b"\r\n"


def _size_lines() -> list[tuple[bytes, bytes] | None]:
    """By the length of the whole chunk: sizes have no two chunks of one length."""
    lines = {}
    for size in range(1, CHUNK_BYTES_MAX + 1):
        small, capital = b"%x\r\n" % size, b"%X\r\n" % size
        lines[len(small) + size + len(CRLF)] = small, capital
    return [lines.get(length) for length in range(max(lines) + 1)]


SIZE_LINES: Final = _size_lines()
"""What a read of so many bytes begins with, in small letters or in capitals, where it is one chunk."""

READ_BYTES_MAX: Final = len(SIZE_LINES) - 1
