"""What the command line says without a server: help, wrong usage, exit codes, completion; and how little it loads for it."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from freehold.cli._group import Command
from freehold.cli.main import cli
from tests.cli._freehold import Freehold

COMMANDS = [
    "apply",
    "archive",
    "batches",
    "chat",
    "demo",
    "describe",
    "dev",
    "doctor",
    "get",
    "keys",
    "models",
    "serve",
    "sessions",
]


def test_help_lists_every_command(freehold: Freehold) -> None:
    done = freehold.ok("--help")
    assert [name for name in COMMANDS if f"  {name} " not in done.out] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(freehold: Freehold, command: str) -> None:
    done = freehold.ok(command, "--help")
    assert done.out.startswith(f"Usage: freehold {command}")
    assert len(done.out.splitlines()) > 4


def test_a_mistyped_command_is_corrected(freehold: Freehold) -> None:
    done = freehold("sesions")
    assert done.code == 2
    assert "did you mean 'sessions'?" in done.err


def test_a_word_alone_is_answered_with_what_goes_on_from_it(freehold: Freehold) -> None:
    done = freehold("routes")
    assert done.code == 2
    assert done.err.count("Usage:") == 1
    assert "explain" in done.err
    assert "error:" not in done.err


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        elif command is not None:
            yield (*path, name), command


def test_a_word_too_many_is_told_with_what_the_command_takes(freehold: Freehold) -> None:
    assert "freehold tools takes no arguments: leave out 'list'" in freehold("tools", "list").err
    assert (
        "show takes SESSION_ID and no more: leave out 'b' 'c'"
        in freehold("sessions", "show", "a", "b", "c").err
    )
    assert [path for path, command in leaves(cli) if not isinstance(command, Command)] == []


def test_wrong_usage_is_told_in_json_where_json_is_asked_for(freehold: Freehold) -> None:
    done = freehold("chat", "--json")
    assert done.code == 2
    assert done.json["error"] == {"type": "usage", "message": "Missing argument 'AGENT'."}


def test_a_server_that_is_not_there_is_exit_code_3(freehold: Freehold) -> None:
    done = freehold("--url", "http://127.0.0.1:9", "--api-key", "k", "get")
    assert done.code == 3
    assert "no answer from http://127.0.0.1:9" in done.err
    assert "Traceback" not in done.err


def test_a_url_wants_a_key(freehold: Freehold) -> None:
    done = freehold("--url", "http://127.0.0.1:9", "get")
    assert done.code == 2
    assert "FREEHOLD_API_KEY" in done.err


@pytest.mark.parametrize(
    ("shell", "has"), [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete ")]
)
def test_completion_is_there_for_the_shell(freehold: Freehold, shell: str, has: str) -> None:
    assert has in freehold.ok("completion", shell).out


@pytest.mark.slow
def test_commands_are_completed(freehold: Freehold) -> None:
    asked = Freehold(
        freehold.folder,
        {"_FREEHOLD_COMPLETE": "bash_complete", "COMP_WORDS": "freehold do", "COMP_CWORD": "1"},
    )
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv = ['freehold']; from freehold.cli.main import main; main()"],
        env=asked.environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == ["plain,doctor"]


def test_help_loads_neither_http_nor_terminal_nor_server(freehold: Freehold) -> None:
    program = (
        "import sys; from freehold.cli.main import cli; cli.main(['--help'], standalone_mode=False);"
        "import json; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=freehold.environment(), capture_output=True, text=True
    )
    loaded = set(json.loads(done.stderr))
    assert loaded & {"httpx2", "rich", "msgspec", "uvicorn", "asyncpg", "asyncio", "freehold.app"} == set()


def test_an_interrupt_while_a_command_is_loaded_is_told_and_not_lost(freehold: Freehold) -> None:
    """One that would pass an `exec`, and one that would be raised in a weak reference's callback."""
    for interrupted in ("exec('interrupt()')", "kept = weakref.ref(one := Found(), interrupt); del one"):
        program = f"""
import os, signal, sys, weakref
import freehold.cli._output
from freehold.cli.main import main

class Found:
    def find_spec(self, name, *_):
        if name == "freehold.cli.doctor":
            {interrupted}

def interrupt(_=None):
    os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Found())
sys.argv = ["freehold", "doctor"]
main()
"""
        done = subprocess.run(
            [sys.executable, "-c", program], env=freehold.environment(), capture_output=True, text=True
        )
        assert (done.returncode, done.stderr.strip()) == (130, "error: interrupted")


def test_output_into_a_pipe_has_no_colours(freehold: Freehold) -> None:
    done = freehold("get", "nothing", "here")
    assert "\x1b" not in done.out + done.err


@pytest.mark.slow
def test_wrong_settings_name_the_file_and_the_key(freehold: Freehold) -> None:
    freehold.folder.mkdir()
    (freehold.folder / "freehold.toml").write_text("[server]\nprot = 1\n")
    done = freehold.process("serve")
    assert done.code == 1
    assert "freehold.toml" in done.err
    assert "server.prot" in done.err


@pytest.mark.slow
def test_a_taken_port_is_named(freehold: Freehold) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = freehold.process("serve", "--port", str(port))
    assert done.code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.err
    assert not (freehold.folder / "server.json").exists()


def test_the_version_is_told(freehold: Freehold) -> None:
    assert freehold.ok("--version").out.startswith("freehold, version ")
