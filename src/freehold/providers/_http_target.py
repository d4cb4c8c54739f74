"""Providers: where an HTTP call goes, and the bytes that never change between two calls to it.

Pure: no socket, no clock, and no reading of the environment (a proxy is told, see config). What may stand in a request's
head is decided here and nowhere else. Sources: https://www.rfc-editor.org/rfc/rfc9110#section-5.5 (field values),
https://www.rfc-editor.org/rfc/rfc9112#section-3.2 (request targets).
"""

from base64 import b64encode
from collections.abc import Sequence
from typing import NewType
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from freehold.core.errors import BadRequest

HEADS_MAX = 256
"""Request heads remembered per target: paths can hold ids, so the memory is bounded and the rest is built anew."""

TOKEN_BYTES = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
CONTROL_BYTES = bytes(b for b in range(0x20) if b != 0x09) + b"\x7f"
CLIENT_HEADERS = frozenset(
    b"accept-encoding connection content-length expect host keep-alive proxy-connection te trailer"
    b" transfer-encoding upgrade".split()
)
"""Framing and hop-by-hop fields: the client writes these itself, a caller who sets them could split a request in two."""

HeaderBlock = NewType("HeaderBlock", bytes)
"""Header lines that `header_block` has checked: encode once, send often."""


def header_block(headers: Sequence[tuple[bytes, bytes]]) -> HeaderBlock:
    """Raises BadRequest, naming the header and never its value, for anything that could end the line early."""
    lines = []
    for name, value in headers:
        if not name or name.translate(None, TOKEN_BYTES):
            raise BadRequest(f"header name {name!r} is not a token of RFC 9110")
        if name.lower() in CLIENT_HEADERS:
            raise BadRequest(
                "is written by the HTTP client and cannot be set", field=f"headers.{name.decode().lower()}"
            )
        if value.translate(None, CONTROL_BYTES) != value:
            raise BadRequest(
                "the value holds a line break or another control character", field=f"headers.{name.decode()}"
            )
        lines.append(b"%b: %b\r\n" % (name, value))
    return HeaderBlock(b"".join(lines))


NO_HEADERS = header_block(())


class Proxy(msgspec.Struct, frozen=True):
    """An HTTP proxy. `authorization` is a secret and is left out of `repr`."""

    host: str
    port: int
    authorization: bytes | None

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port})"

    @classmethod
    def parse(cls, url: str) -> "Proxy":
        parts = _split(url, "proxy")
        if parts.scheme != "http":
            raise BadRequest(
                f"a proxy must be http://HOST:PORT, got the scheme {parts.scheme!r}", field="proxy"
            )
        credentials = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            credentials = b"Basic " + b64encode(pair.encode())
        return cls(_ascii_host(parts, "proxy"), parts.port or 80, credentials)


class Target:
    """A declared origin with its base path and fixed headers. Make one per provider and keep it: it remembers heads.

    `url` is `http[s]://HOST[:PORT][/BASE]`. `headers` go with every request (they may hold credentials, so `repr` has
    none). `ca_file` replaces the system's certificate authorities. `proxy` is `http://[USER:PASSWORD@]HOST:PORT`.
    """

    __slots__ = ("_heads", "_lines", "_prefix", "ca_file", "host", "key", "name", "port", "proxy", "tls")

    def __init__(
        self,
        url: str,
        *,
        headers: Sequence[tuple[bytes, bytes]] = (),
        ca_file: str | None = None,
        proxy: str | None = None,
    ) -> None:
        parts = _split(url, "url")
        if parts.scheme not in {"http", "https"}:
            raise BadRequest(f"must start with http:// or https://, got {parts.scheme!r}", field="url")
        if parts.username is not None:
            raise BadRequest("credentials do not belong in an address: declare a secret", field="url")
        if parts.query or parts.fragment:
            raise BadRequest("must end with its path; a query goes into each request's path", field="url")
        self.tls = parts.scheme == "https"
        self.host = _ascii_host(parts, "url")
        self.port = parts.port or (443 if self.tls else 80)
        bracketed = f"[{self.host}]" if ":" in self.host else self.host
        self.name = f"{bracketed}:{self.port}"
        self.ca_file = ca_file
        self.proxy = None if proxy is None else Proxy.parse(proxy)
        self.key = f"{parts.scheme} {self.name} {ca_file} {proxy}"
        """Requests with the same key may share connections. Holds the proxy's password: never shown."""

        base = parts.path.rstrip("/")
        if base:
            check_path(base, "url")
        forwarded = self.proxy is not None and not self.tls
        self._prefix = f"http://{self.name}{base}" if forwarded else base
        authority = bracketed if self.port == (443 if self.tls else 80) else self.name
        self._lines = b"host: %b\r\naccept-encoding: identity\r\n" % authority.encode() + header_block(
            headers
        )
        if not any(name.lower() == b"user-agent" for name, _ in headers):
            self._lines += b"user-agent: freehold\r\n"
        if forwarded and self.proxy is not None and self.proxy.authorization is not None:
            self._lines += b"proxy-authorization: %b\r\n" % self.proxy.authorization
        self._heads: dict[tuple[str, str], bytes] = {}

    def __repr__(self) -> str:
        return f"Target({'https' if self.tls else 'http'}://{self.name})"

    def head(self, method: str, path: str) -> bytes:
        """The request line and the target's own headers, up to where a request's own headers go."""
        head = self._heads.get((method, path))
        if head is None:
            check_path(path, "path")
            if not method.isascii() or not method.isalpha() or not method.isupper():
                raise BadRequest(f"must be an upper-case HTTP method, got {method!r}", field="method")
            head = f"{method} {self._prefix}{path} HTTP/1.1\r\n".encode() + self._lines
            if len(self._heads) < HEADS_MAX:
                self._heads[method, path] = head
        return head

    def post(self, path: str, headers: HeaderBlock, body: bytes) -> bytes:
        """A whole request."""
        head = self._heads.get(("POST", path)) or self.head("POST", path)
        return b"".join((head, headers, b"content-length: %d\r\n\r\n" % len(body), body))


def check_path(path: str, field: str) -> None:
    fits = path.startswith("/") and path.isascii() and path.isprintable()
    if not fits or " " in path or "#" in path:
        raise BadRequest(
            f"a path starts with '/' and is printable ASCII without spaces or '#' (percent-encode the rest),"
            f" got {path!r:.200}",
            field=field,
        )


def _split(url: str, field: str) -> SplitResult:
    """Errors don't repeat the address: it may hold a password."""
    if not url.isprintable():  # urlsplit would drop line breaks without a word.
        raise BadRequest("holds a line break or another control character", field=field)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadRequest("is not an address: expected http[s]://HOST[:PORT]/PATH", field=field) from error
    if not parts.hostname or port == 0:
        raise BadRequest(
            "has no host or an impossible port: expected http[s]://HOST[:PORT]/PATH", field=field
        )
    return parts


def _ascii_host(parts: SplitResult, field: str) -> str:
    host = parts.hostname or ""
    try:
        ascii_host = host.encode("idna").decode() if ":" not in host else host
    except UnicodeError as error:
        raise BadRequest("the host is not a valid domain name", field=field) from error
    if not ascii_host.isprintable() or any(c in " /\\@%" for c in ascii_host):
        raise BadRequest("the host is not a valid domain name", field=field)
    return ascii_host
