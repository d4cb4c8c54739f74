"""The command in an environment that holds no key and finds no model server: called here, or as a process of its own.

A call here is the same `main` without the start of an interpreter, which would be most of the suite's time.
"""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from freehold.cli.main import main
from tests._waiting import PATIENCE_S

COMMAND_TIMEOUT_S = 240.0
READY_TIMEOUT_S = 120.0
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

    def __call__(self, *arguments: str, input: str = "") -> Done:  # noqa: A002
        out, err, given = _text(), _text(), _text(input)
        with (
            mock.patch.dict(os.environ, self.environment(), clear=True),
            mock.patch.object(sys, "argv", ["freehold", *arguments]),
            mock.patch.object(sys, "stdin", given),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                main()
                code: object = 0
            except SystemExit as ended:
                code = ended.code
        assert isinstance(code, int)
        return Done(code, _written(out), _written(err))

    def ok(self, *arguments: str, input: str = "") -> Done:  # noqa: A002
        return self._well(self(*arguments, input=input), arguments)

    def process(self, *arguments: str) -> Done:
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def ok_process(self, *arguments: str) -> Done:
        return self._well(self.process(*arguments), arguments)

    def _well(self, done: Done, arguments: tuple[str, ...]) -> Done:
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


def _text(content: str = "") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content.encode()), encoding="utf-8", write_through=True)


def _written(stream: io.TextIOWrapper) -> str:
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()


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
        return process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
