"""Who is measured: each is started on the first core in front of the same stub, and stopped again. PEERS is the table.

Another peer is one function that starts it and one row. What cannot be started here says so by raising `Absent`.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

KEY = "bench-key"
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
START_S = 60.0


class Absent(Exception):
    """Not measured, and why."""


class Around(NamedTuple):
    """What a peer is put into: the stub's port, the folder of the programs that were built."""

    upstream: int
    programs: Path
    folder: Path


class Running(NamedTuple):
    """`pids` are those whose CPU counts; `below` are helpers' (a database's), told apart. `key` is what its clients send."""

    port: int
    pids: tuple[int, ...]
    key: str = KEY
    parent: int | None = None


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
    port = _free_port()
    conf = around.folder / "nginx.conf"
    conf.write_text(NGINX.format(folder=around.folder, upstream=around.upstream, port=port))
    with _started([program, "-c", str(conf), "-p", str(around.folder)]) as running:
        yield Running(port, (_first_child(running.pid),))


@contextmanager
def bare_go(around: Around) -> Iterator[Running]:
    """bare.go, on one core."""
    command = [str(around.programs / "bare"), f"http://127.0.0.1:{around.upstream}", KEY]
    with _started(command, GOMAXPROCS="1") as running:
        yield Running(int(_line(running)), (running.pid,))


def freehold(around: Around) -> AbstractContextManager[Running]:
    return _freehold(around)


def checkout(folder: str) -> Peer:
    """Freehold as it stands in another folder, run by this environment's Python."""
    return Peer("other", lambda around: _freehold(around, PYTHONPATH=f"{folder}/src"), (CHAT, MESSAGES))


@contextmanager
def _freehold(around: Around, **environment: str) -> Iterator[Running]:
    """All of it, with an embedded PostgreSQL that gets every record."""
    command = [sys.executable, "-m", "freehold.cli.main", "dev"]
    command += ["--upstream", f"openai=http://127.0.0.1:{around.upstream}/v1"]
    with _started(command, **environment) as running:
        told = json.loads(_line(running))
        port = int(told["base_url"].rsplit(":", 1)[1].split("/")[0])
        yield Running(port, (running.pid,), told["api_key"], parent=running.pid)


PEERS = (
    Peer("stub", stub),
    Peer("nginx", nginx),
    Peer("Go", bare_go),
    Peer("Freehold", freehold, (CHAT, MESSAGES)),
)


@contextmanager
def _started(command: list[str], **environment: str) -> Iterator["subprocess.Popen[str]"]:
    def pinned() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    running = subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=pinned,  # noqa: PLW1509 - one thread here
    )
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(30)


def _line(running: "subprocess.Popen[str]") -> str:
    assert running.stdout is not None
    return running.stdout.readline()


def _first_child(pid: int) -> int:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            return int(children[0])
        time.sleep(0.05)
    raise Absent(f"process {pid} started no worker")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
