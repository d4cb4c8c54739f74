"""The postman: takes webhooks' requests out, and nowhere that they may not go; part of app.py's work. When, and what: runtime/webhooks.py.

The rules are those of `http` tools (tools/http/_guard.py): a name is looked up once, the connection goes to the very address that was
checked, redirects are not followed, proxies of the environment are not used.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

import httpx2

from freehold.config import Webhooks as WebhooksConfig
from freehold.core.errors import Forbidden, FreeholdError, TimedOut, Unavailable
from freehold.core.ports import Clock
from freehold.core.webhooks import Postman, Told, Webhooks
from freehold.governance.signing import Signing
from freehold.runtime.webhooks import AT_ONCE_MAX, WebhookDelivery, WebhookSettings
from freehold.tools.http._guard import (
    ADDRESSES_TRIED_MAX,
    IpAddress,
    Origin,
    open_client,
    public,
    system_resolve,
)

ANSWER_BYTES_MAX: Final = 16_384
"""More of an answer is not read: only its status counts."""


class HttpPostman:
    """`allow_private`: also to addresses that are not of the open internet, and without TLS."""

    def __init__(self, client: httpx2.AsyncClient, *, allow_private: bool) -> None:
        self._client = client
        self._allow_private = allow_private

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Told:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._post(url, headers, body)
        except TimeoutError as error:
            raise TimedOut(f"no answer within {timeout_s:g} s") from error

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Told:
        origin = Origin.of(url, field="url")
        if origin.scheme != "https" and not self._allow_private:
            raise Forbidden("its address is not https (configuration: webhooks.allow_private)")
        split = urlsplit(url)
        target = (split.path or "/") + (f"?{split.query}" if split.query else "")
        fault: FreeholdError = Unavailable("its name has no address")
        for address in await self._addresses(origin):
            try:
                return await self._post_to(address, origin, target, headers, body)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                fault = Unavailable("it could not be reached")
            except httpx2.HTTPError as error:
                raise Unavailable("it broke off its answer, or gave none in HTTP") from error
        raise fault

    async def _addresses(self, origin: Origin) -> list[IpAddress]:
        try:
            found = [ip_address(origin.host)]
        except ValueError:
            try:
                names = await system_resolve(origin.host, origin.port)
            except (OSError, UnicodeError) as error:
                raise Unavailable("its name could not be looked up") from error
            found = [ip_address(one.partition("%")[0]) for one in names]
        allowed = [one for one in found if self._allow_private or public(one)]
        if found and not allowed:
            raise Forbidden("its address is a private or local one (configuration: webhooks.allow_private)")
        return allowed[:ADDRESSES_TRIED_MAX]

    async def _post_to(
        self, address: IpAddress, origin: Origin, target: str, headers: Mapping[str, str], body: bytes
    ) -> Told:
        host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
        request = self._client.build_request(
            "POST",
            f"{origin.scheme}://{host}:{origin.port}{target}",
            headers={**headers, "host": str(origin).partition("://")[2]},
            content=body,
            extensions={"sni_hostname": origin.host},
        )
        response = await self._client.send(request, stream=True)
        try:
            size = 0
            async for piece in response.aiter_raw():
                size += len(piece)
                if size > ANSWER_BYTES_MAX:
                    break
            return Told(response.status_code, {key.lower(): value for key, value in response.headers.items()})
        finally:
            await response.aclose()


@asynccontextmanager
async def open_postman(*, allow_private: bool, at_once_max: int) -> AsyncIterator[HttpPostman]:
    async with open_client(at_once_max) as client:
        yield HttpPostman(client, allow_private=allow_private)


@asynccontextmanager
async def telling(
    settings: WebhooksConfig, kept: Webhooks, signing: Signing, clock: Clock
) -> AsyncIterator[None]:
    """Servers tell them, also those that leave sessions to workers: workers don't know the secrets."""
    bounds = WebhookSettings(timeout_s=settings.timeout_s, first_delay_s=settings.retry_s)
    async with (
        open_postman(allow_private=settings.allow_private, at_once_max=AT_ONCE_MAX) as postman,
        WebhookDelivery(kept, postman, signing.keys, clock, bounds).running(),
    ):
        yield


_IMPLEMENTS: type[Postman] = HttpPostman
