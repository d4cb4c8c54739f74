"""`freehold serve`: the server, until it is told to stop."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from freehold import __version__
from freehold.app import House, open_house, write_private
from freehold.cli._connection import ServerFile, settings
from freehold.cli._output import Output
from freehold.config import Config, read_config
from freehold.core.errors import Unavailable
from freehold.server import listener as http
from freehold.telemetry import logging as log_lines

STDIN_BYTES: Final = 1024
CLOSING_S_MAX: Final = 20.0
"""Beside what turns get to finish their steps."""

CUT_EVERY_S: Final = 3.0

log = logging.getLogger(__name__)

Announce = Callable[[str, House], None]
"""Is told the address when the server takes connections."""


@click.command()
@click.option("--host", help="Address to listen on. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 takes a free one. [default: 8484]")
@click.option(
    "--config",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file instead of DATA/freehold.toml.",
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option(
    "--until-stdin-closes", is_flag=True, hidden=True, help="Stop when whoever started this is gone."
)
@click.pass_context
def serve(
    ctx: click.Context,
    *,
    host: str | None,
    port: int | None,
    file: Path | None,
    log_level: str | None,
    until_stdin_closes: bool,
) -> None:
    """Run the server.

    Without DATABASE_URL it starts a PostgreSQL of its own in the data folder. At the very first start it makes an API key
    and prints it, once.
    """
    chosen = settings(ctx)
    options: dict[tuple[str, ...], Any] = {
        ("server", "host"): host,
        ("server", "port"): port,
        ("log", "level"): log_level,
    }
    config = read_config(data_folder=chosen.data_folder, file=file, options=options)
    log_lines.configure(config.log.level, config.log.format)
    announce = partial(_show_first_key if until_stdin_closes else _announce, config, chosen.output)
    run(config, announce, until_stdin_closes=until_stdin_closes)


def run(
    config: Config, announce: Announce, *, until_stdin_closes: bool = False, throwaway: bool = False
) -> None:
    """Serves until SIGINT or SIGTERM; running turns finish their step or are handed back."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        work = _serve(config, announce, until_stdin_closes=until_stdin_closes, throwaway=throwaway)
        runner.run(work)


def _loop_factory() -> Any:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - does not exist on Windows

    return uvloop.new_event_loop


async def _serve(config: Config, announce: Announce, *, until_stdin_closes: bool, throwaway: bool) -> None:
    stop = _Stop(config.server.drain_s + CLOSING_S_MAX)
    with stop.heard(stdin=until_stdin_closes), listen(config) as listening:
        async with open_house(config, throwaway=throwaway) as house:
            log_lines.configure(config.log.level, config.log.format, redact=house.redact)
            with _announced(config, house, listening, announce):
                stop.ready = True
                log.info("server.started", extra={"version": __version__, "pid": os.getpid()})
                await http.serve(house.app, listening, stop.asked)
        log.info("server.stopped", extra={"pid": os.getpid()})


def listen(config: Config) -> socket.socket:
    """Bound before anything else is opened, so that a taken port costs nothing. Raises Unavailable."""
    host, port = config.server.host, config.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(http.BACKLOG)
    except OSError as error:
        listening.close()
        raise Unavailable(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port (0 takes a free one)"
        ) from error
    return listening


@contextlib.contextmanager
def _announced(config: Config, house: House, listening: socket.socket, announce: Announce) -> Iterator[None]:
    """Writes `server.json` while the server runs, and tells whoever started it."""
    host, port = listening.getsockname()[:2]
    reachable = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - compared, not bound
    url = f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
    path = config.data_folder / "server.json"
    write_private(path, msgspec.json.encode(ServerFile(url, os.getpid(), house.operator_key)))
    announce(url, house)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _show_first_key(_config: Config, output: Output, _url: str, house: House) -> None:
    if house.first_key is not None:
        output.note.print(f"[bold]Your first API key, shown this once:[/bold] {house.first_key}")


def _announce(config: Config, output: Output, url: str, house: House) -> None:
    _show_first_key(config, output, url, house)
    output.progress(f"Freehold listens on {url} (data in {config.data_folder}); Ctrl-C stops it")


class _Stop:
    """A stop may be asked for at any time: it breaks off the start, or ends the serving; all that was opened is closed.

    Asked for a second time, or when it takes longer than it may, it does not wait for turns to finish their steps or for a
    database that hangs: the next start takes them up.
    """

    def __init__(self, closing_s_max: float) -> None:
        self._closing_s_max = closing_s_max
        self.asked = asyncio.Event()
        self.ready = False
        self._mine = asyncio.current_task()

    @contextlib.contextmanager
    def heard(self, *, stdin: bool) -> Iterator[None]:
        """SIGINT and SIGTERM ask for it, and with `stdin` the end of standard input: whoever started us is gone."""
        loop = asyncio.get_running_loop()
        for kind in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(kind, self._ask)
        if stdin:
            loop.add_reader(sys.stdin.fileno(), self._read_stdin)
        try:
            yield
        except asyncio.CancelledError:
            if not self.asked.is_set():
                raise
        finally:
            if stdin:
                loop.remove_reader(sys.stdin.fileno())
            for kind in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(kind)

    def _ask(self) -> None:
        if self.asked.is_set() or not self.ready:
            self._cut_short()
        else:
            asyncio.get_running_loop().call_later(self._closing_s_max, self._cut_short)
        self.asked.set()

    def _cut_short(self) -> None:
        """Again and again: every part that is closed may have something of its own to wait for."""
        if self._mine is not None and not self._mine.done():
            self._mine.cancel()
            asyncio.get_running_loop().call_later(CUT_EVERY_S, self._cut_short)

    def _read_stdin(self) -> None:
        if not os.read(sys.stdin.fileno(), STDIN_BYTES):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._ask()
