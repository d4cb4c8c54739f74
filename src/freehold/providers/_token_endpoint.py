"""Providers: asking an OAuth 2.0 token endpoint, for vendors that change a credential for an access token.

Source: https://www.rfc-editor.org/rfc/rfc6749#section-5. Not here: what is sent for one (_google_token.py, _entra_token.py), and keeping it
(_token.py).
"""

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlencode, urlsplit

import msgspec
from msgspec import Struct

from freehold.core.errors import BadRequest, Forbidden, Unavailable
from freehold.providers._http import HttpPool, Target, Timeouts
from freehold.providers._token import Fetch, Token

LASTS_S: Final = 3600.0
"""What a token is taken to last whose answer doesn't say."""

ANSWER_BYTES_MAX: Final = 64 * 1024
TIMEOUTS: Final = Timeouts(queue_s=5.0, connect_s=5.0, first_byte_s=10.0, idle_s=10.0, total_s=20.0)
_FORM: Final = ((b"content-type", b"application/x-www-form-urlencoded"),)


class _Given(Struct):
    access_token: str
    expires_in: float = LASTS_S


class _Refused(Struct):
    error: str = ""
    error_description: str = ""


class Endpoint(Struct, frozen=True):
    """`giver` is who gives tokens out, for people to read; `remedy` what they may do if it doesn't."""

    provider: str
    giver: str
    url: str
    remedy: str = "replace it"

    def fetching(self, form: Callable[[], Mapping[str, str]], pool: HttpPool) -> Fetch:
        """`form` is asked anew for each token. Raises BadRequest for an address that would say a secret to everybody on the way."""
        target, path = _address(self.url)

        async def fetch() -> Token:
            body = urlencode(form()).encode()
            reply = await pool.request(target, body, path=path, headers=_FORM, timeouts=TIMEOUTS)
            async with reply:
                answer = await reply.read(ANSWER_BYTES_MAX)
            return self._token(reply.status, answer)

        return fetch

    def _token(self, status: int, answer: bytes) -> Token:
        shown = answer[:500].decode("utf-8", "replace")
        if status == 200:
            try:
                given = msgspec.json.decode(answer, type=_Given)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise Unavailable(
                    f"{self.provider}: got something that is no token", detail=str(error)
                ) from error
            return Token(given.access_token, given.expires_in)
        if status in {400, 401, 403}:
            said = (
                f"{self.giver} gives no token for the credential that Freehold has ({_why(answer) or status})"
            )
            raise Forbidden(f"{self.provider}: {said}: {self.remedy}", detail=shown)
        raise Unavailable(f"{self.provider}: no token could be had (status {status})", detail=shown)


def _why(answer: bytes) -> str:
    try:
        refused = msgspec.json.decode(answer, type=_Refused)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    described = refused.error_description.partition("\n")[0].strip()
    return ": ".join(filter(None, (refused.error, described)))[:300]


def _address(url: str) -> tuple[Target, str]:
    parts = urlsplit(url)
    if parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
        raise BadRequest("the address that it has its tokens from must begin with https://", field="api_key")
    return Target(f"{parts.scheme}://{parts.netloc}"), parts.path or "/"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
