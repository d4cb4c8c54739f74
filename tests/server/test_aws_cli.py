"""The AWS command line, unmodified, against our door: set the endpoint and a pair of keys, and nothing else changes."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests._waiting import within
from tests.gateway._vendors import OPENAI_TEXT, reply
from tests.server._world import World
from tests.server.test_embeddings import answer

pytestmark = pytest.mark.slow

HI = json.dumps([{"role": "user", "content": [{"text": "Hi"}]}])


@pytest.fixture(scope="module")
async def environment(shared: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    made = await shared.json("POST", "/v1/keys", {"name": "aws cli"})
    nowhere = tmp_path_factory.mktemp("aws")
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(nowhere),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": made["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": made["secret_access_key"],
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": shared.url,
        "AWS_ENDPOINT_URL_BEDROCK": shared.url,
    }


async def aws(environment: dict[str, str], *words: str) -> tuple[int, bytes, str]:
    """Status, what it said, and what it complained of."""
    pytest.importorskip("awscli", reason="needs the AWS CLI (awscli)")
    # As a module: the `aws` script that pip writes can't be started from a path with a space in it.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "awscli", *words),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with within("the AWS CLI"):
        said, wrong = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said, wrong.decode()


async def told(environment: dict[str, str], *words: str) -> Any:
    status, said, wrong = await aws(environment, *words)
    assert status == 0, wrong
    return json.loads(said)


async def test_converse_is_answered(shared: World, environment: dict[str, str]) -> None:
    shared.script("openai", reply(OPENAI_TEXT))
    words = ("bedrock-runtime", "converse", "--model-id", "openai/gpt-4o", "--messages", HI)
    said = await told(environment, *words)
    assert said["output"]["message"]["content"] == [{"text": "Hello there"}]
    assert said["usage"]["outputTokens"] == 7


async def test_a_model_is_invoked_into_a_file(
    shared: World, environment: dict[str, str], tmp_path: Path
) -> None:
    shared.script("openai", reply(answer([0.5, -1])))
    model, asked, place = "openai/text-embedding-3-small", tmp_path / "body.json", tmp_path / "vector.json"
    asked.write_text('{"inputText":"Hi"}')
    said = await told(
        environment,
        *("bedrock-runtime", "invoke-model", "--model-id", model, "--body", f"fileb://{asked}", str(place)),
    )
    assert said["contentType"] == "application/json"
    assert json.loads(place.read_bytes())["embedding"] == [0.5, -1]


async def test_models_are_listed(environment: dict[str, str]) -> None:
    listed = await told(environment, "bedrock", "list-foundation-models", "--by-output-modality", "TEXT")
    assert listed["modelSummaries"]
    first = listed["modelSummaries"][0]["modelId"]
    shown = await told(environment, "bedrock", "get-foundation-model", "--model-identifier", first)
    assert shown["modelDetails"]["modelId"] == first


async def test_a_refusal_is_shown(environment: dict[str, str]) -> None:
    words = ("bedrock-runtime", "converse", "--model-id", "openai/gpt-4o", "--messages", HI)
    status, _, wrong = await aws({**environment, "AWS_SECRET_ACCESS_KEY": "wrong"}, *words)
    assert status != 0
    assert "InvalidSignatureException" in wrong
