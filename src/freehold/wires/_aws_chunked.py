"""Wires: bodies in `aws-chunked`, whose chunks are signed one after the other, or end with a checksum.

Sources: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html and sigv4-streaming-trailers.html there.
Not here: signed event streams and SigV4A, which no endpoint of ours takes.
"""

import binascii
import hmac
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from hashlib import sha1, sha256
from typing import Final

from msgspec import Struct

from freehold.wires._aws_refused import SignatureRefused, incomplete, wrong_signature

STREAMING: Final = frozenset({
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
})
CHUNKS_MAX: Final = 100_000
TRAILER_BYTES_MAX: Final = 8 * 1024
_EMPTY_HASH: Final = sha256(b"").hexdigest()
_CHUNK_HEAD: Final = re.compile(rb"([0-9a-fA-F]{1,8})(?:;chunk-signature=([0-9a-f]{64}))?\r\n")
_CHECKSUMS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "x-amz-checksum-crc32": lambda data: binascii.crc32(data).to_bytes(4, "big"),
    "x-amz-checksum-sha1": lambda data: sha1(data, usedforsecurity=False).digest(),
    "x-amz-checksum-sha256": lambda data: sha256(data).digest(),
}
_TRAILER_SIGNATURE: Final = "x-amz-trailer-signature"


class Chunked(Struct, frozen=True):
    """`seed` is the signature of the request's head: the first link of the chain."""

    kind: str
    key: bytes
    date: str
    scope: str
    seed: str

    @property
    def signed(self) -> bool:
        return self.kind.startswith("STREAMING-AWS4")

    def link(self, algorithm: str, before: str, *digests: str) -> str:
        text = "\n".join([algorithm, self.date, self.scope, before, *digests])
        return hmac.digest(self.key, text.encode(), "sha256").hex()


def dechunked(chunked: Chunked, body: bytes, headers: Mapping[str, str]) -> bytes:
    """The body itself. Raises SignatureRefused for a wrong link, a wrong checksum, or what is not chunked so."""
    pieces: list[bytes] = []
    at, before = 0, chunked.seed
    for _ in range(CHUNKS_MAX):
        piece, before, at = _chunk(chunked, body, at, before)
        if not piece:
            break
        pieces.append(piece)
    else:
        raise incomplete(f"the body has more than CHUNKS_MAX = {CHUNKS_MAX} chunks")
    whole = b"".join(pieces)
    declared = headers.get("x-amz-decoded-content-length")
    if declared is not None and declared != str(len(whole)):
        raise incomplete(
            f"x-amz-decoded-content-length says {declared[:20]}, and the chunks hold {len(whole)} bytes"
        )
    _check_end(chunked, body[at:], before, whole)
    return whole


def _chunk(chunked: Chunked, body: bytes, at: int, before: str) -> tuple[bytes, str, int]:
    """The chunk at `at`, its signature, and where the next one begins. The last one is empty, and its line end is the trailer's."""
    head = _CHUNK_HEAD.match(body, at)
    if head is None or (head[2] is not None) != chunked.signed:
        raise incomplete(f"{chunked.kind}: the body is not chunked so at byte {at}")
    start = head.end()
    end = start + int(head[1], 16)
    piece = body[start:end]
    if piece and body[end : end + 2] != b"\r\n":
        raise incomplete(f"{chunked.kind}: the chunk at byte {at} is cut off")
    if chunked.signed:
        expected = chunked.link("AWS4-HMAC-SHA256-PAYLOAD", before, _EMPTY_HASH, sha256(piece).hexdigest())
        if not hmac.compare_digest(expected.encode(), head[2]):
            raise wrong_signature()
        before = expected
    if not piece and end != start:
        raise incomplete(f"{chunked.kind}: the chunk at byte {at} is cut off")
    return piece, before, end + 2 if piece else end


def _check_end(chunked: Chunked, rest: bytes, before: str, whole: bytes) -> None:
    """What follows the last chunk: trailers, where the kind has them, and an empty line."""
    if len(rest) > TRAILER_BYTES_MAX:
        raise incomplete(f"the trailers have more than TRAILER_BYTES_MAX = {TRAILER_BYTES_MAX} bytes")
    trailers = _trailers(rest)
    said = trailers.pop(_TRAILER_SIGNATURE, None)
    if not chunked.kind.endswith("-TRAILER"):
        if trailers or said:
            raise incomplete(f"{chunked.kind}: trailers came, and this kind has none")
        return
    if chunked.signed:
        canonical = "".join(f"{name}:{value}\n" for name, value in trailers.items())
        digest = sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
        expected = chunked.link("AWS4-HMAC-SHA256-TRAILER", before, digest)
        if said is None or not hmac.compare_digest(expected.encode(), said.encode("utf-8", "replace")):
            raise wrong_signature()
    _check_checksums(trailers, whole)


def _trailers(rest: bytes) -> dict[str, str]:
    trailers: dict[str, str] = {}
    for line in rest.decode("utf-8", "surrogateescape").split("\r\n"):
        name, colon, value = line.partition(":")
        if line and not colon:
            raise incomplete(f"expected a trailer, got {line[:40]!r}")
        if line:
            trailers[name.strip().lower()] = value.strip()
    return trailers


def _check_checksums(trailers: Mapping[str, str], whole: bytes) -> None:
    for name, said in trailers.items():
        digest = _CHECKSUMS.get(name)
        if digest is None:
            raise incomplete(f"the trailer {name[:60]!r} is not known; known: {', '.join(_CHECKSUMS)}")
        if b64encode(digest(whole)).decode() != said:
            raise SignatureRefused("BadDigest", f"the body does not have the {name} that its trailer says")
