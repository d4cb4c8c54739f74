"""Google's adapter on a socket: where it calls, what it calls with, and what becomes of everything that may come back."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.gateway._vendors import CUT, Step, Vendor, reply, stream
from tests.providers.conftest import ScriptedServer

from freehold.catalog.catalog import ProviderRow
from freehold.core.errors import (
    BrokenOff,
    ContentRefused,
    ContextTooLong,
    Forbidden,
    FreeholdError,
    Overloaded,
    RateLimited,
    Unavailable,
)
from freehold.core.messages import Message, ModelRequest, Text, Usage
from freehold.core.ports import Provider
from freehold.core.stream import fold
from freehold.providers._http import HttpPool
from freehold.providers.google import METHOD, create, path_of

GOLDEN = Path(__file__).parent.parent / "golden" / "google_generate"
MODEL = "gemini-3.8-flash"
THINKING = (GOLDEN / "stream_thinking.sse").read_bytes()


@pytest.fixture
async def pool() -> AsyncIterator[HttpPool]:
    async with HttpPool(drain_s=0.1) as opened:
        yield opened


def opened(url: str, pool: HttpPool) -> Provider:
    row = ProviderRow(name="google", type="google", base_url=url, api_key=("GEMINI_API_KEY",))
    return create(row, "sk-google", headers={}, pool=pool)


def asking(*, streamed: bool) -> ModelRequest:
    return ModelRequest(model=MODEL, messages=(Message("user", (Text("hi"),)),), stream=streamed)


async def answer(provider: Provider, *, streamed: bool):
    async with provider.call(asking(streamed=streamed)) as events:
        return fold([event async for event in events])


async def refused(script: list[Step], pool: HttpPool, *, streamed: bool = False) -> FreeholdError:
    async with Vendor(script) as vendor:
        with pytest.raises(FreeholdError) as raised:
            await answer(opened(vendor.url, pool), streamed=streamed)
    return raised.value


async def test_a_whole_answer(pool: HttpPool) -> None:
    async with Vendor(reply((GOLDEN / "response_tools.json").read_bytes())) as vendor:
        got = await answer(opened(vendor.url, pool), streamed=False)
        (asked,) = vendor.asked
    assert [call.name for call in got.tool_calls()] == ["stock"]
    assert asked.path == f"/v1beta/models/{MODEL}:generateContent"
    assert asked.headers["x-goog-api-key"] == "sk-google"
    assert "authorization" not in asked.headers
    assert asked.json == {"contents": [{"parts": [{"text": "hi"}], "role": "user"}]}


async def test_a_stream(pool: HttpPool) -> None:
    async with Vendor(stream(THINKING[:300], THINKING[300:301], THINKING[301:])) as vendor:
        got = await answer(opened(vendor.url, pool), streamed=True)
        (asked,) = vendor.asked
    assert got.text() == "None in 上海."
    assert got.usage == Usage(input_tokens=20, output_tokens=17, reasoning_tokens=13)
    assert asked.path == f"/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"


@pytest.mark.parametrize("ending", [[], [CUT]])
async def test_a_stream_that_ends_early_was_broken_off(pool: HttpPool, ending: list[Step]) -> None:
    cut = THINKING[: THINKING.rindex(b"data: ")]
    error = await refused(stream(cut, *ending), pool, streamed=True)
    assert isinstance(error, BrokenOff)
    assert error.message.startswith("google: ")


async def test_an_error_in_the_middle_of_a_stream(pool: HttpPool) -> None:
    script = stream((GOLDEN / "stream_overloaded.sse").read_bytes())
    assert isinstance(await refused(script, pool, streamed=True), Overloaded)


@pytest.mark.parametrize(
    ("status", "body", "cause"),
    [
        (429, (GOLDEN / "error_quota.json").read_bytes(), RateLimited),
        (400, (GOLDEN / "error_key.json").read_bytes(), Forbidden),
        (503, b'{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}', Overloaded),
        (503, b'[{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}]', Overloaded),
        (200, (GOLDEN / "response_blocked.json").read_bytes(), ContentRefused),
        (200, b'{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}', Overloaded),
        (200, b"<html>", Unavailable),
        (200, b"", Unavailable),
        (
            400,
            b'{"error":{"message":"The input token count (2) exceeds the maximum number of tokens allowed (1)."}}',
            ContextTooLong,
        ),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_refusals(
    pool: HttpPool, status: int, body: bytes, cause: type[FreeholdError], streamed: bool
) -> None:
    error = await refused(reply(body, status=status), pool, streamed=streamed)
    assert type(error) is cause
    assert "sk-google" not in f"{error} {error.detail}"
    if cause is RateLimited:
        assert error.retry_after_s == 34.07


async def test_a_body_passes_as_it_is(pool: HttpPool) -> None:
    body = b'{"contents":[{"parts":[{"text":"hi"}]}],"somethingNew":1}'
    async with Vendor(stream(THINKING)) as vendor:
        provider = opened(vendor.url, pool)
        headers = {"x-goog-api-key": "fh_theirs", "x-goog-user-project": "theirs"}
        async with provider.forward(body, model=MODEL, stream=True, headers=headers) as passed:
            got = b"".join([piece async for piece in passed.chunks()])
        (asked,) = vendor.asked
    assert got == THINKING
    assert asked.body == body
    assert asked.headers["x-goog-api-key"] == "sk-google"
    assert "x-goog-user-project" not in asked.headers


def test_no_name_of_a_model_leads_out_of_its_place() -> None:
    assert path_of("models/gemini-3", METHOD) == "/v1beta/models/gemini-3:generateContent"
    assert path_of("tunedModels/mine", METHOD) == "/v1beta/tunedModels/mine:generateContent"
    assert path_of("../files?x#y", METHOD) == "/v1beta/models/..%2Ffiles%3Fx%23y:generateContent"


async def test_models_that_write_or_make_embeddings_are_listed(pool: HttpPool) -> None:
    models = [
        {"name": "models/gemini-3.8-flash", "displayName": "Gemini", "inputTokenLimit": 1048576, "outputTokenLimit": 65536,
         "supportedGenerationMethods": ["generateContent", "countTokens"], "thinking": True},
        {"name": "models/embedding-1", "supportedGenerationMethods": ["embedContent"]},
        {"name": "models/imagen", "supportedGenerationMethods": ["predict"]},
    ]  # fmt: skip
    body = msgspec.json.encode({"models": models})
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with ScriptedServer(head + body) as server:
        (info, embedding) = await opened(server.url, pool).models()
        (call,) = server.calls
    assert call.head.startswith(b"GET /v1beta/models?pageSize=1000 ")
    assert (embedding.name, embedding.embeds, info.embeds) == ("embedding-1", True, False)
    assert (info.name, info.display_name, info.context_tokens, info.output_tokens_max, info.reasoning) == (
        "gemini-3.8-flash",
        "Gemini",
        1048576,
        65536,
        True,
    )


async def test_a_list_that_is_none_is_unavailable(pool: HttpPool) -> None:
    body = b'{"models":3}'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with ScriptedServer(head + body) as server:
        with pytest.raises(Unavailable, match="no list of models"):
            await opened(server.url, pool).models()
