"""Providers: the usual piece of a streamed body: one whole chunk, as one read of the socket.

Servers send an event as one chunk, plainly framed, and most reads give exactly that. It is known by its length alone: a read of
so many bytes can be one chunk of one size only, so its first and last bytes are compared, and nothing is parsed. Whatever
differs in a single byte (extensions, leading zeros, the last chunk, half a chunk, two) is the parser's: see `_http_connection`.
Source: https://www.rfc-editor.org/rfc/rfc9112#section-7.1
"""

from typing import Final

CHUNK_BYTES_MAX: Final = 2048
"""Of the chunks that are known so. Events of a stream of tokens have some hundred bytes."""

_CRLF: Final = b"\r\n"


def _size_lines() -> dict[int, tuple[bytes, bytes]]:
    """In small letters and in capitals, by the length of the whole chunk: sizes have no two chunks of one length."""
    lines = [(size, b"%x\r\n" % size, b"%X\r\n" % size) for size in range(1, CHUNK_BYTES_MAX + 1)]
    return {len(small) + size + len(_CRLF): (small, capital) for size, small, capital in lines}


_SIZE_LINES: Final = _size_lines()


def only_chunk(data: bytes) -> bytes | None:
    """What the chunk holds, where `data` is one chunk and nothing else. None: that is not known without parsing."""
    lines = _SIZE_LINES.get(len(data))
    if lines is None or not data.startswith(lines) or not data.endswith(_CRLF):
        return None
    return data[len(lines[0]) : -2]
