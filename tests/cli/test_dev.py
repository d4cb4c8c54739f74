"""`freehold dev`, as an application's tests use it: unmodified SDKs through it to a scripted upstream, and nothing left behind."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anthropic
import boto3
import openai
import pytest

from tests._waiting import PATIENCE_S, until
from tests.cli._freehold import Freehold, stop

pytestmark = pytest.mark.slow

OPENAI_ANSWER = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "served-by-upstream",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "from the openai upstream"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
}  # fmt: skip
ANTHROPIC_ANSWER = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "served-by-upstream", "stop_reason": "end_turn",
    "stop_sequence": None, "content": [{"type": "text", "text": "from the anthropic upstream"}],
    "usage": {"input_tokens": 3, "output_tokens": 4},
}  # fmt: skip


BEDROCK_ANSWER = {
    "output": {"message": {"role": "assistant", "content": [{"text": "from the bedrock upstream"}]}}, "stopReason": "end_turn",
    "usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}, "metrics": {"latencyMs": 1},
}  # fmt: skip
ANSWERS = {"messages": ANTHROPIC_ANSWER, "completions": OPENAI_ANSWER, "converse": BEDROCK_ANSWER}


class _Upstream(BaseHTTPRequestHandler):
    asked: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012 - of the class below it, one a server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append((self.path, body))
        answer = json.dumps(ANSWERS[self.path.rpartition("/")[2]]).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        pass


class Upstream:
    def __init__(self, url: str, asked: list[tuple[str, dict[str, Any]]]) -> None:
        self.url = url
        self.asked = asked


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    handler = type("_Scripted", (_Upstream,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Upstream(f"http://127.0.0.1:{server.server_port}", handler.asked)
        server.shutdown()
        thread.join()


@contextmanager
def dev(here: Freehold, *options: str) -> Iterator[tuple[dict[str, str], "subprocess.Popen[str]"]]:
    process = here.start("dev", *options)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield json.loads(line), process
    finally:
        stop(process)


@pytest.fixture(scope="module")
def throwaway(
    tmp_path_factory: pytest.TempPathFactory, upstream: Upstream
) -> Iterator[tuple[dict[str, str], Path]]:
    here, temporary = throwaway_home(tmp_path_factory.mktemp("dev"))
    addresses = (f"openai={upstream.url}/v1", f"anthropic={upstream.url}", f"bedrock={upstream.url}")
    with dev(here, *(word for address in addresses for word in ("--upstream", address))) as (
        told,
        _,
    ):
        yield told, temporary


def left_in(folder: Path) -> list[str]:
    """But for the file by which Python's tempfile tries a folder: a signal in the middle of that leaves it."""
    return [one.name for one in folder.iterdir() if one.is_dir() or one.stat().st_size > len("blat")]


def throwaway_home(folder: Path) -> tuple[Freehold, Path]:
    temporary = folder / "tmp"
    temporary.mkdir()
    decoys = {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none",
        "FREEHOLD_PORT": "1",
        "TMPDIR": str(temporary),
    }
    return Freehold(folder / "data", decoys), temporary


def test_one_line_of_json_says_where_it_is(throwaway: tuple[dict[str, str], Path]) -> None:
    told, _ = throwaway
    assert list(told) == [
        "base_url",
        "tls_base_url",
        "ca_file",
        "api_key",
        "access_key_id",
        "secret_access_key",
    ]
    assert told["base_url"].startswith("http://127.0.0.1:")
    assert told["tls_base_url"].startswith("https://127.0.0.1:")
    assert Path(told["ca_file"]).read_bytes().startswith(b"-----BEGIN CERTIFICATE-----")


def test_openais_sdk_reaches_its_upstream(throwaway: tuple[dict[str, str], Path], upstream: Upstream) -> None:
    told, _ = throwaway
    with openai.OpenAI(base_url=f"{told['base_url']}/v1", api_key=told["api_key"], max_retries=0) as client:
        answer = client.chat.completions.create(
            model="any-model-name", messages=[{"role": "user", "content": "hi"}]
        )
    assert answer.choices[0].message.content == "from the openai upstream"
    path, body = upstream.asked[-1]
    assert (path, body["model"]) == ("/v1/chat/completions", "any-model-name")


def test_anthropics_sdk_reaches_its_upstream(
    throwaway: tuple[dict[str, str], Path], upstream: Upstream
) -> None:
    told, _ = throwaway
    with anthropic.Anthropic(base_url=told["base_url"], api_key=told["api_key"], max_retries=0) as client:
        answer = client.messages.create(
            model="any-model-name", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
        )
    assert answer.content[0].text == "from the anthropic upstream"
    assert upstream.asked[-1][0] == "/v1/messages"


def test_awss_sdk_takes_a_bearer_key_over_https(
    throwaway: tuple[dict[str, str], Path], upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which it sends over HTTPS only."""
    told, _ = throwaway
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", told["api_key"])
    client = boto3.client(
        "bedrock-runtime", endpoint_url=told["tls_base_url"], region_name="us-east-1", verify=told["ca_file"]
    )
    client.converse(modelId="any.model-v1:0", messages=[{"role": "user", "content": [{"text": "hi"}]}])
    assert upstream.asked[-1][0] == "/model/any.model-v1%3A0/converse"


def test_awss_sdk_reaches_its_upstream(throwaway: tuple[dict[str, str], Path], upstream: Upstream) -> None:
    told, _ = throwaway
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=told["base_url"],
        region_name="us-east-1",
        aws_access_key_id=told["access_key_id"],
        aws_secret_access_key=told["secret_access_key"],
    )
    answer = client.converse(
        modelId="any.model-v1:0", messages=[{"role": "user", "content": [{"text": "hi"}]}]
    )
    client.close()
    assert answer["output"]["message"]["content"][0]["text"] == "from the bedrock upstream"
    assert upstream.asked[-1][0] == "/model/any.model-v1%3A0/converse"


def test_a_provider_in_the_models_name_goes_across(
    throwaway: tuple[dict[str, str], Path], upstream: Upstream
) -> None:
    told, _ = throwaway
    with openai.OpenAI(base_url=f"{told['base_url']}/v1", api_key=told["api_key"], max_retries=0) as client:
        answer = client.chat.completions.create(
            model="anthropic/claude-x", messages=[{"role": "user", "content": "hi"}]
        )
    assert answer.choices[0].message.content == "from the anthropic upstream"
    assert upstream.asked[-1][1]["model"] == "claude-x"


def test_without_its_key_nobody_comes_in(throwaway: tuple[dict[str, str], Path]) -> None:
    told, _ = throwaway
    with (
        openai.OpenAI(base_url=f"{told['base_url']}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_it_is_stopped(tmp_path: Path, kind: signal.Signals) -> None:
    here, temporary = throwaway_home(tmp_path)
    with dev(here, "--upstream", "bedrock=http://127.0.0.1:9") as (_, process):
        assert os.listdir(temporary)
        process.send_signal(kind)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (0, "")
    assert err == ""
    assert left_in(temporary) == []


@pytest.mark.parametrize("after_s", [0.7, 1.0, 1.4])
def test_nothing_is_left_when_it_is_stopped_while_it_starts(tmp_path: Path, after_s: float) -> None:
    """Whatever it had got to: before its first line it may also be too early for an orderly end, with nothing made yet."""
    here, temporary = throwaway_home(tmp_path)
    process = here.start("dev")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(after_s)
    stop(process)
    assert process.returncode in {0, -signal.SIGTERM}
    assert left_in(temporary) == []


def test_nothing_is_left_when_it_is_stopped_as_soon_as_there_is_something(tmp_path: Path) -> None:
    here, temporary = throwaway_home(tmp_path)
    process = here.start("dev")
    until(lambda: any(one.is_dir() for one in temporary.iterdir()))
    stop(process)
    assert process.returncode == 0
    assert left_in(temporary) == []


def test_wrong_upstreams_are_refused(freehold: Freehold) -> None:
    for wrong, says in (
        ("opnai=http://x", "one of openai, anthropic, bedrock"),
        ("openai=x", "expected http://"),
    ):
        done = freehold("dev", "--upstream", wrong)
        assert done.code == 2
        assert says in done.err
