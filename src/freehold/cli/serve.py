"""`freehold serve`: the server, until it is told to stop."""

import asyncio
import contextlib
import gc
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
from msgspec import Struct

from freehold import __version__
from freehold.app import House, open_house, write_private
from freehold.cli._connection import ServerFile, settings
from freehold.cli._output import Output
from freehold.cli._tls import SELF_SIGNED, certificate
from freehold.config import Config, read_config
from freehold.core.errors import Unavailable
from freehold.server import listener as http
from freehold.telemetry import logging as log_lines

STDIN_BYTES: Final = 1024
CLOSING_S_MAX: Final = 20.0
"""Beside what turns get to finish their steps."""

CUT_EVERY_S: Final = 3.0

COLLECT_AT_OBJECTS: Final = 10_000
"""Python's own default is 700, which the parts of a long request are already."""

log = logging.getLogger(__name__)


class Addresses(Struct, frozen=True):
    """`ca_file` is what clients of `tls_url` must trust, where its certificate was made here."""

    url: str
    tls_url: str | None = None
    ca_file: Path | None = None


Announce = Callable[[Addresses, House], None]
"""Is told the addresses when the server takes connections."""


@click.command()
@click.option("--host", help="Address to listen on. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 takes a free one. [default: 8484]")
@click.option(
    "--tls",
    type=click.Choice([SELF_SIGNED]),
    help="Serve HTTPS too, with a certificate made here for this machine.",
)
@click.option("--tls-cert", metavar="FILE", help="Serve HTTPS too: certificate chain, PEM.")
@click.option("--tls-key", metavar="FILE", help="Its private key, PEM.")
@click.option("--tls-port", type=click.IntRange(0, 65535), help="Port of HTTPS. [default: 8485]")
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
    tls: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    tls_port: int | None,
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
        ("server", "tls"): tls,
        ("server", "tls_cert"): tls_cert,
        ("server", "tls_key"): tls_key,
        ("server", "tls_port"): tls_port,
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


def _collect_seldom() -> None:
    """What was opened by now lives as long as the server: the collector need not walk it again, 90 ms each time.

    What a call makes is mostly freed without it, so it may come seldom: a translated call of 60 messages costs a fifth less.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AT_OBJECTS, *gc.get_threshold()[1:])


def _loop_factory() -> Any:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - does not exist on Windows

    return uvloop.new_event_loop


async def _serve(config: Config, announce: Announce, *, until_stdin_closes: bool, throwaway: bool) -> None:
    stop = _Stop(config.server.drain_s + CLOSING_S_MAX)
    with stop.heard(stdin=until_stdin_closes), contextlib.ExitStack() as stack:
        listening = stack.enter_context(listen(config.server.host, config.server.port, "--port"))
        tls = _listen_tls(config, stack)
        async with open_house(config, throwaway=throwaway) as house:
            log_lines.configure(config.log.level, config.log.format, redact=house.redact)
            with _announced(config, house, _reachable(listening, tls), announce):
                stop.ready = True
                _collect_seldom()
                log.info("server.started", extra={"version": __version__, "pid": os.getpid()})
                await http.serve(house.app, listening, stop.asked, tls=tls)
        log.info("server.stopped", extra={"pid": os.getpid()})


def listen(host: str, port: int, option: str) -> socket.socket:
    """Bound before anything else is opened, so that a taken port costs nothing. Raises Unavailable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(http.BACKLOG)
    except OSError as error:
        listening.close()
        raise Unavailable(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another with {option} (0 takes a free one)"
        ) from error
    return listening


def _listen_tls(config: Config, stack: contextlib.ExitStack) -> http.Tls | None:
    found = certificate(config)
    if found is None:
        return None
    server = config.server
    return http.Tls(stack.enter_context(listen(server.host, server.tls_port, "--tls-port")), found)


def _reachable(listening: socket.socket, tls: http.Tls | None) -> Addresses:
    if tls is None:
        return Addresses(_url("http", listening))
    return Addresses(_url("http", listening), _url("https", tls.listening), tls.certificate.ca)


def _url(scheme: str, listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"


@contextlib.contextmanager
def _announced(config: Config, house: House, at: Addresses, announce: Announce) -> Iterator[None]:
    """Writes `server.json` while the server runs, and tells whoever started it."""
    path = config.data_folder / "server.json"
    ca_file = None if at.ca_file is None else str(at.ca_file)
    told = ServerFile(at.url, os.getpid(), house.operator_key, at.tls_url, ca_file)
    write_private(path, msgspec.json.encode(told))
    announce(at, house)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _show_first_key(_config: Config, output: Output, _at: Addresses, house: House) -> None:
    if house.first_key is not None:
        output.note.print(f"[bold]Your first API key, shown this once:[/bold] {house.first_key}")


def _announce(config: Config, output: Output, at: Addresses, house: House) -> None:
    _show_first_key(config, output, at, house)
    addresses = at.url if at.tls_url is None else f"{at.url} and {at.tls_url}"
    output.progress(f"Freehold listens on {addresses} (data in {config.data_folder}); Ctrl-C stops it")
    if at.ca_file is not None:
        output.progress(
            f"For HTTPS, clients must trust {at.ca_file} (SSL_CERT_FILE, AWS_CA_BUNDLE, NODE_EXTRA_CA_CERTS)"
        )


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
