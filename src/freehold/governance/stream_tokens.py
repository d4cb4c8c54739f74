"""Governance: tokens for those who can send no header, as a browser's `EventSource`: each opens the streams of one session, for a while.

A token is signed with the installation's pepper and kept nowhere, so every server knows it, also after a restart. It acts as the key that it
was made with, as that is now: one that is revoked takes its tokens with it. Like whoever has the pepper can sign (docs/decisions/0005),
they can make tokens.
"""

import binascii
import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Struct

from freehold.core.errors import Unauthenticated
from freehold.core.policy import Policy, Principal, Statement
from freehold.core.ports import Clock

PREFIX: Final = "fht_"
TOKEN_CHARS_MAX: Final = 1_000
_READS: Final = Policy((Statement("Allow", "session:Read", "session/*"),))


class _Claim(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    tenant: str
    principal: str
    session: str
    expires_at_s: int


class StreamTokens:
    """`current` says who a principal's id stands for now; it raises Unauthenticated."""

    def __init__(self, pepper: bytes, current: Callable[[str, str], Principal], clock: Clock) -> None:
        self._pepper = pepper
        self._current = current
        self._clock = clock

    def issue(self, principal: Principal, session_id: str, *, good_s: int) -> tuple[str, datetime]:
        """The token, and until when it is good."""
        expires_at_s = self._clock.now_ms() // 1000 + good_s
        claim = msgspec.json.encode(_Claim(principal.tenant, principal.id, session_id, expires_at_s))
        token = f"{PREFIX}{_text(claim)}.{_text(self._signature(claim))}"
        return token, datetime.fromtimestamp(expires_at_s, UTC)

    def principal(self, token: str, session_id: str) -> Principal:
        """Who reads that session's events. Raises Unauthenticated."""
        claim = self._claim(token)
        if claim.session != session_id:
            raise Unauthenticated("this token is another session's")
        if claim.expires_at_s * 1000 <= self._clock.now_ms():
            raise Unauthenticated("this token has expired: ask your server for another one")
        return self._current(claim.tenant, claim.principal).narrowed("session", session_id, _READS)

    def _claim(self, token: str) -> _Claim:
        claim, _, signature = token.removeprefix(PREFIX).partition(".")
        try:
            body, given = _bytes(claim), _bytes(signature)
        except (binascii.Error, ValueError):
            body = given = b""
        fits = token.startswith(PREFIX) and len(token) <= TOKEN_CHARS_MAX
        if not fits or not hmac.compare_digest(self._signature(body), given):
            raise Unauthenticated("this is no token of a stream, or another installation's")
        return msgspec.json.decode(body, type=_Claim)

    def _signature(self, claim: bytes) -> bytes:
        return hmac.digest(self._pepper, b"stream\0" + claim, hashlib.sha256)


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
