"""The server as a process: what it says when it cannot start, and that however it ends nothing of it stays behind."""

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests._waiting import PATIENCE_S, until
from tests.server._process import freehold, left
from tests.server._world import ECHO

pytestmark = pytest.mark.slow

ENDS = {signal.SIGINT: {0, 130}, signal.SIGTERM: {0, -15}, signal.SIGKILL: {-9}}
"""Exit codes. The second of two is where the program is still being loaded and nothing is open that would have to be closed."""


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that was used before, with an agent in it: starting on it is quick."""
    folder: Path = tmp_path_factory.mktemp("used") / "data"
    with freehold(folder) as server:
        with server.ready().client() as client:
            client.post("/v1/templates/apply", json={"template": ECHO}).raise_for_status()
        assert server.ended(signal.SIGTERM)[0] == 0
    return folder


def answers(folder: Path) -> None:
    """Starts, and its agent answers."""
    with freehold(folder) as server, server.ready().client() as client:
        event = {"type": "user.message", "content": "hello"}
        session = client.post("/v1/sessions", json={"agent": "echo", "initial_events": [event]}).json()
        path = f"/v1/sessions/{session['id']}"
        until(lambda: client.get(path).json()["status"] == "idle")
        kinds = [one["type"] for one in client.get(f"{path}/events").json()["data"]]
        assert kinds.count("agent.message") == 1
        assert server.ended(signal.SIGINT)[0] == 0


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://nobody:CANARY@127.0.0.1:1/none", "check that it runs and that DATABASE_URL is right"),
        ("mysql://127.0.0.1/none", "expected an address like postgresql://user:password@host:5432/name"),
        ("not an address", "DATABASE_URL"),
    ],
)
def test_a_database_that_is_away_at_the_start_is_told(tmp_path: Path, url: str, said: str) -> None:
    with freehold(tmp_path / "data", environment={"DATABASE_URL": url}) as server:
        code, error = server.ended()
    assert code == 1
    assert said in error
    assert "CANARY" not in error
    assert "Traceback" not in error


def test_a_taken_port_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with freehold(tmp_path / "data", "--port", str(port)) as server:
            code, error = server.ended()
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another with --port" in error
    assert not (tmp_path / "data").exists()


def test_a_second_server_on_the_same_folder_is_refused_and_the_first_goes_on(used: Path) -> None:
    with freehold(used) as first:
        first.ready()
        with freehold_without_waiting(used) as (code, error):
            assert code == 1
            assert f"Another Freehold server (process {first.process.pid}) is using the data folder" in error
            assert "Stop it, or choose another data folder" in error
        with first.client() as client:
            assert client.get("/healthz").status_code == 200
        assert first.ended(signal.SIGTERM)[0] == 0


class freehold_without_waiting:  # noqa: N801 - reads as the function beside it
    """A server that is expected to end by itself while another works in the same folder."""

    def __init__(self, folder: Path) -> None:
        self._command = [
            sys.executable,
            "-m",
            "freehold.cli.main",
            "--data",
            str(folder),
            "serve",
            "--port",
            "0",
        ]

    def __enter__(self) -> tuple[int, str]:
        done = subprocess.run(self._command, capture_output=True, text=True, timeout=PATIENCE_S)
        return done.returncode, done.stderr

    def __exit__(self, *_: object) -> None:
        pass


def test_a_folder_that_cannot_be_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with freehold(tmp_path / "file" / "data") as server:
        code, error = server.ended()
    assert code == 1
    assert "a part of that path is a file. Choose another data folder." in error


def test_a_wrong_setting_is_told(tmp_path: Path) -> None:
    (tmp_path / "freehold.toml").write_text("[server]\nprot = 1\n")
    with freehold(tmp_path) as server:
        code, error = server.ended()
    assert code == 1
    assert "server.prot: unknown field 'prot'" in error.replace("\n", " ")


def is_loading(pid: int) -> bool:
    """Whether the command is: before, it is Python that tells of a SIGINT, with a traceback."""
    return b"asyncpg" in Path(f"/proc/{pid}/maps").read_bytes()


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda kind: kind.name)
def test_ended_at_any_time_of_its_start_it_leaves_nothing_and_starts_again(
    tmp_path: Path, kind: signal.Signals
) -> None:
    chance = random.Random(kind.value)
    folder = tmp_path / "data"
    for _ in range(5):
        with freehold(folder) as server:
            if kind == signal.SIGINT:
                until(partial(is_loading, server.process.pid))
            wait_s = chance.uniform(0.3, 3.0)
            try:
                server.process.wait(wait_s)
            except subprocess.TimeoutExpired:
                code, error = server.ended(kind)
                assert code in ENDS[kind], error
                assert "Traceback" not in error
        assert left(folder) == []
    with freehold(folder) as server:
        server.ready()
        assert server.ended(signal.SIGTERM)[0] == 0


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda kind: kind.name)
def test_ended_while_sessions_run_it_leaves_nothing_and_goes_on(used: Path, kind: signal.Signals) -> None:
    with freehold(used) as server, server.ready().client() as client:
        event = {"type": "user.message", "content": "hello"}
        created = [
            client.post("/v1/sessions", json={"agent": "echo", "initial_events": [event]}).json()["id"]
            for _ in range(5)
        ]
        code, error = server.ended(kind)
        assert code == (-9 if kind == signal.SIGKILL else 0)
        assert "Traceback" not in error
    with freehold(used) as server, server.ready().client() as client:
        for session_id in created:
            path = f"/v1/sessions/{session_id}"
            until(lambda path=path: client.get(path).json()["status"] == "idle")
            kinds = [one["type"] for one in client.get(f"{path}/events").json()["data"]]
            assert kinds.count("user.message") == kinds.count("agent.message") == 1
        assert server.ended(signal.SIGTERM)[0] == 0


def with_companion(folder: Path, command: list[str], ready_url: str = "") -> tuple[str, str]:
    listed = ", ".join(f'"{word}"' for word in command)
    ready = f'ready_url = "{ready_url}"\n' if ready_url else ""
    path = folder / "companion.toml"
    path.write_text(f'[[companions]]\nname = "helper"\ncommand = [{listed}]\n{ready}')
    return "--config", str(path)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGKILL], ids=lambda kind: kind.name)
def test_companions_end_with_the_server(used: Path, tmp_path: Path, kind: signal.Signals) -> None:
    mark = tmp_path / "mark"
    options = with_companion(tmp_path, [sys.executable, "-c", f"import time; '{mark}'; time.sleep(600)"])
    with freehold(used, *options) as server:
        server.ready()
        assert len(left(mark)) == 1
        server.ended(kind)
        until(lambda: not left(mark))


def test_a_companion_that_dies_is_started_again(used: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    options = with_companion(tmp_path, [sys.executable, "-c", f"import time; '{mark}'; time.sleep(600)"])
    with freehold(used, *options) as server:
        server.ready()
        (first,) = left(mark)
        os.kill(int(first.split()[0]), signal.SIGKILL)
        until(lambda: len(left(mark)) == 1 and left(mark) != [first])
        assert server.ended(signal.SIGTERM)[0] == 0
        assert left(mark) == []


def test_a_companion_that_does_not_come_up_is_told_and_nothing_stays(used: Path, tmp_path: Path) -> None:
    options = with_companion(tmp_path, ["/bin/false"], "http://127.0.0.1:1/")
    with freehold(used, *options) as server:
        code, error = server.ended()
    assert code == 1
    assert "the companion helper did not come up" in error
    assert left(used) == []


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_database_that_is_stopped_makes_the_stop_slow_and_not_endless(used: Path) -> None:
    with freehold(used) as server, server.ready().client() as client:
        postgres = int((used / "postgres" / "postmaster.pid").read_text().split()[0])
        os.kill(postgres, signal.SIGSTOP)
        # Not by their titles: one that has just begun has none yet.
        backends = [pid for pid in (int(one.split()[0]) for one in left(used)) if parent(pid) == postgres]
        for pid in backends:
            os.kill(pid, signal.SIGSTOP)
        try:
            assert client.get("/healthz").status_code == 503
        finally:
            for pid in (postgres, *backends):
                os.kill(pid, signal.SIGCONT)
        until(lambda: client.get("/healthz").status_code == 200)
        assert server.ended(signal.SIGTERM)[0] == 0


def test_a_killed_database_comes_back_or_the_server_says_so(used: Path) -> None:
    """PostgreSQL restarts its own backends; the server's connections heal."""
    with freehold(used) as server, server.ready().client() as client:
        for pid in [int(one.split()[0]) for one in left(used) if "postgres: " in one and "freehold" in one]:
            try:
                os.kill(pid, signal.SIGKILL)
                break
            except ProcessLookupError:
                continue
        until(lambda: client.get("/healthz").status_code == 200)
        assert server.ended(signal.SIGTERM)[0] == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=130m,mode=0700", "none", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs to mount a small disk, which only root can")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_told_and_what_was_kept_is_there_once_there_is_room(small_disk: Path) -> None:
    folder, ballast = small_disk / "data", small_disk / "ballast"
    with freehold(folder) as server, server.ready().client() as client:
        client.put("/v1/tables/t/items", content=b'{"key":"kept","value":1}').raise_for_status()
        fill(ballast)
        refused = None
        for number in range(400):
            value = '"' + random.Random(number).randbytes(50_000).hex() + '"'
            answer = client.put(
                "/v1/tables/t/items", content=f'{{"key":"k{number}","value":{value}}}'.encode()
            )
            if answer.status_code != 200:
                refused = answer
                break
        assert refused is not None
        assert refused.status_code == 503
        assert (
            "disk is full" in refused.json()["error"]["message"]
            or "database" in refused.json()["error"]["message"]
        )
        big = client.put("/v1/objects/big", content=b"x" * 5_000_000)
        assert big.status_code == 503
        assert "full" in big.json()["error"]["message"]
        ballast.unlink()
        until(lambda: client.get("/healthz").status_code == 200)
        until(lambda: client.put("/v1/tables/t/items", content=b'{"key":"new","value":2}').status_code == 200)
        assert client.get("/v1/tables/t/items/kept").json()["value"] == 1
        assert server.ended(signal.SIGTERM)[0] == 0


def test_a_disk_that_is_full_at_the_start_is_told(small_disk: Path) -> None:
    fill(small_disk / "ballast", leave_bytes=2_000_000)
    with freehold(small_disk / "data") as server:
        code, error = server.ended()
    assert code == 1
    assert "full" in error
    assert "Traceback" not in error


def fill(path: Path, *, leave_bytes: int = 300_000) -> None:
    stat = os.statvfs(path.parent)
    size = stat.f_bavail * stat.f_frsize - leave_bytes
    with path.open("wb") as file:
        while size > 0:
            size -= file.write(b"\0" * min(size, 1_000_000))
