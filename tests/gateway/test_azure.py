"""OpenAI's models on Azure: both forms of address, both credentials, and what Azure says otherwise than OpenAI.

Bodies as Microsoft documents them: https://learn.microsoft.com/en-us/azure/ai-foundry/openai/concepts/content-filter.
"""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import msgspec
import pytest

from freehold.catalog.catalog import providers
from freehold.core.errors import BadRequest, ContentRefused, Forbidden, FreeholdError, NotFound, RateLimited
from freehold.core.resources import Provider
from freehold.core.stream import Folding
from freehold.gateway.passing import Envelope
from freehold.providers import _entra_token
from freehold.providers._http import HttpPool
from freehold.providers.azure import API_VERSION, address, create
from tests.gateway._vendors import (
    OPENAI_STREAM,
    OPENAI_TEXT,
    OPENAI_TOOLS_STREAM,
    OPENAI_USAGE_CHUNK,
    Asked,
    Vendor,
    anthropic_request,
    openai_chunk,
    openai_request,
    reply,
    sse,
    stream,
)
from tests.gateway.conftest import ANN, WIRES, House, open_house

JWT = "eyJ0eXAiOiJKV1Qi.eyJhdWQiOiJh.c2lnbmF0dXJl"
SAFE = {"hate": {"filtered": False, "severity": "safe"}, "violence": {"filtered": False, "severity": "safe"}}
PROMPT_FILTERED = {
    "choices": [],
    "created": 0,
    "id": "",
    "model": "",
    "object": "",
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": SAFE}],
}


def said(text: str) -> dict[str, Any]:
    chunk = openai_chunk({"content": text})
    chunk["choices"][0]["content_filter_results"] = SAFE
    return chunk


AZURE_STREAM = [
    sse(PROMPT_FILTERED),
    sse(openai_chunk({"role": "assistant", "content": ""})),
    sse(said("Hello")),
    sse(said(" there")),
    sse(openai_chunk({}, "stop")),
    sse(OPENAI_USAGE_CHUNK, b"[DONE]"),
]
REFUSED_PROMPT = msgspec.json.encode({
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"violence": {"filtered": True, "severity": "high"}},
        },
    }
})


class Azure:
    def __init__(self, house: House, vendor: Vendor) -> None:
        self.house, self.vendor = house, vendor

    def declare(self, path: str = "", key: str = "env:AZURE_KEY") -> None:
        self.house.declared.declare(
            Provider(
                name="azure",
                type="azure",
                base_url=self.vendor.url + path,
                api_key=key,
                models=("chat-prod",),
            )
        )

    async def forward(self, *, stream: bool = False, **more: Any) -> tuple[bytes, Asked]:
        body = openai_request("azure/chat-prod", stream=stream, **more)
        async with self.house.gateway.forward(ANN, Envelope(body), wire=WIRES["openai_chat"]) as passing:
            got = b"".join([chunk async for chunk in passing.chunks()]) if stream else passing.body
        return got, self.vendor.asked[-1]

    async def call(self, *, stream: bool = False, **more: Any) -> tuple[Folding, Asked]:
        body = anthropic_request("azure/chat-prod", stream=stream, **more)
        request = WIRES["anthropic_messages"].decode_request(body)
        folding = Folding()
        async with self.house.gateway.call(ANN, request, wire="anthropic_messages") as answer:
            async for event in answer:
                folding.add(event)
        return folding, self.vendor.asked[-1]


@pytest.fixture
async def azure() -> AsyncIterator[Azure]:
    async with (
        Vendor(reply(OPENAI_TEXT)) as vendor,
        open_house(environment={"AZURE_KEY": "0123abcd", "ENTRA": JWT}) as house,
    ):
        yield Azure(house, vendor)


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("", f"/openai/deployments/chat-prod/chat/completions?api-version={API_VERSION}"),
        ("/openai/", f"/openai/deployments/chat-prod/chat/completions?api-version={API_VERSION}"),
        ("?api-version=2025-01-01-preview", "/openai/deployments/chat-prod/chat/completions?api-version=2025-01-01-preview"),
        ("/openai/v1", "/openai/v1/chat/completions"),
        ("/openai/v1/?api-version=preview", "/openai/v1/chat/completions?api-version=preview"),
        ("/gate", f"/gate/openai/deployments/chat-prod/chat/completions?api-version={API_VERSION}"),
    ],
)  # fmt: skip
async def test_a_call_goes_to_its_deployment(azure: Azure, base: str, path: str) -> None:
    azure.declare(base)
    body, asked = await azure.forward()
    assert body == OPENAI_TEXT
    assert asked.path == path
    assert asked.json["model"] == "chat-prod"
    assert asked.headers["api-key"] == "0123abcd"
    assert "authorization" not in asked.headers


async def test_a_deployments_name_stays_one_segment(azure: Azure) -> None:
    azure.declare()
    body = openai_request("azure/a/../b c")
    async with azure.house.gateway.forward(ANN, Envelope(body), wire=WIRES["openai_chat"]):
        pass
    assert azure.vendor.asked[0].path.startswith("/openai/deployments/a%2F..%2Fb%20c/chat/completions?")


async def test_an_entra_token_goes_out_as_a_bearer(azure: Azure) -> None:
    azure.declare(key="env:ENTRA")
    _, asked = await azure.forward()
    assert asked.headers["authorization"] == f"Bearer {JWT}"
    assert "api-key" not in asked.headers


def app(authority: str, **changed: str) -> str:
    held = {"tenant_id": "contoso.onmicrosoft.com", "client_id": "c-1", "client_secret": "s3cret~x"}
    return msgspec.json.encode({**held, "authority": authority, **changed}).decode()


async def test_an_app_registration_gets_one_token_for_many_calls() -> None:
    given = reply(b'{"token_type":"Bearer","expires_in":3599,"access_token":"eyJ.entra"}')
    async with Vendor(given) as entra, Vendor(reply(OPENAI_TEXT)) as vendor:
        async with open_house(environment={"APP": app(entra.url)}) as house:
            azure = Azure(house, vendor)
            azure.declare(key="env:APP")
            await azure.forward()
            await azure.call()
        (fetched,) = entra.asked
    assert fetched.path == "/contoso.onmicrosoft.com/oauth2/v2.0/token"
    assert fetched.headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(fetched.body.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["c-1"],
        "client_secret": ["s3cret~x"],
        "scope": ["https://cognitiveservices.azure.com/.default"],
    }
    assert [asked.headers["authorization"] for asked in vendor.asked] == ["Bearer eyJ.entra"] * 2
    assert not [asked for asked in vendor.asked if "api-key" in asked.headers]


async def test_a_secret_that_entra_does_not_take_is_told_without_it() -> None:
    said = "AADSTS7000215: Invalid client secret provided.\r\nTrace ID: 1"
    refused = msgspec.json.encode({"error": "invalid_client", "error_description": said})
    async with (
        Vendor(reply(refused, status=401)) as entra,
        Vendor(reply(OPENAI_TEXT)) as vendor,
        open_house(environment={"APP": app(entra.url)}) as house,
    ):
        azure = Azure(house, vendor)
        azure.declare(key="env:APP")
        with pytest.raises(Forbidden, match=r"Microsoft Entra gives no token .*AADSTS7000215") as raised:
            await azure.forward()
    assert "Trace" not in raised.value.message
    assert "s3cret" not in f"{raised.value} {raised.value.detail}"
    assert not vendor.asked


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ('{"type":"managed_identity","client_id":"c"}', "no metadata server"),
        ('{"clientId":"c","clientSecret":"s3cret"}', "client_secret"),
        ("{", "TENANT_ID:CLIENT_ID:CLIENT_SECRET"),
        (app("http://login.example.com"), "https://"),
        (app("", tenant_id="a/../b"), "tenant"),
        ("a/b:c:s3cret", "tenant"),
    ],
)
async def test_an_app_of_no_use_is_refused_without_being_shown(key: str, said: str) -> None:
    async with HttpPool(drain_s=0.1) as pool:
        with pytest.raises(BadRequest, match=said) as raised:
            create(providers()["azure"], key, headers={}, pool=pool)
    assert raised.value.field == "api_key"
    assert "s3cret" not in f"{raised.value} {raised.value.detail}"


@pytest.mark.parametrize(
    "key",
    [
        "contoso:c-1:s3:cret~x",
        '{"appId":"c-1","displayName":"d","password":"s3:cret~x","tenant":"contoso"}',
        '{"tenant_id":"contoso","client_id":"c-1","client_secret":"s3:cret~x"}',
    ],
)
def test_an_app_is_known_in_every_form_that_azures_tools_give(key: str) -> None:
    assert _entra_token.is_app(key)
    read = _entra_token._app(key)
    assert (read.tenant_id, read.client_id, read.client_secret) == ("contoso", "c-1", "s3:cret~x")


async def test_a_clients_headers_stay_here(azure: Azure) -> None:
    azure.declare()
    envelope = Envelope(openai_request("azure/chat-prod"))
    headers = {"authorization": "Bearer fh_x", "api-key": "fh_x", "cookie": "c"}
    async with azure.house.gateway.forward(ANN, envelope, wire=WIRES["openai_chat"], headers=headers):
        pass
    assert azure.vendor.asked[0].headers["api-key"] == "0123abcd"
    assert "cookie" not in azure.vendor.asked[0].headers


async def test_a_stream_passes_and_is_metered(azure: Azure) -> None:
    azure.declare()
    azure.vendor.play(stream(*AZURE_STREAM))
    got, asked = await azure.forward(stream=True)
    assert b"Hello" in got
    assert b"prompt_filter_results" in got, "what Azure says of the prompt is no usage, and stays"
    assert b'"prompt_tokens"' not in got, "who did not ask for usage is not told"
    assert asked.json["stream_options"] == {"include_usage": True}
    assert azure.house.spool.only.usage.input_tokens == 120


@pytest.mark.parametrize("pieces", [AZURE_STREAM, OPENAI_STREAM])
async def test_a_stream_is_translated(azure: Azure, pieces: list[bytes]) -> None:
    azure.declare()
    azure.vendor.play(stream(*pieces))
    folding, asked = await azure.call(stream=True)
    answer = folding.response()
    assert (answer.text(), answer.stop_reason, answer.usage.output_tokens) == ("Hello there", "end_turn", 7)
    assert asked.json["stream_options"] == {"include_usage": True}


async def test_tools_are_called(azure: Azure) -> None:
    azure.declare("/openai/v1")
    azure.vendor.play(stream(sse(PROMPT_FILTERED), *OPENAI_TOOLS_STREAM))
    folding, asked = await azure.call(stream=True, tools=True)
    (call,) = folding.response().tool_calls()
    assert (call.name, call.arguments) == ("stock", '{"sku":"4482"}')
    assert asked.json["tools"][0]["function"]["name"] == "stock"


async def test_an_old_version_is_not_sent_what_it_refuses(azure: Azure) -> None:
    azure.declare("?api-version=2024-02-01")
    _, asked = await azure.call(stream=False)
    assert "max_tokens" in asked.json
    assert "max_completion_tokens" not in asked.json
    azure.vendor.play(stream(*AZURE_STREAM))
    _, asked = await azure.forward(stream=True, stream_options={"include_usage": True})
    assert "stream_options" not in asked.json


@pytest.mark.parametrize(
    ("status", "body", "cause", "says"),
    [
        (400, REFUSED_PROMPT, ContentRefused, "content management policy"),
        (404, b'{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}',
         NotFound, "deployment for this resource does not exist"),
        (401, b'{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint."}}',
         Forbidden, "azure refused the key that Freehold has for it"),
        (404, b'{"error":{"code":"404","message":"Resource not found"}}', NotFound, "Resource not found"),
        (400, b'{"error":{"code":"BadRequest","message":"API version not supported"}}', BadRequest, "API version not supported"),
    ],
)  # fmt: skip
async def test_what_azure_refuses_is_told_by_its_cause(
    azure: Azure, status: int, body: bytes, cause: type[FreeholdError], says: str
) -> None:
    azure.declare()
    azure.vendor.play(reply(body, status=status))
    for ask in (azure.forward, azure.call):
        with pytest.raises(cause, match=says):
            await ask()  # type: ignore[operator]


async def test_how_long_to_wait_is_told(azure: Azure) -> None:
    azure.declare()
    limited = b'{"error":{"code":"429","message":"Requests have exceeded the token rate limit of your current tier."}}'
    azure.vendor.play(reply(limited, status=429, headers="retry-after: 19\r\n"))
    with pytest.raises(RateLimited) as refused:
        await azure.forward()
    assert refused.value.retry_after_s == 19


async def test_a_filtered_answer_is_a_refusal(azure: Azure) -> None:
    azure.declare()
    azure.vendor.play(stream(*AZURE_STREAM[:3], sse(openai_chunk({}, "content_filter")), AZURE_STREAM[-1]))
    folding, _ = await azure.call(stream=True)
    assert folding.response().stop_reason == "refusal"


@pytest.mark.parametrize("query", ["?api-version=tomorrow", "?api-version=2024-10-21 HTTP/1.1", '?x=a"b'])
def test_a_query_that_is_none_of_azures_is_refused(query: str) -> None:
    with pytest.raises(BadRequest, match="api-version") as refused:
        address(f"https://r.openai.azure.com{query}")
    assert refused.value.field == "base_url"
