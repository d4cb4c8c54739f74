"""A route among vendors on sockets, with a clock that tests move and pauses that they end."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from freehold.core.policy import Principal
from freehold.core.records import CallRecord
from freehold.core.resources import Provider, Resource
from freehold.core.routes import Route, RouteModel
from freehold.gateway.forwarding import Passed, Passing
from freehold.gateway.health import Health
from freehold.gateway.passing import Envelope
from freehold.gateway.pipeline import Gateway
from freehold.providers._http import Timeouts
from freehold.providers._upstream import TIMEOUTS
from tests._waiting import within
from tests.gateway._vendors import Step, Vendor, anthropic_request, openai_request
from tests.gateway.conftest import ANN, WIRES, House, open_house

REQUESTS = {"openai_chat": openai_request, "anthropic_messages": anthropic_request}


class HandClock:
    """Goes where it is moved: `s` is both the time of day, since 1970, and the clock that never goes back. Chance is a half."""

    def __init__(self) -> None:
        self.s = datetime(2026, 11, 21, tzinfo=UTC).timestamp() + 1000

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.s, UTC)

    def now_ms(self) -> int:
        return int(self.s * 1000)

    def monotonic_s(self) -> float:
        return self.s

    def entropy(self, size_bytes: int) -> bytes:
        return b"\x80" + bytes(size_bytes - 1)


class Pauses:
    """Each ends at once and moves the clock, or waits to be ended."""

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock
        self.asked_s: list[float] = []
        self.held: asyncio.Event | None = None

    async def __call__(self, seconds: float) -> None:
        self.asked_s.append(seconds)
        if self.held is not None:
            await self.held.wait()
        self._clock.s += seconds


class Scene:
    def __init__(self, house: House, vendors: Mapping[str, Vendor], clock: HandClock) -> None:
        self.house = house
        self.vendors = vendors
        self.clock = clock
        self.pauses = Pauses(clock)
        self.gateway = Gateway(
            models=house.models, wires=WIRES, records=house.spool, clock=clock, pause=self.pauses  # type: ignore[arg-type]
        )  # fmt: skip

    @property
    def records(self) -> list[CallRecord]:
        return self.house.spool.records

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        return [(one.provider, one.outcome) for one in self.records]

    @property
    def asked(self) -> dict[str, int]:
        return {name: len(vendor.asked) for name, vendor in self.vendors.items()}

    async def health(self, model: str) -> Health:
        await self.house.models.resolve("acme", "smart")
        found = self.house.models._tenants["acme"].routes.health[model]
        assert isinstance(found, Health)
        return found

    async def ask(
        self,
        *,
        wire: str = "openai_chat",
        stream: bool = False,
        model: str = "smart",
        principal: Principal = ANN,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> bytes:
        """The answer's bytes, in the client's wire."""
        body = REQUESTS[wire](model, stream=stream, **more)
        async with (
            within("the answer"),
            self.gateway.forward(
                principal, Envelope(body), wire=WIRES[wire], headers=headers or {}
            ) as answer,
        ):
            if isinstance(answer, Passed):
                return answer.body
            if isinstance(answer, Passing):
                return b"".join([chunk async for chunk in answer.chunks()])
            encoder = WIRES[wire].stream_encoder(answer.request)
            return b"".join([encoder.encode(event) async for event in answer])


@asynccontextmanager
async def scene(
    scripts: Mapping[str, Sequence[Sequence[Step]]],
    route: Mapping[str, Any] | None = None,
    *,
    members: Mapping[str, Mapping[str, Any]] | None = None,
    types: Mapping[str, str] | None = None,
    declared: Sequence[Resource] = (),
    timeouts: Timeouts = TIMEOUTS,
) -> AsyncIterator[Scene]:
    """Vendors by name, each with its scripts; `smart` is a route among their models `m`, in this order."""
    async with AsyncExitStack() as stack:
        vendors = {name: await stack.enter_async_context(Vendor(*one)) for name, one in scripts.items()}
        house = await stack.enter_async_context(
            open_house(timeouts=timeouts, rows={}, environment={"KEY": "sk-key"})
        )
        for name, vendor in vendors.items():
            kind = (types or {}).get(name, "openai")
            url = vendor.url if kind == "anthropic" else f"{vendor.url}/v1"
            house.declared.declare(Provider(name=name, type=kind, base_url=url, api_key="env:KEY"))
        models = tuple(RouteModel(model=f"{name}/m", **(members or {}).get(name, {})) for name in vendors)
        house.declared.declare(Route(name="smart", **{"models": models, **(route or {})}), *declared)
        yield Scene(house, vendors, HandClock())
