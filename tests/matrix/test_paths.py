"""A vendor's wire refuses what it cannot say, and the client is told where it stands in its own body."""

from typing import Any

import httpx2
import msgspec
import pytest

from tests._waiting import PATIENCE_S
from tests.gateway._vendors import reply
from tests.matrix._world import MODEL, MatrixWorld, provider

URL = "https://example.com/a.png"
ASKED: dict[str, tuple[str, dict[str, Any], str]] = {
    "openai_chat": (
        "/v1/chat/completions",
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": URL}}]},
            ],
        },
        "messages[1].content[1].image_url",
    ),
    "openai_responses": (
        "/v1/responses",
        {
            "store": False,
            "input": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "input_image", "image_url": URL}]},
            ],
        },
        "input[1].content[0]",
    ),
    "anthropic_messages": (
        "/v1/messages",
        {
            "max_tokens": 100,
            "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": URL}}]}],
        },
        "messages[0].content[0]",
    ),
    "google_generate": (
        f"/v1beta/models/{provider('bedrock_converse')}/{MODEL}:generateContent",
        {"contents": [{"role": "user", "parts": [{"text": "hi"}, {"fileData": {"fileUri": URL, "mimeType": "image/png"}}]}]},
        "contents[0].parts[1].fileData",
    ),
}  # fmt: skip
SAID = {"message": "expected a value in messages.0.content", "type": "invalid_request_error", "param": "messages", "code": None}  # fmt: skip


async def _refused(matrix: MatrixWorld, client: str, vendor: str) -> dict[str, Any]:
    path, body, _ = ASKED[client]
    if client != "google_generate":
        body = {"model": f"{provider(vendor)}/{MODEL}", **body}
    headers = {"authorization": f"Bearer {matrix.key}", "anthropic-version": "2023-06-01"}
    async with httpx2.AsyncClient(
        base_url=matrix.url, headers=headers, timeout=PATIENCE_S, trust_env=False
    ) as http:
        answer = await http.post(path, json=body)
    assert answer.status_code == 400, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


@pytest.mark.parametrize("client", ASKED)
async def test_a_refusal_names_the_field_in_the_clients_words(matrix: MatrixWorld, client: str) -> None:
    error = await _refused(matrix, client, "bedrock_converse")
    field = ASKED[client][2]
    assert error.get("param", field) == field
    assert f"{field}: " in error["message"] or error.get("param") == field


async def test_a_vendors_own_path_is_told_as_the_vendors(matrix: MatrixWorld) -> None:
    matrix.play("openai_chat", reply(msgspec.json.encode({"error": SAID}), status=400))
    error = await _refused(matrix, "anthropic_messages", "openai_chat")
    assert error["message"].endswith("(the provider names messages)")
    matrix.play("openai_chat", reply(msgspec.json.encode({"error": SAID}), status=400))
    assert (await _refused(matrix, "openai_chat", "openai_chat"))["param"] == "messages"
