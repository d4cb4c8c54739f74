"""Runtime: the digest of a model request, by which a replay shows that it asks the same. Pure.

A conversation grows by a message or two a step, so its digest rolls: each message's is made of the one before it and of the
message alone, and a step costs what is new. All of it is hashed again only where earlier messages are no longer what they were
(a compaction). Canonical is the JSON of our own values, fields in their order, what stands at its default left out.
"""

import hashlib
from typing import Final

import msgspec
from msgspec import structs

from freehold.core.messages import Message, ModelRequest

_ENCODER: Final = msgspec.json.Encoder()


class RequestDigests:
    """Of one session's requests, one after the other."""

    def __init__(self) -> None:
        self._head: ModelRequest | None = None
        self._head_digest = b""
        self._messages: tuple[Message, ...] = ()
        self._rolled = b""

    def of(self, request: ModelRequest, head: ModelRequest | None = None) -> str:
        """SHA-256, in hex, of the digests of all but the messages, and of the messages. `head` is the former, where the caller has it."""
        if head is None:
            head = structs.replace(request, messages=())
        if head is not self._head and head != self._head:
            self._head, self._head_digest = head, hashlib.sha256(_ENCODER.encode(head)).digest()
        return hashlib.sha256(self._head_digest + self._roll(request.messages)).hexdigest()

    def _roll(self, messages: tuple[Message, ...]) -> bytes:
        known, rolled = len(self._messages), self._rolled
        if messages[:known] != self._messages:
            known, rolled = 0, b""
        for message in messages[known:]:
            rolled = hashlib.sha256(rolled + _ENCODER.encode(message)).digest()
        self._messages, self._rolled = messages, rolled
        return rolled
