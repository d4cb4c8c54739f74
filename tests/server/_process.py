"""`freehold serve` as a process of its own, and what is left when it is gone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx2
import msgspec

from tests._waiting import PATIENCE_S, until


class Running:
    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.url = ""
        self.key = ""

    def ready(self) -> "Running":
        def told() -> bool:
            assert self.process.poll() is None, self.process.communicate()[1]
            path = self.folder / "server.json"
            if not path.exists():
                return False
            found = msgspec.json.decode(path.read_bytes())
            self.url, self.key = found["url"], found["api_key"]
            return bool(found["pid"] == self.process.pid)

        until(told, f"server.json of process {self.process.pid}")
        return self

    def client(self) -> httpx2.Client:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=PATIENCE_S, trust_env=False)

    def ended(self, kind: signal.Signals | None = None) -> tuple[int, str]:
        """Exit code and what was said on standard error."""
        if kind is not None:
            self.process.send_signal(kind)
        _, said = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, said


@contextmanager
def freehold(folder: Path, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[Running]:
    kept = {"PATH", "HOME", "TMPDIR"}
    surroundings = {name: value for name, value in os.environ.items() if name in kept}
    command = [
        sys.executable,
        "-m",
        "freehold.cli.main",
        "--data",
        str(folder),
        "serve",
        "--port",
        "0",
        *options,
    ]
    process = subprocess.Popen(
        command,
        env=surroundings | {"FREEHOLD_DISCOVER_LOCAL_MODELS": "false", **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield Running(process, folder)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
        until(lambda: not left(folder), f"processes in {folder} to be gone")


def left(folder: Path) -> list[str]:
    """Command lines of processes that work in the folder, or name it."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            place = os.readlink(entry / "cwd")
        except OSError:
            continue
        if command and (str(folder) in command or place.startswith(str(folder))):
            found.append(f"{entry.name} {command[:150]}")
    return found
