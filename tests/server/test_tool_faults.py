"""A tool whose service fails is an answer for the model: the turn goes on, says what happened, and the session too."""

import json
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from tests._waiting import PATIENCE_S
from tests.gateway._vendors import CUT, HOLD, Step, Vendor, reply
from tests.server._world import World
from tests.server.test_sessions import calls, of, says

DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "Depot", "version": "1"},
    "paths": {
        "/stock": {
            "post": {
                "operationId": "stock",
                "summary": "Stock of a SKU.",
                "responses": {"200": {"description": "It."}},
            }
        }
    },
}


def template(name: str, url: str) -> str:
    timeout_s = 0.5 if name == "depot-slow" else PATIENCE_S
    return f"""
kind: tool
name: {name}
type: http
timeout_s: {timeout_s}
config:
  document: {json.dumps(DOCUMENT)}
  base_url: {url}
  allow_private: true
  effects: {{stock: pure}}
---
kind: agent
name: {name}
model: openai/gpt-4o
tools: [{name}]
"""


async def turn(world: World, name: str, url: str) -> tuple[dict[str, Any], Any]:
    """The tool's result as the log has it, and what the model was told."""
    await world.apply(template(name, url))
    asked = world.script("openai", calls((f"{name}_stock", {})), says("The depot does not answer."))
    events = await world.until_idle(await world.session(name, "How many?"))
    (result,) = of(events, "agent.tool_result")
    assert of(events, "agent.message")[0]["content"][0]["text"].strip() == "The depot does not answer."
    assert of(events, "session.status_idle")[0]["freehold"]["outcome"] == "completed"
    return result, asked.asked[1].json["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("name", "script", "words"),
    [
        ("broken", reply(b"<h1>Oops</h1>", status=500, kind="text/html"), "500"),
        ("slow", [HOLD], "0.5"),
        ("cut", [b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", CUT], ""),
        ("garbage", [b"\x00\x01 this is no HTTP \r\n\r\n", CUT], ""),
        ("strange", reply(b"{not json"), ""),
    ],
)
async def test_what_a_service_gets_wrong_the_model_is_told(
    shared: World, name: str, script: Sequence[Step], words: str
) -> None:
    async with Vendor(script) as depot:
        result, told = await turn(shared, f"depot-{name}", depot.url)
    assert result["is_error"] or name == "strange", "text that is no JSON is still an answer"
    assert words in str(told)
    assert len(str(told)) < 2_000


async def test_a_service_that_is_down_fails_the_run_and_not_the_session(shared: World) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]  # Nobody else's, and nobody listens.
        result, told = await turn(shared, "depot-down", f"http://127.0.0.1:{port}")
    assert result["is_error"]
    assert "depot-down" in str(told)


async def test_a_call_that_its_model_did_not_finish_is_not_run(shared: World) -> None:
    """All of the call is there, but not the answer's end: it may have been about to say more, or something else."""
    async with Vendor(reply(b"{}")) as depot:
        await shared.apply(template("depot-half", depot.url))
        head, called, *_ = calls(("depot-half_stock", {}))
        shared.script("openai", [head, called, CUT], says("I could not ask."))
        events = await shared.until_idle(await shared.session("depot-half", "How many?"))
        assert depot.asked == []
    assert of(events, "agent.tool_use") == of(events, "agent.tool_result") == []
