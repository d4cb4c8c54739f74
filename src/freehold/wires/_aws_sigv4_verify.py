"""Wires: judging a request that claims to be signed with AWS's Signature Version 4, in its headers or in its address (presigned).

In two steps, so that nobody without a known key makes the server read a body: `claimed` reads the head and refuses what is
malformed or out of date; `Claim.check` proves the signature over head and body. The words of each refusal are AWS's.
"""

import hmac
import re
from collections.abc import Callable, Container, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Final, TypeAlias
from urllib.parse import unquote

from msgspec import Struct

from freehold.wires._aws_chunked import STREAMING, Chunked, dechunked
from freehold.wires._aws_refused import SignatureRefused, incomplete, unknown_key, wrong_signature
from freehold.wires._aws_sigv4 import (
    ALGORITHM,
    TERMINATOR,
    UNSIGNED_PAYLOAD,
    Scope,
    amz_date,
    canonical_request,
    folded,
    signature,
    signing_key,
    string_to_sign,
)

SKEW_S: Final = 300
"""How far a signer's clock may be off, and so for how long a request that was overheard can be sent again."""

SKEW_S3_S: Final = 900
PRESIGNED_S_MAX: Final = 7 * 24 * 3600
SIGNED_HEADERS_MAX: Final = 100
HASH_HEADER: Final = "x-amz-content-sha256"
TOKEN_HEADER: Final = "x-amz-security-token"  # noqa: S105 - a header's name
_PARTS: Final = ("Credential", "SignedHeaders", "Signature")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{64}")
_DATE: Final = re.compile(r"\d{8}T\d{6}Z")
_EMPTY_HASH: Final = sha256(b"").hexdigest()

FindSecret: TypeAlias = Callable[[str, str | None], str | None]
"""Access key id and session token (None where none came) to the secret access key; None for a pair that nobody knows."""


class Head(Struct, frozen=True):
    """A request without its body. `target` is the path and query as on the wire, still percent-encoded."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]


class Claim(Struct, frozen=True):
    """What a request says of who signed it. Nothing of it is proven until `check` has returned."""

    access_key_id: str
    session_token: str | None
    scope: Scope
    date: str
    presigned: bool
    _head: Head
    _headers: Mapping[str, str]
    signed_names: Sequence[str]
    _signature: str

    def check(self, secret_access_key: str, body: bytes) -> bytes:
        """The body as its sender meant it: without the frames of chunked uploads. Raises SignatureRefused."""
        key = signing_key(secret_access_key, self.scope)
        payload_hash = self._payload_hash(body)
        canonical = canonical_request(
            self._head.method,
            self._head.target,
            {name: self._headers[name] for name in self.signed_names},
            payload_hash,
            service=self.scope.service,
            left_out="X-Amz-Signature" if self.presigned else None,
        )
        expected = signature(key, string_to_sign(self.date, self.scope, canonical))
        if not hmac.compare_digest(expected, self._signature):
            raise wrong_signature()
        if payload_hash not in STREAMING:
            return body
        chunked = Chunked(payload_hash, key, self.date, str(self.scope), self._signature)
        return dechunked(chunked, body, self._headers)

    def _payload_hash(self, body: bytes) -> str:
        """What the last line of the canonical request is. A hash that is said must be the body's."""
        said = self._headers.get(HASH_HEADER)
        if said is None and self.presigned and self.scope.service == "s3":
            return UNSIGNED_PAYLOAD
        if said == UNSIGNED_PAYLOAD or said in STREAMING:
            return said
        if said is not None and said.startswith("STREAMING-"):
            known = ", ".join(sorted(STREAMING))
            raise incomplete(
                f"{HASH_HEADER}: {said[:60]!r} is not served; served are {UNSIGNED_PAYLOAD}, {known}"
            )
        actual = sha256(body).hexdigest() if body else _EMPTY_HASH
        if said is not None and not hmac.compare_digest(said.encode(), actual.encode()):
            raise wrong_signature()
        return actual


def claimed(head: Head, *, now_s: float, services: Container[str] | None = None) -> Claim:
    """Raises SignatureRefused where there is no claim, or one that cannot be right. `services` are those that may be signed for."""
    headers = folded(head.headers)
    authorization = headers.get("authorization")
    query = _query_fields(head.target)
    if authorization is not None:
        claim = _from_header(head, headers, authorization)
    elif "X-Amz-Signature" in query or "X-Amz-Algorithm" in query:
        claim = _from_query(head, headers, query)
    else:
        raise SignatureRefused("MissingAuthenticationTokenException", "Missing Authentication Token")
    _check_signed_names(claim.signed_names, headers)
    if services is not None and claim.scope.service not in services:
        raise SignatureRefused(
            "InvalidSignatureException",
            f"Credential should be scoped to correct service, not {claim.scope.service[:40]!r}.",
        )
    _check_time(claim, query, now_s)
    return claim


def verify(head: Head, body: bytes, find_secret: FindSecret, *, now_s: float) -> tuple[Claim, bytes]:
    """Both steps in one, with the body as `Claim.check` gives it."""
    claim = claimed(head, now_s=now_s)
    secret = find_secret(claim.access_key_id, claim.session_token)
    if secret is None:
        raise unknown_key()
    return claim, claim.check(secret, body)


# ---------------------------------------------------------------------------------------------- reading it


def _from_header(head: Head, headers: Mapping[str, str], authorization: str) -> Claim:
    algorithm, _, rest = authorization.partition(" ")
    if algorithm != ALGORITHM:
        raise incomplete(f"Authorization header requires the algorithm {ALGORITHM}, got {algorithm[:40]!r}.")
    parts = dict(_named(part) for part in rest.split(","))
    for name in _PARTS:
        if not parts.get(name):
            raise incomplete(f"Authorization header requires '{name}' parameter.")
    if len(parts) != len(_PARTS):
        raise incomplete(f"Authorization header takes {', '.join(_PARTS)}, each once.")
    date = headers.get("x-amz-date")
    if date is None:
        raise incomplete("Authorization header requires existence of a 'X-Amz-Date' header.")
    return _claim(
        head, headers, parts["Credential"], date, parts["SignedHeaders"], parts["Signature"], presigned=False
    )


def _named(part: str) -> tuple[str, str]:
    name, _, value = part.strip().partition("=")
    return name, value


def _query_fields(target: str) -> dict[str, str]:
    """Only the parameters of a signature."""
    _, _, query = target.partition("?")
    if "X-Amz-" not in query:
        return {}
    pairs = (pair.partition("=") for pair in query.split("&") if pair.startswith("X-Amz-"))
    return {name: unquote(value) for name, _, value in pairs}


def _from_query(head: Head, headers: Mapping[str, str], query: Mapping[str, str]) -> Claim:
    for name in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature"):
        if not query.get(f"X-Amz-{name}"):
            raise incomplete(f"AWS query-string parameters must include 'X-Amz-{name}'.")
    if query["X-Amz-Algorithm"] != ALGORITHM:
        raise incomplete(f"Unsupported AWS 'algorithm': {query['X-Amz-Algorithm'][:40]!r}.")
    return _claim(
        head,
        headers,
        query["X-Amz-Credential"],
        query["X-Amz-Date"],
        query["X-Amz-SignedHeaders"],
        query["X-Amz-Signature"],
        presigned=True,
    )


def _claim(
    head: Head,
    headers: Mapping[str, str],
    credential: str,
    date: str,
    signed_names: str,
    signature: str,
    *,
    presigned: bool,
) -> Claim:
    access_key_id, *scope = credential.rsplit("/", 4)
    if len(scope) != 4 or scope[3] != TERMINATOR or not access_key_id:
        raise incomplete(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/aws4_request,"
            f" got {credential[:80]!r}."
        )
    if _DATE.fullmatch(date) is None:
        raise incomplete(f"Date must be in ISO-8601 'basic format'. Got {date[:40]!r}.")
    if date[:8] != scope[0]:
        raise SignatureRefused(
            "InvalidSignatureException",
            f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date: {scope[0]!r} != {date[:8]!r}.",
        )
    if _SIGNATURE.fullmatch(signature) is None:
        raise wrong_signature()
    token = _token(head, headers, presigned=presigned)
    names = signed_names.lower().split(";")
    return Claim(access_key_id, token, Scope(*scope[:3]), date, presigned, head, headers, names, signature)


def _token(head: Head, headers: Mapping[str, str], *, presigned: bool) -> str | None:
    query = _query_fields(head.target) if presigned else {}
    return query.get("X-Amz-Security-Token") or headers.get(TOKEN_HEADER)


# ------------------------------------------------------------------------------------------------ judging it


def _check_signed_names(names: Sequence[str], headers: Mapping[str, str]) -> None:
    """AWS asks for the host and every x-amz- header. Those two that it lets go are bound otherwise: the body's hash is a line of its
    own, and the session's token decides which secret is looked up.
    """
    if len(names) > SIGNED_HEADERS_MAX or len(set(names)) != len(names) or [*names] != sorted(names):
        raise incomplete(f"SignedHeaders must be sorted, without repeats, {SIGNED_HEADERS_MAX} at most.")
    missing = [name for name in names if name not in headers]
    if missing:
        raise incomplete(f"SignedHeaders names {missing[0][:80]!r}, which the request does not have.")
    if "host" not in names and ":authority" not in names:  # Over HTTP/2 it may be called so.
        raise incomplete("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
    unsigned = [name for name in headers if name.startswith("x-amz-") and name not in names]
    for name in unsigned:
        if name not in {HASH_HEADER, TOKEN_HEADER}:
            raise incomplete(f"There were headers present in the request which were not signed: {name[:80]}.")


def _check_time(claim: Claim, query: Mapping[str, str], now_s: float) -> None:
    try:
        signed_at = datetime.fromisoformat(claim.date).timestamp()
    except ValueError as error:
        raise incomplete(f"Date must be in ISO-8601 'basic format'. Got {claim.date!r}.") from error
    skew_s = SKEW_S3_S if claim.scope.service == "s3" else SKEW_S
    now = amz_date(int(now_s))
    if signed_at > now_s + skew_s:
        latest = amz_date(int(now_s) + skew_s)
        raise SignatureRefused(
            "InvalidSignatureException",
            f"Signature not yet current: {claim.date} is still later than {latest} ({now} + {skew_s // 60} min.)",
        )
    lifetime_s = _expires_s(query) if claim.presigned else skew_s
    if signed_at < now_s - lifetime_s:
        earliest = amz_date(int(now_s) - lifetime_s)
        raise SignatureRefused(
            "InvalidSignatureException",
            f"Signature expired: {claim.date} is now earlier than {earliest} ({now} - {lifetime_s // 60} min.)",
        )


def _expires_s(query: Mapping[str, str]) -> int:
    given = query["X-Amz-Expires"]
    if not given.isdecimal() or len(given) > 6 or not 1 <= int(given) <= PRESIGNED_S_MAX:
        raise incomplete(
            f"X-Amz-Expires must be a number of seconds from 1 to {PRESIGNED_S_MAX}, got {given[:40]!r}."
        )
    return int(given)
