"""Providers: access tokens of Microsoft Entra ID, for an app registration that has a client secret.

Source: https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-client-creds-grant-flow. Not here: asking for a token
(_token_endpoint.py), keeping it (_token.py), managed identities (their tokens come from an address inside the machine's network that
answers whoever asks: a server that calls addresses for others keeps away from it), certificates, federated credentials.
"""

import re
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from freehold.core.errors import BadRequest
from freehold.providers._http import HttpPool
from freehold.providers._token import Bearer
from freehold.providers._token_endpoint import Endpoint

BEARERS_MAX: Final = 64
EXPECTED: Final = (
    "expected tenant_id, client_id and client_secret of an app registration, as JSON or as "
    "TENANT_ID:CLIENT_ID:CLIENT_SECRET; for a managed identity (Freehold asks no metadata server) give the app a secret, or hand in a token"
)

_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,99}")
_JOINED: Final = re.compile(r"(?P<tenant_id>[^:\s{]+):(?P<client_id>[^:\s]+):(?P<client_secret>\S+)")


class _Cloud(Struct, frozen=True):
    authority: str
    audience: str


_PUBLIC: Final = _Cloud("https://login.microsoftonline.com", "https://cognitiveservices.azure.com")
_CLOUDS: Final = {
    ".azure.us": _Cloud("https://login.microsoftonline.us", "https://cognitiveservices.azure.us"),
    ".azure.cn": _Cloud("https://login.partner.microsoftonline.cn", "https://cognitiveservices.azure.cn"),
}
"""By the end of the resource's host. https://learn.microsoft.com/en-us/entra/identity-platform/authentication-national-cloud"""


class _App(Struct, frozen=True):
    """`tenant`, `appId` and `password` are what `az ad sp create-for-rbac` prints. `authority`, where it is not the cloud's own, gives
    the tokens out.
    """

    tenant_id: str = ""
    client_id: str = ""
    client_secret: str = ""
    authority: str = ""
    tenant: str = ""
    app_id: str = msgspec.field(name="appId", default="")
    password: str = ""

    def __repr__(self) -> str:
        return f"_App({self.client_id!r})"


def is_app(key: str) -> bool:
    """Whether the credential is an app's, rather than a token or a resource's key."""
    return key.lstrip().startswith("{") or _JOINED.fullmatch(key) is not None


@lru_cache(maxsize=BEARERS_MAX)
def bearer(provider: str, key: str, resource: str, pool: HttpPool) -> Bearer:
    """One for all the ways of a provider; `resource` is its address. Raises BadRequest for credentials of no use, never showing them."""
    app = _app(key)
    if _TENANT.fullmatch(app.tenant_id) is None:
        raise BadRequest("expected a tenant's id or domain as tenant_id", field="api_key")
    host = urlsplit(resource).hostname or ""
    cloud = next((cloud for end, cloud in _CLOUDS.items() if host.endswith(end)), _PUBLIC)
    form = {
        "grant_type": "client_credentials",
        "client_id": app.client_id,
        "client_secret": app.client_secret,
        "scope": f"{cloud.audience}/.default",
    }
    url = f"{(app.authority or cloud.authority).rstrip('/')}/{app.tenant_id}/oauth2/v2.0/token"
    return Bearer(Endpoint(provider, "Microsoft Entra", url).fetching(lambda: form, pool))


def _app(key: str) -> _App:
    if joined := _JOINED.fullmatch(key):
        return _App(**joined.groupdict())
    try:
        held = msgspec.json.decode(key, type=_App)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest(EXPECTED, field="api_key") from None
    app = _App(
        held.tenant_id or held.tenant,
        held.client_id or held.app_id,
        held.client_secret or held.password,
        held.authority,
    )
    if not (app.tenant_id and app.client_id and app.client_secret):
        raise BadRequest(EXPECTED, field="api_key")
    return app
