"""The gateway on real parts: the adapters, the wires, the price lists and a pool; only the vendors are scripted."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from freehold import plugins, providers
from freehold.catalog import catalog, prices
from freehold.catalog.catalog import ProviderRow
from freehold.clock import SystemClock
from freehold.core.errors import Unavailable
from freehold.core.policy import ALLOW_ALL, Principal
from freehold.core.ports import Versioned
from freehold.core.records import CallRecord
from freehold.core.resources import Kind, Resource, kind_of
from freehold.gateway.models import ModelTable
from freehold.gateway.pipeline import Gateway
from freehold.gateway.targets import OpenProvider
from freehold.governance.secrets import Secrets
from freehold.providers._http import HttpPool, Timeouts
from freehold.providers._upstream import TIMEOUTS, patience
from freehold.providers.rules import RulesProvider
from freehold.wires.anthropic_messages import WIRE as ANTHROPIC_MESSAGES
from freehold.wires.openai_chat import WIRE as OPENAI_CHAT

BOOK = prices.load()
CREATES = plugins.found(providers, "create")
WIRES = {wire.name: wire for wire in (OPENAI_CHAT, ANTHROPIC_MESSAGES)}
ANN = Principal("acme", "service", "key_ann", (ALLOW_ALL,))


class Declared:
    """The Resources port as far as the gateway reads it."""

    def __init__(self) -> None:
        self.resources: list[Resource] = []
        self.away = False
        self.reads_count = 0
        self._generation = 1

    def declare(self, *resources: Resource) -> None:
        for resource in resources:
            key = (kind_of(resource), resource.name)
            self.resources = [one for one in self.resources if (kind_of(one), one.name) != key] + [resource]
        self._generation += 1

    def generation(self) -> int:
        return self._generation

    async def list(self, tenant: str, kind: Kind | None = None) -> Sequence[Versioned]:
        self.reads_count += 1
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("the database is away")
        now = datetime.now(UTC)
        return [
            Versioned(resource=one, version=1, created_at=now, updated_at=now)
            for one in self.resources
            if tenant == "acme" and kind in {None, kind_of(one)}
        ]


class Spool:
    """The CallRecords port: keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    def add(self, record: CallRecord) -> None:
        self.records.append(record)

    @property
    def only(self) -> CallRecord:
        (record,) = self.records
        return record


class House:
    def __init__(self, pool: HttpPool, declared: Declared, table: ModelTable) -> None:
        self.pool = pool
        self.declared = declared
        self.models = table
        self.spool = Spool()
        self.gateway = Gateway(models=table, wires=WIRES, records=self.spool, clock=SystemClock())  # type: ignore[arg-type]


def adapters(pool: HttpPool, timeouts: Timeouts) -> Mapping[str, OpenProvider]:
    """All there are, those of HTTP with the test's own patience."""

    def opening(name: str, create: Any) -> OpenProvider:
        def open_(row: ProviderRow, key: str | None, headers: Mapping[str, str]) -> Any:
            given = {} if name == "recorded" else {"timeouts": patience(row.timeouts, timeouts)}
            return create(row, key, headers=headers, pool=pool, **given)

        return open_

    return {name: opening(name, create) for name, create in CREATES.items()}


@asynccontextmanager
async def open_house(
    *,
    rows: Mapping[str, ProviderRow] | None = None,
    environment: Mapping[str, str] | None = None,
    upstreams: Mapping[str, str] | None = None,
    timeouts: Timeouts = TIMEOUTS,
) -> AsyncIterator[House]:
    declared = Declared()
    async with HttpPool(drain_s=0.1) as pool:
        table = ModelTable(
            rows=catalog.providers() if rows is None else rows,
            adapters=adapters(pool, timeouts),
            resources=declared,  # type: ignore[arg-type]
            resolve_secret=Secrets(environment or {}).resolve,
            prices=BOOK,
            rules=RulesProvider,
            upstreams=upstreams,
        )
        yield House(pool, declared, table)
