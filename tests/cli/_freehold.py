"""The command as a person runs it: a process of its own, in an environment that holds no key and finds no model server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

COMMAND_TIMEOUT_S = 90.0
READY_TIMEOUT_S = 60.0
COMMAND = (sys.executable, "-m", "freehold.cli.main")


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Freehold(NamedTuple):
    """`freehold` on one data folder."""

    folder: Path
    more: Mapping[str, str] = {}

    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        return kept | {
            "HOME": str(self.folder.parent),
            "FREEHOLD_DATA": str(self.folder),
            "FREEHOLD_DISCOVER_LOCAL_MODELS": "false",
            "COLUMNS": "100",
            **self.more,
        }

    def __call__(self, *arguments: str, input: str | None = None) -> Done:  # noqa: A002
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=self.environment(),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str, input: str | None = None) -> Done:  # noqa: A002
        done = self(*arguments, input=input)
        assert done.code == 0, (
            f"freehold {' '.join(arguments)} ended with {done.code}\n{done.out}\n{done.err}"
        )
        return done

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*COMMAND, *arguments],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @contextmanager
    def serving(self, *options: str) -> Iterator[dict[str, Any]]:
        """`freehold serve`, as long as it is needed; gives what `server.json` says."""
        process = self.start("serve", "--port", "0", "--log-level", "warning", *options)
        try:
            yield wait_for_server(self.folder, process)
        finally:
            stop(process)


def wait_for_server(folder: Path, process: "subprocess.Popen[str]") -> dict[str, Any]:
    path = folder / "server.json"
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"the server ended with {process.returncode}: {process.communicate()[1]}")
        if path.exists():
            told: dict[str, Any] = json.loads(path.read_bytes())
            if told["pid"] == process.pid:
                return told
        time.sleep(0.02)
    raise AssertionError("the server was not ready in time")


def stop(process: "subprocess.Popen[str]") -> tuple[str, str]:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
