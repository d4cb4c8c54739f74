"""Google's unmodified SDK against our server, with OpenAI's, Anthropic's and Google's vendors scripted behind; and their SDKs on Google's."""

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from google import genai
from google.genai import errors, types

from freehold.core.errors import BadRequest, NotFound
from freehold.server.google import address_of
from tests._waiting import PATIENCE_S, within
from tests.gateway._vendors import (
    ANTHROPIC_STREAM,
    ANTHROPIC_TEXT,
    ANTHROPIC_TOOLS_STREAM,
    CUT,
    HOLD,
    OPENAI_STREAM,
    OPENAI_TEXT,
    OPENAI_TOOLS_STREAM,
    Step,
    Vendor,
    reply,
    sse,
    stream,
)
from tests.server._world import World

GOLDEN = Path(__file__).parent.parent / "golden" / "google_generate"
MODELS = {
    "openai": "openai/gpt-4o",
    "anthropic": "anthropic/claude-sonnet-4-5",
    "google": "aistudio/gemini-3.8-flash",
}
USAGE = {
    "promptTokenCount": 120,
    "cachedContentTokenCount": 100,
    "candidatesTokenCount": 7,
    "totalTokenCount": 127,
}
PARAMETERS = {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}
STOCK = types.Tool(
    function_declarations=[types.FunctionDeclaration(name="stock", parameters_json_schema=PARAMETERS)]
)


def google_answer(*parts: Any, finish: str | None = None) -> dict[str, Any]:
    candidate = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    return {
        "candidates": [candidate | ({"finishReason": finish} if finish else {})],
        "usageMetadata": USAGE,
        "modelVersion": "gemini-3.8-flash",
        "responseId": "r1",
    }


CALL = {"functionCall": {"name": "stock", "args": {"sku": "4482"}}, "thoughtSignature": "c2lnbmF0dXJl"}
GOOGLE_STREAM = [
    sse(google_answer({"text": "Hello"})),
    sse(google_answer({"text": " there"})),
    sse(google_answer({"text": ""}, finish="STOP")),
]
SCRIPTS: dict[str, dict[str, Sequence[Step]]] = {
    "openai": {
        "text": reply(OPENAI_TEXT),
        "stream": stream(*OPENAI_STREAM),
        "tools": stream(*OPENAI_TOOLS_STREAM),
    },
    "anthropic": {
        "text": reply(ANTHROPIC_TEXT),
        "stream": stream(*ANTHROPIC_STREAM),
        "tools": stream(*ANTHROPIC_TOOLS_STREAM),
    },
    "google": {
        "text": reply(json.dumps(google_answer({"text": "Hello there"}, finish="STOP")).encode()),
        "stream": stream(*GOOGLE_STREAM),
        "tools": stream(sse(google_answer(CALL, finish="STOP"))),
    },
}
every = pytest.mark.parametrize("vendor", ["openai", "anthropic", "google"])


class Place:
    """The shared server, and a Google vendor declared in it."""

    def __init__(self, world: World, google_vendor: Vendor) -> None:
        self.world = world
        self.google_vendor = google_vendor
        self.client = genai.Client(api_key=world.key, http_options=types.HttpOptions(base_url=world.url)).aio

    def script(self, vendor: str, *scripts: Sequence[Step]) -> Vendor:
        if vendor != "google":
            return self.world.script(vendor, *scripts)
        self.google_vendor.play(*scripts)
        return self.google_vendor

    async def post(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        async with httpx2.AsyncClient(base_url=self.world.url, trust_env=False, timeout=PATIENCE_S) as client:
            return await client.post(path, json=body, headers=headers or {"x-goog-api-key": self.world.key})


@pytest.fixture(scope="module")
async def place(shared: World) -> AsyncIterator[Place]:
    async with Vendor([]) as vendor:
        await shared.apply(
            f"kind: provider\nname: aistudio\ntype: google\nbase_url: {vendor.url}\nmodels: [gemini-3.8-flash]\n"
        )
        opened = Place(shared, vendor)
        yield opened
        await opened.client.aclose()


@every
async def test_a_whole_answer(place: Place, vendor: str) -> None:
    place.script(vendor, SCRIPTS[vendor]["text"])
    answer = await place.client.models.generate_content(model=MODELS[vendor], contents="Hello")
    assert answer.text == "Hello there"
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP
    usage = answer.usage_metadata
    assert (usage.prompt_token_count, usage.cached_content_token_count, usage.candidates_token_count) == (
        120,
        100,
        7,
    )
    assert usage.total_token_count == 127


@every
async def test_a_stream(place: Place, vendor: str) -> None:
    asked = place.script(vendor, SCRIPTS[vendor]["stream"])
    chunks = await place.client.models.generate_content_stream(model=MODELS[vendor], contents="Hello")
    got = [chunk async for chunk in chunks]
    assert "".join(chunk.text or "" for chunk in got) == "Hello there"
    assert got[-1].candidates[0].finish_reason == types.FinishReason.STOP
    assert got[-1].usage_metadata.prompt_token_count == 120
    assert asked.asked[0].path.endswith(
        {"openai": "/chat/completions", "anthropic": "/messages", "google": ":streamGenerateContent?alt=sse"}[
            vendor
        ]
    )


@every
async def test_a_chat_that_calls_a_tool(place: Place, vendor: str) -> None:
    """Two turns: the client brings the call back, with its seal where the vendor made one, and the result of its name."""
    asked = place.script(vendor, SCRIPTS[vendor]["tools"], SCRIPTS[vendor]["stream"])
    config = types.GenerateContentConfig(
        tools=[STOCK], system_instruction="You keep the stock.", temperature=0.5
    )
    chat = place.client.chats.create(model=MODELS[vendor], config=config)
    (call,) = [
        call
        async for chunk in await chat.send_message_stream("How many?")
        for call in chunk.function_calls or []
    ]
    assert (call.name, call.args) == ("stock", {"sku": "4482"})
    result = types.Part.from_function_response(name="stock", response={"count": 12})
    texts = [chunk.text or "" async for chunk in await chat.send_message_stream(result)]
    assert "".join(texts) == "Hello there"
    first, second = (one.json for one in asked.asked)
    told = json.dumps(second)
    assert "You keep the stock." in json.dumps(first)
    match vendor:
        case "openai":
            assert first["tools"][0]["function"]["parameters"] == PARAMETERS
            (said,) = [message for message in second["messages"] if message["role"] == "tool"]
            assert (said["tool_call_id"], json.loads(said["content"])) == ("call_1", {"count": 12})
        case "anthropic":
            assert first["tools"][0]["input_schema"] == PARAMETERS
            (block,) = second["messages"][-1]["content"]
            assert (block["type"], block["tool_use_id"]) == ("tool_result", "toolu_1")
        case _:
            assert "c2lnbmF0dXJl" in told


@every
async def test_an_image_and_a_schema(place: Place, vendor: str) -> None:
    asked = place.script(vendor, SCRIPTS[vendor]["text"])
    schema = types.Schema(type=types.Type.OBJECT, properties={"n": types.Schema(type=types.Type.INTEGER)})
    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=schema)
    image = types.Part.from_bytes(data=b"\xff\xfe\xfd\xfb\xff", mime_type="image/png")
    await place.client.models.generate_content(model=MODELS[vendor], contents=["What?", image], config=config)
    body = json.dumps(asked.asked[0].json)
    assert ("//79+/8=" in body) if vendor != "google" else ("__79-_8=" in body or "//79+/8=" in body)
    if vendor == "openai":
        schema_sent = asked.asked[0].json["response_format"]["json_schema"]["schema"]
        assert schema_sent == {"type": "object", "properties": {"n": {"type": "integer"}}}


async def test_thinking_of_anthropics_comes_back_signed(place: Place) -> None:
    block = {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"}
    message = json.loads(ANTHROPIC_TEXT)
    thinking = {**message, "content": [block, *message["content"]]}
    asked = place.script("anthropic", reply(json.dumps(thinking).encode()), SCRIPTS["anthropic"]["text"])
    config = types.GenerateContentConfig(
        thinking_config=types.ThinkingConfig(thinking_budget=1024, include_thoughts=True)
    )
    chat = place.client.chats.create(model=MODELS["anthropic"], config=config)
    answer = await chat.send_message("Hello")
    assert [part.text for part in answer.candidates[0].content.parts if part.thought] == ["Hm."]
    await chat.send_message("And?")
    first, second = asked.asked
    assert first.json["thinking"] == {"type": "enabled", "budget_tokens": 1024}
    assert second.json["messages"][1]["content"][0] == block


@pytest.mark.parametrize("client", ["openai", "anthropic"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_other_vendors_sdks_on_googles_models(place: Place, client: str, streamed: bool) -> None:
    place.script("google", SCRIPTS["google"]["stream" if streamed else "text"])
    hello: Any = [{"role": "user", "content": "Hello"}]
    world, model = place.world, MODELS["google"]
    if client == "openai" and streamed:
        chunks = await world.openai.chat.completions.create(model=model, messages=hello, stream=True)
        text = "".join([choice.delta.content or "" async for chunk in chunks for choice in chunk.choices])
    elif client == "openai":
        whole = await world.openai.chat.completions.create(model=model, messages=hello)
        text = whole.choices[0].message.content or ""
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (120, 7)  # type: ignore[union-attr]
    elif streamed:
        async with world.anthropic.messages.stream(model=model, max_tokens=9, messages=hello) as events:
            text = await events.get_final_text()
    else:
        message = await world.anthropic.messages.create(model=model, max_tokens=9, messages=hello)
        text = message.content[0].text
        assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (20, 100)
    assert text == "Hello there"


@pytest.mark.parametrize("client", ["openai", "anthropic"])
async def test_googles_signature_survives_the_other_vendors_clients(place: Place, client: str) -> None:
    asked = place.script("google", SCRIPTS["google"]["tools"], SCRIPTS["google"]["stream"])
    world, model = place.world, MODELS["google"]
    hello: Any = [{"role": "user", "content": "Hello"}]
    if client == "openai":
        tool: Any = {"type": "function", "function": {"name": "stock", "parameters": PARAMETERS}}
        async with world.openai.chat.completions.stream(model=model, messages=hello, tools=[tool]) as events:
            answer = (await events.get_final_completion()).choices[0].message
        result = {"role": "tool", "tool_call_id": answer.tool_calls[0].id, "content": "12"}
        again = [*hello, answer.model_dump(exclude_none=True, exclude={"parsed"}), result]
        for call in again[1]["tool_calls"]:
            call["function"].pop("parsed_arguments", None)
        await (await world.openai.chat.completions.create(model=model, messages=again, stream=True)).close()
    else:
        tools: Any = [{"name": "stock", "input_schema": PARAMETERS}]
        async with world.anthropic.messages.stream(
            model=model, max_tokens=9, messages=hello, tools=tools
        ) as told:
            message = await told.get_final_message()
        content = [block.model_dump(exclude_none=True) for block in message.content]
        result = {"type": "tool_result", "tool_use_id": message.content[-1].id, "content": "12"}
        more: Any = [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
        async with world.anthropic.messages.stream(
            model=model, max_tokens=9, messages=[*hello, *more]
        ) as told:
            await told.get_final_message()
    _, second = asked.asked
    (turn,) = [content for content in second.json["contents"] if content["role"] == "model"]
    assert turn["parts"][-1]["thoughtSignature"] == "c2lnbmF0dXJl"
    (answered,) = second.json["contents"][-1]["parts"]
    assert answered["functionResponse"]["name"] == "stock"


REFUSALS: dict[str, Sequence[Step]] = {
    "openai": reply(
        b'{"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}', status=429,
        headers="retry-after: 7\r\n",
    ),
    "anthropic": reply(
        b'{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}', status=429,
        headers="retry-after: 7\r\n",
    ),
    "google": reply((GOLDEN / "error_quota.json").read_bytes(), status=429),
}  # fmt: skip


@every
async def test_a_vendors_limit_is_told_with_how_long_to_wait(place: Place, vendor: str) -> None:
    place.script(vendor, REFUSALS[vendor])
    with pytest.raises(errors.ClientError) as raised:
        await place.client.models.generate_content(model=MODELS[vendor], contents="Hello")
    assert (raised.value.code, raised.value.status) == (429, "RESOURCE_EXHAUSTED")
    details = raised.value.details["error"]["details"]
    (wait,) = [one for one in details if one["@type"].endswith("RetryInfo")]
    assert wait["retryDelay"] == ("34.07s" if vendor == "google" else "7s")


@every
async def test_a_stream_that_is_cut_is_an_error(place: Place, vendor: str) -> None:
    whole = {"openai": OPENAI_STREAM, "anthropic": ANTHROPIC_STREAM, "google": GOOGLE_STREAM}[vendor]
    place.script(vendor, stream(*whole[:2], CUT))
    chunks = await place.client.models.generate_content_stream(model=MODELS[vendor], contents="Hello")
    with pytest.raises(errors.ServerError) as raised:
        async for _ in chunks:
            pass
    assert raised.value.code == 502


@every
async def test_a_client_that_hangs_up_hangs_up_on_the_vendor(place: Place, vendor: str) -> None:
    whole = {"openai": OPENAI_STREAM, "anthropic": ANTHROPIC_STREAM, "google": GOOGLE_STREAM}[vendor]
    behind = place.script(vendor, stream(*whole[:2], HOLD))
    path = f"/v1beta/models/{MODELS[vendor]}:streamGenerateContent?alt=sse"
    body, headers = {"contents": [{"parts": [{"text": "hi"}]}]}, {"x-goog-api-key": place.world.key}
    async with (
        httpx2.AsyncClient(base_url=place.world.url, timeout=PATIENCE_S, trust_env=False) as client,
        client.stream("POST", path, json=body, headers=headers) as answer,
    ):
        await anext(answer.aiter_bytes())
    async with within("the vendor to be hung up on"):
        await behind.hung_up.wait()


async def test_who_has_no_key_gets_an_error_of_googles_kind(place: Place) -> None:
    body = {"contents": [{"parts": [{"text": "hi"}]}]}
    path = "/v1beta/models/openai/gpt-4o:generateContent"
    for headers in ({"x-goog-api-key": "fh_wrong"}, {"accept": "*/*"}):
        answer = await place.post(path, body, **headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["status"] == "UNAUTHENTICATED"
    assert (await place.post(f"{path}?key={place.world.key}", body, accept="*/*")).status_code == 401


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1beta/models/openai/gpt-4o:predictLongRunning", {"contents": []}, 404, "streamGenerateContent"),
        ("/v1beta/files", {}, 404, "streamGenerateContent"),
        ("/v1beta/models/rules/x:generateContent", {"contents": []}, 404, "rules"),
        (
            "/v1beta/models/openai/gpt-4o:generateContent",
            {"contents": [{"role": "robot"}]},
            400,
            "contents[0].role",
        ),
        (
            "/v1beta/models/openai/gpt-4o:generateContent",
            {"contents": [], "cachedContent": "cachedContents/x"},
            400,
            "cachedContent",
        ),
    ],
)
async def test_what_is_wrong_is_told_in_googles_words(
    place: Place, path: str, body: Any, status: int, said: str
) -> None:
    answer = await place.post(path, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, status)
    assert error["status"] == {404: "NOT_FOUND", 400: "INVALID_ARGUMENT"}[status]
    assert said in error["message"]


@every
@pytest.mark.parametrize(
    "path", ["/v1beta/models/{}:streamGenerateContent", "/v1/models/{}%3AstreamGenerateContent"]
)
async def test_without_alt_sse_a_stream_is_one_array(place: Place, vendor: str, path: str) -> None:
    place.script(vendor, SCRIPTS[vendor]["stream"])
    answer = await place.post(path.format(MODELS[vendor]), {"contents": [{"parts": [{"text": "hi"}]}]})
    assert answer.headers["content-type"] == "application/json"
    chunks = answer.json()
    texts = [part.get("text", "") for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]]
    assert "".join(texts) == "Hello there"
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"


@every
async def test_an_error_in_the_middle_of_an_array_is_its_last_element(place: Place, vendor: str) -> None:
    whole = {"openai": OPENAI_STREAM, "anthropic": ANTHROPIC_STREAM, "google": GOOGLE_STREAM}[vendor]
    place.script(vendor, stream(*whole[:2], CUT))
    path = f"/v1beta/models/{MODELS[vendor]}:streamGenerateContent"
    answer = await place.post(path, {"contents": [{"parts": [{"text": "hi"}]}]})
    assert answer.json()[-1]["error"]["code"] == 502


async def test_tokens_are_counted_and_an_estimate_says_that_it_is_one(place: Place) -> None:
    counted = await place.client.models.count_tokens(
        model=MODELS["openai"], contents="Hello there, how are you?"
    )
    assert 3 < counted.total_tokens < 20
    asked = {
        "generateContentRequest": {"model": "models/x", "contents": [{"parts": [{"text": "Hello there"}]}]}
    }
    answer = await place.post("/v1/models/openai/gpt-4o:countTokens", asked)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-freehold-estimated"] == "true"
    assert answer.json()["totalTokens"] > 0
    wrong = await place.post("/v1beta/models/openai/gpt-4o:countTokens", {"contents": 3})
    assert (wrong.status_code, wrong.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")


async def test_models_are_listed_by_the_names_that_the_door_takes(place: Place) -> None:
    """Under /v1beta/: at /v1/models the list has the shape of the vendors who were there first."""
    options = types.HttpOptions(base_url=place.world.url, api_version="v1beta")
    client = genai.Client(api_key=place.world.key, http_options=options).aio
    name = f"models/{MODELS['google']}"
    assert name in [model.name async for model in await client.models.list()]
    assert (await client.models.get(model=MODELS["google"])).name == name
    with pytest.raises(errors.ClientError) as raised:
        await client.models.get(model="aistudio/nothing")
    assert raised.value.code == 404
    await client.aclose()


METHODS = ("generateContent", "streamGenerateContent")


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (b"/v1beta/models/openai/gpt-4o:generateContent", "openai/gpt-4o"),
        (b"/v1/models/openai%2Fft%3Agpt%3Ax:streamGenerateContent", "openai/ft:gpt:x"),
        (b"/v1beta1/projects/p/locations/l/publishers/google/models/gemini-x:generateContent", "gemini-x"),
        (b"/v1/publishers/openai/models/gpt-4o:generateContent", "openai/gpt-4o"),
    ],
)
def test_an_address_names_a_model(path: bytes, model: str) -> None:
    assert address_of(path, METHODS).model == model


@pytest.mark.parametrize(
    "path",
    [
        b"/v1beta/models/:generateContent",
        b"/v1beta/models/x",
        b"/v1beta/",
        b"/v1beta/models/x:count",
        b"/v1beta1/projects/p/models/x:generateContent",
    ],
)
def test_an_address_that_names_none_is_not_found(path: bytes) -> None:
    with pytest.raises(NotFound):
        address_of(path, METHODS)


def test_an_address_is_utf_8() -> None:
    with pytest.raises(BadRequest):
        address_of(b"/v1beta/models/%ff:generateContent", METHODS)
