"""Event streams that are cut again and again, anywhere, also within an event and by the server's own restart: nothing is lost or comes twice.

Through a whole server process, while turns run and append.
"""

import asyncio
import random
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import httpx2
import pytest

from tests._waiting import PATIENCE_S, eventually
from tests.server._event_source import EventSource
from tests.server._process import Running, freehold
from tests.server._world import ECHO

SESSIONS = 8
READERS = 16
BYTES_MAX = 2500
SAID_EVERY_S = 0.05


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "data"
    with freehold(place) as server, server.ready().client() as client:
        client.post("/v1/templates/apply", json={"template": ECHO}).raise_for_status()
        assert server.ended(signal.SIGTERM)[0] == 0
    return place


@pytest.mark.slow
async def test_a_client_that_reconnects_again_and_again_sees_every_event_once(folder: Path) -> None:
    with freehold(folder) as server:
        readers = await reconnecting(await asyncio.to_thread(server.ready), 400)
    assert sum(one.connects for one in readers) >= 400


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_client_that_reconnects_ten_thousand_times_sees_every_event_once(folder: Path) -> None:
    with freehold(folder) as server:
        readers = await reconnecting(await asyncio.to_thread(server.ready), 10_000)
    seen, connects = sum(len(one.ids) for one in readers), sum(one.connects for one in readers)
    print(f"{connects} connections, {seen} events seen, none lost, none twice")
    assert connects >= 10_000


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_client_sees_every_event_once_though_the_server_is_restarted(folder: Path) -> None:
    """Once as for an upgrade, twice killed; at the same port, to which the client comes back by itself."""
    port, clients, reading = "0", [], []
    for end in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        with freehold(folder, "--port", port) as server:
            here = await asyncio.to_thread(server.ready)
            async with _asking(here) as http:
                if not clients:
                    port = here.url.rpartition(":")[2]
                    # The operator's own key is another one after each start.
                    key = (await http.post("/v1/keys", json={"name": "browser"})).json()["key"]
                    clients = [EventSource(here.url, one, key) for one in await _sessions(http)]
                    reading = [asyncio.create_task(_read_on(one)) for one in clients]
                for one in clients:
                    await _say(http, one)
                await _until_all_seen(http, clients)
                for one in clients:
                    await _say(http, one)
            await asyncio.to_thread(server.ended, end)
    with freehold(folder, "--port", port) as server:
        async with _asking(await asyncio.to_thread(server.ready)) as http:
            await _until_all_seen(http, clients)
    for task in reading:
        task.cancel()
    await asyncio.wait(reading)
    assert all(one.refused for one in clients), "while it was away"


async def reconnecting(server: Running, times: int) -> list[EventSource]:
    """Each of the sessions has its readers, each of which is cut after a number of bytes that chance says."""
    chance = random.Random(4482)
    async with _asking(server) as http:
        sessions = await _sessions(http)
        readers = [
            EventSource(server.url, sessions[number % SESSIONS], server.key) for number in range(READERS)
        ]

        async def read(one: EventSource) -> None:
            while one.connects * READERS < times:
                await one.read(chance.randint(1, BYTES_MAX))

        saying = asyncio.create_task(_keep_saying(http, readers[:SESSIONS]))
        await asyncio.gather(*(read(one) for one in readers))
        saying.cancel()
        await asyncio.wait([saying])
        reading = [asyncio.create_task(_read_on(one)) for one in readers]
        await _until_all_seen(http, readers)
        for task in reading:
            task.cancel()
        await asyncio.wait(reading)
    return readers


def _asking(server: Running) -> httpx2.AsyncClient:
    headers = {"authorization": f"Bearer {server.key}"}
    return httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=PATIENCE_S, trust_env=False)


async def _sessions(http: httpx2.AsyncClient) -> list[str]:
    """Their streams' addresses, each from its beginning."""
    made = [(await http.post("/v1/sessions", json={"agent": "echo"})).json()["id"] for _ in range(SESSIONS)]
    return [f"/v1/sessions/{one}/events/stream?after=0&include=freehold" for one in made]


async def _say(http: httpx2.AsyncClient, one: EventSource) -> None:
    body = {"events": [{"type": "user.message", "content": "hello"}]}
    (await http.post(one.path.partition("/stream")[0], json=body)).raise_for_status()


async def _keep_saying(http: httpx2.AsyncClient, those: Sequence[EventSource]) -> None:
    while True:
        for one in those:
            await _say(http, one)
            await asyncio.sleep(SAID_EVERY_S)


async def _read_on(one: EventSource) -> None:
    while True:
        await one.read(10**9, quiet_s=None)


async def _until_all_seen(http: httpx2.AsyncClient, those: Sequence[EventSource]) -> None:
    """All turns have ended, and each reader has seen each event of its log once and in order."""
    for one in those:
        await eventually(partial(_has_seen_all, http, one), f"{one.path} to be seen to its end")


async def _has_seen_all(http: httpx2.AsyncClient, one: EventSource) -> bool:
    """At any time it has seen what the log begins with, each event once and in order."""
    seen = list(one.ids)
    idle = await _idle(http, one)
    log = await _cursors(http, one)
    assert seen == log[: len(seen)], f"{len(seen)} seen of {len(log)}"
    return idle and seen == log


async def _idle(http: httpx2.AsyncClient, one: EventSource) -> bool:
    return bool((await http.get(one.path.partition("/events")[0])).json()["status"] == "idle")


async def _cursors(http: httpx2.AsyncClient, one: EventSource) -> list[str]:
    """Of all events, as the pages of the log have them."""
    found: list[str] = []
    path = f"{one.path.partition('/stream')[0]}?include=freehold&limit=1000"
    page: str | None = ""
    while page is not None:
        told = (await http.get(path + (f"&page={page}" if page else ""))).json()
        found += [event["freehold"]["cursor"] for event in told["data"]]
        page = told["next_page"]
    return found
