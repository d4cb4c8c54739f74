"""What the gateway itself costs per call, without sockets: CPU microseconds, least and median of several rounds.

    .venv/bin/python bench/gateway_pipeline.py

Authenticate, read the envelope, resolve, authorize, pass to a provider that answers from memory, read usage, price, record.
The client's and the provider's sockets come on top (bench/http_client.py has the latter).
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from freehold.catalog import catalog, prices
from freehold.catalog.catalog import ProviderRow
from freehold.clock import SystemClock
from freehold.core.allowances import Ask, Budget, Grant, Limit, granted
from freehold.core.messages import ModelRequest
from freehold.core.ports import KeyRow, ModelInfo, Versioned
from freehold.core.records import CallRecord
from freehold.core.stream import Folding, StreamEvent, unfold
from freehold.gateway.forwarding import Passing
from freehold.gateway.leasing import Leasing
from freehold.gateway.limiting import Limiting
from freehold.gateway.models import ModelTable
from freehold.gateway.passing import Envelope
from freehold.gateway.pipeline import Gateway
from freehold.governance.keys import KeyTable
from freehold.wires.anthropic_messages import WIRE as ANTHROPIC
from freehold.wires.openai_chat import WIRE

ROUNDS = 7
CALLS = 5_000

USAGE = {"prompt_tokens": 120, "completion_tokens": 200, "total_tokens": 320}
CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "usage": None,
         "choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]}  # fmt: skip


def request(size: int, *, stream: bool = False, messages: int = 1) -> bytes:
    said = [{"role": "user", "content": "x" * (size // messages)} for _ in range(messages)]
    return msgspec.json.encode({"model": "openai/gpt-4o", "messages": said, "stream": stream})


def answer() -> bytes:
    message = {"role": "assistant", "content": "y" * 900}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return msgspec.json.encode({
        "id": "c",
        "object": "chat.completion",
        "model": "gpt-4o",
        "choices": [choice],
        "usage": USAGE,
    })


def events() -> list[bytes]:
    last = {**CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    said = [*[CHUNK] * 50, last, {**CHUNK, "choices": [], "usage": USAGE}]
    return [b"data: %b\n\n" % msgspec.json.encode(one) for one in said] + [b"data: [DONE]\n\n"]


class Raw:
    status = 200

    def __init__(self, whole: bytes, chunks: Sequence[bytes]) -> None:
        self.content_type = "text/event-stream" if chunks else "application/json"
        self._whole, self._left = whole, iter(chunks)

    async def read(self) -> bytes:
        return self._whole

    def chunks(self) -> AsyncIterator[bytes]:
        return self

    def __aiter__(self) -> "Raw":
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._left:
            return chunk
        raise StopAsyncIteration


class Called:
    """What a provider does with a translated call, but for the network."""

    def __init__(self, body: bytes, whole: bytes) -> None:
        self._body, self._whole = body, whole

    async def __aenter__(self) -> AsyncIterator[StreamEvent]:
        return Unfolded(unfold(WIRE.decode_response(self._whole, provider="openai")))

    async def __aexit__(self, *_: object) -> None:
        pass


class Unfolded:
    def __init__(self, events: Iterator[StreamEvent]) -> None:
        self._events = events

    def __aiter__(self) -> "Unfolded":
        return self

    async def __anext__(self) -> StreamEvent:
        for event in self._events:
            return event
        raise StopAsyncIteration


class FromMemory:
    """A provider without a network."""

    name = "openai"
    wire: str | None = "openai_chat"
    is_language_model = True
    whole, streamed = answer(), events()

    def call(self, request: ModelRequest) -> "Called":
        return Called(WIRE.encode_request(request, provider="openai"), self.whole)

    def forward(self, body: bytes, *, model: str, stream: bool, headers: Mapping[str, str]) -> "FromMemory":
        self._raw = Raw(self.whole, self.streamed if stream else ())
        return self

    async def __aenter__(self) -> Raw:
        return self._raw

    async def __aexit__(self, *_: object) -> None:
        pass

    async def models(self) -> Sequence[ModelInfo]:
        return ()


class Nothing:
    """Stores that hold nothing and wait for nothing."""

    def generation(self) -> int:
        return 1

    async def list(self, *_: object, **__: object) -> Sequence[Any]:
        return ()

    async def add(self, row: KeyRow) -> None:
        pass


class Declared(Nothing):
    """A budget, and a limit of each kind."""

    async def list(self, _tenant: str, kind: str, **__: object) -> Sequence[Any]:
        declared = {
            "budget": Budget(name="all", amount_usd="1000000"),
            "limit": Limit(
                name="all",
                requests_per_minute=10**9,
                tokens_per_minute=10**12,
                concurrent_calls_max=1000,
            ),
        }
        now = SystemClock().now()
        one = declared.get(kind)
        return [] if one is None else [Versioned(resource=one, version=1, created_at=now, updated_at=now)]


class Leases:
    """A database that gives all that is asked for."""

    def lease_id(self, allowance_id: str) -> str:
        return allowance_id

    def on_recall(self, hear: Callable[[str], None]) -> None:
        pass

    async def end_left(self) -> int:
        return 0

    async def lease(self, asks: Sequence[Ask], *, lease_s: float) -> Sequence[Grant]:
        return [granted(ask, spoken_for=0, others=0) for ask in asks]


class Spool:
    def __init__(self) -> None:
        self.count = 0

    def add(self, record: CallRecord) -> None:
        self.count += 1


async def measure(
    name: str, once: Callable[[], Awaitable[object]], *, per: int = 1, calls: int = CALLS
) -> None:
    for _ in range(200):
        await once()
    figures = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(calls):
            await once()
        figures.append((time.process_time() - began) / calls / per * 1e6)
    print(f"{name:58} {min(figures):8.2f} {statistics.median(figures):8.2f}")


async def main() -> None:
    clock, nothing, spool = SystemClock(), Nothing(), Spool()
    provider = FromMemory()

    def open_provider(_row: ProviderRow, _key: str | None, _headers: Mapping[str, str]) -> Any:
        return provider

    table = ModelTable(
        rows={"openai": catalog.providers()["openai"]},
        adapters={"openai": open_provider},
        resources=nothing,  # type: ignore[arg-type]
        resolve_secret=lambda _: "sk-x",
        prices=prices.load(),
        rules=lambda _: provider,  # type: ignore[arg-type,return-value]
    )
    wires = {WIRE.name: WIRE, ANTHROPIC.name: ANTHROPIC}
    leasing = Leasing(Leases(), clock)  # type: ignore[arg-type]
    unlimited = Limiting(nothing, Leases(), leasing, clock)  # type: ignore[arg-type]
    limiting = Limiting(Declared(), Leases(), leasing, clock)  # type: ignore[arg-type]
    gateway = Gateway(models=table, wires=wires, records=spool, clock=clock, limiting=unlimited)  # type: ignore[arg-type]
    limited = Gateway(models=table, wires=wires, records=spool, clock=clock, limiting=limiting)  # type: ignore[arg-type]
    keys = KeyTable(nothing, pepper=bytes(32), clock=clock)  # type: ignore[arg-type]
    plain = (await keys.create("default", "bench")).plain
    principal = keys.authenticate(plain)

    async def authenticated() -> None:
        keys.authenticate(plain)

    async def resolved() -> None:
        await table.resolve("default", "openai/gpt-4o", wire="openai_chat")

    def passed(body: bytes, gateway: Gateway = gateway) -> Callable[[], Awaitable[object]]:
        async def once() -> None:
            who, envelope = keys.authenticate(plain), Envelope(body)
            async with gateway.forward(who, envelope, wire=WIRE) as passing:
                if isinstance(passing, Passing):
                    async for _ in passing.chunks():
                        pass

        return once

    async def translated() -> None:
        who, folding = keys.authenticate(plain), Folding()
        async with gateway.forward(who, Envelope(asked), wire=ANTHROPIC) as answered:
            async for event in answered:
                folding.add(event)
        ANTHROPIC.encode_response(folding.response())

    asked = msgspec.json.encode({**msgspec.json.decode(request(600)), "max_tokens": 100})
    print(f"{'CPU microseconds':58} {'least':>8} {'median':>8}")
    await measure("authenticate", authenticated)
    await measure("resolve a known name", resolved)
    await measure("whole call, 0.6 KB request, 1 KB answer", passed(request(600)))
    async with leasing.running():
        await measure("the same under a budget and three limits", passed(request(600), limited))
        await measure("the same, 117 KB", passed(request(117_000, messages=60), limited), calls=2_000)
    await measure("the same, Anthropic's client and OpenAI's provider", translated)
    await measure("whole call, 30 KB request of 60 messages", passed(request(30_000, messages=60)))
    await measure("whole call, 117 KB request", passed(request(117_000, messages=60)), calls=2_000)
    chunks = len(provider.streamed)
    await measure("stream of 53 chunks, per chunk", passed(request(600, stream=True)), per=chunks, calls=500)
    assert spool.count
    assert principal.tenant == "default"


if __name__ == "__main__":
    asyncio.run(main())
