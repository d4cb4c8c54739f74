"""One origin and the addresses behind it: where a tool's requests may go, and nowhere else.

The name is looked up once a request and the connection goes to the very address that was checked, so that a second
answer of the name server cannot lead elsewhere. Proxies of the environment are not used, redirects are not followed here.
What counts as public: https://www.iana.org/assignments/iana-ipv4-special-registry and its IPv6 twin, as `ipaddress` has them.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import httpx2
from msgspec import Struct

from freehold.core.errors import BadRequest, Forbidden, FreeholdError, TooLarge, Unavailable

CONNECT_TIMEOUT_S: Final = 5.0
CONNECTIONS_MAX: Final = 16
KEPT_ALIVE_S: Final = 2.0
"""Shorter than servers keep idle connections (uvicorn: 5 s), so that a request rarely meets one that just closed."""

ADDRESSES_TRIED_MAX: Final = 3

IpAddress: TypeAlias = IPv4Address | IPv6Address
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]

_NAT64: Final = IPv6Network("64:ff9b::/96")


class Origin(Struct, frozen=True):
    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str, *, field: str) -> "Origin":
        """Raises BadRequest for what is no http(s) address, or carries a user or password."""
        try:
            split = urlsplit(url)
            port = split.port or (443 if split.scheme == "https" else 80)
        except ValueError as error:
            raise BadRequest(f"expected an http(s) address, got {url[:120]!r}", field=field) from error
        if split.scheme not in {"http", "https"} or not split.hostname:
            raise BadRequest(f"expected an http(s) address, got {url[:120]!r}", field=field)
        if split.username or split.password:
            raise BadRequest("the address holds a user or password; use `headers` with a secret", field=field)
        return cls(split.scheme, split.hostname, port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"http": 80, "https": 443}[self.scheme] == self.port
        return f"{self.scheme}://{host}" + ("" if usual else f":{self.port}")


class Answer(Struct, frozen=True):
    """`headers` are lower-cased."""

    status: int
    headers: dict[str, str]
    body: bytes


async def system_resolve(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def public(address: IpAddress) -> bool:
    """Whether the address is one of the open internet, also where it is wrapped into IPv6."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return public(IPv4Address(int(address) & 0xFFFFFFFF))
        for inner in (address.ipv4_mapped, address.sixtofour, address.teredo[1] if address.teredo else None):
            if inner is not None:
                return public(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


class Sender:
    """Sends to one origin. Raises FreeholdErrors; `tool` is named in them."""

    def __init__(
        self, tool: str, origin: Origin, client: httpx2.AsyncClient, *, allow_private: bool, resolve: Resolve
    ) -> None:
        self.origin = origin
        self._tool = tool
        self._client = client
        self._allow_private = allow_private
        self._resolve = resolve

    async def send(
        self, method: str, target: str, *, headers: Mapping[str, str], body: bytes | None, size_max: int
    ) -> Answer:
        """`target` is path and query, already encoded. An answer over `size_max` bytes raises TooLarge."""
        fault: Exception | None = None
        for address in await self._addresses():
            try:
                return await self._send_to(address, method, target, headers, body, size_max)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                fault = error
            except httpx2.HTTPError as error:
                raise self._unavailable("broke off its answer, or gave none in HTTP", error) from error
        raise self._unavailable("cannot be reached", fault) from fault

    def _unavailable(self, what: str, error: Exception | None) -> FreeholdError:
        return Unavailable(
            f"tool {self._tool}: its service {what}; check that it runs and that the tool's `base_url` or `document` names it",
            detail=f"{self.origin}: {type(error).__name__}: {error}",
        )

    async def _addresses(self) -> list[IpAddress]:
        try:
            found = [ip_address(self.origin.host)]
        except ValueError:
            try:
                names = await self._resolve(self.origin.host, self.origin.port)
            except OSError as error:
                raise self._unavailable("has a name that cannot be looked up", error) from error
            found = [ip_address(one.partition("%")[0]) for one in names]
        allowed = [one for one in found if self._allow_private or public(one)]
        if found and not allowed:
            raise Forbidden(
                f"tool {self._tool}: its service is at a private or local address; "
                "set `allow_private: true` in the tool's config if that is meant",
                detail=f"{self.origin}: {', '.join(map(str, found))}",
            )
        return allowed[:ADDRESSES_TRIED_MAX]

    async def _send_to(
        self,
        address: IpAddress,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        size_max: int,
    ) -> Answer:
        host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
        request = self._client.build_request(
            method,
            f"{self.origin.scheme}://{host}:{self.origin.port}{target}",
            headers={**headers, "host": str(self.origin).partition("://")[2], "accept-encoding": "identity"},
            content=body,
            extensions={"sni_hostname": self.origin.host},
        )
        response = await self._client.send(request, stream=True)
        try:
            return Answer(response.status_code, dict(response.headers), await self._body(response, size_max))
        finally:
            await response.aclose()

    async def _body(self, response: httpx2.Response, size_max: int) -> bytes:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise self._unavailable("answered compressed, which was not asked for", None)
        pieces: list[bytes] = []
        size = 0
        async for piece in response.aiter_raw():
            size += len(piece)
            if size > size_max:
                raise TooLarge(
                    f"tool {self._tool}: the answer has more than {size_max} bytes (`response_bytes_max`); ask for less"
                )
            pieces.append(piece)
        return b"".join(pieces)


@cache
def _tls() -> ssl.SSLContext:
    """One for the process: reading the certificate authorities takes some 50 ms."""
    return httpx2.create_ssl_context(trust_env=False)


@asynccontextmanager
async def open_client(connections_max: int = CONNECTIONS_MAX) -> AsyncIterator[httpx2.AsyncClient]:
    """Timeouts other than the connection's belong to the run."""
    limits = httpx2.Limits(max_connections=connections_max, keepalive_expiry=KEPT_ALIVE_S)
    timeout = httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S)
    async with httpx2.AsyncClient(
        verify=_tls(), trust_env=False, follow_redirects=False, limits=limits, timeout=timeout
    ) as client:
        yield client
