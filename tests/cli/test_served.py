"""Commands against a running server: applying, asking, looking at sessions, keys, data."""

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from freehold.client.client import Client
from freehold.client.errors import ApiError
from freehold.core.resources import KINDS
from tests._waiting import PATIENCE_S, until
from tests.cli._freehold import Freehold

AGENT = "kind: agent\nname: {name}\nrules: clerk\n"
KNOWN = ", ".join(KINDS)


# -- apply


@pytest.mark.parametrize(
    ("template", "at", "says"),
    [
        ("kind: agent\nname: a\ninstrctions: x\n", "t.yaml:3: agent a: instrctions: ", "did you mean 'instructions'?"),
        ("kind: agnt\nname: a\n", f"t.yaml:1: kind: expected one of {KNOWN}; got 'agnt'", "did you mean 'agent'?"),
        ("kind: agent\nname: a\ntools: [stok]\n", "t.yaml:3: agent a: tools[0]: there is no tool 'stok'", "did you mean 'stock'?"),
        ("kind: agent\nname: a\nmodel: opnai/gpt-5\n", "t.yaml:3: agent a: model: ", "'opnai/gpt-5'"),
        ("kind: tool\nname: t\ntype: sqll\n", "t.yaml:3: tool t: type: expected one of agent, client, event, function, http, kv, objects, sql, timer; got 'sqll'", "did you mean 'sql'?"),
        ("kind: tool\nname: t\ntype: kv\nconfig:\n  tabel: x\n", "t.yaml:5: tool t: config.tabel: unknown field 'tabel'", "did you mean 'table'?"),
        ("kind: agent\nname: Not A Name\n", "t.yaml:2: agent Not A Name: name: expected 1-63 of a-z", ""),
        ("kind: agent\nname: a\nmodel: ${MODEL}\n", "t.yaml:3: ", "the variable MODEL is used but not given: add --set MODEL=VALUE"),
        ("kind: [agent\n", "t.yaml:2: not YAML", ""),
        ("# nothing\n", "t.yaml: there is no resource in it", ""),
    ],
)  # fmt: skip
def test_a_wrong_template_is_told_by_line_and_field(
    served: Freehold, template: str, at: str, says: str
) -> None:
    path = served.folder.parent / "t.yaml"
    path.write_text(template)
    done = served("apply", str(path), "--yes")
    assert done.code == 1
    assert done.err.startswith(f"error: {at}"), done.err
    assert says in done.err, done.err


def test_several_mistakes_are_told_at_once_and_nothing_is_applied(served: Freehold) -> None:
    template = AGENT.format(name="good") + "---\nkind: agent\nname: bad\ntools: [x, y]\n"
    done = served("apply", "-", "--yes", input=template)
    assert done.code == 1
    assert "tools[0]" in done.err
    assert "tools[1]" in done.err
    assert served("describe", "agent", "good").code == 1


def test_apply_tells_what_changes_and_then_that_nothing_does(served: Freehold) -> None:
    first = served.ok("apply", "-", "--yes", input=AGENT.format(name="changing"))
    assert "+ create agent changing" in first.out
    assert "applied agent changing (version 1)" in first.out
    again = served.ok("apply", "-", "--yes", input=AGENT.format(name="changing"))
    assert "Nothing to change." in again.out
    changed = AGENT.format(name="changing") + "description: more\n"
    dry = served.ok("apply", "-", "--dry-run", input=changed)
    assert "~ update agent changing (version 1)" in dry.out
    assert "description: (not set) → more" in dry.out
    assert served.ok("describe", "agent", "changing", "--json").json["version"] == 1


def test_a_file_that_is_not_there_is_named(served: Freehold) -> None:
    done = served("apply", "missing.yaml")
    assert done.code == 1
    assert "missing.yaml cannot be read: No such file or directory" in done.err


def test_get_and_describe_show_what_is_declared(served: Freehold) -> None:
    assert "clerk" in served.ok("get", "agents").out
    assert {one["kind"] for one in served.ok("get", "--json").json} >= {"agent", "tool", "rules"}
    shown = served.ok("describe", "tool", "stock").out
    assert "config:\n  table: stock" in shown
    again = served.ok("apply", "-", "--dry-run", input=shown)
    assert "Nothing to change." in again.out
    missing = served("describe", "agent", "clark")
    assert missing.code == 1
    assert "clerk" in missing.err


# -- chat and sessions


def test_chat_shows_steps_and_the_answer_and_says_that_rules_answered(served: Freehold) -> None:
    done = served.ok("chat", "clerk", "How many SKU-1 are there?")
    assert "● stock" in done.out
    assert "SKU-1: 7 units." in done.out
    assert "No language model was asked" in done.out


@pytest.mark.slow
def test_chat_in_json_gives_one_event_a_line(served: Freehold) -> None:
    events = served.ok("chat", "clerk", "How many SKU-1 are there?", "--json").lines
    kinds = [event["type"] for event in events]
    assert kinds[-1] == "session.status_idle"
    assert kinds.index("agent.tool_use") < kinds.index("agent.tool_result") < kinds.index("agent.message")


@pytest.mark.slow
def test_a_conversation_goes_on(served: Freehold) -> None:
    served.ok("chat", "clerk", "How many SKU-1 are there?")
    done = served.ok("chat", "clerk", "--continue", "And again, how many?")
    assert "SKU-1: 7 units." in done.out
    newest = served.ok("sessions", "list", "--agent", "clerk", "--limit", "1", "--json").json[0]["id"]
    shown = served.ok("sessions", "show", newest).out
    assert "› How many SKU-1 are there?" in shown
    assert "› And again, how many?" in shown


@pytest.mark.slow
def test_a_message_comes_through_a_pipe(served: Freehold) -> None:
    assert "SKU-1: 7 units." in served.ok("chat", "clerk", input="stock of SKU-1?").out


def test_an_unknown_agent_is_told_with_near_names(served: Freehold) -> None:
    done = served("chat", "clark", "hello")
    assert done.code == 1
    assert "clerk" in done.err


@pytest.mark.slow
def test_the_log_of_a_session_is_shown_whole(served: Freehold) -> None:
    served.ok("chat", "clerk", "How many SKU-1 are there?")
    session = served.ok("sessions", "list", "--limit", "1", "--json").json[0]["id"]
    log = served.ok("sessions", "show", session, "--log").out
    assert "freehold.tool_started" in log
    assert "attempt 1, pure" in log
    told = served.ok("sessions", "show", session, "--json").json
    assert told["session"]["status"] == "idle"
    assert told["events"][0]["type"] == "freehold.session_started"


@pytest.mark.slow
def test_tail_follows_what_others_say(served: Freehold) -> None:
    served.ok("chat", "clerk", "How many SKU-1 are there?")
    session = served.ok("sessions", "list", "--limit", "1", "--json").json[0]["id"]
    tailing = served.start("sessions", "tail", session, "--after", "0", "--json")
    assert tailing.stdout is not None
    try:
        first = [json.loads(tailing.stdout.readline())["type"] for _ in range(3)]
        assert first[:2] == ["freehold.session_started", "user.message"]
        served.ok("chat", "clerk", "--session", session, "And SKU-1 again?")
        assert any("And SKU-1 again?" in line for line in tailing.stdout)
    finally:
        tailing.terminate()
        tailing.communicate()


@pytest.mark.slow
def test_a_cancelled_session_takes_no_more(served: Freehold) -> None:
    served.ok("chat", "clerk", "How many SKU-1 are there?")
    session = served.ok("sessions", "list", "--limit", "1", "--json").json[0]["id"]
    assert (
        f"cancelled the session {session}"
        in served.ok("sessions", "cancel", session, "--reason", "enough").out
    )
    done = served("chat", "clerk", "--session", session, "hello")
    assert done.code == 1
    assert "cancelled" in done.err


@pytest.mark.slow
def test_ctrl_c_ends_a_follower_at_once(served: Freehold) -> None:
    served.ok("chat", "clerk", "How many SKU-1 are there?")
    session = served.ok("sessions", "list", "--limit", "1", "--json").json[0]["id"]
    tailing = served.start("sessions", "tail", session, "--after", "0")
    assert tailing.stdout is not None
    tailing.stdout.readline()
    tailing.send_signal(signal.SIGINT)
    _, err = tailing.communicate(timeout=PATIENCE_S)
    assert tailing.returncode == 130
    assert "Traceback" not in err


# -- keys


@pytest.mark.slow
def test_a_key_lives_and_dies(served: Freehold) -> None:
    made = served.ok("keys", "create", "tests", "--json").json
    url = json.loads((served.folder / "server.json").read_bytes())["url"]
    with_key = Freehold(served.folder, {"FREEHOLD_URL": url, "FREEHOLD_API_KEY": made["key"]})
    assert "clerk" in with_key.ok("get", "agents").out
    assert made["key"] not in served.ok("keys", "list", "--json").out
    served.ok("keys", "revoke", made["id"])
    until(lambda: with_key("get", "agents").code, "the key to be good for nothing")
    refused = with_key("get", "agents")
    assert refused.code == 1
    assert "revoked" in refused.err
    assert "revoked" in served.ok("keys", "list").out


def test_a_limited_key_may_do_what_it_says_and_no_more(served: Freehold) -> None:
    key = served.ok("keys", "create", "reader", "--allow", "agent:*").out.strip()
    url = json.loads((served.folder / "server.json").read_bytes())["url"]
    limited = Freehold(served.folder, {"FREEHOLD_URL": url, "FREEHOLD_API_KEY": key})
    assert limited.ok("get", "agents").code == 0
    refused = limited("keys", "list")
    assert refused.code == 1
    assert "key:List" in refused.err


# -- the rest


@pytest.mark.slow
def test_a_folder_becomes_objects(served: Freehold) -> None:
    folder = served.folder.parent / "papers"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a b.txt").write_text("hello")
    (folder / "ü.bin").write_bytes(b"\x00" * 1_000_000)
    assert served.ok("data", "put-objects", "papers", str(folder), "--json").json == {"count": 2}
    with client_of(served) as client:
        assert client.request("GET", "/v1/objects/papers/deep/a%20b.txt") == b"hello"
        assert len(client.request("GET", "/v1/objects/papers/%C3%BC.bin")) == 1_000_000


def test_an_archive_that_is_none_is_refused(served: Freehold) -> None:
    with client_of(served) as client, pytest.raises(ApiError, match="expected a tar archive, not compressed"):
        client.request("PUT", "/v1/objects", content=b"no archive" * 100)


def test_an_archives_paths_lead_nowhere_else(served: Freehold) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../escaped"), io.BytesIO())
    with client_of(served) as client, pytest.raises(ApiError, match=r"without '\.' and '\.\.'"):
        client.request("PUT", "/v1/objects", content=buffer.getvalue())


def test_wrong_items_are_told_by_line(served: Freehold) -> None:
    wrong = served("data", "put-items", "stock", "-", input='{"key": "a", "value": 1}\n{"kee": "x"}\n')
    assert wrong.code == 1
    assert "line 2" in wrong.err


def client_of(served: Freehold) -> Client:
    told = json.loads((served.folder / "server.json").read_bytes())
    return Client(told["url"], told["api_key"])


def test_models_names_what_can_be_called_and_why_the_rest_cannot(served: Freehold) -> None:
    shown = served.ok("models", "--all").out
    assert "rules/clerk" in shown
    assert "OPENAI_API_KEY is not set" in shown


@pytest.mark.slow
def test_the_doctor_finds_the_server_well(served: Freehold) -> None:
    told = served.ok("doctor", "--json").json
    states = {one["check"]: one["state"] for one in told["findings"]}
    assert told["well"]
    assert states["server"] == "ok"
    assert states["PostgreSQL"] == "ok"
    assert states["sandbox"] == "absent"


@pytest.mark.slow
def test_a_second_server_on_the_same_folder_is_refused(served: Freehold) -> None:
    pid = json.loads((served.folder / "server.json").read_bytes())["pid"]
    done = served.process("serve", "--port", "0")
    assert done.code == 1
    assert f"(process {pid}) is using the data folder" in done.err
    assert served.ok("get", "agents").code == 0, "the first one is unharmed"


@pytest.mark.slow
def test_a_reader_that_has_enough_ends_the_command_quietly(served: Freehold) -> None:
    listing = served.start("get", "--json")
    assert listing.stdout is not None
    assert listing.stderr is not None
    listing.stdout.close()
    listing.wait(timeout=PATIENCE_S)
    assert "Traceback" not in listing.stderr.read()
    listing.stderr.close()


COLOUR = re.compile(r"\x1b\[(?:\d+;)*3\d")


@pytest.mark.slow
def test_colours_are_for_terminals_and_no_color_is_heeded(served: Freehold) -> None:
    """`script` gives the command a terminal."""
    if shutil.which("script") is None:
        pytest.skip("there is no `script` here to make a terminal with")
    beside = str(Path(sys.executable).parent)
    for more, colourful in (({}, True), ({"NO_COLOR": "1"}, False)):
        environment = served.environment() | {"TERM": "xterm-256color", **more}
        environment["PATH"] = f"{beside}:{environment['PATH']}"
        command = ["script", "-qec", "freehold doctor", "/dev/null"]
        shown = subprocess.run(
            command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert "data folder" in shown.stdout
        assert bool(COLOUR.search(shown.stdout)) == colourful
    assert "\x1b" not in served.ok("doctor").out


def test_what_is_archived_is_out_of_use_until_it_is_applied_again(served: Freehold) -> None:
    declared = "kind: capacity\nname: bought\nmodels: openai/gpt-4o\ntokens_per_minute: 1000\nhourly: '1'\n"
    declared += "valid_from: 2026-11-01T00:00:00Z\n"
    served.ok("apply", "-", "--yes", input=declared)
    assert "archived capacity bought" in served.ok("archive", "capacity", "bought").out
    assert "bought" not in served.ok("get", "capacities").out
    assert ", archived" in served.ok("get", "capacities", "--archived").out
    again = served("archive", "capacity", "bought")
    assert (again.code, "bought" in again.err) == (1, True)
    served.ok("apply", "-", "--yes", input=declared)
    (told,) = served.ok("archive", "capacity", "bought", "--json").json
    assert (told["name"], told["archived"]) == ("bought", True)
