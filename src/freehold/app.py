"""The composition root: the only file that names concrete adapters. Opens what lives long, in order; closes it in reverse."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

import freehold.providers
import freehold.tools
import freehold.wires
from freehold import plugins
from freehold.background import background
from freehold.catalog import catalog, prices
from freehold.clock import SystemClock
from freehold.companions import companions
from freehold.config import Config
from freehold.core import ids
from freehold.core.errors import BadRequest
from freehold.core.policy import Principal
from freehold.core.ports import EmbeddingWire, ModelInfo, Objects, ToolKind, Wire
from freehold.core.ports import Provider as ProviderPort
from freehold.gateway import listing
from freehold.gateway.batch_worker import BatchMeans, BatchSettings, BatchWorker
from freehold.gateway.batches import Batches
from freehold.gateway.caching import Caching
from freehold.gateway.canaries import Canaries
from freehold.gateway.figures import Exchange
from freehold.gateway.leasing import Leasing
from freehold.gateway.limiting import Limiting
from freehold.gateway.models import ModelTable
from freehold.gateway.pipeline import Gateway
from freehold.gateway.residency import Place
from freehold.gateway.shadowing import Shadows
from freehold.governance.keys import AccessPair, KeyTable, id_of
from freehold.governance.principals import DEFAULT_TENANT, PrincipalTable
from freehold.governance.secrets import Secrets
from freehold.governance.signing import Signing
from freehold.governance.stream_tokens import StreamTokens
from freehold.health import Health
from freehold.postman import telling
from freehold.providers import rules as rules_provider
from freehold.providers._http import HttpPool, Timeouts
from freehold.providers._upstream import patience
from freehold.resources.templates import Templates
from freehold.runtime.declared import Declarations
from freehold.runtime.equipment import Equipments
from freehold.runtime.live import Live
from freehold.runtime.means import Means
from freehold.runtime.offload import Results
from freehold.runtime.outside import Telling
from freehold.runtime.relay import Relay
from freehold.runtime.replays import Replays
from freehold.runtime.retaining import Retaining
from freehold.runtime.schedules_service import DeploymentService
from freehold.runtime.schedules_worker import ScheduleMeans, Scheduler
from freehold.runtime.sessions import Sessions
from freehold.runtime.subagents import Subagents
from freehold.runtime.tools import ToolSet
from freehold.runtime.worker import Worker, WorkerSettings
from freehold.server import app as server
from freehold.server.apis import (
    agents,
    allowances,
    conversations,
    costs,
    data,
    deployments,
    environments,
    events,
    experiments,
    families,
    keys,
    message_batches,
    models,
    replays,
    responses,
    retention,
    routes,
    sessions,
    slos,
    templates,
    threads,
    tokens,
    tools,
    webhooks,
)
from freehold.server.apis.responses_background import ResponseRuns
from freehold.server.apis.responses_keeping import WIRE as RESPONSES
from freehold.server.apis.responses_keeping import Keeper as ResponseKeeper
from freehold.server.authentication import Authentication
from freehold.server.bedrock import BedrockDoor
from freehold.server.embeddings import EmbeddingsDoor
from freehold.server.front import Front
from freehold.server.google import GoogleDoor
from freehold.server.operations import Door, Operation
from freehold.store._passwords import Passwords
from freehold.store.blobs import open_objects
from freehold.store.data_folder import data_folder, locked
from freehold.store.databases import Databases, DatabaseUrls
from freehold.store.embedded import PASSWORDS_NAME, EmbeddedServer, embedded, running_server
from freehold.store.store import Store, open_store
from freehold.tool_host import Host
from freehold.wires import google_embed, google_predict
from freehold.wires.openai_embeddings import EMBEDDINGS

PEPPER_BYTES: Final = 32
NATIVE_DIALECT: Final = "anthropic_messages"
"""Errors of the native API look like Anthropic's, as its other shapes do."""

_FORGETFUL: Final = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}

GOOGLE_DIALECT: Final = "google_generate"
GOOGLE_EMBEDDING: Final[Mapping[str, EmbeddingWire]] = {
    "embedContent": google_embed.ALONE,
    "batchEmbedContents": google_embed.EMBEDDINGS,
    "predict": google_predict.EMBEDDINGS,
}
HOT_PATHS: Final[Mapping[str, str]] = {
    "/v1/chat/completions": "openai_chat",
    "/v1/messages": "anthropic_messages",
    "/v1/responses": "openai_responses",
}


class House(Struct, frozen=True):
    """A server that is ready: `app` is ASGI. `first_key`, and the pair that signs for it, are there at the very first start only.

    `redact` takes secrets out of text: every one that was resolved, and what looks like one.
    """

    app: server.Server
    operator_key: str
    first_key: str | None
    first_pair: AccessPair | None
    redact: Callable[[str], str]


class Workshop(Struct, frozen=True):
    """A worker that works, without a door. `database_socket` is gone once the embedded PostgreSQL that it works on has stopped."""

    worker: Worker
    health: "Health"
    redact: Callable[[str], str]
    database_socket: Path | None


@asynccontextmanager
async def open_house(config: Config, *, throwaway: bool = False, works: bool = True) -> AsyncIterator[House]:
    """Raises Conflict when another server has the data folder, Unavailable when the database can't be had.

    `throwaway`: nothing needs to outlive this run, so the embedded database does without waiting for the disk. Unless it `works`,
    it leaves sessions and batches to workers.
    """
    folder = data_folder(config.data_folder)
    async with AsyncExitStack() as stack:
        keeper = await _database(stack, config, folder, _FORGETFUL if throwaway else {})
        urls = await _application_databases(keeper, config, folder)
        objects = _objects(config, folder, secrets_of := Secrets(config.environment))
        store = await stack.enter_async_context(
            open_store(
                keeper.url,
                objects=objects,
                process_id=f"freehold {os.getpid()}",
                spool_folder=folder / "spool",
                responses_days=config.responses.retention_days,
            )
        )
        if isinstance(keeper, _Embedded):
            # Its folder is locked: what held a lease before is dead, none need be waited for.
            await store.log.free_leases()
            await store.message_batches.free_leases()
        # Before the worker: sessions that go on at once may need them.
        await stack.enter_async_context(companions(config.companions, log_folder=folder))
        house = await _furnish(stack, config, folder, store, secrets_of, urls, works=works)
        yield house


@asynccontextmanager
async def open_workshop(config: Config) -> AsyncIterator[Workshop]:
    """On the database behind DATABASE_URL, or on that of the server that runs on the data folder. Raises Unavailable."""
    folder = data_folder(config.data_folder)
    async with AsyncExitStack() as stack:
        url, socket = config.database.url, None
        if url is None:
            url, socket = running_server(folder)
        databases = Databases(url, Passwords(folder / PASSWORDS_NAME))
        urls = {name: await databases.ensure(name) for name in config.databases}
        objects = _objects(config, folder, secrets_of := Secrets(config.environment))
        store = await stack.enter_async_context(
            open_store(
                url,
                objects=objects,
                process_id=f"freehold worker {os.getpid()}",
                spool_folder=folder / "spool",
                responses_days=config.responses.retention_days,
            )
        )
        # Nobody presents a key here; whose a session is, is told by its id.
        inside = await _inside(
            stack, config, store, secrets_of, urls, pepper=secrets.token_bytes(PEPPER_BYTES)
        )
        await _work_on_batches(stack, config, store, inside)
        worker = _worker(config, store, inside, _fore(config, store, inside))
        await stack.enter_async_context(worker.running())
        await stack.enter_async_context(inside.scheduler.running())
        health = Health(store.database.check, lambda: store.records.trouble)
        await stack.enter_async_context(health.running())
        yield Workshop(worker, health, secrets_of.redact, socket)


class Keeper(Protocol):
    """Whoever keeps the databases: the embedded server, or the one behind DATABASE_URL."""

    @property
    def url(self) -> str: ...
    async def ensure(self, name: str) -> DatabaseUrls: ...


class _Embedded(Struct, frozen=True):
    server: EmbeddedServer

    @property
    def url(self) -> str:
        return self.server.dsn()

    async def ensure(self, name: str) -> DatabaseUrls:
        return await self.server.ensure_database(name)


class _External(Struct, frozen=True):
    url: str
    databases: Databases

    async def ensure(self, name: str) -> DatabaseUrls:
        return await self.databases.ensure(name)


async def _database(
    stack: AsyncExitStack, config: Config, folder: Path, settings: Mapping[str, str]
) -> Keeper:
    if config.database.url is None:
        return _Embedded(await stack.enter_async_context(embedded(folder, settings=settings)))
    stack.enter_context(locked(folder))
    passwords = Passwords(folder / PASSWORDS_NAME)
    return _External(config.database.url, Databases(config.database.url, passwords))


async def _application_databases(keeper: Keeper, config: Config, folder: Path) -> dict[str, DatabaseUrls]:
    urls = {name: await keeper.ensure(name) for name in config.databases}
    told = {name: {"owner": one.owner, "reader": one.reader} for name, one in urls.items()}
    write_private(folder / "databases.json", msgspec.json.encode(told))
    return urls


def _objects(config: Config, folder: Path, secrets_of: Secrets) -> Objects:
    given = config.objects
    references = {"access_key_id": given.access_key_id, "secret_access_key": given.secret_access_key}
    settings = {name: secrets_of.resolve(reference) for name, reference in references.items() if reference}
    plain = {"endpoint": given.endpoint, "region": given.region}
    settings |= {name: value for name, value in plain.items() if value}
    return open_objects(given.url or str(folder / "objects"), settings)


class _Inside(Struct, frozen=True):
    """What servers and workers have alike."""

    clock: SystemClock
    wires: dict[str, Wire]
    kinds: dict[str, ToolKind]
    keys: KeyTable
    principals: PrincipalTable
    models: ModelTable
    gateway: Gateway
    means: Means
    limiting: Limiting
    sessions: Sessions
    scheduler: Scheduler
    figures: Exchange
    retaining: Retaining


async def _inside(
    stack: AsyncExitStack,
    config: Config,
    store: Store,
    secrets_of: Secrets,
    urls: Mapping[str, DatabaseUrls],
    *,
    pepper: bytes,
    operator_key: str | None = None,
) -> _Inside:
    clock = SystemClock()
    wires: dict[str, Wire] = plugins.found(freehold.wires, "WIRE")
    kinds: dict[str, ToolKind] = plugins.found(freehold.tools, "KIND")
    key_table = KeyTable(store.keys, pepper=pepper, clock=clock)
    await key_table.load()
    principals = PrincipalTable(key_table, operator_key=operator_key)
    book = await asyncio.to_thread(prices.load)
    model_table = await _models(stack, config, store, secrets_of, book)
    leasing = Leasing(store.allowances, clock)
    await stack.enter_async_context(leasing.running())
    limiting = Limiting(store.resources, store.allowances, leasing, clock)
    shadows, canaries = Shadows(), Canaries(store.experiments, clock)
    figures = Exchange(store.figures, model_table, clock, store.experiments)
    retaining = Retaining(store.retention, store.log, clock, default_days=config.sessions.retention_days)
    for lasting in (shadows, canaries, figures, retaining):
        await stack.enter_async_context(lasting.running())
    gateway = Gateway(
        models=model_table,
        wires=wires,
        records=store.records,
        clock=clock,
        limiting=limiting,
        caching=Caching(clock, model_table.home, store.answers),
        shadows=shadows,
        canaries=canaries.percent,
    )
    children = Subagents(store.log, store.resources, clock)
    host = Host(secrets_of, urls, store.key_values, store.objects, children, config.tools.function_folders)
    tools = ToolSet(kinds, host)
    live = Live(relay := Relay(store.live, clock))
    means = Means(
        log=store.log,
        gateway=gateway,
        declarations=Declarations(store.resources),
        equipments=Equipments(store.log),
        places=store.tool_places,
        expecting=store.expected_events,
        tools=tools,
        results=Results(store.objects),
        principals=principals,
        live=live,
        clock=clock,
    )
    await stack.enter_async_context(relay.running(live))
    await stack.enter_async_context(background(key_table.follow(), "keys"))
    await stack.enter_async_context(tools.running())
    sessions = Sessions(store.log, store.resources, live, clock, results=means.results, home=model_table.home)
    schedules = ScheduleMeans(
        kept=store.deployments,
        sessions=sessions,
        declarations=means.declarations,
        principals=principals,
        clock=clock,
    )
    scheduler = Scheduler(schedules)
    return _Inside(
        clock,
        wires,
        kinds,
        key_table,
        principals,
        model_table,
        gateway,
        means,
        limiting,
        sessions,
        scheduler,
        figures,
        retaining,
    )


class _Fore(Struct, frozen=True):
    """What model calls come through: those of clients, and those of responses in the background."""

    door: Door
    keeper: ResponseKeeper
    front: Front


def _fore(config: Config, store: Store, inside: _Inside) -> _Fore:
    wires, clock = inside.wires, inside.clock
    door = Door(
        authenticate=Authentication(inside.principals),
        dialect=wires[NATIVE_DIALECT],
        clock=clock,
        body_bytes_max=config.server.body_bytes_max,
    )
    keeper = ResponseKeeper(store.responses, store.conversations, inside.gateway, clock)
    front = Front(
        paths={path.encode(): wires[wire] for path, wire in HOT_PATHS.items()},
        gateway=inside.gateway,
        door=door,
        keepers={RESPONSES: keeper},
    )
    return _Fore(door, keeper, front)


def _worker(config: Config, store: Store, inside: _Inside, fore: _Fore) -> Worker:
    settings = WorkerSettings(
        sessions_max=config.runtime.sessions_max,
        tenant_max=config.runtime.tenant_sessions_max,
        lease_s=config.runtime.lease_s,
        drain_s=config.server.drain_s,
    )
    runs = ResponseRuns(
        front=fore.front,
        wire=inside.wires[RESPONSES],
        keeper=fore.keeper,
        responses=store.responses,
        principals=inside.principals,
    )
    return Worker(inside.means, settings, {"response": runs})


async def _furnish(
    stack: AsyncExitStack,
    config: Config,
    folder: Path,
    store: Store,
    secrets_of: Secrets,
    urls: Mapping[str, DatabaseUrls],
    *,
    works: bool,
) -> House:
    operator_key = f"fh_operator_{secrets.token_urlsafe(32)}"
    inside = await _inside(
        stack, config, store, secrets_of, urls, pepper=_pepper(folder), operator_key=operator_key
    )
    clock, wires, gateway = inside.clock, inside.wires, inside.gateway
    key_table, principals = inside.keys, inside.principals
    first_key = await key_table.ensure_first_key(DEFAULT_TENANT)
    fore = _fore(config, store, inside)
    if works:
        await stack.enter_async_context(_worker(config, store, inside, fore).running())
        await stack.enter_async_context(inside.scheduler.running())
    means = inside.means
    outside = Telling(store.expected_events, store.log, means.results, means.declarations)
    await stack.enter_async_context(outside.running())
    signing = Signing(_pepper(folder))
    await stack.enter_async_context(telling(config.webhooks, store.webhooks, signing, clock))
    stream_tokens = StreamTokens(_pepper(folder), principals.now, clock)
    operations = _operations(config, store, inside, fore.keeper, signing, stream_tokens, secrets_of)
    if works:
        await _work_on_batches(stack, config, store, inside)
    health = Health(store.database.check, lambda: store.records.trouble)
    await stack.enter_async_context(health.running())
    vendor_doors = (
        BedrockDoor(front=fore.front, signer=key_table.signer),
        GoogleDoor(
            wire=wires[GOOGLE_DIALECT],
            embedding=GOOGLE_EMBEDDING,
            front=fore.front,
        ),
        EmbeddingsDoor(wire=EMBEDDINGS, gateway=gateway, door=fore.door),
    )
    app = server.build(fore.front, vendor_doors, fore.door, operations, health.look)
    first_pair = None if first_key is None else key_table.pair(id_of(first_key))
    return House(app, operator_key, first_key, first_pair, secrets_of.redact)


def _operations(
    config: Config,
    store: Store,
    inside: _Inside,
    keeper: ResponseKeeper,
    signing: Signing,
    stream_tokens: StreamTokens,
    secrets_of: Secrets,
) -> list[Operation]:
    clock, wires, gateway, model_table = inside.clock, inside.wires, inside.gateway, inside.models
    declarations = inside.means.declarations
    declared = Templates(
        store.resources,
        clock,
        tool_configs={name: kind.config for name, kind in inside.kinds.items()},
        provider_types=sorted({*_adapters(config), *catalog.providers()}),
        check_model=partial(listing.check_model, model_table),
        check_rules=rules_provider.check,
        finds_likeness=store.answers.finds_likeness,
        private_webhooks=config.webhooks.allow_private,
    )
    return [
        *agents.operations(store.resources, clock),
        *environments.operations(store.resources, clock),
        *sessions.operations(inside.sessions, declarations, stream_tokens),
        *threads.operations(inside.sessions, declarations, stream_tokens),
        *deployments.operations(
            DeploymentService(store.deployments, store.resources, inside.scheduler, clock), clock
        ),
        *families.operations(inside.sessions, declarations),
        *retention.operations(inside.retaining, store.resources),
        *replays.operations(Replays(store.log, gateway, clock)),
        *templates.operations(declared, store.resources),
        *data.operations(store.key_values, store.objects),
        *keys.operations(inside.keys, clock),
        *events.operations(store.expected_events, store.resources, secrets_of.resolve, clock),
        *webhooks.operations(
            store.resources, store.webhooks, signing, private_allowed=config.webhooks.allow_private
        ),
        *allowances.operations(inside.limiting, store.allowances, store.records, clock),
        *costs.operations(store.costs, store.records, store.resources, clock),
        *models.operations(model_table, partial(_visible, model_table, clock)),
        *routes.operations(gateway, store.resources, wires, inside.figures.refresh),
        *slos.operations(model_table, clock, inside.figures.refresh),
        *tools.operations(store.resources, store.tool_places),
        *experiments.operations(store.experiments, store.records, store.resources),
        *tokens.operations(gateway),
        *responses.operations(store.responses, keeper, gateway, dialect=wires[RESPONSES]),
        *conversations.operations(
            store.conversations, clock, dialect=wires[RESPONSES], home=model_table.home
        ),
        *message_batches.operations(Batches(store.message_batches, gateway, wires[NATIVE_DIALECT], clock)),
    ]


async def _work_on_batches(stack: AsyncExitStack, config: Config, store: Store, inside: _Inside) -> None:
    own = BatchMeans(
        kept=store.message_batches,
        gateway=inside.gateway,
        principals=inside.principals,
        wire=inside.wires[NATIVE_DIALECT],
        clock=inside.clock,
    )
    settings = BatchSettings(
        calls_max=config.runtime.batch_calls_max,
        lease_s=config.runtime.lease_s,
        drain_s=config.server.drain_s,
    )
    await stack.enter_async_context(BatchWorker(own, settings).running())


async def _models(
    stack: AsyncExitStack, config: Config, store: Store, secrets_of: Secrets, book: prices.PriceBook
) -> ModelTable:
    pool = await stack.enter_async_context(HttpPool())
    adapters = {
        name: lambda row, key, headers, create=create: create(
            row, key, headers=headers, pool=pool, **_patience(row)
        )
        for name, create in _adapters(config).items()
    }
    table = ModelTable(
        rows=catalog.providers(),
        adapters=adapters,
        resources=store.resources,
        resolve_secret=secrets_of.resolve,
        prices=book,
        rules=rules_provider.RulesProvider,
        upstreams=config.models.upstreams,
        home=Place(config.residency.regions, config.residency.labels),
    )
    if config.models.discover_local:
        await table.discover()
    return table


def _patience(row: catalog.ProviderRow) -> dict[str, Timeouts]:
    """Of rows that say so: an adapter that asks nobody has none."""
    return {} if row.timeouts is None else {"timeouts": patience(row.timeouts)}


def _adapters(config: Config) -> dict[str, Any]:
    found = plugins.found(freehold.providers, "create")
    folder, create = config.models.recordings_folder, found.pop("recorded")
    return found if folder is None else {**found, "recorded": partial(_recorded, create, Path(folder))}


def _recorded(
    create: Any, folder: Path, row: catalog.ProviderRow, key: str | None, **bound: Any
) -> ProviderPort:
    """Who may declare a provider must not be able to have any file of the server read."""
    path = Path(row.base_url.removeprefix("file:").removeprefix("//"))
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BadRequest("a recording must lie in the folder models.recordings_folder", field="base_url")
    return create(row, key, **bound)  # type: ignore[no-any-return]  # found by name, so its type is not known here


async def _visible(table: ModelTable, clock: SystemClock, principal: Principal) -> Sequence[ModelInfo]:
    return await listing.visible(table, principal, clock=clock)


def _pepper(folder: Path) -> bytes:
    """Made once. Whoever loses it loses every API key; whoever reads it can sign AWS requests as any key whose id he knows."""
    path = folder / "pepper"
    if not path.exists():
        write_private(path, secrets.token_bytes(PEPPER_BYTES))
    return path.read_bytes()


def write_private(path: Path, content: bytes) -> None:
    """All or nothing, readable by its owner only."""
    staged = path.with_name(f"{path.name}.{ids.new('blob', SystemClock())}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    staged.replace(path)
