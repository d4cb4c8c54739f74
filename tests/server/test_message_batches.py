"""Anthropic's unmodified SDK makes batches of calls, of any model: created, watched, canceled, deleted, and their results read."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import anthropic
import asyncpg
import msgspec
import pytest
from anthropic import AsyncAnthropic
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse

from freehold.core.message_batches import BatchStatus
from freehold.gateway import batches as limits
from tests._waiting import eventually
from tests.cli._freehold import Done, Freehold
from tests.gateway._vendors import ANTHROPIC_TEXT, HEARD, HOLD, OPENAI_TEXT, Vendor, reply
from tests.server._gated import GatedVendor
from tests.server._process import Running, freehold
from tests.server._world import World, world

CLAUDE, GPT = "anthropic/claude-sonnet-4-5", "openai/gpt-4o"
ROOT = Path(__file__).resolve().parents[2]


def wanted(custom_id: str, model: str = CLAUDE, **params: Any) -> Any:
    messages = [{"role": "user", "content": f"Hello from {custom_id}"}]
    return {
        "custom_id": custom_id,
        "params": {"model": model, "max_tokens": 10, "messages": messages, **params},
    }


async def reached(client: AsyncAnthropic, batch: MessageBatch, status: BatchStatus = "ended") -> MessageBatch:
    async def there() -> bool:
        return (await client.messages.batches.retrieve(batch.id)).processing_status == status

    await eventually(there)
    return await client.messages.batches.retrieve(batch.id)


async def results(client: AsyncAnthropic, batch: MessageBatch) -> list[MessageBatchIndividualResponse]:
    return [one async for one in await client.messages.batches.results(batch.id)]


def who_asked(vendor: Vendor) -> list[str]:
    """Custom ids, in the order in which their requests came."""
    return [asked.json["messages"][0]["content"].split()[-1] for asked in vendor.asked]


@pytest.fixture
async def gated(shared: World) -> AsyncIterator[GatedVendor]:
    """Its models are `gated/...`. Open in the end, so that nothing waits for it."""
    async with GatedVendor(reply(ANTHROPIC_TEXT)) as vendor:
        await shared.apply(
            f"kind: provider\nname: gated\ntype: anthropic\nbase_url: {vendor.url}\napi_key: env:ANTHROPIC_API_KEY\n"
        )
        try:
            yield vendor
        finally:
            vendor.gate.set()


async def test_a_batch_asks_models_of_any_vendor_and_gives_each_requests_result(shared: World) -> None:
    pretty = msgspec.json.format(ANTHROPIC_TEXT, indent=2)
    claude, gpt = shared.script("anthropic", reply(pretty)), shared.script("openai", reply(OPENAI_TEXT))
    batches = shared.anthropic.messages.batches
    made = await batches.create(
        requests=[wanted("first"), wanted("second", GPT), wanted("third", system="Be short.")]
    )
    assert re.fullmatch(r"msgbatch_[0-9a-z]{26}", made.id)
    assert (made.type, made.processing_status, made.results_url) == ("message_batch", "in_progress", None)
    assert (made.request_counts.processing, made.request_counts.succeeded) == (3, 0)
    assert (made.expires_at - made.created_at).total_seconds() == 24 * 3600

    done = await reached(shared.anthropic, made)
    assert done.request_counts.to_dict() == {
        "processing": 0,
        "succeeded": 3,
        "errored": 0,
        "canceled": 0,
        "expired": 0,
    }
    assert done.ended_at is not None
    found = await results(shared.anthropic, made)
    assert [one.custom_id for one in found] == ["first", "second", "third"]
    for one in found:
        assert one.result.type == "succeeded"
        assert one.result.message.content[0].to_dict() == {"type": "text", "text": "Hello there"}
        assert one.result.message.usage.output_tokens == 7
    assert (sorted(who_asked(claude)), who_asked(gpt)) == (["first", "third"], ["second"])
    assert claude.asked[0].path == "/v1/messages"


async def test_results_are_json_lines_and_their_address_is_the_clients_own(shared: World) -> None:
    shared.script("anthropic", reply(msgspec.json.format(ANTHROPIC_TEXT, indent=2)))
    batch = await shared.anthropic.messages.batches.create(requests=[wanted("a"), wanted('"b"')])
    done = await reached(shared.anthropic, batch)
    assert done.results_url == f"/v1/messages/batches/{batch.id}/results"
    answer = await shared.http.get(done.results_url)
    assert answer.headers["content-type"].startswith("application/x-jsonl")
    assert "content-length" not in answer.headers, "streamed"
    lines = [msgspec.json.decode(line) for line in answer.content.splitlines()]
    assert [line["custom_id"] for line in lines] == ["a", '"b"']
    assert lines[0]["result"] == {"type": "succeeded", "message": msgspec.json.decode(ANTHROPIC_TEXT)}


@pytest.mark.slow
async def test_both_ways_to_say_the_key_and_the_beta_client_work(shared: World) -> None:
    shared.script("anthropic", reply(ANTHROPIC_TEXT))
    async with AsyncAnthropic(
        base_url=shared.url, auth_token=shared.key, api_key=None, max_retries=0
    ) as bearer:
        made = await bearer.beta.messages.batches.create(
            requests=[wanted("a")], betas=["context-1m-2025-08-07"]
        )
        await reached(bearer, made)  # type: ignore[arg-type]
        (found,) = [one async for one in await bearer.beta.messages.batches.results(made.id)]
    assert found.result.type == "succeeded"
    assert "context-1m-2025-08-07" in shared.vendors["anthropic"].asked[0].headers["anthropic-beta"]
    async with AsyncAnthropic(base_url=shared.url, api_key="fh_wrong", max_retries=0) as nobody:
        with pytest.raises(anthropic.AuthenticationError):
            await nobody.messages.batches.list()


HELLO = [{"role": "user", "content": "Hi"}]
PARAMS = {"model": CLAUDE, "max_tokens": 9, "messages": HELLO}
GOOD = {"custom_id": "good", "params": PARAMS}
WRONG: list[tuple[Any, str]] = [
    ([], "requests: expected 1 to 100000 requests, got none"),
    ("all", "requests: expected 'array', got 'str'"),
    ([{"params": PARAMS}], "requests[0].custom_id: required, but missing"),
    ([GOOD, {"custom_id": "x"}], "requests[1].params: required, but missing"),
    ([GOOD, {**GOOD, "extra": 1}], "requests[1].extra: unknown field 'extra'"),
    ([GOOD, {**GOOD, "custom_id": ""}], "requests[1].custom_id: expected 1 to 64 characters, got 0"),
    ([{**GOOD, "custom_id": "x" * 65}], "requests[0].custom_id: expected 1 to 64 characters, got 65"),
    ([{**GOOD, "custom_id": "a\0"}], "requests[0].custom_id: expected printable characters"),
    ([GOOD, GOOD], "requests[1].custom_id: expected one of its own, 'good' is that of requests[0] too"),
    ([{**GOOD, "params": []}], "requests[0].params: the body is no JSON object"),
    (
        [{**GOOD, "params": {**PARAMS, "stream": True}}],
        "requests[0].params.stream: expected false or nothing",
    ),
    ([{**GOOD, "params": {"model": CLAUDE, "messages": HELLO}}], "requests[0].params.max_tokens: required"),
    (
        [GOOD, {"custom_id": "x", "params": {**PARAMS, "messages": [{"role": "robot", "content": "Hi"}]}}],
        "requests[1].params.messages[0].role: expected one of assistant, system, user; got 'robot'",
    ),
    ([{**GOOD, "params": {**PARAMS, "model": "rules/nobody"}}], "requests[0].params.model: "),
]


@pytest.mark.parametrize(("requests", "said"), WRONG)
async def test_wrong_requests_are_refused_by_their_path(shared: World, requests: Any, said: str) -> None:
    with pytest.raises((anthropic.BadRequestError, anthropic.NotFoundError)) as refused:
        await shared.anthropic.messages.batches.create(requests=requests)
    error = refused.value.body
    assert isinstance(error, dict)
    assert error["error"]["message"].startswith(said)


async def test_too_many_requests_are_refused_naming_the_limit(
    shared: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REQUESTS_MAX", 2)
    with pytest.raises(anthropic.RequestTooLargeError, match="REQUESTS_MAX = 2 requests, this has 3"):
        await shared.anthropic.messages.batches.create(requests=[wanted(name) for name in "abc"])


async def test_what_a_vendor_refuses_is_an_errored_result_in_anthropics_shape(shared: World) -> None:
    refusal = {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: too many"}}
    shared.script("anthropic", reply(msgspec.json.encode(refusal), status=400))
    batch = await shared.anthropic.messages.batches.create(requests=[wanted("a")])
    done = await reached(shared.anthropic, batch)
    assert (done.request_counts.errored, done.request_counts.succeeded) == (1, 0)
    (one,) = await results(shared.anthropic, batch)
    assert one.result.type == "errored"
    assert (one.result.error.type, one.result.error.error.type) == ("error", "invalid_request_error")
    assert "max_tokens" in one.result.error.error.message
    assert len(shared.vendors["anthropic"].asked) == 1, "what will stay wrong is not asked again"


BUSY = reply(b'{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}', status=429)


@pytest.mark.slow
async def test_what_may_pass_is_asked_again(shared: World) -> None:
    vendor = shared.script("anthropic", BUSY, reply(ANTHROPIC_TEXT))
    batch = await shared.anthropic.messages.batches.create(requests=[wanted("a")])
    done = await reached(shared.anthropic, batch)
    assert done.request_counts.succeeded == 1
    assert who_asked(vendor) == ["a", "a"]


@pytest.mark.slow
async def test_rights_are_those_of_the_moment_of_the_call(shared: World, gated: GatedVendor) -> None:
    gated.play(BUSY, reply(ANTHROPIC_TEXT))
    key = await shared.json("POST", "/v1/keys", {"name": "soon revoked"})
    async with AsyncAnthropic(base_url=shared.url, api_key=key["key"], max_retries=0) as client:
        batch = await client.messages.batches.create(requests=[wanted("a", "gated/claude-x")])
    await eventually(lambda: len(gated.asked) == 1)
    await shared.json("DELETE", f"/v1/keys/{key['id']}")
    gated.gate.set()
    await reached(shared.anthropic, batch)
    (one,) = await results(shared.anthropic, batch)
    assert one.result.type == "errored"
    assert one.result.error.error.type == "authentication_error"
    assert "was revoked" in one.result.error.error.message
    assert len(gated.asked) == 1


async def test_a_key_does_with_batches_what_its_policy_allows_and_sees_only_its_tenant(shared: World) -> None:
    statement = [
        {"Effect": "Allow", "Action": ["batch:Create", "batch:Get"], "Resource": "batch/*"},
        {"Effect": "Allow", "Action": "model:Call", "Resource": "model/anthropic/*"},
    ]
    policy = {"Version": "2012-10-17", "Statement": statement}
    key = await shared.json("POST", "/v1/keys", {"name": "limited", "policy": policy})
    shared.script("anthropic", reply(ANTHROPIC_TEXT))
    async with AsyncAnthropic(base_url=shared.url, api_key=key["key"], max_retries=0) as client:
        batches = client.messages.batches
        with pytest.raises(
            anthropic.PermissionDeniedError, match=r"requests\[1\].params.model: .* may not model:Call"
        ):
            await batches.create(requests=[wanted("a"), wanted("b", GPT)])
        batch = await batches.create(requests=[wanted("a")])
        await reached(client, batch)
        assert len(await results(client, batch)) == 1
        for act, action in (
            (batches.list(), "batch:List"),
            (batches.cancel(batch.id), "batch:Cancel"),
            (batches.delete(batch.id), "batch:Delete"),
        ):
            with pytest.raises(anthropic.PermissionDeniedError, match=action):
                await act
    with pytest.raises(anthropic.NotFoundError, match="no message batch"):
        await shared.anthropic.messages.batches.retrieve("msgbatch_" + "0" * 26)
    with pytest.raises(anthropic.BadRequestError, match="message_batch_id: expected an id like msgbatch_"):
        await shared.anthropic.messages.batches.retrieve("sess_1")


async def test_cancel_lets_finish_what_runs_and_ends_what_waits(shared: World, gated: GatedVendor) -> None:
    batches = shared.anthropic.messages.batches
    batch = await batches.create(requests=[wanted(f"r{n}", "gated/claude-x") for n in range(40)])
    await eventually(lambda: len(gated.asked) == 16)
    for act in (batches.results(batch.id), batches.delete(batch.id)):
        with pytest.raises((anthropic.BadRequestError, anthropic.AnthropicError), match="in_progress"):
            await act
    canceling = await batches.cancel(batch.id)
    assert canceling.processing_status == "canceling"
    assert canceling.cancel_initiated_at is not None
    assert canceling.request_counts.processing == 40
    gated.gate.set()
    done = await reached(shared.anthropic, batch)
    assert (done.request_counts.succeeded, done.request_counts.canceled) == (16, 24)
    outcomes = [one.result.type for one in await results(shared.anthropic, batch)]
    assert outcomes == ["succeeded"] * 16 + ["canceled"] * 24
    assert len(gated.asked) == 16
    assert (await batches.cancel(batch.id)).processing_status == "ended"


async def test_deleted_batches_are_gone(shared: World) -> None:
    shared.script("anthropic", reply(ANTHROPIC_TEXT))
    batches = shared.anthropic.messages.batches
    batch = await batches.create(requests=[wanted("a")])
    await reached(shared.anthropic, batch)
    deleted = await batches.delete(batch.id)
    assert (deleted.id, deleted.type) == (batch.id, "message_batch_deleted")
    with pytest.raises(anthropic.NotFoundError):
        await batches.retrieve(batch.id)


async def test_pages_lead_through_all_batches_newest_first(shared: World) -> None:
    shared.script("anthropic", reply(ANTHROPIC_TEXT))
    batches = shared.anthropic.messages.batches
    made = [(await batches.create(requests=[wanted("a")])).id for _ in range(5)]
    seen = [one.id async for one in batches.list(limit=2)]
    assert seen[:5] == made[::-1]
    newer = await batches.list(before_id=made[1], limit=2)
    assert ([one.id for one in newer.data], newer.has_more) == ([made[3], made[2]], True)
    with pytest.raises(anthropic.BadRequestError, match="limit: expected 1-1000, got 0"):
        await batches.list(limit=0)
    with pytest.raises(anthropic.BadRequestError, match="before_id: expected either"):
        await batches.list(limit=1, after_id=made[0], before_id=made[1])
    for one in made:
        await reached(shared.anthropic, await batches.retrieve(one))


async def test_a_repeated_creation_with_its_key_makes_nothing_new(shared: World) -> None:
    shared.script("anthropic", reply(ANTHROPIC_TEXT))
    batches = shared.anthropic.messages.batches
    headers = {"idempotency-key": "batch-once"}
    first = await batches.create(requests=[wanted("a")], extra_headers=headers)
    again = await batches.create(requests=[wanted("a")], extra_headers=headers)
    assert again.id == first.id
    await reached(shared.anthropic, first)
    assert who_asked(shared.vendors["anthropic"]) == ["a"]


@pytest.mark.slow
async def test_two_servers_on_one_database_share_a_batch_ask_once_and_leave_a_record_each(
    database_url: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(world(database_url, tmp_path / "one"))
        two = await stack.enter_async_context(world(database_url, tmp_path / "two"))
        vendors = [each.script("anthropic", [HEARD, *reply(ANTHROPIC_TEXT)]) for each in (one, two)]
        names = [f"r{number}" for number in range(300)]
        batch = await one.anthropic.messages.batches.create(requests=[wanted(name) for name in names])
        await eventually(lambda: all(vendor.asked for vendor in vendors), "both to take their share")
        for vendor in vendors:
            vendor.heard.set()
        done = await reached(two.anthropic, batch)
        asked = [who_asked(vendor) for vendor in vendors]
        assert sorted(asked[0] + asked[1]) == sorted(names)
        assert done.request_counts.succeeded == 300
        assert [found.custom_id for found in await results(two.anthropic, batch)] == names
    connection = await asyncpg.connect(database_url)
    try:
        query = "SELECT principal, wire, outcome, output_tokens, count(*) FROM freehold.call_records GROUP BY 1, 2, 3, 4"
        records = [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()
    assert records == [("operator", "anthropic_messages", "ok", 7, 300)]


@pytest.mark.slow
async def test_the_command_line_lists_shows_and_cancels_batches(
    shared: World, gated: GatedVendor, tmp_path: Path
) -> None:
    command = Freehold(tmp_path)

    async def run(*arguments: str) -> Done:
        at = ("--url", shared.url, "--api-key", shared.key)
        return await asyncio.to_thread(command.ok, *at, "batches", *arguments)

    batch = await shared.anthropic.messages.batches.create(
        requests=[wanted(name, "gated/claude-x") for name in "ab"]
    )
    await eventually(lambda: len(gated.asked) == 2)
    assert f"{batch.id}  in_progress: 2 processing" in (await run("show", batch.id)).out
    assert f"{batch.id} is canceling" in (await run("cancel", batch.id)).out
    gated.gate.set()
    await reached(shared.anthropic, batch)
    assert "2 of 2" in next(line for line in (await run("list")).out.splitlines() if batch.id in line)
    (first,) = (await run("list", "--limit", "1", "--json")).json
    assert (first["id"], first["request_counts"]["succeeded"]) == (batch.id, 2)
    assert f"results: /v1/messages/batches/{batch.id}/results" in (await run("show", batch.id)).out


@pytest.mark.slow
async def test_the_documented_program_runs(shared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    shared.script("anthropic", reply(ANTHROPIC_TEXT))
    shared.script("openai", reply(OPENAI_TEXT))
    page = (ROOT / "docs" / "batches.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", shared.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", shared.key)
    names: dict[str, Any] = {}
    with redirect_stdout(said := StringIO()):
        await asyncio.to_thread(exec, compile(program, "docs/batches.md", "exec"), names)
    names["client"].close()
    assert said.getvalue().splitlines() == [
        "ticket-1 succeeded Hello there",
        "ticket-2 succeeded Hello there",
    ]


@pytest.mark.slow
async def test_killed_in_the_middle_a_batch_goes_on_and_every_request_has_one_result(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    async with Vendor([]) as vendor:
        (folder / "freehold.toml").write_text(f'[models.upstreams]\nanthropic_messages = "{vendor.url}"\n')
        names = [f"r{number}" for number in range(200)]
        batch_id, written, asked_count = "", 0, 0
        for answered in (60, 70):
            vendor.play(*[reply(ANTHROPIC_TEXT)] * answered, [HOLD])
            async with process(folder) as client:
                if not batch_id:
                    made = await client.messages.batches.create(requests=[wanted(name) for name in names])
                    batch_id = made.id
                await asked_so_often(vendor, answered + 16)
                found = await client.messages.batches.retrieve(batch_id)
                assert found.processing_status == "in_progress"
            asked_count += len(vendor.asked)
        vendor.play([HEARD, *reply(ANTHROPIC_TEXT)])
        async with process(folder) as client:
            found = await client.messages.batches.retrieve(batch_id)
            assert found.model_extra is not None
            written = found.model_extra["freehold"]["succeeded"]
            vendor.heard.set()
            done = await reached(client, found)
            assert done.request_counts.succeeded == 200
            assert [one.custom_id for one in await results(client, found)] == names
        assert 130 - 2 * 16 <= written < 200, "what was written before the kill"
        assert asked_count + len(vendor.asked) <= 200 + 4 * 16, "only what ran at a kill is asked again"


async def asked_so_often(vendor: Vendor, count: int) -> None:
    await eventually(lambda: len(vendor.asked) >= count)


class process:  # noqa: N801 - reads as what it opens
    """A server of its own, with a client; killed in the end."""

    def __init__(self, folder: Path) -> None:
        self._stack = AsyncExitStack()
        self._folder = folder
        self._server: Running | None = None

    async def __aenter__(self) -> AsyncAnthropic:
        opening = freehold(self._folder, environment={"ANTHROPIC_API_KEY": "sk-test"})
        self._server = server = self._stack.enter_context(opening)
        await asyncio.to_thread(server.ready)
        return await self._stack.enter_async_context(
            AsyncAnthropic(base_url=server.url, api_key=server.key, max_retries=0)
        )

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        await asyncio.to_thread(self._server.ended, signal.SIGKILL)
        await self._stack.aclose()
