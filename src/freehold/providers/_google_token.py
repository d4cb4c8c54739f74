"""Providers: access tokens for Google Cloud, for the credentials that a person can hold in a file.

A service account's key signs a claim that Google changes for a token; who logged in with `gcloud auth application-default login` has a
refresh token. Sources: https://developers.google.com/identity/protocols/oauth2/service-account#authorizingrequests,
https://google.aip.dev/auth/4110. Not here: asking for a token (_token_endpoint.py), keeping it (_token.py), and credentials that fetch others from an address of their
own (`external_account`): such a file can have any address asked.
"""

import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from freehold.core.errors import BadRequest
from freehold.providers._http import HttpPool
from freehold.providers._token import Fetch
from freehold.providers._token_endpoint import Endpoint

TOKEN_URI: Final = "https://oauth2.googleapis.com/token"  # noqa: S105  # an address
SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
CLAIM_S: Final = 3600
"""The longest that Google takes."""

_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"

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
    endpoint = Endpoint(provider, "Google", held.token_uri, "replace it, or set this machine's clock")
    return endpoint.fetching(_form_of(held, now_s), pool)


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


def _without_values(error: msgspec.DecodeError) -> str:
    """A path and a type: a decoder's message of a tag holds what came."""
    said = str(error)
    return "its type is another" if "Invalid value" in said else said


def _base64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
