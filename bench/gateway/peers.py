"""Who is measured: each is started on the first core in front of the same stub, and stopped again. PEERS is the table.

Another peer is one function that starts it and one row. What cannot be started here says so by raising `Absent`. Not here: those
that others publish (installed.py).
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

from interpreter import ROOT, described

KEY = "bench-key"
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
START_S, STOP_S = 60.0, 30.0
POLL_S = 0.05
CORES = sorted(os.sched_getaffinity(0))
"""Before anybody is bound to one: who is measured has the first, all else the last."""

T = TypeVar("T")


class Absent(Exception):
    """Not measured, and why."""


class Around(NamedTuple):
    """What a peer is put into: the stub's port, the folder of the programs that were built, the Python that runs Freehold."""

    upstream: int
    programs: Path
    folder: Path
    python: str = sys.executable


class Running(NamedTuple):
    """`pids` are those whose CPU counts; what is below `parent` (a database) is told apart. `key` is what its clients send.

    `model` is its name for the stub's, `prefix` stands before the API's path, `headers` are lines that it needs besides. For `warm_s`
    it is asked before anything counts.
    """

    port: int
    pids: tuple[int, ...]
    key: str = KEY
    parent: int | None = None
    version: str = ""
    model: str = "openai/bench"
    prefix: str = ""
    headers: tuple[str, ...] = ()
    warm_s: float = 0.7


class Peer(NamedTuple):
    """`paths` are the APIs at which it can be asked for an answer of the stub, which speaks OpenAI's chat completions."""

    name: str
    start: Callable[[Around], AbstractContextManager[Running]]
    paths: tuple[str, ...] = (CHAT,)


@contextmanager
def stub(around: Around) -> Iterator[Running]:
    yield Running(around.upstream, ())


NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log warn;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_buffer_size 256k;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  upstream stub {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://stub; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


@contextmanager
def nginx(around: Around) -> Iterator[Running]:
    """Passes bytes, and checks, reads, counts and records nothing: the floor, not a competitor."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise Absent("nginx is not installed")
    port = free_port()
    conf = around.folder / "nginx.conf"
    conf.write_text(NGINX.format(folder=around.folder, upstream=around.upstream, port=port))
    with started([program, "-c", str(conf), "-p", str(around.folder)], os.environ) as running:
        told = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr
        yield Running(port, (_first_child(running),), version=told.strip().partition("/")[2])


@contextmanager
def bare_go(around: Around) -> Iterator[Running]:
    """bare.go, on one core."""
    command = [str(around.programs / "bare"), f"http://127.0.0.1:{around.upstream}", KEY]
    with started(command, os.environ | {"GOMAXPROCS": "1"}) as running:
        port, version = _line(running).split()
        yield Running(int(port), (running.pid,), version=version.removeprefix("go"))


@contextmanager
def freehold(around: Around, folder: Path = ROOT) -> Iterator[Running]:
    """All of it, with an embedded PostgreSQL that gets every record."""
    command = [around.python, "-m", "freehold.cli.main", "dev"]
    command += ["--upstream", f"openai=http://127.0.0.1:{around.upstream}/v1"]
    with started(command, os.environ | {"PYTHONPATH": str(folder / "src")}) as running:
        told = json.loads(_line(running))
        port = int(told["base_url"].rsplit(":", 1)[1].split("/")[0])
        yield Running(
            port,
            (running.pid,),
            told["api_key"],
            parent=running.pid,
            version=f"by {described(around.python)}",
        )


def checkout(folder: Path) -> Peer:
    """Freehold as it stands in another folder, run by the same Python."""
    return Peer("other", lambda around: freehold(around, folder), (CHAT, MESSAGES))


PEERS = (
    Peer("stub", stub),
    Peer("nginx", nginx),
    Peer("Go", bare_go),
    Peer("Freehold", freehold, (CHAT, MESSAGES)),
)


@contextmanager
def started(
    command: list[str], environment: Mapping[str, str], out: int | IO[str] = subprocess.PIPE
) -> Iterator["subprocess.Popen[str]"]:
    """On the first core; its standard error is ours where `out` is a pipe, else it goes with the rest."""

    def pinned() -> None:
        os.sched_setaffinity(0, {CORES[0]})

    running = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=None if out == subprocess.PIPE else subprocess.STDOUT,
        text=True,
        preexec_fn=pinned,  # noqa: PLW1509 - one thread here
    )
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(STOP_S)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def until(running: "subprocess.Popen[str]", told: Callable[[], T]) -> T:
    """What `told` gives once it is not false. Raises Absent."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if value := told():
            return value
        if running.poll() is not None:
            raise Absent(f"it ended by itself with {running.returncode}")
        time.sleep(POLL_S)
    raise Absent(f"it was not ready after {START_S:.0f} s")


def _line(running: "subprocess.Popen[str]") -> str:
    assert running.stdout is not None
    return running.stdout.readline()


def _first_child(running: "subprocess.Popen[str]") -> int:
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    return int(until(running, lambda: children.read_text().split())[0])


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
