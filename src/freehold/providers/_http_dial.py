"""Providers: from a target to a connected protocol: DNS, TCP, a proxy's tunnel, TLS; every failure told apart.

Addresses are tried in parallel, a quarter second apart and by turns of family, since uvloop's `create_connection` tries
them one after the other and a dead IPv6 route would eat the whole time limit. Not here: time limits (the caller's).
Sources: https://www.rfc-editor.org/rfc/rfc8305 (happy eyeballs), https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6 (CONNECT).
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from typing import TypeVar

from freehold.core.errors import FreeholdError, Unavailable
from freehold.providers._http_target import Proxy, Target

ADDRESSES_MAX = 8
ATTEMPT_DELAY_S = 0.25
PROXY_ANSWER_BYTES_MAX = 16 * 1024

Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]
P = TypeVar("P", bound=asyncio.Protocol)


class TlsContexts:
    """One context per set of certificate authorities: reading the system's takes 20 ms and a megabyte."""

    def __init__(self) -> None:
        self._contexts: dict[str | None, ssl.SSLContext] = {}

    async def get(self, ca_file: str | None) -> ssl.SSLContext:
        context = self._contexts.get(ca_file)
        if context is None:
            try:
                context = await asyncio.to_thread(ssl.create_default_context, cafile=ca_file)
            except OSError as error:
                raise Unavailable(
                    "the file of certificate authorities cannot be read",
                    field="ca_file",
                    detail=f"{ca_file}: {error}",
                ) from error
            context.set_alpn_protocols(["http/1.1"])
            context = self._contexts.setdefault(ca_file, context)
        return context


async def dial(target: Target, tls: TlsContexts, make_protocol: Callable[[], P]) -> P:
    """Raises Unavailable with the reason. Cancellation leaves no socket behind."""
    context = await tls.get(target.ca_file) if target.tls else None
    proxy = target.proxy
    if proxy is None:
        sock = await _connect(target.host, target.port, target.name)
    else:
        sock = await _connect(proxy.host, proxy.port, f"the proxy {proxy.host}:{proxy.port}")
    try:
        if proxy is not None and context is not None:
            await _open_tunnel(sock, proxy, target.name)
        _, protocol = await asyncio.get_running_loop().create_connection(
            make_protocol,
            sock=sock,
            ssl=context,
            server_hostname=target.host if context is not None else None,
        )
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            raise _secured_not(error, target.name) from error
        raise
    return protocol


async def _connect(host: str, port: int, name: str) -> socket.socket:
    try:
        addresses = await _resolve(host, port)
    except OSError as error:
        raise Unavailable(
            f"no address is known for {name}: is the host name right?", detail=str(error)
        ) from error
    try:
        sock = await _race(addresses)
    except ConnectionRefusedError as error:
        raise Unavailable(
            f"{name} refused the connection: does the server run?", detail=str(error)
        ) from error
    except OSError as error:
        raise Unavailable(
            f"cannot connect to {name}: {error.strerror or error}", detail=str(error)
        ) from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


async def _resolve(host: str, port: int) -> Sequence[Address]:
    """Families take turns, the resolver's favourite first."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses: list[Address] = [(family, where) for family, _, _, _, where in found]
    if not addresses:
        raise OSError("the resolver gave an empty list")
    first = [a for a in addresses if a[0] == addresses[0][0]]
    other = [a for a in addresses if a[0] != addresses[0][0]]
    turns = chain.from_iterable(zip_longest(first, other))
    return [a for a in turns if a is not None][:ADDRESSES_MAX]


async def _race(addresses: Sequence[Address]) -> socket.socket:
    """The first that connects. Raises the first address's error if none does."""
    opened: list[socket.socket] = []
    attempts: list[asyncio.Task[socket.socket]] = []
    winner: socket.socket | None = None
    try:
        for address in addresses:
            attempts.append(asyncio.create_task(_attempt(address, opened)))
            last = len(attempts) == len(addresses)
            winner = await _first_success(attempts, None if last else ATTEMPT_DELAY_S)
            if winner is not None:
                return winner
        raise attempts[0].exception() or OSError("no address answered")
    finally:
        running = [a for a in attempts if not a.done()]
        for attempt in running:
            attempt.cancel()
        if running:
            await asyncio.wait(running)
        for sock in opened:
            if sock is not winner:
                sock.close()


async def _first_success(
    attempts: Sequence[asyncio.Task[socket.socket]], wait_s: float | None
) -> socket.socket | None:
    """None when all failed, or none has succeeded within `wait_s` (the next address's turn)."""
    running = {a for a in attempts if not a.done()}
    while running:
        done, running = await asyncio.wait(running, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        for attempt in done:
            if attempt.exception() is None:
                return attempt.result()
        if not done or wait_s is not None:
            return None
    return None


async def _attempt(address: Address, opened: list[socket.socket]) -> socket.socket:
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    opened.append(sock)
    sock.settimeout(0)
    await asyncio.get_running_loop().sock_connect(sock, where)
    return sock


async def _open_tunnel(sock: socket.socket, proxy: Proxy, authority: str) -> None:
    loop = asyncio.get_running_loop()
    request = f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n".encode()
    if proxy.authorization is not None:
        request += b"proxy-authorization: %b\r\n" % proxy.authorization
    await loop.sock_sendall(sock, request + b"\r\n")
    answer = b""
    # Nothing can follow the head yet: in TLS the client speaks first.
    while b"\r\n\r\n" not in answer:
        data = await loop.sock_recv(sock, 4096)
        answer += data
        if not data or len(answer) > PROXY_ANSWER_BYTES_MAX:
            raise Unavailable(f"{proxy!r} did not answer CONNECT with HTTP", detail=repr(answer[:80]))
    status = answer[9:12]
    if not answer.startswith(b"HTTP/1.") or not status.startswith(b"2"):
        hint = ": it wants other credentials" if status == b"407" else ""
        raise Unavailable(f"{proxy!r} refused a tunnel to {authority}{hint}", detail=repr(answer[:80]))


def _secured_not(error: OSError, name: str) -> FreeholdError:
    match error:
        case ssl.SSLCertVerificationError():
            return Unavailable(
                f"the TLS certificate of {name} is not trusted: {error.verify_message}", detail=str(error)
            )
        case ssl.SSLError():
            return Unavailable(
                f"TLS with {name} failed: {error.reason or 'no reason given'}", detail=str(error)
            )
        case _:
            return Unavailable(f"{name} closed the connection while it was set up", detail=str(error))
