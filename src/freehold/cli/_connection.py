"""Which server a command talks with: the one it is told, the one that runs on the data folder, or one of its own.

A running server writes `server.json` (0600) in its data folder: address, process id and a key that is good while it runs.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import httpx2
import msgspec
from msgspec import Struct

from freehold.cli._output import Output
from freehold.client.client import Client, encrypted
from freehold.client.errors import ServerAway
from freehold.config import default_data_folder

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 15.0
POLL_S: Final = 0.05


class ServerFile(Struct, frozen=True, omit_defaults=True):
    url: str
    pid: int
    api_key: str
    tls_url: str | None = None
    ca_file: str | None = None


class Settings(Struct, frozen=True):
    data_folder: Path
    url: str | None
    api_key: str | None
    output: Output


def settings(ctx: click.Context) -> Settings:
    given = ctx.find_root().obj
    as_json = bool(given["json"] or ctx.params.get("as_json"))
    folder = Path(given["data"]).expanduser().absolute() if given["data"] else default_data_folder(os.environ)
    return Settings(folder, given["url"], given["api_key"], Output(as_json=as_json))


def json_option(command: Any) -> Any:
    """`--json` is taken before and after the command's name."""
    return click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")(command)


def running_server(data_folder: Path) -> ServerFile | None:
    """What `server.json` says, if that server is alive and answers."""
    try:
        told = msgspec.json.decode((data_folder / "server.json").read_bytes(), type=ServerFile)
        os.kill(told.pid, 0)
        health = httpx2.get(f"{told.url}/healthz", timeout=5.0, trust_env=False, verify=encrypted(told.url))
    except (OSError, msgspec.DecodeError, httpx2.HTTPError):
        return None
    return told if health.status_code == 200 else None


@contextmanager
def connected(chosen: Settings) -> Iterator[Client]:
    """A client of the server meant; starts one for the time being where none runs, and says so."""
    if chosen.url:
        if not chosen.api_key:
            raise click.UsageError("--url needs a key: give --api-key or set FREEHOLD_API_KEY")
        with Client(chosen.url, chosen.api_key) as client:
            yield client
        return
    found = running_server(chosen.data_folder)
    if found is not None:
        with Client(found.url, found.api_key) as client:
            yield client
        return
    chosen.output.progress(
        f"no server runs on {chosen.data_folder}: starting one for this command (freehold serve keeps one)"
    )
    with own_server(chosen.data_folder) as (_, started), Client(started.url, started.api_key) as client:
        yield client


@contextmanager
def own_server(data_folder: Path, *options: str) -> Iterator[tuple["subprocess.Popen[bytes]", ServerFile]]:
    """A server in a child process, on a free port, stopped at the end; also when we are killed."""
    process = start_server(data_folder, *options)
    try:
        yield process, wait_until_ready(process, data_folder)
    finally:
        stop_server(process)


def start_server(data_folder: Path, *options: str) -> "subprocess.Popen[bytes]":
    """In a session of its own, so that Ctrl-C is ours to answer. The pipe to its standard input ends with this process."""
    command = [sys.executable, "-m", "freehold.cli.main", "--data", str(data_folder)]
    serve = ["serve", "--port", "0", "--log-level", "warning", "--until-stdin-closes"]
    return subprocess.Popen(
        [*command, *serve, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_until_ready(process: "subprocess.Popen[bytes]", data_folder: Path) -> ServerFile:
    """Raises ServerAway when the process ends or START_TIMEOUT_S pass first; its own words are on standard error by then."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerAway(
                f"the server could not start (exit code {process.returncode}); its message is above"
            )
        found = running_server(data_folder)
        if found is not None and found.pid == process.pid:
            return found
        time.sleep(POLL_S)
    stop_server(process)
    raise ServerAway(f"the server was not ready after {START_TIMEOUT_S:.0f} s")


def stop_server(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdin is not None:
        process.stdin.close()
