"""`/healthz` and `/readyz` for a process that has no other door: one request a connection, and nothing else is answered."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import msgspec

REQUEST_S_MAX: Final = 5.0
REQUEST_BYTES_MAX: Final = 8192
CONNECTIONS_MAX: Final = 32

Look: TypeAlias = Callable[[str], Awaitable[tuple[bool, dict[str, object]] | None]]
"""Whether it is well, and what is said of it; None where the path is none of ours."""


@asynccontextmanager
async def health_port(listening: socket.socket | None, look: Look) -> AsyncIterator[None]:
    """Answers until left. Without a socket it does nothing."""
    if listening is None:
        yield
        return
    places = asyncio.Semaphore(CONNECTIONS_MAX)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S_MAX), places:
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await _answer(head, look))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # Whoever asked is gone, or asked nonsense.
        finally:
            writer.close()

    server = await asyncio.start_server(answer, sock=listening, limit=REQUEST_BYTES_MAX)
    try:
        yield
    finally:
        server.close()


async def _answer(head: bytes, look: Look) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
    found = await look(path) if method in {b"GET", b"HEAD"} else None
    if found is None:
        found = False, {"error": "there are /healthz and /readyz here, to GET"}
        status = b"404 Not Found"
    else:
        status = b"200 OK" if found[0] else b"503 Service Unavailable"
    body = msgspec.json.encode(found[1])
    return (
        b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
        % (
            status,
            len(body),
            b"" if method == b"HEAD" else body,
        )
    )
