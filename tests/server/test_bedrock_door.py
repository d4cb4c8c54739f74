"""Bedrock's runtime as AWS's own SDK sees it: an unmodified boto3 in front, OpenAI, Anthropic and Bedrock scripted behind."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any

import boto3
import httpx2
import pytest
from botocore.config import Config as BotoConfig
from botocore.exceptions import ClientError, EventStreamError

from freehold.core.errors import BadRequest, NotFound
from freehold.server.bedrock import address_of
from freehold.wires._aws_eventstream import encode_event, encode_exception
from tests._waiting import PATIENCE_S
from tests.gateway import _vendors as vendors
from tests.server._world import World

SESSION = boto3.session.Session()
"""Keeps AWS's service models, which take longer to read than all else here."""

HI = [{"role": "user", "content": [{"text": "Hi"}]}]
ARN = "arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.anthropic.claude-sonnet-4-v1:0"
TOOLS = {"tools": [{"toolSpec": {"name": "stock", "inputSchema": {"json": {"type": "object"}}}}]}
HEADERS = "content-type: application/vnd.amazon.eventstream\r\n"


def bedrock_stream(*frames: vendors.Step) -> list[vendors.Step]:
    """What a scripted Bedrock streams."""
    head, *steps = vendors.stream(*frames)
    assert isinstance(head, bytes)
    return [head.replace(b"text/event-stream", b"application/vnd.amazon.eventstream"), *steps]


@pytest.fixture(scope="module")
async def pair(shared: World) -> dict[str, str]:
    """An API key of its own, with what AWS's SDK signs with."""
    made = await shared.json("POST", "/v1/keys", {"name": "aws"})
    return {name: made[name] for name in ("access_key_id", "secret_access_key", "key", "id")}


def client_of(shared: World, pair: dict[str, str], **more: Any) -> Any:
    settings = {
        "endpoint_url": shared.url,
        "region_name": "eu-central-1",
        "aws_access_key_id": pair["access_key_id"],
        "aws_secret_access_key": pair["secret_access_key"],
        "config": BotoConfig(retries={"total_max_attempts": 1}),
    }
    return SESSION.client("bedrock-runtime", **{**settings, **more})


@pytest.fixture(scope="module")
def client(shared: World, pair: dict[str, str]) -> Iterator[Any]:
    opened = client_of(shared, pair)
    yield opened
    opened.close()


async def conversed(client: Any, **arguments: Any) -> Any:
    return await asyncio.to_thread(client.converse, **{"messages": HI, **arguments})


async def streamed(client: Any, **arguments: Any) -> list[Any]:
    def read() -> list[Any]:
        with closing(client.converse_stream(**{"messages": HI, **arguments})["stream"]) as stream:
            return list(stream)

    return await asyncio.to_thread(read)


def text_of(events: list[Any]) -> str:
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    return "".join(delta.get("text", "") for delta in deltas)


BEHIND = [
    ("openai/gpt-4o", "openai", vendors.reply(vendors.OPENAI_TEXT), vendors.stream(*vendors.OPENAI_STREAM)),
    (
        "anthropic/claude-sonnet-4-5",
        "anthropic",
        vendors.reply(vendors.ANTHROPIC_TEXT),
        vendors.stream(*vendors.ANTHROPIC_STREAM),
    ),
]


@pytest.mark.parametrize(("model", "vendor", "whole", "_stream"), BEHIND)
async def test_converse_is_answered_by_any_vendor(
    shared: World, client: Any, model: str, vendor: str, whole: Any, _stream: Any
) -> None:
    behind = shared.script(vendor, whole)
    answer = await conversed(
        client, modelId=model, system=[{"text": "Brief."}], inferenceConfig={"maxTokens": 50}
    )
    assert answer["output"]["message"] == {"role": "assistant", "content": [{"text": "Hello there"}]}
    assert answer["stopReason"] == "end_turn"
    assert answer["usage"]["inputTokens"] + answer["usage"]["cacheReadInputTokens"] == 120
    assert answer["usage"]["totalTokens"] == 127
    assert answer["metrics"]["latencyMs"] >= 0
    assert answer["ResponseMetadata"]["RequestId"].startswith("req_")
    (asked,) = behind.asked
    assert asked.json["model"] == model.partition("/")[2]


@pytest.mark.parametrize(("model", "vendor", "_whole", "stream"), BEHIND)
async def test_converse_stream_is_answered_by_any_vendor(
    shared: World, client: Any, model: str, vendor: str, _whole: Any, stream: Any
) -> None:
    shared.script(vendor, stream)
    events = await streamed(client, modelId=model)
    assert text_of(events) == "Hello there"
    assert events[0] == {"messageStart": {"role": "assistant"}}
    assert events[-2] == {"messageStop": {"stopReason": "end_turn"}}
    assert events[-1]["metadata"]["usage"]["totalTokens"] == 127


@pytest.mark.parametrize(
    ("model", "vendor", "steps"),
    [
        ("openai/gpt-4o", "openai", vendors.OPENAI_TOOLS_STREAM),
        ("anthropic/claude-sonnet-4-5", "anthropic", vendors.ANTHROPIC_TOOLS_STREAM),
    ],
)
async def test_tools_are_called_and_answered(
    shared: World, client: Any, model: str, vendor: str, steps: Any
) -> None:
    behind = shared.script(vendor, vendors.stream(*steps))
    events = await streamed(client, modelId=model, toolConfig=TOOLS)
    (use,) = [
        event["contentBlockStart"]["start"]["toolUse"] for event in events if "contentBlockStart" in event
    ]
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    given = json.loads("".join(delta["toolUse"]["input"] for delta in deltas))
    assert (use["name"], given, events[-2]["messageStop"]["stopReason"]) == (
        "stock",
        {"sku": "4482"},
        "tool_use",
    )
    turn = [
        *HI,
        {"role": "assistant", "content": [{"toolUse": {**use, "input": given}}]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": use["toolUseId"], "content": [{"json": {"count": 0}}]}}]},
    ]  # fmt: skip
    await streamed(client, modelId=model, toolConfig=TOOLS, messages=turn)
    result = behind.asked[-1].json["messages"][-1]
    assert "0" in json.dumps(result)
    assert use["toolUseId"] in json.dumps(result)


async def test_images_reach_the_vendor(shared: World, client: Any) -> None:
    behind = shared.script("openai", vendors.reply(vendors.OPENAI_TEXT))
    image = {"image": {"format": "png", "source": {"bytes": b"\x89PNG"}}}
    await conversed(
        client, modelId="openai/gpt-4o", messages=[{"role": "user", "content": [image, {"text": "?"}]}]
    )
    (part, _) = behind.asked[0].json["messages"][0]["content"]
    assert part["image_url"]["url"] == "data:image/png;base64,iVBORw=="


# --------------------------------------------------------------------------------------- Bedrock behind Bedrock


@pytest.fixture(scope="module")
async def amazon(shared: World) -> AsyncIterator[vendors.Vendor]:
    async with vendors.Vendor([]) as vendor:
        declared = (
            f"kind: provider\nname: aws\ntype: bedrock\nbase_url: {vendor.url}\napi_key: env:OPENAI_API_KEY\n"
        )
        await shared.apply(declared)
        yield vendor
        # Else what nobody knows goes there in other tests, too, and nobody answers.
        await shared.json("DELETE", "/v1/resources/provider/aws")


async def test_what_nobody_else_knows_passes_to_bedrock_itself(amazon: vendors.Vendor, client: Any) -> None:
    amazon.play(vendors.reply(b'{"output":{"message":{"role":"assistant","content":[{"text":"Hi"}]}},"stopReason":"end_turn",'
                              b'"usage":{"inputTokens":1,"outputTokens":2,"totalTokens":3},"metrics":{"latencyMs":44}}'))  # fmt: skip
    guard = {"guardrailIdentifier": "gr1", "guardrailVersion": "1"}
    answer = await conversed(client, modelId=f"aws/{ARN}", guardrailConfig=guard)
    (asked,) = amazon.asked
    assert asked.path == f"/model/{ARN.replace(':', '%3A').replace('/', '%2F')}/converse"
    assert asked.json == {"messages": HI, "guardrailConfig": guard}
    assert answer["metrics"]["latencyMs"] == 44


async def test_bedrocks_stream_passes_and_is_metered(
    shared: World, amazon: vendors.Vendor, client: Any
) -> None:
    amazon.play(
        bedrock_stream(
            encode_event("messageStart", b'{"role":"assistant"}'),
            encode_event("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"Hi"}}'),
            encode_event("messageStop", b'{"stopReason":"end_turn"}'),
            encode_event("metadata", b'{"usage":{"inputTokens":1,"outputTokens":2,"totalTokens":3},"metrics":{"latencyMs":4}}'),
        )
    )  # fmt: skip
    assert text_of(await streamed(client, modelId="aws/m")) == "Hi"


async def test_openais_sdk_reaches_bedrock(shared: World, amazon: vendors.Vendor) -> None:
    amazon.play(
        bedrock_stream(
            encode_event("messageStart", b'{"role":"assistant"}'),
            encode_event("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"Hi"}}'),
            encode_event("contentBlockStop", b'{"contentBlockIndex":0}'),
            encode_event("messageStop", b'{"stopReason":"max_tokens"}'),
            encode_event("metadata", b'{"usage":{"inputTokens":1,"outputTokens":2,"totalTokens":3},"metrics":{"latencyMs":4}}'),
        )
    )  # fmt: skip
    answer = await shared.openai.chat.completions.create(
        model="aws/m", messages=[{"role": "user", "content": "Hi"}], stream=True
    )
    chunks = [chunk async for chunk in answer]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hi"
    assert amazon.asked[0].path == "/model/m/converse-stream"


# ------------------------------------------------------------------------------------------------------ errors


async def refused(client: Any, **arguments: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        await conversed(client, **{"modelId": "openai/gpt-4o", **arguments})
    error = dict(caught.value.response["Error"])
    return {**error, "status": caught.value.response["ResponseMetadata"]["HTTPStatusCode"]}


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (429, "ThrottlingException", 429),
        (400, "ValidationException", 400),
        (404, "ResourceNotFoundException", 404),
    ],
)
async def test_vendors_refusals_have_awss_names(
    shared: World, client: Any, status: int, code: str, told: int
) -> None:
    shared.script("openai", vendors.reply(b'{"error":{"message":"no"}}', status=status))
    error = await refused(client)
    assert (error["Code"], error["status"]) == (code, told)


async def test_an_unknown_model_is_said(client: Any) -> None:
    error = await refused(client, modelId="rules/nobody")
    assert (error["Code"], error["status"]) == ("ResourceNotFoundException", 404)


async def test_what_a_vendor_lacks_is_refused_by_its_path(shared: World, client: Any) -> None:
    error = await refused(client, guardrailConfig={"guardrailIdentifier": "g", "guardrailVersion": "1"})
    assert error["Code"] == "ValidationException"
    assert error["Message"].startswith("guardrailConfig: ")


async def test_a_cut_stream_ends_in_an_exception(shared: World, client: Any) -> None:
    shared.script("openai", vendors.stream(*vendors.OPENAI_STREAM[:2], vendors.CUT))
    with pytest.raises(EventStreamError, match="modelStreamErrorException"):
        await streamed(client, modelId="openai/gpt-4o")


async def test_an_exception_in_bedrocks_own_stream_arrives(
    shared: World, amazon: vendors.Vendor, client: Any
) -> None:
    amazon.play(
        bedrock_stream(
            encode_event("messageStart", b'{"role":"assistant"}'),
            encode_exception("throttlingException", b'{"message":"slow"}'),
        )
    )
    with pytest.raises((EventStreamError, ClientError)):
        await streamed(client, modelId="aws/m")


# ------------------------------------------------------------------------------------------------ who may come in


async def test_a_wrong_secret_is_refused(shared: World, pair: dict[str, str]) -> None:
    error = await refused(client_of(shared, {**pair, "secret_access_key": "x" * 40}))
    assert (error["Code"], error["status"]) == ("InvalidSignatureException", 403)


async def test_an_unknown_access_key_is_refused(shared: World, pair: dict[str, str]) -> None:
    error = await refused(client_of(shared, {**pair, "access_key_id": "AKIAIOSFODNN7EXAMPLE"}))
    assert (error["Code"], error["status"]) == ("UnrecognizedClientException", 403)


async def test_a_session_token_from_elsewhere_is_refused(shared: World, pair: dict[str, str]) -> None:
    error = await refused(client_of(shared, pair, aws_session_token="FwoGZXIvYXdz"))
    assert error["Code"] == "UnrecognizedClientException"


async def test_a_revoked_keys_pair_is_refused(shared: World) -> None:
    made = await shared.json("POST", "/v1/keys", {"name": "soon gone"})
    await shared.json("DELETE", f"/v1/keys/{made['id']}")
    assert (await refused(client_of(shared, made)))["Code"] == "UnrecognizedClientException"


async def test_a_keys_policy_holds_for_its_pair(shared: World) -> None:
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "model:Call", "Resource": "model/anthropic/*"}],
    }
    made = await shared.json("POST", "/v1/keys", {"name": "narrow", "policy": policy})
    error = await refused(client_of(shared, made))
    assert (error["Code"], error["status"]) == ("AccessDeniedException", 403)


async def test_a_body_that_was_changed_on_the_way_is_refused(shared: World, pair: dict[str, str]) -> None:
    """A client's request, sent again with one letter changed."""
    sent: list[Any] = []
    client = client_of(shared, pair)
    client.meta.events.register("before-send.bedrock-runtime", lambda request, **_: sent.append(request))
    shared.script("openai", vendors.reply(vendors.OPENAI_TEXT))
    await conversed(client, modelId="openai/gpt-4o")
    (request,) = sent
    headers = {
        name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()
    }
    headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
    async with httpx2.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
        again = await http.post(request.url, content=request.body.replace(b"Hi", b"Ho"), headers=headers)
    assert again.status_code == 403
    assert again.headers["x-amzn-errortype"] == "InvalidSignatureException"


async def test_a_bearer_key_comes_in_too(shared: World, pair: dict[str, str]) -> None:
    shared.script("openai", vendors.reply(vendors.OPENAI_TEXT))
    answer = await shared.http.post(
        "/model/openai%2Fgpt-4o/converse",
        json={"messages": HI},
        headers={"authorization": f"Bearer {pair['key']}"},
    )
    assert answer.status_code == 200
    nobody = await shared.http.post("/model/m/converse", json={}, headers={"authorization": "Bearer fh_x"})
    assert (nobody.status_code, nobody.headers["x-amzn-errortype"]) == (403, "AccessDeniedException")


async def test_a_prefix_may_stand_before_it(shared: World, pair: dict[str, str]) -> None:
    shared.script("openai", vendors.reply(vendors.OPENAI_TEXT))
    prefixed = client_of(shared, pair, endpoint_url=f"{shared.url}/bedrock")
    assert (await conversed(prefixed, modelId="openai/gpt-4o"))["stopReason"] == "end_turn"


async def test_operations_that_are_not_served_are_said(client: Any) -> None:
    client.meta.events.register("before-call.bedrock-runtime", _elsewhere)
    try:
        with pytest.raises(ClientError, match="/model/m/x is not served"):
            await conversed(client, modelId="m")
    finally:
        client.meta.events.unregister("before-call.bedrock-runtime", _elsewhere)


def _elsewhere(params: dict[str, Any], **_: Any) -> None:
    params["url"] = params["url"].replace("/converse", "/x")


# ------------------------------------------------------------------------------------------------------ addresses


@pytest.mark.parametrize(
    ("path", "model", "stream"),
    [
        (b"/model/m/converse", "m", False),
        (b"/bedrock/model/anthropic.claude-v2%3A0/converse-stream", "anthropic.claude-v2:0", True),
        (b"/model/openai%2Fgpt/converse", "openai/gpt", False),
        ("/model/ü/converse".encode(), "ü", False),
    ],
)
def test_models_are_read_off_the_raw_path(path: bytes, model: str, stream: bool) -> None:
    found = address_of(path)
    assert (found.model, found.stream) == (model, stream)


@pytest.mark.parametrize(
    "path",
    [
        b"/model/",
        b"/model/m",
        b"/model//converse",
        b"/model/a/b/converse",
        b"/model/m/x",
        b"/model/m/converse/",
    ],
)
def test_other_paths_are_not_served(path: bytes) -> None:
    with pytest.raises(NotFound, match=r"/model/\{modelId\}/converse, "):
        address_of(path)


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(BadRequest) as caught:
        address_of(b"/model/%ff/converse")
    assert caught.value.field == "modelId"
