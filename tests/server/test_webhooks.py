"""Webhooks on a whole server: what is told, how it is signed, what happens when nobody listens."""

import asyncio
import os
import re
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from anthropic import Anthropic
from standardwebhooks import Webhook as Verifier

from freehold.config import Webhooks
from freehold.core.errors import BadRequest, Forbidden
from freehold.core.webhooks import (
    ATTEMPTS_MAX,
    DELAY_S_MAX,
    FAILING_S_MAX,
    Again,
    Claimed,
    Dead,
    Delivered,
    Delivery,
    Told,
    Webhook,
    WebhookRow,
    check,
    outcome_of,
)
from freehold.postman import open_postman
from freehold.store.embedded import EmbeddedServer
from tests._postgres import MIGRATED, fresh_database
from tests._waiting import PATIENCE_S, within
from tests.gateway._vendors import reply
from tests.server._world import World, world
from tests.server.test_limits import answer_of
from tests.server.test_sessions import calls, says

TEMPLATE = """
kind: tool
name: hooked
type: kv
config: {table: hooked, writable: true}
approval: {functions: [put], deadline_s: 600}
---
kind: agent
name: hooked
model: openai/gpt-4o
tools: [hooked]
---
kind: tool
name: hooked_helper
type: agent
config: {agent: hooked}
---
kind: agent
name: hooked-chief
model: openai/gpt-4o
tools: [hooked_helper]
"""


class Heard(NamedTuple):
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


class Receiver:
    """A service of the user's. `answers` gives each request's status and headers; without, 200."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.answers: Callable[[Heard], tuple[int, str] | None] = lambda _: (200, "")
        self.url = ""
        self._writers: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = [line.partition(": ") for line in head.split("\r\n")[1:] if line]
            headers = {name.lower(): value for name, _, value in lines}
            body = await reader.readexactly(int(headers["content-length"]))
            one = Heard(headers, body)
            async with self._changed:
                self.heard.append(one)
                self._changed.notify_all()
            answer = self.answers(one)
            if answer is None:
                await reader.read()
                return
            status, more = answer
            writer.write(
                f"HTTP/1.1 {status} X\r\n{more}content-length: 0\r\nconnection: close\r\n\r\n".encode()
            )
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()

    async def until(self, enough: Callable[[Sequence[Heard]], bool]) -> list[Heard]:
        async with within("enough deliveries", self.heard), self._changed:
            await self._changed.wait_for(lambda: enough(self.heard))
        return self.heard


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    opened = Receiver()
    server = await asyncio.start_server(opened.serve, "127.0.0.1", 0)
    opened.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield opened
    finally:
        server.close()
        opened.hang_up()


@pytest.fixture(scope="module")
async def told(
    postgres_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    folder: Path = tmp_path_factory.mktemp("webhooks")
    settings = Webhooks(allow_private=True, timeout_s=PATIENCE_S, retry_s=0.05)
    async with (
        fresh_database(postgres_server, template=MIGRATED) as url,
        world(url, folder, webhooks=settings) as opened,
    ):
        await opened.apply(TEMPLATE)
        yield opened


async def declared(world: World, name: str, url: str, events: Sequence[str]) -> dict[str, Any]:
    made = await world.json("POST", "/v1/webhooks", {"name": name, "url": url, "events": list(events)})
    return dict(made)


async def forget(world: World, name: str) -> None:
    await world.json("DELETE", f"/v1/webhooks/{name}")


def types(heard: Sequence[Heard], before: Collection[str] = ()) -> set[str]:
    """Each may have come twice, where the machine was slow to take it."""
    return {msgspec.json.decode(one.body)["data"]["type"] for one in heard if one.id not in before}


def kinds(world: World, heard: Sequence[Heard], secret: str) -> list[str]:
    """Checked and read by Anthropic's SDK."""
    client = Anthropic(api_key="x", base_url=world.url, webhook_key=secret)
    return [client.beta.webhooks.unwrap(one.body.decode(), headers=one.headers).data.type for one in heard]


async def test_a_sessions_life_is_told_and_the_sdk_takes_it(told: World) -> None:
    async with receiver() as mine:
        made = await declared(told, "life", mine.url, ["session.*"])
        told.script("openai", calls(("hooked_put", {"items": {"a": 1}})), says("Done."))
        session_id = await told.session("hooked", "Put it")
        begun = {
            "session.created",
            "session.requires_action",
            "session.status_idled",
            "session.status_run_started",
        }
        heard = await mine.until(lambda found: types(found) >= begun)
        assert set(kinds(told, heard, made["secret"])) == begun
        event = Anthropic(api_key="x", webhook_key=made["secret"]).beta.webhooks.unwrap(
            heard[0].body.decode(), headers=heard[0].headers
        )
        assert (event.id, event.data.id) == (heard[0].id, session_id)
        before = {one.id for one in heard}
        [call] = (await told.json("GET", f"/v1/sessions/{session_id}"))["freehold"]["waits"]["calls"]
        allow = {"type": "user.tool_confirmation", "tool_use_id": call["call_id"], "result": "allow"}
        await told.json("POST", f"/v1/sessions/{session_id}/events", {"events": [allow]})
        await mine.until(lambda found: "session.idled" in types(found))
        await told.json("POST", f"/v1/sessions/{session_id}", {"title": "Put"})
        await told.json("POST", f"/v1/sessions/{session_id}/archive")
        await told.json("DELETE", f"/v1/sessions/{session_id}")
        ended = {
            "session.status_run_started",
            "session.status_idled",
            "session.idled",
            "session.updated",
            "session.archived",
            "session.deleted",
        }
        heard = await mine.until(lambda found: types(found, before) >= ended)
        later = [one for one in heard if one.id not in before]
        assert set(kinds(told, later, made["secret"])) == ended
        assert len({one.id for one in later}) == 6
        await forget(told, "life")


async def test_threads_and_declarations_are_told(told: World) -> None:
    async with receiver() as mine:
        threads = ["session.thread_created", "session.thread_idled", "agent.*", "environment.*"]
        made = await declared(told, "threads", mine.url, threads)
        told.script("openai", calls(("hooked_helper_delegate", {"task": "Go"})), says("Gone."), says("Done."))
        session_id = await told.session("hooked-chief", "Go")
        await told.until_idle(session_id)
        heard = await mine.until(lambda found: len(found) >= 2)
        client = Anthropic(api_key="x", webhook_key=made["secret"])
        [child] = [
            one["id"]
            for one in (await told.json("GET", f"/v1/sessions/{session_id}/threads"))["data"]
            if one["parent_thread_id"]
        ]
        for one in heard:
            data = client.beta.webhooks.unwrap(one.body.decode(), headers=one.headers).data
            assert (data.id, data.session_thread_id) == (session_id, child)  # type: ignore[union-attr]
        mine.heard.clear()
        agents, environments = told.anthropic.beta.agents, told.anthropic.beta.environments
        await agents.create(name="told-of", model="auto")
        await agents.update("told-of", system="Hm.")
        await agents.archive("told-of")
        await environments.create(name="told-of")
        await environments.delete("told-of")
        heard = await mine.until(lambda found: len(found) >= 5)
        assert set(kinds(told, heard, made["secret"])) == {
            "agent.created",
            "agent.updated",
            "agent.archived",
            "environment.created",
            "environment.deleted",
        }
        await forget(told, "threads")


async def test_a_subagent_that_asks_is_told_of_as_its_sessions_thread(told: World) -> None:
    async with receiver() as mine:
        asks = ["session.requires_action", "session.status_idled"]
        made = await declared(told, "asks", mine.url, asks)
        told.script(
            "openai",
            calls(("hooked_helper_delegate", {"task": "Put it"})),
            calls(("hooked_put", {"items": {"a": 1}})),
        )
        session_id = await told.session("hooked-chief", "Put it")
        heard = await mine.until(lambda found: types(found) == set(asks))
        assert len({one.id for one in heard}) == 2
        data = {found["type"]: found for found in (msgspec.json.decode(one.body)["data"] for one in heard)}
        assert set(kinds(told, heard, made["secret"])) == set(asks)
        assert {one["id"] for one in data.values()} == {session_id}
        assert "session_thread_id" not in data["session.status_idled"]
        threads = (await told.json("GET", f"/v1/sessions/{session_id}/threads"))["data"]
        assert data["session.requires_action"]["session_thread_id"] in [
            thread["id"] for thread in threads if thread["parent_thread_id"]
        ]
        await told.json("POST", f"/v1/sessions/{session_id}/cancel", {})
        await told.until_idle(session_id, turns=2)
        await forget(told, "asks")


async def test_deployments_and_their_runs_are_told(told: World) -> None:
    async with receiver() as mine:
        made = await declared(told, "deployed", mine.url, ["deployment.*", "deployment_run.*"])
        deployments = told.anthropic.beta.deployments
        told.script("openai", says("Done."), says("Done again."), reply(b"{}", status=400))
        message: Any = {"type": "user.message", "content": [{"type": "text", "text": "Go"}]}
        one = await deployments.create(
            name="told-of", agent="hooked", environment_id="default", initial_events=[message]
        )
        run = await deployments.run(one.id)
        await told.until_idle(str(run.session_id))
        await told.json("POST", f"/v1/sessions/{run.session_id}/events", {"events": [message]})
        await told.until_idle(str(run.session_id), turns=2)
        failing = await deployments.run(one.id)
        await told.until_idle(str(failing.session_id))
        await deployments.pause(one.id)
        await deployments.unpause(one.id)
        await deployments.archive(one.id)
        wanted = {
            ("deployment.created", one.id),
            ("deployment_run.started", run.id),
            ("deployment_run.succeeded", run.id),
            ("deployment_run.started", failing.id),
            ("deployment_run.failed", failing.id),
            ("deployment.paused", one.id),
            ("deployment.unpaused", one.id),
            ("deployment.archived", one.id),
        }
        heard = await mine.until(lambda found: len({one.id for one in found}) >= len(wanted))
        client = Anthropic(api_key="x", webhook_key=made["secret"])
        events = {
            one.id: client.beta.webhooks.unwrap(one.body.decode(), headers=one.headers).data for one in heard
        }
        assert sorted((event.type, event.id) for event in events.values()) == sorted(wanted)
        await forget(told, "deployed")


async def test_a_session_that_reached_its_budget_is_told_of(told: World) -> None:
    async with receiver() as mine:
        made = await declared(told, "reached", mine.url, ["session.budget_reached"])
        limited = "kind: agent\nname: hooked-poor\nmodel: openai/gpt-4o\nlimits: {cost_max_usd: '0.0001'}\n"
        await told.apply(limited)
        told.script("openai", says("Enough."))
        ended = await told.session("hooked", "Go")
        await told.until_idle(ended)
        session_id = await told.session("hooked-poor", "Go")
        await told.until_idle(session_id)
        heard = await mine.until(lambda found: len(found) >= 1)
        assert set(kinds(told, heard, made["secret"])) == {"session.budget_reached"}
        assert {msgspec.json.decode(one.body)["data"]["id"] for one in heard} == {session_id}
        await forget(told, "reached")


async def test_a_budget_that_runs_out_is_told_of_once(told: World) -> None:
    async with receiver() as mine:
        made = await declared(told, "spent", mine.url, ["budget.*"])
        budget = "kind: budget\nname: allowed\nscope: team/allowed\namount_usd: 'SIZE'\nperiod: total\nwarn_at: '1'\n"
        await told.apply(budget.replace("SIZE", "0.01"))
        key = await told.json("POST", "/v1/keys", {"name": "spends", "team": "allowed"})

        async def ask() -> int:
            body = {
                "model": "openai/gpt-4o",
                "messages": [{"role": "user", "content": "Hm"}],
                "max_tokens": 300,
            }
            headers = {"authorization": f"Bearer {key['key']}"}
            answer = await told.http.post("/v1/chat/completions", json=body, headers=headers)
            return answer.status_code

        async def spend_all() -> None:
            told.script("openai", *(answer_of(1000) for _ in range(20)))
            async with within("the budget to be spent"):
                while await ask() == 200:
                    pass
            assert await ask() == 429

        await spend_all()
        both = {"budget.threshold_reached", "budget.exhausted"}
        heard = await mine.until(lambda found: types(found) == both)
        assert set(kinds(told, heard, made["secret"])) == both
        assert {msgspec.json.decode(one.body)["data"]["id"] for one in heard} == {"allowed"}
        await told.apply(budget.replace("SIZE", "0.02"))
        await spend_all()
        heard = await mine.until(lambda found: len({one.id for one in found}) >= 4)
        assert len({one.id for one in heard}) == 4, "again once it was raised, and only once"
        await forget(told, "spent")


async def test_what_fails_is_tried_again_under_the_same_id_until_it_is_taken(told: World) -> None:
    async with receiver() as mine:
        await declared(told, "shaky", mine.url, ["agent.created"])
        mine.answers = lambda _: (500 if len(mine.heard) < 3 else 200, "")
        await told.anthropic.beta.agents.create(name="shaky", model="auto")
        heard = await mine.until(lambda found: len(found) == 3)
        assert len({one.id for one in heard}) == 1
        [delivery] = await settled(told, "shaky", "delivered")
        assert (delivery["attempts"], delivery["last_status"], delivery["event_id"]) == (3, 200, heard[0].id)
        shown = await told.json("GET", "/v1/webhooks/shaky")
        assert (shown["status"], shown["pending_count"]) == ("ok", 0)
        again = await told.json("POST", f"/v1/webhooks/shaky/deliveries/{delivery['id']}/redeliver", {})
        assert again["status"] == "pending"
        heard = await mine.until(lambda found: len(found) == 4)
        assert heard[3].id == heard[0].id
        await forget(told, "shaky")


async def settled(world: World, name: str, status: str, count: int = 1) -> list[dict[str, Any]]:
    async with within(f"deliveries that are {status}"):
        while True:
            found = (await world.json("GET", f"/v1/webhooks/{name}/deliveries?status={status}"))["data"]
            if len(found) >= count:
                return list(found)
            await asyncio.sleep(0.02)


async def test_who_is_gone_is_disabled_and_says_why_and_comes_back_when_enabled(told: World) -> None:
    async with receiver() as mine:
        await declared(told, "gone", mine.url, ["agent.created"])
        mine.answers = lambda _: (410, "")
        await told.anthropic.beta.agents.create(name="gone-1", model="auto")
        [failed] = await settled(told, "gone", "failed")
        shown = await told.json("GET", "/v1/webhooks/gone")
        assert shown["status"] == "disabled"
        assert "410" in shown["disabled_reason"]
        refused = await told.http.post(
            f"/v1/webhooks/gone/deliveries/{failed['id']}/redeliver", content=b"{}"
        )
        assert refused.status_code == 409
        await told.anthropic.beta.agents.create(name="gone-2", model="auto")
        mine.answers = lambda _: (200, "")
        tested = await told.json("POST", "/v1/webhooks/gone/test", {})
        assert tested["event_type"] == "webhook.test"
        await settled(told, "gone", "delivered")
        assert (await told.json("POST", "/v1/webhooks/gone/enable", {}))["status"] == "ok"
        await told.anthropic.beta.agents.create(name="gone-3", model="auto")
        await told.json("POST", f"/v1/webhooks/gone/deliveries/{failed['id']}/redeliver", {})
        delivered = await settled(told, "gone", "delivered", 3)
        assert sorted(one["object_id"] for one in delivered) == ["gone", "gone-1", "gone-3"]
        await forget(told, "gone")


async def test_after_a_rotation_both_secrets_are_good_for_a_while(told: World) -> None:
    async with receiver() as mine:
        first = await declared(told, "rotated", mine.url, ["agent.created"])
        second = await told.json("POST", "/v1/webhooks/rotated/rotate", {"overlap_s": 60})
        assert second["secret"] != first["secret"]
        await told.anthropic.beta.agents.create(name="rotated-1", model="auto")
        [one] = await mine.until(lambda found: len(found) == 1)
        for made in (first, second):
            Verifier(made["secret"]).verify(one.body, one.headers)
        third = await told.json("POST", "/v1/webhooks/rotated/rotate", {"overlap_s": 0})
        await told.anthropic.beta.agents.create(name="rotated-2", model="auto")
        _, other = await mine.until(lambda found: len(found) == 2)
        Verifier(third["secret"]).verify(other.body, other.headers)
        with pytest.raises(Exception, match="signature"):
            Verifier(second["secret"]).verify(other.body, other.headers)
        assert "secret" not in await told.json("GET", "/v1/webhooks/rotated")
        await forget(told, "rotated")
        anew = await declared(told, "rotated", mine.url, ["agent.created"])
        assert anew["secret"] not in {first["secret"], second["secret"], third["secret"]}
        await forget(told, "rotated")


async def test_who_never_answers_slows_nobody_else(told: World) -> None:
    async with receiver() as dead, receiver() as mine:
        dead.answers = lambda _: None
        await declared(told, "dead", dead.url, ["agent.created"])
        await declared(told, "alive", mine.url, ["agent.created"])
        for number in range(12):
            await told.anthropic.beta.agents.create(name=f"crowd-{number}", model="auto")
        await mine.until(lambda found: len(found) == 12)
        late = (await told.json("GET", "/v1/webhooks/dead/deliveries"))["data"]
        assert {one["status"] for one in late} == {"pending"}, "not one of them was answered, or given up"
        await forget(told, "dead")
        await forget(told, "alive")


async def test_a_tenants_webhooks_are_declared_by_templates_too(told: World) -> None:
    async with receiver() as mine:
        await told.apply(f"kind: webhook\nname: by-template\nurl: {mine.url}\nevents: [agent.created]\n")
        made = await told.json("POST", "/v1/webhooks/by-template/rotate", {"overlap_s": 0})
        await told.anthropic.beta.agents.create(name="by-template", model="auto")
        [one] = await mine.until(lambda found: len(found) == 1)
        assert kinds(told, [one], made["secret"]) == ["agent.created"]
        listed = (await told.json("GET", "/v1/webhooks"))["data"]
        assert [one["id"] for one in listed] == ["by-template"]
        await forget(told, "by-template")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"url": "ftp://x.example.com"}, "url"),
        ({"url": "https://user:pw@x.example.com"}, "url"),
        ({"events": []}, "events"),
        ({"events": ["session.idle"]}, r"events\[0\].*session.idled"),
        ({"name": "No Name"}, "name"),
        ({"more": 1}, "more"),
    ],
)
async def test_a_webhook_that_cannot_be_is_refused(told: World, given: dict[str, Any], field: str) -> None:
    body = {"name": "wrong", "url": "https://x.example.com", "events": ["session.*"]} | given
    answer = await told.http.post("/v1/webhooks", json=body)
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert all(part in message for part in field.replace("\\", "").split(".*"))


def test_without_leave_an_address_must_be_https() -> None:
    wanted = Webhook(name="x", url="http://x.example.com", events=("session.*",))
    check(wanted, private_allowed=True)
    with pytest.raises(BadRequest, match="https"):
        check(wanted, private_allowed=False)


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/x", "https://localhost/x", "https://[::1]/x", "https://169.254.169.254/"]
)
async def test_nobody_is_led_into_the_private_network(url: str) -> None:
    async with open_postman(allow_private=False, at_once_max=1) as postman:
        with pytest.raises(Forbidden, match="private"):
            await postman.post(url, headers={}, body=b"{}", timeout_s=PATIENCE_S)


async def test_redirects_are_not_followed_and_much_is_not_read() -> None:
    async with receiver() as mine, open_postman(allow_private=True, at_once_max=1) as postman:
        mine.answers = lambda _: (302, "location: http://127.0.0.1:9/\r\n")
        answer = await postman.post(mine.url, headers={}, body=b"{}", timeout_s=PATIENCE_S)
        assert answer.status == 302


NOW = datetime(2026, 11, 21, tzinfo=UTC)


def claimed(attempts: int, *, failing: timedelta | None = None) -> Claimed:
    row = WebhookRow(
        tenant="t", name="w", uid="u", url="https://x", events=("session.*",), secret_number=1, created_at=NOW,
        failing_since=None if failing is None else NOW - failing,
    )  # fmt: skip
    one = Delivery(
        seq=1, tenant="t", endpoint="w", event_id="e", type="session.idled", object_id="s", thread_id=None, at=NOW,
        status="pending", attempts=attempts, due_at=NOW,
    )  # fmt: skip
    return Claimed(one, row)


def test_pauses_grow_over_hours_and_end() -> None:
    delays = []
    for attempts in range(1, ATTEMPTS_MAX):
        outcome = outcome_of(claimed(attempts), Told(503), NOW, first_delay_s=5.0, chance=0.5)
        assert isinstance(outcome, Again)
        delays.append(outcome.delay_s)
    assert delays == sorted(delays)
    assert (delays[0], max(delays)) == (5.0, DELAY_S_MAX)
    assert 12 * 3600 < sum(delays) < 36 * 3600
    assert isinstance(
        outcome_of(claimed(ATTEMPTS_MAX), "no answer", NOW, first_delay_s=5.0, chance=0.5), Dead
    )
    assert outcome_of(claimed(3), Told(204), NOW, first_delay_s=5.0, chance=0.5) == Delivered(204)


def test_the_other_side_may_ask_for_more_time() -> None:
    def delay_s(after: str) -> float:
        outcome = outcome_of(
            claimed(1), Told(429, {"retry-after": after}), NOW, first_delay_s=5.0, chance=0.5
        )
        assert isinstance(outcome, Again)
        return outcome.delay_s

    assert delay_s("120") == 120
    assert delay_s("Sat, 21 Nov 2026 00:10:00 GMT") == 600
    assert delay_s("99999999999999999") == 86_400
    assert delay_s("soon") == delay_s("1") == 5.0


def test_who_took_nothing_for_a_day_is_disabled() -> None:
    late = timedelta(seconds=FAILING_S_MAX + 1)
    outcome = outcome_of(claimed(2, failing=late), Told(500), NOW, first_delay_s=5.0, chance=0.5)
    assert isinstance(outcome, Dead)
    assert outcome.disable is not None
    assert "it answered 500" in outcome.disable


PAGE = Path(__file__).resolve().parents[2] / "docs" / "webhooks.md"


@pytest.mark.slow
async def test_the_documented_receiver_takes_ours_and_nobody_elses(told: World) -> None:
    [program] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    made = await declared(told, "documented", url, ["agent.created"])
    environment = os.environ | {"WEBHOOK_SECRET": made["secret"], "PORT": str(port)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        await told.anthropic.beta.agents.create(name="documented", model="auto")
        assert process.stdout is not None
        async with within("the documented program to hear"):
            assert (await process.stdout.readline()).split() == [b"agent.created", b"documented"]
        forged = {
            "webhook-id": "x",
            "webhook-timestamp": str(int(time.time())),
            "webhook-signature": "v1,AAAA",
        }
        async with open_postman(allow_private=True, at_once_max=1) as postman:
            answer = await postman.post(url, headers=forged, body=b"{}", timeout_s=PATIENCE_S)
        assert answer.status == 401
    finally:
        process.kill()
        await process.wait()
        await forget(told, "documented")
