"""What `freehold sessions` shows of kept responses and conversations."""

import io
import json
from pathlib import Path

from rich.console import Console

from freehold.cli._kept_view import show_kept
from freehold.client.client import Client
from tests.cli._freehold import Freehold


def test_kinds_are_listed_and_shown(served: Freehold) -> None:
    for kind in ("response", "conversation"):
        assert served.ok("sessions", "list", "--kind", kind, "--json").json == []
    assert served("sessions", "list", "--kind", "thing").code == 2


def test_what_is_kept_leaves_with_all_else_and_is_cancelled_and_deleted_as_sessions_are(
    served: Freehold, tmp_path: Path
) -> None:
    told = json.loads((served.folder / "server.json").read_bytes())
    with Client(told["url"], told["api_key"]) as client:
        asked = {"model": "rules/clerk", "input": "Good morning"}
        made = client.request("POST", "/v1/responses", body=asked)["id"]
        behind = client.request("POST", "/v1/responses", body=asked | {"background": True})["id"]
        begun = client.request("POST", "/v1/conversations", body={})["id"]
    assert "Good morning" in served.ok("sessions", "export", made).out
    folder = tmp_path / "all of it"
    counts = served.ok("sessions", "export", "--all", str(folder), "--json").json
    files = {kind: {one.stem for one in (folder / kind).iterdir()} for kind in counts if counts[kind]}
    assert {made, behind} <= files["response"]
    assert begun in files["conversation"]
    assert {kind: len(found) for kind, found in files.items()} == {kind: n for kind, n in counts.items() if n}
    for one, instead in ((made, "previous_response_id"), (begun, "POST /v1/conversations")):
        refused = served("sessions", "fork", one)
        assert (refused.code, instead in refused.err) == (1, True), refused.err
    alone = str(folder / "response" / f"{made}.jsonl")
    assert "nothing to replay" in served("sessions", "replay", "--file", alone).err
    assert "nothing to compare" in served("sessions", "diff", alone, alone).err
    served.ok("sessions", "cancel", behind)
    served.ok("sessions", "kill", behind, "--yes")
    served.ok("sessions", "delete", made, behind, begun)
    assert served("sessions", "show", made).code == 1
    for wrong in ((), (made, "--all", "x"), (made, "--kind", "response"), ("--all", "x", "--file", "y")):
        assert served("sessions", "export", *wrong).code == 2


class _Told:
    def __init__(self) -> None:
        self._file = io.StringIO()
        self._console = Console(file=self._file, width=100)

    def say(self, text: str) -> None:
        self._console.print(text)

    @property
    def text(self) -> str:
        return self._file.getvalue()


def test_a_response_is_told_as_it_was_asked_made_and_answered() -> None:
    told = _Told()
    show_kept(
        told,  # type: ignore[arg-type]  # all that is used of it
        [
            {
                "type": "freehold.response_asked",
                "input": [{"role": "user", "content": "Is [SKU-1] there?"}],
                "conversation_id": None,
            },
            {"type": "freehold.response_begun"},
            {"type": "freehold.response_begun"},
            {"type": "freehold.response_told", "first": 0, "count": 7},
            {
                "type": "freehold.response_ended",
                "status": "completed",
                "usage": {"input_tokens": 12, "output_tokens": 3},
                "output": [
                    {
                        "type": "message",
                        "role": "assistant",
                        "content": [{"type": "output_text", "text": "Yes: 40."}],
                    },
                    {"type": "function_call", "name": "stock", "arguments": "{}"},
                ],
            },
        ],
    )
    assert told.text.splitlines() == [
        "user  Is [SKU-1] there?",
        "completed · 2 attempts · 7 events of its stream kept · 12 tokens in, 3 out",
        "assistant  Yes: 40.",
        "function_call  stock {}",
    ]


def test_a_conversation_tells_what_was_said_and_that_something_was_deleted() -> None:
    told = _Told()
    show_kept(
        told,  # type: ignore[arg-type]  # all that is used of it
        [
            {"type": "freehold.conversation_started", "metadata": {}},
            {"type": "freehold.item_erased", "item_id": "msg_1"},
            {"type": "freehold.item_added", "item_id": "msg_2", "item": {"role": "user", "content": "Hi"}},
        ],
    )
    assert told.text.splitlines() == ["deleted: msg_1", "user  Hi"]
