"""The demo as a newcomer meets it: made, asked, made use of by other commands, killed, and run again. On real parts throughout."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests._waiting import PATIENCE_S, until
from tests.cli._freehold import Freehold

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
import transcript

pytestmark = pytest.mark.slow

SECOND_RUN_S_MAX = 60.0
FACTS = ("MAN-SHA-2610-0540", "CCC certificate", "3,360 of 4,800", "10 Dec 2026")
"""What the answer must have found out: the paper that customs miss, what was confirmed, the next date."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Freehold]:
    """The demo has run here once."""
    here = Freehold(tmp_path_factory.mktemp("shop") / "data folder")
    done = here.process("demo")
    assert done.code == 0, done.err
    assert [fact for fact in FACTS if fact not in done.out] == []
    assert "no language model is asked" in done.out
    (here.folder / "first run").write_text(done.out)
    yield here
    assert not (here.folder / "server.json").exists(), "every command stopped the server that it started"


def test_the_readme_shows_what_a_run_shows(shop: Freehold) -> None:
    """`python scripts/transcript.py` writes it anew."""
    assert transcript.steps((shop.folder / "first run").read_text()) == transcript.steps(transcript.shown())


def test_a_second_run_reuses_everything_and_is_quick(shop: Freehold) -> None:
    started = time.monotonic()
    done = shop.ok_process("demo")
    assert time.monotonic() - started < SECOND_RUN_S_MAX
    assert [fact for fact in FACTS if fact not in done.out] == []
    assert done.err == "", "nothing had to be made"


def test_the_result_is_there_for_programs(shop: Freehold) -> None:
    told = shop.ok_process("demo", "--json").json
    assert (told["outcome"], told["language_model"]) == ("completed", False)
    assert [fact for fact in FACTS if fact not in told["answer"]] == []
    tools = {step["name"].partition("_")[0] for step in told["steps"] if step["kind"] == "tool"}
    assert tools == {"inventory", "sales", "manifests", "supply", "restock"}
    assert not any(step["failed"] for step in told["steps"])


def test_other_questions_are_answered_over_the_same_data(shop: Freehold) -> None:
    with shop.serving():
        way = shop.ok("chat", "retail-inventory", "What is on its way to Rotterdam?").out
        assert "MAN-RTM-" in way
        other = shop.ok("chat", "retail-inventory", "Why is SKU-4482 out of stock in Rotterdam?").out
        assert "1,578" in other, "it is not out of stock there"
        first = shop.ok("chat", "retail-inventory", "Why is SKU-4482 out of stock in Shanghai?").out
        assert "Customs" in first
        again = shop.ok("chat", "retail-inventory", "--continue", "And when will it be back?").out
        assert "restock_forecast" in again
        assert "10 Dec 2026" in again


def test_the_demo_uses_a_server_that_runs_and_leaves_it_running(shop: Freehold) -> None:
    with shop.serving() as told:
        assert "10 Dec 2026" in shop.ok("demo").out
        assert json.loads((shop.folder / "server.json").read_bytes()) == told
        refused = shop("demo", "--crash")
        assert refused.code == 1
        assert f"process {told['pid']}" in refused.err


def test_killed_in_the_middle_it_proves_that_nothing_is_lost(shop: Freehold) -> None:
    done = shop.ok_process("demo", "--crash")
    assert "SIGKILL to the server" in done.out
    assert "no finished step ran again" in done.out
    assert "✗" not in done.out
    assert [fact for fact in FACTS if fact not in done.out] == []


def _interrupted(process: "subprocess.Popen[str]") -> str:
    """Ctrl-C, and again after a while: Python loses a KeyboardInterrupt that is raised while it frees something."""
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=PATIENCE_S)[1]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    return process.communicate(timeout=PATIENCE_S)[1]


def test_ctrl_c_ends_it_and_the_server_that_it_started(shop: Freehold) -> None:
    process = shop.start("demo")
    assert process.stdout is not None
    line = ""
    while "Model" not in line:
        line = process.stdout.readline()
    pid = json.loads((shop.folder / "server.json").read_bytes())["pid"]
    err = _interrupted(process)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_terminal_that_vanishes_takes_the_server_along(shop: Freehold) -> None:
    process = shop.start("demo")
    assert process.stdout is not None
    line = ""
    while "Model" not in line:
        line = process.stdout.readline()
    pid = json.loads((shop.folder / "server.json").read_bytes())["pid"]
    process.kill()
    process.communicate()
    until(lambda: not Path(f"/proc/{pid}").exists(), "the server to end with the command that started it")


def test_a_model_that_cannot_be_asked_is_told_before_anything_is_asked(shop: Freehold) -> None:
    done = shop.process("demo", "--model", "openai/gpt-5")
    assert done.code == 1
    assert "OPENAI_API_KEY" in done.err


class _Model(BaseHTTPRequestHandler):
    """An OpenAI-compatible server whose model looks once into the stock levels and then answers from what it saw."""

    asked: list[dict[str, Any]] = []  # noqa: RUF012 - one test, one server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(body)
        results = [message["content"] for message in body["messages"] if message["role"] == "tool"]
        call = {"index": 0, "id": "call_1", "type": "function"}
        asks = call | {"function": {"name": "inventory_get", "arguments": '{"keys": ["SHA/SKU-4482"]}'}}
        delta = {"content": f"It says: {results[0]}"} if results else {"tool_calls": [asks]}
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        chunks = [
            chunk
            | {"choices": [{"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": None}]},
            chunk
            | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop" if results else "tool_calls"}]},
            chunk
            | {
                "choices": [],
                "usage": {"prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1020},
            },
        ]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for one in chunks:
            self.wfile.write(f"data: {json.dumps(one)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        pass


def test_the_same_template_runs_on_any_model(shop: Freehold) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Model) as upstream, shop.serving():
        thread = threading.Thread(target=upstream.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{upstream.server_port}/v1"
        provider = f"kind: provider\nname: scripted\ntype: openai\nbase_url: {address}\n"
        shop.ok("apply", "-", "--yes", input=provider)
        done = shop.ok("demo", "--model", "scripted/some-model")
        upstream.shutdown()
        thread.join()
    assert "Model  scripted/some-model" in done.out
    assert "rules" not in done.out
    assert 'It says: {"items":{"SHA/SKU-4482":{"sku":"SKU-4482","dc":"SHA","on_hand":0' in done.out
    assert "2 model calls · 1 tool run · 2,000 + 40 tokens" in done.out
    tools = {tool["function"]["name"] for tool in _Model.asked[0]["tools"]}
    assert tools >= {
        "inventory_get",
        "sales_query",
        "manifests_read",
        "supply_chain_trackShipment",
        "restock_forecast",
    }
    assert _Model.asked[0]["messages"][0]["content"].startswith("You are the inventory analyst")
