"""Money is conserved: whatever vendors, clients and processes do, records, settlements and the bill are one sum, and no budget is passed."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from freehold.store.embedded import EmbeddedServer
from tests._postgres import MIGRATED, disconnect_all, fresh_database
from tests._waiting import PATIENCE_S, eventually, until
from tests.gateway._vendors import Vendor
from tests.server._money import TEAMS, Plan, Traffic, conserved
from tests.server._process import Running, freehold
from tests.server._world import world

seeded = given(seed=st.integers(0, 2**32))
few = partial(
    settings,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.slow
@few(max_examples=1)
@seeded
async def test_money_is_conserved_whatever_vendors_and_clients_do(
    postgres_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    await in_one_server(postgres_server, tmp_path_factory.mktemp("money"), Plan(seed, 150), 150)


@pytest.mark.slow
@pytest.mark.timeout(600)
@few(max_examples=2)
@seeded
async def test_money_is_conserved_over_more_calls(
    postgres_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    await in_one_server(postgres_server, tmp_path_factory.mktemp("money"), Plan(seed, 1500), 1500)


async def in_one_server(server: EmbeddedServer, folder: Path, plan: Plan, calls_count: int) -> None:
    async with (
        fresh_database(server, template=MIGRATED) as url,
        world(url, folder) as own,
        AsyncExitStack() as stack,
    ):
        own.vendors["openai"].choose, own.vendors["anthropic"].choose = plan.openai, plan.anthropic
        await applied(own.http, plan)
        keys = await team_keys(own.http)
        doors = [await stack.enter_async_context(client(own.url, key)) for key in keys]
        traffic = Traffic(plan, lambda: doors)
        await traffic.run(calls_count)
        await traffic.until_refused()
        await eventually(partial(settled, own.http))
        await conserved(plan, traffic, own.http, url)


@pytest.mark.slow
@pytest.mark.timeout(600)
@few(max_examples=2)
@seeded
async def test_money_is_conserved_whatever_is_killed(
    postgres_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """Two servers share the budgets. One is killed while it answers, twice; every connection of both to the database is, too."""
    plan, folder = Plan(seed, 900), tmp_path_factory.mktemp("money")
    doors: dict[str, list[httpx2.AsyncClient]] = {}
    traffic = Traffic(plan, lambda: [one for some in doors.values() for one in some])
    async with (
        fresh_database(postgres_server, template=MIGRATED) as url,
        vendors(plan) as (openai, anthropic),
        AsyncExitStack() as stack,
    ):
        for name in ("staying", "killed"):
            ready(folder / name, openai, anthropic)
        staying = stack.enter_context(served(folder / "staying", url))
        await asyncio.to_thread(staying.ready)
        operator = await stack.enter_async_context(client(staying.url, staying.key))
        await applied(operator, plan)
        keys = await team_keys(operator)
        doors["staying"] = [await stack.enter_async_context(client(staying.url, key)) for key in keys]
        for life in range(3):
            with served(folder / "killed", url) as killed:
                await asyncio.to_thread(killed.ready)
                async with AsyncExitStack() as clients:
                    doors["killed"] = [
                        await clients.enter_async_context(client(killed.url, key)) for key in keys
                    ]
                    async with asyncio.TaskGroup() as both:
                        flowing = both.create_task(traffic.run(300))
                        both.create_task(trouble(traffic, plan, url, None if life == 2 else killed))
                    await flowing
                    if life < 2:
                        continue
                    await traffic.until_refused()
                    own = await clients.enter_async_context(client(killed.url, killed.key))
                    await asyncio.to_thread(until, partial(is_adopted, folder / "killed/spool"))
                    for one in (own, operator):
                        await eventually(partial(settled, one))
        await conserved(plan, traffic, operator, url)


async def trouble(traffic: Traffic, plan: Plan, url: str, killed: Running | None) -> None:
    """In the middle of the traffic."""
    begin = traffic.asked_count
    for wanted, kill in ((plan.chance.randrange(30, 120), False), (plan.chance.randrange(130, 250), True)):
        await eventually(lambda: traffic.asked_count >= begin + wanted, timeout_s=300)  # noqa: B023
        if kill and killed is not None:
            await asyncio.to_thread(killed.ended, signal.SIGKILL)
        elif not kill:
            await disconnect_all(url)


def is_adopted(spool: Path) -> bool:
    """Only the server that runs now has a lock there, beside the folder's own."""
    return len(list(spool.glob("*.lock"))) <= 2


@asynccontextmanager
async def vendors(plan: Plan) -> AsyncIterator[tuple[Vendor, Vendor]]:
    async with Vendor([]) as openai, Vendor([]) as anthropic:
        openai.choose, anthropic.choose = plan.openai, plan.anthropic
        yield openai, anthropic


def ready(folder: Path, openai: Vendor, anthropic: Vendor) -> None:
    folder.mkdir()
    upstreams = f'openai_chat = "{openai.url}/v1"\nanthropic_messages = "{anthropic.url}"\n'
    (folder / "freehold.toml").write_text(f"[models.upstreams]\n{upstreams}")


def served(folder: Path, url: str) -> AbstractContextManager[Running]:
    return freehold(
        folder, environment={"DATABASE_URL": url, "OPENAI_API_KEY": "sk-x", "ANTHROPIC_API_KEY": "sk-y"}
    )


@asynccontextmanager
async def client(url: str, key: str) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE_S, trust_env=False) as one:
        yield one


async def applied(operator: httpx2.AsyncClient, plan: Plan) -> None:
    answer = await operator.post("/v1/templates/apply", json={"template": plan.template})
    assert answer.status_code == 200, answer.text


async def team_keys(operator: httpx2.AsyncClient) -> list[str]:
    made = [await operator.post("/v1/keys", json={"name": team, "team": team}) for team in TEAMS]
    return [one.json()["key"] for one in made]


async def settled(operator: httpx2.AsyncClient) -> bool:
    """No record of this server waits."""
    answer = await operator.get("/v1/budgets")
    return answer.status_code == 200 and answer.json()["waiting_calls"] == 0
