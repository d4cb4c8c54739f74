"""Vertex AI on sockets: a token endpoint that is asked by signed claims, and an address that wants its tokens."""

import asyncio
import json
import struct
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from google.genai import types
from msgspec import structs
from tests.gateway._vendors import ANTHROPIC_STREAM, ANTHROPIC_TEXT, Vendor, reply, stream

from freehold.catalog.catalog import providers
from freehold.core.embeddings import EmbeddingRequest
from freehold.core.errors import BadRequest, Forbidden, FreeholdError, Unavailable, Unsupported
from freehold.core.messages import Message, ModelRequest, Text
from freehold.core.ports import CountsTokens, Embeds, Provider
from freehold.core.stream import fold
from freehold.providers._google_token import SCOPE
from freehold.providers._http import HttpPool
from freehold.providers._token import EARLY_S, RETRY_S, Bearer, Token
from freehold.providers.google_vertex import address, create, path_of

GOLDEN = Path(__file__).parent.parent / "golden" / "google_generate"
THINKING = (GOLDEN / "stream_thinking.sse").read_bytes()
PLACE = "/v1/projects/acme/locations/europe-west4"
GIVEN = reply(b'{"access_token":"ya29.one","expires_in":3599,"token_type":"Bearer"}')
ANSWER = {
    "candidates": [{"content": {"parts": [{"text": "Hello"}], "role": "model"}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1, "totalTokenCount": 4},
}


@pytest.fixture
async def pool() -> AsyncIterator[HttpPool]:
    async with HttpPool(drain_s=0.1) as opened:
        yield opened


@pytest.fixture(scope="module")
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: Any) -> str:
    form = serialization.PrivateFormat.PKCS8
    return str(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode())


def account(key: Any, token_uri: str) -> str:
    held = {"type": "service_account", "project_id": "acme", "private_key_id": "k1", "private_key": pem(key),
            "client_email": "freehold@acme.iam.gserviceaccount.com", "token_uri": token_uri}  # fmt: skip
    return json.dumps(held)


def opened(url: str, key: str, pool: HttpPool, wire: str = "", **headers: str) -> Provider:
    row = providers()["vertex"]
    changes = {field: getattr(row, field) for field in row.__struct_fields__} | {
        "base_url": url + PLACE,
        "wire": wire,
    }
    return create(type(row)(**changes), key, headers=headers, pool=pool)


def asking(model: str, *, streamed: bool = False) -> ModelRequest:
    return ModelRequest(
        model=model, messages=(Message("user", (Text("hi"),)),), stream=streamed, tokens_max=10
    )


async def answer(provider: Provider, model: str = "gemini-3.8-flash", *, streamed: bool = False) -> str:
    async with provider.call(asking(model, streamed=streamed)) as events:
        return fold([event async for event in events]).text()


def verified(assertion: str, key: rsa.RSAPrivateKey) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header and claims of a JWT whose signature is right. https://www.rfc-editor.org/rfc/rfc7515#section-5.2"""
    signed, _, signature = assertion.rpartition(".")
    key.public_key().verify(unpadded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    head, claims = signed.split(".")
    return json.loads(unpadded(head)), json.loads(unpadded(claims))


def unpadded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


async def test_a_service_account_signs_for_one_token_and_many_calls_use_it(
    pool: HttpPool, private_key: rsa.RSAPrivateKey
) -> None:
    async with Vendor(GIVEN) as tokens, Vendor(reply(json.dumps(ANSWER).encode())) as vertex:
        key = account(private_key, f"{tokens.url}/token")
        provider = opened(vertex.url, key, pool)
        said = await asyncio.gather(*(answer(provider) for _ in range(8)))
        embedding = opened(vertex.url, key, pool, wire="google_embed")
        assert isinstance(embedding, Embeds)
        vertex.play(reply(b'{"predictions":[{"embeddings":{"values":[1.0]}}]}'))
        await embedding.embed(EmbeddingRequest(model="text-embedding-005", inputs=("a",)))
        (asked,) = tokens.asked
    assert said == ["Hello"] * 8
    form = parse_qs(asked.body.decode())
    assert asked.path == "/token"
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    head, claims = verified(form["assertion"][0], private_key)
    assert head == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
    assert claims.pop("exp") - claims.pop("iat") == 3600
    assert claims == {
        "iss": "freehold@acme.iam.gserviceaccount.com",
        "scope": SCOPE,
        "aud": f"{tokens.url}/token",
    }


async def test_a_call_says_where_and_by_whose_token(pool: HttpPool, private_key: rsa.RSAPrivateKey) -> None:
    async with (
        Vendor(GIVEN) as tokens,
        Vendor(reply(json.dumps(ANSWER).encode()), stream(THINKING)) as vertex,
    ):
        provider = opened(vertex.url, account(private_key, f"{tokens.url}/token"), pool)
        await answer(provider)
        await answer(provider, streamed=True)
        whole, streamed = vertex.asked
    assert whole.path == f"{PLACE}/publishers/google/models/gemini-3.8-flash:generateContent"
    assert streamed.path == f"{PLACE}/publishers/google/models/gemini-3.8-flash:streamGenerateContent?alt=sse"
    assert whole.headers["authorization"] == "Bearer ya29.one"
    for content in whole.json["contents"]:
        types.Content.model_validate(content)
    types.GenerateContentConfig.model_validate(whole.json["generationConfig"])


async def test_who_logged_in_has_a_refresh_token(pool: HttpPool) -> None:
    async with Vendor(GIVEN) as tokens, Vendor(reply(json.dumps(ANSWER).encode())) as vertex:
        user = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r",
                "token_uri": f"{tokens.url}/token"}  # fmt: skip
        await answer(opened(vertex.url, json.dumps(user), pool))
        (asked,) = tokens.asked
    assert parse_qs(asked.body.decode()) == {
        "grant_type": ["refresh_token"],
        "client_id": ["c"],
        "client_secret": ["s"],
        "refresh_token": ["r"],
    }


async def test_an_access_token_goes_out_as_it_is(pool: HttpPool) -> None:
    async with Vendor(reply(json.dumps(ANSWER).encode())) as vertex:
        await answer(opened(vertex.url, "ya29.mine", pool))
        await answer(opened(vertex.url, "ya29.mine", pool, Authorization="Bearer theirs"))
        mine, theirs = vertex.asked
    assert mine.headers["authorization"] == "Bearer ya29.mine"
    assert theirs.headers["authorization"] == "Bearer theirs"


@pytest.mark.parametrize(
    ("script", "cause", "said"),
    [
        (
            reply(b'{"error":"invalid_grant","error_description":"Invalid JWT"}', status=400),
            Forbidden,
            "invalid_grant",
        ),
        (reply(b"gone", status=503), Unavailable, "503"),
        (reply(b"<html>"), Unavailable, "no token"),
    ],
)
async def test_no_token_is_told_without_a_secret(
    pool: HttpPool, private_key: rsa.RSAPrivateKey, script: Any, cause: type[FreeholdError], said: str
) -> None:
    async with Vendor(script) as tokens, Vendor([]) as vertex:
        provider = opened(vertex.url, account(private_key, f"{tokens.url}/token"), pool)
        for _ in range(3):
            with pytest.raises(cause, match=said) as raised:
                await answer(provider)
        assert len(tokens.asked) == 1, "nobody asks again at once"
        assert not vertex.asked
    assert "PRIVATE" not in f"{raised.value} {raised.value.detail}"
    assert "assertion" not in f"{raised.value} {raised.value.detail}"


def pem_of_another_kind() -> str:
    return account(ec.generate_private_key(ec.SECP256R1()), "https://oauth2.googleapis.com/token")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ('{"type":"service_account","client_email":"a","private_key":"nonsense"}', "no PEM"),
        (pem_of_another_kind(), "no RSA key"),
        ('{"type":"external_account"}', "service account"),
        ('{"type":"service_account"}', "client_email"),
        ("{", "service account"),
        ('{"type":"authorized_user","client_id":"c","client_secret":"s3cret","refresh_token":"r","token_uri":"http://evil.test/t"}', "https"),
    ],
)  # fmt: skip
async def test_a_credential_of_no_use_is_refused_without_being_shown(
    pool: HttpPool, key: str, said: str
) -> None:
    with pytest.raises(BadRequest, match=said) as raised:
        opened("http://127.0.0.1:1", key, pool)
    assert raised.value.field == "api_key"
    assert "nonsense" not in str(raised.value)
    assert "s3cret" not in str(raised.value)


class Endpoint:
    """Gives out tokens by hand."""

    def __init__(self, *lasts_s: float) -> None:
        self.now_s = 1000.0
        self.fetched = 0
        self.fails = False
        self.asked = asyncio.Event()
        self.gate: asyncio.Event | None = None
        self._lasts_s = lasts_s or (3600.0,)
        self.bearer = Bearer(self.fetch, now_s=lambda: self.now_s)

    async def fetch(self) -> Token:
        self.fetched += 1
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.fails:
            raise Unavailable("no")
        return Token(f"t{self.fetched}", self._lasts_s[min(self.fetched, len(self._lasts_s)) - 1])

    async def token(self) -> str:
        return (await self.bearer.header()).decode().removeprefix("authorization: Bearer ").strip()


async def test_a_token_is_renewed_before_its_end() -> None:
    endpoint = Endpoint()
    assert await endpoint.token() == "t1"
    endpoint.now_s += 3600 - EARLY_S - 1
    assert await endpoint.token() == "t1"
    endpoint.now_s += 1
    assert await endpoint.token() == "t2"


async def test_while_a_token_is_renewed_the_old_one_serves_and_only_one_asks() -> None:
    endpoint = Endpoint()
    await endpoint.token()
    endpoint.now_s += 3600 - EARLY_S
    endpoint.gate = asyncio.Event()
    endpoint.asked.clear()
    renewing = asyncio.create_task(endpoint.token())
    await endpoint.asked.wait()
    assert [await endpoint.token() for _ in range(3)] == ["t1"] * 3
    endpoint.gate.set()
    assert await renewing == "t2"
    assert endpoint.fetched == 2


async def test_who_gives_up_waiting_leaves_the_fetch_to_the_next() -> None:
    endpoint = Endpoint()
    endpoint.gate = asyncio.Event()
    first = asyncio.create_task(endpoint.token())
    second = asyncio.create_task(endpoint.token())
    await endpoint.asked.wait()
    first.cancel()
    endpoint.gate.set()
    assert await second == "t2"


async def test_a_renewal_that_fails_keeps_the_old_token_to_its_end() -> None:
    endpoint = Endpoint()
    await endpoint.token()
    endpoint.fails = True
    endpoint.now_s += 3600 - EARLY_S
    assert [await endpoint.token(), await endpoint.token()] == ["t1", "t1"]
    assert endpoint.fetched == 2
    endpoint.now_s += EARLY_S
    with pytest.raises(Unavailable):
        await endpoint.token()
    endpoint.fails = False
    endpoint.now_s += RETRY_S
    assert await endpoint.token() == "t4"


async def test_a_token_that_is_refused_early_is_fetched_anew_but_not_at_once() -> None:
    endpoint = Endpoint()
    await endpoint.token()
    endpoint.bearer.refused()
    assert await endpoint.token() == "t1"
    endpoint.now_s += RETRY_S
    endpoint.bearer.refused()
    assert await endpoint.token() == "t2"


async def test_tokens_are_counted_by_the_vendor(pool: HttpPool) -> None:
    async with Vendor(reply(b'{"totalTokens":42}')) as vertex:
        provider = opened(vertex.url, "t", pool)
        assert isinstance(provider, CountsTokens)
        assert await provider.count(asking("gemini-3.8-flash")) == 42
        body = b'{"contents":[],"safetySettings":[]}'
        assert await provider.count_passed(body, model="gemini-3.8-flash", headers={}) == 42
        first, second = vertex.asked
    assert first.path == f"{PLACE}/publishers/google/models/gemini-3.8-flash:countTokens"
    assert set(first.json) == {"contents", "generationConfig"}
    assert second.json == {"contents": []}


async def test_anthropics_models_answer_as_long_as_they_can_where_nobody_set_a_limit(pool: HttpPool) -> None:
    async with Vendor(reply(ANTHROPIC_TEXT)) as vertex:
        provider = opened(vertex.url, "t", pool, wire="anthropic_messages")
        for streamed in (False, True):
            vertex.play(stream(*ANTHROPIC_STREAM) if streamed else reply(ANTHROPIC_TEXT))
            request = structs.replace(
                asking("claude-sonnet-4-5@20250929", streamed=streamed), tokens_max=None
            )
            async with provider.call(request) as events:
                fold([event async for event in events])
            assert vertex.asked[0].json["max_tokens"] == (64_000 if streamed else 16_384)


async def test_anthropics_models_speak_their_own_wire(pool: HttpPool) -> None:
    model = "claude-sonnet-4-5@20250929"
    async with Vendor(reply(ANTHROPIC_TEXT), stream(*ANTHROPIC_STREAM)) as vertex:
        provider = opened(vertex.url, "t", pool, wire="anthropic_messages")
        assert await answer(provider, model) == "Hello there"
        assert await answer(provider, model, streamed=True) == "Hello there"
        body = b'{"model":"claude-sonnet-4-5@20250929","messages":[],"max_tokens":1}'
        headers = {"anthropic-beta": "x-2025", "anthropic-version": "2023-06-01"}
        whole, streamed = vertex.asked
        vertex.play(reply(ANTHROPIC_TEXT))
        async with provider.forward(body, model=model, stream=False, headers=headers) as raw:
            await raw.read()
        (passed,) = vertex.asked
    publisher = f"{PLACE}/publishers/anthropic/models/{model}"
    assert (whole.path, streamed.path) == (f"{publisher}:rawPredict", f"{publisher}:streamRawPredict")
    assert "model" not in whole.json
    assert whole.json["anthropic_version"] == "vertex-2023-10-16"
    assert streamed.json["stream"] is True
    assert passed.json == {"messages": [], "max_tokens": 1, "anthropic_version": "vertex-2023-10-16"}
    assert passed.headers["anthropic-beta"] == "x-2025"
    assert "anthropic-version" not in passed.headers


async def test_anthropics_models_are_counted(pool: HttpPool) -> None:
    async with Vendor(reply(b'{"input_tokens":7}')) as vertex:
        provider = opened(vertex.url, "t", pool, wire="anthropic_messages")
        assert isinstance(provider, CountsTokens)
        assert await provider.count(asking("claude-sonnet-4-5")) == 7
        (asked,) = vertex.asked
    assert asked.path == f"{PLACE}/publishers/anthropic/models/count-tokens:rawPredict"
    assert asked.json["model"] == "claude-sonnet-4-5"
    assert "max_tokens" not in asked.json


VECTOR = struct.pack("<f", 1)


@pytest.mark.parametrize(
    ("model", "inputs", "script", "method", "body"),
    [
        (
            "text-embedding-005", ("a", "b"),
            {"predictions": [{"embeddings": {"values": [1], "statistics": {"token_count": 2}}}] * 2}, "predict",
            {"instances": [{"content": "a", "task_type": "RETRIEVAL_QUERY"}, {"content": "b", "task_type": "RETRIEVAL_QUERY"}],
             "parameters": {"outputDimensionality": 1}},
        ),
        (
            "gemini-embedding-2", ("a",), {"embedding": {"values": [1]}, "usageMetadata": {"promptTokenCount": 4}}, "embedContent",
            {"content": {"parts": [{"text": "a"}]}, "embedContentConfig": {"taskType": "RETRIEVAL_QUERY", "outputDimensionality": 1}},
        ),
        (
            "gemini-embedding-2", ("a", "b"), {"embeddings": [{"values": [1]}] * 2, "usageMetadata": {"promptTokenCount": 4}},
            "batchEmbedContents",
            {"requests": [{"content": {"parts": [{"text": text}]},
                           "embedContentConfig": {"taskType": "RETRIEVAL_QUERY", "outputDimensionality": 1}} for text in "ab"]},
        ),
    ],
)  # fmt: skip
async def test_embeddings_by_the_method_that_a_model_has(
    pool: HttpPool, model: str, inputs: tuple[str, ...], script: Any, method: str, body: Any
) -> None:
    async with Vendor(reply(json.dumps(script).encode())) as vertex:
        provider = opened(vertex.url, "t", pool, wire="google_embed")
        assert isinstance(provider, Embeds)
        request = EmbeddingRequest(model=model, inputs=inputs, task="search_query", dimensions=1)
        made = await provider.embed(request)
        (asked,) = vertex.asked
    assert asked.path == f"{PLACE}/publishers/google/models/{model}:{method}"
    assert asked.json == body
    assert (made.model, made.vectors, made.usage.input_tokens) == (model, (VECTOR,) * len(inputs), 4)


async def test_what_passes_nowhere_says_so(pool: HttpPool) -> None:
    provider = opened("http://127.0.0.1:1", "t", pool, wire="google_embed")
    with pytest.raises(Unsupported):
        provider.call(asking("gemini-embedding-2"))


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("global", "aiplatform.googleapis.com"),
        ("us-central1", "us-central1-aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_a_place_has_its_own_host(location: str, host: str) -> None:
    path = f"/v1/projects/acme/locations/{location}"
    assert address(f"https://aiplatform.googleapis.com{path}") == f"https://{host}{path}"
    assert address(f"https://mine.test{path}") == f"https://mine.test{path}"


@pytest.mark.parametrize("path", ["", "/v1", "/v1/projects/p", f"{PLACE}/publishers/google", f"{PLACE}?x=y"])
def test_an_address_without_a_place_is_refused(path: str) -> None:
    with pytest.raises(BadRequest) as raised:
        address(f"https://aiplatform.googleapis.com{path}")
    assert raised.value.field == "base_url"


def test_no_name_of_a_model_leads_out_of_its_place() -> None:
    assert path_of("meta/llama-4", "generateContent") == "/publishers/meta/models/llama-4:generateContent"
    assert path_of("endpoints/12/../3", "predict") == "/endpoints/12%2F..%2F3:predict"
    assert path_of("a?b#c d", "predict") == "/publishers/google/models/a%3Fb%23c%20d:predict"
    for model in ("../x", "a/../x", "/x", "x y/z"):
        with pytest.raises(BadRequest):
            path_of(model, "predict")
