"""The world outside: a service that counts what it is asked to do, by idempotency key. `python -m tests.chaos._ledger SOCKET`

It answers on a Unix socket, which no cut network reaches, says `ready`, and lives as long as its standard input. A line `do KEY FUNCTION` is answered with `done` once it is counted;
`counts` with all counts as JSON. After `hold`, whoever asks it to do something waits for his answer until `free`; `held` says how
many do. After `slow`, some answers take seconds. It knows nothing of Freehold, and no fault reaches it.
"""

import asyncio
import json
import random
import sys
from collections import Counter

from freehold.core.errors import Unavailable

SLOW_S = (0.0, 0.0, 0.3, 1.0, 2.0)
"""Longer than a lease, so that a worker may be frozen, or cut off, in the middle of an effect."""


class Ledger:
    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.free = asyncio.Event()
        self.free.set()
        self.held = 0
        self.delays_s: tuple[float, ...] = (0.0,)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                match line.decode().split():
                    case ["do", key, function]:
                        self.asked[f"{function} {key}"] += 1
                        self.held += 1
                        await self.free.wait()
                        await asyncio.sleep(random.choice(self.delays_s))
                        self.held -= 1
                        writer.write(b"done\n")
                    case ["slow"]:
                        self.delays_s = SLOW_S
                        writer.write(b"slow\n")
                    case ["hold"]:
                        self.free.clear()
                        writer.write(b"held\n")
                    case ["free"]:
                        self.free.set()
                        writer.write(b"freed\n")
                    case ["held"]:
                        writer.write(f"{self.held}\n".encode())
                    case _:
                        writer.write(json.dumps(self.asked).encode() + b"\n")
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


async def ask(ledger: str, line: str) -> str:
    """Raises Unavailable, after which nobody knows whether it was counted."""
    try:
        reader, writer = await asyncio.open_unix_connection(ledger, limit=2**26)
        try:
            writer.write(line.encode() + b"\n")
            answer = await reader.readline()
        finally:
            writer.close()
    except OSError as error:
        raise Unavailable("the ledger does not answer") from error
    return answer.decode().strip()


async def main(socket: str) -> None:
    await asyncio.start_unix_server(Ledger().answer, socket)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
