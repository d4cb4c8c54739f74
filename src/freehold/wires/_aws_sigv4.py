"""Wires: AWS's Signature Version 4: what is signed, and signing it. Pure: time comes in, credentials come in.

Sources: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html; where it is silent (which spaces,
which slashes) botocore's `auth.py` decides, since it is what most clients sign with. Not here: judging other people's signatures
(_aws_sigv4_verify.py), SigV4A (asymmetric, many regions).
"""

import hmac
import posixpath
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from msgspec import Struct

ALGORITHM: Final = "AWS4-HMAC-SHA256"
UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"
TERMINATOR: Final = "aws4_request"
KEYS_KEPT_MAX: Final = 1024
PATHS_KEPT_MAX: Final = 512
_UNRESERVED: Final = "-_.~"


class Credentials(Struct, frozen=True):
    access_key_id: str
    secret_access_key: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return f"Credentials({self.access_key_id})"


class Scope(Struct, frozen=True):
    """`day` is YYYYMMDD."""

    day: str
    region: str
    service: str

    def __str__(self) -> str:
        return f"{self.day}/{self.region}/{self.service}/{TERMINATOR}"


@lru_cache(maxsize=2)
def amz_date(at_s: int) -> str:
    """YYYYMMDDTHHMMSSZ of a Unix time in whole seconds."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y%m%dT%H%M%SZ")


@lru_cache(maxsize=KEYS_KEPT_MAX)
def signing_key(secret_access_key: str, scope: Scope) -> bytes:
    """Good for one day, region and service, so it is kept: making it costs four HMACs."""
    key = b"AWS4" + secret_access_key.encode()
    for part in (scope.day, scope.region, scope.service, TERMINATOR):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def signature(key: bytes, string_to_sign: str) -> str:
    return hmac.digest(key, string_to_sign.encode("utf-8", "surrogateescape"), "sha256").hex()


def string_to_sign(date: str, scope: Scope, canonical: str) -> str:
    digest = sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{ALGORITHM}\n{date}\n{scope}\n{digest}"


# --------------------------------------------------------------------------------------- the canonical form


def canonical_request(
    method: str,
    target: str,
    headers: Mapping[str, str],
    payload_hash: str,
    *,
    service: str,
    left_out: str | None = None,
) -> str:
    """`target` is the path and query as on the wire. `headers` are those that are signed, folded, by lower-case name.

    `left_out` is a query parameter that is not signed (a presigned address' own signature).
    """
    path, _, query = target.partition("?")
    names = sorted(headers)
    return "\n".join([
        method,
        canonical_path(path, service),
        canonical_query(query, left_out),
        *(f"{name}:{headers[name]}" for name in names),
        "",
        ";".join(names),
        payload_hash,
    ])


@lru_cache(maxsize=PATHS_KEPT_MAX)
def canonical_path(path: str, service: str) -> str:
    """S3 takes what is on the wire. All others: dots and double slashes are resolved, and what is on the wire is encoded again."""
    encoded = path.encode("utf-8", "surrogateescape")
    if service == "s3":
        return quote_from_bytes(encoded, safe="/%" + _UNRESERVED) or "/"
    resolved = posixpath.normpath(b"/" + encoded.lstrip(b"/"))
    if encoded.endswith(b"/") and resolved != b"/":
        resolved += b"/"
    return quote_from_bytes(resolved, safe="/" + _UNRESERVED)


def canonical_query(query: str, left_out: str | None = None) -> str:
    if not query:
        return ""
    pairs = []
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if pair and name != left_out:
            pairs.append((_once(name), _once(value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _once(text: str) -> str:
    """Percent-encoded exactly once, whatever it was before."""
    return quote_from_bytes(unquote_to_bytes(text.encode("utf-8", "surrogateescape")), safe=_UNRESERVED)


def folded(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """By lower-case name; spaces in a row become one, and a header that comes several times one list."""
    found: dict[str, str] = {}
    for name, value in headers:
        name, value = name.strip().lower(), " ".join(value.split())
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


# ------------------------------------------------------------------------------------------------ signing


class Signer:
    """Signs JSON requests to one host, in microseconds: what is the same in each is made once.

    Signed are content-type, host, the date and the session's token: what AWS asks for, and nothing that a proxy may touch.
    """

    __slots__ = (
        "_access_key_id",
        "_region",
        "_secret",
        "_service",
        "_signed",
        "_tail",
        "_token",
        "_upto_date",
    )

    def __init__(self, credentials: Credentials, *, host: str, region: str, service: str) -> None:
        self._access_key_id = credentials.access_key_id
        self._secret = credentials.secret_access_key
        self._token = credentials.session_token
        self._region = region
        self._service = service
        token = "" if self._token is None else f"x-amz-security-token:{self._token}\n"
        self._signed = "content-type;host;x-amz-date" + (
            "" if self._token is None else ";x-amz-security-token"
        )
        self._upto_date = f"\ncontent-type:application/json\nhost:{host}\nx-amz-date:"
        self._tail = f"\n{token}\n{self._signed}\n"

    def headers(self, method: str, target: str, body: bytes, *, at_s: int) -> list[tuple[bytes, bytes]]:
        """What is to be sent besides `content-type: application/json` and the host."""
        date = amz_date(at_s)
        scope = Scope(date[:8], self._region, self._service)
        path, _, query = target.partition("?")
        canonical = (
            f"{method}\n{canonical_path(path, self._service)}\n{canonical_query(query)}"
            f"{self._upto_date}{date}{self._tail}{sha256(body).hexdigest()}"
        )
        signed = signature(signing_key(self._secret, scope), string_to_sign(date, scope, canonical))
        authorization = f"{ALGORITHM} Credential={self._access_key_id}/{scope}, SignedHeaders={self._signed}, Signature={signed}"
        given = [(b"x-amz-date", date.encode()), (b"authorization", authorization.encode())]
        if self._token is not None:
            given.append((b"x-amz-security-token", self._token.encode()))
        return given
