"""Providers: access tokens for Google Cloud, for the credentials that a person can hold in a file.

A service account's key signs a claim that Google changes for a token; who logged in with `gcloud auth application-default login` has a
refresh token. Sources: https://developers.google.com/identity/protocols/oauth2/service-account#authorizingrequests,
https://google.aip.dev/auth/4110. Not here: keeping a token (_token.py), and credentials that fetch others from an address of their
own (`external_account`): such a file can have any address asked.
"""

import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlencode, urlsplit

import msgspec
from msgspec import Struct

from freehold.core.errors import BadRequest, Forbidden, Unavailable
from freehold.providers._http import HttpPool, Target, Timeouts
from freehold.providers._token import Fetch, Token

TOKEN_URI: Final = "https://oauth2.googleapis.com/token"  # noqa: S105  # an address
SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
CLAIM_S: Final = 3600
"""The longest that Google takes."""

ANSWER_BYTES_MAX: Final = 64 * 1024
TIMEOUTS: Final = Timeouts(queue_s=5.0, connect_s=5.0, first_byte_s=10.0, idle_s=10.0, total_s=20.0)
_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_FORM: Final = ((b"content-type", b"application/x-www-form-urlencoded"),)

_encode: Final = msgspec.json.Encoder().encode


class _ServiceAccount(Struct, frozen=True, tag_field="type", tag="service_account"):
    client_email: str
    private_key: str
    private_key_id: str = ""
    token_uri: str = TOKEN_URI


class _User(Struct, frozen=True, tag_field="type", tag="authorized_user"):
    client_id: str
    client_secret: str
    refresh_token: str
    token_uri: str = TOKEN_URI


class _Given(Struct):
    access_token: str
    expires_in: float = CLAIM_S


class _Refused(Struct):
    error: str = ""
    error_description: str = ""


def is_file(key: str) -> bool:
    """Whether the credential is what stands in one of Google's files, rather than a token."""
    return key.lstrip().startswith("{")


def fetching(provider: str, key: str, pool: HttpPool, *, now_s: Callable[[], float] = time.time) -> Fetch:
    """Raises BadRequest for credentials that are of no use here, never showing them."""
    try:
        held = msgspec.json.decode(key, type=_ServiceAccount | _User)
    except msgspec.DecodeError as error:
        said = "expected the JSON key of a service account, an authorized_user's file, or an access token"
        raise BadRequest(f"{said}: {_without_values(error)}", field="api_key") from None
    target, path = _address(held.token_uri)
    form = _form_of(held, now_s)

    async def fetch() -> Token:
        body = urlencode(form()).encode()
        reply = await pool.request(target, body, path=path, headers=_FORM, timeouts=TIMEOUTS)
        async with reply:
            answer = await reply.read(ANSWER_BYTES_MAX)
        return _token(provider, reply.status, answer)

    return fetch


def _form_of(held: _ServiceAccount | _User, now_s: Callable[[], float]) -> Callable[[], dict[str, str]]:
    """What is sent for a token, made anew for each."""
    if isinstance(held, _ServiceAccount):
        from freehold.providers._rs256 import Signer  # noqa: PLC0415  # 20 ms that only such a key costs.

        sign, account = Signer(held.private_key).signature, held
        return lambda: {"grant_type": _GRANT, "assertion": claim(account, sign, int(now_s()))}
    user = {
        "grant_type": "refresh_token",
        "client_id": held.client_id,
        "client_secret": held.client_secret,
        "refresh_token": held.refresh_token,
    }
    return lambda: user


def claim(account: _ServiceAccount, sign: Callable[[bytes], bytes], at_s: int) -> str:
    """A JWT that says who wants a token for what. https://www.rfc-editor.org/rfc/rfc7523"""
    head = {"alg": "RS256", "typ": "JWT"} | (
        {"kid": account.private_key_id} if account.private_key_id else {}
    )
    claims = {
        "iss": account.client_email,
        "scope": SCOPE,
        "aud": account.token_uri,
        "iat": at_s,
        "exp": at_s + CLAIM_S,
    }
    signed = _base64(_encode(head)) + b"." + _base64(_encode(claims))
    return (signed + b"." + _base64(sign(signed))).decode()


def _token(provider: str, status: int, answer: bytes) -> Token:
    shown = answer[:500].decode("utf-8", "replace")
    if status == 200:
        try:
            given = msgspec.json.decode(answer, type=_Given)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unavailable(f"{provider}: got something that is no token", detail=str(error)) from error
        return Token(given.access_token, given.expires_in)
    try:
        refused = msgspec.json.decode(answer, type=_Refused)
    except (msgspec.DecodeError, UnicodeDecodeError):
        refused = _Refused()
    if status in {400, 401, 403}:
        why = ": ".join(filter(None, (refused.error, refused.error_description)))[:300]
        said = f"{provider}: Google gives no token for the credential that Freehold has ({why or status}): replace it"
        raise Forbidden(f"{said}, or set this machine's clock", detail=shown)
    raise Unavailable(f"{provider}: no token could be had (status {status})", detail=shown)


def _address(token_uri: str) -> tuple[Target, str]:
    """Raises BadRequest for one that would say the secret to everybody on the way."""
    parts = urlsplit(token_uri)
    if parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
        raise BadRequest("its token_uri must begin with https://", field="api_key")
    return Target(f"{parts.scheme}://{parts.netloc}"), parts.path or "/"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _without_values(error: msgspec.DecodeError) -> str:
    """A path and a type: a decoder's message of a tag holds what came."""
    said = str(error)
    return "its type is another" if "Invalid value" in said else said


def _base64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
