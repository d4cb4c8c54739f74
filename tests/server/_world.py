"""A whole server on a loopback socket, with two scripted vendors behind it; the vendors' own SDKs in front."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import msgspec
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from freehold.app import House, open_house
from freehold.config import Config, Database, Models
from freehold.server.listener import serve
from tests._waiting import PATIENCE_S, within
from tests.gateway._vendors import Step, Vendor

ENVIRONMENT = {"OPENAI_API_KEY": "sk-test-openai", "ANTHROPIC_API_KEY": "sk-test-anthropic"}

ECHO = """
kind: rules
name: echo
rules: []
otherwise: "I only echo."
---
kind: agent
name: echo
model: rules/echo
rules: echo
"""
"""An agent that needs no model."""


class Event(NamedTuple):
    """`cursor` is None for previews."""

    cursor: str | None
    type: str
    body: dict[str, Any]


class World:
    """`openai_vendor` and `anthropic_vendor` play what a test scripts; `url` is ours. `stop` may be set, `stopped` awaited."""

    def __init__(self, house: House, door: "Served", openai_vendor: Vendor, anthropic_vendor: Vendor) -> None:
        self.house = house
        self.url = url = door.url
        self.stop, self.stopped = door.stop, door.task
        self.vendors = {"openai": openai_vendor, "anthropic": anthropic_vendor}
        self.key = house.operator_key
        self.http = httpx2.AsyncClient(
            base_url=url, headers={"authorization": f"Bearer {self.key}"}, timeout=PATIENCE_S, trust_env=False
        )
        self.openai = AsyncOpenAI(base_url=f"{url}/v1", api_key=self.key, max_retries=0)
        self.anthropic = AsyncAnthropic(base_url=url, api_key=self.key, max_retries=0)

    def script(self, vendor: str, *scripts: Sequence[Step]) -> Vendor:
        chosen = self.vendors[vendor]
        chosen.play(*scripts)
        return chosen

    async def json(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        content = None if body is None else msgspec.json.encode(body)
        answer = await self.http.request(method, path, content=content, **more)
        assert answer.status_code < 300, answer.text
        return answer.json()

    async def apply(self, template: str, **variables: str) -> Any:
        return await self.json("POST", "/v1/templates/apply", {"template": template, "variables": variables})

    async def session(self, agent: str, text: str, **more: Any) -> str:
        event = {"type": "user.message", "content": text}
        created = await self.json("POST", "/v1/sessions", {"agent": agent, "initial_events": [event], **more})
        return str(created["id"])

    async def events(self, session_id: str) -> list[dict[str, Any]]:
        page = await self.json("GET", f"/v1/sessions/{session_id}/events?include=freehold")
        return list(page["data"])

    async def until_idle(self, session_id: str, *, turns: int = 1) -> list[dict[str, Any]]:
        """The log, once so many turns have ended, or wait. Waits on the event stream, not on the clock."""
        ended = 0
        async with self.seen(session_id, after="0") as events:
            async for event in events:
                ended += event.type in {"session.status_idle", "session.status_terminated"}
                if ended == turns:
                    return await self.events(session_id)
        raise AssertionError("the stream ended")

    @asynccontextmanager
    async def seen(self, session_id: str, **where: Any) -> AsyncIterator[AsyncIterator[Event]]:
        """As `stream`, for what surely comes: a wait in vain tells the types of the events that came."""
        came: list[str] = []
        async with (
            within(f"an event of {session_id}", came),
            self.stream(session_id, **where) as events,
            aclosing(_noted(events, came)) as noted,
        ):
            yield noted

    @asynccontextmanager
    async def stream(
        self,
        session_id: str,
        *,
        after: str | None = None,
        last_event_id: str | None = None,
        previews: bool = False,
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """One connection's server-sent events."""
        query = {"include": "freehold"} | ({"after": after} if after else {})
        query |= {"event_deltas[]": "agent.message"} if previews else {}
        headers = {"last-event-id": last_event_id} if last_event_id else {}
        path = f"/v1/sessions/{session_id}/events/stream"
        async with self.http.stream("GET", path, params=query, headers=headers) as answer:
            assert answer.status_code == 200, await answer.aread()
            yield _events(answer.aiter_lines())


async def _noted(events: AsyncIterator[Event], came: list[str]) -> AsyncGenerator[Event, None]:
    async for event in events:
        came.append(event.type)
        yield event


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif not line and fields:
            yield Event(fields.get("id"), fields["event"], msgspec.json.decode(fields["data"]))
            fields = {}


@asynccontextmanager
async def world(database_url: str, folder: Path, **changes: Any) -> AsyncIterator[World]:
    async with Vendor([]) as openai_vendor, Vendor([]) as anthropic_vendor:
        config = Config(
            data_folder=folder,
            database=Database(url=database_url),
            models=Models(
                discover_local=False,
                upstreams={
                    "openai_chat": f"{openai_vendor.url}/v1",
                    "anthropic_messages": anthropic_vendor.url,
                },
            ),
            environment=ENVIRONMENT,
            **changes,
        )
        async with open_house(config) as house, served(house) as door:
            opened = World(house, door, openai_vendor, anthropic_vendor)
            try:
                yield opened
            finally:
                await opened.http.aclose()
                await opened.openai.close()
                await opened.anthropic.close()


class Served(NamedTuple):
    url: str
    stop: asyncio.Event
    task: "asyncio.Task[None]"


@asynccontextmanager
async def served(house: House) -> AsyncIterator[Served]:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    stop = asyncio.Event()
    task = asyncio.create_task(serve(house.app, listening, stop))
    try:
        yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", stop, task)
    finally:
        stop.set()
        await task
        listening.close()
